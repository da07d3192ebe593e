//! The tables that the oldest log was rewritten into: per retention class a chain of segments, ordered by number.
//!
//! Invariants: the segments of a chain do not overlap; what counts of a segment is what the manifest says of it; where
//! a class has no table, its floor is the log's.

use crate::catalog::Catalog;
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::header::{CLASSES_MAX, LOG_FLOOR};
use crate::pool::SegmentEntry;

/// The class of a table segment; `None` if it is not one.
#[must_use]
pub fn class_of(state: &SegmentState) -> Option<u8> {
    match state.used_for {
        SegmentUse::Table { class, .. } => Some(class),
        _ => None,
    }
}

/// It covers numbers: it was published with something in it.
pub(crate) fn is_filled(state: &SegmentState) -> bool {
    state.last_seq >= state.first_seq
}

impl Catalog<'_> {
    /// The table segments of a class that cover something, in no order.
    pub fn tables(&self, class: u8) -> impl Iterator<Item = (u32, &SegmentEntry)> + '_ {
        self.pool.iter().filter(move |(_, e)| class_of(&e.state) == Some(class) && is_filled(&e.state))
    }

    /// The table segment of a class that covers `seq`, or the first one behind it.
    pub(crate) fn table_at_or_after(&self, class: u8, seq: u64) -> Option<(u32, SegmentState)> {
        let behind = self.tables(class).filter(|(_, e)| e.state.last_seq >= seq);
        behind.min_by_key(|(_, e)| e.state.first_seq).map(|(segment, e)| (segment, e.state))
    }

    /// The last table segment of a class that begins before `seq`.
    pub(crate) fn table_before(&self, class: u8, seq: u64) -> Option<(u32, SegmentState)> {
        let before = self.tables(class).filter(|(_, e)| e.state.first_seq < seq);
        before.max_by_key(|(_, e)| e.state.first_seq).map(|(segment, e)| (segment, e.state))
    }

    /// Classes that have a table.
    pub(crate) fn table_classes(&self) -> u8 {
        let mut bits = 0u8;
        if self.log_floor() <= 1 {
            return bits;
        }
        for (_, entry) in self.pool.iter() {
            if let Some(class) = class_of(&entry.state).filter(|_| is_filled(&entry.state)) {
                bits |= 1u8.wrapping_shl(u32::from(class));
            }
        }
        bits & 0xF
    }

    /// The log is rewritten, or dropped, up to before `seq`.
    pub(crate) fn raise_log_floor(&mut self, seq: u64) {
        if let Some(floor) = self.floor.get_mut(LOG_FLOOR) {
            *floor = (*floor).max(seq);
        }
        self.settle_floors();
    }

    /// The floors of classes: at their first table, or at the log's floor without one.
    pub(crate) fn settle_floors(&mut self) {
        let log = self.log_floor();
        for class in (0u8..).take(CLASSES_MAX) {
            let first = self.table_at_or_after(class, 0).map_or(log, |(_, state)| state.first_seq);
            if let Some(floor) = self.floor.get_mut(usize::from(class)) {
                *floor = (*floor).max(first.min(log));
            }
        }
        let floor = self.floor();
        self.gaps.raise_floor(floor);
    }
}
