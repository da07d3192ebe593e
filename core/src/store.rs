//! The store: append, commit, close.
//!
//! Invariants:
//! - [`Store::durable_upto`] only rises, and only after a sync that covers it;
//! - nothing is written before the first append of a mount; its origin frame is synced before any other frame;
//! - unsynced frames never lie in two segments (F2);
//! - a failed sync or write is never retried in place: the segment is abandoned and everything since the last good
//!   commit is written again elsewhere from memory, or the store turns read-only and says so (P7).

use crate::catalog::{Catalog, Memory, WriterMemory, is_usable};
use crate::error::{Doing, MediumError, OpenError, ReadOnlyReason, StoreError};
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::events::{Close, FrameCopy, Origin};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::header::{ClockAnchor, SegmentKind};
use crate::format::row::{Item, ItemWriter, Prefix, Row, STATE_KEY_BYTES_MAX, row_bytes_max};
use crate::gaps::{Gap, GapCause};
use crate::hal::{Arena, ReadStorage, Storage, StorageError, StorageErrorKind};
use crate::manifest::Manifest;
use crate::memtable::{Frozen, Memtable, entry_bytes};
use crate::recovery::{self, RecoveryReport, Verdict};
use crate::wal::{self, LogWriter};

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
    anchor: ClockAnchor,
    volatile_bound: u32,
    ram_limit: u64,
    started: bool,
    read_only: Option<ReadOnlyReason>,
    stats: Stats,
}

/// Makes an empty store.
///
/// # Power loss
/// Until it returns, the medium may hold an unfinished store, which opens as [`OpenError::Blank`].
///
/// # Errors
/// The geometry is unusable, the memory too small, or the medium failed.
pub fn format<S: Storage>(
    storage: &mut S,
    memory: Memory<'_>,
    options: &FormatOptions,
) -> Result<(), FormatError<S::Error>> {
    let g = storage.geometry();
    if !is_usable(&g) {
        return Err(FormatError::Open(OpenError::UnusableGeometry));
    }
    memory.check(&g).map_err(|e| FormatError::Open(e.into()))?;
    let (mut catalog, memory) = Catalog::new(g, memory);
    catalog.store_id = options.store_id;
    catalog.head.next_generation = 1;
    // Headers of an earlier store would be found by a later rebuild if theirs were the same id: ids are random.
    for slot in catalog.pool.manifest_slots() {
        storage.erase(slot).map_err(|source| at(Doing::Erase, slot, 0, source))?;
    }
    for _ in 0..catalog.announced_wanted() {
        let Some(segment) = catalog.pool.least_worn_free() else { break };
        announce(&mut catalog, segment);
        storage.erase(segment).map_err(|source| at(Doing::Erase, segment, 0, source))?;
    }
    catalog.tables_dirty = true;
    let blank = [crate::manifest::SlotScan::default(); 2];
    let mut manifest = Manifest::resume(&blank, 0, true);
    manifest.publish(storage, &mut catalog, memory.frame)?;
    if !manifest.is_mirrored() {
        manifest.publish(storage, &mut catalog, memory.frame)?;
    }
    Ok(())
}

/// Why a store could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError<E> {
    /// The medium or memory does not fit.
    Open(OpenError),
    /// The medium failed.
    Medium(MediumError<E>),
}

impl<E> From<MediumError<E>> for FormatError<E> {
    fn from(e: MediumError<E>) -> Self {
        Self::Medium(e)
    }
}

impl<E: core::fmt::Debug> core::fmt::Display for FormatError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open(e) => e.fmt(f),
            Self::Medium(e) => e.fmt(f),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for FormatError<E> {}

fn at<E>(doing: Doing, segment: u32, offset: u32, source: E) -> MediumError<E> {
    MediumError { doing, segment, offset, source }
}

fn announce(catalog: &mut Catalog<'_>, segment: u32) {
    let generation = catalog.head.next_generation;
    catalog.head.next_generation = generation.saturating_add(1);
    let erase_count = catalog.pool.get(segment).state.erase_count.saturating_add(1);
    let used_for = SegmentUse::Announced;
    catalog.pool.set(segment, SegmentState { used_for, generation, erase_count, ..SegmentState::default() });
    if let Some(entry) = catalog.pool.entry_mut(segment) {
        (entry.begun, entry.ready, entry.pending) = (false, false, false);
    }
}

