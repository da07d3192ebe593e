//! The segments of tables.
//!
//! Invariant: everything up to a table's end was synced before an edit spoke of it, so whatever is bad there is damage.

use super::{Finding, Part, Place};
use crate::catalog::Catalog;
use crate::format::frame::FrameKind;
use crate::format::header::{CLASSES_MAX, HEADER_BYTES_MAX};
use crate::hal::ReadStorage;
use crate::recovery::{open_table, read_header};
use crate::sstable::covers_upto;
use crate::walk::Found;

/// Walks all tables.
pub(super) fn check<R: ReadStorage>(s: &mut R, catalog: &Catalog<'_>, buf: &mut [u8], found: &mut dyn FnMut(Finding)) {
    for class in (0u8..).take(CLASSES_MAX) {
        for (segment, _) in catalog.tables(class) {
            let state = catalog.pool.get(segment).state;
            let header = read_header(s, &catalog.geometry, segment, buf);
            let walker = open_table(s, catalog, segment, buf);
            if header.is_none_or(|h| h.generation != state.generation) {
                let bytes = HEADER_BYTES_MAX.min(walker.at);
                let place = Place { segment, offset: 0, bytes, unreadable: false };
                found(Finding::Damaged { place, part: Part::Header, first_seq: 1, last_seq: 0 });
            }
            check_groups(s, (segment, state.chain_tail), walker, (state.first_seq, state.last_seq), buf, found);
        }
    }
}

fn check_groups<R: ReadStorage>(
    s: &mut R,
    (segment, end): (u32, u32),
    mut walker: crate::walk::Walker,
    (mut next, last): (u64, u64),
    buf: &mut [u8],
    found: &mut dyn FnMut(Finding),
) {
    let mut bad: Option<u32> = None;
    let mut damaged = |offset: u32, upto: u32, first_seq: u64, last_seq: u64| {
        let place = Place { segment, offset, bytes: upto.saturating_sub(offset), unreadable: false };
        found(Finding::Damaged { place, part: Part::Records, first_seq, last_seq });
    };
    while walker.at < end && !walker.is_at_end() {
        let at = walker.at;
        let step = walker.next(s, buf);
        let group = match step {
            Some(Found::Frame { frame, payload, .. }) if frame.kind == FrameKind::RowGroup => {
                covers_upto(payload).map(|upto| (frame.first_seq, upto))
            }
            _ => None,
        };
        let Some((first, upto)) = group else {
            bad.get_or_insert(at);
            continue;
        };
        if let Some(offset) = bad.take().filter(|_| first > next) {
            damaged(offset, at, next, first.saturating_sub(1).min(last));
        }
        next = next.max(upto.saturating_add(1));
    }
    if next <= last {
        damaged(bad.unwrap_or(end), end, next, last);
    }
}
