//! Records in the journal's export format (<https://systemd.io/JOURNAL_EXPORT_FORMATS>).
//!
//! Invariants: what the journal gave comes out as it was, byte for byte, whatever it holds, and also what was kept in
//! parts as one entry; what did not come from a journal gets the fields that one must have; a field's name is one that
//! the journal takes.

use std::collections::HashMap;
use std::io::{self, Write};

use lastgasp_client::{Flow, Lookup, Record, Value};

use crate::json::{OneValue, hex};
use crate::lines::parts;
use crate::select::Wanted;
use crate::severity;

/// Fields that say where and when an entry is; they stand in front, once.
const ADDRESS: [&str; 4] = ["__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID"];
/// Longest name of a field.
const NAME_BYTES_MAX: usize = 64;

/// Writes records as entries.
pub(crate) struct Journal {
    store_id: u64,
    wanted: Wanted,
    /// By stream: records up to this one were looked at, as parts of an entry.
    joined: HashMap<String, u64>,
}

impl Journal {
    pub(crate) fn new(store_id: u64, wanted: Wanted) -> Self {
        Self { store_id, wanted, joined: HashMap::new() }
    }

    /// Writes a record as an entry, with the empty line that ends it, and with it all its further parts; `false` if it
    /// is not wanted, or was written before as a part.
    pub(crate) fn entry(
        &mut self,
        out: &mut impl Write,
        record: &Record<'_>,
        look: &mut dyn Lookup,
    ) -> io::Result<bool> {
        if !self.wanted.stream(record.stream) {
            return Ok(false);
        }
        if self.joined.get(record.stream).is_some_and(|upto| record.seq <= *upto) {
            return Ok(false);
        }
        let (mut bytes, mut is_wanted) = (record.body.len() as u64, self.wanted.body(record.body));
        let mut last = None;
        if record.continued {
            parts(look, record.stream, record.seq.saturating_add(1), &mut |part| {
                bytes = bytes.saturating_add(part.body.len() as u64);
                is_wanted |= self.wanted.body(part.body);
                last = Some(part.seq);
                Ok(Flow::On)
            })?;
        }
        if let Some(last) = last {
            self.joined.insert(record.stream.to_owned(), last);
        }
        if !is_wanted {
            return Ok(false);
        }
        self.head(out, record)?;
        match last {
            // An entry without a message has an empty body.
            None if record.body.is_empty() && !record.field_bytes.is_empty() => {}
            None => line(out, "MESSAGE", record.body)?,
            Some(last) => {
                out.write_all(b"MESSAGE\n")?;
                out.write_all(&bytes.to_le_bytes())?;
                out.write_all(record.body)?;
                let mut left = bytes.saturating_sub(record.body.len() as u64);
                parts(look, record.stream, record.seq.saturating_add(1), &mut |part| {
                    left = left.saturating_sub(part.body.len() as u64);
                    out.write_all(part.body)?;
                    Ok(if part.seq >= last { Flow::Stop } else { Flow::On })
                })?;
                if left > 0 {
                    return Err(io::Error::other("the store dropped records while they were read; export again"));
                }
                out.write_all(b"\n")?;
            }
        }
        fields(out, record)?;
        Ok(true)
    }

    /// Where and when the entry is.
    fn head(&self, out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
        let given = |name: &str| match record.fields().get(name)? {
            Value::Str(text) if is_line(text.as_bytes()) => Some(text.to_owned()),
            Value::U64(number) => Some(number.to_string()),
            _ => None,
        };
        let number = |name: &str| given(name)?.parse::<u64>().ok();
        let boot_id = given("_BOOT_ID").unwrap_or_else(|| {
            let boot = u64::from(record.boot.unwrap_or(0));
            format!("{:016x}{:016x}", self.store_id, boot | 0x4000 << 48)
        });
        let received = record.received_us.or(record.event_time_us).and_then(|us| u64::try_from(us).ok());
        let real = number("__REALTIME_TIMESTAMP").or(received).unwrap_or(record.received_offset_us);
        let mono = number("__MONOTONIC_TIMESTAMP").unwrap_or(record.received_offset_us);
        let cursor = given("__CURSOR").unwrap_or_else(|| {
            let (id, seq) = (self.store_id, record.seq);
            format!("s={id:032x};i={seq:x};b={boot_id};m={mono:x};t={real:x};x={:x}", id ^ seq)
        });
        line(out, "__CURSOR", cursor.as_bytes())?;
        line(out, "__REALTIME_TIMESTAMP", real.to_string().as_bytes())?;
        line(out, "__MONOTONIC_TIMESTAMP", mono.to_string().as_bytes())?;
        line(out, "_BOOT_ID", boot_id.as_bytes())
    }
}

