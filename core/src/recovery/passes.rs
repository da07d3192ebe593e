//! The three passes over the segments that are not sealed.
//!
//! Invariants: each pass meets the same frames in the same order; only the second decides, and the third applies the
//! items of exactly what the second adopted.

use super::adopt::{Replay, Tail};
use super::identify::{has_frames, legible_generation};
use super::{Cases, open_segment, read_header};
use crate::catalog::Catalog;
use crate::error::MemoryError;
use crate::format::edit::SegmentUse;
use crate::format::events::{Close, Origin};
use crate::format::frame::{Expected, Frame, FrameKind};
use crate::format::header::{SegmentHeader, SegmentKind};
use crate::format::row::{Item, Prefix};
use crate::hal::ReadStorage;
use crate::manifest::SlotScan;
use crate::scan::chain_is_whole;
use crate::walk::Found;

/// What anything valid proves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evidence {
    pub(super) epoch: u32,
    pub(super) durable_upto: u64,
    pub(super) edit_no: u64,
    pub(super) generation: u64,
    /// Highest number that may have been handed out.
    pub(super) handed_out: u64,
    /// Highest `first_seq` of an origin or header.
    pub(super) first_seq: u64,
}

impl Evidence {
    pub(super) fn of_slots(slots: &[SlotScan; 2]) -> Self {
        let mut e = Self::default();
        for slot in slots {
            e.epoch = e.epoch.max(slot.epoch);
            e.durable_upto = e.durable_upto.max(slot.durable_upto);
            e.edit_no = e.edit_no.max(slot.proven_edit_no.max(slot.edit_no));
            e.generation = e.generation.max(slot.header.map_or(0, |h| h.generation));
        }
        e
    }

    fn take_header(&mut self, h: &SegmentHeader) {
        self.epoch = self.epoch.max(h.epoch);
        self.durable_upto = self.durable_upto.max(h.durable_upto);
        self.edit_no = self.edit_no.max(h.edit_no);
        self.generation = self.generation.max(h.generation);
        self.first_seq = self.first_seq.max(h.first_seq);
        self.handed_out = self.handed_out.max(h.durable_upto.saturating_add(u64::from(h.volatile_bound)));
    }

    fn take_frame(&mut self, frame: &Frame, payload: &[u8]) {
        self.epoch = self.epoch.max(frame.epoch);
        self.durable_upto = self.durable_upto.max(frame.durable_upto);
        let bound = u64::from(frame.volatile_bound);
        self.handed_out = self.handed_out.max(frame.durable_upto.saturating_add(bound));
        match frame.kind {
            FrameKind::Origin => {
                if let Some((origin, _)) = Origin::read(payload) {
                    self.edit_no = self.edit_no.max(origin.edit_no);
                    self.first_seq = self.first_seq.max(origin.first_seq);
                    let handed_out = origin.first_seq.saturating_sub(1).saturating_add(bound);
                    self.handed_out = self.handed_out.max(handed_out);
                }
            }
            FrameKind::Close => {
                if let Some(close) = Close::read(payload) {
                    self.edit_no = self.edit_no.max(close.edit_no);
                    self.first_seq = self.first_seq.max(close.next_seq);
                }
            }
            _ => {}
        }
    }
}

/// The three passes, with what they share.
pub(super) struct Pass<'p, 'b, S> {
    pub(super) s: &'p mut S,
    pub(super) buf: &'b mut [u8],
    pub(super) progress: &'p mut dyn FnMut(u32, u32),
    pub(super) cases: &'p mut Cases,
    pub(super) segments_read: u32,
    pub(super) frames: u32,
}

impl<S: ReadStorage> Pass<'_, '_, S> {
    /// Pass 1.
    ///
    /// # Errors
    /// A frame is larger than the caller's buffer: nothing may be decided without it.
    pub(super) fn evidence(
        &mut self,
        catalog: &Catalog<'_>,
        from: usize,
        evidence: &mut Evidence,
    ) -> Result<(), MemoryError> {
        // Where a header is lost, compact frames are inferred from the segment before.
        let mut carry = Expected { seq: sealed_upto(catalog, from).saturating_add(1), ..Expected::default() };
        for (i, segment) in catalog.pool.order().iter().copied().enumerate().skip(from) {
            (self.progress)(u32::try_from(i).unwrap_or(0), u32::try_from(catalog.pool.order().len()).unwrap_or(0));
            let (header, mut walker) = open_segment(self.s, catalog, segment, carry, self.buf);
            if let Some(h) = &header {
                evidence.take_header(h);
            }
            let mut epoch = header.map_or(0, |h| h.epoch);
            while let Some(found) = walker.next(self.s, self.buf) {
                match found {
                    Found::Frame { frame, payload, .. } if frame.epoch >= epoch => {
                        epoch = frame.epoch;
                        evidence.take_frame(&frame, payload);
                    }
                    Found::TooLarge { bytes } => {
                        let need = usize::try_from(bytes).unwrap_or(usize::MAX);
                        return Err(MemoryError { name: "frame", have: self.buf.len(), need });
                    }
                    _ => {}
                }
            }
            carry = walker.want;
            self.take_trailer(catalog, segment, evidence);
        }
        Ok(())
    }

