//! Severity of a line whose protocol does not carry one: read from its text, as people and programs write it.
//!
//! Understood, the first in the line wins:
//! - `<3>` in front, as the kernel and `sd-daemon` write it;
//! - `level=warn`, `lvl=eror`, `severity=ERROR`, and in JSON `"level":"error"`, `"log.level":"warn"`, `"level":50`;
//! - a word in brackets: `[error]`, `[core:warn]`, `<info>`, `|WARN|`;
//! - a label: `error: no such file`, `sshd[7]: fatal: ...`;
//! - a word in capitals in front, or behind a time, a bracket or a colon: `2026-11-20 10:00:00 main WARN x`,
//!   `INFO[0003]`;
//! - glog's `E1120 10:00:00`.
//!
//! Invariants: the line is only read, never changed; at most its first [`SEEN_BYTES`] are looked at, once; words within
//! other words (`errors`, `ERROR_CODE`), values (`status=error`) and prose (`there was an error: 7`) are no severity;
//! where nothing is found the severity is 0, unknown.

/// So much of a line is looked at.
pub const SEEN_BYTES: usize = 256;
/// A bare word counts up to here.
const WORDS_UPTO: usize = 128;
/// Plain words (month, host, thread) that may stand before a word in capitals.
const PLAIN_BEFORE: usize = 4;

/// The severity of a syslog priority, 0 (emerg) to 7 (debug); the facility in higher bits is left out. The mapping is
/// that of the OpenTelemetry log data model, appendix B.
#[must_use]
pub const fn of_syslog(priority: u16) -> u8 {
    match priority & 7 {
        0 => 21,
        1 => 19,
        2 => 18,
        3 => 17,
        4 => 13,
        5 => 10,
        6 => 9,
        _ => 5,
    }
}

/// The severity of its name in whatever case and length people write it: `WARN`, `warning`, `eror`.
#[must_use]
pub fn of_name(name: &[u8]) -> Option<u8> {
    let mut lower = [0; 13];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"trace" | b"trc" | b"finest" | b"finer" => 1,
        b"debug" | b"dbg" | b"dbug" | b"fine" | b"verbose" => 5,
        b"info" | b"inf" | b"information" | b"informational" => 9,
        b"notice" | b"note" => 10,
        b"warn" | b"warning" | b"wrn" => 13,
        b"error" | b"err" | b"eror" | b"severe" => 17,
        b"critical" | b"crit" => 18,
        b"alert" => 19,
        b"fatal" | b"ftl" | b"emerg" | b"emergency" | b"panic" => 21,
        _ => return None,
    })
}

/// The severity that the text of a record names, 1 to 24; 0 if it names none.
#[must_use]
pub fn detect(body: &[u8]) -> u8 {
    let seen = body.get(..SEEN_BYTES).unwrap_or(body);
    let found = match seen.first() {
        None => None,
        Some(b'<') => kernel_prefix(seen).map(of_syslog).or_else(|| search(seen)),
        Some(b'I' | b'W' | b'E' | b'F') => glog(seen).or_else(|| search(seen)),
        Some(_) => search(seen),
    };
    found.unwrap_or(0)
}

/// `<N>`, up to `<191>`.
fn kernel_prefix(seen: &[u8]) -> Option<u16> {
    let rest = seen.strip_prefix(b"<")?;
    let end = memchr::memchr(b'>', rest.get(..4).unwrap_or(rest))?;
    let number = std::str::from_utf8(rest.get(..end)?).ok()?;
    number.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    number.parse().ok().filter(|n| *n <= 191)
}

/// `E1120 10:00:00.000000 ...`: letter, month and day.
fn glog(seen: &[u8]) -> Option<u8> {
    let (letter, day) = seen.get(..6)?.split_first()?;
    let (space, day) = day.split_last()?;
    (*space == b' ' && day.iter().all(u8::is_ascii_digit)).then_some(match letter {
        b'I' => 9,
        b'W' => 13,
        b'E' => 17,
        _ => 21,
    })
}

/// What stood before a word.
#[derive(Default)]
struct Before {
    /// Words of letters alone.
    plain: usize,
    /// Something with a digit, a bracket or a colon: a time, a process, a file.
    marked: bool,
}

