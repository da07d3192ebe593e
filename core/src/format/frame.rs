//! Frames: the unit of writing and of adoption (SPEC, section 3).
//!
//! Invariants: a frame verifies only at its own place in its own life (see [`super::crc`]); a wide frame starts on a
//! torn unit and shares none with another frame; the last program word of a compact frame is its CRC, so a frame whose
//! programming was cut never verifies before that word is there.

use super::bytes::{put, round_up, u16_at, u32_at, u64_at};
use super::crc::{Crc32c, Life};
use crate::hal::Geometry;

/// Bytes of a wide frame's header.
pub const WIDE_HEADER_BYTES: u32 = 40;
/// Bytes of the checksum that ends a frame.
pub const CRC_BYTES: u32 = 4;
/// Bytes of a compact frame's header.
pub const COMPACT_HEADER_BYTES: u32 = 4;
/// Largest body of a compact frame, in frame units: the length field is 12 bits wide and all ones mean blank.
const COMPACT_UNITS_MAX: u32 = 0xFFE;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FrameKind {
    /// Records as they came.
    Rows,
    /// Records as compressed columns, sorted by stream.
    RowGroup,
    /// A sparse index of the segment it closes.
    Index,
    /// The first frame of a boot.
    Origin,
    /// A manifest edit, or with [`FrameFlags::BODY`] a part of a manifest's full state.
    Edit,
    /// The last frame of a clean stop.
    Close,
}

impl FrameKind {
    fn from_nibble(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Rows),
            2 => Some(Self::RowGroup),
            3 => Some(Self::Index),
            4 => Some(Self::Origin),
            5 => Some(Self::Edit),
            6 => Some(Self::Close),
            _ => None,
        }
    }

    fn nibble(self) -> u8 {
        match self {
            Self::Rows => 1,
            Self::RowGroup => 2,
            Self::Index => 3,
            Self::Origin => 4,
            Self::Edit => 5,
            Self::Close => 6,
        }
    }

    /// `true` for frames that hold records.
    #[must_use]
    pub fn holds_records(self) -> bool {
        matches!(self, Self::Rows | Self::RowGroup)
    }
}

/// Flags of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameFlags(u8);

impl FrameFlags {
    /// The frame begins a batch, or a manifest body.
    pub const FIRST: Self = Self(1);
    /// The frame ends a batch, or a manifest body.
    pub const LAST: Self = Self(2);
    /// Whole batches only.
    pub const WHOLE: Self = Self(3);
    /// The frame is part of a manifest's full state.
    pub const BODY: Self = Self(4);

    /// As a number.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From a number, as [`Self::bits`] gave it.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 0xF)
    }

    /// `true` if every flag of `other` is set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `true` if the frame is one part of a chain (a manifest body always is, be it of one part).
    #[must_use]
    pub fn is_part(self) -> bool {
        !self.has(Self::WHOLE) || self.has(Self::BODY)
    }
}

/// A frame's header, decoded; on a compact medium parts of it are inferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: FrameFlags,
    /// Position in its chain, from 0.
    pub part: u16,
    /// Bytes of payload (on a compact medium including zero padding).
    pub payload_bytes: u32,
    /// First sequence number; the edit number for edits; the next number for origin and close frames.
    pub first_seq: u64,
    /// Number of records.
    pub count: u32,
    /// Boot epoch of the writer.
    pub epoch: u32,
    /// Highest number known durable when it was written.
    pub durable_upto: u64,
    /// How many numbers may be handed out in RAM before the next synced frame.
    pub volatile_bound: u32,
}

impl Frame {
    /// The last sequence number; one less than the first if it holds no records.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count)).saturating_sub(1)
    }
}

/// How frames lie on a medium: derived from the geometry or from any segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Wide frames (torn unit of 512 or more), or compact ones.
    pub wide: bool,
    /// Frames start at multiples of this many bytes.
    pub frame_unit: u32,
    /// Bytes kept for the trailer at the end of a segment.
    pub reserve_bytes: u32,
    /// Size of a segment.
    pub segment_bytes: u32,
}

