//! Row groups: a large commit as compressed columns, sorted by (stream, sequence number) (SPEC, section 8).
//!
//! The payload of a frame of kind row group is a frame's prefix, items (stream definitions and state entries, as in a
//! frame of rows), and the group:
//!
//! | field | bytes |
//! |---|---|
//! | end of the items | 1, zero |
//! | format | 1: the number 1 |
//! | first sequence number | varint |
//! | records | varint, 32 bits |
//! | sub-blocks | varint, 32 bits |
//! | bytes of the directory | varint, 32 bits |
//! | directory | an entry per sub-block |
//! | sub-blocks | packed, one after another in the order of the directory |
//!
//! An entry of the directory is its length (varint, 32 bits) and then, as varints where no bytes are given:
//!
//! | field | |
//! |---|---|
//! | packing | 1 byte: 0 stored, 1 an LZ4 block |
//! | stream | 16 bits |
//! | first sequence number | less the group's first; 32 bits |
//! | last sequence number | less the first of this entry; 32 bits |
//! | records | 32 bits |
//! | packed bytes, bytes of columns, bytes as row items | 32 bits each |
//! | earliest time of receipt | signed, modulo 2^64: less that of the entry before (of the first entry: less 0) |
//! | latest time of receipt | less the earliest |
//! | records by severity | 7 of 32 bits: unknown (0), TRACE (1 to 4), DEBUG, INFO, WARN, ERROR, FATAL (21 and up) |
//! | records with an event time | 32 bits |
//! | earliest event time | signed; only if there are any |
//! | latest event time | less the earliest; only if there are any |
//!
//! Later versions append fields to entries and bytes behind the sub-blocks, which this one passes by; what it could
//! not pass by gets another format number. What the columns of a sub-block are: [`columns`].
//!
//! Why columns like these: five system logs of 1.2 MB, interleaved as five streams, in groups of 1 MiB and sub-blocks
//! of 256 KiB, packed by LZ4 with 4096 slots; ratio of message + 11 bytes to the packed size, numbers included.
//!
//! | layout | ratio |
//! |---|---|
//! | row items, not sorted | 5.18 |
//! | row items by stream | 6.09 |
//! | heads of all records, then bodies | 6.10 |
//! | a column per number, then bodies | 6.72 |
//! | the same, bodies ended by a byte instead of lengths | 6.95 |
//! | the same, numbers in bits, with the directory: what is here | 7.13 |
//!
//! Numbers and bodies in LZ4 blocks of their own gain nothing; sub-blocks of 128 KiB reach 6.98, of 64 KiB 6.70; groups
//! of 4 MiB gain nothing with five streams (7.14).
//!
//! Invariants: a sub-block holds records of one stream only, in sequence order; the records of a row group have
//! contiguous numbers, each exactly once; the directory is enough to pass a sub-block by.

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

mod columns;
mod decode;
mod encode;
mod numbers;
#[cfg(test)]
mod tests;

pub use decode::{ABSENT, SparseDecoded, decode, decode_sparse, decode_where};
pub use encode::{GroupEncoder, Step, encode};

use crate::format::header::ClockAnchor;
use crate::format::row::{ItemReader, ItemWriter, Prefix};
use crate::scan::Filter;
use serde::{Deserialize, Serialize};

/// Format of row groups of contiguous numbers, in the log.
const GROUP_FORMAT: u8 = 1;
/// Format of row groups of any ascending numbers, in tables.
const SPARSE_FORMAT: u8 = 2;
/// Most bytes in front of the directory: the two bytes, and the four numbers.
const HEAD_BYTES_MAX: usize = 2 + 10 + 4 * 5 + 10;
/// Most bytes of an entry of the directory that this version writes, with its length.
const ENTRY_BYTES_MAX: usize = 1 + (1 + 3 + 6 * 5 + 10 + 10 + SEVERITY_BANDS * 5 + 5 + 10 + 10);
/// Severities are counted by band: unknown, then the six of OpenTelemetry.
pub const SEVERITY_BANDS: usize = 7;

