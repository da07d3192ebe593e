//! Below the log's floor: at most one decoded row group per retention class, merged by number.
//!
//! Invariants: what a class has around a number is known before the number is given out; a number that no class has is
//! rot only where a group that should cover it cannot be read, and else as the ledger says, or retention.

use super::place::seek;
use super::rows::row_at;
use super::{Scan, ScanMemory, Step};
use crate::catalog::Catalog;
use crate::format::edit::SegmentState;
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::header::CLASSES_MAX;
use crate::format::row::{Prefix, Row};
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::recovery::open_table;
use crate::sstable::{self, BlockInfo, SparseDecoded};
use crate::walk::{Found, Walker};

/// A decoded group.
#[derive(Debug, Clone, Copy)]
struct Group {
    decoded: SparseDecoded,
    /// Clock epoch and boot of its records.
    from: (u32, u32),
}

/// What a class has around a number.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Group(Group),
    /// A group that cannot be read.
    Damaged,
    /// No table of the class covers these numbers.
    Nothing,
}

/// The numbers `from..=to`, for one class.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
    holds: Holds,
    segment: u32,
    generation: u64,
    /// Offset behind the group.
    after: u32,
}

/// Where a scan stands in the tables.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TableScan {
    spans: [Option<Span>; CLASSES_MAX],
    /// The classes that have tables, as bits, and the log's floor: if they change, so does everything.
    classes: u8,
    log_floor: u64,
    /// The class of the record that is given out.
    hit: Option<usize>,
}

/// The part of the memory that is a class's.
fn share(classes: u8, class: usize, len: usize) -> core::ops::Range<usize> {
    let below = classes & 1u8.wrapping_shl(u32::try_from(class).unwrap_or(0)).wrapping_sub(1);
    let size = len.checked_div(usize::try_from(classes.count_ones()).unwrap_or(1)).unwrap_or(0);
    let size = size & !1;
    let start = size.saturating_mul(usize::try_from(below.count_ones()).unwrap_or(0));
    start..start.saturating_add(size)
}

/// The numbers and places of a class's group.
fn places(slots: &[u32], classes: u8, class: usize, records: usize) -> &[[u32; 2]] {
    let pairs = slots.get(share(classes, class, slots.len())).unwrap_or_default().as_chunks::<2>().0;
    pairs.get(..records).unwrap_or_default()
}

impl Group {
    /// The first number at or above `seq`, or in reverse the last at or below it.
    fn nearest(&self, places: &[[u32; 2]], seq: u64, reverse: bool) -> Option<u64> {
        let number = |pair: &[u32; 2]| self.decoded.first_seq.saturating_add(u64::from(pair[0]));
        let place = if reverse {
            places.get(places.partition_point(|pair| number(pair) <= seq).checked_sub(1)?)
        } else {
            places.get(places.partition_point(|pair| number(pair) < seq))
        };
        place.map(number)
    }
}

/// What is missing from `next` on.
struct Piece {
    last: u64,
    damaged: bool,
}

