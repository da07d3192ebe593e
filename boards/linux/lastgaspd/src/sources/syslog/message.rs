//! What a syslog message says: RFC 5424, RFC 3164, and what is sent in their name.
//!
//! Invariants: every byte of a message is in the body or in what was read of its header; the body is a run of bytes of
//! the message, unchanged; what is not understood is body. The header is read by `syslog_loose`; where the text begins
//! is found here, because that library trims it and drops structured data that it does not understand.

use std::borrow::Cow;
use std::ops::Range;

use chrono::{Datelike, Local};
use syslog_loose::{Message, StructuredElement, SyslogFacility, SyslogSeverity, Variant, decompose_pri};

use crate::sources::severity::of_syslog;

/// No header is looked for beyond so many bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Longest tag that is looked for where there is no time and no host name: 32 in RFC 3164, and real ones are longer.
const TAG_BYTES_MAX: usize = 48;
/// Stands for a byte that is no UTF-8 in what is read of a header.
const NO_TEXT: &str = "\u{1a}";

/// The day by the node's clock, in local time: a time without a year is taken as the nearest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Today {
    /// Year.
    pub year: i32,
    /// Month, from 1.
    pub month: u32,
    /// Day, from 1.
    pub day: u32,
}

impl Today {
    /// Asks the clock.
    #[must_use]
    pub fn now() -> Self {
        let now = Local::now();
        Self { year: now.year(), month: now.month(), day: now.day() }
    }

    /// The year in which a day of the year is nearest to this day.
    fn year_of(self, month: u32, day: u32) -> i32 {
        // Months of 31 days are near enough: what is half a year away is not from now, whichever half.
        let place = |month: u32, day: u32| i64::from(month).saturating_mul(31).saturating_add(i64::from(day));
        let ahead = place(month, day).saturating_sub(place(self.month, self.day));
        let year = match ahead {
            187.. => self.year.saturating_sub(1),
            ..=-187 => self.year.saturating_add(1),
            _ => self.year,
        };
        if (month, day) != (2, 29) {
            return year;
        }
        let near = [0, -1, 1, -2, 2, -3, 3, -4].map(|away| year.saturating_add(away));
        near.into_iter().find(|y| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)).unwrap_or(year)
    }
}

/// What was read of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed<'t> {
    /// 1 to 24; 0 if there is none.
    pub severity: u8,
    /// Name of the facility.
    pub facility: Option<&'static str>,
    /// Microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// Who sent it first.
    pub hostname: Option<&'t str>,
    /// Application or tag, without the process id.
    pub app: Option<&'t str>,
    /// Process id, which need not be a number.
    pub procid: Option<&'t str>,
    /// Kind of message.
    pub msgid: Option<&'t str>,
    /// Structured data.
    pub data: Vec<StructuredElement<&'t str>>,
    /// Where the structured data lies in the message.
    pub data_at: Range<usize>,
    /// Where the text lies in the message.
    pub body: Range<usize>,
    /// It has the form of one of the two standards, or at least a priority.
    pub is_standard: bool,
}

/// A message as text in which every byte has its place: what is no UTF-8 is replaced byte by byte.
#[must_use]
pub fn as_text(message: &[u8]) -> Cow<'_, str> {
    let header = message.get(..HEADER_BYTES_MAX).unwrap_or(message);
    if let Ok(text) = str::from_utf8(header) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(header.len());
    for chunk in header.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            text.push_str(NO_TEXT);
        }
    }
    Cow::Owned(text)
}

