//! Encoding a row group out of a frozen memtable, one sub-block at a time.
//!
//! While a group is being encoded, its sub-blocks grow from the front of `out` and its directory from the back down,
//! each byte before the last; at the end the directory is turned round and moved to the front. So nothing is held but
//! `out`, and where the encoder stands is a handful of numbers: another thread can take a step at a time.
//!
//! Invariants: a group holds all records of its range or is not made; what does not fit is `None`, and then what `out`
//! holds is of no use; the memtable is only read.

use super::columns::Tally;
use super::{
    BlockInfo, ENTRY_BYTES_MAX, GROUP_FORMAT, GroupMemory, HEAD_BYTES_MAX, Packing, SPARSE_FORMAT, write_entry,
};
use crate::format::row::{ItemWriter, Row};
use crate::lz4;
use crate::memtable::{ChainRows, Frozen};
use core::ops::RangeInclusive;

/// What a step of a [`GroupEncoder`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It wrote one sub-block.
    Block(BlockInfo),
    /// The group is complete: so many bytes from the front of `out`.
    Done(usize),
}

/// Encodes the records of a range of sequence numbers as a row group, step by step.
///
/// Every step is given the same memtable and the same `out`.
#[derive(Debug, Clone)]
pub struct GroupEncoder {
    first_seq: u64,
    last_seq: u64,
    block_bytes: usize,
    /// The stream whose records come next; `None` behind the last.
    stream: Option<u16>,
    /// Where in its chain; `None` at the front.
    position: Option<u32>,
    /// Bytes of sub-blocks.
    packed: usize,
    /// Bytes of directory.
    directory: usize,
    blocks: u32,
    records: u64,
    /// The last entry's first time of receipt, which the next one's is a difference to.
    received_before: u64,
    /// The last number covered, if not every number of the range need be there.
    upto: Option<u64>,
}

/// Which records a group takes.
type Keep<'k> = &'k dyn Fn(&Row<'_>) -> bool;

/// Those of a chain that are wanted.
#[derive(Clone)]
struct Wanted<'f, 'k> {
    rows: ChainRows<'f>,
    keep: Keep<'k>,
}

impl<'f> Iterator for Wanted<'f, '_> {
    type Item = (u64, Row<'f>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.find(|(_, row)| (self.keep)(row))
    }
}

impl GroupEncoder {
    /// An encoder of the records numbered `range`, in sub-blocks of at most `block_bytes` before they are packed (or of
    /// one record that is larger).
    #[must_use]
    pub fn new(range: RangeInclusive<u64>, block_bytes: usize) -> Self {
        Self {
            first_seq: *range.start(),
            last_seq: *range.end(),
            block_bytes,
            stream: Some(0),
            position: None,
            packed: 0,
            directory: 0,
            blocks: 0,
            records: 0,
            received_before: 0,
            upto: None,
        }
    }

    /// An encoder for a table: not every number of the range need be there; the group covers those up to `upto`.
    #[must_use]
    pub fn sparse(range: RangeInclusive<u64>, upto: u64, block_bytes: usize) -> Self {
        Self { upto: Some(upto), ..Self::new(range, block_bytes) }
    }

    /// Records it has taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Writes the next sub-block, or completes the group; `None` if it does not fit `out`, or if the memtable does not
    /// hold every record of the range in a chain.
    pub fn next_block<F: AsRef<[u8]>>(
        &mut self,
        frozen: &Frozen<'_, F>,
        out: &mut [u8],
        mem: &mut GroupMemory<'_>,
    ) -> Option<Step> {
        self.next_block_of(frozen, out, mem, &|_| true)
    }

