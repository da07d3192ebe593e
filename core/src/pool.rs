//! The pool of segments: what each is used for, and the order of the log.
//!
//! Invariants: `order` lists the segments that hold log, by ascending generation; an announced segment is in it exactly
//! if it was begun; segments 0 and N/2 are manifest slots for ever.

use crate::format::edit::{SegmentState, SegmentUse};

/// What is known of a segment, and what only this mount knows of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentEntry {
    /// What the manifest knows, or will know after the next edit.
    pub state: SegmentState,
    /// The log has gone into it.
    pub(crate) begun: bool,
    /// This mount erased it. What an earlier one erased is not trusted: the erase may have been cut (Zephyr PR 103452).
    pub(crate) ready: bool,
    /// It may hold frames of a commit that has not ended: it is not sealed before that. Such segments are the last of
    /// the order.
    pub(crate) pending: bool,
    /// The manifest does not know `state` yet.
    pub(crate) dirty: bool,
}

/// The pool.
#[derive(Debug)]
pub struct Pool<'m> {
    entries: &'m mut [SegmentEntry],
    order: &'m mut [u32],
    order_len: usize,
}

impl<'m> Pool<'m> {
    /// A pool of free segments and two manifest slots. Both slices are as long as the store has segments.
    pub fn new(entries: &'m mut [SegmentEntry], order: &'m mut [u32]) -> Self {
        let mut pool = Self { entries, order, order_len: 0 };
        pool.clear();
        pool
    }

    /// Copies the pool; returns the length of the order, and `false` if there is too little room.
    pub(crate) fn copy_to(&self, entries: &mut [SegmentEntry], order: &mut [u32]) -> (usize, bool) {
        let (e, o) = (entries.get_mut(..self.entries.len()), order.get_mut(..self.order_len));
        let (Some(e), Some(o)) = (e, o) else { return (0, false) };
        e.copy_from_slice(self.entries);
        o.copy_from_slice(self.order());
        (self.order_len, true)
    }

    pub(crate) fn of_copy(
        entries: &'m mut [SegmentEntry],
        order: &'m mut [u32],
        segments: u32,
        order_len: usize,
    ) -> Self {
        let segments = usize::try_from(segments).unwrap_or(usize::MAX).min(entries.len());
        let order_len = order_len.min(order.len());
        Self { entries: entries.split_at_mut(segments).0, order, order_len }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.fill(SegmentEntry::default());
        self.order_len = 0;
        for slot in self.manifest_slots() {
            self.set(slot, SegmentState { used_for: SegmentUse::Manifest, ..SegmentState::default() });
            self.published(slot);
        }
    }

    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// The two manifest slots: never in one allocation unit.
    #[must_use]
    pub fn manifest_slots(&self) -> [u32; 2] {
        manifest_slots(self.segments())
    }

    /// What is known of a segment; a free one beyond the store.
    #[must_use]
    pub fn get(&self, segment: u32) -> SegmentEntry {
        usize::try_from(segment).ok().and_then(|i| self.entries.get(i)).copied().unwrap_or_default()
    }

