//! The header that opens every segment: 64 fixed bytes, then metadata (SPEC, section 2).
//!
//! Invariants: it is written once per life of a segment and synced before the first frame; every field of the metadata
//! has a fixed offset, later minor versions only append; any one valid header gives the geometry of the whole store.

use super::bytes::{i64_at, put, round_up, u8_at, u16_at, u32_at, u64_at};
use super::crc::{Crc32c, Life};

/// The first eight bytes of every segment.
pub const MAGIC: [u8; 8] = *b"LASTGASP";
/// Length of the fixed part.
pub const FIXED_BYTES: u32 = 64;
/// Format version this code writes: major.
pub const VERSION_MAJOR: u8 = 0;
/// Format version this code writes: minor.
pub const VERSION_MINOR: u8 = 1;
/// Retention classes a header has room for.
pub const CLASSES_MAX: usize = 4;
/// Floors of a store: one per retention class, then that of the log.
pub const FLOORS: usize = CLASSES_MAX + 1;
/// Which of the floors is the log's.
pub const LOG_FLOOR: usize = CLASSES_MAX;
/// Smallest segment in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 1024;
/// Largest number of segments in a store.
pub const SEGMENTS_MAX: u32 = 16_384;
/// Smallest number of segments in a store.
pub const SEGMENTS_MIN: u32 = 8;

/// Metadata up to and with the first floor; the floors of further classes follow.
const METADATA_BYTES: u32 = 104;
/// Largest header with its metadata that this version writes.
pub const HEADER_BYTES_MAX: u32 = FIXED_BYTES + METADATA_BYTES + 8 * 4;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SegmentKind {
    /// Frames of the log.
    Log,
    /// Row groups of one retention class.
    Table,
    /// One of the two manifest slots.
    Manifest,
}

impl SegmentKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Log),
            2 => Some(Self::Table),
            3 => Some(Self::Manifest),
            _ => None, // 4 is reserved for arrow-ipc
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Table => 2,
            Self::Manifest => 3,
        }
    }
}

/// Ties the monotonic offsets of one clock epoch to the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ClockAnchor {
    /// Number of the clock epoch: one per boot and per step of the wall clock.
    pub clock_epoch: u32,
    /// Wall clock, in microseconds since 1970, at monotonic offset 0 of the epoch.
    pub wall_us: i64,
    /// `true` if the wall clock was synchronised.
    pub synchronised: bool,
}

/// A decoded segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What the segment holds.
    pub kind: SegmentKind,
    /// Random number given to the store at format.
    pub store_id: u64,
    /// Number of this segment.
    pub segment: u32,
    /// Number of segments in the store.
    pub segments: u32,
    /// Size of a segment in bytes.
    pub segment_bytes: u32,
    /// Unit that a cut can destroy, in bytes.
    pub torn_unit: u32,
    /// Unit of writes, in bytes.
    pub write_unit: u32,
    /// Generation this life of the segment was announced under.
    pub generation: u64,
    /// Boot epoch that opened the segment.
    pub epoch: u32,
    /// How often the segment was erased.
    pub erase_count: u32,
    /// First sequence number that can stand in it; of a table, that it covers.
    pub first_seq: u64,
    /// Everything earlier in the log at or above this number is void (rule R). Of a table: its class.
    pub void_from: u64,
    /// Last manifest edit known durable when this header was written.
    pub edit_no: u64,
    /// Highest sequence number known durable when this header was written.
    pub durable_upto: u64,
    /// Clock anchor of the running clock epoch.
    pub anchor: ClockAnchor,
    /// How many numbers the boot that opened the segment may hand out in RAM before the next synced frame.
    pub volatile_bound: u32,
    /// Below its class's floor a record is gone, and below the last one it is not in the log any more. Where only one
    /// is written, it stands for all.
    pub floor_seq: [u64; FLOORS],
    /// How many floors are written (1 on NOR, 5 elsewhere).
    pub floors: u8,
    /// Compression of the segment's row groups: 0 none, 1 LZ4; others by `Codec`.
    pub codec: u8,
    /// Number of bytes at the fixed end kept for the trailer.
    pub reserve_bytes: u32,
    /// Bytes of metadata behind those that this version knows.
    pub later_bytes: u16,
}