/// Memory for encoding row groups.
#[derive(Debug)]
pub struct GroupMemory<'m> {
    /// The columns of one sub-block: as long as sub-blocks are to be, 64 to 256 KiB. One record that is larger is
    /// stored unpacked.
    pub raw: &'m mut [u8],
    /// Hash table of the LZ4 encoder: a power of two of entries, 4096 on Linux.
    pub table: &'m mut [u32],
    /// For rewriting the log into tables: where the records of a frame stand. Empty for none; `raw` is then as long as
    /// that of a scan.
    pub slots: &'m mut [u32],
}

/// The band that a severity is counted in: 0 unknown, 1 TRACE, 2 DEBUG, 3 INFO, 4 WARN, 5 ERROR, 6 FATAL and beyond.
#[must_use]
pub fn severity_band(severity: u8) -> usize {
    usize::from(severity.div_ceil(4)).min(SEVERITY_BANDS - 1)
}

/// How a sub-block is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Stored,
    /// As an LZ4 block.
    Lz4,
    /// In a way that this version does not know.
    Unknown(u8),
}

impl Packing {
    fn byte(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Lz4 => 1,
            Self::Unknown(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Stored,
            1 => Self::Lz4,
            byte => Self::Unknown(byte),
        }
    }
}

/// What the directory says of a sub-block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// The stream of its records.
    pub stream: u16,
    /// Number of its first record.
    pub first_seq: u64,
    /// Number of its last record. Those between may belong to other streams.
    pub last_seq: u64,
    /// Its records.
    pub count: u32,
    /// How it is packed.
    pub packing: Packing,
    /// Where it starts, from the start of the first sub-block.
    pub packed_at: u32,
    /// Bytes as it is packed.
    pub packed_bytes: u32,
    /// Bytes of its columns, unpacked.
    pub raw_bytes: u32,
    /// Bytes of its records as row items.
    pub row_bytes: u32,
    /// Earliest time of receipt, as in [`crate::format::row::Row`].
    pub min_received_us: u64,
    /// Latest time of receipt.
    pub max_received_us: u64,
    /// Records by [`severity_band`].
    pub severities: [u32; SEVERITY_BANDS],
    /// Records with an event time.
    pub timed: u32,
    /// Earliest and latest event time, if any record has one.
    pub event_time_us: Option<(i64, i64)>,
}

impl BlockInfo {
    /// `false` if no record of this sub-block passes the filter. `clock` is the anchor of the group's clock epoch.
    #[must_use]
    pub fn may_match(&self, filter: &Filter, clock: Option<ClockAnchor>) -> bool {
        filter.stream.is_none_or(|stream| stream == self.stream)
            && filter.severity_min.is_none_or(|least| self.may_reach(least))
            && self.may_be_within(filter.since_us, filter.until_us, clock)
    }

    /// `false` if every record is less severe than `least`.
    fn may_reach(&self, least: u8) -> bool {
        self.severities.iter().skip(severity_band(least)).any(|n| *n > 0)
    }

    fn may_be_within(&self, since_us: Option<i64>, until_us: Option<i64>, clock: Option<ClockAnchor>) -> bool {
        let overlaps = |(first, last): (i64, i64)| {
            since_us.is_none_or(|since| last >= since) && until_us.is_none_or(|until| first < until)
        };
        if since_us.is_none() && until_us.is_none() || self.event_time_us.is_some_and(overlaps) {
            return true;
        }
        // Records without an event time count by their receipt.
        let wall = |received: u64| clock?.wall_us.checked_add(i64::try_from(received).ok()?);
        let received = match (wall(self.min_received_us), wall(self.max_received_us)) {
            (Some(first), Some(last)) => overlaps((first, last)),
            // Beyond what a wall clock can say some records have a time and others none: look.
            (first, _) => first.is_some(),
        };
        self.timed < self.count && received
    }
}

