//! Gaps: what was lost, where, and why; and the bounded ledger that keeps them.
//!
//! Invariants: entries are ordered by first sequence number and do not overlap; the ledger never refuses a gap: when it
//! is full, neighbours of one cause merge, and the merged gap says "at most". Only where no two neighbours are alike
//! does the last entry take a gap of another cause in.

use serde::{Deserialize, Serialize};

/// Why records are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum GapCause {
    /// Acknowledged in RAM only when power failed.
    RamTier,
    /// Not yet durable when power failed.
    Torn,
    /// Were durable, and can no longer be read.
    Rot,
    /// Dropped as the oldest, to make room or by age.
    Retention,
    /// Not taken in, because the node could not keep up.
    Overload,
    /// Not taken in, because the store was full.
    DiskFull,
    /// Not taken in, because the medium failed.
    MediumFailed,
    /// Not taken in, because they were larger than the largest record.
    Oversize,
    /// The manifest was lost and rebuilt: gaps known before may no longer be listed.
    LedgerLost,
}

impl GapCause {
    /// The cause as it is shown and exported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RamTier => "ram-tier",
            Self::Torn => "torn",
            Self::Rot => "rot",
            Self::Retention => "retention",
            Self::Overload => "overload",
            Self::DiskFull => "disk-full",
            Self::MediumFailed => "medium-failed",
            Self::Oversize => "oversize",
            Self::LedgerLost => "ledger-lost",
        }
    }
}

/// A range of sequence numbers that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First sequence number.
    pub first_seq: u64,
    /// Last sequence number; less than the first where no numbers are concerned (`LedgerLost`).
    pub last_seq: u64,
    /// `true` if every number of the range stood for a record; otherwise at most so many were lost.
    pub exact: bool,
    /// Why.
    pub cause: GapCause,
    /// The stream concerned; `None` for any.
    pub stream: Option<u16>,
}

impl Gap {
    /// A gap of any stream.
    #[must_use]
    pub fn new(first_seq: u64, last_seq: u64, exact: bool, cause: GapCause) -> Self {
        Self { first_seq, last_seq, exact, cause, stream: None }
    }
}

impl Default for Gap {
    fn default() -> Self {
        Self::new(0, 0, true, GapCause::Rot)
    }
}

/// The bounded, ordered list of gaps.
#[derive(Debug)]
pub struct GapLedger<'m> {
    slots: &'m mut [Gap],
    len: usize,
}

impl<'m> GapLedger<'m> {
    /// An empty ledger over the caller's memory.
    pub fn new(slots: &'m mut [Gap]) -> Self {
        Self { slots, len: 0 }
    }

    pub(crate) fn of_copy(slots: &'m mut [Gap], len: usize) -> Self {
        let len = len.min(slots.len());
        Self { slots, len }
    }

    /// The gaps, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Gap] {
        self.slots.get(..self.len).unwrap_or_default()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a gap; numbers already in the ledger keep their entry.
    pub fn add(&mut self, gap: Gap) {
        if gap.last_seq < gap.first_seq {
            if !self.as_slice().contains(&gap) {
                self.insert(gap);
            }
            return;
        }
        let mut from = gap.first_seq;
        while from <= gap.last_seq {
            // The next known gap at or above `from` bounds the piece that is new.
            let touches = |g: &&Gap| g.first_seq <= g.last_seq && g.last_seq >= from && g.first_seq <= gap.last_seq;
            let known = self.as_slice().iter().find(touches).copied();
            let upto = known.map_or(gap.last_seq, |g| g.first_seq.saturating_sub(1).min(gap.last_seq));
            if from <= upto && known.is_none_or(|g| g.first_seq > from) {
                self.insert(Gap { first_seq: from, last_seq: upto, ..gap });
            }
            let Some(known) = known else { break };
            let Some(next) = known.last_seq.max(from).checked_add(1) else { break };
            from = next;
        }
    }

    fn insert(&mut self, gap: Gap) {
        let at = self.as_slice().partition_point(|g| g.first_seq <= gap.first_seq);
        if let Some(before) = at.checked_sub(1).and_then(|i| self.slots.get_mut(i))
            && before.cause == gap.cause
            && before.stream == gap.stream
            && before.exact == gap.exact
            && before.first_seq <= before.last_seq
            && before.last_seq.saturating_add(1) == gap.first_seq
        {
            before.last_seq = gap.last_seq;
            return;
        }
        if self.len == self.slots.len() {
            self.merge_closest();
            return self.insert_merged(gap);
        }
        self.place(gap);
    }

    fn insert_merged(&mut self, gap: Gap) {
        if self.len < self.slots.len() {
            self.place(gap);
        } else if let Some(last) = self.slots.get_mut(self.len.saturating_sub(1)) {
            // One slot, or no two neighbours alike: the newest entry takes it in, "at most".
            last.first_seq = last.first_seq.min(gap.first_seq);
            last.last_seq = last.last_seq.max(gap.last_seq);
            last.exact = false;
        }
    }

