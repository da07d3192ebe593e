//! Turns syslog messages into records, and hands them over.
//!
//! Invariants: a parcel is held only while messages are at hand; while the store is stalled, messages are counted as
//! dropped under their own stream instead; a message that is too long for a record is kept in parts, its fields on the
//! first.

use std::borrow::Cow;
use std::net::IpAddr;

use lastgasp_core::format::fields::{FieldsError, FieldsWriter, Value};
use lastgasp_core::format::row::STREAM_NAME_BYTES_MAX;
use lastgasp_core::gaps::GapCause;

use super::STREAM;
use super::message::{Parsed, Today, as_text, parse};
use crate::parcel::{Parcel, Slot};
use crate::queue::{Closed, NoParcel};
use crate::sources::Context;
use crate::sources::severity::detect;

/// A parcel is handed over when it holds so much.
const PARCEL_BYTES: usize = 64 << 10;
/// Or so many records.
const PARCEL_RECORDS: usize = 1024;
/// Or records of so many streams: they are searched one after another.
const PARCEL_STREAMS: usize = 64;

/// What the parts of a message have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Common {
    stream: Box<str>,
    severity: u8,
    event_time_us: Option<i64>,
}

/// Where messages go.
pub(super) struct Records<E> {
    ctx: Context<E>,
    parcel: Option<Parcel>,
    /// The parcel is no real one: its records are counted as dropped.
    is_stalled: bool,
    today: Today,
    /// What the status says while all is well.
    words: String,
}

impl<E> Records<E> {
    pub(super) fn new(ctx: Context<E>) -> Self {
        Self { ctx, parcel: None, is_stalled: false, today: Today::now(), words: String::new() }
    }

    pub(super) fn ctx(&self) -> &Context<E> {
        &self.ctx
    }

    /// What the status is to say.
    pub(super) fn say(&mut self, words: String) {
        self.words = words;
        self.tell();
    }

    fn tell(&self) {
        if self.is_stalled {
            self.ctx.status.fails(format!("{}; the store is stalled, messages are dropped", self.words));
        } else {
            self.ctx.status.works(self.words.clone());
        }
    }

    /// A message, or (`continued`) the first part of one; what its next parts need.
    pub(super) fn put(&mut self, bytes: &[u8], from: IpAddr, continued: bool) -> Result<Common, Closed> {
        self.make_room()?;
        let text = as_text(bytes);
        let parsed = parse(&text, bytes.len(), self.today);
        if !parsed.is_standard {
            self.ctx.status.erred();
        }
        let max = self.ctx.record_bytes_max.max(2);
        let Some(parcel) = &mut self.parcel else { return Err(Closed) };
        let (fields, body) = match encode(parcel, &parsed, from, max / 2) {
            Ok(fields) => (fields, parsed.body.clone()),
            // No room for all of it: the structured data stays with the text, or even all of the header.
            Err(_) => {
                let without = Parsed { data: Vec::new(), ..parsed.clone() };
                match encode(parcel, &without, from, max / 2) {
                    Ok(fields) => (fields, parsed.data_at.start..bytes.len()),
                    Err(_) => (0..0, 0..bytes.len()),
                }
            }
        };
        let room = max.saturating_sub(fields.len());
        let body = bytes.get(body).unwrap_or_default();
        let common = Common {
            stream: stream_name(parsed.app).into(),
            severity: if parsed.severity == 0 { detect(body) } else { parsed.severity },
            event_time_us: parsed.event_time_us,
        };
        let (first, rest) = body.split_at_checked(room).unwrap_or((body, &[]));
        let stream = parcel.stream(&common.stream);
        let body = parcel.copy(first);
        let is_part = continued || !rest.is_empty();
        let Common { severity, event_time_us, .. } = common;
        let slot = Slot { severity, event_time_us, fields, continued: is_part, ..Slot::plain(stream, body) };
        parcel.push(slot);
        parcel.end_batch(None);
        if !rest.is_empty() {
            self.put_more(&common, rest, continued)?;
        }
        Ok(common)
    }

