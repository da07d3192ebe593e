//! The store: append, commit, close.
//!
//! Invariants:
//! - [`Store::durable_upto`] only rises, and only after a sync that covers it;
//! - nothing is written before the first append of a mount; its origin frame is synced before any other frame;
//! - unsynced frames never lie in two segments (F2);
//! - a failed sync or write is never retried in place: the segment is abandoned and everything since the last good
//!   commit is written again elsewhere from memory, or the store turns read-only and says so (P7).

mod append;
mod boot;
mod compaction;
mod format;
mod groups;
mod retention;
mod rows;
mod segments;

pub use format::{FormatError, format};
pub use groups::{GROUP_RECORDS_MAX, GROUP_ROWS_BYTES_MAX, GROUP_ROWS_BYTES_MIN};
pub use retention::Stepped;

use crate::catalog::{Catalog, Memory, WriterMemory, is_usable};
use crate::error::{Doing, MediumError, OpenError, ReadOnlyReason, StoreError};
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::header::ClockAnchor;
use crate::format::row::{Item, ItemWriter};
use crate::hal::{Arena, Storage, StorageError, StorageErrorKind};
use crate::manifest::Manifest;
use crate::memtable::{Frozen, Memtable};
use crate::recovery::{self, RecoveryReport, Verdict};
use crate::wal::{self, LogWriter, WriteError};

/// State entries that a batch may carry.
const STATES_MAX: usize = 64;
/// How often a failed commit is written elsewhere before the store gives up.
const ATTEMPTS: usize = 3;

/// What a new store is given.
#[derive(Debug, Clone, Copy)]
pub struct FormatOptions {
    /// Random number that tells this store from every other.
    pub store_id: u64,
}

/// What a mount is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Wall clock in microseconds since 1970 at monotonic offset 0 of this boot's records.
    pub wall_us: i64,
    /// The wall clock is synchronised.
    pub synchronised: bool,
    /// How many records may be acknowledged before they are durable; 0 if none ever is.
    pub volatile_bound: u32,
}

/// A commit that is written but not yet durable.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a commit is durable only after a sync and `end_commit`"]
pub struct Ticket {
    upto: u64,
}

impl Ticket {
    /// What will be durable.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }
}

/// What a store did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records taken in.
    pub records: u64,
    /// Bytes of their bodies and fields.
    pub record_bytes: u64,
    /// Bytes of frames of records, without padding.
    pub payload_bytes: u64,
    /// Frames of records written.
    pub frames: u64,
    /// Commits made durable.
    pub commits: u64,
    /// Segments opened.
    pub segments_opened: u64,
    /// Segments abandoned after a failure.
    pub segments_abandoned: u64,
    /// Segments dropped to make room.
    pub segments_dropped: u64,
    /// Manifest edits published.
    pub edits: u64,
    /// Bytes written to tables.
    pub rewritten_bytes: u64,
    /// Segments of the log or of tables that were rewritten.
    pub segments_rewritten: u64,
    /// Table segments dropped to make room, or by age.
    pub tables_dropped: u64,
    /// Records that a rewrite left out: too old, or of a stream over its share.
    pub records_left_out: u64,
    /// Bytes dropped because a stream took more than its share.
    pub bytes_dropped_share: u64,
    /// Bytes dropped by age.
    pub bytes_dropped_age: u64,
    /// Bytes dropped as the oldest, to make room.
    pub bytes_dropped_space: u64,
}

/// Why writing stopped.
enum Stop<E> {
    /// This segment, or this sync: try elsewhere.
    Medium(MediumError<E>),
    /// For good.
    ReadOnly(ReadOnlyReason),
}

impl<E: StorageError> Stop<E> {
    fn of(e: MediumError<E>) -> Self {
        match e.source.kind() {
            kind @ StorageErrorKind::ReadOnly => Self::ReadOnly(ReadOnlyReason::Medium(kind)),
            _ => Self::Medium(e),
        }
    }