/// An entry of the directory as it is written, up to what depends on there being event times.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    packing: u8,
    stream: u16,
    first: u32,
    last: u32,
    count: u32,
    packed_bytes: u32,
    raw_bytes: u32,
    row_bytes: u32,
    min_received: i64,
    received_span: u64,
    severities: [u32; SEVERITY_BANDS],
    timed: u32,
}

/// Writes an entry of the directory; returns its bytes.
fn write_entry(info: &BlockInfo, group_first: u64, received_before: u64, out: &mut [u8]) -> Option<usize> {
    let entry = Entry {
        packing: info.packing.byte(),
        stream: info.stream,
        first: u32::try_from(info.first_seq.checked_sub(group_first)?).ok()?,
        last: u32::try_from(info.last_seq.checked_sub(info.first_seq)?).ok()?,
        count: info.count,
        packed_bytes: info.packed_bytes,
        raw_bytes: info.raw_bytes,
        row_bytes: info.row_bytes,
        min_received: info.min_received_us.wrapping_sub(received_before).cast_signed(),
        received_span: info.max_received_us.checked_sub(info.min_received_us)?,
        severities: info.severities,
        timed: info.timed,
    };
    let mut fields = [0u8; ENTRY_BYTES_MAX];
    let mut w = ItemWriter::new(&mut fields);
    w.value(&entry)?;
    if let Some((first, last)) = info.event_time_us {
        w.value(&first)?;
        w.value(&last.wrapping_sub(first).cast_unsigned())?;
    }
    let len = w.len();
    let mut w = ItemWriter::new(out);
    w.value(fields.get(..len)?)?;
    Some(w.len())
}

/// Reads the fields of an entry of the directory.
fn read_entry(fields: &[u8], group: &Group<'_>, packed_at: u32, received_before: u64) -> Option<BlockInfo> {
    let mut reader = ItemReader::new(fields);
    let entry: Entry = reader.value()?;
    let event_time_us = if entry.timed == 0 {
        None
    } else {
        let (first, span): (i64, u64) = reader.value()?;
        Some((first, first.checked_add_unsigned(span)?))
    };
    let first_seq = group.first_seq.checked_add(u64::from(entry.first))?;
    let last_seq = first_seq.checked_add(u64::from(entry.last))?;
    let min_received_us = received_before.wrapping_add(entry.min_received.cast_unsigned());
    let info = BlockInfo {
        stream: entry.stream,
        first_seq,
        last_seq,
        count: entry.count,
        packing: Packing::from_byte(entry.packing),
        packed_at,
        packed_bytes: entry.packed_bytes,
        raw_bytes: entry.raw_bytes,
        row_bytes: entry.row_bytes,
        min_received_us,
        max_received_us: min_received_us.checked_add(entry.received_span)?,
        severities: entry.severities,
        timed: entry.timed,
        event_time_us,
    };
    let counted = entry.severities.iter().try_fold(0u32, |sum, n| sum.checked_add(*n))?;
    let is_sound = counted == entry.count
        && entry.count.checked_sub(1).is_some_and(|more| more <= entry.last)
        && entry.timed <= entry.count
        && last_seq <= group.last_seq
        && (info.packing != Packing::Stored || info.packed_bytes == info.raw_bytes)
        && group.packed(&info).is_some();
    is_sound.then_some(info)
}

/// A row group in a frame's payload.
#[derive(Debug, Clone, Copy)]
struct Group<'b> {
    first_seq: u64,
    last_seq: u64,
    count: u32,
    block_count: u32,
    /// Of a sparse group: the last number it covers.
    upto: Option<u64>,
    directory: &'b [u8],
    packed: &'b [u8],
}

