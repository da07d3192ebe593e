//! Reading: records, gaps and events by sequence number, in both directions.
//!
//! Invariants: every number of the range comes exactly once, as a record or inside a gap, whatever is damaged; what is
//! void by rule R never comes; a batch comes whole or not at all; a cursor holds nothing back: if retention overtakes it,
//! it says so and goes on.

use crate::catalog::Catalog;
use crate::format::events::{Close, Origin};
use crate::format::frame::{Frame, FrameFlags, FrameKind};
use crate::format::header::{ClockAnchor, SegmentKind};
use crate::format::row::{Item, ItemReader, Prefix, Row};
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::recovery::{read_header, walker_of};
use crate::walk::{Found, Walker};

/// Which records a scan shows. Gaps and events are always shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this stream.
    pub stream: Option<u16>,
    /// Only this severity and worse (higher).
    pub severity_min: Option<u8>,
    /// Not before this time, microseconds since 1970: event time where given, else time of receipt.
    pub since_us: Option<i64>,
    /// Before this time.
    pub until_us: Option<i64>,
}

impl Filter {
    fn matches(&self, record: &Record<'_>) -> bool {
        let time = record.row.event_time_us.or(record.received_wall_us());
        self.stream.is_none_or(|s| s == record.row.stream)
            && self.severity_min.is_none_or(|s| record.row.severity >= s)
            && self.since_us.is_none_or(|t| time.is_some_and(|time| time >= t))
            && self.until_us.is_none_or(|t| time.is_some_and(|time| time < t))
    }
}

/// A range of numbers, a direction and a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions {
    /// First sequence number.
    pub from: u64,
    /// Last sequence number; what is not durable yet is left out.
    pub to: u64,
    /// Newest first.
    pub reverse: bool,
    /// Which records.
    pub filter: Filter,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { from: 1, to: u64::MAX, reverse: false, filter: Filter::default() }
    }
}

/// Memory of a scan: the caller's.
#[derive(Debug)]
pub struct ScanMemory<'b> {
    /// One frame: as long as the writer's.
    pub frame: &'b mut [u8],
    /// The records of one row group, decoded: 4 MiB and more on Linux, empty where none are written.
    pub raw: &'b mut [u8],
    /// Where records lie in their frame; if it is shorter than a frame has records, each is looked for from the front.
    pub slots: &'b mut [u32],
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'b> {
    /// Its sequence number.
    pub seq: u64,
    /// Anchor of its clock epoch, while the store still knows it.
    pub clock: Option<ClockAnchor>,
    /// Everything else.
    pub row: Row<'b>,
}

impl Record<'_> {
    /// When it was received by the wall clock: microseconds since 1970.
    #[must_use]
    pub fn received_wall_us(&self) -> Option<i64> {
        let offset = i64::try_from(self.row.received_us).ok()?;
        self.clock?.wall_us.checked_add(offset)
    }
}

/// Something that happened to the node, at its place in the log. It has no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A boot that wrote began here.
    Boot(Origin),
    /// A clean stop.
    Close(Close),
}

/// What a scan yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'b> {
    /// A record.
    Record(Record<'b>),
    /// Records that are gone.
    Gap(Gap),
    /// An event. Only forward scans yield them.
    Event(Event),
}

/// The frame whose records are being given out.
#[derive(Debug, Clone, Copy)]
struct Loaded {
    first_seq: u64,
    count: u32,
    clock_epoch: u32,
    /// Where the rows stand, in the frame buffer or, if `in_raw`, among the decoded ones.
    start: usize,
    len: usize,
    in_raw: bool,
    has_slots: bool,
}

impl Loaded {
    fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count)).saturating_sub(1)
    }
}

/// Where a scan stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Position of the segment in the order of the log.
    index: usize,
    segment: u32,
    generation: u64,
    walker: Walker,
}

/// A cursor over the log. It borrows nothing between calls.
#[derive(Debug)]
pub struct Scan {
    options: ScanOptions,
    /// The next number to give out; downwards in reverse.
    next: u64,
    end: u64,
    finished: bool,
    place: Option<Place>,
    loaded: Option<Loaded>,
    /// The chain that was looked at last, and whether it is whole.
    chain: Option<((u64, u64), bool)>,
    ledger_shown: bool,
}

