//! What was dropped, told to the node: it becomes gaps.
//!
//! Invariants: everything that is counted is told, at the latest before the stop; a flood of drops does not become a
//! flood of gaps.

use std::fmt;

use lastgasp_core::format::row::Lost;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::{Arena, Storage};
use lastgasp_core::node::{Input, Refused};
use lastgasp_core::streams::OTHER_NAME;

use super::{Listener, Writer};
use crate::drops::Dropped;
use crate::say;

/// Dropped records become a gap this long after the gap before: a flood does not write a frame for each.
const DROPS_EVERY_US: u64 = 10_000_000;
/// Dropped records that become one gap at most.
const LOST_AT_ONCE_MAX: u32 = 1 << 24;

impl<S, A, L> Writer<'_, S, A, L>
where
    S: Storage<Error: fmt::Display>,
    A: Arena,
    L: Listener,
{
    /// What was taken in and can no longer become durable is lost to the medium, unless whoever waits for it is told.
    pub(super) fn note_unsaved(&mut self) {
        let store = self.node.store();
        let unsaved = store.next_seq().saturating_sub(1).saturating_sub(store.durable_upto());
        let told =
            self.waiting.drain(..).map(|(taken, _)| taken.last_seq.saturating_add(1).saturating_sub(taken.first_seq));
        let told: u64 = told.sum();
        let now_us = self.clock.now_us();
        self.queue.drops().count(OTHER_NAME, GapCause::MediumFailed, unsaved.saturating_sub(told), now_us);
    }

    /// There is nothing dropped that the node has not heard of.
    pub(super) fn nothing_lost(&self) -> bool {
        self.lost.is_empty() && self.queue.drops().is_empty()
    }

    /// When the node is to hear of what was dropped.
    pub(super) fn lost_due_us(&self) -> Option<u64> {
        if self.nothing_lost() || self.full {
            return None;
        }
        Some(self.told_us.map_or(0, |t| t.saturating_add(DROPS_EVERY_US)))
    }

    /// Tells the node of what was dropped, if that is due: it becomes gaps.
    pub(super) fn put_in_lost(&mut self) {
        let now_us = self.clock.now_us();
        let is_last = self.queue.has_ended();
        if self.full || self.lost_due_us().is_none_or(|due_us| now_us < due_us && !is_last) {
            return;
        }
        if self.lost.is_empty() {
            self.lost.extend(self.queue.drops().take());
        }
        while let Some(dropped) = self.lost.front().cloned() {
            let stream = Some(self.node.stream(&dropped.stream));
            let Dropped { cause, since_us, until_us, .. } = dropped;
            let records = u32::try_from(dropped.records).unwrap_or(u32::MAX).min(LOST_AT_ONCE_MAX);
            let output = self.node.step(now_us, Input::Lost(Lost { stream, cause, records, since_us, until_us }));
            self.full = output.batch == Some(Err(Refused::Full));
            if self.full {
                return;
            }
            say(format_args!("{records} record(s) of {} were dropped: {}", dropped.stream, cause.name()));
            match self.lost.front_mut().filter(|_| dropped.records > u64::from(records)) {
                Some(rest) => rest.records = dropped.records.saturating_sub(u64::from(records)),
                None => drop(self.lost.pop_front()),
            }
            self.told_us = Some(now_us);
            self.follow(&output);
        }
    }
}