impl Layout {
    /// The layout for a medium.
    #[must_use]
    pub fn of(g: &Geometry) -> Self {
        let wide = g.is_wide();
        let frame_unit = if wide { g.torn_unit } else { g.write_unit.max(g.torn_unit).max(4) };
        let reserve_bytes = if wide { g.torn_unit } else { round_up(super::trailer::TRAILER_BYTES, frame_unit) };
        Self { wide, frame_unit, reserve_bytes, segment_bytes: g.segment_bytes }
    }

    /// Offset of the trailer.
    #[must_use]
    pub fn data_end(&self) -> u32 {
        self.segment_bytes.saturating_sub(self.reserve_bytes)
    }

    /// Bytes a frame with this much payload takes on the medium.
    #[must_use]
    pub fn frame_bytes(&self, payload_bytes: u32) -> u32 {
        if self.wide {
            round_up(payload_bytes.saturating_add(WIDE_HEADER_BYTES + CRC_BYTES), self.frame_unit)
        } else {
            round_up(payload_bytes.saturating_add(COMPACT_HEADER_BYTES + 1), self.frame_unit)
                .saturating_add(self.frame_unit)
        }
    }

    /// The largest payload of a frame that takes at most `room` bytes; 0 if none fits.
    #[must_use]
    pub fn payload_max(&self, room: u32) -> u32 {
        if self.wide {
            let units = room.checked_div(self.frame_unit).unwrap_or(0);
            units.saturating_mul(self.frame_unit).saturating_sub(WIDE_HEADER_BYTES + CRC_BYTES)
        } else {
            let units = room.checked_div(self.frame_unit).unwrap_or(0).saturating_sub(1).min(COMPACT_UNITS_MAX);
            units.saturating_mul(self.frame_unit).saturating_sub(COMPACT_HEADER_BYTES + 2)
        }
    }

    /// Offset of the payload in an encoded frame.
    #[must_use]
    pub fn payload_at(&self, flags: FrameFlags) -> u32 {
        match (self.wide, flags.is_part()) {
            (true, _) => WIDE_HEADER_BYTES,
            (false, false) => COMPACT_HEADER_BYTES + 1,
            (false, true) => COMPACT_HEADER_BYTES + 2,
        }
    }

    /// Completes the frame in `out`, whose payload already stands at [`Self::payload_at`]; the padding is zeroed.
    ///
    /// Returns the bytes the frame takes, or `None` if it does not fit.
    pub fn seal(&self, out: &mut [u8], frame: &Frame, life: &Life, offset: u32) -> Option<u32> {
        if self.wide { self.seal_wide(out, frame, life, offset) } else { self.seal_compact(out, frame, life, offset) }
    }

    fn seal_wide(&self, out: &mut [u8], frame: &Frame, life: &Life, offset: u32) -> Option<u32> {
        let total = self.frame_bytes(frame.payload_bytes);
        let out = out.get_mut(..usize::try_from(total).ok()?)?;
        put(out, 0, &[frame.kind.nibble(), frame.flags.0])?;
        put(out, 2, &frame.part.to_le_bytes())?;
        put(out, 4, &frame.payload_bytes.to_le_bytes())?;
        put(out, 8, &frame.first_seq.to_le_bytes())?;
        put(out, 16, &frame.durable_upto.to_le_bytes())?;
        put(out, 24, &frame.count.to_le_bytes())?;
        put(out, 28, &frame.epoch.to_le_bytes())?;
        put(out, 32, &frame.volatile_bound.to_le_bytes())?;
        let mut crc = life.seeded(offset);
        crc.update(out.get(..36)?);
        put(out, 36, &crc.finish().to_le_bytes())?;
        let end = usize::try_from(frame.payload_bytes.checked_add(WIDE_HEADER_BYTES)?).ok()?;
        let sum = wide_crc(life, offset, out, end)?;
        put(out, end, &sum.to_le_bytes())?;
        out.get_mut(end.checked_add(4)?..)?.fill(0);
        Some(total)
    }