/// Reads a message of `len` bytes, of which `text` is the beginning, see [`as_text`].
#[must_use]
pub fn parse(text: &str, len: usize, today: Today) -> Parsed<'_> {
    let Some(pri) = Pri::of(text) else {
        // Some send the rest without it.
        return rfc3164(text, len, today).unwrap_or_else(|| Parsed { body: 0..len, ..Parsed::default() });
    };
    let rest = text.get(pri.end..).unwrap_or_default();
    let version = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    if version.len() < rest.len() && version.starts_with(' ') {
        // With a version, it is one of RFC 5424, or nothing we know: kept whole.
        return rfc5424(text, len, today).unwrap_or_else(|| Parsed { body: 0..len, ..pri.only() });
    }
    match rfc3164(text, len, today) {
        Some(parsed) => parsed,
        None => tagged(text, len, pri),
    }
}

/// The priority at the front of a message.
#[derive(Debug, Clone, Copy)]
struct Pri {
    facility: Option<SyslogFacility>,
    severity: Option<SyslogSeverity>,
    end: usize,
}

impl Pri {
    fn of(text: &str) -> Option<Self> {
        let (number, _) = text.strip_prefix('<')?.split_once('>')?;
        let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let pri: u8 = number.parse().ok().filter(|pri| is_number && *pri < 192)?;
        let (facility, severity) = decompose_pri(pri);
        Some(Self { facility, severity, end: number.len().saturating_add(2) })
    }

    /// A message of which nothing else is known.
    fn only<'t>(self) -> Parsed<'t> {
        Parsed { severity: number(self.severity), facility: self.facility.map(|f| f.as_str()), ..Parsed::default() }
    }
}

fn number(severity: Option<SyslogSeverity>) -> u8 {
    severity.map_or(0, |s| of_syslog(s as u16))
}

fn rfc5424(text: &str, len: usize, today: Today) -> Option<Parsed<'_>> {
    let Read { header, data, .. } = read(text, today, Variant::RFC5424)?;
    // Priority with version, time, host, application, process, kind: then comes the structured data.
    let mut rest = text.trim_start();
    let mut words = [""; 6];
    for word in &mut words {
        let (found, after) = rest.split_once(' ')?;
        (*word, rest) = (found, after.trim_start_matches(' '));
    }
    let [.., procid, msgid] = words;
    if msgid != header.msgid.unwrap_or("-") {
        return None; // other separators: which word is which is not sure
    }
    let start = text.len().saturating_sub(rest.len());
    // Structured data that the library did not understand stays in the text.
    let found = structured_data(rest.as_bytes()).filter(|(_, elements)| *elements == data.len());
    let data_bytes = found.map_or(0, |(bytes, _)| bytes);
    let after = rest.get(data_bytes..).unwrap_or_default();
    let after = after.strip_prefix(' ').filter(|_| data_bytes > 0).unwrap_or(after);
    // The mark says that UTF-8 follows, and is no part of it.
    let after = after.strip_prefix('\u{feff}').unwrap_or(after);
    Some(Parsed {
        data: if data_bytes > 0 { data } else { Vec::new() },
        data_at: start..start.saturating_add(data_bytes),
        procid: Some(procid).filter(|p| *p != "-"),
        body: body(text, after, len),
        is_standard: data_bytes > 0,
        ..header
    })
}

/// Bytes and elements of the structured data at the front: `-`, or elements in brackets; `None` if it is neither.
fn structured_data(bytes: &[u8]) -> Option<(usize, usize)> {
    let ends = |at: usize| matches!(bytes.get(at), None | Some(b' '));
    if bytes.first() == Some(&b'-') {
        return ends(1).then_some((1, 0));
    }
    let (mut at, mut elements) = (0usize, 0usize);
    while bytes.get(at) == Some(&b'[') {
        let mut is_quoted = false;
        loop {
            at = at.saturating_add(1);
            match *bytes.get(at)? {
                b'\\' if is_quoted => at = at.saturating_add(1),
                b'"' => is_quoted = !is_quoted,
                b']' if !is_quoted => break,
                _ => {}
            }
        }
        at = at.saturating_add(1);
        elements = elements.saturating_add(1);
    }
    (at > 0 && ends(at)).then_some((at, elements))
}

