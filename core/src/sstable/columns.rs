//! The columns of a sub-block: how large they will be, and writing them. [`super::decode`] reads them.
//!
//! | column | bytes |
//! |---|---|
//! | what there is | 1: bit 0 body lengths, bit 1 event times, bit 2 traces, bit 3 fields; the others are 0 |
//! | received, first record | varint |
//! | event time, first one | signed varint; only with bit 1 |
//! | bytes of all fields | varint; only with bit 3 |
//! | severities | 1 a record |
//! | flags | 1 a record: bit 0 event time, bit 1 trace, bit 2 fields, bit 3 goes on in the next record of the stream |
//! | sequence numbers | differences: one number a record but the first |
//! | received | differences: one number a record but the first |
//! | event times | differences: one number a record with an event time but the first; only with bit 1 |
//! | body lengths | one number a record; only with bit 0 |
//! | field lengths | one number a record with fields; only with bit 3 |
//! | traces | trace id (16) and span id (8) of each record that has them |
//! | fields | those of all records, one after another |
//! | bodies | those of all records, to the end; without bit 0 each is ended by a NUL |
//!
//! Numbers are packed as [`super::numbers`] says. NULs stand for lengths where no body holds one: a length is noise to
//! the compressor, the end of a line is not. Bodies of one length have it in a column, where it takes no bits.
//!
//! Invariants: [`Tally::raw_bytes`] says to the byte what [`Tally::write`] writes; a sub-block holds one record at
//! least.

use super::numbers::{NumberSize, NumberWriter, signed_bytes, varint_bytes};
use super::{SEVERITY_BANDS, severity_band};
use crate::format::row::{ItemWriter, Row};

pub(super) const HAS_LENGTHS: u8 = 1;
pub(super) const HAS_EVENT_TIMES: u8 = 2;
pub(super) const HAS_TRACES: u8 = 4;
pub(super) const HAS_FIELDS: u8 = 8;

pub(super) const ROW_EVENT_TIME: u8 = 1;
pub(super) const ROW_TRACE: u8 = 2;
pub(super) const ROW_FIELDS: u8 = 4;
pub(super) const ROW_CONTINUED: u8 = 8;

/// Bytes of a trace id and a span id.
pub(super) const TRACE_BYTES: usize = 24;

/// How far `to` is from `from`, modulo 2^64.
fn step(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

/// Bytes of a record as a row item.
fn row_bytes(row: &Row<'_>) -> usize {
    let bytes = |slice: &[u8]| varint_bytes(slice.len() as u64).saturating_add(slice.len());
    let mut sum = varint_bytes(u64::from(row.stream)).saturating_add(varint_bytes(row.received_us)).saturating_add(2);
    sum = sum.saturating_add(row.event_time_us.map_or(0, signed_bytes));
    sum = sum.saturating_add(if row.trace.is_some() { TRACE_BYTES } else { 0 });
    sum = sum.saturating_add(if row.fields.is_empty() { 0 } else { bytes(row.fields) });
    sum.saturating_add(bytes(row.body))
}

/// What a sub-block holds, counted before it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) count: u32,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// Bytes of the records as row items.
    pub(super) row_bytes: usize,
    pub(super) min_received_us: u64,
    pub(super) max_received_us: u64,
    pub(super) severities: [u32; SEVERITY_BANDS],
    /// Records with an event time.
    pub(super) timed: u32,
    pub(super) min_event_us: i64,
    pub(super) max_event_us: i64,
    first_received_us: u64,
    last_received_us: u64,
    first_event_us: i64,
    last_event_us: i64,
    traces: usize,
    body_bytes: usize,
    field_bytes: usize,
    /// Length of every body so far, if it is the same.
    body_len: Option<usize>,
    has_nul: bool,
    seqs: NumberSize,
    received: NumberSize,
    events: NumberSize,
    lengths: NumberSize,
    field_lengths: NumberSize,
}

impl Tally {
    /// Counts the next record of the stream; `None` if it is too large to count.
    pub(super) fn add(&mut self, seq: u64, row: &Row<'_>) -> Option<()> {
        if self.count == 0 {
            (self.first_seq, self.first_received_us) = (seq, row.received_us);
            (self.min_received_us, self.max_received_us) = (row.received_us, row.received_us);
            self.body_len = Some(row.body.len());
        } else {
            self.seqs.add(step(self.last_seq, seq));
            self.received.add(step(self.last_received_us, row.received_us));
            self.min_received_us = self.min_received_us.min(row.received_us);
            self.max_received_us = self.max_received_us.max(row.received_us);
        }
        (self.last_seq, self.last_received_us) = (seq, row.received_us);
        self.count = self.count.checked_add(1)?;
        self.row_bytes = self.row_bytes.checked_add(row_bytes(row))?;
        let band = self.severities.get_mut(severity_band(row.severity))?;
        *band = band.saturating_add(1);
        if let Some(event) = row.event_time_us {
            self.add_event(event)?;
        }
        self.traces = self.traces.checked_add(usize::from(row.trace.is_some()))?;
        if !row.fields.is_empty() {
            self.field_lengths.add(i64::try_from(row.fields.len()).ok()?);
            self.field_bytes = self.field_bytes.checked_add(row.fields.len())?;
        }
        self.lengths.add(i64::try_from(row.body.len()).ok()?);
        self.body_bytes = self.body_bytes.checked_add(row.body.len())?;
        self.body_len = self.body_len.filter(|len| *len == row.body.len());
        self.has_nul = self.has_nul || row.body.contains(&0);
        Some(())
    }

