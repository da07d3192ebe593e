//! How text that comes from a log is shown.
//!
//! Invariants: what goes to a terminal cannot drive it: control characters, escape sequences and characters that change
//! the direction of text are shown as escapes; what goes elsewhere is the record byte for byte.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Color, Style};
use jiff::tz::TimeZone;
use lastgasp_client::{Event, Gap, GapCause, Record};
use regex::bytes::Regex;

use crate::entries::{event_words, gap_words};
use crate::{severity, times};

/// What stands in front of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Nothing: bodies alone, without gaps and events.
    None,
    /// Time as in syslog, stream, severity.
    Short,
    /// The same with a full time.
    Iso,
}

/// How lines look.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) stamp: Stamp,
    /// For a terminal: control characters are shown, not sent.
    pub(crate) terminal: bool,
    pub(crate) colours: bool,
    pub(crate) zone: TimeZone,
    /// What is looked for, to be marked where it is found.
    pub(crate) marked: Option<Regex>,
}

impl Look {
    /// What stands in front of a line.
    pub(crate) fn prefix(&self, record: &Record<'_>) -> Vec<u8> {
        let time = record.time_us();
        let time = match self.stamp {
            Stamp::None => return Vec::new(),
            Stamp::Short => time.and_then(|us| times::short(us, &self.zone)),
            Stamp::Iso => time.and_then(|us| times::iso(us, &self.zone)),
        };
        let time = time.unwrap_or_else(|| "--- -- --:--:--".to_owned());
        let mut stream = Vec::new();
        self.text(record.stream.as_bytes(), &mut stream);
        let stream = String::from_utf8_lossy(&stream);
        let severity = severity::name(record.severity).map_or_else(String::new, |name| format!(" {name}"));
        let style = self.style(style_of(record.severity));
        format!("{time} {stream}{style}{severity}:{style:#} ").into_bytes()
    }

    fn style(&self, style: Style) -> Style {
        if self.colours { style } else { Style::new() }
    }

    /// A body, or a part of one, as it is printed.
    pub(crate) fn body(&self, out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
        let body = record.body;
        if self.stamp == Stamp::None && !self.terminal {
            return out.write_all(body);
        }
        let mut text = Vec::with_capacity(body.len());
        match &self.marked {
            Some(marked) if self.colours => {
                let mark = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
                let mut from = 0;
                for found in marked.find_iter(body).filter(|found| !found.is_empty()) {
                    self.styled(record, body.get(from..found.start()).unwrap_or_default(), &mut text);
                    text.extend_from_slice(format!("{mark}").as_bytes());
                    self.text(found.as_bytes(), &mut text);
                    text.extend_from_slice(format!("{mark:#}").as_bytes());
                    from = found.end();
                }
                self.styled(record, body.get(from..).unwrap_or_default(), &mut text);
            }
            _ => self.styled(record, body, &mut text),
        }
        out.write_all(&text)
    }

    /// Text in the colour of its record.
    fn styled(&self, record: &Record<'_>, bytes: &[u8], out: &mut Vec<u8>) {
        let style = if self.stamp == Stamp::None { Style::new() } else { self.style(style_of(record.severity)) };
        if bytes.is_empty() {
            return;
        }
        out.extend_from_slice(format!("{style}").as_bytes());
        self.text(bytes, out);
        out.extend_from_slice(format!("{style:#}").as_bytes());
    }

    /// Further lines of a body are indented; on a terminal, what could drive it and what is no text become visible.
    fn text(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let newline: &[u8] = if self.stamp == Stamp::None { b"\n" } else { b"\n    " };
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => out.extend_from_slice(newline),
                    '\t' => out.push(b'\t'),
                    c if self.terminal && is_hostile(c) => out.extend(c.escape_unicode().map(|c| c as u8)),
                    c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            if self.terminal {
                chunk.invalid().iter().for_each(|byte| out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()));
            } else {
                out.extend_from_slice(chunk.invalid());
            }
        }
    }

    /// A gap, in its place.
    pub(crate) fn gap(&self, out: &mut impl Write, gap: &Gap<'_>) -> io::Result<()> {
        let colour = match gap.cause {
            GapCause::Rot | GapCause::MediumFailed | GapCause::LedgerLost => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        self.between(out, Style::new().bold().fg_color(Some(colour.into())), &gap_words(gap))
    }

    /// A boot or a stop, in its place.
    pub(crate) fn event(&self, out: &mut impl Write, event: &Event) -> io::Result<()> {
        self.between(out, Style::new().fg_color(Some(AnsiColor::Cyan.into())), &event_words(event, &self.zone))
    }

    fn between(&self, out: &mut impl Write, style: Style, words: &str) -> io::Result<()> {
        if self.stamp == Stamp::None {
            return Ok(());
        }
        let style = self.style(style);
        let words = if self.terminal { clean(words) } else { words.to_owned() };
        writeln!(out, "{style}-- {words} --{style:#}")
    }
}

