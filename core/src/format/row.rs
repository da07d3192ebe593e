//! What stands in a frame of records: a prefix, then items (SPEC, section 5).
//!
//! Invariants: an item is self-delimiting and carries no number that depends on its place, so it is copied between
//! memtable, log and row group unchanged; numbers are postcard varints (<https://postcard.jamesmunns.com>).

use super::header::ClockAnchor;
use crate::gaps::{Gap, GapCause};
use serde::{Serialize, de::Deserialize};

/// Longest stream name in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 255;
/// Longest key of a state entry in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 255;
/// Longest value of a state entry in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1024;

const TAG_END: u8 = 0;
const TAG_STREAM: u8 = 1;
const TAG_STATE: u8 = 2;
const TAG_CLOCK: u8 = 3;
const TAG_LOST: u8 = 4;
/// The low four bits of a row's tag are its flags.
const TAG_ROW: u8 = 0x10;
const ROW_EVENT_TIME: u8 = 1;
const ROW_TRACE: u8 = 2;
const ROW_FIELDS: u8 = 4;
const ROW_CONTINUED: u8 = 8;

/// W3C trace context of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
}

/// A record as it is stored: everything but its sequence number and clock epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Stream number.
    pub stream: u16,
    /// Severity, 1 to 24 as in OpenTelemetry; 0 is unknown.
    pub severity: u8,
    /// The record goes on in the next one of its stream.
    pub continued: bool,
    /// When it was received: microseconds since the anchor of its clock epoch.
    pub received_us: u64,
    /// When it happened, as the sender said: microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Trace and span it belongs to.
    pub trace: Option<TraceContext>,
    /// The text or bytes of the record.
    pub body: &'a [u8],
    /// Encoded fields, see [`super::fields`]; empty if there are none.
    pub fields: &'a [u8],
}

/// Records that were not taken in, and why. They have numbers, so that what is missing stands at its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Lost {
    /// How many: they take as many numbers.
    pub records: u32,
    /// The stream they belonged to, if it was one.
    pub stream: Option<u16>,
    /// Why.
    pub cause: GapCause,
    /// When the first of them was lost: microseconds since the anchor of the clock epoch.
    pub since_us: u64,
    /// When the last of them was lost.
    pub until_us: u64,
}

impl Lost {
    /// The gap they leave, if the first of them has number `first_seq`.
    #[must_use]
    pub fn gap(&self, first_seq: u64) -> Gap {
        let last_seq = first_seq.saturating_add(u64::from(self.records)).saturating_sub(1);
        Gap { first_seq, last_seq, exact: true, cause: self.cause, stream: self.stream }
    }
}

/// One item of a frame of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A record.
    Row(Row<'a>),
    /// A stream's number and name, before its first record in a segment.
    Stream {
        /// Stream number.
        id: u16,
        /// Its name.
        name: &'a str,
    },
    /// A state entry that is durable with its batch: a source's cursor.
    State {
        /// Whose state.
        key: &'a [u8],
        /// The state; empty removes the entry.
        value: &'a [u8],
    },
    /// A clock epoch that begins here.
    Clock(ClockAnchor),
    /// Records that were not taken in. It stands in a frame without records.
    Lost(Lost),
}

impl Item<'_> {
    /// How many sequence numbers it takes.
    #[must_use]
    pub fn numbers(&self) -> u32 {
        match self {
            Self::Row(_) => 1,
            Self::Lost(lost) => lost.records,
            Self::Stream { .. } | Self::State { .. } | Self::Clock(_) => 0,
        }
    }
}

/// Writes items one after another into a slice.
#[derive(Debug)]
pub struct ItemWriter<'b> {
    out: &'b mut [u8],
    at: usize,
}

impl<'b> ItemWriter<'b> {
    /// Starts at the front of `out`.
    pub fn new(out: &'b mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at
    }

