//! Rewriting: the oldest log segment into tables, or the oldest table of a class into a smaller one, piece by piece.
//!
//! Invariants:
//! - nothing of a piece counts before an edit says so: groups are written, synced, and then published in both slots;
//!   only then is their source free (a cut repeats the rewrite);
//! - the log's floor never falls inside a batch, and what lies below it is in a table or was left out by the policy;
//! - after a failure, and behind the end of an unclean stop, nothing is appended to a table segment any more (P7);
//! - between two pieces nothing is held but numbers: the memory is the spare memtable's and the frame buffer.

use super::groups::{GROUP_RECORDS_MAX, GROUP_ROWS_BYTES_MAX};
use super::retention::Trouble;
use super::{Stop, Store, at};
use crate::error::Doing;
use crate::format::crc::Life;
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::header::{CLASSES_MAX, SegmentKind};
use crate::format::row::{Item, ItemWriter, Prefix, Row};
use crate::gaps::{Gap, GapCause};
use crate::hal::{Arena, Storage};
use crate::memtable::{Frozen, Memtable};
use crate::scan::{Entry, Scan, ScanMemory};
use crate::sstable::{GroupEncoder, Step};
use crate::streams::Usage;
use crate::tables::class_of;
use crate::wal;

/// What is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The oldest segment of the log.
    Log,
    /// A segment of a class's tables.
    Table {
        /// The segment.
        segment: u32,
        /// Its class.
        class: u8,
    },
}

/// Where the groups of a class go.
#[derive(Debug, Clone, Copy, Default)]
struct Out {
    segment: Option<u32>,
    /// Offset of the next group.
    at: u32,
    /// The last number covered.
    covered: u64,
    /// Something was written that is not published.
    unpublished: bool,
}

/// A rewrite under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    source: Source,
    /// The numbers still to be rewritten.
    next: u64,
    last: u64,
    /// Streams that take more than their share stay behind.
    leaves_out: bool,
    outs: [Out; CLASSES_MAX],
}

