//! What of a journal entry becomes which part of a record.
//!
//! - Body: the first MESSAGE. Fields: all others in their order, with duplicates, as text if they are UTF-8, else as
//!   bytes, the trusted ones (`_PID`) and the address fields (`__REALTIME_TIMESTAMP`) too; only `__CURSOR` is left out:
//!   it is where the source stands, and is kept as its state.
//! - Event time: `_SOURCE_REALTIME_TIMESTAMP`, else `__REALTIME_TIMESTAMP`. Severity: PRIORITY, else from the text.
//! - Stream: what one would ask `journalctl -u` for. Messages of the kernel are `kernel`; those of a service its name
//!   without `.service`, also when systemd says them about it (`Started nginx`), of a user's service too; what runs in
//!   no service (sessions, cron jobs) has its syslog identifier. Names that are made anew for each connection or run
//!   (`sshd@7-10.0.0.1:22-...`, `run-u7.service`) are cut to what they have in common.
//!
//! Invariant: nothing of an entry is left out but what is beyond the limits, and then a field `cut` says so.

use lastgasp_core::format::fields::{FieldsError, FieldsWriter, Value};

use super::export::{Entry, FIELD_OVERHEAD_BYTES};
use crate::sources::severity;

/// Longest name of a stream.
const STREAM_BYTES_MAX: usize = 255;
/// What the fields `cut` and `parse_error` may take.
pub(super) const NOTES_BYTES: usize = 768;
/// Cut fields that are named.
const CUT_NAMED_MAX: usize = 8;

/// The unit that a message is about, as `nginx.service`.
#[must_use]
pub fn unit(entry: &Entry) -> Option<&str> {
    let of_init = (entry.get(b"_PID") == Some(b"1")).then(|| entry.text(b"UNIT")).flatten();
    let of_root = || {
        let about = || entry.text(b"COREDUMP_UNIT").or_else(|| entry.text(b"OBJECT_SYSTEMD_UNIT"));
        (entry.get(b"_UID") == Some(b"0")).then(about).flatten()
    };
    let of_user = || entry.text(b"_SYSTEMD_USER_UNIT").filter(|unit| unit.ends_with(".service"));
    of_init.or_else(of_root).or_else(of_user).or_else(|| entry.text(b"_SYSTEMD_UNIT")).filter(|unit| !unit.is_empty())
}

/// It comes from the kernel.
#[must_use]
pub fn is_kernel(entry: &Entry) -> bool {
    entry.get(b"_TRANSPORT") == Some(b"kernel")
}

/// The name of its stream.
#[must_use]
pub fn stream(entry: &Entry) -> &str {
    if is_kernel(entry) {
        return "kernel";
    }
    let service = unit(entry).and_then(|unit| {
        let name = unit.strip_suffix(".service").unwrap_or(unit);
        let is_shared = ["user@", "session-"].iter().any(|prefix| unit.starts_with(prefix));
        let is_group = unit.ends_with(".scope") || unit.ends_with(".slice");
        (!is_shared && !is_group).then(|| common(name))
    });
    let said = || entry.text(b"SYSLOG_IDENTIFIER").or_else(|| entry.text(b"_COMM"));
    let name = service.or_else(said).or_else(|| unit(entry)).unwrap_or("").trim();
    let fits = (0..=name.len().min(STREAM_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at));
    match fits.and_then(|at| name.get(..at)) {
        None | Some("") => "journald",
        Some(name) => name,
    }
}

/// A name without what is made anew for each run or connection.
fn common(name: &str) -> &str {
    if let Some(("run", rest)) = name.split_once('-') {
        let is_made_up = rest.starts_with(['r', 'u', 'p']) && rest.contains(|c: char| c.is_ascii_digit());
        return if is_made_up { "run" } else { name };
    }
    match name.split_once('@') {
        Some((template, instance)) => {
            let of_connection = instance.contains('-')
                && instance.starts_with(|c: char| c.is_ascii_digit())
                && instance.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b':' | b'.' | b'[' | b']'));
            if of_connection { template } else { name }
        }
        None => name,
    }
}

/// Its severity.
#[must_use]
pub fn severity(entry: &Entry, body: &[u8]) -> u8 {
    let priority = entry.text(b"PRIORITY").and_then(|p| p.parse().ok()).filter(|p| *p <= 7);
    priority.map_or_else(|| severity::detect(body), severity::of_syslog)
}

/// When it happened: microseconds since 1970.
#[must_use]
pub fn event_time_us(entry: &Entry) -> Option<i64> {
    let time = |name: &[u8]| entry.text(name)?.parse().ok();
    time(b"_SOURCE_REALTIME_TIMESTAMP").or_else(|| time(b"__REALTIME_TIMESTAMP"))
}

/// Its body.
#[must_use]
pub fn body(entry: &Entry) -> &[u8] {
    entry.message().and_then(|at| entry.fields().nth(at)).map_or(&[], |(_, value, _)| value)
}

/// Memory that its encoded fields take at most.
#[must_use]
pub fn fields_room(entry: &Entry) -> usize {
    let size = |(name, value, _): (&[u8], &[u8], u64)| {
        // A name that is no UTF-8 grows when it is replaced.
        name.len().saturating_mul(3).saturating_add(value.len()).saturating_add(FIELD_OVERHEAD_BYTES)
    };
    entry.fields().map(size).fold(NOTES_BYTES, usize::saturating_add)
}

