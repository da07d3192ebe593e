//! Records as lines: `cat` gives bodies byte for byte, `short` a time, a stream and a severity in front.
//!
//! Invariants: a line that was kept in parts comes as one line, and is never held in memory as a whole; where a part is
//! gone, or a boot began, the line ends.

use std::collections::HashMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use lastgasp_core::catalog::Catalog;
use lastgasp_core::gaps::{Gap, GapCause};
use lastgasp_core::scan::{Entry, Event, Record};

use crate::entries::{event_words, gap_words, stream_name};
use crate::{severity, times};

/// How lines look.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// With time, stream and severity; and gaps and events in their place.
    pub(crate) short: bool,
    /// For a terminal: control characters are shown, not sent.
    pub(crate) terminal: bool,
    pub(crate) colours: bool,
    pub(crate) zone: TimeZone,
}

impl Look {
    /// Bodies byte for byte.
    pub(crate) fn cat() -> Self {
        Self { short: false, terminal: false, colours: false, zone: TimeZone::UTC }
    }

    /// What stands in front of a line.
    pub(crate) fn prefix(&self, catalog: &Catalog<'_>, record: &Record<'_>) -> Vec<u8> {
        if !self.short {
            return Vec::new();
        }
        let time = record.row.event_time_us.or(record.received_wall_us());
        let time = time.and_then(|us| times::short(us, &self.zone));
        let time = time.unwrap_or_else(|| "--- -- --:--:--".to_owned());
        let mut stream = Vec::new();
        self.text(stream_name(catalog.streams(), record.row.stream).as_bytes(), &mut stream);
        let stream = String::from_utf8_lossy(&stream);
        let severity = severity::name(record.row.severity).map_or_else(String::new, |name| format!(" {name}"));
        let style = self.style(match record.row.severity {
            17.. => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
            13.. => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
            1..=8 => Style::new().dimmed(),
            _ => Style::new(),
        });
        format!("{time} {stream}{style}{severity}{style:#}: ").into_bytes()
    }

    fn style(&self, style: Style) -> Style {
        if self.colours { style } else { Style::new() }
    }

    /// A body, or a part of one, as it is printed.
    pub(crate) fn body(&self, out: &mut impl Write, body: &[u8]) -> io::Result<()> {
        if !self.short {
            return out.write_all(body);
        }
        let mut text = Vec::with_capacity(body.len());
        self.text(body, &mut text);
        out.write_all(&text)
    }

    /// Further lines of a body are indented; on a terminal, control characters and what is no text become visible.
    fn text(&self, bytes: &[u8], out: &mut Vec<u8>) {
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => out.extend_from_slice(b"\n    "),
                    '\t' => out.push(b'\t'),
                    c if c.is_control() && self.terminal => out.extend(c.escape_default().map(|c| c as u8)),
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

    fn gap(&self, out: &mut impl Write, catalog: &Catalog<'_>, gap: &Gap) -> io::Result<()> {
        if !self.short {
            return Ok(());
        }
        let colour = match gap.cause {
            GapCause::Rot | GapCause::MediumFailed | GapCause::LedgerLost => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        let style = self.style(Style::new().bold().fg_color(Some(colour.into())));
        writeln!(out, "{style}-- {} --{style:#}", gap_words(gap, catalog.streams()))
    }

    fn event(&self, out: &mut impl Write, event: &Event) -> io::Result<()> {
        if !self.short {
            return Ok(());
        }
        let style = self.style(Style::new().fg_color(Some(AnsiColor::Cyan.into())));
        writeln!(out, "{style}-- {} --{style:#}", event_words(event))
    }
}

/// Finds the rest of a line in the store: prints its parts from a number on, by the given function, and returns the
/// number of the last one.
pub(crate) type Follow<'f> =
    &'f mut dyn FnMut(u16, u64, &mut dyn FnMut(&Record<'_>) -> io::Result<()>) -> io::Result<()>;

/// Prints entries in order as lines.
pub(crate) struct Forward<W> {
    look: Look,
    out: W,
    /// The stream whose line is not ended yet.
    open: Option<u16>,
    /// By stream: records up to this one were printed, as parts of a line.
    printed: HashMap<u16, u64>,
}

impl<W: Write> Forward<W> {
    pub(crate) fn new(look: Look, out: W) -> Self {
        Self { look, out, open: None, printed: HashMap::new() }
    }

    /// Prints the next entry. If it parts the line that is open from its end, `follow` fetches the rest first.
    pub(crate) fn entry(&mut self, catalog: &Catalog<'_>, entry: &Entry<'_>, follow: Follow<'_>) -> io::Result<()> {
        match entry {
            Entry::Record(record) => self.record(catalog, record, follow),
            Entry::Gap(gap) => {
                if gap.stream.is_none() || gap.stream == self.open {
                    self.end_line()?;
                }
                self.look.gap(&mut self.out, catalog, gap)
            }
            Entry::Event(event) => {
                self.end_line()?;
                self.look.event(&mut self.out, event)
            }
        }
    }

