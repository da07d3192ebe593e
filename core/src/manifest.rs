//! The manifest: what the segments hold, in two slots that both carry every edit.
//!
//! Invariants:
//! - an edit is published when its first copy is synced; what it frees is used again only after both copies are (F7);
//! - a slot is rolled (new header, whole body) only while the other one holds every synced edit;
//! - a slot's header is synced before its body, and every roll takes a fresh generation (F8);
//! - if the first copy cannot be synced, nothing was published and the store turns read-only (F12); if only the second
//!   cannot, that slot is marked to be rolled.

use crate::catalog::Catalog;
use crate::error::{Doing, MediumError};
use crate::format::crc::{Crc32c, Life};
use crate::format::edit::{EditHead, Op, content_bytes};
use crate::format::frame::{Expected, Frame, FrameFlags, FrameKind};
use crate::format::header::{SegmentHeader, SegmentKind};
use crate::format::row::ItemWriter;
use crate::hal::{ReadStorage, Storage};
use crate::wal::WriteError;
use crate::walk::{Found, Walker};

/// One of the two slots, as the writer sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    generation: u64,
    /// Where the next edit goes.
    at: u32,
    /// It does not hold every edit, or something bad stands where the next edit would go.
    roll: bool,
}

/// The writer of the manifest.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manifest {
    slots: [Slot; 2],
    current: usize,
    /// The last edit that is durable for sure: what the header of a roll may prove.
    synced: u64,
}

/// What reading one slot found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SlotScan {
    /// The header, if it verifies and is ours.
    pub(crate) header: Option<SegmentHeader>,
    /// The body is complete.
    pub(crate) complete: bool,
    /// The last edit in an unbroken row.
    pub(crate) edit_no: u64,
    /// The highest edit number that any frame or the header proves.
    pub(crate) proven_edit_no: u64,
    /// Offset after the last edit in an unbroken row.
    end: u32,
    /// Something stands behind it.
    dirty: bool,
    /// Highest `durable_upto` of any frame.
    pub(crate) durable_upto: u64,
    /// Highest epoch of any frame.
    pub(crate) epoch: u32,
}

/// What is left to do for a body while its frames are read.
#[derive(Default)]
struct BodyCheck {
    parts: u16,
    sum: Option<Crc32c>,
}

impl BodyCheck {
    /// Takes the next part; `true` once the body is complete.
    fn take(&mut self, frame: &Frame, payload: &[u8], epoch_ok: bool) -> Option<bool> {
        if frame.part != self.parts || frame.flags.has(FrameFlags::FIRST) != (self.parts == 0) || !epoch_ok {
            return None;
        }
        self.parts = self.parts.checked_add(1)?;
        let mut sum = self.sum.take().unwrap_or_else(Crc32c::plain);
        if !frame.flags.has(FrameFlags::LAST) {
            sum.update(payload.get(..content_bytes(payload)?)?);
            self.sum = Some(sum);
            return Some(false);
        }
        let (_, mut ops) = EditHead::read(payload)?;
        let mut before = payload.len().checked_sub(ops.rest().len())?;
        while let Some(op) = ops.next() {
            if let Op::BodySum(want) = op {
                sum.update(payload.get(..before)?);
                return (sum.finish() == want).then_some(true);
            }
            before = payload.len().checked_sub(ops.rest().len())?;
        }
        None
    }
}

