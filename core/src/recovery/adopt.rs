//! The decision table: which frame is adopted, taken back, or void.
//!
//! Invariants: `next` is one more than the last number adopted; everything below it is adopted, in a gap, or below the
//! floor; what a mark takes back leaves no trace.

use super::Cases;
use crate::catalog::Catalog;
use crate::format::events::{Close, FrameCopy, Origin};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::row::Prefix;
use crate::gaps::{Gap, GapCause};

/// The end of the last segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tail {
    pub(super) segment: u32,
    pub(super) at: u32,
    pub(super) dirty: bool,
    pub(super) bad: bool,
    pub(super) claimed: bool,
}

#[derive(Debug, Clone, Copy)]
struct OpenChain {
    first: u64,
    last: u64,
    part: u16,
    epoch: u32,
}

/// Numbers [from, to) that no adopted frame holds.
#[derive(Debug, Clone, Copy)]
struct Missing {
    from: u64,
    to: u64,
    /// A hole that is accounted for; else it is torn or rotten.
    known: bool,
    /// Accounted for by an origin or header, and not yet by the ledger.
    declared: bool,
}

impl Missing {
    fn report(&self, catalog: &mut Catalog<'_>) {
        let last = self.to.saturating_sub(1);
        match (self.known, self.declared) {
            (true, false) => {} // the ledger has it
            (true, true) => catalog.gaps.add(Gap::new(self.from, last, false, GapCause::RamTier)),
            (false, _) => catalog.gaps.add(Gap::new(self.from, last, true, GapCause::Rot)),
        }
    }
}

/// The state of adoption.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) next: u64,
    pub(super) durable_upto: u64,
    pub(super) epoch: u32,
    /// Of the boot that wrote last, for compact frames behind a lost header.
    pub(super) volatile_bound: u32,
    pub(super) stopped: bool,
    chain: Option<OpenChain>,
    /// Declared holes [from, to) at or above `next`, in order.
    pub(super) holes: heapless::Vec<(u64, u64), 8>,
    pub(super) tail: Tail,
    pub(super) closed: Option<Close>,
    pub(super) last_frame: Option<(u32, u32, Frame)>,
    /// Highest number of adopted records plus the bound of their frame.
    pub(super) handed_out: u64,
    pub(super) torn_bytes: u32,
    pub(super) any: bool,
}

impl Replay {
    pub(super) fn new(next: u64, durable_upto: u64) -> Self {
        Self {
            next,
            durable_upto,
            epoch: 0,
            volatile_bound: 0,
            stopped: false,
            chain: None,
            holes: heapless::Vec::new(),
            tail: Tail::default(),
            closed: None,
            last_frame: None,
            handed_out: 0,
            torn_bytes: 0,
            any: false,
        }
    }

    /// Takes back everything adopted at or above `from`.
    fn take_back(&mut self, catalog: &mut Catalog<'_>, from: u64) {
        catalog.pool.truncate(from);
        catalog.gaps.truncate(from);
        self.next = self.next.min(from);
        self.handed_out = self.handed_out.min(from.saturating_sub(1));
        if self.last_frame.is_some_and(|(_, _, f)| f.first_seq >= from || f.last_seq() >= from) {
            self.last_frame = None;
        }
        if self.chain.is_some_and(|c| c.first >= from || c.last >= from) {
            self.chain = None;
        }
    }

    /// @A and @B: a header or an origin.
    pub(super) fn mark(&mut self, catalog: &mut Catalog<'_>, void_from: u64, first_seq: u64, cases: &mut Cases) {
        (self.stopped, self.closed, self.any) = (false, None, true);
        if void_from < self.next {
            cases.visit(b'B');
            self.tail.dirty = true;
            self.take_back(catalog, void_from.max(catalog.log_floor()));
        } else {
            cases.visit(b'A');
        }
        self.holes.retain(|hole| hole.0 < void_from);
        if let Some(last) = self.holes.last_mut() {
            last.1 = last.1.min(void_from);
        }
        if first_seq > void_from {
            if self.holes.is_full() {
                // More boots without a record than any log shows; the last hole takes this one in, "at most".
                if let Some(last) = self.holes.last_mut() {
                    last.1 = first_seq;
                }
            } else {
                self.holes.push((void_from, first_seq)).ok();
            }
        }
    }