/// What to yield; records are decoded in a second step, when nothing is read any more.
enum Step {
    Record(u64),
    Gap(Gap),
    Event(Event),
    End,
}

impl Scan {
    /// A cursor over what is durable now.
    #[must_use]
    pub fn new(catalog: &Catalog<'_>, options: ScanOptions) -> Self {
        let last = options.to.min(catalog.durable_upto.max(catalog.verdict_last()));
        let (next, end) = if options.reverse { (last, options.from.max(1)) } else { (options.from.max(1), last) };
        let finished = if options.reverse { next < end } else { next > end };
        let ledger_shown = options.reverse;
        Self { options, next, end, finished, place: None, loaded: None, chain: None, ledger_shown }
    }

    /// The number that the next record would have at least (at most in reverse); to go on later from here.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next entry; `None` at the end.
    pub fn next<'b, S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &'b mut ScanMemory<'_>,
    ) -> Option<Entry<'b>> {
        let seq = loop {
            match self.step(s, catalog, mem) {
                Step::Gap(gap) => return Some(Entry::Gap(gap)),
                Step::Event(event) => return Some(Entry::Event(event)),
                Step::End => return None,
                Step::Record(seq) => {
                    if self.record(catalog, mem, seq).is_some_and(|r| self.options.filter.matches(&r)) {
                        break seq;
                    }
                }
            }
        };
        self.record(catalog, mem, seq).map(Entry::Record)
    }

    fn record<'b>(&self, catalog: &Catalog<'_>, mem: &'b ScanMemory<'_>, seq: u64) -> Option<Record<'b>> {
        let loaded = self.loaded?;
        let row = row_of(&loaded, mem, seq)?;
        Some(Record { seq, clock: catalog.clocks.get(loaded.clock_epoch), row })
    }

    fn step<S: ReadStorage>(&mut self, s: &mut S, catalog: &Catalog<'_>, mem: &mut ScanMemory<'_>) -> Step {
        if !self.ledger_shown {
            self.ledger_shown = true;
            let lost = catalog.gaps.as_slice().iter().find(|g| g.cause == GapCause::LedgerLost);
            if let Some(gap) = lost {
                return Step::Gap(*gap);
            }
        }
        if self.finished {
            return self.closing_events(s, catalog, mem);
        }
        if let Some(gap) = self.below_floor(catalog) {
            return Step::Gap(gap);
        }
        if let Some(seq) = self.from_loaded() {
            return Step::Record(seq);
        }
        if self.options.reverse { self.load_backward(s, catalog, mem) } else { self.load_forward(s, catalog, mem) }
    }

    /// What retention dropped is one gap at the start of the range.
    fn below_floor(&mut self, catalog: &Catalog<'_>) -> Option<Gap> {
        let floor = catalog.floor();
        if self.next >= floor {
            return None;
        }
        self.loaded = None;
        self.place = None;
        let (first, last) = match self.options.reverse {
            false => (self.next, floor.saturating_sub(1).min(self.end)),
            true => (self.end, self.next),
        };
        self.pass(if self.options.reverse { first } else { last });
        Some(Gap::new(first, last, false, GapCause::Retention))
    }

    /// Everything up to `seq` (down to it, in reverse) was given out.
    fn pass(&mut self, seq: u64) {
        if self.options.reverse {
            self.finished = seq <= self.end;
            self.next = seq.saturating_sub(1);
        } else {
            self.finished = seq >= self.end;
            self.next = seq.saturating_add(1);
        }
    }

    fn from_loaded(&mut self) -> Option<u64> {
        let loaded = self.loaded?;
        let seq = self.next;
        if loaded.first_seq <= seq && seq <= loaded.last_seq() {
            self.pass(seq);
            return Some(seq);
        }
        None
    }

    /// The numbers `first..=last` are missing: gives out the piece at the near end, with its cause.
    fn missing(&mut self, catalog: &Catalog<'_>, first: u64, last: u64) -> Step {
        let gap =
            if self.options.reverse { last_piece(catalog, first, last) } else { first_piece(catalog, first, last) };
        self.pass(if self.options.reverse { gap.first_seq } else { gap.last_seq });
        Step::Gap(gap)
    }

    fn open_place<S: ReadStorage>(
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        index: usize,
        seq: u64,
    ) -> Option<Place> {
        let segment = *catalog.pool.order().get(index)?;
        let state = catalog.pool.get(segment).state;
        let header = read_header(s, &catalog.geometry, segment, mem.frame).filter(|h| {
            h.kind == SegmentKind::Log && h.store_id == catalog.store_id && h.generation == state.generation
        });
        let mut walker = walker_of(catalog, segment, state.generation, header.as_ref());
        if header.is_none() {
            walker.want.seq = state.first_seq;
        }
        if catalog.layout.wide && seq > state.first_seq {
            seek(s, &mut walker, seq, mem.frame);
        }
        Some(Place { index, segment, generation: state.generation, walker })
    }

    fn load_forward<S: ReadStorage>(&mut self, s: &mut S, catalog: &Catalog<'_>, mem: &mut ScanMemory<'_>) -> Step {
        loop {
            let mut place = match self.place.take() {
                Some(place) if catalog.pool.get(place.segment).state.generation == place.generation => place,
                _ => match Self::open_place(s, catalog, mem, catalog.pool.locate(self.next), self.next) {
                    Some(place) => place,
                    None => return self.missing(catalog, self.next, self.end),
                },
            };
            let before = place.walker;
            let (start, frame, batch) = match place.walker.next(s, mem.frame) {
                None => {
                    match Self::open_place(s, catalog, mem, place.index.saturating_add(1), 0) {
                        Some(next) => self.place = Some(next),
                        None => return self.missing(catalog, self.next, self.end),
                    }
                    continue;
                }
                Some(Found::Bad { .. } | Found::TooLarge) => {
                    self.place = Some(place);
                    continue;
                }
                Some(Found::Frame { frame, payload, .. }) => {
                    let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0);
                    if let Some(step) = self.event(catalog, &place, &frame, payload, start) {
                        self.place = Some(place);
                        match step {
                            Some(step) => return step,
                            None => continue,
                        }
                    }
                    let batch = Prefix::read(payload, frame.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                    (start, frame, batch)
                }
            };
            if !self.is_wanted(catalog, &place, &frame) {
                self.place = Some(place);
                continue;
            }
            if let Some(batch) = batch.filter(|_| frame.flags.is_part()) {
                let known = self.chain.filter(|(b, _)| *b == batch);
                let whole = known.map_or_else(|| chain_is_whole(s, catalog, mem, batch), |(_, whole)| whole);
                self.chain = Some((batch, whole));
                if known.is_none() {
                    place.walker = before; // the look-ahead has overwritten the frame
                }
                self.place = Some(place);
                if known.is_none() || !whole {
                    continue;
                }
            }
            self.place = Some(place);
            if frame.first_seq > self.next {
                // Come back to this frame after the gap.
                let last = frame.first_seq.saturating_sub(1).min(self.end);
                let step = self.missing(catalog, self.next, last);
                if let Some(place) = &mut self.place {
                    place.walker = before;
                }
                return step;
            }
            if self.load(mem, &frame, start)
                && let Some(seq) = self.from_loaded()
            {
                return Step::Record(seq);
            }
        }
    }

    /// Frames without records; `None` if this one holds records.
    #[expect(clippy::option_option, reason = "outer: not a frame of records; inner: something to show")]
    fn event(
        &mut self,
        catalog: &Catalog<'_>,
        place: &Place,
        frame: &Frame,
        payload: &[u8],
        start: usize,
    ) -> Option<Option<Step>> {
        match frame.kind {
            FrameKind::Rows | FrameKind::RowGroup => None,
            FrameKind::Index | FrameKind::Edit => Some(None),
            FrameKind::Close => Some(Close::read(payload).map(|close| Step::Event(Event::Close(close)))),
            FrameKind::Origin => {
                let (origin, copy) = match Origin::read(payload) {
                    Some(read) => read,
                    None => return Some(None),
                };
                let state = catalog.pool.get(place.segment).state;
                if let Some(copy) = copy
                    && copy.first_seq == self.next
                    && copy.count > 0
                    && copy.last_seq() <= state.last_seq
                {
                    // The original was damaged: its copy stands in, and the origin is shown without it.
                    let copied = Frame {
                        kind: FrameKind::Rows,
                        flags: FrameFlags::WHOLE,
                        first_seq: copy.first_seq,
                        count: copy.count,
                        payload_bytes: u32::try_from(copy.payload.len()).unwrap_or(0),
                        ..*frame
                    };
                    self.load_rows(copy.payload, &copied, start.saturating_add(copy.at));
                    return Some(self.from_loaded().map(Step::Record));
                }
                Some(Some(Step::Event(Event::Boot(origin))))
            }
        }
    }

    /// Holds records that were adopted from this place and are still to come.
    fn is_wanted(&self, catalog: &Catalog<'_>, place: &Place, frame: &Frame) -> bool {
        let state = catalog.pool.get(place.segment).state;
        frame.count > 0
            && frame.last_seq() >= self.next
            && frame.first_seq >= state.first_seq
            && frame.last_seq() <= state.last_seq
            && !self.is_superseded(catalog, place, frame)
    }

    /// Later segments took these numbers over (rule R): possible only for what an abandoned segment ends with.
    fn is_superseded(&self, catalog: &Catalog<'_>, place: &Place, frame: &Frame) -> bool {
        let later = catalog.pool.order().get(place.index.saturating_add(1)..).unwrap_or_default();
        later.first().is_some_and(|next| {
            let next = catalog.pool.get(*next).state;
            next.last_seq >= next.first_seq && next.first_seq <= frame.first_seq
        })
    }

    /// Makes the frame's records ready to be given out; `false` if it cannot be decoded.
    fn load(&mut self, mem: &mut ScanMemory<'_>, frame: &Frame, start: usize) -> bool {
        let len = usize::try_from(frame.payload_bytes).unwrap_or(0);
        let end = start.saturating_add(len);
        let ScanMemory { frame: buffer, raw, slots } = mem;
        let Some(payload) = buffer.get(start..end) else { return false };
        if frame.kind == FrameKind::RowGroup {
            let Some((prefix, _)) = Prefix::read(payload, frame.flags.is_part()) else { return false };
            let decoded = crate::sstable::decode(payload, frame, raw, slots);
            self.loaded = decoded.map(|len| Loaded {
                first_seq: frame.first_seq,
                count: frame.count,
                clock_epoch: prefix.clock_epoch,
                start: 0,
                len,
                in_raw: true,
                has_slots: true,
            });
            return self.loaded.is_some();
        }
        self.load_rows(payload, frame, start);
        if let Some(loaded) = &mut self.loaded {
            loaded.has_slots = fill_slots(payload, loaded, start, slots);
        }
        self.loaded.is_some()
    }

    fn load_rows(&mut self, payload: &[u8], frame: &Frame, start: usize) {
        let read = Prefix::read(payload, frame.flags.is_part());
        self.loaded = read.map(|(prefix, items)| {
            let rest = items.rest().len();
            Loaded {
                first_seq: frame.first_seq,
                count: frame.count,
                clock_epoch: prefix.clock_epoch,
                start: start.saturating_add(payload.len().saturating_sub(rest)),
                len: rest,
                in_raw: false,
                has_slots: false,
            }
        });
    }

    fn load_backward<S: ReadStorage>(&mut self, s: &mut S, catalog: &Catalog<'_>, mem: &mut ScanMemory<'_>) -> Step {
        // The numbers below `lowest` are not looked at yet.
        let mut lowest = self.end.max(catalog.floor());
        let mut index = catalog.pool.locate(self.next);
        loop {
            let Some(mut place) = Self::open_place(s, catalog, mem, index, self.next) else {
                return self.missing(catalog, lowest, self.next);
            };
            let mut found: Option<(Walker, u64)> = None;
            loop {
                let before = place.walker;
                let Some(step) = place.walker.next(s, mem.frame) else { break };
                let Found::Frame { frame, payload, .. } = step else { continue };
                let copy_range = match frame.kind {
                    FrameKind::Origin => {
                        Origin::read(payload).and_then(|(_, copy)| copy).map(|c| (c.first_seq, c.last_seq()))
                    }
                    _ => None,
                };
                let (first, last) = copy_range.unwrap_or((frame.first_seq, frame.last_seq()));
                let state = catalog.pool.get(place.segment).state;
                let holds = (frame.kind.holds_records() && frame.count > 0) || copy_range.is_some();
                if !holds || first > self.next || first < state.first_seq || last > state.last_seq {
                    continue;
                }
                if frame.kind.holds_records() && self.is_superseded(catalog, &place, &frame) {
                    continue;
                }
                let batch = Prefix::read(payload, frame.flags.is_part()).and_then(|(prefix, _)| prefix.batch);
                if let Some(batch) = batch.filter(|_| copy_range.is_none()) {
                    let known = self.chain.filter(|(b, _)| *b == batch);
                    let whole = known.map_or_else(|| chain_is_whole(s, catalog, mem, batch), |(_, whole)| whole);
                    self.chain = Some((batch, whole));
                    if !whole {
                        continue;
                    }
                }
                // The original comes before its copy, and counts.
                if copy_range.is_none() || found.is_none_or(|(_, known)| known < last) {
                    found = Some((before, last));
                }
            }
            if let Some((walker, last)) = found {
                if last >= self.next {
                    return self.load_found(s, catalog, mem, walker);
                }
                lowest = lowest.max(last.saturating_add(1));
                return self.missing(catalog, lowest, self.next);
            }
            match index.checked_sub(1) {
                Some(before) => index = before,
                None => return self.missing(catalog, lowest, self.next),
            }
        }
    }

    fn load_found<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        mut walker: Walker,
    ) -> Step {
        let next = self.next;
        if let Some(Found::Frame { frame, payload, .. }) = walker.next(s, mem.frame) {
            let start = usize::try_from(catalog.layout.payload_at(frame.flags)).unwrap_or(0);
            if frame.kind == FrameKind::Origin {
                if let Some((_, Some(copy))) = Origin::read(payload) {
                    let copied = Frame {
                        kind: FrameKind::Rows,
                        flags: FrameFlags::WHOLE,
                        first_seq: copy.first_seq,
                        count: copy.count,
                        ..frame
                    };
                    self.load_rows(copy.payload, &copied, start.saturating_add(copy.at));
                }
            } else {
                self.load(mem, &frame, start);
            }
        }
        match self.from_loaded() {
            Some(seq) => Step::Record(seq),
            None => self.missing(catalog, next, next), // unreadable now, though it verified a moment ago
        }
    }

    /// Behind the last record there may be boots and a close frame.
    fn closing_events<S: ReadStorage>(&mut self, s: &mut S, catalog: &Catalog<'_>, mem: &mut ScanMemory<'_>) -> Step {
        if self.options.reverse || self.end < catalog.durable_upto {
            return Step::End;
        }
        if self.place.is_none() && self.next > self.end && self.loaded.is_none() {
            let last = catalog.pool.order().len().saturating_sub(1);
            self.place = Self::open_place(s, catalog, mem, last, self.next);
        }
        while let Some(mut place) = self.place.take() {
            match place.walker.next(s, mem.frame) {
                None => {
                    self.place = Self::open_place(s, catalog, mem, place.index.saturating_add(1), 0);
                    if self.place.is_none() {
                        self.options.reverse = true; // nothing more to look at
                    }
                }
                Some(Found::Frame { frame, payload, .. }) if !frame.kind.holds_records() => {
                    let event = match frame.kind {
                        FrameKind::Origin => Origin::read(payload).map(|(origin, _)| Event::Boot(origin)),
                        FrameKind::Close => Close::read(payload).map(Event::Close),
                        _ => None,
                    };
                    self.place = Some(place);
                    if let Some(event) = event {
                        return Step::Event(event);
                    }
                }
                Some(_) => self.place = Some(place),
            }
        }
        Step::End
    }
}

