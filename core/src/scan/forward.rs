//! Forward: oldest first, with boots and clean stops at their place.
//!
//! Invariant: a gap is given out before the frame behind it is loaded.

use super::place::chain_is_whole;
use super::rows::records_in;
use super::{Event, Place, Scan, ScanMemory, Step};
use crate::catalog::Catalog;
use crate::format::events::{Close, Origin};
use crate::format::frame::{Frame, FrameKind};
use crate::format::row::Prefix;
use crate::hal::ReadStorage;
use crate::walk::Found;

impl Scan {
    pub(super) fn load_forward<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
    ) -> Step {
        loop {
            let mut place = match self.place.take().and_then(|place| place.still(catalog)) {
                Some(place) => place,
                // From the record before on: the events in front of the first record belong to the range.
                None => match Self::open_place(
                    s,
                    catalog,
                    mem.frame,
                    first_segment(catalog, self.next),
                    self.next.saturating_sub(1),
                ) {
                    Some(place) => place,
                    None => return self.missing(catalog, self.next, self.end),
                },
            };
            let before = place.walker;
            let Some(found) = place.walker.next(s, mem.frame) else {
                match Self::open_place(s, catalog, mem.frame, place.index.saturating_add(1), 0) {
                    Some(next) => self.place = Some(next),
                    None => return self.missing(catalog, self.next, self.end),
                }
                continue;
            };
            let Found::Frame { frame, payload: content, .. } = found else {
                self.place = Some(place);
                continue;
            };
            let records = records_in(&frame, content).filter(|(r, ..)| self.is_wanted(catalog, &place, &frame, r));
            let Some((records, payload, at)) = records else {
                self.place = Some(place);
                match self.event(&frame, content) {
                    Some(event) => return Step::Event(event),
                    None => continue,
                }
            };
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0).saturating_add(at);
            let batch = Prefix::read(payload, records.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
            let is_copy = frame.kind == FrameKind::Origin;
            if let Some(batch) = batch {
                let Some((_, whole)) = self.chain.filter(|(known, _)| *known == batch) else {
                    self.chain = Some((batch, chain_is_whole(s, catalog, mem.frame, batch)));
                    place.walker = before; // the look-ahead has overwritten the frame
                    self.place = Some(place);
                    continue;
                };
                if !whole {
                    self.place = Some(place);
                    match self.event(&frame, content) {
                        Some(event) => return Step::Event(event),
                        None => continue,
                    }
                }
            }
            // After a gap, this frame comes again; after the records it repeats, an origin is shown as an event.
            let (first, comes_again) = (records.first_seq, is_copy || records.first_seq > self.next);
            if comes_again {
                place.walker = before;
            }
            self.place = Some(place);
            if first > self.next {
                return self.missing(catalog, self.next, first.saturating_sub(1).min(self.end));
            }
            let loaded = self.load(catalog, mem, &records, start);
            if is_copy && let Some(loaded) = &mut self.loaded {
                loaded.boot = 0;
            }
            if loaded && let Some(step) = self.take_loaded() {
                return step;
            }
            if comes_again && let Some(place) = &mut self.place {
                place.walker.next(s, mem.frame); // it cannot be decoded: go on behind it
            }
        }
    }

    /// Holds records that were adopted and are still to come. What an origin repeats was adopted, wherever it stood.
    fn is_wanted(&self, catalog: &Catalog<'_>, place: &Place, frame: &Frame, records: &Frame) -> bool {
        let state = catalog.pool.get(place.segment).state;
        let adopted_here = records.first_seq >= state.first_seq && records.last_seq() <= state.last_seq;
        records.last_seq() >= self.next && (adopted_here || frame.kind == FrameKind::Origin)
    }

    /// What a frame without records of its own tells, unless it stands in front of records before the range. An origin
    /// whose sync failed stands twice, and is one boot.
    fn event(&mut self, frame: &Frame, payload: &[u8]) -> Option<Event> {
        let from = self.options.from;
        match frame.kind {
            FrameKind::Origin => {
                let (origin, _) = Origin::read(payload).filter(|(origin, _)| origin.epoch > self.boot)?;
                self.boot = origin.epoch;
                (origin.first_seq >= from).then_some(Event::Boot(origin))
            }
            FrameKind::Close => Close::read(payload).filter(|close| close.next_seq >= from).map(Event::Close),
            FrameKind::Rows | FrameKind::RowGroup | FrameKind::Index | FrameKind::Edit => None,
        }
    }

    /// Behind the last record there may be boots and a close frame.
    pub(super) fn closing_events<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
    ) -> Step {
        if self.closed || self.options.reverse || self.end < catalog.durable_upto {
            return Step::End;
        }
        if self.place.is_none() && self.next > self.end && self.loaded.is_none() {
            let before = self.next.saturating_sub(1);
            self.place = Self::open_place(s, catalog, mem.frame, first_segment(catalog, self.next), before);
        }
        while let Some(mut place) = self.place.take().and_then(|place| place.still(catalog)) {
            match place.walker.next(s, mem.frame) {
                None => {
                    self.place = Self::open_place(s, catalog, mem.frame, place.index.saturating_add(1), 0);
                    if self.place.is_none() {
                        self.closed = true;
                    }
                }
                Some(Found::Frame { frame, payload, .. }) => {
                    self.place = Some(place);
                    if let Some(event) = self.event(&frame, payload) {
                        return Step::Event(event);
                    }
                }
                Some(_) => self.place = Some(place),
            }
        }
        Step::End
    }
}

/// Where to begin looking for `seq`: boots that stored nothing come before the record that follows them, and the last
/// of them may stand at the end of the segment before.
fn first_segment(catalog: &Catalog<'_>, seq: u64) -> usize {
    let state = |index: usize| catalog.pool.order().get(index).map(|s| catalog.pool.get(*s).state);
    let mut index = catalog.pool.locate(seq);
    while let Some(before) = index.checked_sub(1)
        && state(index).is_some_and(|s| s.first_seq >= seq)
        && let Some(earlier) = state(before)
        && (earlier.last_seq < earlier.first_seq || earlier.holds_boot)
    {
        index = before;
    }
    index
}
