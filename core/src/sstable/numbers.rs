//! Columns of numbers: chunks of 64, each with its smallest number and all others as so many bits above it.
//!
//! A chunk is: the smallest number (a postcard `i64`), the width in bits (one byte, 0 to 64), then the numbers less the
//! smallest, each in `width` bits, least significant bit first, padded with zeros to a whole byte. The last chunk of a
//! column may be shorter; how many numbers there are is known from elsewhere. Equal numbers take no bits at all.
//!
//! Invariants: any `i64` goes in and comes out, for all differences are taken modulo 2^64; [`NumberSize`] says to the
//! byte what [`NumberWriter`] writes; a reader yields exactly as many numbers as it was made for, or is not made,
//! whatever the bytes.

// Bytes that are decoded here may be anything: no arithmetic that can wrap or panic, no slice that can be out of range.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

use crate::format::row::ItemWriter;

/// Numbers in a chunk.
const CHUNK: usize = 64;
/// Bytes of a full chunk of the greatest width.
const PACKED_MAX: usize = CHUNK * 8;

/// How far apart two numbers are, `low` not being the greater one.
fn distance(low: i64, high: i64) -> u64 {
    high.wrapping_sub(low).cast_unsigned()
}

/// Bits that hold every number from 0 to `range`.
fn width_of(range: u64) -> u32 {
    u64::BITS.saturating_sub(range.leading_zeros())
}

/// Bytes of `n` numbers of `width` bits.
fn packed_bytes(n: usize, width: u32) -> usize {
    usize::try_from(width).unwrap_or(0).saturating_mul(n).div_ceil(8)
}

/// Bytes of a number as a postcard varint.
pub(super) fn varint_bytes(n: u64) -> usize {
    usize::try_from(width_of(n | 1).div_ceil(7)).unwrap_or(0)
}

/// Bytes of a signed number as postcard has it: zigzag, then a varint.
pub(super) fn signed_bytes(n: i64) -> usize {
    varint_bytes((n.wrapping_shl(1) ^ n.wrapping_shr(63)).cast_unsigned())
}

/// The size of a column before it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NumberSize {
    /// Bytes of the full chunks.
    full: usize,
    /// Numbers in the chunk that is not full yet.
    n: usize,
    min: i64,
    max: i64,
}

impl NumberSize {
    pub(super) fn add(&mut self, number: i64) {
        if self.n == CHUNK {
            self.full = self.bytes();
            self.n = 0;
        }
        (self.min, self.max) =
            if self.n == 0 { (number, number) } else { (self.min.min(number), self.max.max(number)) };
        self.n = self.n.saturating_add(1);
    }

    /// Bytes of the column as it stands.
    pub(super) fn bytes(&self) -> usize {
        if self.n == 0 {
            return self.full;
        }
        let packed = packed_bytes(self.n, width_of(distance(self.min, self.max)));
        self.full.saturating_add(signed_bytes(self.min)).saturating_add(1).saturating_add(packed)
    }
}

/// Writes a column.
#[derive(Debug)]
pub(super) struct NumberWriter<'b> {
    out: ItemWriter<'b>,
    numbers: heapless::Vec<i64, CHUNK>,
}

impl<'b> NumberWriter<'b> {
    pub(super) fn new(out: &'b mut [u8]) -> Self {
        Self { out: ItemWriter::new(out), numbers: heapless::Vec::new() }
    }

    pub(super) fn push(&mut self, number: i64) -> Option<()> {
        if self.numbers.is_full() {
            self.chunk()?;
        }
        self.numbers.push(number).ok()
    }

    /// Writes what is left; returns the bytes of the column.
    pub(super) fn finish(mut self) -> Option<usize> {
        if !self.numbers.is_empty() {
            self.chunk()?;
        }
        Some(self.out.len())
    }

    fn chunk(&mut self) -> Option<()> {
        let min = self.numbers.iter().copied().min()?;
        let max = self.numbers.iter().copied().max()?;
        let width = width_of(distance(min, max));
        self.out.value(&min)?;
        self.out.bytes(&[u8::try_from(width).ok()?])?;
        // Fewer than 8 bits wait when a number of at most 64 bits comes in.
        let (mut bits, mut waiting) = (0u128, 0u32);
        for number in &self.numbers {
            bits |= u128::from(distance(min, *number)).wrapping_shl(waiting);
            waiting = waiting.saturating_add(width);
            while waiting >= 8 {
                self.out.bytes(bits.to_le_bytes().first_chunk::<1>()?)?;
                bits = bits.wrapping_shr(8);
                waiting = waiting.saturating_sub(8);
            }
        }
        if waiting > 0 {
            self.out.bytes(bits.to_le_bytes().first_chunk::<1>()?)?;
        }
        self.numbers.clear();
        Some(())
    }
}

/// The head of a chunk of `n` numbers: the smallest, the width, and the packed numbers; then what follows it.
fn split_chunk(column: &[u8], n: usize) -> Option<(i64, u32, &[u8], &[u8])> {
    let (min, rest) = postcard::take_from_bytes::<i64>(column).ok()?;
    let (width, rest) = rest.split_first()?;
    let width = u32::from(*width);
    if width > u64::BITS {
        return None;
    }
    let (packed, rest) = rest.split_at_checked(packed_bytes(n, width))?;
    Some((min, width, packed, rest))
}