/// A batch that is being written as a chain of frames.
#[derive(Debug, Clone, Copy)]
struct ChainWrite {
    first: u64,
    last: u64,
    part: u16,
}

/// A frame of records whose payload stands in the frame buffer.
struct Built {
    flags: FrameFlags,
    part: u16,
    payload_bytes: u32,
    first_seq: u64,
    count: u32,
    severities: u32,
    streams: u64,
    /// How many numbers of its batch come in later frames.
    chain_tail: u32,
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
        let [first, second] = core::mem::replace(&mut memory.chains, [&mut [], &mut []]);
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
            anchor: ClockAnchor { clock_epoch, wall_us: options.wall_us, synchronised: options.synchronised },
            volatile_bound: options.volatile_bound,
            ram_limit: 0,
            started: false,
            read_only: None,
            stats: Stats::default(),
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

    /// The largest record (its body and fields) this store takes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        // Row head, prefix and a stream name stand in the same frame.
        let overhead = 64 + Prefix::BYTES_MAX + 264;
        let frame = self.catalog.data_room().min(u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX));
        let frame = usize::try_from(self.catalog.layout.payload_max(frame)).unwrap_or(0);
        let segment = usize::try_from(self.catalog.geometry.segment_bytes).unwrap_or(0);
        let arena = self.active.as_ref().map_or(0, Memtable::capacity);
        let part = if self.catalog.layout.wide { segment / 4 * 3 } else { segment.min(arena) / 2 };
        part.min(frame.saturating_sub(overhead)).min(arena.saturating_sub(entry_bytes(64)))
    }

    /// The number of the stream with this name, for [`Row::stream`]; `other` if there is no room for a new one.
    pub fn stream(&mut self, name: &str) -> u16 {
        let name = match name.char_indices().take_while(|(i, c)| i + c.len_utf8() <= 255).last() {
            Some((i, c)) => name.get(..i + c.len_utf8()).unwrap_or(name),
            None => name,
        };
        self.catalog.streams.intern(name).unwrap_or(crate::streams::OTHER)
    }

    /// Takes in a batch: its records get the next numbers, and it is durable whole or not at all, with its states.
    /// Returns the first and last number; for a batch of states alone, the last is one less than the first.
    ///
    /// # Power loss
    /// Nothing is written; the batch is in memory until a commit.
    ///
    /// # Errors
    /// [`StoreError::MemtableFull`]: commit and try again. Nothing is taken in on an error.
    pub fn append(&mut self, rows: &[Row<'_>], states: &[(&[u8], &[u8])]) -> Result<(u64, u64), StoreError<S::Error>> {
        if let Some(reason) = self.read_only {
            return Err(StoreError::ReadOnly(reason));
        }
        let max = self.record_bytes_max();
        let room = self.catalog.state_room();
        for (key, value) in states {
            if key.len() > STATE_KEY_BYTES_MAX || value.len() > room || !self.catalog.state.has_room(key, value) {
                return Err(StoreError::TableFull("state entry"));
            }
        }
        let mut record_bytes = 0usize;
        for row in rows {
            let bytes = row.body.len().saturating_add(row.fields.len());
            if bytes > max {
                return Err(StoreError::TooLarge { bytes, max });
            }
            record_bytes = record_bytes.saturating_add(bytes);
        }
        let batch_max = self.batch_bytes_max();
        let active = self.active.as_mut().ok_or(StoreError::CommitPending)?;
        let mark = active.mark();
        let first = active.extent().next_seq;
        let fits = rows.iter().all(|row| active.push(row).is_some())
            && states.iter().all(|(key, value)| active.push_state(key, value).is_some());
        let bytes = active.extent().used;
        if !fits || bytes.saturating_sub(mark.used()) > batch_max {
            active.rollback(mark);
            let bytes: usize = rows.iter().map(|row| entry_bytes(row_bytes_max(row))).sum();
            let too_large = active.extent().is_empty() || bytes > batch_max;
            return Err(if too_large {
                StoreError::TooLarge { bytes, max: batch_max }
            } else {
                StoreError::MemtableFull
            });
        }
        active.end_batch();
        self.stats.records = self.stats.records.saturating_add(rows.len() as u64);
        self.stats.record_bytes = self.stats.record_bytes.saturating_add(record_bytes as u64);
        Ok((first, active.extent().next_seq.saturating_sub(1)))
    }

    /// The largest batch: N/8 segments, and what one memtable holds.
    fn batch_bytes_max(&self) -> usize {
        let segments = usize::try_from(self.catalog.geometry.segments / 8).unwrap_or(1);
        let room = usize::try_from(self.catalog.data_room()).unwrap_or(0);
        let arena = self.active.as_ref().map_or(0, Memtable::capacity);
        segments.saturating_mul(room / 4 * 3).min(arena)
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
        let Some(active) = self.active.take() else { return Ok(None) };
        let upto = active.extent().next_seq.saturating_sub(1);
        let frozen = active.freeze();
        let done = self.write_entries(&frozen).map_err(Some);
        let done = done.or_else(|_| self.rewrite(&frozen, false));
        self.active = self.spare.take().map(|mut m| {
            m.restart(upto.saturating_add(1));
            m
        });
        self.pending = Some(frozen);
        match done {
            Ok(()) => Ok(Some(Ticket { upto })),
            Err(_) => Err(self.give_up()),
        }
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
        if done.is_err() {
            self.pending = Some(frozen);
            return Err(self.give_up());
        }
        for entry in frozen.entries().filter(|e| !e.is_row) {
            if let Some(Item::State { key, value }) = entry.item() {
                self.catalog.state.set(key, value);
                self.catalog.tables_dirty = true;
            }
        }
        for i in 0..self.catalog.pool.segments() {
            if let Some(entry) = self.catalog.pool.entry_mut(i) {
                entry.pending = false;
            }
        }
        self.catalog.durable_upto = self.catalog.durable_upto.max(ticket.upto);
        self.ram_limit = self.catalog.durable_upto.saturating_add(u64::from(self.volatile_bound));
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

    fn write_close(&mut self, next_seq: u64) -> Result<(), Stop<S::Error>> {
        if self.log.room(&self.catalog.layout) < self.catalog.layout.frame_bytes(32) {
            self.open_next(next_seq, next_seq)?;
        }
        let edit_no = self.catalog.head.edit_no;
        let payload_bytes = self.encode(FrameFlags::WHOLE, |w| Close { next_seq, edit_no }.write(w));
        let frame = Frame {
            durable_upto: next_seq.saturating_sub(1),
            volatile_bound: 0,
            ..self.frame(FrameKind::Close, next_seq, payload_bytes)
        };
        self.put(&frame)?;
        self.sync_log()
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

    fn give_up(&mut self) -> StoreError<S::Error> {
        let reason = *self.read_only.get_or_insert(ReadOnlyReason::CommitFailed);
        StoreError::ReadOnly(reason)
    }

    /// Rule R: nothing at or above what was durable before counts where it stands; writes the commit again in the next
    /// announced segment.
    fn rewrite(&mut self, frozen: &Frozen<'m, A::Frozen>, sync: bool) -> Result<(), Option<Stop<S::Error>>> {
        if self.read_only.is_some() {
            return Err(None);
        }
        let void_from = self.catalog.durable_upto.saturating_add(1).min(frozen.extent().first_seq);
        for _ in 0..ATTEMPTS {
            self.abandon();
            self.catalog.pool.truncate(void_from);
            let done = self
                .open_next(void_from, frozen.extent().first_seq)
                .and_then(|()| self.write_entries(frozen))
                .and_then(|()| if sync { self.sync_log() } else { Ok(()) });
            match done {
                Ok(()) => return Ok(()),
                Err(Stop::ReadOnly(reason)) => {
                    self.read_only = Some(reason);
                    return Err(Some(Stop::ReadOnly(reason)));
                }
                Err(Stop::Medium(_)) => {}
            }
        }
        Err(None)
    }

    fn abandon(&mut self) {
        if self.log.open.is_some() {
            self.stats.segments_abandoned = self.stats.segments_abandoned.saturating_add(1);
        }
        self.log.abandon();
    }

    fn sync_log(&mut self) -> Result<(), Stop<S::Error>> {
        let (segment, offset) = self.log.open.unwrap_or_default();
        self.storage.sync().map_err(|source| Stop::of(at(Doing::Sync, segment, offset, source)))
    }

    /// Before the first frame of a mount: its origin, synced alone.
    fn start(&mut self) -> Result<(), StoreError<S::Error>> {
        if self.started {
            return Ok(());
        }
        let (void_from, next_seq) = (self.verdict.void_from, self.verdict.next_seq);
        self.catalog.clocks.set(self.anchor);
        self.catalog.tables_dirty = true;
        self.catalog.gaps.truncate(void_from);
        if next_seq > void_from {
            let last = next_seq.saturating_sub(1);
            self.catalog.gaps.add(Gap::new(void_from, last, false, GapCause::RamTier));
        }
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = self.write_origin(void_from, next_seq);
            match &result {
                Ok(()) => {
                    self.started = true;
                    self.ram_limit = next_seq.saturating_sub(1).saturating_add(u64::from(self.volatile_bound));
                    self.catalog.head.seq_ceiling = self.catalog.head.seq_ceiling.max(self.ram_limit);
                    return Ok(());
                }
                Err(Stop::ReadOnly(_)) => break,
                Err(Stop::Medium(_)) => self.abandon(),
            }
        }
        match result {
            Err(Stop::Medium(_)) | Ok(()) => Err(self.give_up()),
            Err(stop) => Err(self.stopped(stop)),
        }
    }

    fn write_origin(&mut self, void_from: u64, next_seq: u64) -> Result<(), Stop<S::Error>> {
        if self.log.open.is_none() {
            self.open_next(void_from, next_seq)?;
        }
        let mut payload_bytes = self.encode_origin(true);
        if self.catalog.layout.frame_bytes(payload_bytes) > self.log.room(&self.catalog.layout) {
            self.open_next(void_from, next_seq)?;
            payload_bytes = self.encode_origin(true);
        }
        if self.catalog.layout.frame_bytes(payload_bytes) > self.log.room(&self.catalog.layout) {
            payload_bytes = self.encode_origin(false); // the copy is too large for any frame
        }
        let frame = self.frame(FrameKind::Origin, next_seq, payload_bytes);
        self.put(&frame)?;
        self.sync_log()
    }

    fn encode_origin(&mut self, with_copy: bool) -> u32 {
        let origin = Origin {
            epoch: self.catalog.head.epoch,
            first_seq: self.verdict.next_seq,
            void_from: self.verdict.void_from,
            anchor: self.anchor,
            edit_no: self.catalog.head.edit_no,
            volatile_bound: self.volatile_bound,
            durable_upto: self.catalog.durable_upto,
            previous_end: self.report.previous_end,
            torn_bytes: self.report.torn_bytes,
        };
        let mut head = [0u8; 128];
        let copied =
            if with_copy && !self.catalog.layout.wide { self.read_last_frame(&origin, &mut head) } else { None };
        if let Some(bytes) = copied {
            return bytes;
        }
        self.encode(FrameFlags::WHOLE, |w| origin.write(None, w))
    }

    /// Reads the last adopted frame and puts its payload behind the origin, all in the frame buffer.
    fn read_last_frame(&mut self, origin: &Origin, head: &mut [u8; 128]) -> Option<u32> {
        let (segment, offset, want) = self.verdict.last_frame?;
        let buf = &mut *self.memory.frame;
        let found = recovery::read_frame(&mut self.storage, &self.catalog, segment, offset, &want, buf)?;
        let (start, len) = found;
        let to = usize::try_from(self.catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        // Everything but the copied bytes themselves, to learn how long it is.
        let mut w = ItemWriter::new(head);
        let copy = FrameCopy { first_seq: want.first_seq, count: want.count, payload: &[], at: 0 };
        origin.write(Some(&copy), &mut w)?;
        let mut written = w.len().checked_sub(1)?;
        let mut w = ItemWriter::new(head.get_mut(written..)?);
        w.value(&len)?;
        written = written.checked_add(w.len())?;
        let place = to.checked_add(written)?;
        let end = place.checked_add(len)?;
        if end.checked_add(16)? > buf.len() {
            return None;
        }
        buf.copy_within(start..start.checked_add(len)?, place);
        buf.get_mut(to..place)?.copy_from_slice(head.get(..written)?);
        u32::try_from(end.checked_sub(to)?).ok()
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
        let Some((segment, offset)) = self.log.open else { return Ok(0) };
        let generation = self.catalog.pool.get(segment).state.generation;
        let life = crate::format::crc::Life { store_id: self.catalog.store_id, segment, generation };
        let layout = self.catalog.layout;
        let end = wal::write_sealed(&mut self.storage, &layout, self.memory.frame, &life, offset, frame);
        self.log.open = Some((segment, end.map_err(Stop::of)?));
        Ok(offset)
    }

    /// Opens the next announced segment; `void_from` and `first_seq` go into its header. Its header is synced, and with
    /// it everything before.
    fn open_next(&mut self, void_from: u64, first_seq: u64) -> Result<(), Stop<S::Error>> {
        let left = self.log.open.take();
        self.top_up(left.map(|(segment, _)| segment))?;
        let (segment, generation) = self.prepare_next()?;
        self.catalog.pool.begin(segment, first_seq);
        self.stats.segments_opened = self.stats.segments_opened.saturating_add(1);
        let mut header = self.catalog.header(SegmentKind::Log, segment, generation);
        (header.first_seq, header.void_from) = (first_seq, void_from);
        let geometry = self.catalog.geometry;
        let start = wal::write_header(&mut self.storage, &geometry, &header, self.memory.frame).map_err(Stop::of)?;
        self.storage.sync().map_err(|source| Stop::of(at(Doing::Sync, segment, 0, source)))?;
        if let Some((old, end)) = left {
            // Its frames are synced now. Index and trailer only help; if they fail, so will what comes next.
            self.log.seal(&mut self.storage, &self.catalog, old, end, self.memory.frame).ok();
        }
        self.log.open = Some((segment, start));
        self.log.index.clear();
        self.log.index_whole = true;
        self.catalog.streams.begin_segment();
        Ok(())
    }

    /// Erases the next announced segment if this mount has not yet; retires those that fail.
    fn prepare_next(&mut self) -> Result<(u32, u64), Stop<S::Error>> {
        while let Some(segment) = self.catalog.pool.next_announced() {
            let entry = self.catalog.pool.get(segment);
            if entry.ready {
                return Ok((segment, entry.state.generation));
            }
            match self.storage.erase(segment) {
                Ok(()) => return Ok((segment, entry.state.generation)),
                Err(e) if e.kind() == StorageErrorKind::Worn => self.retire(segment),
                Err(source) => return Err(Stop::of(at(Doing::Erase, segment, 0, source))),
            }
        }
        Err(Stop::ReadOnly(ReadOnlyReason::WornOut))
    }

    fn retire(&mut self, segment: u32) {
        let state = self.catalog.pool.get(segment).state;
        self.catalog.pool.set(segment, SegmentState { used_for: SegmentUse::Retired, ..state });
    }

    /// Publishes an edit that seals what the log has left and announces further segments, and prepares those.
    fn top_up(&mut self, leaving: Option<u32>) -> Result<(), Stop<S::Error>> {
        if self.catalog.pool.usable() < 8 {
            return Err(Stop::ReadOnly(ReadOnlyReason::WornOut));
        }
        self.seal_left(leaving);
        let wanted = self.catalog.announced_wanted();
        let mut fresh: heapless::Vec<u32, 16> = heapless::Vec::new();
        while self.catalog.pool.announced() < wanted {
            let Some(segment) = self.catalog.pool.least_worn_free().or_else(|| self.drop_oldest()) else { break };
            announce(&mut self.catalog, segment);
            fresh.push(segment).ok();
        }
        self.publish()?;
        for segment in fresh {
            match self.storage.erase(segment) {
                Ok(()) => {
                    if let Some(entry) = self.catalog.pool.entry_mut(segment) {
                        entry.ready = true;
                    }
                }
                Err(e) if e.kind() == StorageErrorKind::Worn => self.retire(segment),
                Err(source) => return Err(Stop::of(at(Doing::Erase, segment, 0, source))),
            }
        }
        Ok(())
    }

    /// Segments the log has left are sealed, unless they hold something of the commit under way.
    fn seal_left(&mut self, leaving: Option<u32>) {
        for i in 0..self.catalog.pool.order().len() {
            let Some(segment) = self.catalog.pool.order().get(i).copied() else { break };
            let Some(entry) = self.catalog.pool.entry_mut(segment) else { continue };
            if entry.state.used_for == SegmentUse::Announced {
                // In order: an unsealed segment keeps all later ones unsealed.
                if entry.pending || (leaving.is_none() && self.log.open.is_some_and(|(open, _)| open == segment)) {
                    break;
                }
                entry.state.used_for = SegmentUse::Sealed;
                entry.dirty = true;
            }
        }
    }

    fn publish(&mut self) -> Result<(), Stop<S::Error>> {
        for _ in 0..2 {
            let done = self.manifest.publish(&mut self.storage, &mut self.catalog, self.memory.frame);
            if let Err(e) = done {
                let kind = e.source.kind();
                let reason = match kind {
                    StorageErrorKind::ReadOnly => ReadOnlyReason::Medium(kind),
                    _ => ReadOnlyReason::ManifestFailed,
                };
                return Err(Stop::ReadOnly(reason));
            }
            self.stats.edits = self.stats.edits.saturating_add(1);
            if self.manifest.is_mirrored() {
                return Ok(());
            }
        }
        Err(Stop::ReadOnly(ReadOnlyReason::ManifestFailed))
    }

    /// Makes room: the oldest sealed segment goes, and the floor rises to the end of its last batch.
    fn drop_oldest(&mut self) -> Option<u32> {
        let is_sealed = |s: &u32| self.catalog.pool.get(*s).state.used_for == SegmentUse::Sealed;
        let segment = self.catalog.pool.order().iter().copied().find(is_sealed)?;
        let state = self.catalog.pool.get(segment).state;
        let end = state.last_seq.saturating_add(u64::from(state.chain_tail)).saturating_add(1);
        if state.last_seq >= state.first_seq {
            self.catalog.raise_floor(end);
        }
        self.catalog.pool.remove_from_order(segment);
        self.stats.segments_dropped = self.stats.segments_dropped.saturating_add(1);
        Some(segment)
    }

    /// Writes all entries of a memtable as frames.
    fn write_entries(&mut self, frozen: &Frozen<'m, A::Frozen>) -> Result<(), Stop<S::Error>> {
        let mut cursor = frozen.entries();
        let mut chain: Option<ChainWrite> = None;
        let mut fresh = false;
        while let Some(entry) = cursor.clone().next() {
            let built = if self.log.open.is_some() { self.build(&mut cursor, &mut chain) } else { None };
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
            let kind = FrameKind::Rows;
            let mut frame = self.frame(kind, built.first_seq, built.payload_bytes);
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
    fn build(&mut self, cursor: &mut crate::memtable::Entries<'_>, chain: &mut Option<ChainWrite>) -> Option<Built> {
        let layout = self.catalog.layout;
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let room = layout.payload_max(self.log.room(&layout).min(buffer));
        if chain.is_none() && self.exceeds_any_frame(cursor) {
            let first = cursor.clone().next()?.seq;
            let end = cursor.clone().find(|e| e.ends_batch)?;
            let last = if end.is_row { end.seq } else { end.seq.saturating_sub(1) };
            *chain = Some(ChainWrite { first, last, part: 0 });
        }
        let flags = if chain.is_some() { FrameFlags::default() } else { FrameFlags::WHOLE };
        let start = usize::try_from(layout.payload_at(flags)).ok()?;
        let end = start.checked_add(usize::try_from(room).ok()?)?;
        let out = self.memory.frame.get_mut(start..end)?;
        let mut b = RowsBuilder::new(out, &mut self.catalog.streams, cursor.clone());
        let batch = chain.map(|c| (c.first, c.last));
        Prefix { clock_epoch: self.anchor.clock_epoch, batch }.write(&mut b.out)?;
        let built = match chain {
            None => b.whole_batches()?,
            Some(c) => b.part_of(c)?,
        };
        *cursor = built.1;
        if let Some(c) = chain {
            c.part = c.part.saturating_add(1);
            if built.0.flags.has(FrameFlags::LAST) {
                *chain = None;
            }
        }
        Some(built.0)
    }

    /// The next batch is larger than any frame this store writes.
    fn exceeds_any_frame(&self, cursor: &crate::memtable::Entries<'_>) -> bool {
        let buffer = u32::try_from(self.memory.frame.len()).unwrap_or(u32::MAX);
        let max = self.catalog.layout.payload_max(self.catalog.data_room().min(buffer));
        let max = usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(Prefix::BYTES_MAX);
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
    streams: &'s mut crate::streams::StreamTable<'m>,
    cursor: crate::memtable::Entries<'c>,
    first_seq: u64,
    next_seq: u64,
    severities: u32,
    streams_mask: u64,
}

/// Where a frame can be cut.
#[derive(Clone)]
struct Checkpoint<'c> {
    len: usize,
    cursor: crate::memtable::Entries<'c>,
    next_seq: u64,
    severities: u32,
    streams_mask: u64,
}

impl<'b, 's, 'm, 'c> RowsBuilder<'b, 's, 'm, 'c> {
    fn new(
        out: &'b mut [u8],
        streams: &'s mut crate::streams::StreamTable<'m>,
        cursor: crate::memtable::Entries<'c>,
    ) -> Self {
        let first_seq = cursor.clone().next().map_or(0, |e| e.seq);
        let out = ItemWriter::new(out);
        Self { out, streams, cursor, first_seq, next_seq: first_seq, severities: 0, streams_mask: 0 }
    }

    /// Writes the next entry, and its stream's definition if that is due; `None` if it does not fit.
    fn entry(&mut self) -> Option<bool> {
        let mut cursor = self.cursor.clone();
        let entry = cursor.next()?;
        if entry.is_row {
            let Some(Item::Row(row)) = entry.item() else { return None };
            if self.streams.needs_definition(row.stream) {
                let name = self.streams.name(row.stream)?;
                self.out.item(&Item::Stream { id: row.stream, name })?;
                self.out.bytes(entry.item_bytes)?;
                self.streams.set_defined(row.stream, entry.seq);
            } else {
                self.out.bytes(entry.item_bytes)?;
            }
            self.severities |= 1u32.wrapping_shl(u32::from(row.severity.min(31)));
            self.streams_mask |= 1u64.wrapping_shl(u32::from(row.stream % 64));
            self.next_seq = entry.seq.saturating_add(1);
        } else {
            self.out.bytes(entry.item_bytes)?;
        }
        self.cursor = cursor;
        Some(entry.ends_batch)
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

    fn built(
        self,
        cut: Checkpoint<'c>,
        flags: FrameFlags,
        part: u16,
        tail: u64,
    ) -> Option<(Built, crate::memtable::Entries<'c>)> {
        self.streams.undefine_from(cut.next_seq.max(1));
        let built = Built {
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
    fn whole_batches(mut self) -> Option<(Built, crate::memtable::Entries<'c>)> {
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
    fn part_of(mut self, chain: &ChainWrite) -> Option<(Built, crate::memtable::Entries<'c>)> {
        let empty = self.out.len();
        let mut flags = if chain.part == 0 { FrameFlags::FIRST } else { FrameFlags::default() };
        let mut cut = self.checkpoint();
        while let Some(ends_batch) = self.entry() {
            cut = self.checkpoint();
            if ends_batch {
                flags = flags.with(FrameFlags::LAST);
                break;
            }
        }
        if cut.len == empty {
            return None;
        }
        let tail = chain.last.saturating_add(1).saturating_sub(cut.next_seq);
        self.built(cut, flags, chain.part, tail)
    }
}