    pub(super) fn frame(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        self.any = true;
        match frame.kind {
            FrameKind::Origin => {
                let Some((origin, copy)) = Origin::read(payload) else { return };
                if let Some(entry) = catalog.pool.entry_mut(segment) {
                    entry.state.holds_boot = true;
                }
                if let Some(copy) = copy {
                    self.copy(catalog, segment, at, frame, &copy, cases);
                }
                self.drop_chain(catalog);
                self.mark(catalog, origin.void_from, origin.first_seq, cases);
            }
            FrameKind::Close => self.closed = Close::read(payload),
            FrameKind::Index | FrameKind::Edit => self.closed = None,
            FrameKind::Rows | FrameKind::RowGroup => {
                self.closed = None;
                self.records(catalog, segment, at, frame, payload, cases);
            }
        }
    }

    /// @N: takes the copy of the last frame in an origin for the frame itself, if that is missing.
    fn copy(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        origin: &Frame,
        copy: &FrameCopy<'_>,
        cases: &mut Cases,
    ) {
        let epoch = self.chain.map_or(origin.epoch, |chain| chain.epoch);
        let copied = Frame { epoch, ..copy.frame(origin) };
        if copied.last_seq() >= self.next || (copied.count == 0 && copied.first_seq == self.next) {
            cases.visit(b'N');
            let dirty = self.tail.dirty;
            self.records(catalog, segment, at, &copied, copy.payload, cases);
            self.tail.dirty = dirty;
        }
    }

    fn drop_chain(&mut self, catalog: &mut Catalog<'_>) {
        if let Some(chain) = self.chain.take() {
            self.take_back(catalog, chain.first);
        }
    }

