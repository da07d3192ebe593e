//! The node as logic, before it is threads: it takes batches in, says when to sync, and what is durable since.
//!
//! Invariants: it has no clock, no thread and no socket: time is an argument, and the caller syncs; one commit is under
//! way at a time, and appends go on meanwhile; [`Output::durable_upto`] only rises, and only after a sync that covers
//! it; a batch that was refused left nothing behind; after [`Next::Failed`] nothing more is taken in, and what was
//! called durable is.
//!
//! ```text
//!            Batch (class)                         Synced(Ok)
//!   Idle ─────────────────▶ pending, due at t ──▶ commit under way ──▶ Idle, or the next commit
//!     │                     Tick at or after t │         ▲    Synced(Err): written elsewhere, or Failed
//!     │ Stop                memory is full ────┘         │    Batch: into the other memtable, or Full
//!     ▼                                                  │
//!   Stopping ── everything pending is committed ─────────┘ ──▶ close frame ──▶ Stopped
//! ```
//!
//! The caller puts in what it has, then [`Input::Tick`], and does what [`Output::next`] says. A simulator does the same
//! on virtual time. When a commit begins is the matter of the durability [`Class`]; the adaptive wait of group commit
//! is described in `pace.rs`.

mod bound;
mod pace;
#[cfg(test)]
mod tests;

pub use pace::{Class, GROUP_US, INTERVAL_US, RAM_US, WAIT_MAX_US, WAIT_MIN_US};

use core::fmt;

use crate::error::{ReadOnlyReason, StoreError};
use crate::format::row::{Lost, Row};
use crate::hal::{Arena, Storage};
use crate::retention::KeepPolicy;
use crate::store::{Stepped, Store, Ticket};
use bound::Bound;
use pace::Pace;

/// Rewriting goes on when nothing came in for so long.
const IDLE_US: u64 = 500_000;
/// While space is short, a step of rewriting goes with so many bytes taken in; so many go with each segment that the
/// log took, which is more than rewriting one takes where segments are small; and at most so many with a commit.
const STEP_BYTES: u64 = 512 << 10;
const STEPS_PER_SEGMENT: u64 = 8;
const STEPS_PER_COMMIT: u64 = 64;

/// A batch: durable whole or not at all. An empty one of class [`Class::Each`] makes everything durable that was put in
/// before it: its last number is the one that has to become durable.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Its records, in order, with the time they were received.
    pub rows: &'a [Row<'a>],
    /// State entries that are durable with it: (key, value), see [`Store::append`].
    pub states: &'a [(&'a [u8], &'a [u8])],
    /// What triggers its commit.
    pub class: Class,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input<'a, E> {
    /// A batch comes in. It begins no commit unless memory is full: put in all there is, then [`Input::Tick`].
    Batch(Batch<'a>),
    /// Records were lost before they got here: they take numbers and become a gap, within 2 s. Its times are those of
    /// [`Node::step`].
    Lost(Lost),
    /// There is nothing more to put in for now, or the time to wait for is over.
    Tick,
    /// The sync asked for by [`Next::Sync`] has ended.
    Synced(Result<(), E>),
    /// Take nothing more in, make everything durable, write the close frame.
    Stop,
}

/// Numbers of a batch that was taken in. Of one without records, the last is one less than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Number of its first record.
    pub first_seq: u64,
    /// Number of its last record.
    pub last_seq: u64,
}