    fn of_write(e: WriteError<E>) -> Self {
        match e {
            WriteError::Medium(e) => Self::of(e),
            WriteError::Misfit => Self::ReadOnly(ReadOnlyReason::CommitFailed),
        }
    }
}

/// What state entries add to their table, by memtable.
#[derive(Debug, Clone, Copy, Default)]
struct StateBytes {
    active: usize,
    frozen: usize,
}

/// A store that is open for writing.
#[derive(Debug)]
pub struct Store<'m, S: Storage, A: Arena> {
    storage: S,
    catalog: Catalog<'m>,
    memory: WriterMemory<'m>,
    manifest: Manifest,
    log: LogWriter,
    verdict: Verdict,
    report: RecoveryReport,
    active: Option<Memtable<'m, A>>,
    spare: Option<Memtable<'m, A>>,
    pending: Option<Frozen<'m, A::Frozen>>,
    /// Size of the smaller arena.
    arena_bytes: usize,
    anchor: ClockAnchor,
    volatile_bound: u32,
    /// What the frames of the commit under way carry.
    flight_bound: u32,
    ram_limit: u64,
    /// What state entries that are not durable yet may add to their table.
    state_bytes: StateBytes,
    started: bool,
    read_only: Option<ReadOnlyReason>,
    stats: Stats,
    rewriting: retention::Rewriting<'m>,
}

fn at<E>(doing: Doing, segment: u32, offset: u32, source: E) -> MediumError<E> {
    MediumError { doing, segment, offset, source }
}

fn announce(catalog: &mut Catalog<'_>, segment: u32) {
    let generation = catalog.head.next_generation;
    catalog.head.next_generation = generation.saturating_add(1);
    let erase_count = catalog.pool.get(segment).state.erase_count.saturating_add(1);
    let used_for = SegmentUse::Announced;
    let epoch = catalog.head.epoch;
    catalog.pool.set(segment, SegmentState { used_for, generation, epoch, erase_count, ..SegmentState::default() });
    if let Some(entry) = catalog.pool.entry_mut(segment) {
        (entry.begun, entry.ready, entry.pending) = (false, false, false);
    }
}

impl<'m, S: Storage, A: Arena> Store<'m, S, A> {
    /// Mounts the store on `storage`. Writes nothing.
    ///
    /// `spare` lets appends go on while a commit is under way; without it they wait.
    ///
    /// # Errors
    /// [`OpenError`]; anything that once was a store of a known version opens.
    pub fn open(
        mut storage: S,
        memory: Memory<'m>,
        active: A,
        spare: Option<A>,
        options: &OpenOptions,
        progress: &mut dyn FnMut(u32, u32),
    ) -> Result<Self, OpenError> {
        let geometry = storage.geometry();
        if !is_usable(&geometry) {
            return Err(OpenError::UnusableGeometry);
        }
        memory.check(&geometry)?;
        let (mut catalog, mut memory) = Catalog::new(geometry, memory);
        let mounted = recovery::mount(&mut storage, &mut catalog, memory.frame, progress)?;
        let next_seq = mounted.verdict.next_seq;
        let active_bytes = active.as_slice().len();
        let arena_bytes = spare.as_ref().map_or(active_bytes, |spare| spare.as_slice().len().min(active_bytes));
        let [first, second] = core::mem::take(&mut memory.chains);
        let clock_epoch = catalog.clocks.newest().map_or(1, |a| a.clock_epoch.saturating_add(1));
        let log = LogWriter { open: mounted.verdict.resume, ..LogWriter::default() };
        Ok(Self {
            storage,
            memory,
            manifest: mounted.manifest,
            log,
            verdict: mounted.verdict,
            report: mounted.report,
            active: Some(Memtable::new(active, first, next_seq)),
            spare: spare.map(|arena| Memtable::new(arena, second, next_seq)),
            pending: None,
            arena_bytes,
            anchor: ClockAnchor { clock_epoch, wall_us: options.wall_us, synchronised: options.synchronised },
            volatile_bound: options.volatile_bound,
            flight_bound: options.volatile_bound,
            ram_limit: 0,
            state_bytes: StateBytes::default(),
            started: false,
            read_only: None,
            stats: Stats::default(),
            rewriting: retention::Rewriting::default(),
            catalog,
        })
    }