/// Looks at each word, once.
fn search(seen: &[u8]) -> Option<u8> {
    let is_json = seen.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let mut before = Before::default();
    let mut at = 0;
    while at < seen.len() {
        let rest = seen.get(at..)?;
        let Some(skip) = rest.iter().position(|b| is_word(*b)) else { break };
        before.marked |= rest.get(..skip)?.iter().any(|b| matches!(b, b'[' | b']' | b'(' | b'<' | b'|' | b':' | b'>'));
        let start = at.saturating_add(skip);
        let rest = seen.get(start..)?;
        let len = rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len());
        let end = start.saturating_add(len);
        let word = rest.get(..len)?;
        let (head, tail) = (seen.get(..start)?, seen.get(end..)?);
        if let Some(severity) = is_key(word).then(|| value(head, tail)).flatten() {
            return Some(severity);
        }
        if !is_json
            && start < WORDS_UPTO
            && stands_alone(word, head, tail, &before)
            && let Some(severity) = of_name(word)
        {
            return Some(severity);
        }
        if word.iter().all(u8::is_ascii_alphabetic) {
            before.plain = before.plain.saturating_add(1);
        } else {
            before.marked |= word.iter().any(u8::is_ascii_digit);
        }
        at = end;
    }
    None
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_key(word: &[u8]) -> bool {
    matches!(word.len(), 3..=13)
        && [&b"level"[..], b"lvl", b"severity", b"levelname", b"loglevel", b"log_level", b"severity_text", b"PRIORITY"]
            .iter()
            .any(|key| word.eq_ignore_ascii_case(key))
}

/// The value of a key between `head` and `tail`: `=warn`, `="warn"`, and in JSON `": "warn"` or `":50`.
fn value(head: &[u8], tail: &[u8]) -> Option<u8> {
    let quoted = matches!(head.last(), Some(b'"' | b'.'));
    let rest = match tail {
        [b'=', rest @ ..] if !quoted && !matches!(head.last(), Some(b'-' | b'.')) => rest,
        [b'"', rest @ ..] if quoted => rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start(),
        _ => return None,
    };
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let len = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let value = rest.get(..len)?;
    let goes_on = matches!(rest.get(len), Some(b'_' | b'-' | b'.'));
    of_name(value).filter(|_| !goes_on).or_else(|| if quoted { of_number(value) } else { None })
}

/// The levels of pino and bunyan.
fn of_number(value: &[u8]) -> Option<u8> {
    Some(match value {
        b"10" => 1,
        b"20" => 5,
        b"30" => 9,
        b"40" => 13,
        b"50" => 17,
        b"60" => 21,
        _ => return None,
    })
}

/// Whether a word is set off from the text as a severity is.
fn stands_alone(word: &[u8], head: &[u8], tail: &[u8], before: &Before) -> bool {
    let is_upper = word.iter().all(u8::is_ascii_uppercase);
    let (last, next) = (head.last(), tail.first());
    let enclosed = match (last, next) {
        (Some(b'[' | b':'), Some(b']')) | (Some(b'<'), Some(b'>')) | (Some(b'|'), Some(b'|')) => true,
        (Some(b'('), Some(b')')) => is_upper,
        _ => false,
    };
    let is_label = next == Some(&b':')
        && matches!(tail.get(1), None | Some(b' ' | b'\t'))
        && (head.is_empty() || (matches!(last, Some(b' ' | b'\t')) && ends_marked(head)));
    let is_capital = is_upper
        && (head.is_empty() || (before.marked && before.plain <= PLAIN_BEFORE))
        && matches!(last, None | Some(b' ' | b'\t' | b'[' | b'(' | b'<' | b'|'))
        && matches!(next, None | Some(b' ' | b'\t' | b':' | b']' | b')' | b'>' | b'|' | b',' | b'['));
    enclosed || is_label || is_capital
}

