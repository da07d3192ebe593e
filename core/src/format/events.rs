//! Payloads of the frames that hold no records: origin, close and index (SPEC, section 6).
//!
//! Invariants: an origin is synced before any other frame of its boot; a close frame is the last of a clean stop.

use super::frame::{Frame, FrameFlags, FrameKind};
use super::header::ClockAnchor;
use super::row::{ItemReader, ItemWriter};
use serde::{Deserialize, Serialize};

/// How the boot before this one ended, as recovery saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PreviousEnd {
    /// There was none: the store is new.
    New,
    /// By a close frame.
    Clean,
    /// Without one.
    Cut,
    /// The manifest was lost, and rebuilt from the segments.
    Rebuilt,
}

/// What the first frame of a boot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Number of the boot: one more than any seen before.
    pub epoch: u32,
    /// The next sequence number that will be given out.
    pub first_seq: u64,
    /// Everything earlier in the log at or above this number is void (rule R).
    pub void_from: u64,
    /// Clock of the boot.
    pub anchor: ClockAnchor,
    /// Last manifest edit known durable.
    pub edit_no: u64,
    /// How many numbers may be handed out in RAM before the next synced frame.
    pub volatile_bound: u32,
    /// Highest number that was durable when this boot mounted the store.
    pub durable_upto: u64,
    /// How the boot before ended.
    pub previous_end: PreviousEnd,
    /// Bytes at the end of the log that did not verify and were not durable.
    pub torn_bytes: u32,
}

/// A copy of the last frame adopted from a compact log: its words may be metastable where power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameCopy<'a> {
    /// First sequence number of the copied frame.
    pub first_seq: u64,
    /// Number of its records.
    pub count: u32,
    /// Its flags: it may be part of a chain.
    pub flags: FrameFlags,
    /// Its position in the chain.
    pub part: u16,
    /// Its payload.
    pub payload: &'a [u8],
    /// Where that stands in the origin's payload; set by reading.
    pub at: usize,
}

impl FrameCopy<'_> {
    /// Last sequence number of the copied frame.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count)).saturating_sub(1)
    }

    /// The copied frame, as if it stood in the place of its origin.
    #[must_use]
    pub fn frame(&self, origin: &Frame) -> Frame {
        Frame {
            kind: FrameKind::Rows,
            flags: self.flags,
            part: self.part,
            first_seq: self.first_seq,
            count: self.count,
            payload_bytes: u32::try_from(self.payload.len()).unwrap_or(0),
            ..*origin
        }
    }
}

impl Origin {
    /// Writes the origin and, on a compact medium, the copy of the last frame.
    pub fn write(&self, copy: Option<&FrameCopy<'_>>, out: &mut ItemWriter<'_>) -> Option<()> {
        out.value(self)?;
        match copy {
            Some(copy) => {
                out.value(&(1u8, copy.first_seq, copy.count, copy.flags.bits(), copy.part))?;
                out.value(copy.payload)
            }
            None => out.bytes(&[0]),
        }
    }

    /// Reads what [`Self::write`] wrote.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<(Self, Option<FrameCopy<'_>>)> {
        let mut reader = ItemReader::new(payload);
        let origin: Self = reader.value()?;
        if reader.value::<u8>()? == 0 {
            return Some((origin, None));
        }
        let (first_seq, count, flags, part): (u64, u32, u8, u16) = reader.value()?;
        first_seq.checked_add(u64::from(count))?;
        let flags = FrameFlags::from_bits(flags);
        let copied: &[u8] = reader.value()?;
        let at = payload.len().checked_sub(reader.rest().len())?.checked_sub(copied.len())?;
        Some((origin, Some(FrameCopy { first_seq, count, flags, part, payload: copied, at })))
    }
}

/// What the last frame of a clean stop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The next sequence number.
    pub next_seq: u64,
    /// Last manifest edit known durable.
    pub edit_no: u64,
}

impl Close {
    /// Writes the payload.
    pub fn write(&self, out: &mut ItemWriter<'_>) -> Option<()> {
        out.value(self)
    }

    /// Reads what [`Self::write`] wrote.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        ItemReader::new(payload).value()
    }
}

/// One entry of a segment's index: what a run of consecutive frames holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Offset of the first frame of the run.
    pub offset: u32,
    /// First sequence number of the run.
    pub first_seq: u64,
    /// Bit `s` is set if a record of severity `s` is in the run.
    pub severities: u32,
    /// Bit `stream % 64` is set for each stream with a record in the run.
    pub streams: u64,
}

/// Writes an index payload.
pub fn write_index(entries: &[IndexEntry], out: &mut ItemWriter<'_>) -> Option<()> {
    out.value(&u16::try_from(entries.len()).ok()?)?;
    entries.iter().try_for_each(|entry| out.value(entry))
}

/// Reads an index payload; ends early if it is malformed.
pub fn read_index(payload: &[u8]) -> impl Iterator<Item = IndexEntry> + '_ {
    let mut reader = ItemReader::new(payload);
    let count = reader.value::<u16>().unwrap_or(0);
    (0..count).map_while(move |_| reader.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn origin() -> Origin {
        Origin {
            epoch: 3,
            first_seq: 10,
            void_from: 9,
            anchor: ClockAnchor { clock_epoch: 3, wall_us: 1_700_000_000_000_000, synchronised: false },
            edit_no: 4,
            volatile_bound: 0,
            durable_upto: 8,
            previous_end: PreviousEnd::Cut,
            torn_bytes: 512,
        }
    }

    #[test]
    fn an_origin_round_trips_with_and_without_a_copy() {
        let mut out = [0u8; 200];
        origin().write(None, &mut ItemWriter::new(&mut out)).unwrap();
        assert_eq!(Origin::read(&out), Some((origin(), None)));
        let copy = FrameCopy { first_seq: 7, count: 2, flags: FrameFlags::LAST, part: 3, payload: b"rows", at: 0 };
        origin().write(Some(&copy), &mut ItemWriter::new(&mut out)).unwrap();
        let (read, Some(copied)) = Origin::read(&out).unwrap() else { panic!() };
        assert_eq!((read, copied.payload), (origin(), copy.payload));
        assert_eq!((copied.flags, copied.part), (FrameFlags::LAST, 3));
        assert_eq!(&out[copied.at..][..4], b"rows");
    }

    #[test]
    fn an_index_round_trips() {
        let entries = [
            IndexEntry { offset: 512, first_seq: 1, severities: 1 << 9, streams: 1 },
            IndexEntry { offset: 9000, first_seq: 77, severities: 3, streams: 6 },
        ];
        let mut out = [0u8; 100];
        write_index(&entries, &mut ItemWriter::new(&mut out)).unwrap();
        assert!(read_index(&out).eq(entries));
    }
}