/// What was collected for a piece.
struct Collected {
    upto: u64,
    /// Clock epoch and boot of its records.
    from: (u32, u32),
    /// Numbers of the first and last record; records by class.
    range: Option<(u64, u64)>,
    counts: [u32; CLASSES_MAX],
    /// What is missing, for the ledger.
    gaps: heapless::Vec<Gap, 16>,
}

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Everything that rewriting needs is there.
    pub(crate) fn can_rewrite(&self) -> bool {
        let has_memory = self.memory.group.as_ref().is_some_and(|group| !group.slots.is_empty());
        self.catalog.layout.wide
            && has_memory
            && self.started
            && self.read_only.is_none()
            && self.pending.is_none()
            && self.active.is_some()
            && self.spare.is_some()
            && self.rewriting.failures < super::ATTEMPTS
    }

    /// The first sealed segment of the log that holds records, and the end of its last batch.
    pub(super) fn oldest_sealed(&self) -> Option<(u32, u64)> {
        let open = self.log.open.map(|(segment, _)| segment);
        let state = |s: u32| self.catalog.pool.get(s).state;
        let sealed = self.catalog.pool.order().iter().copied();
        let mut sealed = sealed.take_while(|s| state(*s).used_for == SegmentUse::Sealed && Some(*s) != open);
        let segment = sealed.find(|s| {
            let state = state(*s);
            state.last_seq >= state.first_seq && state.last_seq >= self.catalog.log_floor()
        })?;
        let state = state(segment);
        let last = state.last_seq.saturating_add(u64::from(state.chain_tail));
        (last <= self.catalog.durable_upto).then_some((segment, last))
    }

    /// Begins to rewrite the oldest log segment.
    pub(super) fn begin_log_job(&mut self, leaves_out: bool) -> bool {
        let Some((_, last)) = self.oldest_sealed() else { return false };
        let mut outs = [Out::default(); CLASSES_MAX];
        for (class, out) in (0u8..).zip(&mut outs) {
            *out = self.out_of(class, u64::MAX, self.catalog.log_floor());
        }
        let next = self.catalog.log_floor();
        self.rewriting.job = Some(Job { source: Source::Log, next, last, leaves_out, outs });
        true
    }

    /// Begins to rewrite a table segment.
    pub(super) fn begin_table_job(&mut self, segment: u32, class: u8) {
        let state = self.catalog.pool.get(segment).state;
        let mut outs = [Out::default(); CLASSES_MAX];
        if let Some(out) = outs.get_mut(usize::from(class)) {
            *out = self.out_of(class, state.first_seq, state.first_seq);
            if out.segment.is_none() {
                out.covered = state.first_seq.saturating_sub(1);
            }
        }
        let (next, last) = (state.first_seq, state.last_seq);
        let source = Source::Table { segment, class };
        self.rewriting.job = Some(Job { source, next, last, leaves_out: true, outs });
    }

    /// Where groups of a class go: behind the last table segment that begins before `before`, if more may be appended
    /// there. Without one they cover the numbers from `from` on.
    fn out_of(&self, class: u8, before: u64, from: u64) -> Out {
        let Some((segment, state)) = self.catalog.table_before(class, before) else {
            return Out { covered: from.saturating_sub(1), ..Out::default() };
        };
        let is_open = matches!(state.used_for, SegmentUse::Table { open: true, .. });
        let segment = is_open.then_some(segment);
        Out { segment, at: state.chain_tail, covered: state.last_seq, unpublished: false }
    }

    /// One piece of the rewrite under way: a group per class at most, or the edit that ends it.
    pub(super) fn rewrite_piece(&mut self) -> Result<(), Trouble<S::Error>> {
        let Some(mut job) = self.rewriting.job.take() else { return Ok(()) };
        let done = if job.next > job.last { self.finish_job(&mut job).map(|()| true) } else { self.do_piece(&mut job) };
        let ended = matches!(done, Ok(true));
        if !ended {
            self.rewriting.job = Some(job);
        }
        done.map(|_| ())
    }

    fn do_piece(&mut self, job: &mut Job) -> Result<bool, Trouble<S::Error>> {
        let Some(mut table) = self.spare.take() else { return Ok(false) };
        let collected = self.collect(job, &mut table);
        let frozen = table.freeze();
        let mut done = Ok(());
        if let Some(range) = collected.range {
            for class in (0u8..).take(CLASSES_MAX) {
                if collected.counts.get(usize::from(class)).is_some_and(|n| *n > 0) && done.is_ok() {
                    done = self.write_table_group(job, &frozen, class, range, &collected);
                }
            }
        }
        self.spare = frozen.thaw(self.next_seq()).ok();
        done?;
        for gap in collected.gaps {
            self.catalog.gaps.add(gap);
            self.catalog.tables_dirty = true;
        }
        job.next = collected.upto.saturating_add(1);
        Ok(false)
    }

    /// Takes records of one boot and clock epoch from the source into `table`, as many as a group holds.
    fn collect(&mut self, job: &Job, table: &mut Memtable<'m, A>) -> Collected {
        let limit = GROUP_ROWS_BYTES_MAX.min(self.memory.frame.len()).min(self.segment_rows_max());
        let mut got = Collected {
            upto: job.last,
            from: (0, 0),
            range: None,
            counts: [0; CLASSES_MAX],
            gaps: heapless::Vec::new(),
        };
        table.restart(job.next);
        let Some(group) = self.memory.group.as_mut() else { return got };
        let places_max = group.slots.len() / 2;
        let mut mem = ScanMemory { frame: self.memory.frame, raw: group.raw, slots: group.slots };
        let only = if let Source::Table { class, .. } = job.source { Some(class) } else { None };
        let mut scan = Scan::for_rewrite(&self.catalog, (job.next, job.last), only);
        let mut records = 0u32;
        while let Some(entry) = scan.next(&mut self.storage, &self.catalog, &mut mem) {
            let record = match entry {
                Entry::Record(record) => record,
                Entry::Gap(gap) if gap.cause != GapCause::Retention => {
                    if got.gaps.push(gap).is_err() {
                        got.upto = gap.first_seq.saturating_sub(1);
                        return got;
                    }
                    continue;
                }
                Entry::Gap(_) | Entry::Event(_) => continue,
            };
            let (seq, row, from) = (record.seq, record.row, (record.clock_epoch, record.boot));
            let class = only.unwrap_or_else(|| self.rewriting.class(&self.catalog, &row));
            let covered = job.outs.get(usize::from(class)).map_or(0, |out| out.covered);
            let too_old = self.rewriting.is_too_old(class, record.received_wall_us());
            let left_out = too_old || (job.leaves_out && self.rewriting.is_over_share(row.stream));
            if left_out || seq <= covered {
                if left_out && seq > covered {
                    let bytes = row.body.len().saturating_add(row.fields.len()) as u64;
                    let stats = &mut self.stats;
                    stats.records_left_out = stats.records_left_out.saturating_add(1);
                    let count = if too_old { &mut stats.bytes_dropped_age } else { &mut stats.bytes_dropped_share };
                    *count = count.saturating_add(bytes);
                }
                continue;
            }
            let before = table.extent();
            let far = seq.saturating_sub(job.next) > u64::from(u32::MAX / 2);
            table.skip_to(seq);
            let pushed = if far { None } else { table.push(&row) };
            let full = table.extent().used > limit || records >= GROUP_RECORDS_MAX.min(places_limit(places_max));
            if pushed.is_none() || (records > 0 && (full || from != got.from)) {
                // It begins the next piece. (What was pushed of it lies behind the range.)
                got.upto = seq.saturating_sub(1);
                debug_assert!(before.used > 0, "a record larger than a memtable");
                return got;
            }
            records = records.saturating_add(1);
            got.from = from;
            got.range = Some((got.range.map_or(seq, |(first, _)| first), seq));
            if let Some(count) = got.counts.get_mut(usize::from(class)) {
                *count = count.saturating_add(1);
            }
        }
        got
    }

    /// So many bytes of records surely fit into an empty segment as a group, unless it is a single record.
    fn segment_rows_max(&self) -> usize {
        usize::try_from(self.catalog.data_room()).unwrap_or(0) / 4 * 3
    }

    fn write_table_group(
        &mut self,
        job: &mut Job,
        frozen: &Frozen<'m, A::Frozen>,
        class: u8,
        range: (u64, u64),
        collected: &Collected,
    ) -> Result<(), Trouble<S::Error>> {
        let mut fresh = false;
        loop {
            let out = job.outs.get(usize::from(class)).copied().unwrap_or_default();
            let layout = self.catalog.layout;
            let packed = out.segment.and_then(|_| {
                let room = layout.payload_max(layout.data_end().saturating_sub(out.at));
                // What came before was covered by an earlier group of this class.
                let range = (range.0.max(out.covered.saturating_add(1)), range.1);
                self.encode_table_group(job, frozen, class, range, collected, room)
            });
            let Some((payload_bytes, count)) = packed else {
                if fresh {
                    return Err(Trouble::NoRoom);
                }
                self.open_table(job, class)?;
                fresh = true;
                continue;
            };
            let Some(segment) = out.segment else { return Ok(()) };
            let first_seq = out.covered.saturating_add(1);
            let epoch = collected.from.1;
            let frame =
                Frame { count, epoch, volatile_bound: 0, ..self.frame(FrameKind::RowGroup, first_seq, payload_bytes) };
            let generation = self.catalog.pool.get(segment).state.generation;
            let life = Life { store_id: self.catalog.store_id, segment, generation }.of_table();
            if let Some(out) = job.outs.get_mut(usize::from(class)) {
                out.unpublished = true;
            }
            let end = wal::write_sealed(&mut self.storage, &layout, self.memory.frame, &life, out.at, &frame);
            let end = end.map_err(Stop::of_write)?;
            let written = u64::from(end.saturating_sub(out.at));
            self.stats.rewritten_bytes = self.stats.rewritten_bytes.saturating_add(written);
            if let Some(out) = job.outs.get_mut(usize::from(class)) {
                (out.at, out.covered) = (end, collected.upto);
            }
            return Ok(());
        }
    }

    /// Encodes the records of a class into the frame buffer; returns the bytes of the payload and the records.
    fn encode_table_group(
        &mut self,
        job: &Job,
        frozen: &Frozen<'m, A::Frozen>,
        class: u8,
        (first, last): (u64, u64),
        collected: &Collected,
        room: u32,
    ) -> Option<(u32, u32)> {
        let start = usize::try_from(self.catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        let rewriting = &self.rewriting;
        let catalog = &self.catalog;
        let is_table = job.source != Source::Log;
        let keep = |row: &Row<'_>| is_table || rewriting.class(catalog, row) == class;
        let buffer_room = self.catalog.layout.payload_max(u32::try_from(self.memory.frame.len()).ok()?);
        let end = start.checked_add(usize::try_from(room.min(buffer_room)).ok()?)?;
        let out = self.memory.frame.get_mut(start..end)?;
        let mut w = ItemWriter::new(out);
        Prefix { clock_epoch: collected.from.0, batch: None }.write(&mut w)?;
        if let Some(anchor) = catalog.clocks.get(collected.from.0) {
            w.item(&Item::Clock(anchor))?;
        }
        for stream in frozen.streams() {
            let Some(name) = catalog.streams.name(stream).filter(|_| stream != crate::streams::OTHER) else { continue };
            if frozen.chain(stream).any(|(seq, row)| seq <= last && keep(&row)) {
                w.item(&Item::Stream { id: stream, name })?;
            }
        }
        let items = w.len();
        let mut mem = super::groups::packing(self.memory.group.as_mut()?);
        let block_bytes = super::groups::BLOCK_BYTES.min(mem.raw.len());
        let mut encoder = GroupEncoder::sparse(first..=last, collected.upto, block_bytes);
        let out = out.get_mut(items..)?;
        let mut all_counted = true;
        let mut used: heapless::Vec<(u16, u32), 64> = heapless::Vec::new();
        let bytes = loop {
            match encoder.next_block_of(frozen, out, &mut mem, &keep)? {
                Step::Block(info) => {
                    all_counted &= used.push((info.stream, units(info.packed_bytes))).is_ok();
                }
                Step::Done(bytes) => break bytes,
            }
        };
        self.rewriting.surveyed &= all_counted;
        for (stream, units) in used {
            self.catalog.streams.use_more(stream, Usage::Tables, units, false);
        }
        let count = u32::try_from(encoder.records()).ok()?;
        Some((u32::try_from(items.checked_add(bytes)?).ok()?, count))
    }

    /// Begins a fresh table segment for a class: announced by a synced edit, which also publishes what was written so
    /// far, then its header, synced.
    fn open_table(&mut self, job: &mut Job, class: u8) -> Result<(), Trouble<S::Error>> {
        let Some(segment) = self.catalog.pool.least_worn_free() else {
            return Err(Trouble::NoRoom);
        };
        self.publish_outs(job)?;
        let out = job.outs.get(usize::from(class)).copied().unwrap_or_default();
        if let Some(full) = out.segment {
            self.seal_table(full);
        }
        let generation = self.catalog.head.next_generation;
        self.catalog.head.next_generation = generation.saturating_add(1);
        let (first_seq, epoch) = (out.covered.saturating_add(1), self.catalog.head.epoch);
        let erase_count = self.catalog.pool.get(segment).state.erase_count.saturating_add(1);
        let used_for = SegmentUse::Table { class, open: true };
        let state = SegmentState { used_for, generation, erase_count, epoch, first_seq, ..SegmentState::default() };
        self.catalog.pool.set(segment, SegmentState { last_seq: out.covered, ..state });
        if let Some(out) = job.outs.get_mut(usize::from(class)) {
            // From here on it is the job's: if that is dropped, so is the segment.
            (out.segment, out.unpublished) = (Some(segment), true);
        }
        self.publish()?;
        self.storage.erase(segment).map_err(|source| Stop::of(at(Doing::Erase, segment, 0, source)))?;
        let mut header = self.catalog.header(SegmentKind::Table, segment, generation);
        (header.first_seq, header.void_from) = (first_seq, u64::from(class));
        let geometry = self.catalog.geometry;
        let start =
            wal::write_header(&mut self.storage, &geometry, &header, self.memory.frame).map_err(Stop::of_write)?;
        self.storage.sync().map_err(|source| Stop::of(at(Doing::Sync, segment, 0, source)))?;
        if let Some(out) = job.outs.get_mut(usize::from(class)) {
            out.at = start;
        }
        Ok(())
    }

    /// Syncs what was written, and notes it for the next edit.
    fn publish_outs(&mut self, job: &mut Job) -> Result<(), Trouble<S::Error>> {
        if !job.outs.iter().any(|out| out.unpublished) {
            return Ok(());
        }
        self.sync_log()?;
        for out in job.outs.iter_mut().filter(|out| out.unpublished) {
            let Some(segment) = out.segment else { continue };
            let state = self.catalog.pool.get(segment).state;
            self.catalog.pool.set(segment, SegmentState { last_seq: out.covered, chain_tail: out.at, ..state });
            out.unpublished = false;
        }
        if let Source::Table { segment, .. } = job.source {
            // What is in the new table is not in the old one any more.
            let state = self.catalog.pool.get(segment).state;
            self.catalog.pool.set(segment, SegmentState { first_seq: job.next.min(job.last), ..state });
        }
        Ok(())
    }

    fn finish_job(&mut self, job: &mut Job) -> Result<(), Trouble<S::Error>> {
        self.publish_outs(job)?;
        match job.source {
            Source::Log => {
                self.catalog.raise_log_floor(job.last.saturating_add(1));
                self.free_rewritten_log();
            }
            Source::Table { segment, .. } => {
                self.catalog.pool.set_free(segment);
                self.catalog.settle_floors();
            }
        }
        self.stats.segments_rewritten = self.stats.segments_rewritten.saturating_add(1);
        Ok(self.publish()?)
    }

    /// The first segments of the log that hold nothing at or above its floor are free.
    fn free_rewritten_log(&mut self) {
        let (open, floor) = (self.log.open.map(|(segment, _)| segment), self.catalog.log_floor());
        while let Some(segment) = self.catalog.pool.order().first().copied() {
            let state = self.catalog.pool.get(segment).state;
            let is_empty = state.last_seq < state.first_seq || state.last_seq < floor;
            if state.used_for != SegmentUse::Sealed || Some(segment) == open || !is_empty {
                return;
            }
            self.catalog.pool.set_free(segment);
        }
    }

    /// Nothing more is appended to a table segment; an empty one is free.
    pub(super) fn seal_table(&mut self, segment: u32) {
        let state = self.catalog.pool.get(segment).state;
        let Some(class) = class_of(&state) else { return };
        if state.last_seq < state.first_seq {
            self.catalog.pool.set_free(segment);
        } else {
            self.catalog
                .pool
                .set(segment, SegmentState { used_for: SegmentUse::Table { class, open: false }, ..state });
        }
    }

    /// Forgets the rewrite under way. What it wrote and did not publish is never written behind.
    pub(super) fn drop_job(&mut self) {
        let Some(job) = self.rewriting.job.take() else { return };
        for out in job.outs.iter().filter(|out| out.unpublished) {
            if let Some(segment) = out.segment {
                self.seal_table(segment);
            }
        }
        self.rewriting.surveyed = false;
    }
}

/// What a sub-block counts for.
pub(super) fn units(packed_bytes: u32) -> u32 {
    (packed_bytes / 64).saturating_add(1)
}

/// Records that a reader of four classes has places for, given the memory of one.
fn places_limit(places_max: usize) -> u32 {
    u32::try_from(places_max / 4).unwrap_or(u32::MAX).max(16)
}