    /// `true` if nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Copies bytes; `None` if they do not fit.
    pub fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        super::bytes::put(self.out, self.at, bytes)?;
        self.at = self.at.checked_add(bytes.len())?;
        Some(())
    }

    /// Writes a value by postcard; `None` if it does not fit.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Option<()> {
        let used = postcard::to_slice(value, self.out.get_mut(self.at..)?).ok()?.len();
        self.at = self.at.checked_add(used)?;
        Some(())
    }

    /// Writes an item; `None` if it does not fit, and then what was written of it does not count.
    pub fn item(&mut self, item: &Item<'_>) -> Option<()> {
        let start = self.at;
        let done = self.try_item(item);
        if done.is_none() {
            self.at = start;
        }
        done
    }

    fn try_item(&mut self, item: &Item<'_>) -> Option<()> {
        match item {
            Item::Row(row) => self.row(row),
            Item::Stream { id, name } => {
                self.bytes(&[TAG_STREAM])?;
                self.value(&(*id, *name))
            }
            Item::State { key, value } => {
                self.bytes(&[TAG_STATE])?;
                self.value(&(*key, *value))
            }
            Item::Clock(anchor) => {
                self.bytes(&[TAG_CLOCK])?;
                self.value(anchor)
            }
            Item::Lost(lost) => {
                self.bytes(&[TAG_LOST])?;
                self.value(lost)
            }
        }
    }

    fn row(&mut self, row: &Row<'_>) -> Option<()> {
        let mut tag = TAG_ROW;
        tag |= if row.event_time_us.is_some() { ROW_EVENT_TIME } else { 0 };
        tag |= if row.trace.is_some() { ROW_TRACE } else { 0 };
        tag |= if row.fields.is_empty() { 0 } else { ROW_FIELDS };
        tag |= if row.continued { ROW_CONTINUED } else { 0 };
        self.bytes(&[tag, row.severity])?;
        self.value(&row.stream)?;
        self.value(&row.received_us)?;
        if let Some(time) = row.event_time_us {
            self.value(&time)?;
        }
        if let Some(trace) = row.trace {
            self.bytes(&trace.trace_id)?;
            self.bytes(&trace.span_id)?;
        }
        self.value(row.body)?;
        if row.fields.is_empty() { Some(()) } else { self.value(row.fields) }
    }
}

/// Reads items one after another; ends at the end of the bytes, at padding, or at the first item that is malformed.
#[derive(Debug, Clone)]
pub struct ItemReader<'b> {
    rest: &'b [u8],
    malformed: bool,
}

impl<'b> ItemReader<'b> {
    /// Reads `bytes`.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes, malformed: false }
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'b [u8] {
        self.rest
    }

    /// `true` if reading ended at a malformed item.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }

    /// Reads one value by postcard.
    pub(crate) fn value<T: Deserialize<'b>>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }

    fn item(&mut self) -> Option<Item<'b>> {
        let tag = *self.take(1)?.first()?;
        if tag & 0xF0 == TAG_ROW {
            return self.row(tag).map(Item::Row);
        }
        match tag {
            TAG_STREAM => {
                let (id, name): (u16, &str) = self.value()?;
                Some(Item::Stream { id, name })
            }
            TAG_STATE => {
                let (key, value): (&[u8], &[u8]) = self.value()?;
                Some(Item::State { key, value })
            }
            TAG_CLOCK => Some(Item::Clock(self.value()?)),
            TAG_LOST => Some(Item::Lost(self.value()?)),
            _ => None,
        }
    }

    fn row(&mut self, tag: u8) -> Option<Row<'b>> {
        let severity = *self.take(1)?.first()?;
        let stream = self.value()?;
        let received_us = self.value()?;
        let event_time_us = if tag & ROW_EVENT_TIME == 0 { None } else { Some(self.value()?) };
        let trace = if tag & ROW_TRACE == 0 {
            None
        } else {
            Some(TraceContext { trace_id: self.take(16)?.try_into().ok()?, span_id: self.take(8)?.try_into().ok()? })
        };
        let body = self.value()?;
        let fields = if tag & ROW_FIELDS == 0 { &[] } else { self.value::<&[u8]>()? };
        let continued = tag & ROW_CONTINUED != 0;
        Some(Row { stream, severity, continued, received_us, event_time_us, trace, body, fields })
    }
}

