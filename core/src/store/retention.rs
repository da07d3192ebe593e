//! What to rewrite or drop next, so that there is always room for the log and nobody's history is evicted by others.
//!
//! When space is short, in this order: the oldest log segment is rewritten if that halves it; a table is rewritten if
//! streams over their share, or holes, take half of it; the oldest log segment is rewritten without the streams over
//! their share; the oldest table goes. Where none of it helps, the log's oldest segment goes ([`super::segments`]).
//!
//! Invariants: a step reads or writes a bounded piece; everything here can be forgotten: it is found again by looking.

use super::compaction::{Job, units};
use super::{Stop, Store};
use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::format::edit::SegmentUse;
use crate::format::frame::FrameKind;
use crate::format::header::{CLASSES_MAX, ClockAnchor};
use crate::format::row::{Prefix, Row};
use crate::hal::{Arena, Storage};
use crate::recovery::{open_segment, open_table};
use crate::retention::KeepPolicy;
use crate::scan::{Entry, Scan, ScanMemory};
use crate::sstable;
use crate::streams::Usage;
use crate::tables::class_of;
use crate::walk::Found;

/// Tables are looked at for age this often at most.
const AGE_EVERY_US: u64 = 60_000_000;

/// So many tables are looked at in vain before something else is done.
const LOOKS_MAX: u32 = 32;

/// What one step of rewriting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Nothing is to be done, or nothing can be done now.
    Idle,
    /// A piece of work; there may be more.
    Worked,
}

/// What the writer remembers of rewriting.
#[derive(Debug, Default)]
pub(super) struct Rewriting<'m> {
    pub(super) policy: KeepPolicy<'m>,
    pub(super) job: Option<Job>,
    pub(super) failures: usize,
    /// What streams take in tables is counted, but for segments below the second number.
    pub(super) surveyed: bool,
    survey_at: u32,
    /// Generation of the log segment whose streams are counted, and of the one that was looked at for its density.
    sampled: u64,
    dense: Option<(u64, bool)>,
    /// The table to be looked at next: class, and numbers from here on; and how many were looked at in vain.
    candidate: Option<(u8, u64)>,
    looks: u32,
    /// Everything below this wall clock time is too old, by class.
    oldest_us: [Option<i64>; CLASSES_MAX],
    looked_for_age_us: Option<u64>,
    over: heapless::Vec<u16, 16>,
}