/// Encodes its fields.
///
/// # Errors
/// There is not the memory that [`fields_room`] says.
pub fn write_fields(entry: &Entry, out: &mut FieldsWriter<'_>) -> Result<(), FieldsError> {
    let mut cut = Vec::new();
    for (at, (name, value, full_bytes)) in entry.fields().enumerate() {
        let name = String::from_utf8_lossy(name);
        if value.len() as u64 != full_bytes {
            cut.push(format!("{name:.64}: {} of {full_bytes} bytes are kept", value.len()));
        }
        if entry.message() == Some(at) || name == "__CURSOR" {
            continue;
        }
        out.field(&name, std::str::from_utf8(value).map_or(Value::Bytes(value), Value::Str))?;
    }
    if entry.left_out > 0 {
        cut.insert(0, format!("{} fields are left out", entry.left_out));
    }
    if cut.len() > CUT_NAMED_MAX {
        let more = format!("{} more", cut.len().saturating_sub(CUT_NAMED_MAX));
        cut.truncate(CUT_NAMED_MAX);
        cut.push(more);
    }
    if !cut.is_empty() {
        let mut said = cut.join("; ");
        said.truncate((0..=said.len().min(NOTES_BYTES - 128)).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0));
        out.field("cut", Value::Str(&said))?;
    }
    match entry.malformed {
        Some(what) => out.field("parse_error", Value::Str(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::export::{Limits, Parser};
    use super::*;
    use lastgasp_core::format::fields::Fields;
    use std::convert::Infallible;

    fn with<T>(fields: &[(&str, &str)], look: impl Fn(&Entry) -> T) -> T {
        let mut parser = Parser::new(Limits { message_bytes: 1000, fields_bytes: 10_000 });
        let text: String = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let mut got = None;
        let given = parser.feed((text + "\n").as_bytes(), |entry| {
            got = Some(look(entry));
            Ok::<(), Infallible>(())
        });
        let Ok(()) = given;
        got.expect("an entry")
    }

    #[track_caller]
    fn named(want: &str, fields: &[(&str, &str)]) {
        assert_eq!(with(fields, |entry| stream(entry).to_owned()), want, "{fields:?}");
    }

    #[test]
    fn streams_are_what_one_would_ask_for() {
        named("nginx", &[("_SYSTEMD_UNIT", "nginx.service"), ("SYSLOG_IDENTIFIER", "nginx-helper")]);
        named("nginx", &[("_PID", "1"), ("UNIT", "nginx.service"), ("_SYSTEMD_UNIT", "init.scope")]);
        named("kernel", &[("_TRANSPORT", "kernel"), ("SYSLOG_IDENTIFIER", "kernel")]);
        named("sudo", &[("_SYSTEMD_UNIT", "session-3.scope"), ("SYSLOG_IDENTIFIER", "sudo")]);
        named("systemd", &[("_PID", "1"), ("_SYSTEMD_UNIT", "init.scope"), ("SYSLOG_IDENTIFIER", "systemd")]);
        named("sync", &[("_SYSTEMD_UNIT", "user@1000.service"), ("_SYSTEMD_USER_UNIT", "sync.service")]);
        named("bash", &[("_SYSTEMD_UNIT", "user@1000.service"), ("_COMM", "bash")]);
        named("getty@tty1", &[("_SYSTEMD_UNIT", "getty@tty1.service")]);
        named("db@15-main", &[("_SYSTEMD_UNIT", "db@15-main.service")]);
        named("sshd", &[("_SYSTEMD_UNIT", "sshd@7-10.0.0.1:22-10.0.0.2:5000.service")]);
        named("run", &[("_SYSTEMD_UNIT", "run-u17.service")]);
        named("run-backup", &[("_SYSTEMD_UNIT", "run-backup.service")]);
        named("home.mount", &[("_SYSTEMD_UNIT", "home.mount")]);
        named("crashed", &[("_UID", "0"), ("COREDUMP_UNIT", "crashed.service")]);
        named("faked", &[("_UID", "1000"), ("_SYSTEMD_UNIT", "faked.service"), ("COREDUMP_UNIT", "x.service")]);
        named("journald", &[("MESSAGE", "x")]);
        named(&"é".repeat(127), &[("SYSLOG_IDENTIFIER", &"é".repeat(200))]);
    }

    #[test]
    fn severity_and_time_are_what_the_journal_says() {
        let look = |entry: &Entry| (severity(entry, body(entry)), event_time_us(entry));
        assert_eq!(with(&[("PRIORITY", "3"), ("MESSAGE", "[info] x")], look), (17, None));
        assert_eq!(with(&[("MESSAGE", "[info] x"), ("__REALTIME_TIMESTAMP", "7")], look), (9, Some(7)));
        let both = [("PRIORITY", "9"), ("__REALTIME_TIMESTAMP", "7"), ("_SOURCE_REALTIME_TIMESTAMP", "5")];
        assert_eq!(with(&both, look), (0, Some(5)));
    }

    #[test]
    fn every_field_is_kept_in_order_but_the_cursor_and_the_body() {
        let fields = [("__CURSOR", "c"), ("B", "1"), ("MESSAGE", "x"), ("A", ""), ("B", "2"), ("MESSAGE", "y")];
        let encoded = with(&fields, |entry| {
            let mut room = vec![0; fields_room(entry)];
            let mut writer = FieldsWriter::new(&mut room);
            write_fields(entry, &mut writer).unwrap();
            assert_eq!(body(entry), b"x");
            writer.as_bytes().to_vec()
        });
        let got: Vec<_> = Fields::new(&encoded).collect();
        let want = [("B", "1"), ("A", ""), ("B", "2"), ("MESSAGE", "y")].map(|(k, v)| (k, Value::Str(v)));
        assert_eq!(got, want);
    }
}
