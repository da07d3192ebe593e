//! Forward: oldest first, with boots and clean stops at their place.
//!
//! Invariant: a gap is given out before the frame behind it is loaded.

use super::place::chain_is_whole;
use super::rows::copied_frame;
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
            let mut place = match self.place.take() {
                Some(place) if catalog.pool.get(place.segment).state.generation == place.generation => place,
                _ => match Self::open_place(s, catalog, mem, catalog.pool.locate(self.next), self.next) {
                    Some(place) => place,
                    None => return self.missing(catalog, self.next, self.end),
                },
            };
            let before = place.walker;
            let (start, frame, batch) = match place.walker.next(s, mem.frame) {
                None => {
                    match Self::open_place(s, catalog, mem, place.index.saturating_add(1), 0) {
                        Some(next) => self.place = Some(next),
                        None => return self.missing(catalog, self.next, self.end),
                    }
                    continue;
                }
                Some(Found::Bad { .. } | Found::Blank | Found::TooLarge) => {
                    self.place = Some(place);
                    continue;
                }
                Some(Found::Frame { frame, payload, .. }) => {
                    let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0);
                    if let Some(step) = self.event(catalog, &place, &frame, payload, start) {
                        if matches!(step, Some(Step::Record(_))) {
                            place.walker = before; // the origin itself is shown after the records it repeats
                        }
                        self.place = Some(place);
                        match step {
                            Some(step) => return step,
                            None => continue,
                        }
                    }
                    let batch = Prefix::read(payload, frame.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                    (start, frame, batch)
                }
            };
            if !self.is_wanted(catalog, &place, &frame) {
                self.place = Some(place);
                continue;
            }
            if let Some(batch) = batch.filter(|_| frame.flags.is_part()) {
                let known = self.chain.filter(|(b, _)| *b == batch);
                let whole = known.map_or_else(|| chain_is_whole(s, catalog, mem, batch), |(_, whole)| whole);
                self.chain = Some((batch, whole));
                if known.is_none() {
                    place.walker = before; // the look-ahead has overwritten the frame
                }
                self.place = Some(place);
                if known.is_none() || !whole {
                    continue;
                }
            }
            self.place = Some(place);
            if frame.first_seq > self.next {
                // Come back to this frame after the gap.
                let last = frame.first_seq.saturating_sub(1).min(self.end);
                let step = self.missing(catalog, self.next, last);
                if let Some(place) = &mut self.place {
                    place.walker = before;
                }
                return step;
            }
            if self.load(mem, &frame, start)
                && let Some(seq) = self.take_loaded()
            {
                return Step::Record(seq);
            }
        }
    }

    /// Frames without records; `None` if this one holds records.
    #[expect(clippy::option_option, reason = "outer: not a frame of records; inner: something to show")]
    fn event(
        &mut self,
        catalog: &Catalog<'_>,
        place: &Place,
        frame: &Frame,
        payload: &[u8],
        start: usize,
    ) -> Option<Option<Step>> {
        match frame.kind {
            FrameKind::Rows | FrameKind::RowGroup => None,
            FrameKind::Index | FrameKind::Edit => Some(None),
            FrameKind::Close => Some(Close::read(payload).map(|close| Step::Event(Event::Close(close)))),
            FrameKind::Origin => {
                let (origin, copy) = match Origin::read(payload) {
                    Some(read) => read,
                    None => return Some(None),
                };
                let state = catalog.pool.get(place.segment).state;
                if let Some(copy) = copy
                    && copy.first_seq == self.next
                    && copy.count > 0
                    && copy.last_seq() <= state.last_seq
                {
                    // The original was damaged: its copy stands in.
                    let copied = copied_frame(frame, &copy);
                    self.load_rows(copy.payload, &copied, start.saturating_add(copy.at));
                    return Some(self.take_loaded().map(Step::Record));
                }
                Some(Some(Step::Event(Event::Boot(origin))))
            }
        }
    }

    /// Holds records that were adopted from this place and are still to come.
    fn is_wanted(&self, catalog: &Catalog<'_>, place: &Place, frame: &Frame) -> bool {
        let state = catalog.pool.get(place.segment).state;
        frame.count > 0
            && frame.last_seq() >= self.next
            && frame.first_seq >= state.first_seq
            && frame.last_seq() <= state.last_seq
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
            let last = catalog.pool.order().len().saturating_sub(1);
            self.place = Self::open_place(s, catalog, mem, last, self.next);
        }
        while let Some(mut place) = self.place.take() {
            match place.walker.next(s, mem.frame) {
                None => {
                    self.place = Self::open_place(s, catalog, mem, place.index.saturating_add(1), 0);
                    if self.place.is_none() {
                        self.closed = true;
                    }
                }
                Some(Found::Frame { frame, payload, .. }) if !frame.kind.holds_records() => {
                    let event = match frame.kind {
                        FrameKind::Origin => Origin::read(payload).map(|(origin, _)| Event::Boot(origin)),
                        FrameKind::Close => Close::read(payload).map(Event::Close),
                        _ => None,
                    };
                    self.place = Some(place);
                    if let Some(event) = event {
                        return Step::Event(event);
                    }
                }
                Some(_) => self.place = Some(place),
            }
        }
        Step::End
    }
}