/// Reads a slot; with `apply`, also applies everything of the unbroken row to the catalog.
pub(crate) fn read_slot<S: ReadStorage>(
    s: &mut S,
    catalog: &mut Catalog<'_>,
    segment: u32,
    buf: &mut [u8],
    apply: bool,
) -> SlotScan {
    let mut scan = SlotScan::default();
    let Some(header) = crate::recovery::read_header(s, &catalog.geometry, segment, buf) else { return scan };
    if header.kind != SegmentKind::Manifest || header.store_id != catalog.store_id || header.segment != segment {
        return scan;
    }
    scan.header = Some(header);
    (scan.proven_edit_no, scan.durable_upto, scan.epoch) = (header.edit_no, header.durable_upto, header.epoch);
    let start = header.data_start();
    let want = Expected::default();
    let mut walker = Walker::new(catalog.layout, header.life(), catalog.geometry.read_unit, start, want);
    let mut body = BodyCheck::default();
    let mut broken = false;
    scan.end = start;
    while let Some(found) = walker.next(s, buf) {
        match found {
            Found::Frame { end, frame, payload, .. } if frame.kind == FrameKind::Edit => {
                scan.proven_edit_no = scan.proven_edit_no.max(frame.first_seq);
                scan.durable_upto = scan.durable_upto.max(frame.durable_upto);
                scan.epoch = scan.epoch.max(frame.epoch);
                if broken {
                    scan.dirty = true;
                    continue;
                }
                match take_edit(&mut scan, &mut body, &frame, payload) {
                    Some(true) if apply => apply_payload(catalog, payload),
                    Some(true) => {}
                    Some(false) => continue, // a repeated edit
                    None => {
                        (broken, scan.dirty) = (true, true);
                        continue;
                    }
                }
                scan.end = end;
            }
            Found::Bad { claimed, .. } => {
                broken = true;
                scan.dirty |= claimed;
            }
            Found::Blank => {}
            Found::Frame { .. } | Found::TooLarge { .. } => (broken, scan.dirty) = (true, true),
        }
    }
    scan
}

/// `Some(true)`: the frame goes on where the row stands; `Some(false)`: it only repeats; `None`: it breaks the row.
fn take_edit(scan: &mut SlotScan, body: &mut BodyCheck, frame: &Frame, payload: &[u8]) -> Option<bool> {
    if frame.flags.has(FrameFlags::BODY) {
        if scan.complete {
            return None;
        }
        let same = body.parts == 0 || scan.edit_no == frame.first_seq;
        scan.edit_no = frame.first_seq;
        scan.complete = body.take(frame, payload, same)?;
        return Some(true);
    }
    if !scan.complete {
        return None;
    }
    if frame.first_seq == scan.edit_no {
        return Some(false);
    }
    if frame.first_seq != scan.edit_no.checked_add(1)? {
        return None;
    }
    content_bytes(payload)?;
    scan.edit_no = frame.first_seq;
    Some(true)
}

fn apply_payload(catalog: &mut Catalog<'_>, payload: &[u8]) {
    let Some((head, ops)) = EditHead::read(payload) else { return };
    catalog.head = head;
    for op in ops {
        catalog.apply(&op);
    }
}

impl Manifest {
    /// Goes on with the slots that recovery read. `all` forces both to be rolled (a new store, or a rebuild).
    pub(crate) fn resume(scans: &[SlotScan; 2], edit_no: u64, all: bool) -> Self {
        let slots = scans.map(|scan| Slot {
            generation: scan.header.map_or(0, |h| h.generation),
            at: scan.end,
            roll: all || scan.dirty || !scan.complete || scan.edit_no != edit_no,
        });
        // What only one of them knows must outlast the roll of the other.
        let knows = |scan: &SlotScan| (scan.complete, scan.edit_no, scan.header.map_or(0, |h| h.generation));
        let newer = knows(&scans[1]) >= knows(&scans[0]);
        let current = usize::from(if all { newer } else { slots[0].roll && !slots[1].roll });
        Self { slots, current, synced: edit_no }
    }

    /// On a compact medium, after an unclean stop: the words behind the last edit, or its own last ones, may be
    /// metastable. Both slots are written anew, and until then nothing proves that edit.
    pub(crate) fn distrust_last_edit(&mut self) {
        self.synced = self.synced.saturating_sub(1);
        for slot in &mut self.slots {
            slot.roll = true;
        }
    }

