//! Backward: newest first.
//!
//! Invariant: of the frames that begin at or below the next number, the last one is given out first.

use super::place::chain_is_whole;
use super::rows::records_in;
use super::{Scan, ScanMemory, Step};
use crate::catalog::Catalog;
use crate::format::frame::FrameKind;
use crate::format::row::Prefix;
use crate::hal::ReadStorage;
use crate::walk::{Found, Walker};

impl Scan {
    pub(super) fn load_backward<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
    ) -> Step {
        // The numbers below `lowest` are not looked at yet.
        let mut lowest = self.end.max(catalog.log_floor());
        // The origin that repeats what is looked for stands in the next segment, or behind boots that stored nothing.
        let is_empty = |index: usize| {
            let state = catalog.pool.order().get(index).map(|s| catalog.pool.get(*s).state);
            state.is_some_and(|state| state.last_seq < state.first_seq)
        };
        let last = catalog.pool.order().len().saturating_sub(1);
        let mut index = catalog.pool.locate(self.next).saturating_add(1).min(last);
        while is_empty(index) && index < last {
            index = index.saturating_add(1);
        }
        let mut from_start = false;
        loop {
            // Seeking may end at a damaged frame: then once more from the start of the segment.
            let sought = if from_start { 0 } else { self.next };
            let Some(mut place) = Self::open_place(s, catalog, mem.frame, index, sought) else {
                return self.missing(catalog, lowest, self.next);
            };
            let state = catalog.pool.get(place.segment).state;
            let mut found: Option<(Walker, u64)> = None;
            loop {
                let before = place.walker;
                let Some(step) = place.walker.next(s, mem.frame) else { break };
                let Found::Frame { frame, payload, .. } = step else { continue };
                let Some((records, payload, _)) = records_in(&frame, payload) else { continue };
                let is_copy = frame.kind == FrameKind::Origin;
                if !is_copy && (records.first_seq < state.first_seq || records.last_seq() > state.last_seq) {
                    continue;
                }
                if records.first_seq > self.next {
                    break; // in a segment, numbers rise
                }
                let batch = Prefix::read(payload, records.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                if let Some(batch) = batch {
                    let known = self.chain.filter(|(b, _)| *b == batch);
                    let whole = known.map_or_else(|| chain_is_whole(s, catalog, mem.frame, batch), |(_, whole)| whole);
                    self.chain = Some((batch, whole));
                    if !whole {
                        continue;
                    }
                }
                found = Some((before, records.last_seq()));
                if records.last_seq() >= self.next {
                    break;
                }
            }
            if let Some((walker, last)) = found {
                if last >= self.next {
                    return self.load_found(s, catalog, mem, walker);
                }
                lowest = lowest.max(last.saturating_add(1));
                return self.missing(catalog, lowest, self.next);
            }
            if !from_start {
                from_start = true;
                continue;
            }
            from_start = false;
            match index.checked_sub(1) {
                Some(before) => index = before,
                None => return self.missing(catalog, lowest, self.next),
            }
        }
    }

    fn load_found<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        mut walker: Walker,
    ) -> Step {
        let next = self.next;
        if let Some(Found::Frame { frame, payload, .. }) = walker.next(s, mem.frame)
            && let Some((records, _, at)) = records_in(&frame, payload)
        {
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0).saturating_add(at);
            self.load(catalog, mem, &records, start);
            if frame.kind == FrameKind::Origin
                && let Some(loaded) = &mut self.loaded
            {
                loaded.boot = 0;
            }
        }
        // Else it is unreadable now, though it verified a moment ago.
        self.take_loaded().unwrap_or_else(|| self.missing(catalog, next, next))
    }
}
