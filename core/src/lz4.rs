//! The LZ4 block format: a greedy encoder over the caller's hash table, and a decoder for hostile input.
//!
//! Blocks are bare: no frame, no length, no checksum; those are the caller's. Any LZ4 tool that handles bare blocks
//! reads what [`Encoder`] writes, and [`decompress`] reads what such a tool writes.
//!
//! Nothing here panics, whatever the bytes: positions move by wrapping arithmetic and every access is a checked one,
//! so that a wrong position is an error or a missed match. Short copies move a fixed 16 or 18 bytes (compilers make
//! register moves of them) where both sides have the room; what this writes too much, the next copy overwrites.

// Bytes that are decoded here may be anything: no arithmetic that can wrap or panic, no slice that can be out of range.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use core::fmt;

/// The shortest match the format can express.
const MIN_MATCH: usize = 4;
/// The last bytes of a block that are always literals.
const LAST_LITERALS: usize = 5;
/// The last match starts at least this far before the end of the block.
const MATCH_START_MARGIN: usize = 12;
/// The farthest a match may reach back.
const MAX_OFFSET: usize = 0xFFFF;
/// The largest literal count or match length that the token alone holds; 15 says that more bytes follow.
const NIBBLE_MAX: usize = 14;
/// Every 2^this misses in a row, the search strides one byte further.
const SKIP_SHIFT: usize = 5;
/// The smallest part of the table that a block uses.
const MIN_SLOTS: usize = 256;

/// The largest packed length of `raw_len` bytes: an `out` of this length never makes [`Encoder::compress`] fail.
#[must_use]
pub const fn bound(raw_len: usize) -> usize {
    raw_len.saturating_add(raw_len / 255).saturating_add(16)
}

/// A block encoder over a hash table in the caller's memory.
///
/// It carries nothing from one block to the next: the same bytes with a table of the same length pack to the same
/// block, on every target.
#[derive(Debug)]
pub struct Encoder<'t> {
    table: &'t mut [u32],
}

impl<'t> Encoder<'t> {
    /// An encoder over `table`, whose contents do not matter.
    ///
    /// Its length should be a power of two from 256 up; 4096 is typical, 1024 packs some 4 % worse, 256 some 25 %
    /// (but as well in blocks of 4 KiB). Of another length the largest power of two within is used, and an empty table
    /// packs to literals only.
    #[must_use]
    pub fn new(table: &'t mut [u32]) -> Self {
        Self { table }
    }

    /// Packs `raw` into `out` as one block; returns the packed length, or `None` if it does not fit.
    ///
    /// A caller that stores incompressible blocks raw passes an `out` shorter than `raw`: the encoder then gives up
    /// as soon as packing does not pay. After `None`, what `out` holds is of no use.
    pub fn compress(&mut self, raw: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut sink = Sink { out, at: 0 };
        // The table counts positions in 32 bits; a block that is larger has no place here.
        u32::try_from(raw.len()).ok()?;
        let anchor = match raw.len().checked_sub(MATCH_START_MARGIN) {
            Some(last_start) => self.sequences(raw, last_start, &mut sink)?,
            None => 0,
        };
        sink.last_literals(raw.get(anchor..)?)?;
        Some(sink.at)
    }

    /// Packs all sequences that have a match; returns where the literals after the last one start.
    fn sequences(&mut self, raw: &[u8], last_start: usize, sink: &mut Sink) -> Option<usize> {
        // A short block uses (and clears) a part of the table only.
        let wanted = raw.len().next_power_of_two().max(MIN_SLOTS).min(self.table.len());
        let Some(bits) = wanted.checked_ilog2() else { return Some(0) };
        let table = self.table.get_mut(..1_usize.wrapping_shl(bits))?;
        table.fill(0);
        let shift = u64::BITS.wrapping_sub(bits);
        // An empty slot says "at 0": as true a guess as any other, for every guess is compared.
        let mut anchor = 0_usize;
        let mut cur = 1_usize;
        let match_end = raw.len().wrapping_sub(LAST_LITERALS);
        loop {
            let mut misses = 1_usize << SKIP_SHIFT;
            let mut candidate = loop {
                if cur > last_start {
                    return Some(anchor);
                }
                let here = u64_at(raw, cur)?;
                let slot = table.get_mut(hash(here, shift))?;
                let candidate = core::mem::replace(slot, low_u32(cur)) as usize;
                if cur.wrapping_sub(candidate) <= MAX_OFFSET
                    && u32_at(raw, candidate).map(u64::from)? == here & 0xFFFF_FFFF
                {
                    break candidate;
                }
                cur = cur.wrapping_add(misses >> SKIP_SHIFT);
                misses = misses.wrapping_add(1);
            };
            let back = common_suffix(raw.get(anchor..cur)?, raw.get(..candidate)?);
            let start = cur.wrapping_sub(back);
            candidate = candidate.wrapping_sub(back);
            let ahead = cur.wrapping_add(MIN_MATCH);
            let offset = start.wrapping_sub(candidate);
            let more = common_prefix(raw.get(ahead..match_end)?, raw.get(ahead.wrapping_sub(offset)..)?);
            sink.sequence(raw, anchor, start, offset, back.wrapping_add(more))?;
            cur = ahead.wrapping_add(more);
            anchor = cur;
            let behind = cur.wrapping_sub(2);
            if let Some(slot) = u64_at(raw, behind).and_then(|there| table.get_mut(hash(there, shift))) {
                *slot = low_u32(behind);
            }
        }
    }
}