    /// Publishes what the catalog marks as unpublished.
    ///
    /// # Power loss
    /// Until the first copy is synced the edit may or may not be there; afterwards it is.
    ///
    /// # Errors
    /// The first copy could not be made durable: nothing was published, and nothing may be written any more.
    pub(crate) fn publish<S: Storage>(
        &mut self,
        s: &mut S,
        catalog: &mut Catalog<'_>,
        buf: &mut [u8],
    ) -> Result<(), WriteError<S::Error>> {
        let before = catalog.head.edit_no;
        catalog.head.edit_no = before.saturating_add(1);
        let edit = Self::encode(catalog, buf, None);
        let needs_roll = |slot: &Slot| {
            slot.roll
                || edit.is_none_or(|bytes| {
                    slot.at.saturating_add(catalog.layout.frame_bytes(bytes)) > catalog.layout.data_end()
                })
        };
        let roll = [needs_roll(&self.slots[0]), needs_roll(&self.slots[1])];
        // Roll the other slot first: the current one holds every synced edit until then.
        let current_rolls = if self.current == 0 { roll[0] } else { roll[1] };
        let first = if current_rolls { 1 - self.current } else { self.current };
        for (nth, i) in [first, 1 - first].into_iter().enumerate() {
            let rolls = if i == 0 { roll[0] } else { roll[1] };
            let done = if rolls { self.roll(s, catalog, buf, i) } else { self.append(s, catalog, buf, i) };
            match done {
                Ok(()) if nth == 0 => {
                    (self.current, self.synced) = (i, catalog.head.edit_no);
                    catalog.published_floor = catalog.floor;
                }
                Ok(()) => {}
                Err(e) => {
                    if let Some(slot) = self.slots.get_mut(i) {
                        slot.roll = true;
                    }
                    if nth == 0 {
                        catalog.head.edit_no = before;
                        return Err(e);
                    }
                }
            }
        }
        catalog.all_published();
        Ok(())
    }

