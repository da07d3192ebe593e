//! Reading: records, gaps and events by sequence number, in both directions.
//!
//! Invariants: every number of the range comes exactly once, as a record or inside a gap, whatever is damaged; what is
//! void by rule R never comes; a batch comes whole or not at all; a cursor holds nothing back: if retention overtakes
//! it, it says so and goes on.

mod backward;
mod forward;
mod place;
mod rows;
mod tables;

use crate::catalog::Catalog;
use crate::format::events::{Close, Origin};
use crate::format::header::ClockAnchor;
use crate::format::row::Row;
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::walk::Walker;
pub(crate) use place::chain_is_whole;
use rows::{Loaded, row_of};
use tables::TableScan;

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
    /// The records of one row group per retention class with tables, decoded: each more than 1 MiB on Linux; empty
    /// where none are written.
    pub raw: &'b mut [u8],
    /// Where records lie in their frame; if it is shorter than a frame has records, each is looked for from the front.
    /// Two per record of one row group, per retention class with tables.
    pub slots: &'b mut [u32],
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'b> {
    /// Its sequence number.
    pub seq: u64,
    /// Anchor of its clock epoch, while the store still knows it.
    pub clock: Option<ClockAnchor>,
    /// Its clock epoch.
    pub clock_epoch: u32,
    /// Epoch of the boot that took it in; 0 if only a copy of its frame was found.
    pub boot: u32,
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

/// What a scan found within a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// A record that the filter wants.
    Record(u64),
    /// Records that are gone.
    Gap(Gap),
    /// An event.
    Event(Event),
    /// The bound is reached.
    NotYet,
    /// There is nothing more.
    End,
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

impl Place {
    /// The place by a catalog that may be newer; `None` if its segment was dropped.
    fn still(mut self, catalog: &Catalog<'_>) -> Option<Self> {
        if catalog.pool.get(self.segment).state.generation != self.generation {
            return None;
        }
        let order = catalog.pool.order();
        if order.get(self.index) != Some(&self.segment) {
            self.index = order.iter().position(|segment| *segment == self.segment)?;
        }
        Some(self)
    }
}

/// A cursor over the log. It borrows nothing between calls.
#[derive(Debug)]
pub struct Scan {
    options: ScanOptions,
    /// The next number to give out; downwards in reverse.
    next: u64,
    end: u64,
    finished: bool,
    /// The events behind the last record were given out.
    closed: bool,
    /// Epoch of the last boot given out.
    boot: u32,
    place: Option<Place>,
    loaded: Option<Loaded>,
    /// The chain that was looked at last, and whether it is whole.
    chain: Option<((u64, u64), bool)>,
    ledger_shown: bool,
    tables: TableScan,
    /// Only the tables of this class.
    only_class: Option<u8>,
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
        Self {
            options,
            next,
            end,
            finished,
            closed: false,
            boot: 0,
            place: None,
            loaded: None,
            chain: None,
            ledger_shown,
            tables: TableScan::default(),
            only_class: None,
        }
    }

    /// For a rewrite: the records numbered `first..=last`, of one class's tables or else of the log.
    pub(crate) fn for_rewrite(catalog: &Catalog<'_>, (from, to): (u64, u64), only_class: Option<u8>) -> Self {
        let options = ScanOptions { from, to, ..ScanOptions::default() };
        Self { only_class, ledger_shown: true, ..Self::new(catalog, options) }
    }

    /// The number that the next record would have at least (at most in reverse); to go on later from here.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// All numbers of the range were given out or passed by; only events can come yet.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next entry; `None` at the end.
    pub fn next<'b, S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &'b mut ScanMemory<'_>,
    ) -> Option<Entry<'b>> {
        let seq = loop {
            match self.next_within(s, catalog, mem, u32::MAX) {
                Looked::Record(seq) => break seq,
                Looked::Gap(gap) => return Some(Entry::Gap(gap)),
                Looked::Event(event) => return Some(Entry::Event(event)),
                Looked::End => return None,
                Looked::NotYet => {}
            }
        };
        self.record(catalog, mem, seq).map(Entry::Record)
    }

    /// As [`Self::next`], but looks at no more than about so many records and frames.
    pub(crate) fn next_within<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
        most: u32,
    ) -> Looked {
        for _ in 0..most {
            match self.step(s, catalog, mem) {
                Step::Gap(gap) => return Looked::Gap(gap),
                Step::Event(event) => return Looked::Event(event),
                Step::End => return Looked::End,
                Step::Record(seq) => match self.record(catalog, mem, seq) {
                    Some(record) if self.options.filter.matches(&record) => return Looked::Record(seq),
                    Some(_) => {}
                    None if self.loaded.is_some_and(|loaded| loaded.is_left_out(mem, seq)) => {}
                    None if self.loaded.is_none() && self.table_row(mem, seq).is_some() => {}
                    None => return Looked::Gap(Gap::new(seq, seq, true, GapCause::Rot)),
                },
            }
        }
        Looked::NotYet
    }

    /// The record of [`Looked::Record`], as long as nothing else uses the memory.
    pub(crate) fn record<'b>(&self, catalog: &Catalog<'_>, mem: &'b ScanMemory<'_>, seq: u64) -> Option<Record<'b>> {
        let ((clock_epoch, boot), row) = match self.loaded {
            Some(loaded) => ((loaded.clock_epoch, loaded.boot), row_of(&loaded, mem, seq)?),
            None => self.table_row(mem, seq).and_then(|(from, row)| Some((from, row?)))?,
        };
        Some(Record { seq, clock: catalog.clocks.get(clock_epoch), clock_epoch, boot, row })
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
        if let Some(step) = self.take_loaded() {
            return step;
        }
        if self.next < catalog.log_floor() {
            return self.load_tables(s, catalog, mem);
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

    fn take_loaded(&mut self) -> Option<Step> {
        let loaded = self.loaded?;
        let seq = self.next;
        if seq < loaded.first_seq || loaded.last_seq() < seq {
            return None;
        }
        let Some(lost) = loaded.lost else {
            self.pass(seq);
            return Some(Step::Record(seq));
        };
        let mut gap = lost.gap(loaded.first_seq);
        if self.options.reverse {
            (gap.first_seq, gap.last_seq) = (gap.first_seq.max(self.end), seq);
            self.pass(gap.first_seq);
        } else {
            (gap.first_seq, gap.last_seq) = (seq, gap.last_seq.min(self.end));
            self.pass(gap.last_seq);
        }
        Some(Step::Gap(gap))
    }

    /// The numbers `first..=last` are missing: gives out the piece at the near end, with its cause.
    fn missing(&mut self, catalog: &Catalog<'_>, first: u64, last: u64) -> Step {
        let gap =
            if self.options.reverse { last_piece(catalog, first, last) } else { first_piece(catalog, first, last) };
        self.pass(if self.options.reverse { gap.first_seq } else { gap.last_seq });
        Step::Gap(gap)
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