fn rfc3164(text: &str, len: usize, today: Today) -> Option<Parsed<'_>> {
    // A single `-` would pass for a time.
    let after = Pri::of(text).map_or(text, |pri| text.get(pri.end..).unwrap_or_default()).trim_start();
    if !after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let Read { mut header, .. } = read(text, today, Variant::RFC3164)?;
    // A colon ends the tag. What has none, and no process id, is the first word of the text.
    let colon_after = |part: &str| text.get(end_of(text, part)..).unwrap_or_default().starts_with(':');
    if header.app.is_none() && header.hostname.is_some_and(colon_after) {
        header.app = header.hostname.take();
    }
    let mut last = header.hostname.map_or(0, |host| end_of(text, host));
    match (header.app, header.procid) {
        (Some(app), None) if !colon_after(app) => header.app = None,
        (Some(app), None) => last = end_of(text, app),
        (_, Some(procid)) => last = end_of(text, procid).saturating_add(1),
        (None, None) => {}
    }
    let rest = match last {
        // The library has no more of the header than the time.
        0 => after_time(after),
        _ => text.get(last..).unwrap_or_default(),
    };
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let rest = rest.strip_prefix(": ").filter(|_| header.app.is_none()).unwrap_or(rest);
    Some(Parsed { body: body(text, rest, len), is_standard: true, ..header })
}

/// What follows a time: `Oct 11 22:14:15`, with or without a year, or one of RFC 3339.
fn after_time(text: &str) -> &str {
    match text.find(':') {
        Some(colon) => {
            let rest = text.get(colon..).unwrap_or_default();
            rest.find(' ').and_then(|end| rest.get(end..)).unwrap_or_default()
        }
        None => text,
    }
}

/// A message that has a priority, but neither time nor host: `<14>app[12]: text`, `<14>text`.
fn tagged(text: &str, len: usize, pri: Pri) -> Parsed<'_> {
    let rest = text.get(pri.end..).unwrap_or_default();
    let whole = Parsed { body: body(text, rest, len), is_standard: true, ..pri.only() };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let after = rest.trim_start_matches(is_of_name);
    let app = rest.get(..rest.len().saturating_sub(after.len())).unwrap_or_default();
    if app.is_empty() || app.len() > TAG_BYTES_MAX {
        return whole;
    }
    let (procid, after) = match after.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((procid, after)) if procid.len() <= TAG_BYTES_MAX => (Some(procid), after),
        _ => (None, after),
    };
    match after.strip_prefix(": ").or_else(|| after.strip_prefix(':').filter(|rest| rest.is_empty())) {
        Some(after) => Parsed { app: Some(app), procid, body: body(text, after, len), ..whole },
        None => whole,
    }
}

/// What the library reads.
struct Read<'t> {
    header: Parsed<'t>,
    data: Vec<StructuredElement<&'t str>>,
}

fn read(text: &str, today: Today, variant: Variant) -> Option<Read<'_>> {
    let year = |(month, day, ..): syslog_loose::IncompleteDate| today.year_of(month, day);
    let read = syslog_loose::parse_message_with_year_exact(text, year, variant).ok()?;
    let Message { facility, severity, timestamp, hostname, appname, procid, msgid, structured_data: data, .. } = read;
    // As it was sent, not as a number.
    let procid_text = appname.filter(|_| procid.is_some()).and_then(|app| {
        let inside = text.get(end_of(text, app)..)?.strip_prefix('[')?;
        inside.split_once(']').map(|(procid, _)| procid)
    });
    let header = Parsed {
        severity: number(severity),
        facility: facility.map(|f| f.as_str()),
        event_time_us: timestamp.map(|t| t.timestamp_micros()),
        hostname,
        app: appname.filter(|app| !app.is_empty()),
        procid: procid_text,
        msgid,
        ..Parsed::default()
    };
    Some(Read { header, data })
}

/// Where a part of `text` ends in it.
fn end_of(text: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(text.as_ptr().addr()).saturating_add(part.len())
}