    fn seal_compact(&self, out: &mut [u8], frame: &Frame, life: &Life, offset: u32) -> Option<u32> {
        let payload_at = self.payload_at(frame.flags);
        let end = frame.payload_bytes.checked_add(payload_at)?;
        let body = round_up(end, self.frame_unit);
        let total = body.checked_add(self.frame_unit)?;
        let units = body.checked_div(self.frame_unit)?;
        if units > COMPACT_UNITS_MAX {
            return None;
        }
        let out = out.get_mut(..usize::try_from(total).ok()?)?;
        out.get_mut(usize::try_from(end).ok()?..usize::try_from(body).ok()?)?.fill(0);
        put(out, 4, &[frame.kind.nibble() | (frame.flags.0 << 4)])?;
        if frame.flags.is_part() {
            put(out, 5, &[u8::try_from(frame.part).ok()?])?;
        }
        put(out, 0, &CompactWord::new(units, frame).0.to_le_bytes())?;
        let (crc_word, body) = (usize::try_from(body).ok()?, out.get(..usize::try_from(body).ok()?)?);
        let sum = compact_crc(life, offset, frame.kind, frame.first_seq, frame.epoch, body);
        put(out, crc_word, &sum.to_le_bytes())?;
        out.get_mut(crc_word.checked_add(4)?..)?.fill(0);
        Some(total)
    }
}

/// Compact frames of records carry their sequence number and epoch only in the seed of their checksum; the others
/// say in their payload what they need, so that they verify without any context.
/// Checksum of a wide frame up to `end`, its header's own check left out: a checksum that runs over bytes and then over
/// the checksum of these bytes forgets them, and its seed, so any old payload of this length would pass under any
/// header.
fn wide_crc(life: &Life, offset: u32, bytes: &[u8], end: usize) -> Option<u32> {
    let mut crc = life.seeded(offset);
    crc.update(bytes.get(..36)?);
    crc.update(bytes.get(40..end)?);
    Some(crc.finish())
}

fn compact_crc(life: &Life, offset: u32, kind: FrameKind, first_seq: u64, epoch: u32, body: &[u8]) -> u32 {
    let (first_seq, epoch) = if kind.holds_records() { (first_seq, epoch) } else { (0, 0) };
    let mut crc: Crc32c = life.seeded(offset);
    crc.update(&first_seq.to_le_bytes());
    crc.update(&epoch.to_le_bytes());
    crc.update(body);
    crc.finish()
}

/// The header word of a compact frame: length 12 bits, low 10 bits of the sequence number, low 4 of the epoch, check 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CompactWord(u32);

impl CompactWord {
    fn new(units: u32, frame: &Frame) -> Self {
        let (seq, epoch) = if frame.kind.holds_records() { (frame.first_seq, frame.epoch) } else { (0, 0) };
        let seq_low = u32::try_from(seq & 0x3FF).unwrap_or(0);
        let word = (units & 0xFFF) | (seq_low << 12) | ((epoch & 0xF) << 22);
        Self(word | (Self::check(word) << 26))
    }

    fn parse(word: u32) -> Option<Self> {
        let low = word & 0x03FF_FFFF;
        let units = low & 0xFFF;
        (word >> 26 == Self::check(low) && units != 0 && units <= COMPACT_UNITS_MAX).then_some(Self(word))
    }

    /// A 6-bit fold of a multiplicative hash (Knuth's constant): only to skip most checksum attempts on noise.
    fn check(low: u32) -> u32 {
        low.wrapping_mul(0x9E37_79B1) >> 26
    }

    fn units(self) -> u32 {
        self.0 & 0xFFF
    }