    fn take_trailer(&mut self, catalog: &Catalog<'_>, segment: u32, evidence: &mut Evidence) {
        if let Some(trailer) = crate::wal::read_trailer(self.s, catalog, segment, self.buf) {
            evidence.durable_upto = evidence.durable_upto.max(trailer.durable_upto);
        }
    }

    /// For a rebuild: every segment with a header of this store, or that a valid edit speaks of, by generation.
    pub(super) fn list_all(&mut self, catalog: &mut Catalog<'_>, evidence: &mut Evidence) {
        let slots = catalog.pool.manifest_slots();
        for segment in 0..catalog.geometry.segments {
            let header = read_header(self.s, &catalog.geometry, segment, self.buf);
            let Some(h) = header.filter(|h| h.store_id == catalog.store_id) else { continue };
            evidence.take_header(&h);
            for (floor, known) in catalog.floor.iter_mut().zip(h.floor_seq) {
                *floor = (*floor).max(known);
            }
            if h.kind == SegmentKind::Table && !slots.contains(&segment) {
                self.list_table(catalog, &h);
                continue;
            }
            let Some(entry) = catalog.pool.entry_mut(segment) else { continue };
            if slots.contains(&segment) || h.kind != SegmentKind::Log || h.generation < entry.state.generation {
                continue;
            }
            entry.state.used_for = SegmentUse::Announced;
            entry.state.generation = h.generation;
            entry.state.erase_count = entry.state.erase_count.max(h.erase_count);
            entry.begun = true;
        }
        for segment in 0..catalog.geometry.segments {
            self.list_by_frames(catalog, segment, evidence);
            let Some(entry) = catalog.pool.entry_mut(segment) else { continue };
            entry.dirty = true;
            entry.begun |= matches!(entry.state.used_for, SegmentUse::Announced | SegmentUse::Sealed);
        }
        catalog.pool.sort_order(|e| e.begun);
        self.settle_overlaps(catalog);
    }

