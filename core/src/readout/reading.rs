//! One window of the log, entry by entry.
//!
//! Invariants: an entry is passed only when it was sent, so that one which did not fit comes again; what the window
//! says last is where the next one begins; without the scan's memory it goes on where it was.

use super::answer::{End, Event, Record};
use super::request::Read;
use crate::catalog::Catalog;
use crate::format::row::STREAM_NAME_BYTES_MAX;
use crate::gaps::{Gap, GapCause};
use crate::hal::ReadStorage;
use crate::scan::{self, Filter, Looked, Scan, ScanMemory, ScanOptions};

/// Records that one call looks at.
const LOOKED_AT_MAX: u32 = 16_384;
/// So often a range is read again with a newer catalog before it is called rotten: each time, what was read had been
/// dropped or moved meanwhile.
const DOUBTS_MAX: u8 = 16;

/// A stream with this number never is.
const STREAM_UNKNOWN: u16 = u16::MAX;

/// What comes next in a window.
pub(super) enum Found<'b> {
    /// This record; [`Reading::sent`] when it is.
    Record(Record<'b>),
    /// This gap; likewise.
    Gap(Gap),
    /// This event; likewise.
    Event(Event),
    /// Nothing before this number; likewise.
    Progress(u64),
    /// There is nothing to send now.
    Stop(Stop),
}

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A newer catalog is needed.
    Refresh,
    /// More has to become durable, for so many milliseconds.
    Wait(u32),
    /// The window is over.
    End(End),
}