/// Why bytes are not a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum HeaderError {
    /// The magic is not there: foreign or blank.
    NotOurs,
    /// The magic is there, the rest does not verify.
    Damaged,
    /// It verifies, but a newer major version wrote it.
    NewerVersion {
        /// The major version found.
        major: u8,
    },
}

impl SegmentHeader {
    /// Bytes of header and metadata, before padding.
    #[must_use]
    pub fn encoded_bytes(&self) -> u32 {
        FIXED_BYTES.saturating_add(self.metadata_bytes())
    }

    fn metadata_bytes(&self) -> u32 {
        let floors = u32::from(self.floors.clamp(1, 5)).saturating_sub(1).saturating_mul(8);
        METADATA_BYTES.saturating_add(floors).saturating_add(u32::from(self.later_bytes))
    }

    /// Offset of the first frame: the end of the header, rounded up to a torn unit, or to a word.
    #[must_use]
    pub fn data_start(&self) -> u32 {
        round_up(self.encoded_bytes(), self.torn_unit.max(self.write_unit).max(4))
    }

    /// Offset of the trailer, where frames end.
    #[must_use]
    pub fn data_end(&self) -> u32 {
        self.segment_bytes.saturating_sub(self.reserve_bytes)
    }

    /// What checksums in this segment are seeded with.
    #[must_use]
    pub fn life(&self) -> Life {
        let life = Life { store_id: self.store_id, segment: self.segment, generation: self.generation };
        if self.kind == SegmentKind::Table { life.of_table() } else { life }
    }

    /// Encodes into the front of `out`, zero-filling it; returns the length, or `None` if `out` is too short.
    pub fn encode(&self, out: &mut [u8]) -> Option<u32> {
        let len = self.encoded_bytes();
        let bytes = out.get_mut(..usize::try_from(len).ok()?)?;
        bytes.fill(0);
        put(bytes, 0x00, &MAGIC)?;
        put(bytes, 0x08, &u64::from(FIXED_BYTES).to_le_bytes())?;
        put(bytes, 0x10, &u16::try_from(self.metadata_bytes()).ok()?.to_le_bytes())?;
        put(bytes, 0x18, &u64::from(self.data_end()).to_le_bytes())?;
        put(bytes, 0x20, &u64::from(self.reserve_bytes).to_le_bytes())?;
        put(bytes, 0x28, &u64::from(self.segment_bytes).to_le_bytes())?;
        self.encode_metadata(bytes.get_mut(0x40..)?)?;
        let mut crc = Crc32c::plain();
        crc.update(bytes);
        put(bytes, 0x14, &crc.finish().to_le_bytes())?;
        Some(len)
    }

    fn encode_metadata(&self, m: &mut [u8]) -> Option<()> {
        put(m, 0x00, &[VERSION_MAJOR, VERSION_MINOR, self.kind.byte(), self.codec])?;
        put(m, 0x04, &self.segment.to_le_bytes())?;
        put(m, 0x08, &self.store_id.to_le_bytes())?;
        put(m, 0x10, &self.generation.to_le_bytes())?;
        put(m, 0x18, &self.segments.to_le_bytes())?;
        put(m, 0x1C, &self.segment_bytes.to_le_bytes())?;
        put(m, 0x20, &self.torn_unit.to_le_bytes())?;
        put(m, 0x24, &self.epoch.to_le_bytes())?;
        put(m, 0x28, &self.erase_count.to_le_bytes())?;
        put(m, 0x2C, &u16::try_from(self.write_unit).ok()?.to_le_bytes())?;
        put(m, 0x2E, &[self.floors, u8::from(self.anchor.synchronised)])?;
        put(m, 0x30, &self.first_seq.to_le_bytes())?;
        put(m, 0x38, &self.void_from.to_le_bytes())?;
        put(m, 0x40, &self.edit_no.to_le_bytes())?;
        put(m, 0x48, &self.durable_upto.to_le_bytes())?;
        put(m, 0x50, &self.anchor.wall_us.to_le_bytes())?;
        put(m, 0x58, &self.anchor.clock_epoch.to_le_bytes())?;
        put(m, 0x5C, &self.volatile_bound.to_le_bytes())?;
        for (i, floor) in self.floor_seq.iter().take(usize::from(self.floors.clamp(1, 5))).enumerate() {
            put(m, i.saturating_mul(8).saturating_add(0x60), &floor.to_le_bytes())?;
        }
        Some(())
    }

