//! The segments that hold log, oldest first.
//!
//! Invariant: the numbers that a reader should find are followed from segment to segment, so every number that is
//! missing is laid to the nearest bad place before the next thing that is whole.

use super::slots::Proof;
use super::{Finding, Part, Place};
use crate::catalog::Catalog;
use crate::format::bytes::{u32_at, u64_at};
use crate::format::edit::SegmentState;
use crate::format::events::{Close, Origin, PreviousEnd};
use crate::format::frame::{Expected, Frame, FrameKind};
use crate::format::header::{HEADER_BYTES_MAX, SegmentHeader};
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::recovery::open_segment;
use crate::walk::{Found, Walker};

/// Walks all segments. Returns what they say of the edit with number `edit.0`, written by boot `edit.1`.
pub(super) fn check<R: ReadStorage>(
    s: &mut R,
    catalog: &Catalog<'_>,
    buf: &mut [u8],
    edit: (u64, u32),
    progress: &mut dyn FnMut(u32),
    found: &mut dyn FnMut(Finding),
) -> Proof {
    let mut log = Log {
        s,
        catalog,
        buf,
        found,
        edit,
        proof: Proof::default(),
        cut_since: false,
        next: catalog.log_floor(),
        tail: None,
        seal: None,
        left: None,
    };
    for (segment, done) in catalog.pool.order().iter().copied().zip(0u32..) {
        progress(done);
        log.segment(segment);
    }
    log.arrive(catalog.durable_upto.saturating_add(1), None);
    log.let_go_of_tail();
    Proof { settled: log.proof.known && log.proof.settled && !log.cut_since, ..log.proof }
}

/// A range that is no frame of this life.
#[derive(Debug, Clone, Copy)]
struct Bad {
    segment: u32,
    offset: u32,
    /// What is known to belong to it ends here.
    end: u32,
    /// Something of this life was written here.
    claimed: bool,
    unreadable: bool,
    /// It was synced: something behind it says so.
    proven: bool,
}

impl Bad {
    fn at(segment: u32, offset: u32) -> Self {
        Self { segment, offset, end: offset, claimed: false, unreadable: false, proven: false }
    }

    fn place(&self) -> Place {
        let bytes = self.end.saturating_sub(self.offset);
        Place { segment: self.segment, offset: self.offset, bytes, unreadable: self.unreadable }
    }
}

/// Something wrong with the index or trailer of a segment, that counts if they are proven to have been synced.
#[derive(Debug, Clone, Copy)]
struct Seal {
    place: Place,
    part: Part,
    /// Epoch and first number of the segment that was opened when it was written.
    epoch: u32,
    first_seq: u64,
}

/// What is needed of a frame once the buffer is used for something else.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: u32,
    end: u32,
    frame: Frame,
    /// The records it repeats (compact media).
    copy: Option<(u64, u64)>,
    /// The manifest edit it knows of.
    edit_no: u64,
    /// The origin of a boot whose forerunner did not stop cleanly.
    after_cut: bool,
}

impl Seen {
    fn of(at: u32, end: u32, frame: Frame, payload: &[u8]) -> Self {
        let mut seen = Self { at, end, frame, copy: None, edit_no: 0, after_cut: false };
        match frame.kind {
            FrameKind::Origin => {
                if let Some((origin, copy)) = Origin::read(payload) {
                    seen.copy = copy.filter(|c| c.count > 0).map(|c| (c.first_seq, c.last_seq()));
                    seen.edit_no = origin.edit_no;
                    seen.after_cut = origin.previous_end != PreviousEnd::Clean;
                }
            }
            FrameKind::Close => seen.edit_no = Close::read(payload).map_or(0, |close| close.edit_no),
            FrameKind::Rows | FrameKind::RowGroup | FrameKind::Index | FrameKind::Edit => {}
        }
        seen
    }

    /// First and last number of its records.
    fn records(&self) -> Option<(u64, u64)> {
        let has_own = self.frame.kind.holds_records() && self.frame.count > 0;
        if has_own { Some((self.frame.first_seq, self.frame.last_seq())) } else { self.copy }
    }
}

struct Log<'a, 'c, R> {
    s: &'a mut R,
    catalog: &'a Catalog<'c>,
    buf: &'a mut [u8],
    found: &'a mut dyn FnMut(Finding),
    edit: (u64, u32),
    proof: Proof,
    /// A boot ended without a clean stop after the edit.
    cut_since: bool,
    /// The next number a reader should find.
    next: u64,
    /// Where the segments before this one end.
    tail: Option<Bad>,
    /// Of the segment before this one.
    seal: Option<Seal>,
    /// Of the segment walked last, until the next one tells who left it.
    left: Option<Seal>,
}

