//! When to commit: the durability classes, and the adaptive wait of group commit.
//!
//! Invariants: what is pending has a time at which its commit begins, never later than its class allows; a client that
//! writes alone is never waited for; a wait that brings nothing makes the next ones rarer.
//!
//! **The adaptive wait.** When a sync ends, the clients whose records it carried are woken and need a moment to come
//! back with their next ones. A committer that begins at once takes only those that came while it synced: two waves of
//! clients form, and each waits for the sync of the other. So, after a sync:
//!
//! 1. It expects as many batches as the sync has just released, plus those that are pending already.
//! 2. A pending `group` batch waits until all expected ones are there, or until the wait is over: a quarter of the time
//!    that syncs take lately, at least [`WAIT_MIN_US`], at most [`WAIT_MAX_US`], counted from the end of the sync. A
//!    batch that comes after that waits for nobody.
//! 3. One client that always waits for its answer expects itself alone, so its batch is never delayed.
//! 4. A wait in which nobody came is a miss. After the n-th miss in a row the next 2^n commits do not wait, up to 64.
//!
//! `each` and full memory end every wait: a commit takes everything that is pending.

/// The commit of a `group` batch begins at the latest this long after it came, or after the sync under way has ended.
pub const GROUP_US: u64 = 5_000;
/// The same for `interval`.
pub const INTERVAL_US: u64 = 2_000_000;
/// The same for `ram`.
pub const RAM_US: u64 = 30_000_000;
/// The shortest wait for clients to come back: what waking a thread takes.
pub const WAIT_MIN_US: u64 = 50;
/// The longest.
pub const WAIT_MAX_US: u64 = 1_000;
const _: () = assert!(WAIT_MAX_US <= GROUP_US, "the wait is all that a group batch is ever held back for");
/// At most 2 to this power commits go without a wait after misses.
const MISSES_MAX: u8 = 6;

/// What triggers the commit of a batch. A commit takes everything pending along, whatever its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Class {
    /// Each batch, at once.
    Each,
    /// Within 5 ms: as soon as no sync is under way and the clients just woken had their chance to join.
    Group,
    /// Within 2 s.
    Interval,
    /// Within 30 s, or when memory is full.
    Ram,
}

impl Class {
    /// `true` if the sender waits until the batch is durable.
    #[must_use]
    pub fn is_awaited(self) -> bool {
        matches!(self, Self::Each | Self::Group)
    }
}

/// The committer's sense of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// When a commit has to begin, whoever may still come.
    firm_us: Option<u64>,
    /// Since when a `group` batch is pending.
    group_since_us: Option<u64>,
    /// Awaited batches that are pending.
    waiting: u32,
    /// Awaited batches in the commit that is being synced.
    in_flight: u32,
    /// When that sync began.
    begun_us: u64,
    /// How many awaited batches to wait for, and until when.
    expected: u32,
    wait_until_us: u64,
    /// Awaited batches that were pending when the last sync ended.
    at_sync_end: u32,
    /// What a sync takes lately; 0 if there was none yet.
    sync_us: u64,
    misses: u8,
    skip: u8,
}

impl Pace {
    /// A batch was taken in.
    pub(super) fn joined(&mut self, now_us: u64, class: Class) {
        match class {
            Class::Each => self.hurry(now_us),
            Class::Group => {
                self.group_since_us.get_or_insert(now_us);
            }
            Class::Interval => self.firm(now_us.saturating_add(INTERVAL_US)),
            Class::Ram => self.firm(now_us.saturating_add(RAM_US)),
        }
        if class.is_awaited() {
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// What is pending has to go now.
    pub(super) fn hurry(&mut self, now_us: u64) {
        self.firm(now_us);
    }

    fn firm(&mut self, at_us: u64) {
        self.firm_us = Some(self.firm_us.map_or(at_us, |t| t.min(at_us)));
    }

    /// When the next commit is to begin; `None` if nothing is pending.
    pub(super) fn due_us(&self) -> Option<u64> {
        let group = self.group_since_us.map(|since| {
            let nobody_else = self.waiting >= self.expected || since >= self.wait_until_us;
            if nobody_else { since } else { self.wait_until_us }
        });
        match (self.firm_us, group) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A commit has begun that takes everything pending along.
    pub(super) fn begun(&mut self, now_us: u64) {
        let waited = self.group_since_us.is_some_and(|since| since < self.wait_until_us);
        if waited && self.waiting < self.expected && now_us >= self.wait_until_us {
            if self.waiting.saturating_sub(self.at_sync_end.max(1)) == 0 {
                self.misses = self.misses.saturating_add(1).min(MISSES_MAX);
                self.skip = 1u8.wrapping_shl(u32::from(self.misses));
            } else {
                self.misses = 0;
            }
        } else if waited && self.expected > 1 && self.waiting >= self.expected {
            self.misses = 0;
        }
        self.in_flight = self.waiting;
        self.waiting = 0;
        self.expected = 0;
        self.firm_us = None;
        self.group_since_us = None;
        self.begun_us = now_us;
    }

    /// The sync of that commit has ended.
    pub(super) fn ended(&mut self, now_us: u64) {
        let took = now_us.saturating_sub(self.begun_us);
        self.sync_us = match self.sync_us {
            0 => took,
            before => before.saturating_mul(7).saturating_add(took) / 8,
        };
        self.at_sync_end = self.waiting;
        let released = core::mem::take(&mut self.in_flight);
        if self.skip > 0 {
            self.skip = self.skip.saturating_sub(1);
            self.expected = 0;
            self.wait_until_us = now_us;
            return;
        }
        self.expected = released.saturating_add(self.waiting);
        self.wait_until_us = now_us.saturating_add((self.sync_us / 4).clamp(WAIT_MIN_US, WAIT_MAX_US));
    }

    /// What a sync takes lately.
    pub(super) fn sync_us(&self) -> u64 {
        self.sync_us
    }
}