impl Rewriting<'_> {
    /// The class of a record.
    pub(super) fn class(&self, catalog: &Catalog<'_>, row: &Row<'_>) -> u8 {
        if self.policy.rules.is_empty() {
            return 0;
        }
        self.policy.class(catalog.streams.name(row.stream).unwrap_or_default(), row.severity)
    }

    pub(super) fn is_over_share(&self, stream: u16) -> bool {
        self.over.contains(&stream)
    }

    pub(super) fn is_too_old(&self, class: u8, received_us: Option<i64>) -> bool {
        let oldest = self.oldest_us.get(usize::from(class)).copied().flatten();
        oldest.zip(received_us).is_some_and(|(oldest, received)| received < oldest)
    }

    fn set_now(&mut self, anchor: ClockAnchor, now_us: u64) {
        let now = i64::try_from(now_us).ok().and_then(|now| anchor.wall_us.checked_add(now));
        let now = now.filter(|_| anchor.synchronised);
        for (oldest, class) in self.oldest_us.iter_mut().zip(&self.policy.classes) {
            *oldest = now.zip(class.max_age_us).and_then(|(now, age)| now.checked_sub(i64::try_from(age).ok()?));
        }
    }
}

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// What is kept from now on.
    pub fn set_keep(&mut self, policy: KeepPolicy<'m>) {
        self.rewriting.policy = policy;
    }

    /// Few segments are free: steps are due even while the node is busy.
    #[must_use]
    pub fn is_short_of_space(&self) -> bool {
        self.catalog.layout.wide && self.catalog.pool.free() < self.free_wanted()
    }

    fn free_wanted(&self) -> usize {
        let usual = usize::try_from(self.catalog.geometry.segments / 16).unwrap_or(2).clamp(2, 8);
        // One commit takes so much before anything can be done about it; and a table has to be begun even then.
        let (used, free) = self.memtable_bytes();
        let room = usize::try_from(self.catalog.data_room()).unwrap_or(usize::MAX).max(1);
        usual.max(used.saturating_add(free).div_ceil(room).saturating_add(2))
    }

    /// Does a bounded piece of rewriting or retention, if any is due; `now_us` is on the clock of the records' time of
    /// receipt, `idle` says that nothing else is to be done. While a commit is under way nothing is done.
    ///
    /// # Power loss
    /// Every record is where it was, or where it will be.
    ///
    /// # Errors
    /// The store is read-only from then on. A failure of the medium that the store survives is no error.
    pub fn step(&mut self, now_us: u64, idle: bool) -> Result<Stepped, StoreError<S::Error>> {
        if !self.can_rewrite() {
            return Ok(Stepped::Idle);
        }
        self.rewriting.set_now(self.anchor, now_us);
        match self.work(now_us, idle) {
            Ok(worked) => Ok(if worked { Stepped::Worked } else { Stepped::Idle }),
            Err(Trouble::Stop(Stop::Medium(_))) => {
                self.drop_job();
                self.rewriting.failures = self.rewriting.failures.saturating_add(1);
                Ok(Stepped::Worked)
            }
            Err(Trouble::NoRoom) => {
                self.drop_job();
                Ok(Stepped::Idle)
            }
            Err(Trouble::Stop(stop @ Stop::ReadOnly(_))) => {
                self.rewriting.job = None;
                Err(self.stopped(stop))
            }
        }
    }

    fn work(&mut self, now_us: u64, idle: bool) -> Result<bool, Trouble<S::Error>> {
        if self.rewriting.job.is_some() {
            self.rewrite_piece()?;
            return Ok(true);
        }
        if self.survey() || self.drop_too_old(now_us)? {
            return Ok(true);
        }
        let segments = usize::try_from(self.catalog.geometry.segments).unwrap_or(usize::MAX);
        let much_log = self.catalog.pool.order().len() > segments / 4;
        let short = self.is_short_of_space();
        if !(idle || short || much_log) {
            return Ok(false);
        }
        if self.oldest_is_sparse() {
            return Ok(self.begin_log_job(false));
        }
        if !short {
            return Ok(false);
        }
        if self.sample_log() {
            return Ok(true);
        }
        self.judge_shares();
        if let Some(worked) = self.look_at_table() {
            return Ok(worked);
        }
        let has_tables = self.catalog.table_classes() != 0;
        // Where nobody is over his share and all are of one class, the oldest goes without being copied first.
        let sorts_out = !self.rewriting.over.is_empty() || !self.rewriting.policy.rules.is_empty();
        if sorts_out && self.sealed_log() >= 2 && self.begin_log_job(true) {
            return Ok(true);
        }
        if has_tables { self.drop_oldest_table() } else { Ok(false) }
    }

    fn sealed_log(&self) -> usize {
        let is_sealed = |s: &&u32| self.catalog.pool.get(**s).state.used_for == SegmentUse::Sealed;
        self.catalog.pool.order().iter().filter(is_sealed).count()
    }

    /// Counts what streams take in one more table segment; `false` if all are counted.
    fn survey(&mut self) -> bool {
        if self.rewriting.surveyed {
            return false;
        }
        if self.rewriting.survey_at == 0 {
            self.catalog.streams.forget_usage(Usage::Tables);
        }
        while self.rewriting.survey_at < self.catalog.pool.segments() {
            let segment = self.rewriting.survey_at;
            self.rewriting.survey_at = segment.saturating_add(1);
            if class_of(&self.catalog.pool.get(segment).state).is_some() {
                self.count_table(segment, Some(false));
                return true;
            }
        }
        (self.rewriting.surveyed, self.rewriting.survey_at) = (true, 0);
        false
    }

    /// Looks at the directories of a table segment: what all its records take, and those of streams over their share;
    /// with `count` adds to what streams take, or takes it away.
    fn count_table(&mut self, segment: u32, count: Option<bool>) -> (u64, u64) {
        let state = self.catalog.pool.get(segment).state;
        let buf = &mut *self.memory.frame;
        let mut walker = open_table(&mut self.storage, &self.catalog, segment, buf);
        let (mut all, mut over) = (0u64, 0u64);
        while walker.at < state.chain_tail {
            let Some(found) = walker.next(&mut self.storage, buf) else { break };
            let Found::Frame { payload, .. } = found else { continue };
            for info in sstable::blocks(payload, false).into_iter().flatten() {
                let units = units(info.packed_bytes);
                all = all.saturating_add(u64::from(units));
                if self.rewriting.over.contains(&info.stream) {
                    over = over.saturating_add(u64::from(units));
                }
                if let Some(gone) = count {
                    self.catalog.streams.use_more(info.stream, Usage::Tables, units, gone);
                }
            }
        }
        (all, over)
    }

    /// The oldest log segment would shrink to half or less: mostly padding, or rows that compress.
    fn oldest_is_sparse(&mut self) -> bool {
        let Some((segment, _)) = self.oldest_sealed() else { return false };
        let generation = self.catalog.pool.get(segment).state.generation;
        if let Some((_, sparse)) = self.rewriting.dense.filter(|(known, _)| *known == generation) {
            return sparse;
        }
        let carry = crate::format::frame::Expected::default();
        let (_, mut walker) = open_segment(&mut self.storage, &self.catalog, segment, carry, self.memory.frame);
        let mut packed = 0u64;
        while let Some(found) = walker.next(&mut self.storage, self.memory.frame) {
            let Found::Frame { frame, .. } = found else { continue };
            let bytes = u64::from(frame.payload_bytes);
            packed = packed.saturating_add(match frame.kind {
                FrameKind::Rows => bytes / 2,
                FrameKind::RowGroup => bytes,
                _ => 0,
            });
        }
        let sparse = packed.saturating_mul(2) <= u64::from(self.catalog.data_room());
        self.rewriting.dense = Some((generation, sparse));
        sparse
    }

    /// Counts what streams take in the oldest log segment; `false` if that is known.
    fn sample_log(&mut self) -> bool {
        let Some((segment, last)) = self.oldest_sealed() else { return false };
        let state = self.catalog.pool.get(segment).state;
        if self.rewriting.sampled == state.generation {
            return false;
        }
        self.rewriting.sampled = state.generation;
        self.catalog.streams.forget_usage(Usage::Log);
        let Some(group) = self.memory.group.as_mut() else { return false };
        let mut mem = ScanMemory { frame: self.memory.frame, raw: group.raw, slots: group.slots };
        let mut scan = Scan::for_rewrite(&self.catalog, (self.catalog.log_floor(), last), None);
        let mut counts: heapless::Vec<(u16, u64), 32> = heapless::Vec::new();
        while let Some(entry) = scan.next(&mut self.storage, &self.catalog, &mut mem) {
            let Entry::Record(record) = entry else { continue };
            let bytes = record.row.body.len().saturating_add(record.row.fields.len()).saturating_add(8) as u64;
            match counts.iter_mut().find(|(stream, _)| *stream == record.row.stream) {
                Some((_, count)) => *count = count.saturating_add(bytes),
                // Of many streams each is small, but for those that come first and often.
                None => _ = counts.push((record.row.stream, bytes)),
            }
        }
        for (stream, bytes) in counts {
            let units = u32::try_from(bytes / 64).unwrap_or(u32::MAX).saturating_add(1);
            self.catalog.streams.use_more(stream, Usage::Log, units, false);
        }
        true
    }

    /// Which streams take more than their share: of what is in tables, and in the log as its oldest segment is.
    fn judge_shares(&mut self) {
        let room = u64::from(self.catalog.data_room() / 64);
        let log = room.saturating_mul(self.catalog.pool.order().len() as u64);
        let tables = (0u8..).take(CLASSES_MAX).map(|class| self.catalog.tables(class).count() as u64).sum::<u64>();
        let all = log.saturating_add(room.saturating_mul(tables));
        let sampled = self.catalog.streams.usage_of_all(Usage::Log).max(1);
        let allowed = all.saturating_mul(u64::from(self.rewriting.policy.stream_share_per_mille)) / 1000;
        let in_tables = self.catalog.streams.usage_of_all(Usage::Tables).max(1);
        self.rewriting.over.clear();
        for stream in self.catalog.streams.ids() {
            let of_log = u64::from(self.catalog.streams.usage(stream, Usage::Log)).saturating_mul(log) / sampled;
            let of_tables = u64::from(self.catalog.streams.usage(stream, Usage::Tables));
            // Padding is shared by all.
            let of_tables = of_tables.saturating_mul(room.saturating_mul(tables)) / in_tables;
            if of_log.saturating_add(of_tables) > allowed && self.rewriting.over.push(stream).is_err() {
                break;
            }
        }
    }

    /// Looks at the next table: if half of it can go, it is rewritten. `None` if there is none left to look at.
    fn look_at_table(&mut self) -> Option<bool> {
        let in_tables = |stream: &u16| self.catalog.streams.usage(*stream, Usage::Tables) > 0;
        if self.rewriting.looks >= LOOKS_MAX || !self.rewriting.over.iter().any(in_tables) {
            self.rewriting.looks = 0;
            return None;
        }
        self.rewriting.looks = self.rewriting.looks.saturating_add(1);
        let (class, seq) = self.rewriting.candidate.unwrap_or((0, 0));
        let Some((segment, state)) = self.catalog.table_at_or_after(class, seq) else {
            let next = class.saturating_add(1);
            if usize::from(next) < CLASSES_MAX {
                self.rewriting.candidate = Some((next, 0));
                return self.look_at_table();
            }
            (self.rewriting.candidate, self.rewriting.looks) = (None, 0);
            return None;
        };
        self.rewriting.candidate = Some((class, state.last_seq.saturating_add(1)));
        let (all, over) = self.count_table(segment, None);
        let room = u64::from(self.catalog.data_room() / 64);
        let stays = all.saturating_sub(over);
        let is_open = matches!(state.used_for, SegmentUse::Table { open: true, .. });
        let follows_open = self
            .catalog
            .table_before(class, state.first_seq)
            .is_some_and(|(_, before)| matches!(before.used_for, SegmentUse::Table { open: true, .. }));
        // What only lacks a full load is worth it where it is appended to another.
        let is_worth = if over > 0 { stays.saturating_mul(2) <= all } else { follows_open && stays * 2 <= room };
        if is_open && over == 0 || !is_worth {
            return Some(true);
        }
        self.rewriting.looks = 0;
        self.count_table(segment, Some(true));
        self.begin_table_job(segment, class);
        Some(true)
    }

    /// Drops the oldest table of the class most over its share, or else of all.
    fn drop_oldest_table(&mut self) -> Result<bool, Trouble<S::Error>> {
        let Some(segment) = self.oldest_table() else { return Ok(false) };
        self.count_table(segment, Some(true));
        self.forget_table(segment);
        self.publish()?;
        Ok(true)
    }

    /// The table that goes first.
    pub(super) fn oldest_table(&self) -> Option<u32> {
        let segments = u64::from(self.catalog.geometry.segments);
        let over = |class: u8| {
            let share = u64::from(self.rewriting.policy.of_class(class).share_per_mille);
            let taken = (self.catalog.tables(class).count() as u64).saturating_mul(1000);
            taken.checked_sub(share.saturating_mul(segments)).filter(|over| *over > 0)
        };
        let most = (0u8..).take(CLASSES_MAX).filter_map(|class| Some((over(class)?, class))).max();
        let first = |class: u8| self.catalog.table_at_or_after(class, 0);
        let oldest = match most {
            Some((_, class)) => first(class),
            None => (0u8..).take(CLASSES_MAX).filter_map(first).min_by_key(|(_, state)| state.first_seq),
        };
        oldest.map(|(segment, _)| segment)
    }

    /// Drops a table segment; the next edit says so.
    pub(super) fn forget_table(&mut self, segment: u32) {
        let bytes = u64::from(self.catalog.pool.get(segment).state.chain_tail);
        self.stats.tables_dropped = self.stats.tables_dropped.saturating_add(1);
        self.stats.bytes_dropped_space = self.stats.bytes_dropped_space.saturating_add(bytes);
        self.catalog.pool.set_free(segment);
        self.catalog.settle_floors();
    }

    /// At most once a minute: drops the oldest table of a class whose newest record is too old.
    fn drop_too_old(&mut self, now_us: u64) -> Result<bool, Trouble<S::Error>> {
        let is_due = self.rewriting.looked_for_age_us.is_none_or(|at| now_us.saturating_sub(at) >= AGE_EVERY_US);
        if !is_due || self.rewriting.oldest_us.iter().all(Option::is_none) {
            return Ok(false);
        }
        self.rewriting.looked_for_age_us = Some(now_us);
        for class in (0u8..).take(CLASSES_MAX) {
            let oldest = self.rewriting.oldest_us.get(usize::from(class)).copied().flatten();
            let Some((oldest, (segment, _))) = oldest.zip(self.catalog.table_at_or_after(class, 0)) else { continue };
            if self.newest_in_table(segment).is_some_and(|newest| newest < oldest) {
                let bytes = u64::from(self.catalog.pool.get(segment).state.chain_tail);
                self.count_table(segment, Some(true));
                self.forget_table(segment);
                self.stats.bytes_dropped_space = self.stats.bytes_dropped_space.saturating_sub(bytes);
                self.stats.bytes_dropped_age = self.stats.bytes_dropped_age.saturating_add(bytes);
                self.publish()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When the newest record of a table segment was received; `None` if that is not known of all of them.
    fn newest_in_table(&mut self, segment: u32) -> Option<i64> {
        let state = self.catalog.pool.get(segment).state;
        let buf = &mut *self.memory.frame;
        let mut walker = open_table(&mut self.storage, &self.catalog, segment, buf);
        let mut newest = None;
        while walker.at < state.chain_tail {
            let Some(found) = walker.next(&mut self.storage, buf) else { break };
            let Found::Frame { payload, .. } = found else { continue };
            let (prefix, _) = Prefix::read(payload, false)?;
            let anchor = self.catalog.clocks.get(prefix.clock_epoch).filter(|anchor| anchor.synchronised)?;
            for info in sstable::blocks(payload, false)? {
                let at = anchor.wall_us.checked_add(i64::try_from(info.max_received_us).ok()?)?;
                newest = newest.max(Some(at));
            }
        }
        newest
    }
}

/// Why a piece of work was not done.
pub(super) enum Trouble<E> {
    /// The medium failed, or the store is at its end.
    Stop(Stop<E>),
    /// There is no segment for it, or a record does not fit into one.
    NoRoom,
}

impl<E> From<Stop<E>> for Trouble<E> {
    fn from(stop: Stop<E>) -> Self {
        Self::Stop(stop)
    }
}