/// Where packed bytes go.
struct Sink<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Sink<'_> {
    /// Writes the literals `raw[anchor..start]` and a match of [`MIN_MATCH`] + `more` bytes from `offset` back.
    #[inline(always)]
    fn sequence(&mut self, raw: &[u8], anchor: usize, start: usize, offset: usize, more: usize) -> Option<()> {
        let count = start.wrapping_sub(anchor);
        let token = (nibble(count) << 4) | nibble(more);
        let offset = u16::try_from(offset).ok()?.to_le_bytes();
        let wild = raw.get(anchor..).and_then(|from| from.first_chunk::<16>());
        let room = self.out.get_mut(self.at..).and_then(|room| room.first_chunk_mut::<20>());
        if let (true, Some(from), Some([first, room @ ..])) = (count <= NIBBLE_MAX, wild, room) {
            *first = token;
            *room.first_chunk_mut::<16>()? = *from;
            *room.get_mut(count..)?.first_chunk_mut::<2>()? = offset;
            self.at = self.at.wrapping_add(count).wrapping_add(3);
        } else {
            self.put(&[token])?;
            self.length(count)?;
            self.put(raw.get(anchor..start)?)?;
            self.put(&offset)?;
        }
        self.length(more)
    }

    /// Writes the sequence that ends a block.
    fn last_literals(&mut self, literals: &[u8]) -> Option<()> {
        self.put(&[nibble(literals.len()) << 4])?;
        self.length(literals.len())?;
        self.put(literals)
    }

    /// Writes the bytes of `length` that the token does not hold.
    #[inline(always)]
    fn length(&mut self, length: usize) -> Option<()> {
        let Some(mut rest) = length.checked_sub(NIBBLE_MAX.wrapping_add(1)) else { return Some(()) };
        while rest >= 255 {
            self.put(&[255])?;
            rest = rest.wrapping_sub(255);
        }
        self.put(&[u8::try_from(rest).ok()?])
    }

    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.at = self.at.wrapping_add(bytes.len());
        Some(())
    }
}

/// What the token holds of a length.
#[inline(always)]
fn nibble(length: usize) -> u8 {
    u8::try_from(length).map_or(15, |length| length.min(15))
}

#[inline(always)]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The slot of the first five of eight bytes: five tell the lines of a log apart better than four.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the shift leaves as many bits as the table has slots")]
fn hash(eight: u64, shift: u32) -> usize {
    (eight << 24).wrapping_mul(889_523_592_379).unbounded_shr(shift) as usize
}

/// A position in a block, for the table.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "blocks of 4 GiB and more are refused at the door")]
fn low_u32(position: usize) -> u32 {
    position as u32
}

/// How many bytes are the same from the start on.
#[inline(always)]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let ((a_words, a_tail), (b_words, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut same = 0_usize;
    for (a, b) in a_words.iter().zip(b_words) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return same.wrapping_add((differ.trailing_zeros() >> 3) as usize);
        }
        same = same.wrapping_add(8);
    }
    let b_tail = b.get(same..).unwrap_or_default();
    same.wrapping_add(a_tail.iter().zip(b_tail).take_while(|(a, b)| a == b).count())
}