fn first_piece(catalog: &Catalog<'_>, first: u64, last: u64) -> Gap {
    match catalog.gaps.first_in(first, last) {
        Some(gap) if gap.first_seq <= first => gap,
        Some(gap) => Gap::new(first, gap.first_seq.saturating_sub(1), true, GapCause::Rot),
        None => Gap::new(first, last, true, GapCause::Rot),
    }
}

fn last_piece(catalog: &Catalog<'_>, first: u64, last: u64) -> Gap {
    let mut piece = first_piece(catalog, first, last);
    while piece.last_seq < last {
        piece = first_piece(catalog, piece.last_seq.saturating_add(1), last);
    }
    piece
}

/// Notes where each row stands; `false` if there are more rows than slots.
fn fill_slots(payload: &[u8], loaded: &Loaded, start: usize, slots: &mut [u32]) -> bool {
    let Some(rows) = payload.get(loaded.start.saturating_sub(start)..) else { return false };
    let Some(slots) = usize::try_from(loaded.count).ok().and_then(|n| slots.get_mut(..n)) else { return false };
    let mut items = ItemReader::new(rows);
    let mut filled = 0;
    loop {
        let at = rows.len().saturating_sub(items.rest().len());
        match items.next() {
            None => return filled == slots.len(),
            Some(Item::Row(_)) => {
                let (Some(slot), Ok(at)) = (slots.get_mut(filled), u32::try_from(at)) else { return false };
                *slot = at;
                filled = filled.saturating_add(1);
            }
            Some(_) => {}
        }
    }
}