fn fields(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let has = |name: &str| record.fields().any(|(key, _)| key == name);
    // What the journal gave is complete.
    if !has("__REALTIME_TIMESTAMP") {
        if let Some(priority) = severity::syslog(record.severity).filter(|_| !has("PRIORITY")) {
            line(out, "PRIORITY", priority.to_string().as_bytes())?;
        }
        if !has("SYSLOG_IDENTIFIER") {
            line(out, "SYSLOG_IDENTIFIER", record.stream.as_bytes())?;
        }
        if let Some(time) = record.event_time_us.filter(|_| !has("_SOURCE_REALTIME_TIMESTAMP")) {
            line(out, "_SOURCE_REALTIME_TIMESTAMP", time.to_string().as_bytes())?;
        }
    }
    if let Some(trace) = record.trace {
        line(out, "TRACE_ID", hex(&trace.trace_id).as_bytes())?;
        line(out, "SPAN_ID", hex(&trace.span_id).as_bytes())?;
    }
    for (name, value) in record.fields().filter(|(name, _)| !ADDRESS.contains(name)) {
        field(out, name, value)?;
    }
    line(out, "LASTGASP_STREAM", record.stream.as_bytes())?;
    line(out, "LASTGASP_SEQ", record.seq.to_string().as_bytes())?;
    out.write_all(b"\n")
}

fn field(out: &mut impl Write, name: &str, value: Value<'_>) -> io::Result<()> {
    let name = journal_name(name);
    match value {
        Value::Null => line(out, &name, b""),
        Value::Bool(value) => line(out, &name, value.to_string().as_bytes()),
        Value::I64(value) => line(out, &name, value.to_string().as_bytes()),
        Value::U64(value) => line(out, &name, value.to_string().as_bytes()),
        Value::F64(value) => line(out, &name, value.to_string().as_bytes()),
        Value::Str(value) => line(out, &name, value.as_bytes()),
        Value::Bytes(value) => line(out, &name, value),
        Value::List(_) | Value::Map(_) => {
            let json = serde_json::to_vec(&OneValue(value)).map_err(io::Error::from)?;
            line(out, &name, &json)
        }
    }
}

/// `NAME=text`, or where that could be misread, the name, a length and the bytes.
fn line(out: &mut impl Write, name: &str, value: &[u8]) -> io::Result<()> {
    out.write_all(name.as_bytes())?;
    if is_line(value) {
        out.write_all(b"=")?;
    } else {
        out.write_all(b"\n")?;
        out.write_all(&(value.len() as u64).to_le_bytes())?;
    }
    out.write_all(value)?;
    out.write_all(b"\n")
}

/// Text on one line, without control characters but tabs.
fn is_line(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\t'))
}

/// The name as the journal takes it: capitals, digits and underscores, no digit in front.
fn journal_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    // Two underscores in front are the journal's own.
    let starts_well = |name: &str| !name.starts_with("__") && !name.starts_with(|c: char| c.is_ascii_digit());
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits) && starts_well(name) {
        return name.to_owned();
    }
    let mut made: String =
        name.chars().map(|c| c.to_ascii_uppercase()).map(|c| if fits(c) { c } else { '_' }).collect();
    if made.is_empty() || !starts_well(&made) {
        made.insert_str(0, "FIELD_");
    }
    made.truncate(NAME_BYTES_MAX);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_the_journal_takes() {
        for (name, want) in [
            ("MESSAGE", "MESSAGE"),
            ("_PID", "_PID"),
            ("user.name", "USER_NAME"),
            ("7up", "FIELD_7UP"),
            ("__odd", "FIELD___ODD"),
            ("", "FIELD_"),
            ("grün", "GR_N"),
        ] {
            assert_eq!(journal_name(name), want);
        }
        assert_eq!(journal_name(&"x".repeat(100)), "X".repeat(64));
    }

    #[test]
    fn values_that_could_be_misread_come_with_their_length() {
        let mut out = Vec::new();
        line(&mut out, "A", b"plain \xC3\xBC\t").unwrap();
        line(&mut out, "B", b"two\nlines").unwrap();
        line(&mut out, "C", b"\xFF").unwrap();
        let want = b"A=plain \xC3\xBC\t\nB\n\x09\0\0\0\0\0\0\0two\nlines\nC\n\x01\0\0\0\0\0\0\0\xFF\n";
        assert_eq!(out, want);
    }
}
