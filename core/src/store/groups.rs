//! Memtable to row group: a large commit on a wide medium is written once, compressed.
//!
//! Invariants: a row group holds whole batches and is one frame; it is never larger than the same records as rows, or
//! rows are written; what a reader needs to decode one is bounded by [`GROUP_ROWS_BYTES_MAX`] and
//! [`GROUP_RECORDS_MAX`].

use super::Store;
use super::rows::{Built, severity_bit, stream_bit};
use crate::format::frame::{FrameFlags, FrameKind};
use crate::format::row::{Item, ItemWriter, Prefix};
use crate::hal::{Arena, Storage};
use crate::memtable::{Entries, Entry, Frozen};
use crate::sstable::{self, GroupMemory};

/// Most bytes of a row group's records as rows; at most two frame buffers too. Four times as much packs no better by
/// LZ4 (its window is 64 KiB), and one damaged bit costs the whole group.
pub const GROUP_ROWS_BYTES_MAX: usize = 1 << 20;
/// Most records of a row group.
pub const GROUP_RECORDS_MAX: u32 = 65_536;
/// Least bytes of records worth a row group, or half a frame buffer: below that, padding takes what packing gains.
pub const GROUP_ROWS_BYTES_MIN: usize = 64 << 10;
/// A larger record is not packed: a reader unpacks it beside its columns.
const PACK_BYTES_MAX: usize = 1 << 20;
/// Largest sub-block, raw: it packs as well as a larger one, and is as much as a reader decodes for one record.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The whole batches that go into one group.
struct Range<'c> {
    last_seq: u64,
    bytes: usize,
    after: Entries<'c>,
    severities: u32,
    streams: u64,
}

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Builds a row group in the frame buffer from what follows in the memtable, if there is enough of it to be worth
    /// one; `None` if rows are to be written.
    pub(super) fn build_group<'c>(
        &mut self,
        frozen: &Frozen<'m, A::Frozen>,
        cursor: &mut Entries<'c>,
    ) -> Option<Built> {
        let layout = self.catalog.layout;
        let least = GROUP_ROWS_BYTES_MIN.min(self.memory.frame.len() / 2);
        if !layout.wide || self.memory.group.is_none() || cursor.remaining() < least {
            return None;
        }
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let room = usize::try_from(layout.payload_max(self.log.room(&layout).min(buffer))).ok()?;
        let mut limit = GROUP_ROWS_BYTES_MAX.min(self.memory.frame.len().saturating_mul(2));
        while limit >= least {
            let range = whole_batches(cursor.clone(), limit)?;
            if range.bytes < least {
                return None;
            }
            if let Some(built) = self.encode_group(frozen, cursor, &range, room) {
                *cursor = range.after;
                return Some(built);
            }
            limit = limit.min(range.bytes) / 2; // it does not fit what is left of the segment, or is not smaller
        }
        None
    }

    fn encode_group(
        &mut self,
        frozen: &Frozen<'m, A::Frozen>,
        cursor: &Entries<'_>,
        range: &Range<'_>,
        room: usize,
    ) -> Option<Built> {
        let first_seq = cursor.clone().next()?.seq;
        let start = usize::try_from(self.catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        let out = self.memory.frame.get_mut(start..start.checked_add(room.min(range.bytes))?)?;
        let mut w = ItemWriter::new(out);
        Prefix { clock_epoch: self.anchor.clock_epoch, batch: None }.write(&mut w)?;
        let mut written = Some(());
        for entry in entries_until(cursor.clone(), &range.after) {
            written = written.and_then(|()| match entry.item()? {
                Item::Row(row) if !self.catalog.streams.needs_definition(row.stream) => Some(()),
                Item::Row(row) => {
                    let name = self.catalog.streams.name(row.stream)?;
                    w.item(&Item::Stream { id: row.stream, name })?;
                    self.catalog.streams.set_defined(row.stream, first_seq);
                    Some(())
                }
                _ => w.bytes(entry.item_bytes),
            });
        }
        let items = w.len();
        let packed = written.and_then(|()| {
            let mut mem = packing(self.memory.group.as_mut()?);
            let block_bytes = BLOCK_BYTES.min(mem.raw.len());
            let out = self.memory.frame.get_mut(start..)?.get_mut(items..room.min(range.bytes))?;
            sstable::encode(frozen, first_seq..=range.last_seq, out, &mut mem, block_bytes)
        });
        let Some(packed) = packed else {
            self.catalog.streams.undefine_from(first_seq.max(1));
            return None;
        };
        Some(Built {
            kind: FrameKind::RowGroup,
            flags: FrameFlags::WHOLE,
            part: 0,
            payload_bytes: u32::try_from(items.checked_add(packed)?).ok()?,
            first_seq,
            count: u32::try_from(range.last_seq.checked_sub(first_seq)?.checked_add(1)?).ok()?,
            severities: range.severities,
            streams: range.streams,
            chain_tail: 0,
        })
    }
}

/// What is used for packing: there may be more memory, for unpacking.
pub(super) fn packing<'g>(group: &'g mut GroupMemory<'_>) -> GroupMemory<'g> {
    let len = group.raw.len().min(PACK_BYTES_MAX);
    GroupMemory { raw: group.raw.split_at_mut(len).0, table: group.table, slots: &mut [] }
}

/// As many whole batches as stay within the limits, `None` if not one does.
fn whole_batches(cursor: Entries<'_>, limit: usize) -> Option<Range<'_>> {
    let mut range: Option<Range<'_>> = None;
    let (mut bytes, mut records, mut severities, mut streams) = (0usize, 0u32, 0u32, 0u64);
    let mut walk = cursor;
    while let Some(entry) = walk.next().filter(|entry| !entry.is_lost) {
        bytes = bytes.saturating_add(entry.item_bytes.len());
        if let Some(Item::Row(row)) = entry.item() {
            records = records.saturating_add(1);
            severities |= severity_bit(row.severity);
            streams |= stream_bit(row.stream);
        }
        if bytes > limit || records > GROUP_RECORDS_MAX {
            break;
        }
        if entry.ends_batch {
            let last_seq = if entry.is_row { entry.seq } else { entry.seq.saturating_sub(1) };
            range = Some(Range { last_seq, bytes, after: walk.clone(), severities, streams });
        }
    }
    range
}

fn entries_until<'c>(mut from: Entries<'c>, end: &Entries<'_>) -> impl Iterator<Item = Entry<'c>> {
    let left = end.remaining();
    core::iter::from_fn(move || if from.remaining() > left { from.next() } else { None })
}