    /// What the mount found.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Everything the store knows of its segments, gaps, streams and clocks.
    #[must_use]
    pub fn catalog(&self) -> &Catalog<'m> {
        &self.catalog
    }

    /// The medium and the catalog, for reading.
    pub fn parts(&mut self) -> (&mut S, &Catalog<'m>) {
        (&mut self.storage, &self.catalog)
    }

    /// Gives the medium back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Everything up to this number is durable.
    #[must_use]
    pub fn durable_upto(&self) -> u64 {
        self.catalog.durable_upto
    }

    /// The number the next record gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        let of_active = self.active.as_ref().map(|m| m.extent().next_seq);
        of_active.or(self.pending.as_ref().map(|f| f.extent().next_seq)).unwrap_or(self.verdict.next_seq)
    }

    /// Up to this number records may be acknowledged before they are durable.
    #[must_use]
    pub fn ram_limit(&self) -> u64 {
        self.ram_limit
    }

    /// How many records may be acknowledged before they are durable, once the next commit is.
    #[must_use]
    pub fn volatile_bound(&self) -> u32 {
        self.volatile_bound
    }

    /// Changes it, from the next commit on. On a compact medium it stays as it was opened with: frames do not carry it.
    pub fn set_volatile_bound(&mut self, records: u32) {
        if self.catalog.layout.wide {
            self.volatile_bound = records;
        }
    }

    /// Clock epoch of the records taken in now.
    #[must_use]
    pub fn clock(&self) -> ClockAnchor {
        self.anchor
    }

    /// Why the store takes no more writes, if so.
    #[must_use]
    pub fn read_only(&self) -> Option<ReadOnlyReason> {
        self.read_only
    }

    /// What it did since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes of memtable in use, and there are.
    #[must_use]
    pub fn memtable_bytes(&self) -> (usize, usize) {
        self.active.as_ref().map_or((0, 0), |m| (m.extent().used, m.capacity()))
    }

    /// Writes everything taken in so far, without syncing. `None` if there is nothing to write, or nothing remains to
    /// be synced.
    ///
    /// The caller syncs the medium, without holding the store if it can, and then calls [`Self::end_commit`].
    ///
    /// # Power loss
    /// Each batch written may or may not be there, but only whole, and only with all before it.
    ///
    /// # Errors
    /// The medium failed in a way that writing elsewhere does not mend: the store is read-only from then on.
    pub fn begin_commit(&mut self) -> Result<Option<Ticket>, StoreError<S::Error>> {
        if self.pending.is_some() {
            return Err(StoreError::CommitPending);
        }
        if let Some(reason) = self.read_only {
            return Err(StoreError::ReadOnly(reason));
        }
        if self.active.as_ref().is_none_or(|m| m.extent().is_empty()) {
            return Ok(None);
        }
        self.start()?;
        self.flight_bound = self.volatile_bound;
        let Some(active) = self.active.take() else { return Ok(None) };
        let upto = active.extent().next_seq.saturating_sub(1);
        let frozen = active.freeze();
        self.state_bytes.frozen = core::mem::take(&mut self.state_bytes.active);
        let done = match self.write_entries(&frozen) {
            Ok(()) => Ok(()),
            Err(Stop::ReadOnly(reason)) => Err(self.stop_writing(reason)),
            Err(Stop::Medium(_)) => self.rewrite(&frozen, false),
        };
        self.active = self.spare.take().map(|mut m| {
            m.restart(upto.saturating_add(1));
            m
        });
        self.pending = Some(frozen);
        done.map(|()| Some(Ticket { upto })).map_err(StoreError::ReadOnly)
    }

    /// Ends a commit with the result of the sync; returns what is durable now.
    ///
    /// # Power loss
    /// After `Ok`, everything up to the returned number survives any cut.
    ///
    /// # Errors
    /// The sync failed, and so did writing the commit elsewhere; nothing of it may be believed.
    pub fn end_commit(&mut self, ticket: Ticket, synced: Result<(), S::Error>) -> Result<u64, StoreError<S::Error>> {
        let Some(frozen) = self.pending.take() else { return Ok(self.catalog.durable_upto) };
        debug_assert_eq!(ticket.upto.saturating_add(1), frozen.extent().next_seq, "a ticket of another commit");
        let done = match synced {
            Ok(()) => Ok(()),
            Err(_) => self.rewrite(&frozen, true),
        };
        if let Err(reason) = done {
            self.pending = Some(frozen);
            return Err(StoreError::ReadOnly(reason));
        }
        for entry in frozen.entries().filter(|e| !e.is_row) {
            match entry.item() {
                Some(Item::State { key, value }) => {
                    let set = self.catalog.state.set(key, value);
                    debug_assert!(set.is_some(), "room was checked at append");
                }
                Some(Item::Lost(lost)) => self.catalog.gaps.add(lost.gap(entry.seq)),
                _ => continue,
            }
            self.catalog.tables_dirty = true;
        }
        self.state_bytes.frozen = 0;
        self.catalog.pool.none_pending();
        self.catalog.durable_upto = self.catalog.durable_upto.max(ticket.upto);
        // What a lower bound takes back is still covered by the frames that carried the higher one.
        let bound = self.flight_bound.min(self.volatile_bound);
        self.ram_limit = self.ram_limit.max(self.catalog.durable_upto.saturating_add(u64::from(bound)));
        self.catalog.head.seq_ceiling = self.catalog.head.seq_ceiling.max(self.ram_limit);
        self.stats.commits = self.stats.commits.saturating_add(1);
        let next = ticket.upto.saturating_add(1);
        match frozen.thaw(next) {
            Ok(table) if self.active.is_none() => self.active = Some(table),
            Ok(table) => self.spare = Some(table),
            Err(frozen) => self.pending = Some(frozen), // somebody still reads it: `begin_commit` will say so
        }
        Ok(self.catalog.durable_upto)
    }

    /// Makes everything taken in so far durable; returns what is durable now.
    ///
    /// # Power loss
    /// See [`Self::begin_commit`] and [`Self::end_commit`].
    ///
    /// # Errors
    /// See there.
    pub fn commit(&mut self) -> Result<u64, StoreError<S::Error>> {
        match self.begin_commit()? {
            Some(ticket) => {
                let synced = self.storage.sync();
                self.end_commit(ticket, synced)
            }
            None => Ok(self.catalog.durable_upto),
        }
    }

    /// Commits and ends the log with a close frame. The store takes no more writes.
    ///
    /// # Power loss
    /// As a commit; a close frame that is not there makes the stop an unclean one, and nothing is lost.
    ///
    /// # Errors
    /// As a commit.
    pub fn close(&mut self) -> Result<u64, StoreError<S::Error>> {
        let durable = self.commit()?;
        if self.started {
            let next_seq = self.next_seq();
            let mut result = Ok(());
            for _ in 0..ATTEMPTS {
                result = self.write_close(next_seq);
                match &result {
                    Ok(()) | Err(Stop::ReadOnly(_)) => break,
                    Err(Stop::Medium(_)) => self.abandon(),
                }
            }
            if let Err(stop) = result {
                return Err(self.stopped(stop));
            }
        }
        self.read_only = Some(ReadOnlyReason::Closed);
        Ok(durable)
    }

    fn stopped(&mut self, stop: Stop<S::Error>) -> StoreError<S::Error> {
        match stop {
            Stop::Medium(e) => StoreError::Medium(e),
            Stop::ReadOnly(reason) => {
                self.read_only = Some(reason);
                StoreError::ReadOnly(reason)
            }
        }
    }

    fn stop_writing(&mut self, reason: ReadOnlyReason) -> ReadOnlyReason {
        *self.read_only.get_or_insert(reason)
    }

    /// Rule R: nothing at or above what was durable before counts where it stands; writes the commit again in the next
    /// announced segment.
    fn rewrite(&mut self, frozen: &Frozen<'m, A::Frozen>, sync: bool) -> Result<(), ReadOnlyReason> {
        if let Some(reason) = self.read_only {
            return Err(reason);
        }
        let void_from = self.catalog.durable_upto.saturating_add(1).min(frozen.extent().first_seq);
        for _ in 0..ATTEMPTS {
            self.abandon();
            // What these segments hold of the commit is void, so they may be sealed with what is left.
            self.catalog.pool.truncate(void_from);
            self.catalog.pool.none_pending();
            let done = self
                .open_next(void_from, frozen.extent().first_seq)
                .and_then(|()| self.write_entries(frozen))
                .and_then(|()| if sync { self.sync_log() } else { Ok(()) });
            match done {
                Ok(()) => return Ok(()),
                Err(Stop::ReadOnly(reason)) => return Err(self.stop_writing(reason)),
                Err(Stop::Medium(_)) => {}
            }
        }
        Err(self.stop_writing(ReadOnlyReason::CommitFailed))
    }

    fn abandon(&mut self) {
        self.drop_job(); // what it wrote since the last sync is as suspect
        if self.log.open.is_some() {
            self.stats.segments_abandoned = self.stats.segments_abandoned.saturating_add(1);
        }
        self.log.abandon();
    }

    fn sync_log(&mut self) -> Result<(), Stop<S::Error>> {
        let (segment, offset) = self.log.open.unwrap_or_default();
        self.storage.sync().map_err(|source| Stop::of(at(Doing::Sync, segment, offset, source)))
    }

    /// Writes a payload to where it stands in the frame buffer; returns its length.
    fn encode(&mut self, flags: FrameFlags, write: impl FnOnce(&mut ItemWriter<'_>) -> Option<()>) -> u32 {
        let start = usize::try_from(self.catalog.layout.payload_at(flags)).unwrap_or(0);
        let mut w = ItemWriter::new(self.memory.frame.get_mut(start..).unwrap_or_default());
        let written = write(&mut w);
        debug_assert!(written.is_some(), "a payload larger than the frame buffer");
        u32::try_from(w.len()).unwrap_or(0)
    }

    fn frame(&self, kind: FrameKind, first_seq: u64, payload_bytes: u32) -> Frame {
        Frame {
            kind,
            flags: FrameFlags::WHOLE,
            part: 0,
            payload_bytes,
            first_seq,
            count: 0,
            epoch: self.catalog.head.epoch,
            durable_upto: self.catalog.durable_upto,
            volatile_bound: self.volatile_bound,
        }
    }

    /// Seals and writes the frame in the frame buffer at the end of the open segment.
    fn put(&mut self, frame: &Frame) -> Result<u32, Stop<S::Error>> {
        let Some((segment, offset)) = self.log.open else {
            debug_assert!(false, "a frame without a segment");
            return Err(Stop::ReadOnly(ReadOnlyReason::CommitFailed));
        };
        let generation = self.catalog.pool.get(segment).state.generation;
        let life = crate::format::crc::Life { store_id: self.catalog.store_id, segment, generation };
        let layout = self.catalog.layout;
        let end = wal::write_sealed(&mut self.storage, &layout, self.memory.frame, &life, offset, frame);
        self.log.open = Some((segment, end.map_err(Stop::of_write)?));
        Ok(offset)
    }
}
