//! Memtable to frames: as many whole batches as fit a frame, or a chain of frames for a batch larger than any.
//!
//! Invariants: a frame ends at the end of a batch or is part of a chain; a stream is defined in a segment before its
//! first record there; what does not fit leaves no trace; records that were lost have a frame without records.

use super::{Stop, Store};
use crate::error::ReadOnlyReason;
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::row::{Item, ItemWriter, Lost, Prefix};
use crate::hal::{Arena, Storage};
use crate::memtable::{Entries, Entry, Frozen};
use crate::streams::StreamTable;

/// A batch that is being written as a chain of frames.
#[derive(Debug, Clone, Copy)]
struct ChainWrite {
    first: u64,
    last: u64,
    part: u16,
}

/// A frame of records whose payload stands in the frame buffer.
pub(super) struct Built {
    pub(super) kind: FrameKind,
    pub(super) flags: FrameFlags,
    pub(super) part: u16,
    pub(super) payload_bytes: u32,
    pub(super) first_seq: u64,
    pub(super) count: u32,
    /// Which severities and streams are in it, see [`crate::format::events::IndexEntry`].
    pub(super) severities: u32,
    pub(super) streams: u64,
    /// How many numbers of its batch come in later frames.
    pub(super) chain_tail: u32,
}

/// The bit of a severity in an index.
pub(super) fn severity_bit(severity: u8) -> u32 {
    1u32.wrapping_shl(u32::from(severity.min(31)))
}