impl Scan {
    /// The next record or gap below the log's floor.
    pub(super) fn load_tables<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
    ) -> Step {
        self.loaded = None;
        let only = self.only_class.map_or(u8::MAX, |class| 1u8.wrapping_shl(u32::from(class)));
        let (classes, log_floor) = (catalog.table_classes() & only, catalog.log_floor());
        if (classes, log_floor) != (self.tables.classes, self.tables.log_floor) {
            self.tables = TableScan { classes, log_floor, ..TableScan::default() };
        }
        let limit = if self.options.reverse { self.end.max(catalog.floor()) } else { self.end.min(log_floor - 1) };
        let mut gap: Option<Gap> = None;
        let mut next = self.next;
        loop {
            let piece = match self.missing_in_tables(s, catalog, mem, next, limit) {
                Some(piece) => ledger_piece(catalog, next, &piece, self.options.reverse),
                None => match gap {
                    Some(gap) => return self.give_gap(gap),
                    None => {
                        self.pass(next);
                        return Step::Record(next);
                    }
                },
            };
            match &mut gap {
                None => gap = Some(piece),
                Some(gap) if (gap.cause, gap.exact, gap.stream) == (piece.cause, piece.exact, piece.stream) => {
                    gap.first_seq = gap.first_seq.min(piece.first_seq);
                    gap.last_seq = gap.last_seq.max(piece.last_seq);
                }
                Some(gap) => return self.give_gap(*gap),
            }
            let (far, step) = if self.options.reverse {
                (piece.first_seq, piece.first_seq.saturating_sub(1))
            } else {
                (piece.last_seq, piece.last_seq.saturating_add(1))
            };
            if far == limit {
                return self.give_gap(gap.unwrap_or(piece));
            }
            next = step;
        }
    }

    fn give_gap(&mut self, gap: Gap) -> Step {
        self.pass(if self.options.reverse { gap.first_seq } else { gap.last_seq });
        Step::Gap(gap)
    }

    /// How far from `next` on no class has a record; `None` if one has `next` itself.
    fn missing_in_tables<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        next: u64,
        limit: u64,
    ) -> Option<Piece> {
        let reverse = self.options.reverse;
        let nearer = |a: u64, b: u64| if reverse { a.max(b) } else { a.min(b) };
        let mut piece = Piece { last: limit, damaged: false };
        self.tables.hit = None;
        for class in 0..CLASSES_MAX {
            if self.tables.classes & 1u8.wrapping_shl(u32::try_from(class).unwrap_or(0)) == 0 {
                continue;
            }
            let span = self.span(s, catalog, mem, class, next);
            let edge = if reverse { span.from } else { span.to };
            let group = match span.holds {
                Holds::Group(group) => group,
                Holds::Damaged | Holds::Nothing => {
                    piece.damaged |= matches!(span.holds, Holds::Damaged);
                    piece.last = nearer(piece.last, edge);
                    continue;
                }
            };
            let places = places(mem.slots, self.tables.classes, class, group.decoded.records);
            match group.nearest(places, next, reverse).filter(|seq| (span.from..=span.to).contains(seq)) {
                Some(seq) if seq == next => {
                    self.tables.hit = Some(class);
                    return None;
                }
                Some(seq) if reverse => piece.last = nearer(piece.last, seq.saturating_add(1)),
                Some(seq) => piece.last = nearer(piece.last, seq.saturating_sub(1)),
                None => piece.last = nearer(piece.last, edge),
            }
        }
        Some(piece)
    }

    /// What `class` has around `seq`; its group is decoded.
    fn span<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        class: usize,
        seq: u64,
    ) -> Span {
        let is_live = |span: &Span| {
            matches!(span.holds, Holds::Nothing) || catalog.pool.get(span.segment).state.generation == span.generation
        };
        let known = self.tables.spans.get(class).copied().flatten().filter(is_live);
        if let Some(span) = known.filter(|span| (span.from..=span.to).contains(&seq)) {
            return span;
        }
        let (mut span, found) = find(s, catalog, mem.frame, class, seq, known);
        if let Some((frame, clock_epoch)) = found {
            let group = self.decode_table(catalog, mem, class, &frame, clock_epoch);
            span.holds = group.map_or(Holds::Damaged, Holds::Group);
        }
        if let Some(slot) = self.tables.spans.get_mut(class) {
            *slot = Some(span);
        }
        span
    }

    fn decode_table(
        &self,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        class: usize,
        frame: &Frame,
        clock_epoch: u32,
    ) -> Option<Group> {
        let start = usize::try_from(catalog.layout.payload_at(FrameFlags::WHOLE)).ok()?;
        let payload = mem.frame.get(start..start.checked_add(usize::try_from(frame.payload_bytes).ok()?)?)?;
        let raw_share = share(self.tables.classes, class, mem.raw.len());
        let slots_share = share(self.tables.classes, class, mem.slots.len());
        let (raw, slots) = (mem.raw.get_mut(raw_share)?, mem.slots.get_mut(slots_share)?);
        let (filter, clock) = (self.options.filter, catalog.clocks.get(clock_epoch));
        let keep = |block: &BlockInfo| block.may_match(&filter, clock);
        let decoded = sstable::decode_sparse(payload, frame, raw, slots.as_chunks_mut::<2>().0, keep)?;
        Some(Group { decoded, from: (clock_epoch, frame.epoch) })
    }

    /// The record that was found last: its clock epoch and boot and, unless the filter left it out, the row.
    pub(super) fn table_row<'b>(&self, mem: &'b ScanMemory<'_>, seq: u64) -> Option<((u32, u32), Option<Row<'b>>)> {
        let class = self.tables.hit?;
        let Holds::Group(group) = self.tables.spans.get(class).copied().flatten()?.holds else { return None };
        let delta = u32::try_from(seq.checked_sub(group.decoded.first_seq)?).ok()?;
        let places = places(mem.slots, self.tables.classes, class, group.decoded.records);
        let at = places.binary_search_by_key(&delta, |pair| pair[0]).ok()?;
        let place = places.get(at)?[1];
        if place == sstable::ABSENT {
            return Some((group.from, None));
        }
        let raw = mem.raw.get(share(self.tables.classes, class, mem.raw.len()))?;
        Some((group.from, Some(row_at(raw.get(..group.decoded.bytes)?, place)?)))
    }
}