    fn seq_low(self) -> u64 {
        u64::from((self.0 >> 12) & 0x3FF)
    }

    fn epoch_low(self) -> u32 {
        (self.0 >> 22) & 0xF
    }
}

/// What a compact frame's seed is inferred from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// No earlier sequence number can follow here.
    pub seq: u64,
    /// No earlier epoch can follow here.
    pub epoch: u32,
    /// Of the boot that wrote here.
    pub volatile_bound: u32,
}

/// What the first bytes at an offset claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Not a frame header of this life.
    Nothing,
    /// Erased bytes (compact media only).
    Blank,
    /// A frame that takes this many bytes, to be verified.
    Frame {
        /// Bytes to read for [`Layout::verify`].
        frame_bytes: u32,
        /// The header, as far as it can be known without the payload.
        frame: Option<Frame>,
    },
}

impl Layout {
    /// Bytes [`Self::claim`] looks at.
    #[must_use]
    pub fn claim_bytes(&self) -> u32 {
        if self.wide { WIDE_HEADER_BYTES } else { COMPACT_HEADER_BYTES }
    }

    /// Reads the header at `offset` from `bytes`.
    #[must_use]
    pub fn claim(&self, bytes: &[u8], life: &Life, offset: u32) -> Claim {
        let claim = if self.wide { self.claim_wide(bytes, life, offset) } else { self.claim_compact(bytes) };
        match claim {
            Some(Claim::Frame { frame_bytes, .. })
                if offset.checked_add(frame_bytes).is_none_or(|end| end > self.data_end()) =>
            {
                Claim::Nothing
            }
            Some(claim) => claim,
            None => Claim::Nothing,
        }
    }

    fn claim_wide(&self, bytes: &[u8], life: &Life, offset: u32) -> Option<Claim> {
        let head = bytes.get(..40)?;
        let mut crc = life.seeded(offset);
        crc.update(head.get(..36)?);
        if crc.finish() != u32_at(head, 36)? {
            return None;
        }
        let payload_bytes = u32_at(head, 4)?;
        let frame = Frame {
            kind: FrameKind::from_nibble(*head.first()?)?,
            flags: FrameFlags(*head.get(1)?),
            part: u16_at(head, 2)?,
            payload_bytes,
            first_seq: u64_at(head, 8)?,
            durable_upto: u64_at(head, 16)?,
            count: u32_at(head, 24)?,
            epoch: u32_at(head, 28)?,
            volatile_bound: u32_at(head, 32)?,
        };
        frame.first_seq.checked_add(u64::from(frame.count))?;
        Some(Claim::Frame { frame_bytes: self.frame_bytes(payload_bytes), frame: Some(frame) })
    }

    fn claim_compact(&self, bytes: &[u8]) -> Option<Claim> {
        let word = u32_at(bytes, 0)?;
        if word == u32::MAX {
            return Some(Claim::Blank);
        }
        let units = CompactWord::parse(word)?.units();
        let frame_bytes = units.checked_add(1)?.checked_mul(self.frame_unit)?;
        Some(Claim::Frame { frame_bytes, frame: None })
    }