impl<'b> Group<'b> {
    /// Finds the group behind the items; `None` if there is none that this version reads.
    fn read(payload: &'b [u8], is_part: bool) -> Option<Self> {
        let mut items = preamble(payload, is_part)?;
        while items.next().is_some() {}
        let (&[0, format], group) = items.rest().split_at_checked(2)? else { return None };
        let mut reader = ItemReader::new(group);
        let first_seq: u64 = reader.value()?;
        let sparse_span: Option<u32> = if format == SPARSE_FORMAT { Some(reader.value()?) } else { None };
        let (count, block_count): (u32, u32) = reader.value()?;
        let (span, upto) = match (format, sparse_span) {
            (GROUP_FORMAT, _) => (count.checked_sub(1)?, None),
            (SPARSE_FORMAT, Some(span)) => (span, Some(reader.value()?)),
            _ => return None,
        };
        let last_seq = first_seq.checked_add(u64::from(span))?;
        let directory = reader.value()?;
        Some(Self { first_seq, last_seq, count, block_count, upto, directory, packed: reader.rest() })
    }

    fn blocks(&self) -> Blocks<'b> {
        Blocks { group: *self, left: self.block_count, packed_at: 0, received_before: 0 }
    }

    /// The bytes of a sub-block.
    fn packed(&self, info: &BlockInfo) -> Option<&'b [u8]> {
        let at = usize::try_from(info.packed_at).ok()?;
        self.packed.get(at..)?.get(..usize::try_from(info.packed_bytes).ok()?)
    }
}

/// Walks the directory of a row group; ends early where it is malformed.
#[derive(Debug, Clone)]
pub struct Blocks<'b> {
    group: Group<'b>,
    left: u32,
    packed_at: u32,
    received_before: u64,
}

impl Blocks<'_> {
    /// `true` if all of the directory was read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.left == 0 && self.group.directory.is_empty()
    }
}

impl Iterator for Blocks<'_> {
    type Item = BlockInfo;

    fn next(&mut self) -> Option<BlockInfo> {
        let left = self.left.checked_sub(1)?;
        let (fields, rest) = postcard::take_from_bytes::<&[u8]>(self.group.directory).ok()?;
        let info = read_entry(fields, &self.group, self.packed_at, self.received_before)?;
        self.group.directory = rest;
        self.left = left;
        self.packed_at = info.packed_at.checked_add(info.packed_bytes)?;
        self.received_before = info.min_received_us;
        Some(info)
    }
}

/// The items in front of the row group: stream names and states. They end at the tag byte zero.
#[must_use]
pub fn preamble(payload: &[u8], is_part: bool) -> Option<ItemReader<'_>> {
    Prefix::read(payload, is_part).map(|(_, items)| items)
}

/// The last number that the row group of a table covers; `None` if there is none that this version reads.
#[must_use]
pub fn covers_upto(payload: &[u8]) -> Option<u64> {
    Group::read(payload, false)?.upto
}

/// The directory of the row group in a frame's payload; `None` if there is none that this version reads.
#[must_use]
pub fn blocks(payload: &[u8], is_part: bool) -> Option<Blocks<'_>> {
    Group::read(payload, is_part).map(|group| group.blocks())
}

/// How many bytes of `raw` [`decode`] needs for the row group in a frame's payload: for all row items, and beside them
/// for the columns of one sub-block. `None` if there is no group that this version reads.
#[must_use]
pub fn group_raw_bytes(payload: &[u8], is_part: bool) -> Option<usize> {
    let mut blocks = blocks(payload, is_part)?;
    let (mut rows, mut most) = (0u64, 0u64);
    for info in blocks.by_ref() {
        let columns = if info.packing == Packing::Stored { 0 } else { info.raw_bytes };
        // The columns stand behind the room for the rows of this sub-block and all before it.
        rows = rows.checked_add(u64::from(info.row_bytes))?;
        most = most.max(rows.checked_add(u64::from(columns))?);
    }
    if blocks.is_whole() { usize::try_from(most).ok() } else { None }
}
