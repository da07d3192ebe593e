//! Both copies of the manifest.
//!
//! Invariant: a copy that lacks the last edit is called damaged only if that edit is proven to have been in it.
//! - The writer goes on after an edit only once both copies are synced, so whatever its boot wrote knowing of the edit
//!   proves that both had it ([`Proof::known`]).
//! - Since then a copy may have been begun anew for the next edit, and cut: its header then names the last edit, or is
//!   torn itself. A clean stop since rules that out ([`Proof::settled`]).
//! - An edit behind a bad range proves what stands before it.

use super::{Finding, Part, Place};
use crate::catalog::Catalog;
use crate::format::frame::{Expected, Frame, FrameFlags, FrameKind};
use crate::format::header::SegmentKind;
use crate::hal::ReadStorage;
use crate::recovery::read_header;
use crate::walk::{Found, Walker};

/// What the log says of the newest edit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proof {
    /// Its own boot wrote on, knowing of it.
    pub(super) known: bool,
    /// And every boot since has ended cleanly.
    pub(super) settled: bool,
}

/// One copy.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    segment: u32,
    /// The edit before the one it was begun for; `None` if the header is not whole.
    begun_after: Option<u64>,
    /// Number and boot epoch of the last edit in an unbroken row; 0 if the body is not whole.
    edit_no: u64,
    epoch: u32,
    body_parts: u16,
    complete: bool,
    /// Where the row breaks off, and the first whole frame behind it.
    broken: Option<(u32, u32)>,
    /// An edit stands behind the break: it was written when what is broken was synced.
    edit_behind: bool,
}

/// Both copies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots([Slot; 2]);

impl Slots {
    pub(super) fn read<R: ReadStorage>(s: &mut R, catalog: &Catalog<'_>, buf: &mut [u8]) -> Self {
        Self(catalog.pool.manifest_slots().map(|segment| Slot::read(s, catalog, segment, buf)))
    }

    /// Number and epoch of the newest edit that is whole in a copy.
    pub(super) fn newest(&self) -> (u64, u32) {
        let [a, b] = self.0;
        (a.edit_no, a.epoch).max((b.edit_no, b.epoch))
    }

    /// Reports what lacks.
    pub(super) fn judge(&self, catalog: &Catalog<'_>, proof: Proof, found: &mut dyn FnMut(Finding)) {
        let newest = self.newest().0;
        let both_lack = newest < catalog.edit_no();
        for slot in &self.0 {
            if slot.complete && slot.edit_no >= catalog.edit_no() && !slot.edit_behind {
                continue;
            }
            let (offset, end) = slot.broken.unwrap_or_default();
            let bytes = end.saturating_sub(offset);
            let place = Place { segment: slot.segment, offset, bytes, unreadable: false };
            let held_it = slot.complete || slot.begun_after.is_some_and(|edit_no| edit_no < newest);
            if both_lack || slot.edit_behind || proof.settled || (proof.known && held_it) {
                let part = if slot.begun_after.is_none() { Part::Header } else { Part::Edit };
                found(Finding::Damaged { place, part, first_seq: 1, last_seq: 0 });
            } else {
                found(Finding::EditUnfinished { place });
            }
        }
    }
}

impl Slot {
    fn read<R: ReadStorage>(s: &mut R, catalog: &Catalog<'_>, segment: u32, buf: &mut [u8]) -> Self {
        let mut slot = Self { segment, ..Self::default() };
        let header = read_header(s, &catalog.geometry, segment, buf)
            .filter(|h| h.kind == SegmentKind::Manifest && h.store_id == catalog.store_id);
        let Some(header) = header else {
            slot.broken = Some((0, catalog.data_start()));
            return slot;
        };
        slot.begun_after = Some(header.edit_no);
        let want = Expected::default();
        let read_unit = catalog.geometry.read_unit;
        let mut walker = Walker::new(catalog.layout, header.life(), read_unit, header.data_start(), want);
        loop {
            let at = walker.at;
            match walker.next(s, buf) {
                None => break,
                Some(Found::Frame { at, frame, .. }) => slot.take(at, &frame),
                Some(Found::Bad { .. } | Found::TooLarge { .. }) => slot.broken = slot.broken.or(Some((at, at))),
                Some(Found::Blank) => {}
            }
        }
        slot.broken = slot.broken.or(Some((walker.at, walker.at)));
        slot
    }

    fn take(&mut self, at: u32, frame: &Frame) {
        let is_edit = frame.kind == FrameKind::Edit;
        let is_body = frame.flags.has(FrameFlags::BODY);
        if let Some((offset, end)) = self.broken {
            // Parts of a body are synced together, so one of them proves nothing of those before it.
            self.edit_behind |= is_edit && !is_body;
            self.broken = Some((offset, if end == offset { at } else { end }));
            return;
        }
        let goes_on = match (is_edit, is_body) {
            (false, _) => false,
            (true, true) => !self.complete && frame.part == self.body_parts,
            (true, false) => self.complete && frame.first_seq.saturating_sub(self.edit_no) <= 1,
        };
        if !goes_on {
            self.broken = Some((at, at));
            return;
        }
        self.epoch = frame.epoch;
        if is_body {
            self.body_parts = self.body_parts.saturating_add(1);
            self.complete = frame.flags.has(FrameFlags::LAST);
        }
        self.edit_no = if self.complete { frame.first_seq } else { 0 };
    }
}
