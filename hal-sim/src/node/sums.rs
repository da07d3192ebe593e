//! What a life counted and measured.
//!
//! Invariant: sums of two lives are the sums of both, in whatever order they are added.

use crate::model::{Item, Known, Seen, Standing};
use lastgasp_core::gaps::GapCause;
use std::collections::BTreeMap;

/// What was under way when the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Under {
    /// Nothing: between two operations.
    Rest,
    /// A mount.
    Mount,
    /// A write.
    Write,
    /// An erase.
    Erase,
    /// A sync.
    Sync,
}

impl Under {
    /// All of them, in the order of a picture.
    pub const ALL: [Self; 5] = [Self::Rest, Self::Mount, Self::Write, Self::Erase, Self::Sync];

    /// In a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "at rest",
            Self::Mount => "mounting",
            Self::Write => "writing",
            Self::Erase => "erasing",
            Self::Sync => "syncing",
        }
    }
}

/// One power cut as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutPoint {
    /// What was under way.
    pub under: Under,
    /// Since the last commit became durable, in microseconds.
    pub since_durable_us: u64,
    /// Records that only RAM held and that are gone.
    pub unacknowledged_lost: u32,
    /// Acknowledged records that are gone: hit beside the write in flight, or never saved by a card that lies.
    pub acknowledged_lost: u32,
}

/// How the node used the time that its supply held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    /// What the reserve gave from the moment the mains went.
    pub hold_up_us: u64,
    /// From the mains going until everything was durable; `None` if the power was off before.
    pub took_us: Option<u64>,
    /// Records that it had to save.
    pub records: u64,
}

impl Flush {
    /// Per mille of the hold-up that it took.
    fn share(&self) -> u64 {
        self.took_us.map_or(u64::MAX, |us| us.saturating_mul(1000) / self.hold_up_us.max(1))
    }
}

/// So many points of each kind are kept for drawing.
const POINTS_MAX: usize = 4_000;

/// Counts and measurements.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// Power cuts.
    pub cuts: u64,
    /// Of them, in a mount.
    pub cuts_in_mounts: u64,
    /// Kills of the process.
    pub kills: u64,
    /// Clean stops.
    pub stops: u64,
    /// Times that the mains went and came back before the reserve was empty.
    pub survived_sags: u64,
    /// Mounts.
    pub mounts: u64,
    /// Operations of the medium.
    pub operations: u64,
    /// Virtual time lived.
    pub lived_us: u64,
    /// Records acknowledged as durable.
    pub acknowledged: u64,
    /// Of them, lost: hit by damage beside the write in flight, and reported.
    pub acknowledged_hit: u64,
    /// Records lost, by cause.
    pub lost: BTreeMap<&'static str, u64>,
    /// Cuts that hit synced neighbours.
    pub damaged: u64,
    /// Bytes of the bodies that were taken in.
    pub body_bytes: u64,
    /// Bytes written to the medium.
    pub written_bytes: u64,
    /// Bytes programmed by the flash inside, if it is known.
    pub flash_bytes: u64,
    /// What each recovery took, in microseconds.
    pub recovery_us: Vec<u32>,
    /// How the hold-up was used.
    pub flushes: Vec<Flush>,
    /// The worst of those that are not kept.
    worst: Option<Flush>,
    /// Flushes that the hold-up was too short for.
    pub flushes_missed: u64,
    /// Cuts, for drawing.
    pub points: Vec<CutPoint>,
    /// The longest sync.
    pub longest_sync_us: u64,
    /// Erases of each unit, or KiB written to each segment where nothing is erased.
    pub wear: Vec<u64>,
    /// Whether `wear` counts erases.
    pub wear_is_erases: bool,
}

fn keep<T>(to: &mut Vec<T>, from: Vec<T>) {
    let room = POINTS_MAX.saturating_sub(to.len());
    to.extend(from.into_iter().take(room));
}

impl Sums {
    /// Adds those of another life.
    pub fn add(&mut self, other: Self) {
        self.worst = [self.worst_flush(), other.worst_flush()].into_iter().flatten().max_by_key(Flush::share);
        self.cuts += other.cuts;
        self.cuts_in_mounts += other.cuts_in_mounts;
        self.kills += other.kills;
        self.stops += other.stops;
        self.survived_sags += other.survived_sags;
        self.mounts += other.mounts;
        self.operations += other.operations;
        self.lived_us += other.lived_us;
        self.acknowledged += other.acknowledged;
        self.acknowledged_hit += other.acknowledged_hit;
        for (cause, count) in other.lost {
            *self.lost.entry(cause).or_default() += count;
        }
        self.damaged += other.damaged;
        self.body_bytes += other.body_bytes;
        self.written_bytes += other.written_bytes;
        self.flash_bytes += other.flash_bytes;
        self.recovery_us.extend(other.recovery_us);
        self.flushes_missed += other.flushes_missed;
        keep(&mut self.flushes, other.flushes);
        keep(&mut self.points, other.points);
        self.longest_sync_us = self.longest_sync_us.max(other.longest_sync_us);
        self.wear.resize(self.wear.len().max(other.wear.len()), 0);
        self.wear.iter_mut().zip(other.wear).for_each(|(to, more)| *to += more);
        self.wear_is_erases |= other.wear_is_erases;
    }

    /// Records lost for this cause.
    pub fn lose(&mut self, cause: &'static str, records: u64) {
        if records > 0 {
            *self.lost.entry(cause).or_default() += records;
        }
    }

    /// Bytes written to the medium for each byte of a body.
    #[must_use]
    pub fn bytes_per_byte(&self) -> Option<f64> {
        ratio(self.written_bytes, self.body_bytes).filter(|_| self.written_bytes > 0)
    }

    /// Bytes programmed by the flash inside the medium for each byte of a body.
    #[must_use]
    pub fn flash_per_byte(&self) -> Option<f64> {
        ratio(self.flash_bytes, self.body_bytes).filter(|_| self.flash_bytes > 0)
    }

    /// The recovery that `percent` of all were not longer than, in milliseconds; `None` if there was none.
    #[must_use]
    pub fn recovery_ms(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.recovery_us.clone();
        sorted.sort_unstable();
        let nth = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(nth).map(|us| f64::from(*us) / 1000.0)
    }

    /// The flush that used the largest share of its hold-up.
    #[must_use]
    pub fn worst_flush(&self) -> Option<Flush> {
        self.flushes.iter().copied().chain(self.worst).max_by_key(Flush::share)
    }
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss)]
    (b > 0).then(|| a as f64 / b as f64)
}

/// What a mount does not show of the records that were owed before: lost from RAM, acknowledged and lost, dropped by
/// retention.
pub(super) fn losses(before: &[Known], seen: &Seen) -> [u64; 3] {
    let mut losses = [0; 3];
    let mut shown = seen.items.iter().filter_map(|item| match item {
        Item::Record(record) => Some((record.seq, record.seq)),
        Item::Gap { first, last, cause: GapCause::Overload } => Some((*first, *last)),
        _ => None,
    });
    let mut current = shown.next();
    for record in before {
        while current.is_some_and(|(_, last)| last < record.seq) {
            current = shown.next();
        }
        let is_there = current.is_some_and(|(first, last)| (first..=last).contains(&record.seq));
        let kind = match record.standing {
            _ if is_there => continue,
            _ if record.seq < seen.floor => 2,
            Standing::Pending => 0,
            Standing::Durable => 1,
            Standing::Evicting => 2,
            Standing::Lost => continue,
        };
        losses[kind] += 1;
    }
    losses
}
