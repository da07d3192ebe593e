//! Damage that is done on purpose between two boots.
//!
//! Invariant: no record is hit; what it may cost is said.

use super::frames::list;
use super::medium::Medium;
use super::workload::{Ruin, Shape};
use lastgasp_core::format::header::SegmentKind;
use lastgasp_core::hal::ReadStorage;
use std::ops::Range;

/// Where the damage goes. Without a segment of the log nothing would tell that this was a store.
pub(super) fn ruin_of<M: Medium>(medium: &M, shape: &Shape, ruin: Ruin) -> Vec<Range<usize>> {
    if ruin == Ruin::Nothing {
        return Vec::new();
    }
    let geometry = medium.clone().into_storage(shape).geometry();
    let segments = list(&medium.bytes(), shape, &geometry);
    let log = segments.iter().filter(|s| s.header.kind == SegmentKind::Log);
    let Some(newest) = log.max_by_key(|s| s.header.generation) else { return Vec::new() };
    let slots = segments.iter().filter(|s| s.header.kind == SegmentKind::Manifest);
    let len = shape.segment_bytes as usize;
    let start = newest.header.segment as usize * len;
    let header = start..start + newest.header.encoded_bytes() as usize;
    let last_edits = slots.filter_map(|s| s.frames.last().map(|f| f.bytes.clone()));
    match ruin {
        Ruin::LastHeader => vec![header],
        Ruin::LastEdits => last_edits.collect(),
        Ruin::LastHeaderAndEdits => last_edits.chain([header]).collect(),
        _ => [0, shape.segments as usize / 2].map(|slot| slot * len..(slot + 1) * len).to_vec(),
    }
}