/// Why a batch was not taken in; nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Memory is full: try again when the sync under way has ended.
    Full,
    /// It is larger than this store takes at once.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest size.
        max: usize,
    },
    /// There is no room for one of its state entries, or it is too long.
    NoRoomFor(&'static str),
    /// The node is stopping or has stopped.
    Stopping,
    /// The store takes no more writes.
    Failed(ReadOnlyReason),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("memory is full until the sync under way has ended"),
            Self::TooLarge { bytes, max } => write!(f, "{bytes} bytes, and the store takes at most {max} at once"),
            Self::NoRoomFor(what) => write!(f, "there is no room for a {what}"),
            Self::Stopping => f.write_str("the node is stopping"),
            Self::Failed(reason) => write!(f, "the store takes no more writes: {reason}"),
        }
    }
}

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A commit is written: sync the medium, then put in [`Input::Synced`]. Said once per commit.
    Sync {
        /// What will be durable then.
        upto: u64,
    },
    /// Nothing until the next input; at this time, if there is one, [`Input::Tick`].
    Wait {
        /// Microseconds, by the clock of [`Node::step`].
        until_us: Option<u64>,
    },
    /// The end: everything is durable.
    Stopped {
        /// The stop is recorded on the medium. If not, the next start finds an unclean stop, and nothing is lost.
        clean: bool,
    },
    /// The end: the store takes no more writes. What was called durable is; the rest is not.
    Failed(ReadOnlyReason),
}

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// For [`Input::Batch`] and [`Input::Lost`]: the numbers, or why it was refused.
    pub batch: Option<Result<Taken, Refused>>,
    /// Everything up to here is durable.
    pub durable_upto: u64,
    /// What the caller is to do.
    pub next: Next,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
    Stopped { clean: bool },
    Failed(ReadOnlyReason),
}

/// A node: a store, and the rules by which it commits.
pub struct Node<'m, S: Storage, A: Arena> {
    store: Store<'m, S, A>,
    bound: Bound,
    pace: Pace,
    flight: Option<Ticket>,
    phase: Phase,
    /// No rewriting, as while power is failing.
    paused: bool,
    /// When the last input came that was no tick.
    busy_us: Option<u64>,
    /// Rewriting had something to do when it was asked last.
    more: bool,
    /// Bytes of records that rewriting has kept up with.
    bytes_seen: u64,
    /// And segments that the log took.
    segments_seen: u64,
}

impl<'m, S: Storage, A: Arena> Node<'m, S, A> {
    /// A node on an open store. At most `volatile_bound_max` records, as many as the store was opened with or more, may
    /// be lost in a cut although their sender knows nothing of it; such a loss is reported as "at most" what was
    /// allowed at that time, so the node allows no more than come between two commits.
    #[must_use]
    pub fn new(store: Store<'m, S, A>, volatile_bound_max: u32) -> Self {
        let phase = store.read_only().map_or(Phase::Running, Phase::Failed);
        let bound = Bound::new(volatile_bound_max.max(store.volatile_bound()));
        Self {
            store,
            bound,
            pace: Pace::default(),
            flight: None,
            phase,
            paused: false,
            busy_us: None,
            more: true,
            bytes_seen: 0,
            segments_seen: 0,
        }
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Store<'m, S, A> {
        &self.store
    }

    /// The store's medium, to sync it where there is no other thread.
    pub fn medium(&mut self) -> &mut S {
        self.store.parts().0
    }