/// The bit of a stream in an index.
pub(super) fn stream_bit(stream: u16) -> u64 {
    1u64.wrapping_shl(u32::from(stream % 64))
}

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Writes all entries of a memtable as frames.
    pub(super) fn write_entries(&mut self, frozen: &Frozen<'m, A::Frozen>) -> Result<(), Stop<S::Error>> {
        let mut cursor = frozen.entries();
        let mut chain: Option<ChainWrite> = None;
        let mut fresh = false;
        while let Some(entry) = cursor.clone().next() {
            let built = match self.log.open {
                None => None,
                Some(_) if chain.is_some() => self.build(&mut cursor, &mut chain),
                Some(_) => {
                    let group = self.build_group(frozen, &mut cursor);
                    group.or_else(|| self.build(&mut cursor, &mut chain))
                }
            };
            let Some(built) = built else {
                if fresh {
                    // Sizes were checked at append: an empty segment always takes the next record.
                    debug_assert!(false, "a record that fits into no segment");
                    return Err(Stop::ReadOnly(ReadOnlyReason::CommitFailed));
                }
                self.open_next(entry.seq, entry.seq)?;
                fresh = true;
                continue;
            };
            fresh = false;
            let mut frame = self.frame(built.kind, built.first_seq, built.payload_bytes);
            (frame.flags, frame.part, frame.count) = (built.flags, built.part, built.count);
            let segment = self.log.open.map_or(0, |(segment, _)| segment);
            if let Some(state) = self.catalog.pool.entry_mut(segment) {
                state.pending = true;
            }
            let offset = self.put(&frame)?;
            self.note_written(segment, offset, &frame, &built);
        }
        Ok(())
    }

    fn note_written(&mut self, segment: u32, offset: u32, frame: &Frame, built: &Built) {
        if let Some(entry) = self.catalog.pool.entry_mut(segment) {
            let state = &mut entry.state;
            if state.last_seq < state.first_seq {
                state.first_seq = frame.first_seq;
            }
            state.last_seq = state.last_seq.max(frame.last_seq());
            state.chain_tail = built.chain_tail;
        }
        if frame.count > 0 {
            self.log.index.note(offset, frame.first_seq, built.severities, built.streams);
        }
        self.stats.frames = self.stats.frames.saturating_add(1);
        self.stats.payload_bytes = self.stats.payload_bytes.saturating_add(u64::from(frame.payload_bytes));
    }

    /// Builds the next frame of rows in the frame buffer: as many whole batches as fit, or the next part of one that is
    /// larger than any frame. `None` if the open segment has no room for it.
    fn build(&mut self, cursor: &mut Entries<'_>, chain: &mut Option<ChainWrite>) -> Option<Built> {
        let layout = self.catalog.layout;
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let room = layout.payload_max(self.log.room(&layout).min(buffer));
        if chain.is_none() {
            match self.rows_builder(cursor, room, None)?.whole_batches() {
                // State entries alone, and then a chain in this segment: nobody would miss their frame if only it was
                // torn, so they ride in the chain.
                Some((built, after)) if built.count == 0 && self.exceeds_any_frame(&after) => {}
                Some((built, after)) => {
                    *cursor = after;
                    return Some(built);
                }
                None if self.exceeds_any_frame(cursor) => {}
                None => return None,
            }
            let first = cursor.clone().next()?.seq;
            // The batch may end with state entries, and others of states alone may stand before it.
            let next = |e: &Entry<'_>| e.seq.saturating_add(u64::from(e.numbers()));
            let end = cursor.clone().find(|e| e.ends_batch && next(e) > first)?;
            let last = next(&end).saturating_sub(1);
            *chain = Some(ChainWrite { first, last, part: 0 });
        }
        let link = chain.as_mut()?;
        let (built, after) = self.rows_builder(cursor, room, Some((link.first, link.last)))?.part_of(link)?;
        debug_assert!(built.flags != FrameFlags::WHOLE, "a batch that fits a frame is no chain");
        *cursor = after;
        link.part = link.part.saturating_add(1);
        if built.flags.has(FrameFlags::LAST) {
            *chain = None;
        }
        Some(built)
    }

    /// Fills the frame buffer with rows from `cursor` on, up to `room` bytes of payload.
    fn rows_builder<'c>(
        &mut self,
        cursor: &Entries<'c>,
        room: u32,
        batch: Option<(u64, u64)>,
    ) -> Option<RowsBuilder<'_, '_, 'm, 'c>> {
        let flags = if batch.is_some() { FrameFlags::default() } else { FrameFlags::WHOLE };
        let start = usize::try_from(self.catalog.layout.payload_at(flags)).ok()?;
        let end = start.checked_add(usize::try_from(room).ok()?)?;
        let out = self.memory.frame.get_mut(start..end)?;
        let mut builder = RowsBuilder::new(out, &mut self.catalog.streams, cursor.clone());
        Prefix { clock_epoch: self.anchor.clock_epoch, batch }.write(&mut builder.out)?;
        Some(builder)
    }

    /// The next batch is larger than any frame this store writes.
    fn exceeds_any_frame(&self, cursor: &Entries<'_>) -> bool {
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let max = self.catalog.layout.payload_max(self.catalog.data_room().min(buffer));
        let max = usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(Prefix::BYTES_MAX);
        if cursor.remaining() < max / 2 && self.catalog.streams.names_bytes() < max / 2 {
            return false; // all that is left fits, with every name
        }
        let mut bytes = 0usize;
        for entry in cursor.clone() {
            // Each stream may have to be defined once more.
            let define = entry.stream().map_or(0, |id| self.catalog.streams.name(id).map_or(0, |n| n.len() + 8));
            bytes = bytes.saturating_add(entry.item_bytes.len()).saturating_add(define);
            if bytes > max {
                return true;
            }
            if entry.ends_batch {
                return false;
            }
        }
        false
    }
}

/// Fills a frame with rows.
struct RowsBuilder<'b, 's, 'm, 'c> {
    out: ItemWriter<'b>,
    streams: &'s mut StreamTable<'m>,
    cursor: Entries<'c>,
    first_seq: u64,
    next_seq: u64,
    severities: u32,
    streams_mask: u64,
    holds_lost: bool,
}

/// Where a frame can be cut.
#[derive(Clone)]
struct Checkpoint<'c> {
    len: usize,
    cursor: Entries<'c>,
    next_seq: u64,
    severities: u32,
    streams_mask: u64,
}