    /// All segments with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &SegmentEntry)> + '_ {
        (0u32..).zip(self.entries.iter())
    }

    pub(crate) fn entry_mut(&mut self, segment: u32) -> Option<&mut SegmentEntry> {
        self.entries.get_mut(usize::try_from(segment).ok()?)
    }

    /// Sets what is known of a segment; the next edit publishes it.
    pub(crate) fn set(&mut self, segment: u32, state: SegmentState) {
        if let Some(entry) = self.entry_mut(segment) {
            entry.state = state;
            entry.dirty = true;
        }
    }

    fn published(&mut self, segment: u32) {
        if let Some(entry) = self.entry_mut(segment) {
            entry.dirty = false;
        }
    }

    /// The manifest knows everything.
    pub(crate) fn all_published(&mut self) {
        self.entries.iter_mut().for_each(|e| e.dirty = false);
    }

    /// The segments that hold log, oldest first.
    #[must_use]
    pub fn order(&self) -> &[u32] {
        self.order.get(..self.order_len).unwrap_or_default()
    }

    /// The last segment of the log.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.order().last().copied()
    }

    /// The log goes into `segment`.
    pub(crate) fn begin(&mut self, segment: u32, first_seq: u64, epoch: u32) {
        if let Some(entry) = self.entry_mut(segment) {
            (entry.begun, entry.ready, entry.pending) = (true, false, true);
            entry.state.epoch = epoch;
            entry.state.first_seq = first_seq;
            entry.state.last_seq = first_seq.saturating_sub(1);
            entry.state.chain_tail = 0;
        }
        if let Some(slot) = self.order.get_mut(self.order_len) {
            *slot = segment;
            self.order_len = self.order_len.saturating_add(1);
        }
    }

    /// No commit is under way.
    pub(crate) fn none_pending(&mut self) {
        for i in (0..self.order_len).rev() {
            let Some(entry) = self.order.get(i).copied().and_then(|s| self.entry_mut(s)) else { break };
            if !entry.pending {
                break; // pending segments are the last of the order
            }
            entry.pending = false;
        }
    }

    /// Nothing is in a segment any more; the next edit says so.
    pub(crate) fn set_free(&mut self, segment: u32) {
        self.remove_from_order(segment);
        let SegmentState { erase_count, generation, epoch, .. } = self.get(segment).state;
        self.set(segment, SegmentState { erase_count, generation, epoch, ..SegmentState::default() });
        if let Some(entry) = self.entry_mut(segment) {
            (entry.begun, entry.ready, entry.pending) = (false, false, false);
        }
    }

    /// Takes a segment out of the order.
    pub(crate) fn remove_from_order(&mut self, segment: u32) {
        if let Some(at) = self.order().iter().position(|s| *s == segment) {
            self.order.copy_within(at.saturating_add(1)..self.order_len, at);
            self.order_len = self.order_len.saturating_sub(1);
        }
    }

    /// Makes the order anew from the entries that `is_log` picks, by generation.
    pub(crate) fn sort_order(&mut self, is_log: impl Fn(&SegmentEntry) -> bool) {
        let mut len = 0;
        for (segment, entry) in (0u32..).zip(self.entries.iter()) {
            if is_log(entry)
                && let Some(slot) = self.order.get_mut(len)
            {
                *slot = segment;
                len = len.saturating_add(1);
            }
        }
        self.order_len = len;
        let entries = &*self.entries;
        let generation =
            |s: &u32| usize::try_from(*s).ok().and_then(|i| entries.get(i)).map_or(u64::MAX, |e| e.state.generation);
        if let Some(order) = self.order.get_mut(..len) {
            order.sort_unstable_by_key(generation);
        }
    }

    /// The next announced segment after generation `after`, in the order of the generations.
    #[must_use]
    pub fn announced_after(&self, after: u64) -> Option<u32> {
        self.iter()
            .filter(|(_, e)| e.state.used_for == SegmentUse::Announced && e.state.generation > after)
            .min_by_key(|(_, e)| e.state.generation)
            .map(|(segment, _)| segment)
    }

    /// The next segment the log will go into.
    #[must_use]
    pub fn next_announced(&self) -> Option<u32> {
        self.iter()
            .filter(|(_, e)| e.state.used_for == SegmentUse::Announced && !e.begun)
            .min_by_key(|(_, e)| e.state.generation)
            .map(|(segment, _)| segment)
    }

    /// How many segments are announced and not begun.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.iter().filter(|(_, e)| e.state.used_for == SegmentUse::Announced && !e.begun).count()
    }

    /// The free segment with the least wear; the longest unused among equals.
    #[must_use]
    pub fn least_worn_free(&self) -> Option<u32> {
        self.iter()
            .filter(|(_, e)| e.state.used_for == SegmentUse::Free)
            .min_by_key(|(_, e)| (e.state.erase_count, e.state.generation))
            .map(|(segment, _)| segment)
    }

    /// How many segments are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.iter().filter(|(_, e)| e.state.used_for == SegmentUse::Free).count()
    }

    /// How many segments can still be used.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.iter().filter(|(_, e)| e.state.used_for != SegmentUse::Retired).count()
    }

    /// Rule R on what is known of the segments: nothing at or above `from` was adopted after all.
    pub(crate) fn truncate(&mut self, from: u64) {
        for i in (0..self.order_len).rev() {
            let Some(segment) = self.order.get(i).copied() else { continue };
            let Some(entry) = self.entry_mut(segment) else { continue };
            let state = &mut entry.state;
            if state.last_seq >= from || state.first_seq > from || state.chain_tail > 0 {
                state.first_seq = state.first_seq.min(from);
                state.last_seq = state.last_seq.min(from.saturating_sub(1));
                if state.last_seq.saturating_add(u64::from(state.chain_tail)) >= from {
                    state.chain_tail = 0;
                }
                entry.dirty = true;
            }
            if state_begins_before(&entry.state, from) {
                break;
            }
        }
    }

    /// Index in [`Self::order`] of the last segment that begins at or before `seq`.
    #[must_use]
    pub fn locate(&self, seq: u64) -> usize {
        let after = self.order().partition_point(|s| self.get(*s).state.first_seq <= seq);
        after.saturating_sub(1)
    }
}

fn state_begins_before(state: &SegmentState, seq: u64) -> bool {
    state.first_seq < seq && state.last_seq >= state.first_seq
}

/// The manifest slots of a store with `segments` segments.
#[must_use]
pub fn manifest_slots(segments: u32) -> [u32; 2] {
    [0, segments / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(pool: &mut Pool<'_>, segment: u32, generation: u64) {
        let state = SegmentState { used_for: SegmentUse::Announced, generation, ..SegmentState::default() };
        pool.set(segment, state);
    }

    #[test]
    fn announced_segments_are_taken_in_the_order_of_their_generations() {
        let (mut entries, mut order) = ([SegmentEntry::default(); 8], [0u32; 8]);
        let mut pool = Pool::new(&mut entries, &mut order);
        announce(&mut pool, 5, 20);
        announce(&mut pool, 2, 30);
        assert_eq!(pool.next_announced(), Some(5));
        pool.begin(5, 1, 1);
        assert_eq!((pool.next_announced(), pool.order()), (Some(2), &[5][..]));
        assert_eq!(pool.manifest_slots(), [0, 4]);
        assert_eq!(pool.least_worn_free(), Some(1));
    }

    #[test]
    fn rule_r_takes_back_what_later_segments_hold() {
        let (mut entries, mut order) = ([SegmentEntry::default(); 8], [0u32; 8]);
        let mut pool = Pool::new(&mut entries, &mut order);
        for (segment, generation, first, last) in [(1, 1, 1, 5), (2, 2, 6, 9), (3, 3, 10, 12)] {
            announce(&mut pool, segment, generation);
            pool.begin(segment, first, 1);
            pool.entry_mut(segment).unwrap().state.last_seq = last;
        }
        pool.truncate(8);
        assert_eq!([1, 2, 3].map(|s| pool.get(s).state.last_seq), [5, 7, 7]);
        assert_eq!(pool.get(3).state.first_seq, 8);
        assert_eq!(pool.locate(7), 1);
    }
}
