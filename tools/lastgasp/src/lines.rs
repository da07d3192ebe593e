//! Records as lines.
//!
//! Invariants: a line that was kept in parts comes as one line, and is never held in memory as a whole; where a part is
//! gone, or a boot began, the line ends; a line is shown if any of its parts is looked for.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use lastgasp_client::{Entry, Error, Flow, Lookup, Query, Record};

use crate::look::Look;
use crate::select::Wanted;

/// Looks at the parts of a stream's line from a number on, up to its end or to where it breaks off; `take` says whether
/// to go on.
pub(crate) fn parts(
    look: &mut dyn Lookup,
    stream: &str,
    from: u64,
    take: &mut dyn FnMut(&Record<'_>) -> io::Result<Flow>,
) -> io::Result<()> {
    let query = Query { from, streams: vec![stream.to_owned()], ..Query::default() };
    let done = look.look(&query, &mut |entry| match entry {
        Entry::Record(part) => {
            let flow = take(&part)?;
            Ok(if part.continued { flow } else { Flow::Stop })
        }
        Entry::Gap(gap) if gap.stream.is_some_and(|of| of != stream) => Ok(Flow::On),
        Entry::Gap(_) | Entry::Event(_) => Ok(Flow::Stop),
    });
    done.map_err(into_io)
}

/// An error of the client inside of a function that it called.
pub(crate) fn into_io(error: Error) -> io::Error {
    match error {
        Error::Caller(error) => error,
        error => io::Error::other(error),
    }
}

/// A line that is not ended yet.
struct Open {
    stream: String,
}

/// Prints entries in order as lines.
pub(crate) struct Forward<W> {
    look: Look,
    wanted: Wanted,
    pub(crate) out: W,
    /// The line that is being printed.
    open: Option<Open>,
    /// By stream: records up to this one were printed, as parts of a line.
    printed: HashMap<String, u64>,
    /// Streams whose line goes on, and is not looked for.
    passed_by: HashSet<String>,
}

impl<W: Write> Forward<W> {
    pub(crate) fn new(look: Look, wanted: Wanted, out: W) -> Self {
        Self { look, wanted, out, open: None, printed: HashMap::new(), passed_by: HashSet::new() }
    }

    /// Prints the next entry. If it parts the line that is open from its end, the rest is fetched first.
    pub(crate) fn entry(&mut self, entry: &Entry<'_>, look: &mut dyn Lookup) -> io::Result<()> {
        match entry {
            Entry::Record(record) => self.record(record, look),
            Entry::Gap(gap) => {
                if gap.stream.is_none_or(|stream| self.open.as_ref().is_some_and(|open| open.stream == stream)) {
                    self.end_line()?;
                }
                self.passed_by.retain(|stream| gap.stream.is_some_and(|of| of != stream));
                self.look.gap(&mut self.out, gap)
            }
            Entry::Event(event) => {
                self.end_line()?;
                self.passed_by.clear();
                self.look.event(&mut self.out, event)
            }
        }
    }

    fn record(&mut self, record: &Record<'_>, look: &mut dyn Lookup) -> io::Result<()> {
        if self.printed.get(record.stream).is_some_and(|upto| record.seq <= *upto) {
            return Ok(());
        }
        if self.open.as_ref().is_none_or(|open| open.stream != record.stream) {
            if !self.is_wanted(record, look)? {
                return Ok(());
            }
            if let Some(open) = self.open.take() {
                self.rest_of_line(&open.stream, record.seq, look)?;
            }
            self.out.write_all(&self.look.prefix(record))?;
            self.open = Some(Open { stream: record.stream.to_owned() });
        }
        self.look.body(&mut self.out, record)?;
        if record.continued { Ok(()) } else { self.end_line() }
    }

    /// Whether the line that this record begins, or goes on with, is looked for.
    fn is_wanted(&mut self, record: &Record<'_>, look: &mut dyn Lookup) -> io::Result<bool> {
        if !self.wanted.stream(record.stream) {
            return Ok(false);
        }
        if self.passed_by.contains(record.stream) {
            if !record.continued {
                self.passed_by.remove(record.stream);
            }
            return Ok(false);
        }
        let mut is_wanted = self.wanted.body(record.body);
        if !is_wanted && record.continued {
            parts(look, record.stream, record.seq.saturating_add(1), &mut |part| {
                is_wanted = self.wanted.body(part.body);
                Ok(if is_wanted { Flow::Stop } else { Flow::On })
            })?;
            if !is_wanted {
                self.passed_by.insert(record.stream.to_owned());
            }
        }
        Ok(is_wanted)
    }

    fn rest_of_line(&mut self, stream: &str, from: u64, look: &mut dyn Lookup) -> io::Result<()> {
        let mut last = None;
        parts(look, stream, from, &mut |part| {
            last = Some(part.seq);
            self.look.body(&mut self.out, part)?;
            Ok(Flow::On)
        })?;
        if let Some(last) = last {
            self.printed.insert(stream.to_owned(), last);
        }
        self.out.write_all(b"\n")
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.open.take().is_some() { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the last line.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.end_line()?;
        self.out.flush()
    }
}

/// The line that a reverse read is in.
struct Run {
    stream: String,
    first: u64,
    last: u64,
    prefix: Vec<u8>,
    is_wanted: bool,
    /// How it is printed, while it is of one part.
    body: Option<Vec<u8>>,
}

/// Prints entries of a reverse read as lines. Parts are joined where they stand one after another.
pub(crate) struct Backward<W> {
    look: Look,
    wanted: Wanted,
    out: W,
    run: Option<Run>,
    /// Lines that may still be printed.
    left: u64,
}

impl<W: Write> Backward<W> {
    pub(crate) fn new(look: Look, wanted: Wanted, out: W, lines: u64) -> Self {
        Self { look, wanted, out, run: None, left: lines }
    }

    /// Takes the next entry.
    pub(crate) fn entry(&mut self, entry: &Entry<'_>, look: &mut dyn Lookup) -> io::Result<Flow> {
        match entry {
            Entry::Record(record) => {
                if !self.wanted.stream(record.stream) {
                    return Ok(Flow::On);
                }
                if let Some(run) = self.run.as_mut().filter(|run| run.stream == record.stream)
                    && record.continued
                {
                    run.first = record.seq;
                    run.prefix = self.look.prefix(record);
                    run.is_wanted |= self.wanted.body(record.body);
                    run.body = None;
                    return Ok(Flow::On);
                }
                self.end_run(look)?;
                if self.left == 0 {
                    return Ok(Flow::Stop);
                }
                let mut body = Vec::new();
                self.look.body(&mut body, record)?;
                self.run = Some(Run {
                    stream: record.stream.to_owned(),
                    first: record.seq,
                    last: record.seq,
                    prefix: self.look.prefix(record),
                    is_wanted: self.wanted.body(record.body),
                    body: Some(body),
                });
            }
            Entry::Gap(gap) => {
                self.end_run(look)?;
                if self.left == 0 {
                    return Ok(Flow::Stop);
                }
                self.look.gap(&mut self.out, gap)?;
            }
            Entry::Event(event) => {
                self.end_run(look)?;
                self.look.event(&mut self.out, event)?;
            }
        }
        Ok(Flow::On)
    }

    fn end_run(&mut self, look: &mut dyn Lookup) -> io::Result<()> {
        let Some(run) = self.run.take().filter(|run| run.is_wanted) else { return Ok(()) };
        self.left = self.left.saturating_sub(1);
        self.out.write_all(&run.prefix)?;
        match run.body {
            Some(body) => self.out.write_all(&body)?,
            None => {
                let query = Query { from: run.first, to: run.last, streams: vec![run.stream], ..Query::default() };
                look.look(&query, &mut |entry| {
                    if let Entry::Record(part) = entry {
                        self.look.body(&mut self.out, &part)?;
                    }
                    Ok(Flow::On)
                })
                .map_err(into_io)?;
            }
        }
        self.out.write_all(b"\n")
    }

    /// Prints what is held.
    pub(crate) fn finish(&mut self, look: &mut dyn Lookup) -> io::Result<()> {
        self.end_run(look)?;
        self.out.flush()
    }
}