    /// Gives the store back. A commit that is under way is not ended.
    pub fn into_store(self) -> Store<'m, S, A> {
        self.store
    }

    /// The number of the stream with this name, for [`Row::stream`].
    pub fn stream(&mut self, name: &str) -> u16 {
        self.store.stream(name)
    }

    /// Up to this number records are kept or, if power fails, reported as lost: durable, or within the volatile bound.
    #[must_use]
    pub fn accepted_upto(&self) -> u64 {
        let last = self.store.next_seq().saturating_sub(1);
        self.store.durable_upto().max(last.min(self.store.ram_limit()))
    }

    /// What a sync takes lately, in microseconds.
    #[must_use]
    pub fn sync_us(&self) -> u64 {
        self.pace.sync_us()
    }

    /// Stops rewriting, or lets it go on: while power is failing nothing else may keep the medium busy.
    pub fn pause_rewriting(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// What is kept from now on.
    pub fn set_keep(&mut self, policy: KeepPolicy<'m>) {
        self.store.set_keep(policy);
        self.more = true;
    }

    /// One input at one time. Times never go back.
    ///
    /// # Power loss
    /// Everything up to [`Output::durable_upto`] of any earlier step survives.
    pub fn step(&mut self, now_us: u64, input: Input<'_, S::Error>) -> Output {
        let mut batch = None;
        let mut begun = None;
        match input {
            Input::Batch(b) => {
                (self.busy_us, self.more) = (Some(now_us), true);
                batch = Some(self.take(now_us, &b, &mut begun));
            }
            Input::Lost(lost) => batch = Some(self.lost(now_us, &lost, &mut begun)),
            Input::Tick => {
                begun = self.begin_if_due(now_us);
                if begun.is_none() {
                    self.rewrite_when_idle(now_us);
                }
            }
            Input::Synced(result) => {
                self.synced(now_us, result);
                self.rewrite_when_short(now_us);
                begun = self.begin_if_due(now_us);
            }
            Input::Stop => {
                if self.phase == Phase::Running {
                    self.phase = Phase::Stopping;
                }
                begun = self.begin_if_due(now_us);
            }
        }
        let next = match (begun, self.phase) {
            (_, Phase::Failed(reason)) => Next::Failed(reason),
            (Some(upto), _) => Next::Sync { upto },
            (None, Phase::Stopped { clean }) => Next::Stopped { clean },
            (None, Phase::Running | Phase::Stopping) => Next::Wait { until_us: self.wait_until_us() },
        };
        Output { batch, durable_upto: self.store.durable_upto(), next }
    }

    fn wait_until_us(&self) -> Option<u64> {
        if self.flight.is_some() {
            return None;
        }
        let idle = self.idle_at_us().filter(|_| self.more && !self.paused && self.store.can_rewrite());
        self.pace.due_us().into_iter().chain(idle).min()
    }

    fn idle_at_us(&self) -> Option<u64> {
        self.busy_us.map(|busy| busy.saturating_add(IDLE_US))
    }

    /// One step of rewriting while nothing else is to be done.
    fn rewrite_when_idle(&mut self, now_us: u64) {
        let is_idle = self.flight.is_none() && self.idle_at_us().is_some_and(|at| at <= now_us);
        if is_idle && self.phase == Phase::Running && !self.paused && self.more {
            self.rewrite(now_us, true);
        }
    }

    /// Between two commits, where space is short: so much that the log never has to wait for it.
    fn rewrite_when_short(&mut self, now_us: u64) {
        let stats = self.store.stats();
        let since = |now: u64, seen: &mut u64| now.saturating_sub(core::mem::replace(seen, now));
        let bytes = since(stats.record_bytes, &mut self.bytes_seen);
        let segments = since(stats.segments_opened, &mut self.segments_seen);
        let steps = bytes.checked_div(STEP_BYTES).unwrap_or(0).saturating_add(2);
        let steps = steps.saturating_add(segments.saturating_mul(STEPS_PER_SEGMENT)).min(STEPS_PER_COMMIT);
        for _ in 0..steps {
            if self.phase != Phase::Running || self.paused || !self.store.is_short_of_space() {
                return;
            }
            self.rewrite(now_us, false);
            if !self.more {
                return;
            }
        }
    }

    fn rewrite(&mut self, now_us: u64, idle: bool) {
        match self.store.step(now_us, idle) {
            Ok(stepped) => self.more = stepped == Stepped::Worked,
            Err(e) => _ = self.fail(reason_of(&e)),
        }
    }

    fn expose(&mut self, now_us: u64, last_seq: u64) {
        let Some(bound) = self.bound.exposed(last_seq, self.store.durable_upto()) else { return };
        self.store.set_volatile_bound(bound);
        let ahead = last_seq.saturating_add(u64::from(self.store.volatile_bound() / 2));
        if ahead > self.store.ram_limit() {
            self.pace.hurry(now_us);
        }
    }

    fn is_running(&self) -> Result<(), Refused> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::Stopping | Phase::Stopped { .. } => Err(Refused::Stopping),
            Phase::Failed(reason) => Err(Refused::Failed(reason)),
        }
    }

    fn take(&mut self, now_us: u64, batch: &Batch<'_>, begun: &mut Option<u64>) -> Result<Taken, Refused> {
        self.is_running()?;
        if self.flight.is_some() && self.store.memtable_bytes().1 == 0 {
            return Err(Refused::Full); // the one memtable there is is being written
        }
        // A source that keeps its cursor in the store reads again what a cut took.
        let is_exposed = !batch.class.is_awaited() && batch.states.is_empty();
        self.append(now_us, batch.class, is_exposed, begun, |store| store.append(batch.rows, batch.states))
    }

    fn lost(&mut self, now_us: u64, lost: &Lost, begun: &mut Option<u64>) -> Result<Taken, Refused> {
        self.is_running()?;
        self.append(now_us, Class::Interval, true, begun, |store| store.append_lost(lost))
    }

    fn append(
        &mut self,
        now_us: u64,
        class: Class,
        is_exposed: bool,
        begun: &mut Option<u64>,
        append: impl Fn(&mut Store<'m, S, A>) -> Result<(u64, u64), StoreError<S::Error>>,
    ) -> Result<Taken, Refused> {
        let mut taken = append(&mut self.store);
        if matches!(taken, Err(StoreError::MemtableFull)) && self.flight.is_none() {
            // The commit takes the full memtable away; the spare one, if there is one, takes the batch.
            *begun = self.begin(now_us);
            if let Phase::Failed(reason) = self.phase {
                return Err(Refused::Failed(reason));
            }
            taken = append(&mut self.store);
        }
        match taken {
            Ok((first_seq, last_seq)) => {
                self.pace.joined(now_us, class);
                // A sender that is not told when its records are durable gets them into the bound, or soon durable:
                // the next commit extends the bound before it is used up.
                if is_exposed {
                    self.expose(now_us, last_seq);
                }
                Ok(Taken { first_seq, last_seq })
            }
            Err(StoreError::MemtableFull | StoreError::CommitPending) => Err(Refused::Full),
            Err(StoreError::TooLarge { bytes, max }) => Err(Refused::TooLarge { bytes, max }),
            Err(StoreError::TableFull(what)) => Err(Refused::NoRoomFor(what)),
            Err(StoreError::ReadOnly(reason)) => Err(Refused::Failed(self.fail(reason))),
            Err(StoreError::Medium(_)) => Err(Refused::Failed(self.fail(ReadOnlyReason::CommitFailed))),
        }
    }

    fn begin_if_due(&mut self, now_us: u64) -> Option<u64> {
        if self.flight.is_some() {
            return None;
        }
        match self.phase {
            Phase::Running if self.pace.due_us().is_some_and(|t| t <= now_us) => self.begin(now_us),
            Phase::Stopping => {
                let begun = self.begin(now_us);
                if begun.is_none() && self.phase == Phase::Stopping {
                    self.close();
                }
                begun
            }
            Phase::Running | Phase::Stopped { .. } | Phase::Failed(_) => None,
        }
    }

    fn begin(&mut self, now_us: u64) -> Option<u64> {
        let ticket = match self.store.begin_commit() {
            Ok(ticket) => ticket,
            Err(e) => {
                self.fail(reason_of(&e));
                return None;
            }
        };
        // Also if there was nothing to write, nothing is pending any more.
        self.pace.begun(now_us);
        if let Some(bound) = self.bound.committed() {
            self.store.set_volatile_bound(bound);
        }
        let upto = ticket.as_ref().map(Ticket::upto);
        self.flight = ticket;
        upto
    }

    fn synced(&mut self, now_us: u64, result: Result<(), S::Error>) {
        let Some(ticket) = self.flight.take() else { return };
        self.pace.ended(now_us);
        if let Err(e) = self.store.end_commit(ticket, result) {
            self.fail(reason_of(&e));
        }
    }

    fn close(&mut self) {
        let clean = self.store.close().is_ok();
        self.phase = Phase::Stopped { clean };
    }

    fn fail(&mut self, reason: ReadOnlyReason) -> ReadOnlyReason {
        self.phase = Phase::Failed(reason);
        reason
    }
}

fn reason_of<E>(e: &StoreError<E>) -> ReadOnlyReason {
    match e {
        StoreError::ReadOnly(reason) => *reason,
        _ => ReadOnlyReason::CommitFailed,
    }
}