impl<'b> Iterator for ItemReader<'b> {
    type Item = Item<'b>;

    fn next(&mut self) -> Option<Item<'b>> {
        if self.malformed || self.rest.first().is_none_or(|tag| *tag == TAG_END) {
            return None;
        }
        let item = self.item();
        self.malformed = item.is_none();
        item
    }
}

/// What opens the payload of a frame of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Clock epoch of the records.
    pub clock_epoch: u32,
    /// For a part of a chain: first and last sequence number of the whole batch.
    pub batch: Option<(u64, u64)>,
}

impl Prefix {
    /// Most bytes a prefix takes.
    pub const BYTES_MAX: usize = 5 + 10 + 10;

    /// Writes the prefix; the batch is written exactly if the frame is part of a chain.
    pub fn write(&self, out: &mut ItemWriter<'_>) -> Option<()> {
        out.value(&self.clock_epoch)?;
        match self.batch {
            Some(batch) => out.value(&batch),
            None => Some(()),
        }
    }

    /// Reads the prefix of a frame; leaves the items in the reader.
    #[must_use]
    pub fn read(payload: &[u8], is_part: bool) -> Option<(Self, ItemReader<'_>)> {
        let mut reader = ItemReader::new(payload);
        let clock_epoch = reader.value()?;
        let batch = if is_part { Some(reader.value()?) } else { None };
        Some((Self { clock_epoch, batch }, reader))
    }
}

/// Bytes of an item, as it would be written.
#[must_use]
pub fn row_bytes_max(row: &Row<'_>) -> usize {
    // tag, severity; stream, received, event time, body and fields lengths as varints; trace
    let fixed: usize = 2 + 3 + 10 + 10 + 5 + 5 + 24;
    fixed.saturating_add(row.body.len()).saturating_add(row.fields.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_row() -> Row<'static> {
        Row {
            stream: 300,
            severity: 17,
            continued: true,
            received_us: 1 << 40,
            event_time_us: Some(-7),
            trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8] }),
            body: b"a\0\xFFb",
            fields: &[1, 2, 3],
        }
    }

    fn plain_row() -> Row<'static> {
        Row {
            stream: 1,
            severity: 9,
            continued: false,
            received_us: 5,
            event_time_us: None,
            trace: None,
            body: b"",
            fields: &[],
        }
    }

    #[test]
    fn items_round_trip_in_order() {
        let items = [
            Item::Stream { id: 1, name: "kernel" },
            Item::Row(plain_row()),
            Item::State { key: b"file:1", value: b"99" },
            Item::Clock(ClockAnchor { clock_epoch: 4, wall_us: 9, synchronised: true }),
            Item::Lost(Lost { records: 7, stream: Some(1), cause: GapCause::Overload, since_us: 1, until_us: 9 }),
            Item::Row(full_row()),
        ];
        let mut out = [0u8; 256];
        let mut writer = ItemWriter::new(&mut out);
        for item in &items {
            writer.item(item).unwrap();
        }
        let mut reader = ItemReader::new(&out);
        assert!(reader.by_ref().eq(items));
        assert!(!reader.is_malformed());
    }

    #[test]
    fn an_item_that_does_not_fit_leaves_the_writer_as_it_was() {
        let mut out = [0u8; 12];
        let mut writer = ItemWriter::new(&mut out);
        writer.item(&Item::Row(plain_row())).unwrap();
        let len = writer.len();
        assert_eq!(writer.item(&Item::Row(full_row())), None);
        assert_eq!(writer.len(), len);
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_reader() {
        proptest::proptest!(|(bytes: std::vec::Vec<u8>)| {
            let mut reader = ItemReader::new(&bytes);
            let read = reader.by_ref().count();
            proptest::prop_assert!(read <= bytes.len());
        });
    }

    #[test]
    fn a_short_plain_record_costs_little() {
        let mut out = [0u8; 64];
        let mut writer = ItemWriter::new(&mut out);
        writer.item(&Item::Row(plain_row())).unwrap();
        assert_eq!(writer.len(), 5);
    }
}
