//! `lastgasp tail`: prints records, with gaps and events in their place.
//!
//! Invariants: the last N are found from the end, whatever lies before them is not read; a record is printed as it was
//! stored; memory is bounded by one frame and one row group, however long a line is.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice, eprintln};
use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use lastgasp_core::catalog::Catalog;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::scan::{Entry, Filter, Record, Scan, ScanOptions};
use lastgasp_hal_linux::{FileStorage, ScanBuffers};

use crate::entries::{event_json, gap_json, stream_name};
use crate::json::RecordJson;
use crate::lines::{Backward, Forward, Look};
use crate::store::{self, StoreArgs, Writer};
use crate::{severity, times};

/// How many lines are printed if nothing else is asked for.
const LINES: u64 = 10;
/// How far in front of the last lines their first parts are looked for.
const LOOK_BACK: u32 = 4096;

/// Prints records, with gaps and events in their place.
///
/// Without --all or -n, and without --since, the last 10 are printed. The store is only read; it may be one of a
/// stopped node, a card or its image. Lines that were kept in parts are joined again, but by -o json.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp tail --store ./store                          the last 10
  lastgasp tail --store ./store -n 100 -u sshd -p warn    the last 100 warnings and worse of one stream
  lastgasp tail --store card.img --all -o cat             every body, byte for byte
  lastgasp tail --store ./store --since -1h -o json       the last hour, one object a line

JSON: an object a line with seq, stream, received, time, severity (1 to 24), body (or body_base64), fields; events have
event instead of seq; gaps are {\"gap\": {first_seq, last_seq, exact, cause}}.

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Everything, from the oldest record on.
    #[arg(long, conflicts_with = "lines")]
    all: bool,
    /// The last N lines (with -o json: records) that match.
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Only this stream.
    #[arg(short = 'u', long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only this severity and worse: info, warn, error, a syslog name, or 1 to 24.
    #[arg(short = 'p', long, value_name = "SEVERITY", value_parser = severity::parse)]
    severity: Option<u8>,
    /// Not before this time, by the sender's clock, or else by that of receipt: 2026-07-26T15:04:05Z, today, -90min.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    until: Option<i64>,
    /// Newest first. Boots and stops are not shown then.
    #[arg(short, long)]
    reverse: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "short")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Bodies byte for byte, each followed by a newline; no gaps, no events.
    Cat,
    /// One JSON object a line.
    Json,
    /// Time, stream, severity and text; control characters are shown as escapes on a terminal.
    Short,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let storage = store::open(&args.store.path)?;
    if let Writer::Some(pid) = Writer::of(&storage) {
        let path = args.store.path.display();
        eprintln!("note: {} is writing to {path}; shown is what it had written until now", Writer::name(pid));
    }
    let geometry = storage.geometry();
    let mut memory = store::memory(&storage);
    let mut reader = store::mount(storage, &mut memory)?;
    let (storage, catalog) = reader.parts();
    let filter = args.filter(catalog)?;
    let mut tail = Tail {
        storage,
        catalog,
        filter,
        main: ScanBuffers::new(&geometry),
        side: ScanBuffers::new(&geometry),
        lines: args.lines(),
    };
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let colours = AutoStream::choice(&stdout) != ColorChoice::Never;
    let out = BufWriter::with_capacity(1 << 16, stdout.lock());
    let look = match args.output {
        Output::Json => return tail.json(out, args.reverse),
        Output::Cat => Look::cat(),
        Output::Short => Look { short: true, terminal, colours, zone: TimeZone::system() },
    };
    if args.reverse { tail.backward(look, out) } else { tail.forward(look, out) }
}

impl Args {
    fn lines(&self) -> Option<u64> {
        match (self.all, self.lines) {
            (true, _) => None,
            (false, Some(lines)) => Some(lines),
            (false, None) => self.since.is_none().then_some(LINES),
        }
    }

    fn filter(&self, catalog: &Catalog<'_>) -> Result<Filter> {
        let stream = match &self.stream {
            None => None,
            Some(name) => match catalog.streams().find(name) {
                Some(id) => Some(id),
                None => {
                    let known: Vec<&str> = catalog.streams().iter().map(|(_, name)| name).collect();
                    let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
                    bail!("{}: there is no stream `{name}`; there are: {known}", self.store.path.display());
                }
            },
        };
        Ok(Filter { stream, severity_min: self.severity, since_us: self.since, until_us: self.until })
    }
}

struct Tail<'a, 'm> {
    storage: &'a mut FileStorage,
    catalog: &'a Catalog<'m>,
    filter: Filter,
    main: ScanBuffers,
    /// For looking elsewhere while a record of the main scan is held.
    side: ScanBuffers,
    lines: Option<u64>,
}

/// Where the last lines begin.
#[derive(Debug, Default)]
struct Start {
    /// From this number on everything is shown.
    from: u64,
    /// By stream: from these numbers on, the first parts of lines that end behind `from`.
    parts: HashMap<u16, u64>,
}

impl Start {
    fn shows(&self, record: &Record<'_>) -> bool {
        record.seq >= self.from || self.parts.get(&record.row.stream).is_some_and(|first| record.seq >= *first)
    }

    fn first(&self) -> u64 {
        self.parts.values().copied().fold(self.from, u64::min)
    }
}

type Out = BufWriter<StdoutLock<'static>>;