/// What was found and not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Record(u64),
    Gap(Gap),
    Event(Event),
    Progress(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reading {
    /// Where the window begins, when that is known.
    start: Option<u64>,
    from: u64,
    to: u64,
    reverse: bool,
    filter: Filter,
    stream: Option<heapless::String<STREAM_NAME_BYTES_MAX>>,
    records_left: Option<u32>,
    bytes_left: Option<u32>,
    wait_ms: u32,
    wait_over: bool,
    /// There was something to read when the window began.
    begun: bool,
    scan: Option<Scan>,
    held: Option<Held>,
    /// A range that looked rotten by the catalog of this edit.
    doubt: Option<(Gap, u64)>,
    doubts: u8,
    /// How many events were sent in front of which record, and how many of them a new scan will show again.
    told: (u64, u32),
    told_again: u32,
    ledger_told: bool,
}

impl Reading {
    /// `None` if the stream's name is longer than any can be.
    pub(super) fn new(read: &Read<'_>) -> Option<Self> {
        let stream = match read.stream {
            Some(name) => Some(heapless::String::try_from(name).ok()?),
            None => None,
        };
        let limit = |n: u32| (n > 0).then_some(n);
        let filter = Filter {
            stream: None,
            severity_min: (read.severity_min > 0).then_some(read.severity_min),
            since_us: read.since_us,
            until_us: read.until_us,
        };
        Some(Self {
            start: None,
            from: read.from.max(1),
            to: read.to,
            reverse: read.reverse,
            filter,
            stream,
            records_left: limit(read.records_max),
            bytes_left: limit(read.bytes_max),
            wait_ms: if read.reverse { 0 } else { read.wait_ms },
            wait_over: false,
            begun: false,
            scan: None,
            held: None,
            doubt: None,
            doubts: 0,
            told: (0, 0),
            told_again: 0,
            ledger_told: false,
        })
    }

    pub(super) fn wait_over(&mut self) {
        self.wait_over = true;
    }

    /// Forgets the scan, but not where it is.
    pub(super) fn release(&mut self) {
        let Some(scan) = self.scan.take() else { return };
        self.go_on_from(scan.position());
        if let Some(Held::Record(seq)) = self.held {
            self.held = None;
            self.go_on_from(seq);
        }
    }

    fn go_on_from(&mut self, seq: u64) {
        if self.reverse {
            self.to = seq;
        } else {
            self.from = seq;
        }
    }

    /// The message that [`Self::next`] gave was sent, in so many bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_beside(bytes);
        match self.held.take() {
            Some(Held::Record(_)) => {
                if let Some(left) = &mut self.records_left {
                    *left = left.saturating_sub(1);
                }
            }
            Some(Held::Event(_)) => {
                let at = self.scan.as_ref().map_or(self.from, Scan::position);
                let before = if self.told.0 == at { self.told.1 } else { 0 };
                self.told = (at, before.saturating_add(1));
            }
            Some(Held::Gap(gap)) if gap.cause == GapCause::LedgerLost => self.ledger_told = true,
            Some(Held::Gap(_) | Held::Progress(_)) | None => {}
        }
    }

    /// A message that goes with the next one was sent.
    pub(super) fn sent_beside(&mut self, bytes: usize) {
        if let Some(left) = &mut self.bytes_left {
            *left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// What comes next: the same again until it is [`Self::sent`].
    pub(super) fn next<'b, S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &'b mut ScanMemory<'_>,
    ) -> Found<'b> {
        if self.held.is_none() {
            self.settle(catalog);
            while self.held.is_none() {
                match self.look(s, catalog, mem) {
                    Ok(held) => self.held = held,
                    Err(stop) => return Found::Stop(stop),
                }
            }
        }
        match self.held {
            Some(Held::Gap(gap)) => Found::Gap(gap),
            Some(Held::Event(event)) => Found::Event(event),
            Some(Held::Progress(next)) => Found::Progress(next),
            Some(Held::Record(seq)) => {
                match self.scan.as_ref().and_then(|scan| scan.record(catalog, mem, seq)) {
                    Some(record) => Found::Record(as_sent(&record)),
                    // Something else has used the memory: read it again.
                    None => {
                        self.release();
                        Found::Stop(Stop::Refresh)
                    }
                }
            }
            None => Found::Stop(Stop::Refresh),
        }
    }

    /// What looked rotten is, if nothing was dropped or moved since its catalog; else it is read again.
    fn settle(&mut self, catalog: &Catalog<'_>) {
        let Some((gap, edit_no)) = self.doubt.take() else { return };
        if edit_no == catalog.edit_no() || self.doubts >= DOUBTS_MAX {
            self.doubts = 0;
            self.held = Some(Held::Gap(gap));
            return;
        }
        self.doubts = self.doubts.saturating_add(1);
        self.scan = None;
        self.go_on_from(if self.reverse { gap.last_seq } else { gap.first_seq });
    }

    fn begin(&mut self, catalog: &Catalog<'_>) -> Scan {
        let stream = self.stream.as_ref();
        let stream = stream.map(|name| catalog.streams().find(name).unwrap_or(STREAM_UNKNOWN));
        let filter = Filter { stream, ..self.filter };
        let scan = Scan::new(catalog, ScanOptions { from: self.from, to: self.to, reverse: self.reverse, filter });
        self.begun |= !scan.is_finished();
        self.start.get_or_insert(scan.position());
        self.told_again = if self.told.0 == self.from { self.told.1 } else { 0 };
        scan
    }

    /// Looks on: something to send, nothing yet, or what else is to be done.
    fn look<S: ReadStorage>(
        &mut self,
        s: &mut S,
        catalog: &Catalog<'_>,
        mem: &mut ScanMemory<'_>,
    ) -> Result<Option<Held>, Stop> {
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => self.begin(catalog),
        };
        if !self.begun && self.wait_ms > 0 && self.from <= self.to {
            return Err(match self.wait_over {
                true => Stop::End(self.end(&scan, catalog, true)),
                false => Stop::Wait(self.wait_ms),
            });
        }
        // The events behind the last record of a window that waits come with the next one.
        // Not between events and the record behind them either: the next window would begin with the same events.
        let at = scan.position();
        let may_end = Some(at) != self.start && at != self.told.0;
        let limited = (self.records_left == Some(0) || self.bytes_left == Some(0)) && may_end;
        let is_over = if scan.is_finished() { self.wait_ms > 0 } else { limited };
        if is_over {
            return Err(Stop::End(self.end(&scan, catalog, false)));
        }
        let looked = scan.next_within(s, catalog, mem, LOOKED_AT_MAX);
        let position = scan.position();
        let scan = self.scan.insert(scan);
        match looked {
            Looked::Record(seq) => Ok(Some(Held::Record(seq))),
            Looked::Gap(gap) if gap.cause == GapCause::Rot => {
                self.doubt = Some((gap, catalog.edit_no()));
                Err(Stop::Refresh)
            }
            Looked::Gap(gap) if gap.cause == GapCause::LedgerLost && self.ledger_told => Ok(None),
            Looked::Gap(gap) => Ok(Some(Held::Gap(gap))),
            Looked::Event(event) => {
                let wanted = self.wanted(event, catalog);
                if wanted.is_some() && self.told_again > 0 {
                    self.told_again = self.told_again.saturating_sub(1);
                    return Ok(None);
                }
                Ok(wanted.map(Held::Event))
            }
            Looked::NotYet => Ok(Some(Held::Progress(position))),
            Looked::End => {
                let end = End { next: 0, more: false, waited: false, durable_upto: catalog.durable_upto() };
                Err(Stop::End(if self.reverse { end } else { End { next: scan.position(), ..end } }))
            }
        }
    }

    fn end(&self, scan: &Scan, catalog: &Catalog<'_>, waited: bool) -> End {
        let next = if self.reverse && scan.is_finished() { 0 } else { scan.position() };
        End { next, more: !scan.is_finished(), waited, durable_upto: catalog.durable_upto() }
    }

    /// An event as it is sent, unless it lies before the window.
    fn wanted(&self, event: scan::Event, catalog: &Catalog<'_>) -> Option<Event> {
        match event {
            scan::Event::Boot(mut origin) => {
                origin.anchor = catalog.clocks().get(origin.anchor.clock_epoch).unwrap_or(origin.anchor);
                (origin.first_seq >= self.from).then_some(origin.into())
            }
            scan::Event::Close(close) => (close.next_seq >= self.from).then_some(close.into()),
        }
    }
}

fn as_sent<'b>(record: &scan::Record<'b>) -> Record<'b> {
    let row = &record.row;
    Record {
        seq: record.seq,
        stream: row.stream,
        severity: row.severity,
        continued: row.continued,
        boot: record.boot,
        clock_epoch: record.clock_epoch,
        received_offset_us: row.received_us,
        clock_wall_us: record.clock.map(|clock| clock.wall_us),
        synchronised: record.clock.is_some_and(|clock| clock.synchronised),
        event_time_us: row.event_time_us,
        trace: row.trace,
        body: row.body,
        fields: row.fields,
    }
}