/// How many bytes are the same from the end back.
#[inline(always)]
fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Why a packed block does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// The block ends at `at` in the middle of a sequence.
    Truncated {
        /// Where in the packed bytes.
        at: usize,
    },
    /// The sequence that starts at `at` unpacks to more bytes than the raw length.
    TooLong {
        /// Where in the packed bytes.
        at: usize,
    },
    /// The block ends, at `at`, with fewer bytes unpacked than the raw length.
    TooShort {
        /// Where in the packed bytes.
        at: usize,
    },
    /// The match offset at `at` is zero or reaches back before the first byte.
    BadOffset {
        /// Where in the packed bytes.
        at: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at } => write!(f, "lz4: block is cut off at byte {at}"),
            Self::TooLong { at } => write!(f, "lz4: sequence at byte {at} is more than the raw length"),
            Self::TooShort { at } => write!(f, "lz4: block ends at byte {at}, short of the raw length"),
            Self::BadOffset { at } => write!(f, "lz4: match offset at byte {at} is before the start"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Unpacks a block of exactly `out.len()` raw bytes.
///
/// # Errors
///
/// [`DecodeError`], with its place in `packed`, for a block that is malformed or of another raw length; what `out`
/// holds is then of no use. A damaged block may also unpack to wrong bytes: checksums are the caller's.
pub fn decompress(packed: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    let (mut at, mut pos) = (0_usize, 0_usize);
    loop {
        let first = at;
        let token = usize::from(*packed.get(at).ok_or(DecodeError::Truncated { at })?);
        at = at.wrapping_add(1);

        let mut count = token >> 4;
        let wild = packed.get(at..).and_then(|from| from.first_chunk::<16>());
        let room = out.get_mut(pos..).and_then(|room| room.first_chunk_mut::<16>());
        if let (true, Some(from), Some(room)) = (count <= NIBBLE_MAX, wild, room) {
            *room = *from;
            at = at.wrapping_add(count);
        } else {
            (count, at) = length(packed, count, at)?;
            let from = packed.get(at..).and_then(|from| from.get(..count));
            let from = from.ok_or(DecodeError::Truncated { at: packed.len() })?;
            let room = out.get_mut(pos..).and_then(|room| room.get_mut(..count));
            room.ok_or(DecodeError::TooLong { at: first })?.copy_from_slice(from);
            at = at.wrapping_add(count);
            if at == packed.len() {
                let end = pos.wrapping_add(count);
                return if end == out.len() { Ok(()) } else { Err(DecodeError::TooShort { at }) };
            }
        }
        pos = pos.wrapping_add(count);

        let offset = packed.get(at..).and_then(|rest| rest.first_chunk::<2>());
        let offset = usize::from(u16::from_le_bytes(*offset.ok_or(DecodeError::Truncated { at: packed.len() })?));
        let bad_offset = DecodeError::BadOffset { at };
        at = at.wrapping_add(2);
        let more = token & 15;
        let (past, room) = out.split_at_mut_checked(pos).ok_or(DecodeError::TooLong { at: first })?;
        let from = past.get(past.len().wrapping_sub(offset)..).ok_or(bad_offset)?;
        if let (true, Some(from), Some(room)) = (more <= NIBBLE_MAX, from.first_chunk::<18>(), room.first_chunk_mut()) {
            *room = *from;
            pos = pos.wrapping_add(more).wrapping_add(MIN_MATCH);
            continue;
        }
        if from.is_empty() {
            return Err(bad_offset);
        }
        let (more, after) = length(packed, more, at)?;
        at = after;
        let count = more.saturating_add(MIN_MATCH);
        repeat(from, room.get_mut(..count).ok_or(DecodeError::TooLong { at: first })?);
        pos = pos.wrapping_add(count);
    }
}

/// Reads the bytes of a length that the token did not hold; returns the length, and where it ends.
#[inline(always)]
fn length(packed: &[u8], nibble: usize, mut at: usize) -> Result<(usize, usize), DecodeError> {
    let mut length = nibble;
    if nibble > NIBBLE_MAX {
        loop {
            let byte = *packed.get(at).ok_or(DecodeError::Truncated { at })?;
            at = at.wrapping_add(1);
            length = length.saturating_add(usize::from(byte));
            if byte != 255 {
                break;
            }
        }
    }
    Ok((length, at))
}

/// Fills `room` with `from` (which is not empty, and lies right before it), again and again.
#[inline(always)]
fn repeat(from: &[u8], room: &mut [u8]) {
    if let [byte] = from {
        return room.fill(*byte);
    }
    let mut done = 0_usize;
    // What is done is whole periods: it can be its own pattern, which doubles.
    while let Some((whole, rest @ [_, ..])) = room.split_at_mut_checked(done) {
        let from = if done == 0 { from } else { whole };
        let step = from.len().min(rest.len());
        let (Some(to), Some(from @ [_, ..])) = (rest.get_mut(..step), from.get(..step)) else { return };
        to.copy_from_slice(from);
        done = done.wrapping_add(step);
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoder, bound, decompress};
    use proptest::prelude::*;
    use std::{format, string::String, vec, vec::Vec};

    fn pack_with(slots: usize, raw: &[u8]) -> Vec<u8> {
        // What was in the table before must not matter.
        let mut table = vec![0xDEAD_BEEF; slots];
        let mut out = vec![0; bound(raw.len())];
        let packed_len = Encoder::new(&mut table).compress(raw, &mut out).unwrap();
        out.truncate(packed_len);
        out
    }

    fn pack(raw: &[u8]) -> Vec<u8> {
        pack_with(4096, raw)
    }

    fn unpack(packed: &[u8], raw_len: usize) -> Vec<u8> {
        let mut out = vec![0xA5; raw_len];
        decompress(packed, &mut out).unwrap();
        out
    }

    /// Asserts that ours reads ours, theirs reads ours and ours reads theirs; returns the packed length.
    fn assert_round_trips(raw: &[u8]) -> usize {
        let (ours, theirs) = (pack(raw), lz4_flex::block::compress(raw));
        assert!(unpack(&ours, raw.len()) == raw, "ours by ours, {} bytes", raw.len());
        assert!(unpack(&theirs, raw.len()) == raw, "theirs by ours, {} bytes", raw.len());
        let by_theirs = lz4_flex::block::decompress(&ours, raw.len()).unwrap();
        assert!(by_theirs == raw, "ours by theirs, {} bytes", raw.len());
        ours.len()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..len).map(|_| next()).collect()
    }

    fn log_lines(lines: u64) -> String {
        (0..lines)
            .map(|n| {
                let (ms, port) = (n * 37 % 1000, n * 7919 % 65_536);
                format!(
                    "Dec 10 07:{:02}:{:02}.{ms:03} host sshd[{port}]: Failed password from 10.0.0.{}\n",
                    n / 60,
                    n % 60,
                    n % 9
                )
            })
            .collect()
    }

    #[test]
    fn every_short_length_round_trips() {
        assert_eq!(pack(b""), [0]);
        let text = log_lines(8);
        for len in 0..text.len() {
            assert_round_trips(&text.as_bytes()[..len]);
            assert_round_trips(&vec![b'x'; len]);
            assert_round_trips(&noise(len));
        }
    }

    #[test]
    fn noise_stays_within_the_bound() {
        for len in [1, 255, 256, 4096, 70_000] {
            let packed_len = assert_round_trips(&noise(len));
            assert!(packed_len > len && packed_len <= bound(len));
        }
    }

    #[test]
    fn a_mebibyte_of_zeroes_packs_to_one_match() {
        assert!(assert_round_trips(&vec![0; 1 << 20]) < (1 << 20) / 255 + 32);
    }

    #[test]
    fn log_text_packs_well() {
        let text = log_lines(6000);
        let packed_len = assert_round_trips(text.as_bytes());
        assert!(packed_len * 3 < text.len(), "{packed_len} of {}", text.len());
    }

    #[test]
    fn every_period_round_trips() {
        for period in 1..70 {
            let raw: Vec<u8> = noise(period).into_iter().cycle().take(1000 + period).collect();
            assert!(assert_round_trips(&raw) < period + 40, "period {period}");
        }
    }

    #[test]
    fn matches_reach_back_65535_bytes_and_no_farther() {
        let word = b"a word that is nowhere else";
        for (gap, is_found) in [(65_535, true), (65_536, false)] {
            let mut raw = word.to_vec();
            raw.extend(vec![0; gap - word.len()]);
            raw.extend_from_slice(word);
            raw.extend_from_slice(b"0123456789ab");
            let packed_len = assert_round_trips(&raw);
            assert_eq!(packed_len < 65_536 / 255 + 70, is_found, "gap {gap}: {packed_len}");
        }
    }

    #[test]
    fn blocks_end_as_the_format_demands() {
        for len in 13..400 {
            let packed = pack(&vec![7; len]);
            let (mut at, mut raw_at, mut last_match_start) = (0, 0, 0);
            let last_literals = loop {
                let token = usize::from(packed[at]);
                let (literals, literals_at) = super::length(&packed, token >> 4, at + 1).unwrap();
                raw_at += literals;
                if raw_at == len {
                    break literals;
                }
                let (more, next) = super::length(&packed, token & 15, literals_at + literals + 2).unwrap();
                last_match_start = raw_at;
                raw_at += more + 4;
                at = next;
            };
            assert!(last_literals >= 5 && last_match_start + 12 <= len, "length {len}");
        }
    }

    #[test]
    fn a_block_that_does_not_fit_is_refused() {
        let text = log_lines(40);
        let packed = pack(text.as_bytes());
        let mut table = [0; 4096];
        let mut encoder = Encoder::new(&mut table);
        for room in 0..packed.len() {
            assert_eq!(encoder.compress(text.as_bytes(), &mut vec![0; room]), None, "room {room}");
        }
        let mut out = vec![0; packed.len()];
        assert_eq!(encoder.compress(text.as_bytes(), &mut out), Some(packed.len()));
        assert_eq!(out, packed);
        assert_eq!(encoder.compress(&noise(500), &mut [0; 499]), None);
    }

    #[test]
    fn any_table_length_works() {
        let text = log_lines(100);
        for slots in [0, 1, 2, 3, 255, 256, 1000, 1024, 1 << 16] {
            assert_eq!(unpack(&pack_with(slots, text.as_bytes()), text.len()), text.as_bytes(), "{slots} slots");
        }
        assert_eq!(pack_with(1000, text.as_bytes()), pack_with(512, text.as_bytes()));
    }

    #[test]
    fn nothing_is_carried_from_block_to_block() {
        let (one, other) = (log_lines(90), noise(3000));
        let mut table = [0; 1024];
        let mut encoder = Encoder::new(&mut table);
        let mut out = vec![0; bound(one.len())];
        for _ in 0..2 {
            let packed_len = encoder.compress(one.as_bytes(), &mut out).unwrap();
            assert_eq!(out[..packed_len], pack_with(1024, one.as_bytes()));
            encoder.compress(&other, &mut out).unwrap();
        }
    }

    #[test]
    fn every_truncation_and_every_other_raw_length_is_an_error() {
        let text = log_lines(12);
        let packed = pack(text.as_bytes());
        for len in 0..packed.len() {
            decompress(&packed[..len], &mut vec![0; text.len()]).unwrap_err();
        }
        for len in (0..2 * text.len()).filter(|len| *len != text.len()) {
            decompress(&packed, &mut vec![0; len]).unwrap_err();
        }
    }

    #[test]
    fn no_single_bit_flip_panics() {
        let text = log_lines(12);
        let mut packed = pack(text.as_bytes());
        let mut out = vec![0; text.len()];
        for bit in 0..packed.len() * 8 {
            packed[bit / 8] ^= 1 << (bit % 8);
            if let Err(error) = decompress(&packed, &mut out) {
                assert!(!format!("{error}").is_empty());
            }
            packed[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(unpack(&packed, text.len()), text.as_bytes());
    }

    #[test]
    fn errors_say_where() {
        use super::DecodeError::{BadOffset, TooLong, TooShort, Truncated};
        let error = |packed: &[u8], raw_len: usize| decompress(packed, &mut vec![0; raw_len]).unwrap_err();
        assert_eq!(error(&[], 0), Truncated { at: 0 });
        assert_eq!(error(&[0x20, b'a'], 2), Truncated { at: 2 });
        assert_eq!(error(&[0xF0], 40), Truncated { at: 1 });
        assert_eq!(error(&[0x10, b'a', 1], 40), Truncated { at: 3 });
        assert_eq!(error(&[0x10, b'a', 1, 0], 5), Truncated { at: 4 }, "a block ends in literals");
        assert_eq!(error(&[0x10, b'a', 0, 0, 0], 40), BadOffset { at: 2 });
        assert_eq!(error(&[0x10, b'a', 2, 0, 0], 40), BadOffset { at: 2 });
        assert_eq!(error(&[0x10, b'a', 1, 0, 0], 6), TooShort { at: 5 });
        assert_eq!(error(&[0x10, b'a', 1, 0, 0], 4), TooLong { at: 0 });
        assert_eq!(error(&[0x10, b'a', 1, 0, 0x10, b'b'], 5), TooLong { at: 4 });
    }

    /// Bytes as logs have them: pieces that come again, and some that do not.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(0_u8..4, 1..40),
            prop::collection::vec(any::<u8>(), 1..20),
            (any::<u8>(), 1_usize..600).prop_map(|(byte, len)| vec![byte; len]),
        ];
        let picks = prop::collection::vec(any::<prop::sample::Index>(), 0..60);
        (prop::collection::vec(piece, 1..12), picks)
            .prop_map(|(pieces, picks)| picks.iter().flat_map(|pick| pick.get(&pieces).clone()).collect())
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(raw in prop::collection::vec(any::<u8>(), 0..3000)) {
            assert_round_trips(&raw);
        }

        #[test]
        fn any_pieces_round_trip(raw in pieces()) {
            assert_round_trips(&raw);
        }

        #[test]
        fn no_packed_bytes_panic(packed in prop::collection::vec(any::<u8>(), 0..300), raw_len in 0_usize..2000) {
            let _ = decompress(&packed, &mut vec![0; raw_len]);
        }
    }
}