    /// Both slots hold every edit.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.slots.iter().all(|s| !s.roll)
    }

    /// Writes the payload of an edit (`skip` = `None`) or of one part of a body, whose first `skip` operations are
    /// written already, to where it stands in a frame. Returns its length.
    fn encode(catalog: &Catalog<'_>, buf: &mut [u8], part: Option<&mut BodyPart>) -> Option<u32> {
        let flags = if part.is_some() { FrameFlags::BODY } else { FrameFlags::WHOLE };
        let at = usize::try_from(catalog.layout.payload_at(flags)).ok()?;
        // Leave room for what ends the frame.
        let room = u32::try_from(buf.len()).unwrap_or(u32::MAX).min(catalog.data_room());
        let end = usize::try_from(catalog.layout.payload_max(room)).ok()?;
        let mut w = ItemWriter::new(buf.get_mut(at..at.checked_add(end)?)?);
        catalog.head.write(&mut w)?;
        let Some(part) = part else {
            catalog.ops(false).try_for_each(|op| w.value(&op))?;
            return u32::try_from(w.len()).ok();
        };
        let mut all = true;
        for op in catalog.ops(true).skip(part.skip) {
            if w.len().saturating_add(OP_BYTES_MARGIN) > end || w.value(&op).is_none() {
                all = false;
                break;
            }
            part.skip = part.skip.saturating_add(1);
        }
        part.done = all;
        let len = w.len();
        let mut sum = part.sum.take().unwrap_or_else(Crc32c::plain);
        sum.update(buf.get(at..at.checked_add(len)?)?);
        if !all {
            part.sum = Some(sum);
            return u32::try_from(len).ok();
        }
        let mut w = ItemWriter::new(buf.get_mut(at.checked_add(len)?..)?);
        w.value(&Op::BodySum(sum.finish()))?;
        u32::try_from(len.checked_add(w.len())?).ok()
    }

    fn append<S: Storage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        buf: &mut [u8],
        i: usize,
    ) -> Result<(), WriteError<S::Error>> {
        let segment = if i == 0 { catalog.pool.manifest_slots()[0] } else { catalog.pool.manifest_slots()[1] };
        let Some(slot) = self.slots.get_mut(i) else { return Ok(()) };
        let payload_bytes = Self::encode(catalog, buf, None).ok_or(WriteError::Misfit)?;
        let frame = frame_of(catalog, FrameFlags::WHOLE, 0, payload_bytes);
        slot.at = write_frame(s, catalog, buf, segment, slot.generation, slot.at, &frame)?;
        let failed = |source| MediumError { doing: Doing::Sync, segment, offset: slot.at, source };
        Ok(s.sync().map_err(failed)?)
    }

    fn roll<S: Storage>(
        &mut self,
        s: &mut S,
        catalog: &mut Catalog<'_>,
        buf: &mut [u8],
        i: usize,
    ) -> Result<(), WriteError<S::Error>> {
        let segment = if i == 0 { catalog.pool.manifest_slots()[0] } else { catalog.pool.manifest_slots()[1] };
        let generation = catalog.head.next_generation;
        catalog.head.next_generation = generation.saturating_add(1);
        let failed = |doing, offset| move |source| MediumError { doing, segment, offset, source };
        s.erase(segment).map_err(failed(Doing::Erase, 0))?;
        if let Some(entry) = catalog.pool.entry_mut(segment) {
            entry.state.erase_count = entry.state.erase_count.saturating_add(1);
        }
        let mut header = catalog.header(SegmentKind::Manifest, segment, generation);
        (header.edit_no, header.floor_seq) = (self.synced, catalog.published_floor);
        let mut at = crate::wal::write_header(s, &catalog.geometry, &header, buf)?;
        s.sync().map_err(failed(Doing::Sync, 0))?;
        let mut part = BodyPart::default();
        let mut number = 0u16;
        while !part.done {
            let before = part.skip;
            let payload_bytes = Self::encode(catalog, buf, Some(&mut part)).ok_or(WriteError::Misfit)?;
            let mut flags = FrameFlags::BODY;
            flags = if number == 0 { flags.with(FrameFlags::FIRST) } else { flags };
            flags = if part.done { flags.with(FrameFlags::LAST) } else { flags };
            let frame = frame_of(catalog, flags, number, payload_bytes);
            at = write_frame(s, catalog, buf, segment, generation, at, &frame)?;
            number = number.saturating_add(1);
            if part.skip == before && !part.done {
                return Err(WriteError::Misfit); // an operation larger than a frame
            }
        }
        s.sync().map_err(failed(Doing::Sync, at))?;
        if let Some(slot) = self.slots.get_mut(i) {
            *slot = Slot { generation, at, roll: false };
        }
        Ok(())
    }
}

/// Room that is kept for the operation that ends a body.
const OP_BYTES_MARGIN: usize = 16;

#[derive(Default)]
struct BodyPart {
    skip: usize,
    done: bool,
    sum: Option<Crc32c>,
}

fn frame_of(catalog: &Catalog<'_>, flags: FrameFlags, part: u16, payload_bytes: u32) -> Frame {
    Frame {
        kind: FrameKind::Edit,
        flags,
        part,
        payload_bytes,
        first_seq: catalog.head.edit_no,
        count: 0,
        epoch: catalog.head.epoch,
        durable_upto: catalog.durable_upto,
        volatile_bound: 0,
    }
}

/// Seals the frame whose payload stands in `buf` and writes it; returns the offset after it.
fn write_frame<S: Storage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    buf: &mut [u8],
    segment: u32,
    generation: u64,
    at: u32,
    frame: &Frame,
) -> Result<u32, WriteError<S::Error>> {
    let life = Life { store_id: catalog.store_id, segment, generation };
    crate::wal::write_sealed(s, &catalog.layout, buf, &life, at, frame)
}