    /// Decodes the header at the front of `bytes`.
    ///
    /// `bytes` may be longer than the header; if it is shorter than the header says, it counts as damaged.
    ///
    /// # Errors
    /// [`HeaderError`]: nothing is assumed of the input.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.get(..8) != Some(&MAGIC[..]) {
            return Err(HeaderError::NotOurs);
        }
        Self::decode_ours(bytes).ok_or(HeaderError::Damaged)?
    }

    fn decode_ours(bytes: &[u8]) -> Option<Result<Self, HeaderError>> {
        let metadata_at = usize::try_from(u64_at(bytes, 0x08)?).ok()?;
        if metadata_at != 64 {
            return None; // where the metadata begins is where frames are counted from
        }
        let metadata_len = usize::from(u16_at(bytes, 0x10)?);
        let end = metadata_at.checked_add(metadata_len)?;
        let sum = u32_at(bytes, 0x14)?;
        let mut crc = Crc32c::plain();
        crc.update(bytes.get(..0x14)?);
        crc.update(&[0; 4]);
        crc.update(bytes.get(0x18..end)?);
        if crc.finish() != sum {
            return None;
        }
        let m = bytes.get(metadata_at..end)?;
        let major = u8_at(m, 0)?;
        if major > VERSION_MAJOR {
            return Some(Err(HeaderError::NewerVersion { major }));
        }
        let mut header = Self::decode_metadata(m, bytes)?;
        let known = usize::try_from(header.metadata_bytes()).ok()?;
        header.later_bytes = u16::try_from(metadata_len.checked_sub(known)?).ok()?;
        header.is_sane().then_some(Ok(header))
    }

    fn decode_metadata(m: &[u8], fixed: &[u8]) -> Option<Self> {
        let floors = u8_at(m, 0x2E)?;
        let mut floor_seq = [u64_at(m, 0x60)?; FLOORS];
        for (i, floor) in floor_seq.iter_mut().enumerate().take(usize::from(floors)) {
            *floor = u64_at(m, i.checked_mul(8)?.checked_add(0x60)?)?;
        }
        Some(Self {
            kind: SegmentKind::from_byte(u8_at(m, 2)?)?,
            codec: u8_at(m, 3)?,
            segment: u32_at(m, 0x04)?,
            store_id: u64_at(m, 0x08)?,
            generation: u64_at(m, 0x10)?,
            segments: u32_at(m, 0x18)?,
            segment_bytes: u32_at(m, 0x1C)?,
            torn_unit: u32_at(m, 0x20)?,
            epoch: u32_at(m, 0x24)?,
            erase_count: u32_at(m, 0x28)?,
            write_unit: u32::from(u16_at(m, 0x2C)?),
            first_seq: u64_at(m, 0x30)?,
            void_from: u64_at(m, 0x38)?,
            edit_no: u64_at(m, 0x40)?,
            durable_upto: u64_at(m, 0x48)?,
            anchor: ClockAnchor {
                wall_us: i64_at(m, 0x50)?,
                clock_epoch: u32_at(m, 0x58)?,
                synchronised: u8_at(m, 0x2F)? != 0,
            },
            volatile_bound: u32_at(m, 0x5C)?,
            floor_seq,
            floors,
            reserve_bytes: u32::try_from(u64_at(fixed, 0x20)?).ok()?,
            later_bytes: 0,
        })
    }

    /// A checksum can be right by design of an attacker: numbers that would make no store are refused.
    fn is_sane(&self) -> bool {
        (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&self.segments)
            && self.segment < self.segments
            && self.segment_bytes >= SEGMENT_BYTES_MIN
            && (1..=65_536).contains(&self.torn_unit)
            && (1..=4096).contains(&self.write_unit)
            && self.segment_bytes.is_multiple_of(self.torn_unit)
            && self.torn_unit.is_multiple_of(self.write_unit)
            && (1..=5).contains(&self.floors)
            && self.reserve_bytes >= super::trailer::TRAILER_BYTES
            && self.data_start() < self.data_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Log,
            store_id: 0x1122_3344_5566_7788,
            segment: 3,
            segments: 32,
            segment_bytes: 1 << 16,
            torn_unit: 512,
            write_unit: 512,
            generation: 9,
            epoch: 2,
            erase_count: 1,
            first_seq: 100,
            void_from: 99,
            edit_no: 7,
            durable_upto: 98,
            anchor: ClockAnchor { clock_epoch: 2, wall_us: -5, synchronised: true },
            volatile_bound: 5,
            floor_seq: [4, 3, 2, 1, 5],
            floors: 5,
            codec: 1,
            reserve_bytes: 512,
            later_bytes: 0,
        }
    }

    #[test]
    fn a_header_round_trips() {
        let mut out = [0u8; 256];
        let len = sample().encode(&mut out).unwrap();
        assert_eq!(len, HEADER_BYTES_MAX);
        assert_eq!(SegmentHeader::decode(&out), Ok(sample()));
    }

    #[test]
    fn one_floor_fits_54_records_of_72_bytes_into_4_kib() {
        let header = SegmentHeader { floors: 1, torn_unit: 4, write_unit: 4, reserve_bytes: 32, ..sample() };
        assert!((4096 - 32 - header.data_start()) / 72 >= 54);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut out = [0u8; 256];
        let len = sample().encode(&mut out).unwrap() as usize;
        for bit in 0..len * 8 {
            let mut hit = out;
            hit[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&hit).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut out = [0u8; 256];
        let len = sample().encode(&mut out).unwrap() as usize;
        for n in 0..len {
            assert!(SegmentHeader::decode(&out[..n]).is_err(), "{n} bytes");
        }
    }

    #[test]
    fn fields_appended_by_a_later_minor_version_are_skipped() {
        let mut out = [0u8; 256];
        let len = sample().encode(&mut out).unwrap() as usize;
        let before = SegmentHeader::decode(&out).unwrap().data_start();
        out[0x10] += 8;
        out[0x41] += 1;
        out[0x14..0x18].fill(0);
        let mut crc = Crc32c::plain();
        crc.update(&out[..len + 8]);
        let sum = crc.finish();
        out[0x14..0x18].copy_from_slice(&sum.to_le_bytes());
        let header = SegmentHeader::decode(&out).unwrap();
        assert_eq!(header, SegmentHeader { later_bytes: 8, ..sample() });
        assert_eq!(header.data_start(), before, "frames begin behind what this version cannot read");
        let compact = SegmentHeader { torn_unit: 4, write_unit: 4, ..header };
        assert_eq!(compact.data_start(), HEADER_BYTES_MAX + 8);
    }

    #[test]
    fn a_newer_major_version_is_named() {
        let mut out = [0u8; 256];
        let len = sample().encode(&mut out).unwrap() as usize;
        out[0x40] = VERSION_MAJOR + 1;
        out[0x14..0x18].fill(0);
        let mut crc = Crc32c::plain();
        crc.update(&out[..len]);
        let sum = crc.finish();
        out[0x14..0x18].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&out), Err(HeaderError::NewerVersion { major: VERSION_MAJOR + 1 }));
    }
}