fn style_of(severity: u8) -> Style {
    let bold = |colour: AnsiColor| Style::new().bold().fg_color(Some(Color::Ansi(colour)));
    match severity {
        17.. => bold(AnsiColor::Red),
        13..=16 => bold(AnsiColor::Yellow),
        10..=12 => Style::new().bold(),
        1..=8 => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// Characters that a terminal obeys, or that change the order in which others are shown.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Text that comes from a log, for a message to people; on one line.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// JSON for a terminal: what could drive it is escaped as JSON does, so that it stays the same JSON.
pub(crate) fn clean_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_hostile(c) {
            // All of them are in the basic plane, and stand inside of strings.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(stamp: Stamp, terminal: bool, colours: bool) -> Look {
        Look { stamp, terminal, colours, zone: TimeZone::UTC, marked: None }
    }

    fn record(body: &[u8], severity: u8) -> Record<'_> {
        Record {
            seq: 1,
            stream: "a\x1b]0;b\x07",
            severity,
            boot: None,
            received_offset_us: 0,
            received_us: Some(0),
            synchronised: true,
            event_time_us: None,
            trace: None,
            continued: false,
            body,
            field_bytes: &[],
        }
    }

    fn shown(look: &Look, body: &[u8], severity: u8) -> String {
        let mut out = Vec::new();
        look.body(&mut out, &record(body, severity)).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_terminal_gets_nothing_that_drives_it() {
        let nasty = "a\x1b[31mb\0c\u{9b}d\x7f\te\nf\u{202e}g\rh".as_bytes();
        let escaped = "a\\u{1b}[31mb\\u{0}c\\u{9b}d\\u{7f}\te\n    f\\u{202e}g\\u{d}h";
        assert_eq!(shown(&look(Stamp::Short, true, false), nasty, 9), escaped);
        assert_eq!(shown(&look(Stamp::None, true, false), nasty, 9), escaped.replace("    ", ""));
        assert_eq!(shown(&look(Stamp::Short, true, false), b"gr\xC3\xBCn \xFF", 9), "grün \\xff");
        let prefix = look(Stamp::Short, true, false).prefix(&record(b"", 9));
        assert_eq!(String::from_utf8(prefix).unwrap(), "Jan 01 00:00:00 a\\u{1b}]0;b\\u{7} info: ");
    }

    #[test]
    fn elsewhere_bodies_are_as_they_are() {
        let nasty = b"a\x1b[31mb\0\r\xFF\n";
        let mut out = Vec::new();
        look(Stamp::None, false, false).body(&mut out, &record(nasty, 9)).unwrap();
        assert_eq!(out, nasty);
        assert_eq!(shown(&look(Stamp::Short, false, false), b"a\x1bb", 9), "a\x1bb");
    }

    #[test]
    fn severities_have_colours_and_what_was_looked_for_is_marked() {
        let mut look = look(Stamp::Short, true, true);
        assert_eq!(shown(&look, b"x", 17), "\x1b[1m\x1b[31mx\x1b[0m");
        assert_eq!(shown(&look, b"x", 9), "x");
        look.marked = Some(Regex::new("b+").unwrap());
        assert_eq!(shown(&look, b"abbc", 9), "a\x1b[1m\x1b[31mbb\x1b[0mc");
    }

    #[test]
    fn json_for_a_terminal_stays_the_same_json() {
        let json = serde_json::to_string("a\u{9b}\u{7f}\u{202e}\x1bz\nü").unwrap();
        let cleaned = clean_json(&json);
        assert!(!cleaned.chars().any(is_hostile), "{cleaned}");
        assert_eq!(serde_json::from_str::<String>(&cleaned).unwrap(), "a\u{9b}\u{7f}\u{202e}\x1bz\nü");
    }
}