    /// Verifies the whole frame in `bytes`; returns it and its payload.
    ///
    /// On a compact medium `count` is left 0, and so are `first_seq` and `epoch` of frames that hold no records: they
    /// stand in the payload.
    #[must_use]
    pub fn verify<'b>(&self, bytes: &'b [u8], life: &Life, offset: u32, want: Expected) -> Option<(Frame, &'b [u8])> {
        if self.wide { self.verify_wide(bytes, life, offset) } else { self.verify_compact(bytes, life, offset, want) }
    }

    fn verify_wide<'b>(&self, bytes: &'b [u8], life: &Life, offset: u32) -> Option<(Frame, &'b [u8])> {
        let Some(Claim::Frame { frame: Some(frame), .. }) = self.claim_wide(bytes, life, offset) else { return None };
        let end = usize::try_from(frame.payload_bytes.checked_add(WIDE_HEADER_BYTES)?).ok()?;
        if wide_crc(life, offset, bytes, end)? != u32_at(bytes, end)? {
            return None;
        }
        Some((frame, bytes.get(40..end)?))
    }

    fn verify_compact<'b>(
        &self,
        bytes: &'b [u8],
        life: &Life,
        offset: u32,
        want: Expected,
    ) -> Option<(Frame, &'b [u8])> {
        let word = CompactWord::parse(u32_at(bytes, 0)?)?;
        let body_end = usize::try_from(word.units().checked_mul(self.frame_unit)?).ok()?;
        let body = bytes.get(..body_end)?;
        let tag = *body.get(4)?;
        let kind = FrameKind::from_nibble(tag & 0xF)?;
        let flags = FrameFlags(tag >> 4);
        let first_seq = if kind.holds_records() { next_with_low(want.seq, word.seq_low(), 0x3FF)? } else { 0 };
        let epoch = match kind.holds_records() {
            true => u32::try_from(next_with_low(u64::from(want.epoch), u64::from(word.epoch_low()), 0xF)?).ok()?,
            false => 0,
        };
        if compact_crc(life, offset, kind, first_seq, epoch, body) != u32_at(bytes, body_end)? {
            return None;
        }
        let part = if flags.is_part() { u16::from(*body.get(5)?) } else { 0 };
        let payload = body.get(usize::try_from(self.payload_at(flags)).ok()?..)?;
        let frame = Frame {
            kind,
            flags,
            part,
            payload_bytes: u32::try_from(payload.len()).ok()?,
            first_seq,
            count: 0,
            epoch,
            // What stands before a programmed frame was programmed before it; a part of a chain proves nothing.
            durable_upto: if kind.holds_records() && flags.has(FrameFlags::FIRST) {
                first_seq.saturating_sub(1)
            } else {
                0
            },
            volatile_bound: if kind.holds_records() { want.volatile_bound } else { 0 },
        };
        Some((frame, payload))
    }
}

