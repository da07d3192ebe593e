//! Backward: newest first.
//!
//! Invariant: of the frames that begin at or below the next number, the last one is given out first.

use super::place::chain_is_whole;
use super::rows::copied_frame;
use super::{Scan, ScanMemory, Step};
use crate::catalog::Catalog;
use crate::format::events::Origin;
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
        let mut lowest = self.end.max(catalog.floor());
        let mut index = catalog.pool.locate(self.next);
        loop {
            let Some(mut place) = Self::open_place(s, catalog, mem, index, self.next) else {
                return self.missing(catalog, lowest, self.next);
            };
            let mut found: Option<(Walker, u64)> = None;
            loop {
                let before = place.walker;
                let Some(step) = place.walker.next(s, mem.frame) else { break };
                let Found::Frame { frame, payload, .. } = step else { continue };
                let copy_range = match frame.kind {
                    FrameKind::Origin => {
                        Origin::read(payload).and_then(|(_, copy)| copy).map(|c| (c.first_seq, c.last_seq()))
                    }
                    _ => None,
                };
                let (first, last) = copy_range.unwrap_or((frame.first_seq, frame.last_seq()));
                let state = catalog.pool.get(place.segment).state;
                let holds = (frame.kind.holds_records() && frame.count > 0) || copy_range.is_some();
                if !holds || first > self.next || first < state.first_seq || last > state.last_seq {
                    continue;
                }
                let batch = Prefix::read(payload, frame.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                if let Some(batch) = batch.filter(|_| copy_range.is_none()) {
                    let known = self.chain.filter(|(b, _)| *b == batch);
                    let whole = known.map_or_else(|| chain_is_whole(s, catalog, mem, batch), |(_, whole)| whole);
                    self.chain = Some((batch, whole));
                    if !whole {
                        continue;
                    }
                }
                // The original comes before its copy, and counts.
                if copy_range.is_none() || found.is_none_or(|(_, known)| known < last) {
                    found = Some((before, last));
                }
            }
            if let Some((walker, last)) = found {
                if last >= self.next {
                    return self.load_found(s, catalog, mem, walker);
                }
                lowest = lowest.max(last.saturating_add(1));
                return self.missing(catalog, lowest, self.next);
            }
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
        if let Some(Found::Frame { frame, payload, .. }) = walker.next(s, mem.frame) {
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0);
            if frame.kind == FrameKind::Origin {
                if let Some((_, Some(copy))) = Origin::read(payload) {
                    let copied = copied_frame(&frame, &copy);
                    self.load_rows(copy.payload, &copied, start.saturating_add(copy.at));
                }
            } else {
                self.load(mem, &frame, start);
            }
        }
        match self.take_loaded() {
            Some(seq) => Step::Record(seq),
            None => self.missing(catalog, next, next), // unreadable now, though it verified a moment ago
        }
    }
}