/// The text ends in something that is no word of prose: `sshd[7]: `, `10:00:00Z `.
fn ends_marked(head: &[u8]) -> bool {
    let text = head.trim_ascii_end();
    let start = memchr::memrchr2(b' ', b'\t', text).map_or(0, |at| at.saturating_add(1));
    let last = text.get(start..).unwrap_or_default();
    !last.last().is_some_and(u8::is_ascii_alphabetic) || last.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn all(severity: u8, lines: &[&str]) {
        for line in lines {
            assert_eq!(detect(line.as_bytes()), severity, "{line}");
        }
    }

    #[test]
    fn syslog_maps_as_opentelemetry_says() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(of_syslog), [21, 19, 18, 17, 13, 10, 9, 5]);
        assert_eq!((of_syslog(191), of_syslog(8 + 3)), (5, 17));
        all(17, &["<3>usb 1-1: device descriptor read/64", "<11>x"]);
        all(21, &["<0>Kernel panic", "<0>"]);
        all(0, &["<>", "<3", "<192>x", "<+3>x", "<3333>x", "<a>b</a>", ""]);
    }

    #[test]
    fn keys_name_the_severity() {
        all(13, &["time=2026-11-20T10:00:00Z level=warn msg=\"an ERROR\"", "lvl=warn", "x severity=WARNING y"]);
        all(
            17,
            &[r#"{"ts":1,"level":"error","msg":"INFO: x"}"#, r#"{"log.level" : "ERROR"}"#, r#"{"level":50,"pid":7}"#],
        );
        all(5, &[r#"level="debug" x"#, r#"{"severity":"DEBUG"}"#]);
        all(0, &["sea_level=high", "level=5", "level= info", r#"{"msg":"ERROR: x"}"#, r#"{"level":{"a":1}}"#, "level"]);
        all(0, &["x-level=warn", "my.level=warn", "level=error_count"]);
    }

    #[test]
    fn words_set_off_from_the_text_name_the_severity() {
        all(
            17,
            &[
                "ERROR something broke",
                "error: no such file",
                "Error: no such file",
                "[error] x",
                "2026/11/20 10:00:00 [error] 123#123: *1 open() failed",
                "[Fri Nov 20 10:00:00 2026] [core:error] [pid 7] x",
                "2026-11-20 10:00:00,123 ERROR com.example.Main - x",
                "2026-11-20T10:00:00Z main ERROR x",
                "2026-11-20 10:00:00 - app - ERROR - x",
                "Nov 20 10:00:00 host app[7]: ERROR x",
                "sshd[7]: error: PAM: x",
                "foo.c:3:5: error: expected ';'",
                "2026-11-20T10:00:00Z error: x",
                "E1120 10:00:00.000000 7 main.go:3] x",
                "[ERROR ] x",
                "\tSEVERE: x",
                "ERROR",
            ],
        );
        all(13, &["WARN[0003] x", "2026-11-20|00001|WARN|x", "Warning: x", "10:00 [Warning] x", "W1120 10:00:00 x"]);
        all(9, &["<info>  [1763632800.1] manager: x", "INFO:root:x", "[ INFO] x", "I1120 1"]);
        all(21, &["panic: runtime error: x", "FATAL:  x", "git: fatal: x", "[EMERG] x"]);
        all(10, &["[NOTICE] x", "10:00:00 [Note] x"]);
        all(18, &["CRITICAL:x", "[crit] x"]);
        all(1, &["[trace] x", "TRACE x"]);
    }

    #[test]
    fn prose_values_and_parts_of_words_do_not() {
        all(
            0,
            &[
                "errors=0",
                "0 errors, 0 warnings",
                "done: errors: 0",
                "status=error",
                "there was an error: 7",
                "Sent ERROR response",
                "no error",
                "ERROR_CODE 7",
                "error_log: x",
                "GET /error HTTP/1.1",
                "GET /ERROR HTTP/1.1",
                "10:00 wrote /var/log/ERROR.log",
                "a=1 ERROR=2",
                "terror: x",
                "information wants to be free",
                "E112 x",
                "debugging on",
                "one two three four five 6 seven ERROR x",
            ],
        );
    }

    #[test]
    fn only_the_front_of_a_line_is_looked_at_and_any_bytes_are_taken() {
        assert_eq!(detect(format!("{}level=warn", " ".repeat(SEEN_BYTES - 10)).as_bytes()), 13);
        assert_eq!(detect(format!("{}level=warn", " ".repeat(SEEN_BYTES)).as_bytes()), 0);
        assert_eq!(detect(format!("{}[error] x", " ".repeat(WORDS_UPTO)).as_bytes()), 0);
        let mut random = 7u64;
        for _ in 0..20_000 {
            let line: Vec<u8> = (0..40)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let alphabet = b"[]<>:=\" |{}ERORerowanWN3_\t\xff\0level";
                    alphabet[usize::try_from(random >> 33).unwrap() % alphabet.len()]
                })
                .collect();
            assert!(detect(&line) <= 24);
        }
    }
}
