//! Records in the journal's export format (<https://systemd.io/JOURNAL_EXPORT_FORMATS>).
//!
//! Invariants: what the journal gave comes out as it was, byte for byte, whatever it holds; what did not come from a
//! journal gets the fields that one must have; a field's name is one that the journal takes.

use std::io::{self, Write};

use lastgasp_client::{Boots, Record, Value};

use crate::json::{OneValue, hex};
use crate::severity;

/// Fields that say where and when an entry is; they stand in front, once.
const ADDRESS: [&str; 4] = ["__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID"];
/// Longest name of a field.
const NAME_BYTES_MAX: usize = 64;

/// Writes a record as an entry, with the empty line that ends it.
pub(crate) fn write(out: &mut impl Write, record: &Record<'_>, store_id: u64, boots: &Boots) -> io::Result<()> {
    let given = |name: &str| {
        record.fields().get(name).and_then(|value| match value {
            Value::Str(text) if is_line(text.as_bytes()) => Some(text.to_owned()),
            Value::U64(number) => Some(number.to_string()),
            _ => None,
        })
    };
    let boot = boots.of(record.seq).map_or(0, |boot| boot.epoch);
    let boot_id =
        given("_BOOT_ID").unwrap_or_else(|| format!("{store_id:016x}{:016x}", u64::from(boot) | 0x4000 << 48));
    let real = record.received_us.or(record.event_time_us).and_then(|us| u64::try_from(us).ok());
    let real = real.unwrap_or(record.received_offset_us);
    let mono = record.received_offset_us;
    let cursor = || {
        let seq = record.seq;
        format!("s={store_id:032x};i={seq:x};b={boot_id};m={mono:x};t={real:x};x={:x}", store_id ^ seq)
    };
    line(out, "__CURSOR", given("__CURSOR").unwrap_or_else(cursor).as_bytes())?;
    line(out, "__REALTIME_TIMESTAMP", given("__REALTIME_TIMESTAMP").unwrap_or_else(|| real.to_string()).as_bytes())?;
    line(out, "__MONOTONIC_TIMESTAMP", given("__MONOTONIC_TIMESTAMP").unwrap_or_else(|| mono.to_string()).as_bytes())?;
    line(out, "_BOOT_ID", boot_id.as_bytes())?;
    // An entry without a message has an empty body.
    if !record.body.is_empty() || record.field_bytes.is_empty() {
        line(out, "MESSAGE", record.body)?;
    }
    let has = |name: &str| record.fields().any(|(key, _)| key == name);
    if let Some(priority) = severity::syslog(record.severity).filter(|_| !has("PRIORITY")) {
        line(out, "PRIORITY", priority.to_string().as_bytes())?;
    }
    if !has("SYSLOG_IDENTIFIER") && !has("_SYSTEMD_UNIT") && !has("_TRANSPORT") {
        line(out, "SYSLOG_IDENTIFIER", record.stream.as_bytes())?;
    }
    if let Some(time) = record.event_time_us.filter(|_| !has("_SOURCE_REALTIME_TIMESTAMP") && !has("_TRANSPORT")) {
        line(out, "_SOURCE_REALTIME_TIMESTAMP", time.to_string().as_bytes())?;
    }
    if let Some(trace) = record.trace {
        line(out, "TRACE_ID", hex(&trace.trace_id).as_bytes())?;
        line(out, "SPAN_ID", hex(&trace.span_id).as_bytes())?;
    }
    for (name, value) in record.fields().filter(|(name, _)| !ADDRESS.contains(name)) {
        field(out, name, value)?;
    }
    if record.continued {
        line(out, "LASTGASP_CONTINUED", b"1")?;
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