fn row_of<'b>(loaded: &Loaded, mem: &'b ScanMemory<'_>, seq: u64) -> Option<Row<'b>> {
    let index = usize::try_from(seq.checked_sub(loaded.first_seq)?).ok()?;
    let bytes: &[u8] = if loaded.in_raw { mem.raw } else { mem.frame };
    let rows = bytes.get(loaded.start..)?.get(..loaded.len)?;
    if loaded.has_slots {
        let at = usize::try_from(*mem.slots.get(index)?).ok()?;
        return match ItemReader::new(rows.get(at..)?).next()? {
            Item::Row(row) => Some(row),
            _ => None,
        };
    }
    let rows = ItemReader::new(rows).filter_map(|item| match item {
        Item::Row(row) => Some(row),
        _ => None,
    });
    rows.skip(index).next()
}

/// Moves a walker over a wide segment close to the frame that holds `seq`, by bisection over the frame headers.
fn seek<S: ReadStorage>(s: &mut S, walker: &mut Walker, seq: u64, buf: &mut [u8]) {
    let unit = walker.layout.frame_unit.max(1);
    let (mut low, mut high) = (walker.at, walker.layout.data_end());
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
fn chain_is_whole<S: ReadStorage>(
    s: &mut S,
    catalog: &Catalog<'_>,
    mem: &mut ScanMemory<'_>,
    batch: (u64, u64),
) -> bool {
    let mut index = catalog.pool.locate(batch.0);
    let mut next = batch.0;
    let mut part = 0u16;
    while let Some(mut place) = Scan::open_place(s, catalog, mem, index, if part == 0 { batch.0 } else { 0 }) {
        while let Some(found) = place.walker.next(s, mem.frame) {
            let Found::Frame { frame, payload, .. } = found else { continue };
            let state = catalog.pool.get(place.segment).state;
            if !frame.kind.holds_records() || !frame.flags.is_part() || frame.last_seq() > state.last_seq {
                continue;
            }
            if Prefix::read(payload, true).and_then(|(prefix, _)| prefix.batch) != Some(batch) {
                continue;
            }
            if frame.part != part || frame.first_seq != next {
                return false;
            }
            next = frame.last_seq().saturating_add(1);
            part = part.saturating_add(1);
            if frame.flags.has(FrameFlags::LAST) {
                return next == batch.1.saturating_add(1);
            }
        }
        index = index.saturating_add(1);
        if catalog.pool.order().get(index).is_none_or(|s| catalog.pool.get(*s).state.first_seq > batch.1) {
            return false;
        }
    }
    false
}