impl<R: ReadStorage> Log<'_, '_, R> {
    fn segment(&mut self, segment: u32) {
        let state = self.catalog.pool.get(segment).state;
        let carry = Expected { seq: state.first_seq, ..Expected::default() };
        let (header, mut walker) = open_segment(self.s, self.catalog, segment, carry, self.buf);
        if let Some(h) = &header {
            self.header(h, &state);
        }
        let first_frame = walker.at;
        let mut bad: Option<Bad> = None;
        let mut last: Option<Seen> = None;
        loop {
            let at = walker.at;
            let (seen, claimed) = match walker.next(self.s, self.buf) {
                None => break,
                Some(Found::Blank) => continue,
                Some(Found::Frame { at, end, frame, payload }) => (Some(Seen::of(at, end, frame, payload)), false),
                Some(Found::Bad { claimed }) => (None, claimed),
                Some(Found::TooLarge { .. }) => (None, true),
            };
            match seen {
                Some(seen) => {
                    self.frame(segment, &state, &seen, &mut bad);
                    last = Some(seen);
                }
                None => self.bad(segment, &walker, at, claimed, &mut bad),
            }
        }
        let holds_records = state.last_seq >= state.first_seq;
        if header.is_none() && (last.is_some() || holds_records) {
            let place = Place { segment, offset: 0, bytes: HEADER_BYTES_MAX.min(first_frame), unreadable: false };
            (self.found)(Finding::Damaged { place, part: Part::Header, first_seq: 1, last_seq: 0 });
        }
        let tail = bad.unwrap_or_else(|| Bad::at(segment, walker.at));
        self.end_of_segment(segment, &state, header.as_ref(), last, tail);
    }

    /// A header that is whole: numbers before its first one belong to the segments before it, unless nothing of its own
    /// segment counts; then those numbers may have been given again later.
    fn header(&mut self, h: &SegmentHeader, state: &SegmentState) {
        self.knows_edit(h.epoch, h.edit_no);
        if state.last_seq >= state.first_seq {
            self.arrive(h.first_seq.min(state.first_seq), None);
        }
        self.let_go_of_tail();
        // The edit that announced this segment was synced after the seal before the last was written.
        if let Some(seal) = self.seal.take()
            && h.epoch == seal.epoch
            && h.void_from > seal.first_seq
        {
            self.report_seal(&seal);
        }
        self.seal = self.left.take().map(|seal| Seal { epoch: h.epoch, first_seq: h.first_seq, ..seal });
    }

    fn knows_edit(&mut self, epoch: u32, edit_no: u64) {
        self.proof.known |= epoch == self.edit.1 && edit_no >= self.edit.0 && edit_no > 0;
    }

    fn frame(&mut self, segment: u32, state: &SegmentState, seen: &Seen, bad: &mut Option<Bad>) {
        self.knows_edit(seen.frame.epoch, seen.edit_no);
        self.cut_since |= seen.after_cut && seen.frame.epoch > self.edit.1;
        self.proof.settled = seen.frame.kind == FrameKind::Close;
        if let Some(seal) = self.seal
            && seen.frame.epoch == seal.epoch
            && seen.frame.durable_upto >= seal.first_seq
        {
            self.report_seal(&seal);
            self.seal = None;
        }
        let is_live =
            |(first, last): &(u64, u64)| *last >= self.next && *first >= state.first_seq && *last <= state.last_seq;
        let live = seen.records().filter(is_live);
        let upto = match (seen.frame.kind, live) {
            (_, Some((first, _))) => first,
            (FrameKind::Origin | FrameKind::Close, None) => seen.frame.first_seq,
            (FrameKind::Index, None) => 0,
            // Void, or dropped by retention: proves nothing.
            (FrameKind::Rows | FrameKind::RowGroup | FrameKind::Edit, None) => return,
        };
        if let Some(bad) = bad {
            bad.end = seen.at;
            // On a compact medium a cut leaves marginal bytes, and the log goes on behind them.
            bad.proven = self.catalog.layout.wide;
        }
        let here = bad.take().or_else(|| (upto > self.next && self.tail.is_none()).then(|| Bad::at(segment, seen.at)));
        self.arrive(upto.min(self.catalog.durable_upto.saturating_add(1)), here);
        if let Some((_, last)) = live {
            self.next = self.next.max(last.saturating_add(1));
        }
    }

    fn bad(&mut self, segment: u32, walker: &Walker, at: u32, claimed: bool, bad: &mut Option<Bad>) {
        let bad = bad.get_or_insert_with(|| Bad::at(segment, at));
        if claimed {
            bad.claimed = true;
            bad.end = walker.at;
        }
        let unit = self.catalog.layout.frame_unit.max(self.catalog.geometry.read_unit);
        let start = self.catalog.geometry.segment_start(segment).saturating_add(u64::from(at));
        let into = usize::try_from(unit).ok().and_then(|n| self.buf.get_mut(..n)).unwrap_or_default();
        if self.s.read(start, into).is_err() {
            (bad.unreadable, bad.end) = (true, walker.at);
        }
    }