/// The body of a message of `len` bytes that begins with `rest`, which is the end of `text`.
fn body(text: &str, rest: &str, len: usize) -> Range<usize> {
    text.len().saturating_sub(rest.len())..len
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Today = Today { year: 2026, month: 11, day: 20 };

    /// Severity, facility, host, application, process id, kind, body.
    type Seen<'a> = (u8, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

    #[track_caller]
    fn check(message: &str, want: Seen<'_>) -> Option<i64> {
        let parsed = parse(message, message.len(), TODAY);
        let or_none = |word: Option<&'static str>| word.unwrap_or("");
        let seen = (
            parsed.severity,
            or_none(parsed.facility),
            parsed.hostname.unwrap_or(""),
            parsed.app.unwrap_or(""),
            parsed.procid.unwrap_or(""),
            parsed.msgid.unwrap_or(""),
            &message[parsed.body.clone()],
        );
        assert_eq!(seen, want, "{message}");
        parsed.event_time_us
    }

    /// Microseconds of a local time.
    fn local_us(year: i32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<i64> {
        use chrono::TimeZone;
        Local.with_ymd_and_hms(year, month, day, hour, minute, second).earliest().map(|t| t.timestamp_micros())
    }

    #[test]
    fn the_examples_of_rfc_5424_read_as_they_are_meant() {
        let time = check(
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick",
            (18, "auth", "mymachine.example.com", "su", "", "ID47", "'su root' failed for lonvick"),
        );
        assert_eq!(time, Some(1_065_910_455_003_000));
        let time = check(
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
            (10, "local4", "192.0.2.1", "myproc", "8710", "", "%% It's time to make the do-nuts."),
        );
        assert_eq!(time, Some(1_061_727_255_000_003));
        let message = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
                       [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"]\
                       [examplePriority@32473 class=\"high\"]";
        check(message, (10, "local4", "mymachine.example.com", "evntslog", "", "ID47", ""));
        let data = parse(message, message.len(), TODAY).data;
        assert_eq!(data[0].params[1], ("eventSource", "Application"));
        assert_eq!((data[1].id, data[1].params[0]), ("examplePriority@32473", ("class", "high")));
        check("<0>1 - - - - - -", (21, "kern", "", "", "", "", ""));
    }

    #[test]
    fn the_text_of_rfc_5424_is_kept_to_the_byte() {
        check("<13>1 - h a - - -   two  ", (10, "user", "h", "a", "", "", "  two  "));
        check("<13>1 - h a 007 - [x] t", (10, "user", "h", "a", "007", "", "t"));
        check(r#"<13>1 - h a - - [x y="a\]b\""] t"#, (10, "user", "h", "a", "", "", "t"));
        // What is no structured data is text.
        check("<13>1 - h a - - [x y] t", (10, "user", "h", "a", "", "", "[x y] t"));
        check("<13>1 - h a - - [x y=\"z\"]t", (10, "user", "h", "a", "", "", "[x y=\"z\"]t"));
        check("<13>1 - h a - - -t", (10, "user", "h", "a", "", "", "-t"));
        check("<13>1 -\th a - - [x] t", (10, "user", "", "", "", "", "<13>1 -\th a - - [x] t"));
        // Not a time: kept whole.
        check("<13>1 today h a - - - t", (10, "user", "", "", "", "", "<13>1 today h a - - - t"));
    }

    #[test]
    fn the_examples_of_rfc_3164_read_as_they_are_meant() {
        let time = check(
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            (18, "auth", "mymachine", "su", "", "", "'su root' failed for lonvick on /dev/pts/8"),
        );
        assert_eq!(time, local_us(2026, 10, 11, 22, 14, 15));
        check("Use the BFG!", (0, "", "", "", "", "", "Use the BFG!"));
        // The third example has no tag, and a zone and a year where none belong.
        let odd = "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.";
        check(odd, (10, "local4", "CST", "", "", "", "1987 mymachine myproc[10]: %% It's time to make the do-nuts."));
        check(
            "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat sched[0]: That's All",
            (21, "kern", "", "", "", "", "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat sched[0]: That's All"),
        );
    }

    #[test]
    fn what_real_senders_make_of_rfc_3164_is_understood() {
        // util-linux logger --rfc3164, rsyslog's forward format, journald, busybox, python's SysLogHandler, Cisco.
        let known = [
            ("<13>Nov 20 10:22:03 pi me: hi", (10, "user", "pi", "me", "", "", "hi")),
            ("<30>2026-11-20T10:22:03.123+01:00 pi init[1]: Up.", (9, "daemon", "pi", "init", "1", "", "Up.")),
            ("<13>Nov  2 10:22:03 me: hi", (10, "user", "", "me", "", "", "hi")),
            ("<13>Nov 20 10:22:03 me[12]: hi", (10, "user", "", "me", "12", "", "hi")),
            ("<14>me[12]: hi", (9, "user", "", "me", "12", "", "hi")),
            ("<14>my.app: hi: there", (9, "user", "", "my.app", "", "", "hi: there")),
            ("<14>just words, and: more", (9, "user", "", "", "", "", "just words, and: more")),
            ("<14>", (9, "user", "", "", "", "", "")),
            (
                "<189>Nov 20 10:22:03 sw1 %SYS-5-CONFIG_I: done",
                (10, "local7", "sw1", "%SYS-5-CONFIG_I", "", "", "done"),
            ),
            ("<13>Nov 20 10:22:03 pi me: - dash  ", (10, "user", "pi", "me", "", "", "- dash  ")),
            ("<13>Nov 20 10:22:03 pi me: [a b=\"c\"] x", (10, "user", "pi", "me", "", "", "[a b=\"c\"] x")),
            ("<13>Nov 20 10:22:03 pi me:   x", (10, "user", "pi", "me", "", "", "  x")),
            ("<13>Nov 20 10:22:03 pi no tag here", (10, "user", "pi", "", "", "", "no tag here")),
            ("<13>Nov 20 10:22:03 : text", (10, "user", "", "", "", "", "text")),
            ("Nov 20 10:22:03 pi cron[7]: x", (0, "", "pi", "cron", "7", "", "x")),
            ("<999>x", (0, "", "", "", "", "", "<999>x")),
            ("<>x", (0, "", "", "", "", "", "<>x")),
        ];
        for (message, want) in known {
            check(message, want);
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_nearest() {
        let year = |today: (i32, u32, u32), month, day| {
            let (y, m, d) = today;
            Today { year: y, month: m, day: d }.year_of(month, day)
        };
        assert_eq!(year((2027, 1, 1), 12, 31), 2026);
        assert_eq!(year((2026, 12, 31), 1, 1), 2027);
        assert_eq!(year((2026, 6, 1), 11, 30), 2026);
        assert_eq!(year((2026, 6, 1), 1, 1), 2026);
        assert_eq!(year((2027, 3, 1), 2, 29), 2028, "the nearest there was or will be, of equal ones the earlier");
        assert_eq!(year((2025, 3, 1), 2, 29), 2024);
    }

    #[test]
    fn bytes_that_are_no_text_keep_their_places() {
        let message = b"<13>Nov 20 10:22:03 p\xff me: \xf0\x9f caf\xc3\xa9 \xff";
        let text = as_text(message);
        assert_eq!(text.len(), message.len());
        let parsed = parse(&text, message.len(), TODAY);
        assert_eq!((parsed.hostname, parsed.app), (Some("p\u{1a}"), Some("me")));
        assert_eq!(&message[parsed.body], b"\xf0\x9f caf\xc3\xa9 \xff");
        let long = [b"<13>me: ".to_vec(), vec![b'x'; HEADER_BYTES_MAX]].concat();
        assert_eq!(parse(&as_text(&long), long.len(), TODAY).body, 8..long.len());
    }
}