    /// As [`Self::next_block`], with only the records that `keep` wants, in every step the same.
    pub fn next_block_of<F: AsRef<[u8]>>(
        &mut self,
        frozen: &Frozen<'_, F>,
        out: &mut [u8],
        mem: &mut GroupMemory<'_>,
        keep: &dyn Fn(&Row<'_>) -> bool,
    ) -> Option<Step> {
        let Some((stream, mut rows)) = self.rows(frozen, keep) else { return self.finish(out).map(Step::Done) };
        let limit = self.block_bytes.min(mem.raw.len());
        let tally = count(rows.clone(), self.last_seq, limit)?;
        let raw_bytes = tally.raw_bytes();
        let taken = self.directory.checked_add(ENTRY_BYTES_MAX)?.checked_add(HEAD_BYTES_MAX)?;
        let room = out.get_mut(self.packed..out.len().checked_sub(taken)?)?;
        let columns = rows.by_ref().take(usize::try_from(tally.count).ok()?);
        let (packing, packed_bytes) = match mem.raw.get_mut(..raw_bytes) {
            Some(raw) => {
                tally.write(columns, raw)?;
                pack(raw, room, mem.table)?
            }
            // One record that is larger than the memory for packing.
            None => {
                tally.write(columns, room.get_mut(..raw_bytes)?)?;
                (Packing::Stored, raw_bytes)
            }
        };
        let info = BlockInfo {
            stream,
            first_seq: tally.first_seq,
            last_seq: tally.last_seq,
            count: tally.count,
            packing,
            packed_at: u32::try_from(self.packed).ok()?,
            packed_bytes: u32::try_from(packed_bytes).ok()?,
            raw_bytes: u32::try_from(raw_bytes).ok()?,
            row_bytes: u32::try_from(tally.row_bytes).ok()?,
            min_received_us: tally.min_received_us,
            max_received_us: tally.max_received_us,
            severities: tally.severities,
            timed: tally.timed,
            event_time_us: (tally.timed > 0).then_some((tally.min_event_us, tally.max_event_us)),
        };
        self.enter(&info, out)?;
        (self.stream, self.position) = (Some(stream), Some(rows.rows.position()));
        self.packed = self.packed.checked_add(packed_bytes)?;
        self.records = self.records.checked_add(u64::from(tally.count))?;
        self.blocks = self.blocks.checked_add(1)?;
        Some(Step::Block(info))
    }

    /// The next stream that has records of the range left, and those.
    fn rows<'f, 'k, F: AsRef<[u8]>>(
        &mut self,
        frozen: &'f Frozen<'_, F>,
        keep: Keep<'k>,
    ) -> Option<(u16, Wanted<'f, 'k>)> {
        loop {
            let stream = match self.position {
                Some(_) => self.stream?,
                None => frozen.next_stream(self.stream?)?,
            };
            let mut rows = match self.position.take() {
                Some(position) => frozen.chain_at(position),
                None => frozen.chain(stream),
            };
            rows.skip_below(self.first_seq);
            let wanted = Wanted { rows, keep };
            if wanted.clone().next().is_some_and(|(seq, _)| seq <= self.last_seq) {
                return Some((stream, wanted));
            }
            self.stream = stream.checked_add(1);
        }
    }

    /// Writes an entry of the directory, backwards.
    fn enter(&mut self, info: &BlockInfo, out: &mut [u8]) -> Option<()> {
        let mut entry = [0u8; ENTRY_BYTES_MAX];
        let len = write_entry(info, self.first_seq, self.received_before, &mut entry)?;
        let entry = entry.get_mut(..len)?;
        entry.reverse();
        self.directory = self.directory.checked_add(len)?;
        let at = out.len().checked_sub(self.directory)?;
        out.get_mut(at..)?.get_mut(..len)?.copy_from_slice(entry);
        self.received_before = info.min_received_us;
        Some(())
    }

    /// Puts the head and the directory in front of the sub-blocks; returns the bytes of the group.
    fn finish(&self, out: &mut [u8]) -> Option<usize> {
        let count = self.last_seq.checked_sub(self.first_seq)?.checked_add(1)?;
        let mut head = [0u8; HEAD_BYTES_MAX];
        let mut w = ItemWriter::new(&mut head);
        match self.upto {
            None if self.records != count => return None,
            None => w.bytes(&[0, GROUP_FORMAT])?,
            Some(_) => w.bytes(&[0, SPARSE_FORMAT])?,
        }
        w.value(&self.first_seq)?;
        if self.upto.is_some() {
            w.value(&u32::try_from(count.checked_sub(1)?).ok()?)?;
        }
        w.value(&u32::try_from(self.records).ok()?)?;
        w.value(&self.blocks)?;
        if let Some(upto) = self.upto {
            w.value(&upto)?;
        }
        w.value(&u32::try_from(self.directory).ok()?)?;
        let head_bytes = w.len();
        let head = head.get(..head_bytes)?;
        let back = out.len().checked_sub(self.directory)?;
        let directory_at = self.packed.checked_add(head.len())?;
        let end = directory_at.checked_add(self.directory)?;
        if directory_at > back {
            return None;
        }
        out.get_mut(back..)?.reverse();
        out.copy_within(back.., directory_at);
        out.get_mut(self.packed..directory_at)?.copy_from_slice(head);
        out.get_mut(..end)?.rotate_left(self.packed);
        Some(end)
    }
}

/// Encodes the records of `frozen` numbered `range` as a row group into `out`, in sub-blocks of at most `block_bytes`;
/// returns its bytes. `None` if it does not fit, or if not every record of the range is in a chain: write rows then.
///
/// In front of it stand, written by the caller, a frame's prefix and items; the group begins with the tag that ends
/// them. Given an `out` no longer than the records are as rows, it makes no group that is larger than those.
pub fn encode<F: AsRef<[u8]>>(
    frozen: &Frozen<'_, F>,
    range: RangeInclusive<u64>,
    out: &mut [u8],
    mem: &mut GroupMemory<'_>,
    block_bytes: usize,
) -> Option<usize> {
    let mut encoder = GroupEncoder::new(range, block_bytes);
    loop {
        if let Step::Done(bytes) = encoder.next_block(frozen, out, mem)? {
            return Some(bytes);
        }
    }
}

/// Counts as many records as fit into `limit` bytes of columns, and one at least.
fn count<'r>(rows: impl Iterator<Item = (u64, Row<'r>)>, last_seq: u64, limit: usize) -> Option<Tally> {
    let mut tally = Tally::default();
    for (seq, row) in rows {
        let mut more = tally;
        more.add(seq, &row)?;
        if seq > last_seq || (tally.count > 0 && more.raw_bytes() > limit) {
            break;
        }
        tally = more;
    }
    (tally.count > 0).then_some(tally)
}

/// Packs a sub-block, or stores it as it is if that is not larger.
fn pack(raw: &[u8], room: &mut [u8], table: &mut [u32]) -> Option<(Packing, usize)> {
    let worth = room.len().min(raw.len().saturating_sub(1));
    if let Some(len) = lz4::Encoder::new(table).compress(raw, room.get_mut(..worth)?) {
        return Some((Packing::Lz4, len));
    }
    room.get_mut(..raw.len())?.copy_from_slice(raw);
    Some((Packing::Stored, raw.len()))
}