    /// Everything below `upto` should have been met by now: what is missing is laid to `bad`, or else to the end of the
    /// segments before.
    fn arrive(&mut self, upto: u64, bad: Option<Bad>) {
        let blamed = bad.or(self.tail);
        let mut any = false;
        if let Some(blamed) = blamed.filter(|_| upto > self.next) {
            for gap in rot_pieces(self.catalog, self.next, upto.saturating_sub(1)) {
                any = true;
                let (first_seq, last_seq) = (gap.first_seq, gap.last_seq);
                (self.found)(Finding::Damaged { place: blamed.place(), part: Part::Records, first_seq, last_seq });
            }
            self.next = upto;
        }
        match bad {
            Some(bad) if !any => self.without_numbers(&bad),
            None if any => self.tail = None,
            _ => {}
        }
    }

    /// A bad range that cost no record.
    fn without_numbers(&mut self, bad: &Bad) {
        let place = bad.place();
        if bad.proven || bad.unreadable {
            (self.found)(Finding::Damaged { place, part: Part::Event, first_seq: 1, last_seq: 0 });
        } else if bad.claimed {
            (self.found)(Finding::Torn { place });
        }
    }

    fn let_go_of_tail(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.without_numbers(&tail);
        }
    }

    fn end_of_segment(
        &mut self,
        segment: u32,
        state: &SegmentState,
        header: Option<&SegmentHeader>,
        last: Option<Seen>,
        mut tail: Bad,
    ) {
        let frames_end = last.map_or(0, |seen| seen.end);
        let index_at = last.filter(|seen| seen.frame.kind == FrameKind::Index).map(|seen| seen.at);
        let trailer = crate::wal::read_trailer(self.s, self.catalog, segment, self.buf);
        let wrong = match trailer {
            Some(t) => {
                // Frames were synced before the seal was written; the index was not.
                let synced_upto = if t.index_at == 0 { t.data_end } else { t.index_at };
                let synced_upto = synced_upto.min(self.catalog.layout.data_end());
                if tail.offset < synced_upto {
                    (tail.proven, tail.end) = (true, tail.end.max(synced_upto));
                }
                let bytes = t.data_end.saturating_sub(t.index_at);
                (t.index_at != 0 && index_at != Some(t.index_at)).then_some((t.index_at, bytes, Part::Index))
            }
            None => {
                let data_end = self.catalog.layout.data_end();
                let durable_before = header.map_or(state.first_seq, |h| h.durable_upto);
                let was_there = index_at.is_some()
                    || self.looks_like_trailer(segment, (durable_before, state.last_seq), frames_end);
                was_there.then_some((data_end, self.catalog.layout.reserve_bytes, Part::Trailer))
            }
        };
        self.left = wrong.map(|(offset, bytes, part)| {
            let place = Place { segment, offset, bytes, unreadable: false };
            Seal { place, part, epoch: 0, first_seq: 0 }
        });
        self.let_go_of_tail();
        self.tail = Some(tail);
    }

    fn report_seal(&mut self, seal: &Seal) {
        (self.found)(Finding::Damaged { place: seal.place, part: seal.part, first_seq: 1, last_seq: 0 });
    }

    /// What stands in the trailer's place does not verify: `true` if it is this life's trailer all the same, and not
    /// that of an earlier life. Numbers are never used twice, so one of its two numbers must fit this life: what was
    /// durable when it was opened, and its last number.
    fn looks_like_trailer(&mut self, segment: u32, (durable, last_seq): (u64, u64), frames_end: u32) -> bool {
        let layout = self.catalog.layout;
        let start = self.catalog.geometry.segment_start(segment).saturating_add(u64::from(layout.data_end()));
        let unit = usize::try_from(layout.frame_unit.max(32)).unwrap_or(0);
        let Some(bytes) = self.buf.get_mut(..unit) else { return false };
        if self.s.read(start, bytes).is_err() {
            return false;
        }
        let durable_upto = u64_at(bytes, 0x10).unwrap_or(0);
        let of_this_life =
            [u64_at(bytes, 0x08) == Some(last_seq), (durable..=self.catalog.durable_upto).contains(&durable_upto)];
        let has_mark = bytes.get(..4) == Some(b"LGTR");
        let alike = [has_mark, u32_at(bytes, 0x04) == Some(frames_end), u32_at(bytes, 0x18) == Some(0)];
        let count = |fits: &[bool]| fits.iter().filter(|fit| **fit).count();
        count(&of_this_life) > 0 && count(&of_this_life).saturating_add(count(&alike)) >= 4
    }
}

/// The parts of `first..=last` that are gone for no declared reason.
fn rot_pieces<'c>(catalog: &'c Catalog<'_>, first: u64, last: u64) -> impl Iterator<Item = Gap> + 'c {
    let mut from = first;
    let pieces = core::iter::from_fn(move || {
        if from > last {
            return None;
        }
        let piece = match catalog.gaps.first_in(from, last) {
            Some(gap) if gap.first_seq <= from => gap,
            Some(gap) => Gap::new(from, gap.first_seq.saturating_sub(1), true, GapCause::Rot),
            None => Gap::new(from, last, true, GapCause::Rot),
        };
        from = piece.last_seq.max(from).saturating_add(1);
        Some(piece)
    });
    pieces.filter(|gap| gap.cause == GapCause::Rot)
}