    fn record(&mut self, catalog: &Catalog<'_>, record: &Record<'_>, follow: Follow<'_>) -> io::Result<()> {
        let stream = record.row.stream;
        if self.printed.get(&stream).is_some_and(|upto| record.seq <= *upto) {
            return Ok(());
        }
        match self.open {
            Some(open) if open == stream => {}
            Some(open) => {
                self.rest_of_line(open, record.seq, follow)?;
                self.out.write_all(&self.look.prefix(catalog, record))?;
            }
            None => self.out.write_all(&self.look.prefix(catalog, record))?,
        }
        self.look.body(&mut self.out, record.row.body)?;
        self.open = Some(stream);
        if record.row.continued { Ok(()) } else { self.end_line() }
    }

    fn rest_of_line(&mut self, stream: u16, from: u64, follow: Follow<'_>) -> io::Result<()> {
        let (look, out) = (&self.look, &mut self.out);
        let mut last = None;
        follow(stream, from, &mut |part| {
            last = Some(part.seq);
            look.body(out, part.row.body)
        })?;
        if let Some(last) = last {
            self.printed.insert(stream, last);
        }
        self.end_line()
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.open.take().is_some() { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the last line.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_line()?;
        self.out.flush()
    }
}

/// The line that a reverse scan is in.
struct Run {
    stream: u16,
    first: u64,
    last: u64,
    prefix: Vec<u8>,
    /// Its body, while it is of one part.
    body: Option<Vec<u8>>,
}

/// Prints entries of a reverse scan as lines. Parts are joined where they stand one after another.
pub(crate) struct Backward<W> {
    look: Look,
    out: W,
    run: Option<Run>,
    /// Lines that may still begin.
    left: u64,
}

/// Prints the records of a stream in a range, in order, by the given function.
pub(crate) type Reread<'f> =
    &'f mut dyn FnMut(u16, (u64, u64), &mut dyn FnMut(&Record<'_>) -> io::Result<()>) -> io::Result<()>;

impl<W: Write> Backward<W> {
    pub(crate) fn new(look: Look, out: W, lines: u64) -> Self {
        Self { look, out, run: None, left: lines }
    }

    /// Takes the next entry; `false` if no more are wanted.
    pub(crate) fn entry(&mut self, catalog: &Catalog<'_>, entry: &Entry<'_>, reread: Reread<'_>) -> io::Result<bool> {
        match entry {
            Entry::Record(record) => {
                if let Some(run) = self.run.as_mut().filter(|run| run.stream == record.row.stream)
                    && record.row.continued
                {
                    run.first = record.seq;
                    run.prefix = self.look.prefix(catalog, record);
                    run.body = None;
                    return Ok(true);
                }
                self.end_run(reread)?;
                let Some(left) = self.left.checked_sub(1) else { return Ok(false) };
                self.left = left;
                self.run = Some(Run {
                    stream: record.row.stream,
                    first: record.seq,
                    last: record.seq,
                    prefix: self.look.prefix(catalog, record),
                    body: Some(record.row.body.to_vec()),
                });
            }
            Entry::Gap(gap) => {
                self.end_run(reread)?;
                if self.left == 0 {
                    return Ok(false);
                }
                self.look.gap(&mut self.out, catalog, gap)?;
            }
            Entry::Event(event) => {
                self.end_run(reread)?;
                self.look.event(&mut self.out, event)?;
            }
        }
        Ok(true)
    }

    fn end_run(&mut self, reread: Reread<'_>) -> io::Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        self.out.write_all(&run.prefix)?;
        let (look, out) = (&self.look, &mut self.out);
        match run.body {
            Some(body) => look.body(out, &body)?,
            None => reread(run.stream, (run.first, run.last), &mut |part| look.body(out, part.row.body))?,
        }
        self.out.write_all(b"\n")
    }

    /// Prints what is held.
    pub(crate) fn finish(mut self, reread: Reread<'_>) -> io::Result<()> {
        self.end_run(reread)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, bytes: &[u8]) -> String {
        let look = Look { short: true, terminal, colours: false, zone: TimeZone::UTC };
        let mut out = Vec::new();
        look.body(&mut out, bytes).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let nasty = "a\x1b[31mb\0c\u{9b}d\x7f\te\nf".as_bytes();
        assert_eq!(shown(true, nasty), "a\\u{1b}[31mb\\u{0}c\\u{9b}d\\u{7f}\te\n    f");
        assert_eq!(shown(true, b"gr\xC3\xBCn \xFF"), "grün \\xff");
        assert_eq!(shown(false, b"a\x1bb"), "a\x1bb");
    }
}
