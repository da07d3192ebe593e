//! Where a frame lies: from a sequence number to a segment and offset, and along the chain of a large batch.
//!
//! Invariant: seeking only skips frames that end before the number looked for.

use super::rows::records_in;
use super::{Place, Scan};
use crate::catalog::Catalog;
use crate::format::frame::{Expected, FrameFlags, FrameKind};
use crate::format::row::Prefix;
use crate::hal::ReadStorage;
use crate::recovery::open_segment;
use crate::walk::{Found, Walker};

impl Scan {
    pub(super) fn open_place<S: ReadStorage>(
        s: &mut S,
        catalog: &Catalog<'_>,
        frame_buffer: &mut [u8],
        index: usize,
        seq: u64,
    ) -> Option<Place> {
        let segment = *catalog.pool.order().get(index)?;
        let state = catalog.pool.get(segment).state;
        let carry = Expected { seq: state.first_seq, ..Expected::default() };
        let (_, mut walker) = open_segment(s, catalog, segment, carry, frame_buffer);
        if catalog.layout.wide && seq > state.first_seq {
            let end = walker.layout.data_end();
            seek(s, &mut walker, seq, end, frame_buffer);
        }
        Some(Place { index, segment, generation: state.generation, walker })
    }
}

/// Moves a walker over a wide segment close to the frame before `end` that holds `seq`, by bisection over the frame
/// headers.
pub(super) fn seek<S: ReadStorage>(s: &mut S, walker: &mut Walker, seq: u64, end: u32, buf: &mut [u8]) {
    let unit = walker.layout.frame_unit.max(1);
    let (mut low, mut high) = (walker.at, end);
    while high.saturating_sub(low) > unit {
        let middle = low.saturating_add(high.saturating_sub(low) / 2 / unit * unit);
        if middle <= low {
            break;
        }
        match walker.header_at_or_after(s, middle, high, buf) {
            Some((at, first_seq)) if first_seq <= seq => low = at,
            _ => high = middle,
        }
    }
    walker.at = low;
}

/// `true` if every part of the batch is there.
pub(crate) fn chain_is_whole<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    frame_buffer: &mut [u8],
    batch: (u64, u64),
) -> bool {
    let mut index = catalog.pool.locate(batch.0);
    let mut next = batch.0;
    let mut part = 0u16;
    while let Some(mut place) = Scan::open_place(s, catalog, frame_buffer, index, if part == 0 { batch.0 } else { 0 }) {
        while let Some(found) = place.walker.next(s, frame_buffer) {
            let Found::Frame { frame, payload, .. } = found else { continue };
            let Some((records, payload, _)) = records_in(&frame, payload) else { continue };
            let state = catalog.pool.get(place.segment).state;
            let is_copy = frame.kind == FrameKind::Origin;
            if records.first_seq > batch.1 && !is_copy {
                return false;
            }
            if !records.flags.is_part() || (!is_copy && records.last_seq() > state.last_seq) {
                continue;
            }
            if Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch) != Some(batch) || records.part < part {
                continue;
            }
            if records.part != part || records.first_seq != next {
                return false;
            }
            let frame = records;
            next = frame.last_seq().saturating_add(1);
            part = part.saturating_add(1);
            if frame.flags.has(FrameFlags::LAST) {
                return next == batch.1.saturating_add(1);
            }
        }
        index = index.saturating_add(1);
    }
    false
}