/// The smallest number >= `from` whose low bits (under `mask`) are `low`.
fn next_with_low(from: u64, low: u64, mask: u64) -> Option<u64> {
    from.checked_add(low.wrapping_sub(from) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::vec;
    use std::vec::Vec;

    fn layout(torn_unit: u32) -> Layout {
        Layout::of(&Geometry {
            segments: 8,
            segment_bytes: 16 << 10,
            write_unit: torn_unit,
            read_unit: 1,
            torn_unit,
            erased: None,
            erase_block_bytes: 1,
            worst_busy: Duration::ZERO,
            ordered: false,
        })
    }

    const LIFE: Life = Life { store_id: 7, segment: 2, generation: 5 };

    fn rows(payload: &[u8], flags: FrameFlags) -> Frame {
        Frame {
            kind: FrameKind::Rows,
            flags,
            part: 0,
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            first_seq: 5000,
            count: 1,
            epoch: 33,
            durable_upto: 4999,
            volatile_bound: 0,
        }
    }

    fn sealed(l: &Layout, payload: &[u8], frame: &Frame, offset: u32) -> Vec<u8> {
        let mut out = vec![0xEE; 8192];
        let at = l.payload_at(frame.flags) as usize;
        out[at..at + payload.len()].copy_from_slice(payload);
        let n = l.seal(&mut out, frame, &LIFE, offset).unwrap();
        assert_eq!(n, l.frame_bytes(frame.payload_bytes).max(n));
        out.truncate(n as usize);
        out
    }

    const WANT: Expected = Expected { seq: 4990, epoch: 30, volatile_bound: 0 };

    #[test]
    fn an_old_payload_does_not_pass_under_a_new_header() {
        let l = layout(512);
        let old = sealed(&l, &[1; 1000], &rows(&[1; 1000], FrameFlags::WHOLE), 4096);
        let newer = Life { generation: 6, ..LIFE };
        let mut torn = old.clone();
        l.seal(&mut torn, &Frame { first_seq: 6000, ..rows(&[1; 1000], FrameFlags::WHOLE) }, &newer, 4096).unwrap();
        torn[40..].copy_from_slice(&old[40..]); // only the header reached the medium
        assert!(matches!(l.claim(&torn, &newer, 4096), Claim::Frame { .. }), "the header is whole");
        assert!(l.verify(&torn, &newer, 4096, WANT).is_none());
    }

    #[test]
    fn frames_of_both_widths_round_trip_at_their_place_only() {
        for unit in [4, 8, 32, 512, 4096] {
            let l = layout(unit);
            let payload = [3u8; 61];
            let frame = rows(&payload, FrameFlags::WHOLE);
            let bytes = sealed(&l, &payload, &frame, 4096);
            let Claim::Frame { frame_bytes, .. } = l.claim(&bytes, &LIFE, 4096) else { panic!("unit {unit}") };
            assert_eq!(frame_bytes as usize, bytes.len());
            let (got, body) = l.verify(&bytes, &LIFE, 4096, WANT).unwrap();
            assert_eq!((got.first_seq, got.epoch, got.durable_upto), (5000, 33, 4999));
            assert_eq!(&body[..61], &payload);
            assert!(body[61..].iter().all(|b| *b == 0));
            assert!(l.verify(&bytes, &LIFE, 4096 + unit, WANT).is_none());
            assert!(l.verify(&bytes, &Life { generation: 6, ..LIFE }, 4096, WANT).is_none());
        }
    }

    #[test]
    fn a_compact_frame_costs_eight_bytes_over_a_payload_that_counts_its_kind() {
        assert_eq!(layout(4).frame_bytes(63), 72);
    }

    #[test]
    fn a_payload_of_another_life_does_not_verify_behind_a_new_header() {
        let l = layout(512);
        let (old, new) = (Life { generation: 4, ..LIFE }, LIFE);
        let seal = |life: &Life, byte: u8| {
            let mut out = vec![0; 512];
            out[40..101].fill(byte);
            l.seal(&mut out, &rows(&[byte; 61], FrameFlags::WHOLE), life, 512).unwrap();
            out
        };
        let (before, mut torn) = (seal(&old, 1), seal(&new, 2));
        assert!(l.verify(&torn, &new, 512, WANT).is_some());
        torn[40..].copy_from_slice(&before[40..]);
        assert!(l.verify(&torn, &new, 512, WANT).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        for unit in [4, 512] {
            let l = layout(unit);
            let payload = [9u8; 33];
            let frame = rows(&payload, FrameFlags::WHOLE);
            let bytes = sealed(&l, &payload, &frame, 512);
            let covered = if l.wide { 40 + 33 + 4 } else { bytes.len() };
            for bit in 0..covered * 8 {
                let mut hit = bytes.clone();
                hit[bit / 8] ^= 1 << (bit % 8);
                assert!(l.verify(&hit, &LIFE, 512, WANT).is_none(), "unit {unit} bit {bit}");
            }
        }
    }

    #[test]
    fn the_largest_payload_fits_and_one_more_byte_does_not() {
        for unit in [4, 8, 512] {
            let l = layout(unit);
            for room in (0..3000).step_by(unit as usize) {
                let max = l.payload_max(room);
                if max > 0 {
                    assert!(l.frame_bytes(max) <= room, "unit {unit} room {room}");
                }
            }
        }
    }

    #[test]
    fn blank_flash_claims_nothing() {
        assert_eq!(layout(4).claim(&[0xFF; 4], &LIFE, 0), Claim::Blank);
        assert_eq!(layout(4).claim(&[0x00; 4], &LIFE, 0), Claim::Nothing);
        assert_eq!(layout(512).claim(&[0x00; 40], &LIFE, 0), Claim::Nothing);
    }
}