    /// Of a damaged header the generation may still be legible: if frames verify under it, it is right.
    fn list_by_frames(&mut self, catalog: &mut Catalog<'_>, segment: u32, evidence: &mut Evidence) {
        let entry = catalog.pool.get(segment);
        if entry.begun || entry.state.used_for != SegmentUse::Free {
            return;
        }
        let Some(generation) = legible_generation(self.s, catalog, segment, self.buf) else { return };
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            entry.state.generation = generation;
        }
        let carry = Expected { seq: 1, ..Expected::default() };
        let (_, mut walker) = open_segment(self.s, catalog, segment, carry, self.buf);
        let found = has_frames(self.s, &mut walker, false, self.buf);
        let Some(entry) = catalog.pool.entry_mut(segment) else { return };
        if found {
            (entry.state.used_for, entry.begun) = (SegmentUse::Announced, true);
            evidence.generation = evidence.generation.max(generation);
        } else {
            entry.state.generation = 0;
        }
    }

    /// Pass 2.
    pub(super) fn adopt(
        &mut self,
        catalog: &mut Catalog<'_>,
        from: usize,
        evidence: &Evidence,
        rebuilt: bool,
    ) -> Replay {
        let start = catalog.log_floor().max(sealed_upto(catalog, from).saturating_add(1));
        let mut replay = Replay::new(start, evidence.durable_upto);
        for i in from..catalog.pool.order().len() {
            let segment = catalog.pool.order().get(i).copied();
            if let Some(entry) = segment.and_then(|segment| catalog.pool.entry_mut(segment)) {
                // What was known of it counts no more, and must not stop what takes back from going further.
                (entry.state.first_seq, entry.state.last_seq) = (start, start.saturating_sub(1));
                entry.state.chain_tail = 0;
            }
        }
        for i in from..catalog.pool.order().len() {
            let Some(segment) = catalog.pool.order().get(i).copied() else { break };
            self.segments_read = self.segments_read.saturating_add(1);
            self.adopt_segment(catalog, segment, &mut replay);
        }
        replay.finish(catalog, self.cases, rebuilt);
        replay
    }

    fn adopt_segment(&mut self, catalog: &mut Catalog<'_>, segment: u32, replay: &mut Replay) {
        let generation = catalog.pool.get(segment).state.generation;
        let carry = Expected { seq: replay.next, epoch: replay.epoch, volatile_bound: replay.volatile_bound };
        let (header, mut walker) = open_segment(self.s, catalog, segment, carry, self.buf);
        if let Some(h) = &header {
            replay.epoch = replay.epoch.max(h.epoch);
            replay.mark(catalog, h.void_from, h.first_seq, self.cases);
        } else {
            self.cases.visit(b'C');
        }
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            entry.state.first_seq = replay.next;
            entry.state.last_seq = replay.next.saturating_sub(1);
            entry.state.chain_tail = 0;
            entry.dirty = true;
        }
        replay.tail = Tail { segment, at: walker.at, dirty: header.is_none(), bad: false, claimed: false };
        while let Some(found) = walker.next(self.s, self.buf) {
            match found {
                Found::Frame { at, end, frame, payload } => {
                    self.frames = self.frames.saturating_add(1);
                    let void = frame.epoch < replay.epoch
                        || (frame.kind.holds_records()
                            && generation <= catalog.head.void_gen
                            && frame.last_seq() >= catalog.head.void_from);
                    replay.epoch = replay.epoch.max(frame.epoch);
                    replay.tail.dirty |= replay.tail.bad || void;
                    (replay.tail.at, replay.tail.claimed) = (end, false);
                    if void {
                        self.cases.visit(b'D');
                        replay.closed = None;
                        continue;
                    }
                    replay.frame(catalog, segment, at, &frame, payload, self.cases);
                }
                Found::Bad { claimed, .. } => {
                    self.cases.visit(b'C');
                    replay.tail.bad = true;
                    replay.tail.claimed |= claimed;
                    if claimed {
                        replay.torn_bytes = replay.torn_bytes.saturating_add(walker.layout.frame_unit);
                    }
                }
                Found::Blank => {}
                Found::TooLarge { .. } => replay.tail.claimed = true,
            }
        }
        replay.volatile_bound = walker.want.volatile_bound;
    }

    /// Pass 3: names, states and clocks of what was adopted, and only of that.
    pub(super) fn apply_items(&mut self, catalog: &mut Catalog<'_>, from: usize) {
        let mut chain: Option<((u64, u64), bool)> = None;
        for i in from..catalog.pool.order().len() {
            let Some(segment) = catalog.pool.order().get(i).copied() else { break };
            let entry = catalog.pool.get(segment).state;
            let carry = Expected { seq: entry.first_seq, ..Expected::default() };
            let (header, mut walker) = open_segment(self.s, catalog, segment, carry, self.buf);
            if let Some(h) = &header {
                catalog.clocks.set(h.anchor);
            }
            let mut next = entry.first_seq;
            loop {
                let before = walker;
                let Some(found) = walker.next(self.s, self.buf) else { break };
                let Found::Frame { frame, payload, .. } = found else { continue };
                if frame.kind == FrameKind::Origin {
                    let Some((origin, copy)) = Origin::read(payload) else { continue };
                    catalog.clocks.set(origin.anchor);
                    if let Some(copy) = copy {
                        // Whether from the original or from here: it was adopted, and nothing came in between.
                        apply_frame_items(catalog, &copy.frame(&frame), copy.payload);
                    }
                    continue;
                }
                if !frame.kind.holds_records() || frame.first_seq < next || frame.last_seq() > entry.last_seq {
                    continue;
                }
                let batch = Prefix::read(payload, frame.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                if let Some(batch) = batch {
                    // What a batch brings counts only if all of it was adopted.
                    let Some((_, whole)) = chain.filter(|(known, _)| *known == batch) else {
                        chain = Some((batch, chain_is_whole(self.s, catalog, self.buf, batch)));
                        walker = before; // the look-ahead has overwritten the frame
                        continue;
                    };
                    if !whole {
                        continue;
                    }
                }
                next = frame.last_seq().saturating_add(1);
                apply_frame_items(catalog, &frame, payload);
            }
        }
        catalog.tables_dirty = true;
    }
}

/// The last number adopted from the sealed segments, which are the first `from` of the order.
fn sealed_upto(catalog: &Catalog<'_>, from: usize) -> u64 {
    let sealed = catalog.pool.order().iter().take(from);
    sealed.map(|s| catalog.pool.get(*s).state.last_seq).max().unwrap_or(0)
}

pub(super) fn apply_frame_items(catalog: &mut Catalog<'_>, frame: &Frame, payload: &[u8]) {
    let items = match frame.kind {
        FrameKind::RowGroup => crate::sstable::preamble(payload, frame.flags.is_part()),
        _ => Prefix::read(payload, frame.flags.is_part()).map(|(_, items)| items),
    };
    for item in items.into_iter().flatten() {
        match item {
            Item::Row(_) => {}
            Item::Lost(lost) => catalog.gaps.add(lost.gap(frame.first_seq)),
            Item::Stream { id, name } => {
                catalog.streams.define(id, name);
            }
            Item::State { key, value } => {
                catalog.state.set(key, value);
            }
            Item::Clock(anchor) => catalog.clocks.set(anchor),
        }
    }
}