impl<'b, 's, 'm, 'c> RowsBuilder<'b, 's, 'm, 'c> {
    fn new(out: &'b mut [u8], streams: &'s mut StreamTable<'m>, cursor: Entries<'c>) -> Self {
        let first_seq = cursor.clone().next().map_or(0, |e| e.seq);
        let out = ItemWriter::new(out);
        Self { out, streams, cursor, first_seq, next_seq: first_seq, severities: 0, streams_mask: 0, holds_lost: false }
    }

    /// Writes the next entry, and its stream's definition if that is due; `None` if it does not fit.
    fn entry(&mut self) -> Option<bool> {
        let mut cursor = self.cursor.clone();
        let entry = cursor.next()?;
        if (entry.is_row && self.holds_lost) || (entry.is_lost && self.next_seq > self.first_seq) {
            return None; // no records stand in a frame with what was lost
        }
        if entry.is_row {
            let Some(Item::Row(row)) = entry.item() else { return None };
            self.define(row.stream, entry.seq)?;
            self.out.bytes(entry.item_bytes)?;
            self.severities |= severity_bit(row.severity);
            self.streams_mask |= stream_bit(row.stream);
            self.next_seq = entry.seq.saturating_add(1);
        } else {
            if let Some(Item::Lost(Lost { stream: Some(id), .. })) = entry.item().filter(|_| entry.is_lost) {
                self.define(id, entry.seq)?;
            }
            self.out.bytes(entry.item_bytes)?;
            self.next_seq = entry.seq.saturating_add(u64::from(entry.numbers()));
            self.holds_lost |= entry.is_lost;
        }
        self.cursor = cursor;
        Some(entry.ends_batch)
    }

    /// Names the stream, if it has no name in this segment yet.
    fn define(&mut self, id: u16, seq: u64) -> Option<()> {
        if self.streams.needs_definition(id) {
            let name = self.streams.name(id)?;
            self.out.item(&Item::Stream { id, name })?;
            self.streams.set_defined(id, seq);
        }
        Some(())
    }

    fn checkpoint(&self) -> Checkpoint<'c> {
        Checkpoint {
            len: self.out.len(),
            cursor: self.cursor.clone(),
            next_seq: self.next_seq,
            severities: self.severities,
            streams_mask: self.streams_mask,
        }
    }

    fn built(self, cut: Checkpoint<'c>, flags: FrameFlags, part: u16, tail: u64) -> Option<(Built, Entries<'c>)> {
        self.streams.undefine_from(cut.next_seq.max(1));
        let built = Built {
            kind: FrameKind::Rows,
            flags,
            part,
            payload_bytes: u32::try_from(cut.len).ok()?,
            first_seq: self.first_seq,
            count: u32::try_from(cut.next_seq.checked_sub(self.first_seq)?).ok()?,
            severities: cut.severities,
            streams: cut.streams_mask,
            chain_tail: u32::try_from(tail).unwrap_or(u32::MAX),
        };
        Some((built, cut.cursor))
    }

    /// As many whole batches as fit; `None` if not one does.
    fn whole_batches(mut self) -> Option<(Built, Entries<'c>)> {
        let mut cut = None;
        while let Some(ends_batch) = self.entry() {
            if ends_batch {
                cut = Some(self.checkpoint());
            }
        }
        match cut {
            Some(cut) => self.built(cut, FrameFlags::WHOLE, 0, 0),
            None => {
                self.streams.undefine_from(self.first_seq.max(1));
                None
            }
        }
    }

    /// As much of one batch as fits.
    fn part_of(mut self, chain: &ChainWrite) -> Option<(Built, Entries<'c>)> {
        let empty = self.out.len();
        let mut flags = if chain.part == 0 { FrameFlags::FIRST } else { FrameFlags::default() };
        let mut cut = self.checkpoint();
        while let Some(ends_batch) = self.entry() {
            cut = self.checkpoint();
            if ends_batch && cut.next_seq > chain.last {
                flags = flags.with(FrameFlags::LAST);
                break;
            }
        }
        if cut.len == empty {
            self.streams.undefine_from(self.first_seq.max(1));
            return None;
        }
        let tail = chain.last.saturating_add(1).saturating_sub(cut.next_seq);
        self.built(cut, flags, chain.part, tail)
    }
}