    fn add_event(&mut self, event: i64) -> Option<()> {
        if self.timed == 0 {
            self.first_event_us = event;
            (self.min_event_us, self.max_event_us) = (event, event);
        } else {
            self.events.add(event.wrapping_sub(self.last_event_us));
            self.min_event_us = self.min_event_us.min(event);
            self.max_event_us = self.max_event_us.max(event);
        }
        self.last_event_us = event;
        self.timed = self.timed.checked_add(1)?;
        Some(())
    }

    fn has_lengths(&self) -> bool {
        self.has_nul || self.body_len.is_some()
    }

    /// Bytes of the column of body lengths.
    fn length_bytes(&self) -> usize {
        if self.has_lengths() { self.lengths.bytes() } else { 0 }
    }

    fn records(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Bytes in front of the severities.
    fn head_bytes(&self) -> usize {
        let event = if self.timed == 0 { 0 } else { signed_bytes(self.first_event_us) };
        let fields = if self.field_bytes == 0 { 0 } else { varint_bytes(self.field_bytes as u64) };
        varint_bytes(self.first_received_us).saturating_add(1).saturating_add(event).saturating_add(fields)
    }

    /// Bytes of all columns.
    pub(super) fn raw_bytes(&self) -> usize {
        let ends = if self.has_lengths() { self.length_bytes() } else { self.records() };
        let numbers = [self.seqs.bytes(), self.received.bytes(), self.events.bytes(), self.field_lengths.bytes(), ends];
        let bytes = [self.records().saturating_mul(2), self.traces.saturating_mul(TRACE_BYTES), self.field_bytes];
        let sum = numbers.iter().chain(&bytes).fold(self.head_bytes(), |sum, n| sum.saturating_add(*n));
        sum.saturating_add(self.body_bytes)
    }

    fn write_head(&self, out: &mut [u8]) -> Option<()> {
        let mut head = ItemWriter::new(out);
        let mut has = if self.has_lengths() { HAS_LENGTHS } else { 0 };
        has |= if self.timed > 0 { HAS_EVENT_TIMES } else { 0 };
        has |= if self.traces > 0 { HAS_TRACES } else { 0 };
        has |= if self.field_bytes > 0 { HAS_FIELDS } else { 0 };
        head.bytes(&[has])?;
        head.value(&self.first_received_us)?;
        if self.timed > 0 {
            head.value(&self.first_event_us)?;
        }
        if self.field_bytes > 0 {
            head.value(&self.field_bytes)?;
        }
        Some(())
    }

    /// Writes the columns of the records that were counted, in `out`, which is [`Self::raw_bytes`] long.
    pub(super) fn write<'r>(&self, rows: impl Iterator<Item = (u64, Row<'r>)>, out: &mut [u8]) -> Option<()> {
        let mut room = out;
        self.write_head(take(&mut room, self.head_bytes())?)?;
        let mut severities = take(&mut room, self.records())?.iter_mut();
        let mut flags = take(&mut room, self.records())?.iter_mut();
        let mut seqs = NumberWriter::new(take(&mut room, self.seqs.bytes())?);
        let mut received = NumberWriter::new(take(&mut room, self.received.bytes())?);
        let mut events = NumberWriter::new(take(&mut room, self.events.bytes())?);
        let mut lengths = NumberWriter::new(take(&mut room, self.length_bytes())?);
        let mut field_lengths = NumberWriter::new(take(&mut room, self.field_lengths.bytes())?);
        let mut traces = ItemWriter::new(take(&mut room, self.traces.saturating_mul(TRACE_BYTES))?);
        let mut fields = ItemWriter::new(take(&mut room, self.field_bytes)?);
        let mut bodies = ItemWriter::new(room);
        let (mut before, mut event_before) = (None::<(u64, u64)>, None::<i64>);
        for (seq, row) in rows {
            if let Some((seq_before, received_before)) = before.replace((seq, row.received_us)) {
                seqs.push(step(seq_before, seq))?;
                received.push(step(received_before, row.received_us))?;
            }
            let mut flag = if row.continued { ROW_CONTINUED } else { 0 };
            if let Some(event) = row.event_time_us {
                flag |= ROW_EVENT_TIME;
                if let Some(before) = event_before.replace(event) {
                    events.push(event.wrapping_sub(before))?;
                }
            }
            if let Some(trace) = row.trace {
                flag |= ROW_TRACE;
                traces.bytes(&trace.trace_id)?;
                traces.bytes(&trace.span_id)?;
            }
            if !row.fields.is_empty() {
                flag |= ROW_FIELDS;
                field_lengths.push(i64::try_from(row.fields.len()).ok()?)?;
                fields.bytes(row.fields)?;
            }
            bodies.bytes(row.body)?;
            if self.has_lengths() {
                lengths.push(i64::try_from(row.body.len()).ok()?)?;
            } else {
                bodies.bytes(&[0])?;
            }
            *severities.next()? = row.severity;
            *flags.next()? = flag;
        }
        for column in [seqs, received, events, lengths, field_lengths] {
            column.finish()?;
        }
        Some(())
    }
}

/// Splits `n` bytes off the front of `room`.
fn take<'b>(room: &mut &'b mut [u8], n: usize) -> Option<&'b mut [u8]> {
    let (front, rest) = core::mem::take(room).split_at_mut_checked(n)?;
    *room = rest;
    Some(front)
}
