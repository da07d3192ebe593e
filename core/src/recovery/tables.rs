//! Tables at mount: which may be appended to, and in a rebuild which there are.
//!
//! Invariants: a mount reads no table unless the manifest was lost; behind an unclean stop every table is closed, since
//! nothing tells what was written behind its end; in a rebuild no number is answered by two segments of a class.

use super::open_table;
use super::passes::Pass;
use crate::catalog::Catalog;
use crate::format::edit::{SegmentState, SegmentUse};
use crate::format::frame::FrameKind;
use crate::format::header::{CLASSES_MAX, SegmentHeader};
use crate::hal::ReadStorage;
use crate::sstable::covers_upto;
use crate::tables::{class_of, is_filled};
use crate::walk::Found;

/// Empty tables are free, and after an unclean stop the others are closed; the next edit says so.
pub(super) fn settle_tables(catalog: &mut Catalog<'_>, clean: bool) {
    for segment in 0..catalog.pool.segments() {
        let state = catalog.pool.get(segment).state;
        let SegmentUse::Table { class, open } = state.used_for else { continue };
        if !is_filled(&state) {
            catalog.pool.set_free(segment);
        } else if open && !clean {
            catalog.pool.set(segment, SegmentState { used_for: SegmentUse::Table { class, open: false }, ..state });
        }
    }
}

impl<S: ReadStorage> Pass<'_, '_, S> {
    /// Takes up a table segment whose header was found.
    pub(super) fn list_table(&mut self, catalog: &mut Catalog<'_>, h: &SegmentHeader) {
        let Ok(class) = u8::try_from(h.void_from) else { return };
        let known = catalog.pool.get(h.segment).state;
        if usize::from(class) >= CLASSES_MAX || h.generation < known.generation {
            return;
        }
        let state = SegmentState {
            used_for: SegmentUse::Table { class, open: false },
            generation: h.generation,
            erase_count: known.erase_count.max(h.erase_count),
            epoch: h.epoch,
            first_seq: h.first_seq,
            last_seq: h.first_seq.saturating_sub(1),
            ..SegmentState::default()
        };
        catalog.pool.set(h.segment, state);
        if let Some(entry) = catalog.pool.entry_mut(h.segment) {
            entry.begun = false;
        }
        let mut walker = open_table(self.s, catalog, h.segment, self.buf);
        let (mut last_seq, mut chain_tail) = (state.last_seq, 0);
        while let Some(found) = walker.next(self.s, self.buf) {
            let Found::Frame { end, frame, payload, .. } = found else { continue };
            let upto = covers_upto(payload).filter(|_| frame.kind == FrameKind::RowGroup);
            let Some(upto) = upto.filter(|upto| *upto > last_seq) else { continue };
            (last_seq, chain_tail) = (upto, end);
            super::passes::apply_frame_items(catalog, &frame, payload);
        }
        catalog.pool.set(h.segment, SegmentState { last_seq, chain_tail, ..state });
    }

    /// Where tables of a class overlap, one within the other goes, and else the later one counts only beyond it.
    pub(super) fn settle_overlaps(&mut self, catalog: &mut Catalog<'_>) {
        let segments = catalog.pool.segments();
        let table = |catalog: &Catalog<'_>, segment: u32| {
            let state = catalog.pool.get(segment).state;
            class_of(&state).filter(|_| is_filled(&state)).map(|class| (class, state))
        };
        for a in 0..segments {
            for b in 0..segments {
                let (Some((class, old)), Some((other, new))) = (table(catalog, a), table(catalog, b)) else { continue };
                let apart = old.last_seq < new.first_seq || new.last_seq < old.first_seq;
                if a == b || class != other || old.generation >= new.generation || apart {
                    continue;
                }
                if new.first_seq <= old.first_seq && old.last_seq <= new.last_seq {
                    catalog.pool.set_free(a);
                } else if old.first_seq <= new.first_seq && new.last_seq <= old.last_seq {
                    catalog.pool.set_free(b);
                } else if new.first_seq < old.first_seq {
                    let last_seq = old.first_seq.saturating_sub(1);
                    catalog.pool.set(b, SegmentState { last_seq, ..new });
                } else {
                    let first_seq = old.last_seq.saturating_add(1);
                    catalog.pool.set(b, SegmentState { first_seq, ..new });
                }
            }
        }
        let log_floor = catalog.log_floor();
        catalog.raise_log_floor(log_floor);
    }
}
