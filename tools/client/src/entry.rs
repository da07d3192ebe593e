//! What stands in a log: records, gaps and events.
//!
//! Invariant: an entry borrows from the reader and is gone with the next one; nothing is copied to show it.

use lastgasp_core::format::fields::Fields;
use lastgasp_core::format::row::TraceContext;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::readout::answer::Event;

/// One thing at its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record.
    Record(Record<'a>),
    /// Records that are gone.
    Gap(Gap<'a>),
    /// A boot or a clean stop. Only forward reads give them.
    Event(Event),
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// Its stream's name; `stream-N` if the store no longer knows the name of stream N.
    pub stream: &'a str,
    /// Severity, 1 to 24 as in OpenTelemetry; 0 is unknown.
    pub severity: u8,
    /// The boot it was received in, where that is known.
    pub boot: Option<u32>,
    /// Microseconds between the start of its clock epoch and its receipt.
    pub received_offset_us: u64,
    /// When it was received by the wall clock, microseconds since 1970; none if the clock epoch is forgotten.
    pub received_us: Option<i64>,
    /// The wall clock was synchronised when it was received.
    pub synchronised: bool,
    /// When it happened, as the sender said: microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Trace and span it belongs to.
    pub trace: Option<TraceContext>,
    /// It goes on in the next record of its stream.
    pub continued: bool,
    /// The text or bytes of the record.
    pub body: &'a [u8],
    /// Its fields as they are stored; see [`Record::fields`].
    pub field_bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// When it happened: by the sender's clock where it said, else when it was received.
    #[must_use]
    pub fn time_us(&self) -> Option<i64> {
        self.event_time_us.or(self.received_us)
    }

    /// Its fields, decoded as they are asked for.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.field_bytes)
    }
}

/// Records that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap<'a> {
    /// First sequence number.
    pub first_seq: u64,
    /// Last sequence number; less than the first where no numbers are concerned (`LedgerLost`).
    pub last_seq: u64,
    /// `true` if every number of the range stood for a record; otherwise at most so many were lost.
    pub exact: bool,
    /// Why.
    pub cause: GapCause,
    /// The stream concerned; none for any.
    pub stream: Option<&'a str>,
}

impl Gap<'_> {
    /// How many records are gone, at most.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.last_seq < self.first_seq { 0 } else { (self.last_seq - self.first_seq).saturating_add(1) }
    }
}
