//! Whose store this is, and which of its announced segments the log went into.
//!
//! Invariants: one damaged header, or one damaged manifest slot, changes neither answer.

use super::open_segment;
use crate::catalog::Catalog;
use crate::error::OpenError;
use crate::format::edit::SegmentUse;
use crate::format::frame::Expected;
use crate::format::header::{HeaderError, MAGIC, SegmentHeader, SegmentKind};
use crate::hal::{Geometry, ReadStorage};
use crate::manifest::{SlotScan, read_slot};
use crate::walk::{Found, Walker};

/// What stands where a segment's header should be.
enum HeaderFound {
    Valid(SegmentHeader),
    Newer(u8),
    Blank,
    Damaged,
    Foreign,
    Unreadable,
}

fn probe_header<S: ReadStorage>(s: &mut S, g: &Geometry, segment: u32, buf: &mut [u8]) -> HeaderFound {
    let want = g.torn_unit.max(256).min(g.segment_bytes);
    let want = want.checked_next_multiple_of(g.read_unit.max(1)).unwrap_or(want);
    let Some(into) = usize::try_from(want).ok().and_then(|n| buf.get_mut(..n)) else { return HeaderFound::Damaged };
    if s.read(g.segment_start(segment), into).is_err() {
        return HeaderFound::Unreadable;
    }
    match SegmentHeader::decode(into) {
        Ok(header) => HeaderFound::Valid(header),
        Err(HeaderError::NewerVersion { major }) => HeaderFound::Newer(major),
        Err(HeaderError::Damaged) => HeaderFound::Damaged,
        Err(HeaderError::NotOurs) if into.iter().all(|b| *b == 0) || into.iter().all(|b| *b == 0xFF) => {
            HeaderFound::Blank
        }
        // One damaged byte of the magic does not make a header foreign.
        Err(HeaderError::NotOurs) => {
            let alike = into.iter().zip(MAGIC).filter(|(a, b)| **a == *b).count();
            if alike >= 4 { HeaderFound::Damaged } else { HeaderFound::Foreign }
        }
    }
}

/// The generation that stands in a header which does not verify.
pub(super) fn legible_generation<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    segment: u32,
    buf: &mut [u8],
) -> Option<u64> {
    match probe_header(s, &catalog.geometry, segment, buf) {
        HeaderFound::Damaged => crate::format::bytes::u64_at(buf, GENERATION_AT),
        _ => None,
    }
}

/// Where the generation stands in a segment.
const GENERATION_AT: usize = 0x40 + 0x10;

/// The header of a segment, if it verifies and stands where it belongs.
pub(crate) fn read_header<S: ReadStorage>(
    s: &mut S,
    g: &Geometry,
    segment: u32,
    buf: &mut [u8],
) -> Option<SegmentHeader> {
    match probe_header(s, g, segment, buf) {
        HeaderFound::Valid(h) if h.segment == segment && same_shape(&h, g) => Some(h),
        _ => None,
    }
}

fn same_shape(h: &SegmentHeader, g: &Geometry) -> bool {
    h.segments == g.segments && h.segment_bytes == g.segment_bytes && h.torn_unit == g.torn_unit
}

/// Finds out whose store this is; reads both slots of its manifest.
pub(super) fn identify<S: ReadStorage>(
    s: &mut S,
    catalog: &mut Catalog<'_>,
    buf: &mut [u8],
) -> Result<[SlotScan; 2], OpenError> {
    let g = catalog.geometry;
    let mut best: Option<[SlotScan; 2]> = None;
    for segment in catalog.pool.manifest_slots() {
        match probe_header(s, &g, segment, buf) {
            HeaderFound::Newer(major) => return Err(OpenError::NewerVersion { major }),
            HeaderFound::Valid(h) if !same_shape(&h, &g) => {
                let (segments, segment_bytes) = (h.segments, h.segment_bytes);
                return Err(OpenError::GeometryMismatch { segments, segment_bytes });
            }
            HeaderFound::Valid(h) if h.segment == segment && h.kind == SegmentKind::Manifest => {
                catalog.store_id = h.store_id;
                let slots = catalog.pool.manifest_slots().map(|slot| read_slot(s, catalog, slot, buf, false));
                if slots.iter().any(|slot| slot.complete) {
                    return Ok(slots);
                }
                best = best.or(Some(slots));
            }
            _ => {}
        }
    }
    identify_by_log(s, catalog, buf, best)
}