    fn records(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        if frame.count > 0 && frame.last_seq() < catalog.log_floor() {
            cases.visit(b'E');
            return;
        }
        if self.stopped {
            self.tail.dirty = true;
            return;
        }
        if !frame.flags.has(FrameFlags::FIRST) {
            return self.middle_of_chain(catalog, segment, at, frame, payload, cases);
        }
        self.drop_chain(catalog);
        if frame.first_seq < self.next {
            cases.visit(b'G');
            self.tail.dirty = true;
            if frame.count == 0 {
                return;
            }
            self.take_back(catalog, frame.first_seq.max(catalog.log_floor()));
        }
        if frame.first_seq > self.next && !self.bridge(catalog, frame.first_seq, cases) {
            cases.visit(b'J');
            (self.stopped, self.tail.dirty) = (true, true);
            return;
        }
        cases.visit(b'F');
        if frame.flags.is_part() {
            let Some((first, last)) = Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch) else { return };
            self.chain = Some(OpenChain { first, last, part: 1, epoch: frame.epoch });
        }
        self.adopt(catalog, segment, at, frame);
    }

    /// @K and @L.
    fn middle_of_chain(
        &mut self,
        catalog: &mut Catalog<'_>,
        segment: u32,
        at: u32,
        frame: &Frame,
        payload: &[u8],
        cases: &mut Cases,
    ) {
        let batch = Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch);
        let goes_on = self.chain.filter(|c| {
            c.part == frame.part
                && c.epoch == frame.epoch
                && frame.first_seq == self.next
                && batch == Some((c.first, c.last))
        });
        let Some(mut chain) = goes_on else {
            cases.visit(b'L');
            self.drop_chain(catalog);
            // Not proven durable: whatever follows was not adopted by anyone either.
            if batch.is_none_or(|(_, last)| last > self.durable_upto) && frame.first_seq >= catalog.log_floor() {
                (self.stopped, self.tail.dirty) = (true, true);
            }
            return;
        };
        cases.visit(b'K');
        chain.part = chain.part.saturating_add(1);
        self.chain = (!frame.flags.has(FrameFlags::LAST)).then_some(chain);
        self.adopt(catalog, segment, at, frame);
    }

    /// @F: the frame's records follow on `next`.
    fn adopt(&mut self, catalog: &mut Catalog<'_>, segment: u32, at: u32, frame: &Frame) {
        let last = frame.last_seq();
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            let state = &mut entry.state;
            if state.last_seq < state.first_seq {
                state.first_seq = frame.first_seq.max(state.first_seq);
            }
            state.last_seq = state.last_seq.max(last);
            let batch_end = self.chain.map_or(last, |c| c.last);
            state.chain_tail = u32::try_from(batch_end.saturating_sub(last)).unwrap_or(u32::MAX);
        }
        self.next = self.next.max(last.saturating_add(1));
        self.handed_out = self.handed_out.max(last.saturating_add(u64::from(frame.volatile_bound)));
        self.last_frame = Some((segment, at, *frame));
    }

    /// @H and @I: decides on the numbers from `next` up to `first`; `false` if one of them is neither known as a hole
    /// nor proven durable.
    fn bridge(&mut self, catalog: &mut Catalog<'_>, first: u64, cases: &mut Cases) -> bool {
        let mut from = self.next;
        while let Some(piece) = self.missing(catalog, from, first) {
            if !piece.known && self.durable_upto < piece.to.saturating_sub(1) {
                return false;
            }
            from = piece.to;
        }
        self.report_missing(catalog, first, cases);
        true
    }

    /// The first piece of the numbers `from..to`. A hole is known if an origin or header met before declares it, or if
    /// the manifest's ledger has it: the origin may stand in a sealed segment, which is not read (F5).
    fn missing(&self, catalog: &Catalog<'_>, from: u64, to: u64) -> Option<Missing> {
        if from >= to {
            return None;
        }
        let gap = catalog.gaps.first_in(from, to.saturating_sub(1));
        let in_ledger = gap.filter(|gap| gap.first_seq <= from).map(|gap| gap.last_seq.saturating_add(1));
        let declared = self.holes.iter().filter(|h| h.0 <= from && from < h.1).map(|h| h.1).max();
        if let Some(end) = in_ledger.or(declared) {
            return Some(Missing { from, to: end.min(to), known: true, declared: in_ledger.is_none() });
        }
        let next_hole = self.holes.iter().map(|h| h.0).filter(|start| *start > from).min();
        let next_known = next_hole.into_iter().chain(gap.map(|gap| gap.first_seq)).min();
        Some(Missing { from, to: next_known.unwrap_or(to).min(to), known: false, declared: false })
    }

    fn report_missing(&self, catalog: &mut Catalog<'_>, to: u64, cases: &mut Cases) {
        let mut from = self.next;
        while let Some(piece) = self.missing(catalog, from, to) {
            from = piece.to;
            cases.visit(if piece.known { b'H' } else { b'I' });
            piece.report(catalog);
        }
    }

    /// @O and @P: what remains once everything was read.
    pub(super) fn finish(&mut self, catalog: &mut Catalog<'_>, cases: &mut Cases, rebuilt: bool) {
        if self.chain.is_some() {
            cases.visit(b'P');
            self.tail.dirty = true;
            self.drop_chain(catalog);
        }
        let adopted = self.next.saturating_sub(1);
        let holes_end = self.holes.iter().map(|h| h.1).max().unwrap_or(0);
        let end = self.durable_upto.saturating_add(1).max(holes_end);
        let mut from = self.next;
        while let Some(piece) = self.missing(catalog, from, end) {
            from = piece.to;
            if piece.known {
                piece.report(catalog);
            } else if piece.from <= self.durable_upto {
                cases.visit(b'O');
                Missing { to: piece.to.min(self.durable_upto.saturating_add(1)), ..piece }.report(catalog);
            }
        }
        let tail_generation = catalog.pool.get(self.tail.segment).state.generation;
        self.tail.dirty |= self.tail.claimed || self.stopped || rebuilt || tail_generation <= catalog.head.void_gen;
        self.durable_upto = self.durable_upto.max(adopted);
        if rebuilt {
            catalog.gaps.add(Gap::new(catalog.floor(), 0, false, GapCause::LedgerLost));
        }
    }
}