/// Reads a column.
#[derive(Debug)]
pub(super) struct NumberReader<'b> {
    rest: &'b [u8],
    /// Numbers of the chunks not yet unpacked.
    left: usize,
    unpacked: [i64; CHUNK],
    at: usize,
    n: usize,
}

impl<'b> NumberReader<'b> {
    /// Reads the column of `count` numbers that opens `bytes`; returns what follows it, too.
    pub(super) fn split(bytes: &'b [u8], count: usize) -> Option<(Self, &'b [u8])> {
        let (mut rest, mut left) = (bytes, count);
        while left > 0 {
            let n = left.min(CHUNK);
            rest = split_chunk(rest, n)?.3;
            left = left.saturating_sub(n);
        }
        Some((Self { rest: bytes, left: count, unpacked: [0; CHUNK], at: 0, n: 0 }, rest))
    }

    /// The next number; `None` after the last.
    #[inline]
    pub(super) fn next(&mut self) -> Option<i64> {
        if self.at == self.n {
            self.unpack()?;
        }
        let number = *self.unpacked.get(self.at)?;
        self.at = self.at.saturating_add(1);
        Some(number)
    }

    fn unpack(&mut self) -> Option<()> {
        let n = self.left.min(CHUNK);
        if n == 0 {
            return None;
        }
        let (min, width, packed, rest) = split_chunk(self.rest, n)?;
        let mask = u64::MAX.checked_shr(u64::BITS.saturating_sub(width)).unwrap_or(0);
        // With room behind it, so that each number is a shift of 16 bytes that are always there.
        let mut padded = [0u8; PACKED_MAX + 16];
        padded.get_mut(..packed.len())?.copy_from_slice(packed);
        for (i, number) in self.unpacked.iter_mut().take(n).enumerate() {
            let bit = usize::try_from(width).ok()?.saturating_mul(i);
            let word = u128::from_le_bytes(*padded.get(bit / 8..)?.first_chunk()?);
            let [a, b, c, d, e, f, g, h, ..] = word.wrapping_shr(u32::try_from(bit % 8).ok()?).to_le_bytes();
            let above = u64::from_le_bytes([a, b, c, d, e, f, g, h]) & mask;
            *number = min.wrapping_add(above.cast_signed());
        }
        (self.rest, self.left, self.n, self.at) = (rest, self.left.saturating_sub(n), n, 0);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn write(numbers: &[i64]) -> Vec<u8> {
        let mut size = NumberSize::default();
        numbers.iter().for_each(|n| size.add(*n));
        let mut out = std::vec![0; size.bytes()];
        let mut writer = NumberWriter::new(&mut out);
        for number in numbers {
            writer.push(*number).unwrap();
        }
        assert_eq!(writer.finish(), Some(size.bytes()));
        out
    }

    fn assert_round_trips(numbers: &[i64]) {
        let mut column = write(numbers);
        column.extend_from_slice(b"behind");
        let (mut reader, rest) = NumberReader::split(&column, numbers.len()).unwrap();
        assert_eq!(rest, b"behind");
        let read: Vec<i64> = core::iter::from_fn(|| reader.next()).collect();
        assert_eq!(read, numbers);
    }

    #[test]
    fn equal_numbers_take_no_bits() {
        assert_eq!(write(&[7; CHUNK]), [14, 0]);
        assert_eq!(write(&[-1; 2 * CHUNK + 1]), [1, 0, 1, 0, 1, 0]);
        assert_eq!(write(&[]), []);
    }

    #[test]
    fn bits_are_packed_from_the_least_significant_up() {
        assert_eq!(write(&[10, 11, 13, 10, 12]), [20, 2, 0b0011_0100, 0b10]);
    }

    #[test]
    fn every_width_and_every_length_of_the_last_chunk_round_trips() {
        for width in 0..64 {
            let high = 1i64.wrapping_shl(width).wrapping_sub(1);
            assert_round_trips(&[0, high, high / 2, 0, high, 1.min(high)]);
        }
        let numbers: Vec<i64> = (0..200).map(|i| i * i - 500).collect();
        for len in 0..numbers.len() {
            assert_round_trips(&numbers[..len]);
        }
        assert_round_trips(&[i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN]);
    }

    #[test]
    fn sizes_of_varints_are_those_of_postcard() {
        for n in (0..64).flat_map(|bit| [1u64 << bit, (1u64 << bit) - 1, u64::MAX >> bit]) {
            let mut out = [0; 10];
            assert_eq!(varint_bytes(n), postcard::to_slice(&n, &mut out).unwrap().len(), "{n}");
            for n in [n.cast_signed(), n.cast_signed().wrapping_neg()] {
                assert_eq!(signed_bytes(n), postcard::to_slice(&n, &mut out).unwrap().len(), "{n}");
            }
        }
    }

    #[test]
    fn a_width_beyond_64_and_a_cut_column_are_refused() {
        assert!(NumberReader::split(&[0, 65, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1).is_none());
        let column = write(&[1, 2, 3]);
        for len in 0..column.len() {
            assert!(NumberReader::split(&column[..len], 3).is_none());
        }
    }

    proptest! {
        #[test]
        fn any_numbers_round_trip(numbers in prop::collection::vec(any::<i64>(), 0..200)) {
            assert_round_trips(&numbers);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), count in 0usize..200) {
            if let Some((mut reader, _)) = NumberReader::split(&bytes, count) {
                assert_eq!(core::iter::from_fn(|| reader.next()).count(), count);
            }
        }
    }
}