    /// The next part of a message, or (not `continued`) the last.
    pub(super) fn put_more(&mut self, common: &Common, bytes: &[u8], continued: bool) -> Result<(), Closed> {
        let max = self.ctx.record_bytes_max.max(1);
        let mut rest = bytes;
        loop {
            self.make_room()?;
            let Some(parcel) = &mut self.parcel else { return Err(Closed) };
            let (part, after) = rest.split_at_checked(max).unwrap_or((rest, &[]));
            let stream = parcel.stream(&common.stream);
            let body = parcel.copy(part);
            let Common { severity, event_time_us, .. } = *common;
            let is_part = continued || !after.is_empty();
            parcel.push(Slot { severity, event_time_us, continued: is_part, ..Slot::plain(stream, body) });
            parcel.end_batch(None);
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// A parcel with room in it.
    fn make_room(&mut self) -> Result<(), Closed> {
        if self.is_full() {
            self.flush()?;
        }
        if self.parcel.is_some() {
            return Ok(());
        }
        let (parcel, is_stalled) = match self.ctx.intake.parcel_or_stall() {
            Ok(parcel) => (parcel, false),
            Err(NoParcel::Stalled) => (Parcel::default(), true),
            Err(NoParcel::Closed) => return Err(Closed),
        };
        self.today = Today::now();
        self.parcel = Some(parcel);
        if std::mem::replace(&mut self.is_stalled, is_stalled) != is_stalled {
            self.tell();
        }
        Ok(())
    }

    /// There is enough to hand over.
    pub(super) fn is_full(&self) -> bool {
        self.parcel.as_ref().is_some_and(|parcel| {
            parcel.bytes.len() >= PARCEL_BYTES
                || parcel.records() >= PARCEL_RECORDS
                || parcel.streams().len() >= PARCEL_STREAMS
        })
    }

    /// Hands over what there is.
    pub(super) fn flush(&mut self) -> Result<(), Closed> {
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        let now_us = self.ctx.clock.now_us();
        parcel.received_us = now_us;
        let records = u64::try_from(parcel.records()).unwrap_or(u64::MAX);
        self.ctx.status.read(records);
        if !self.is_stalled {
            return self.ctx.intake.send(parcel);
        }
        let mut dropped = vec![0u64; parcel.streams().len()];
        for slot in (0..).map_while(|at| parcel.batch(at)).flat_map(|batch| batch.slots) {
            if let Some(count) = dropped.get_mut(usize::from(slot.stream)) {
                *count = count.saturating_add(1);
            }
        }
        for (stream, records) in parcel.streams().iter().zip(dropped) {
            self.ctx.intake.dropped(stream, GapCause::Overload, records, now_us);
        }
        Ok(())
    }
}

/// The name of a stream: the application, as far as a stream's name goes.
fn stream_name(app: Option<&str>) -> &str {
    let app = app.unwrap_or(STREAM);
    let fits = (0..=app.len().min(STREAM_NAME_BYTES_MAX)).rev().find(|at| app.is_char_boundary(*at));
    fits.and_then(|end| app.get(..end)).filter(|name| !name.is_empty()).unwrap_or(STREAM)
}

/// Encodes the fields of a message, of at most `max` bytes.
fn encode(
    parcel: &mut Parcel,
    parsed: &Parsed<'_>,
    from: IpAddr,
    max: usize,
) -> Result<std::ops::Range<usize>, FieldsError> {
    let from = from.to_canonical().to_string();
    let words = [
        ("facility", parsed.facility),
        ("hostname", parsed.hostname),
        // What a stream's name does not hold.
        ("appname", parsed.app.filter(|app| app.len() > STREAM_NAME_BYTES_MAX)),
        ("procid", parsed.procid),
        ("msgid", parsed.msgid),
        ("source_ip", Some(from.as_str())),
    ];
    let words_bytes: usize = words.iter().map(|(key, word)| word.map_or(0, |w| key.len() + w.len() + 12)).sum();
    // Each parameter is four bytes of text at least, and becomes what it says and up to twelve bytes.
    let room = words_bytes.saturating_add(parsed.data_at.len().saturating_mul(4)).saturating_add(32);
    parcel.fields(room.min(max), |writer| {
        for (key, word) in words {
            if let Some(word) = word {
                writer.field(key, Value::Str(word))?;
            }
        }
        structured_data(writer, parsed)
    })
}

/// Structured data as a map of maps.
fn structured_data(writer: &mut FieldsWriter<'_>, parsed: &Parsed<'_>) -> Result<(), FieldsError> {
    if parsed.data.is_empty() {
        return Ok(());
    }
    writer.map("structured_data", |elements| {
        for element in &parsed.data {
            elements.map(element.id, |params| {
                for (key, value) in &element.params {
                    params.field(key, Value::Str(&unescaped(value)))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// A value of structured data: `\"`, `\\` and `\]` stand for the second character, other backslashes for themselves.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next @ ('"' | '\\' | ']'))) => {
                out.push(*next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}