impl Tail<'_, '_> {
    fn forward(&mut self, look: Look, out: Out) -> Result<()> {
        let start = self.find_start(true);
        let mut lines = Forward::new(look, out);
        if self.lines == Some(0) {
            return Ok(lines.finish()?);
        }
        let options = ScanOptions { from: start.first(), filter: self.filter, ..ScanOptions::default() };
        let mut scan = Scan::new(self.catalog, options);
        let mut mem = self.main.parts();
        while let Some(entry) = scan.next(self.storage, self.catalog, &mut mem) {
            if matches!(&entry, Entry::Record(record) if !start.shows(record)) {
                continue;
            }
            lines.entry(self.catalog, &entry, &mut |stream, from, print| {
                follow(self.storage, self.catalog, &mut self.side, stream, from, print)
            })?;
        }
        Ok(lines.finish()?)
    }

    fn backward(&mut self, look: Look, out: Out) -> Result<()> {
        let mut lines = Backward::new(look, out, self.lines.unwrap_or(u64::MAX));
        let options = ScanOptions { reverse: true, filter: self.filter, ..ScanOptions::default() };
        let mut scan = Scan::new(self.catalog, options);
        let mut mem = self.main.parts();
        let (storage, catalog, side) = (&mut *self.storage, self.catalog, &mut self.side);
        while let Some(entry) = scan.next(storage, catalog, &mut mem) {
            if !lines.entry(catalog, &entry, &mut |stream, range, print| {
                reread(storage, catalog, side, stream, range, print)
            })? {
                break;
            }
        }
        Ok(lines.finish(&mut |stream, range, print| reread(storage, catalog, side, stream, range, print))?)
    }

    fn json(&mut self, mut out: Out, reverse: bool) -> Result<()> {
        let from = if reverse { 1 } else { self.find_start(false).from };
        let options = ScanOptions { from, reverse, filter: self.filter, ..ScanOptions::default() };
        let mut scan = Scan::new(self.catalog, options);
        let mut mem = self.main.parts();
        let mut left = self.lines.unwrap_or(u64::MAX);
        while left > 0
            && let Some(entry) = scan.next(self.storage, self.catalog, &mut mem)
        {
            match entry {
                Entry::Record(record) => {
                    left = left.saturating_sub(u64::from(self.lines.is_some()));
                    let stream = stream_name(self.catalog.streams(), record.row.stream);
                    serde_json::to_writer(&mut out, &RecordJson { record: &record, stream: &stream })
                }
                Entry::Gap(gap) => serde_json::to_writer(&mut out, &gap_json(&gap, self.catalog.streams())),
                Entry::Event(event) => serde_json::to_writer(&mut out, &event_json(&event)),
            }
            .map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Finds where the last lines begin, from the end. With `join`, parts of a line count as one.
    fn find_start(&mut self, join: bool) -> Start {
        let Some(wanted) = self.lines else { return Start { from: 1, ..Start::default() } };
        let options = ScanOptions { reverse: true, filter: self.filter, ..ScanOptions::default() };
        let mut scan = Scan::new(self.catalog, options);
        let mut mem = self.main.parts();
        let mut start = Start { from: u64::MAX, ..Start::default() };
        // Streams with a line among those wanted, whose first part may lie further ahead.
        let mut open: HashSet<u16> = HashSet::new();
        let (mut lines, mut looked) = (0, 0);
        loop {
            if lines >= wanted && (open.is_empty() || looked >= LOOK_BACK) {
                return start;
            }
            let record = match scan.next(self.storage, self.catalog, &mut mem) {
                Some(Entry::Record(record)) => record,
                // Lines end at gaps.
                Some(Entry::Gap(_)) if lines >= wanted => return start,
                Some(Entry::Gap(_) | Entry::Event(_)) => continue,
                None if lines >= wanted => return start,
                None => return Start { from: 1, ..Start::default() },
            };
            let stream = record.row.stream;
            let is_part = join && record.row.continued && open.contains(&stream);
            if lines < wanted {
                if !is_part {
                    lines += 1;
                }
                start.from = record.seq;
                if join {
                    open.insert(stream);
                }
            } else {
                looked += 1;
                if is_part {
                    start.parts.insert(stream, record.seq);
                } else {
                    open.remove(&stream);
                }
            }
        }
    }
}

/// Prints the parts of a stream's line from a number on, up to its end, or to where it breaks off.
fn follow(
    storage: &mut FileStorage,
    catalog: &Catalog<'_>,
    side: &mut ScanBuffers,
    stream: u16,
    from: u64,
    print: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let filter = Filter { stream: Some(stream), ..Filter::default() };
    let mut scan = Scan::new(catalog, ScanOptions { from, filter, ..ScanOptions::default() });
    let mut mem = side.parts();
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        match entry {
            Entry::Record(part) => {
                print(&part)?;
                if !part.row.continued {
                    break;
                }
            }
            Entry::Gap(gap) if gap.stream.is_some_and(|of| of != stream) => {}
            Entry::Gap(_) | Entry::Event(_) => break,
        }
    }
    Ok(())
}

/// Prints a stream's records in a range.
fn reread(
    storage: &mut FileStorage,
    catalog: &Catalog<'_>,
    side: &mut ScanBuffers,
    stream: u16,
    (from, to): (u64, u64),
    print: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let filter = Filter { stream: Some(stream), ..Filter::default() };
    let mut scan = Scan::new(catalog, ScanOptions { from, to, filter, ..ScanOptions::default() });
    let mut mem = side.parts();
    while let Some(entry) = scan.next(storage, catalog, &mut mem) {
        if let Entry::Record(part) = entry {
            print(&part)?;
        }
    }
    Ok(())
}