/// No slot is complete: the newest segment of the log says whose store this is.
fn identify_by_log<S: ReadStorage>(
    s: &mut S,
    catalog: &mut Catalog<'_>,
    buf: &mut [u8],
    slots: Option<[SlotScan; 2]>,
) -> Result<[SlotScan; 2], OpenError> {
    let g = catalog.geometry;
    let mut newest: Option<SegmentHeader> = None;
    let (mut foreign, mut damaged, mut unreadable) = (None, None, None);
    for segment in 0..g.segments {
        match probe_header(s, &g, segment, buf) {
            HeaderFound::Newer(major) => return Err(OpenError::NewerVersion { major }),
            HeaderFound::Valid(h) if !same_shape(&h, &g) => {
                let (segments, segment_bytes) = (h.segments, h.segment_bytes);
                return Err(OpenError::GeometryMismatch { segments, segment_bytes });
            }
            HeaderFound::Valid(h) if h.kind == SegmentKind::Log && h.segment == segment => {
                if newest.is_none_or(|n| h.generation > n.generation) {
                    newest = Some(h);
                }
            }
            HeaderFound::Valid(_) | HeaderFound::Blank => {}
            // A slot may be what an unfinished format left.
            HeaderFound::Damaged if catalog.pool.manifest_slots().contains(&segment) => {}
            HeaderFound::Damaged => damaged = damaged.or(Some(segment)),
            HeaderFound::Foreign => foreign = foreign.or(Some(segment)),
            HeaderFound::Unreadable => unreadable = unreadable.or(Some(segment)),
        }
    }
    if let Some(header) = newest {
        catalog.store_id = header.store_id;
        return Ok(catalog.pool.manifest_slots().map(|slot| read_slot(s, catalog, slot, buf, false)));
    }
    // Blank is what gets formatted: nothing that could not be read, or was ours once, may be called so.
    match (unreadable, damaged, foreign) {
        (Some(segment), _, _) => Err(OpenError::Unreadable { segment }),
        (None, Some(segment), _) => Err(OpenError::NoIntactHeader { segment }),
        (None, None, Some(_)) if slots.is_none() => Err(OpenError::Foreign),
        (None, None, Some(segment)) => Err(OpenError::NoIntactHeader { segment }),
        // Headers of an unfinished format, or nothing at all: no record was ever stored here, if all the rest is blank.
        (None, None, None) => match first_not_blank(s, catalog, buf) {
            Some(segment) => Err(OpenError::NoIntactHeader { segment }),
            None => Err(OpenError::Blank),
        },
    }
}

/// The first segment but the manifest's slots that is neither all zeros nor erased.
fn first_not_blank<S: ReadStorage>(s: &mut S, catalog: &Catalog<'_>, buf: &mut [u8]) -> Option<u32> {
    let g = catalog.geometry;
    let step = u32::try_from(buf.len()).unwrap_or(u32::MAX).min(g.segment_bytes);
    let step = step.checked_div(g.torn_unit)?.checked_mul(g.torn_unit)?.max(g.torn_unit);
    (0..g.segments).filter(|segment| !catalog.pool.manifest_slots().contains(segment)).find(|segment| {
        let mut offset = 0;
        while offset < g.segment_bytes {
            let len = step.min(g.segment_bytes.saturating_sub(offset));
            let into = usize::try_from(len).ok().and_then(|n| buf.get_mut(..n)).unwrap_or_default();
            let read = s.read(g.segment_start(*segment).saturating_add(u64::from(offset)), into);
            if read.is_err() || !(into.iter().all(|b| *b == 0) || into.iter().all(|b| *b == 0xFF)) {
                return true;
            }
            offset = offset.saturating_add(len);
        }
        false
    })
}

/// Marks the announced segments that the log went into; returns the place of the first unsealed one in the order.
///
/// A header is synced before the first frame, so a segment without one holds frames only if the header rotted; then
/// any of its frames gives it away (F2).
pub(super) fn find_begun<S: ReadStorage>(s: &mut S, catalog: &mut Catalog<'_>, buf: &mut [u8]) -> usize {
    let mut after = 0;
    let mut last_begun = 0;
    let sealed = catalog.pool.iter().filter(|(_, e)| e.state.used_for == SegmentUse::Sealed);
    let seq = sealed.map(|(_, e)| e.state.last_seq.saturating_add(1)).max().unwrap_or(1);
    let mut carry = Expected { seq, ..Expected::default() };
    // Segments are used in the order of their generations: behind one that was looked at to its end in vain, only
    // what stands at the front is looked for, in case the whole of that one was lost.
    let mut untouched = false;
    while let Some(segment) = catalog.pool.announced_after(after) {
        after = catalog.pool.get(segment).state.generation;
        let (header, mut walker) = open_segment(s, catalog, segment, carry, buf);
        if header.is_none() && !has_frames(s, &mut walker, untouched, buf) {
            untouched = true;
            continue;
        }
        (last_begun, untouched) = (after, false);
        if !catalog.layout.wide {
            while walker.next(s, buf).is_some() {}
        }
        carry = walker.want;
    }
    mark_begun(catalog, last_begun)
}

fn mark_begun(catalog: &mut Catalog<'_>, last_begun: u64) -> usize {
    let mut after = 0;
    while let Some(segment) = catalog.pool.announced_after(after) {
        let Some(entry) = catalog.pool.entry_mut(segment) else { break };
        after = entry.state.generation;
        entry.begun = after <= last_begun;
    }
    catalog.pool.sort_order(|e| e.state.used_for == SegmentUse::Sealed || e.begun);
    let state = |s: &u32| catalog.pool.get(*s).state;
    let order = catalog.pool.order();
    let mut from = order.iter().take_while(|s| state(s).used_for == SegmentUse::Sealed).count();
    // A chain that goes on in an unsealed segment is read from its beginning.
    while let Some(before) = from.checked_sub(1)
        && order.get(before).is_some_and(|s| state(s).chain_tail > 0)
    {
        from = before;
    }
    from
}

/// Whether there are frames in a segment without a valid header of its life: anywhere, or only at its front.
pub(super) fn has_frames<S: ReadStorage>(s: &mut S, walker: &mut Walker, only_front: bool, buf: &mut [u8]) -> bool {
    while let Some(found) = walker.next(s, buf) {
        if matches!(found, Found::Frame { .. }) {
            return true;
        }
        if only_front {
            return false;
        }
    }
    false
}