    fn place(&mut self, gap: Gap) {
        let at = self.as_slice().partition_point(|g| g.first_seq <= gap.first_seq);
        self.slots.copy_within(at..self.len, at.saturating_add(1));
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = gap;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Merges the two neighbours of one cause with the fewest numbers between them.
    fn merge_closest(&mut self) {
        let all = self.as_slice();
        let pairs = all.windows(2).enumerate().filter_map(|(i, w)| match w {
            [a, b] if a.cause == b.cause && a.stream == b.stream => Some((b.first_seq.saturating_sub(a.last_seq), i)),
            _ => None,
        });
        let Some((_, i)) = pairs.min() else { return };
        let Some(last_seq) = self.slots.get(i.saturating_add(1)).map(|g| g.last_seq) else { return };
        if let Some(a) = self.slots.get_mut(i) {
            a.last_seq = a.last_seq.max(last_seq);
            a.exact = false;
        }
        self.remove(i.saturating_add(1));
    }

    fn remove(&mut self, at: usize) {
        self.slots.copy_within(at.saturating_add(1)..self.len, at);
        self.len = self.len.saturating_sub(1);
    }

    /// Drops what lies below `floor`: retention accounts for it.
    pub fn raise_floor(&mut self, floor: u64) {
        let mut i = 0;
        while let Some(gap) = self.slots.get_mut(i).filter(|_| i < self.len) {
            if gap.first_seq < floor && gap.last_seq < floor {
                self.remove(i);
            } else {
                gap.first_seq = gap.first_seq.max(floor.min(gap.last_seq));
                i = i.saturating_add(1);
            }
        }
    }

    /// Drops numbers at or above `from`: rule R voids the verdict on them.
    pub fn truncate(&mut self, from: u64) {
        while let Some(last) = self.len.checked_sub(1).and_then(|i| self.slots.get_mut(i)) {
            if last.first_seq < from {
                if last.first_seq <= last.last_seq {
                    last.last_seq = last.last_seq.min(from.saturating_sub(1));
                }
                break;
            }
            self.len = self.len.saturating_sub(1);
        }
    }

    /// The part of the first gap that touches `first..=last`, if any.
    #[must_use]
    pub fn first_in(&self, first: u64, last: u64) -> Option<Gap> {
        let gap = self.as_slice().iter().find(|g| g.first_seq <= last && g.last_seq >= first)?;
        Some(Gap { first_seq: gap.first_seq.max(first), last_seq: gap.last_seq.min(last), ..*gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rot(a: u64, b: u64) -> Gap {
        Gap::new(a, b, true, GapCause::Rot)
    }

    #[test]
    fn gaps_are_kept_in_order_and_neighbours_merge() {
        let mut slots = [Gap::default(); 4];
        let mut ledger = GapLedger::new(&mut slots);
        ledger.add(rot(10, 12));
        ledger.add(rot(3, 4));
        ledger.add(rot(13, 20));
        assert_eq!(ledger.as_slice(), [rot(3, 4), rot(10, 20)]);
    }

    #[test]
    fn a_gap_said_twice_is_one_gap() {
        let mut slots = [Gap::default(); 4];
        let mut ledger = GapLedger::new(&mut slots);
        ledger.add(Gap::new(5, 9, false, GapCause::RamTier));
        ledger.add(rot(3, 12));
        ledger.add(rot(3, 12));
        assert_eq!(ledger.as_slice(), [rot(3, 4), Gap::new(5, 9, false, GapCause::RamTier), rot(10, 12)]);
    }

    #[test]
    fn a_full_ledger_merges_and_says_at_most() {
        let mut slots = [Gap::default(); 2];
        let mut ledger = GapLedger::new(&mut slots);
        for at in [1, 100, 103] {
            ledger.add(rot(at, at));
        }
        assert_eq!(ledger.as_slice().len(), 2);
        let covered = |seq: u64| ledger.as_slice().iter().any(|g| g.first_seq <= seq && seq <= g.last_seq);
        assert!([1, 100, 103].into_iter().all(covered));
        assert!(ledger.as_slice().iter().any(|g| !g.exact));
    }

    #[test]
    fn the_floor_and_rule_r_trim_the_ledger() {
        let mut slots = [Gap::default(); 4];
        let mut ledger = GapLedger::new(&mut slots);
        ledger.add(rot(1, 5));
        ledger.add(rot(8, 20));
        ledger.raise_floor(4);
        ledger.truncate(10);
        assert_eq!(ledger.as_slice(), [rot(4, 5), rot(8, 9)]);
        ledger.truncate(1);
        assert!(ledger.as_slice().is_empty());
    }
}