/// The near end of what is missing, with its cause.
fn ledger_piece(catalog: &Catalog<'_>, next: u64, missing: &Piece, reverse: bool) -> Gap {
    let (first, last) = if reverse { (missing.last, next) } else { (next, missing.last) };
    let cause = if missing.damaged { GapCause::Rot } else { GapCause::Retention };
    let mut from = first;
    loop {
        let piece = match catalog.gaps.first_in(from, last) {
            Some(gap) if gap.first_seq <= from => gap,
            Some(gap) => Gap::new(from, gap.first_seq.saturating_sub(1), false, cause),
            None => Gap::new(from, last, false, cause),
        };
        if !reverse || piece.last_seq >= last {
            return piece;
        }
        from = piece.last_seq.saturating_add(1);
    }
}

/// Finds what covers `seq`; of a group the frame, which stands in `buf`, and its clock epoch.
fn find<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    buf: &mut [u8],
    class: usize,
    seq: u64,
    before: Option<Span>,
) -> (Span, Option<(Frame, u32)>) {
    let number = u8::try_from(class).unwrap_or(0);
    let floor = catalog.class_floors().get(class).copied().unwrap_or(1);
    let nothing = |from, to| (Span { from, to, holds: Holds::Nothing, segment: 0, generation: 0, after: 0 }, None);
    if seq < floor {
        return nothing(0, floor.saturating_sub(1));
    }
    let from = catalog.table_before(number, seq).map_or(floor, |(_, state)| state.last_seq.saturating_add(1));
    match catalog.table_at_or_after(number, seq) {
        None => nothing(from, u64::MAX),
        Some((_, state)) if seq < state.first_seq => nothing(from, state.first_seq.saturating_sub(1)),
        Some((segment, state)) => {
            let walker = open_table(s, catalog, segment, buf);
            // A scan that goes on upwards stands where the next group begins.
            let goes_on = before.filter(|b| b.segment == segment && b.generation == state.generation);
            let goes_on = goes_on.filter(|b| b.after > 0 && b.to.checked_add(1) == Some(seq));
            let sought = goes_on.map(|b| (walker.moved_to(b.after), Some(b.to))).unwrap_or_else(|| {
                let mut walker = walker;
                seek(s, &mut walker, seq, state.chain_tail, buf);
                (walker, None)
            });
            let found = find_in(s, (segment, &state), sought, seq, buf);
            // What seeking stepped on may be damaged: then once more from the start.
            let start = (walker, state.first_seq.checked_sub(1));
            found.or_else(|| find_in(s, (segment, &state), start, seq, buf)).unwrap_or_else(|| {
                let Span { segment, generation, after, .. } = nothing(0, 0).0;
                (Span { from: seq, to: seq, holds: Holds::Damaged, segment, generation, after }, None)
            })
        }
    }
}

/// Walks a table segment; `None` if what is found cannot be bounded from below. `covered` is what the groups before
/// cover.
fn find_in<S: ReadStorage>(
    s: &mut S,
    (segment, state): (u32, &SegmentState),
    (mut walker, mut covered): (Walker, Option<u64>),
    seq: u64,
    buf: &mut [u8],
) -> Option<(Span, Option<(Frame, u32)>)> {
    let generation = state.generation;
    let damaged = |from: u64, to| Span { from, to, holds: Holds::Damaged, segment, generation, after: 0 };
    while walker.at < state.chain_tail {
        let Some(Found::Frame { end, frame, payload, .. }) = walker.next(s, buf) else {
            if walker.at >= state.chain_tail || walker.is_at_end() {
                break;
            }
            continue;
        };
        let Some(upto) = sstable::covers_upto(payload).filter(|_| frame.kind == FrameKind::RowGroup) else { continue };
        let (from, to) = (frame.first_seq.max(state.first_seq), upto.min(state.last_seq));
        if to < seq {
            covered = Some(to);
        } else if from > seq {
            return Some((damaged(covered?.saturating_add(1), from.saturating_sub(1)), None));
        } else {
            let clock_epoch = Prefix::read(payload, false).map_or(0, |(prefix, _)| prefix.clock_epoch);
            let span = Span { from, to, holds: Holds::Damaged, segment, generation, after: end };
            return Some((span, Some((frame, clock_epoch))));
        }
    }
    Some((damaged(covered?.saturating_add(1), state.last_seq), None))
}
