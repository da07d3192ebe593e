//! Failures of a disk that are not power cuts.
//!
//! Fault model:
//! - a sync fails ([`FailSync`]) and the cache does one of three things with what it had to save ([`SyncEffect`]);
//! - a write fails: part of it may have reached the cache, any of it the medium, and no sync makes it durable;
//! - the medium turns read-only at an operation: writes and erases are refused, syncs fail, and what was unsynced is
//!   in limbo;
//! - a segment is worn out: writes and erases in it are refused;
//! - a range cannot be read, until it is written or erased.
//!
//! Invariants: syncs and writes that fail are told in advance and counted from the next one, so a driver fails each
//! one in turn; they are transient and end with the power cycle, the others are for good.

use super::SimDisk;
use crate::outcome::Outcome;
use crate::power::Fault;
use lastgasp_core::hal::StorageErrorKind;
use std::ops::Range;

/// What the cache does with unsynced writes when their sync failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncEffect {
    /// They are marked clean: still read back, never written again, lost or kept by a cut (ext4, XFS).
    LooksClean,
    /// They are thrown out at once; the outcome says what of them is on the medium (Btrfs).
    Evicted(Outcome),
    /// They stay dirty, and a later sync saves them.
    StaysDirty,
}

/// A sync that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailSync {
    /// How many syncs go well before: 0 fails the next one.
    pub at: u64,
    /// How many fail in a row.
    pub count: u64,
    /// What becomes of the unsynced writes.
    pub effect: SyncEffect,
}

/// What the next sync does.
#[derive(Debug)]
pub(super) enum SyncVerdict {
    Good,
    LooksClean,
    Evicted(Outcome),
    StaysDirty,
}

#[derive(Debug, Clone, Copy)]
struct FailWrite {
    at: u64,
    count: u64,
    kind: StorageErrorKind,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    sync: Option<FailSync>,
    write: Option<FailWrite>,
    read_only_at: Option<u64>,
    worn: Vec<u32>,
    unreadable: Vec<Range<usize>>,
}

/// Counts down to a failure: `true` if it is this time.
fn strikes(at: &mut u64, count: &mut u64) -> bool {
    if *at > 0 {
        *at -= 1;
        return false;
    }
    let strikes = *count > 0;
    *count = count.saturating_sub(1);
    strikes
}

impl Faults {
    pub(super) fn sync(&mut self) -> SyncVerdict {
        let Some(fail) = &mut self.sync else { return SyncVerdict::Good };
        if !strikes(&mut fail.at, &mut fail.count) {
            return SyncVerdict::Good;
        }
        match fail.effect {
            SyncEffect::LooksClean => SyncVerdict::LooksClean,
            SyncEffect::Evicted(outcome) => SyncVerdict::Evicted(outcome),
            SyncEffect::StaysDirty => SyncVerdict::StaysDirty,
        }
    }

    pub(super) fn write(&mut self) -> Option<Fault> {
        let fail = self.write.as_mut()?;
        strikes(&mut fail.at, &mut fail.count).then_some(Fault::Broken(fail.kind))
    }

    pub(super) fn is_read_only(&self, op: u64) -> bool {
        self.read_only_at.is_some_and(|at| op >= at)
    }

    /// Why operation `op` on `segment` does not even begin, if it does not.
    pub(super) fn refuses(&self, op: u64, segment: u32) -> Option<Fault> {
        if self.is_read_only(op) {
            return Some(Fault::Broken(StorageErrorKind::ReadOnly));
        }
        self.worn.contains(&segment).then_some(Fault::Broken(StorageErrorKind::Worn))
    }

    pub(super) fn read(&self, range: Range<usize>) -> Result<(), Fault> {
        let hit = |bad: &Range<usize>| bad.start < range.end && range.start < bad.end;
        if self.unreadable.iter().any(hit) { Err(Fault::Broken(StorageErrorKind::Io)) } else { Ok(()) }
    }

    /// A write makes what it covers readable again.
    pub(super) fn mend(&mut self, range: Range<usize>) {
        if self.unreadable.is_empty() {
            return;
        }
        let parts = |bad: &Range<usize>| {
            [bad.start..bad.end.min(range.start), bad.start.max(range.end)..bad.end]
                .into_iter()
                .filter(|r| !r.is_empty())
        };
        self.unreadable = self.unreadable.iter().flat_map(|bad| parts(bad).collect::<Vec<_>>()).collect();
    }

    /// What of it outlives a power cycle that came after `ops` operations.
    pub(super) fn after_power(&self, ops: u64) -> Self {
        Self {
            read_only_at: self.read_only_at.map(|at| at.saturating_sub(ops)),
            worn: self.worn.clone(),
            unreadable: self.unreadable.clone(),
            ..Self::default()
        }
    }
}

impl SimDisk {
    /// Lets syncs fail, counted from the next one; replaces what was told before.
    pub fn fail_syncs(&mut self, fail: FailSync) {
        self.faults.sync = Some(fail);
    }

    /// Lets `count` writes fail with `kind` after `at` more that go well; replaces what was told before.
    pub fn fail_writes(&mut self, at: u64, count: u64, kind: StorageErrorKind) {
        self.faults.write = Some(FailWrite { at, count, kind });
    }

    /// Turns the medium read-only at the operation of this number (counted as by `cut_at`), for good, or back.
    pub fn read_only_at(&mut self, op: Option<u64>) {
        self.faults.read_only_at = op;
    }

    /// Wears a segment out: it can be read, but neither written nor erased any more.
    pub fn wear_out(&mut self, segment: u32) {
        self.faults.worn.push(segment);
    }

    /// Makes `len` bytes at `at` unreadable, as a bad sector, until they are written or their segment is erased.
    pub fn make_unreadable(&mut self, at: u64, len: u64) {
        self.faults.unreadable.push(super::usize_of(at)..super::usize_of(at + len));
    }
}
