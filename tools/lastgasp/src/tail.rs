//! `lastgasp tail`: prints records, with gaps and events in their place.
//!
//! Invariants: the last N are found from the end, whatever lies before them is not read; a record is printed as it was
//! stored; memory is bounded by one frame and one row group, however long a line is.

use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anyhow::Result;
use jiff::tz::TimeZone;
use lastgasp_client::{Client, Entry, Error, Event, Flow, Lookup, Query, Record};
use rustix::event::{Timespec, poll};
use serde_json::json;

use crate::entries::{event_json, gap_json};
use crate::journal::Journal;
use crate::json::RecordJson;
use crate::lines::{Backward, Forward};
use crate::look::{Look, Stamp, clean_json};
use crate::pager::Out;
use crate::place::{PlaceArgs, note};
use crate::select::{SelectArgs, Selection, Wanted};

/// How many lines are printed if nothing else is asked for.
const LINES: u64 = 10;
/// The same for a pager, where one can look back.
const LINES_IN_PAGER: u64 = 1000;
/// How far in front of the last lines their first parts are looked for.
const LOOK_BACK: u32 = 4096;
/// So often a node that went away is looked for.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
/// How long one wait for more is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints records, with gaps and boots in their place.
///
/// Without -n, --all, --since or -b the last 10 lines are printed; on a terminal the last 1000, in a pager at its end.
/// Everything is only read, while a node runs too. Lines that were kept in parts are joined again, but by -o json.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lastgasp tail -f                                       what comes in from now on
  lastgasp tail -b -p warning                            warnings and worse of the running boot
  lastgasp tail -u ssh -u 'app-*' --since today -g fail  today's failures of some streams
  lastgasp tail --store card.img --all -o cat            every body of a card, byte for byte
  lastgasp tail --root /mnt -n 100 -o json               of a card that is mounted, as JSON

JSON: an object a line with seq, stream, boot, received, time, severity (1 to 24), body (or body_base64)
and fields; events have event instead of seq; gaps are {\"gap\": {first_seq, last_seq, exact, cause}}.

Exit codes: 0 done, 2 it could not be done.")]
pub(crate) struct Args {
    /// Everything, from the oldest record on.
    #[arg(long, visible_alias = "no-tail", conflicts_with = "lines")]
    all: bool,
    /// The last N lines (with -o json and export: records) that match; 10 if no number is given.
    #[arg(short = 'n', long, value_name = "N", num_args = 0..=1, default_missing_value = "10")]
    lines: Option<u64>,
    /// Go on with what comes, until interrupted.
    #[arg(short, long, conflicts_with_all = ["reverse", "until"])]
    follow: bool,
    /// Newest first. Boots and stops are not shown then.
    #[arg(short, long)]
    reverse: bool,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "short")]
    output: Output,
    /// Show times in UTC, not in local time.
    #[arg(long)]
    utc: bool,
    /// No pager on a terminal ($LASTGASP_PAGER, else $PAGER, else less).
    #[arg(long)]
    no_pager: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Time, stream, severity and text; on a terminal control characters are shown as escapes.
    Short,
    /// The same with the year and the offset from UTC.
    ShortIso,
    /// Bodies byte for byte, each followed by a newline; no gaps, no boots. On a terminal without control characters.
    Cat,
    /// One JSON object a line.
    Json,
    /// The journal's export format, for systemd-journal-remote.
    Export,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut client = args.place.open()?;
    let selection = args.select.select(&mut client, args.follow)?;
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let paged = terminal && !args.no_pager && !args.follow;
    let lines = args.lines(paged);
    let look = Look {
        stamp: match args.output {
            Output::Short => Stamp::Short,
            Output::ShortIso => Stamp::Iso,
            Output::Cat | Output::Json | Output::Export => Stamp::None,
        },
        terminal,
        colours: AutoStream::choice(&stdout) != ColorChoice::Never,
        zone: if args.utc { TimeZone::UTC } else { TimeZone::system() },
        marked: selection.wanted.grep.clone(),
    };
    let journal = match args.output {
        Output::Export => Some(Journal::new(client.identity()?, selection.wanted.clone())),
        _ => None,
    };
    let out = if paged { Out::paged(lines == Some(LINES_IN_PAGER)) } else { Out::stdout() };
    let wanted = selection.wanted.clone();
    let tail = Tail { client, selection, lines };
    match args.output {
        Output::Json | Output::Export => {
            let objects = Objects { out, terminal, look, wanted, journal };
            if args.reverse { tail.objects_backward(objects) } else { tail.objects(objects, args.follow) }
        }
        _ if args.reverse => tail.backward(look, out),
        _ => tail.forward(look, out, args.follow),
    }
}

impl Args {
    /// How many lines; none for all.
    fn lines(&self, paged: bool) -> Option<u64> {
        match (self.all, self.lines) {
            (true, _) => None,
            (false, Some(lines)) => Some(lines),
            (false, None) if self.select.since.is_some() || self.select.boot.is_some() => None,
            (false, None) if paged && self.reverse => None,
            (false, None) => Some(if paged { LINES_IN_PAGER } else { LINES }),
        }
    }
}

struct Tail {
    client: Client,
    selection: Selection,
    lines: Option<u64>,
}

/// Where the last lines begin.
#[derive(Debug, Default)]
struct Start {
    /// From this number on everything is shown.
    from: u64,
    /// By stream: from these numbers on, the first parts of lines that end behind `from`.
    parts: HashMap<String, u64>,
}

impl Start {
    fn shows(&self, record: &Record<'_>) -> bool {
        record.seq >= self.from || self.parts.get(record.stream).is_some_and(|first| record.seq >= *first)
    }

    fn first(&self) -> u64 {
        self.parts.values().copied().fold(self.from, u64::min)
    }
}

impl Tail {
    fn forward(mut self, look: Look, out: Out, follow: bool) -> Result<()> {
        let start = self.find_start(true)?;
        let mut lines = Forward::new(look, self.selection.wanted.clone(), out);
        let query = Query { from: start.first(), ..self.selection.query.clone() };
        if self.lines == Some(0) && !follow {
            return Ok(lines.finish()?);
        }
        self.read_on(query, follow, &mut |step| match step {
            Step::Entry(Entry::Record(record), _) if !start.shows(record) => Ok(()),
            Step::Entry(entry, look) => lines.entry(entry, look),
            Step::CaughtUp => lines.out.flush(),
        })?;
        Ok(lines.finish()?)
    }

    fn backward(mut self, look: Look, out: Out) -> Result<()> {
        let left = self.lines.unwrap_or(u64::MAX);
        let mut lines = Backward::new(look, self.selection.wanted.clone(), out, left);
        let query = Query { reverse: true, ..self.selection.query.clone() };
        self.client.read(&query, &mut |entry, look| lines.entry(&entry, look))?;
        // The last line is still held; to print it may take one more look.
        Ok(self.client.lookups(&mut |look| lines.finish(look).map_err(Error::Caller))?)
    }

    fn objects(mut self, mut objects: Objects, follow: bool) -> Result<()> {
        let from = self.find_start(false)?.from;
        let query = Query { from, ..self.selection.query.clone() };
        if self.lines == Some(0) && !follow {
            return Ok(());
        }
        self.read_on(query, follow, &mut |step| match step {
            Step::Entry(entry, look) => objects.entry(entry, look).map(|_| ()),
            Step::CaughtUp => objects.out.flush(),
        })
    }

    fn objects_backward(mut self, mut objects: Objects) -> Result<()> {
        let query = Query { reverse: true, ..self.selection.query.clone() };
        let mut left = self.lines.unwrap_or(u64::MAX);
        if left > 0 {
            self.client.read(&query, &mut |entry, look| {
                let shown = objects.entry(&entry, look)?;
                if shown && matches!(entry, Entry::Record(_)) {
                    left -= 1;
                }
                Ok(if left == 0 { Flow::Stop } else { Flow::On })
            })?;
        }
        Ok(objects.out.flush()?)
    }

    /// Reads on from the query's start; with `follow`, for ever.
    fn read_on(&mut self, mut query: Query, follow: bool, take: Take<'_>) -> Result<()> {
        // Boots and stops stand between records, and come again when a read begins behind them.
        let (mut boot, mut stop) = (0, 0);
        loop {
            let mut next = query.from;
            let read = self.client.read(&query, &mut |entry, look| {
                match &entry {
                    Entry::Record(record) => next = record.seq.saturating_add(1),
                    Entry::Gap(gap) => next = next.max(gap.last_seq.saturating_add(1)),
                    Entry::Event(Event::Boot { epoch, .. }) if *epoch <= boot => return Ok(Flow::On),
                    Entry::Event(Event::Boot { epoch, .. }) => boot = *epoch,
                    Entry::Event(Event::Close { next_seq }) if *next_seq <= stop => return Ok(Flow::On),
                    Entry::Event(Event::Close { next_seq }) => stop = *next_seq,
                    Entry::Event(Event::Unknown(_)) => {}
                }
                take(Step::Entry(&entry, look))?;
                Ok(Flow::On)
            });
            take(Step::CaughtUp)?;
            query.from = match read {
                Ok(next) => next,
                Err(error) => self.come_back(follow, error).map(|()| next)?,
            };
            if !follow {
                return Ok(());
            }
            loop {
                match self.client.wait(query.from, PATIENCE) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => self.come_back(follow, error)?,
                }
            }
        }
    }

    /// Waits for a node that has gone away, if that is what the error means.
    fn come_back(&mut self, follow: bool, error: Error) -> Result<()> {
        if !(follow && error.is_away() && matches!(self.client, Client::Node(_))) {
            return Err(error.into());
        }
        note(&format!("{error}; waiting for the node to come back"));
        loop {
            // Any signal that matters ends us.
            let _ = poll(&mut [], Some(&PAUSE));
            match self.client.next_seq() {
                Ok(_) => return Ok(()),
                Err(error) if error.is_away() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Finds where the last lines begin, from the end. With `join`, parts of a line count as one.
    fn find_start(&mut self, join: bool) -> Result<Start> {
        let Some(wanted_lines) = self.lines else {
            return Ok(Start { from: self.selection.query.from, ..Start::default() });
        };
        if wanted_lines == 0 {
            return Ok(Start { from: self.client.next_seq()?, ..Start::default() });
        }
        let query = Query { reverse: true, ..self.selection.query.clone() };
        let mut start = Start { from: u64::MAX, ..Start::default() };
        // Streams with a line among those wanted, whose first part may lie further ahead.
        let mut open: HashSet<String> = HashSet::new();
        let (mut lines, mut looked, mut complete) = (0, 0, false);
        let wanted = &self.selection.wanted;
        self.client.read(&query, &mut |entry, _| {
            let record = match &entry {
                Entry::Record(record) => record,
                // Lines end at gaps.
                Entry::Gap(_) if lines >= wanted_lines => {
                    complete = true;
                    return Ok(Flow::Stop);
                }
                Entry::Gap(_) | Entry::Event(_) => return Ok(Flow::On),
            };
            if !wanted.stream(record.stream) {
                return Ok(Flow::On);
            }
            let is_part = join && record.continued && open.contains(record.stream);
            if lines < wanted_lines {
                if !is_part {
                    if !wanted.body(record.body) {
                        return Ok(Flow::On);
                    }
                    lines += 1;
                }
                start.from = record.seq;
                if join {
                    open.insert(record.stream.to_owned());
                }
            } else {
                looked += 1;
                if is_part {
                    start.parts.insert(record.stream.to_owned(), record.seq);
                } else {
                    open.remove(record.stream);
                }
            }
            complete = lines >= wanted_lines && (open.is_empty() || looked >= LOOK_BACK);
            Ok(if complete { Flow::Stop } else { Flow::On })
        })?;
        if lines < wanted_lines {
            start = Start { from: self.selection.query.from, ..Start::default() };
        }
        Ok(start)
    }
}

/// What following hands over.
enum Step<'a, 'e> {
    Entry(&'a Entry<'e>, &'a mut dyn Lookup),
    /// There is nothing more for now.
    CaughtUp,
}

type Take<'f> = &'f mut dyn FnMut(Step<'_, '_>) -> io::Result<()>;

/// Prints entries one by one as programs read them.
struct Objects {
    out: Out,
    terminal: bool,
    look: Look,
    wanted: Wanted,
    /// For the journal's format.
    journal: Option<Journal>,
}

impl Objects {
    /// Prints an entry; `false` if it is not wanted.
    fn entry(&mut self, entry: &Entry<'_>, look: &mut dyn Lookup) -> io::Result<bool> {
        let json = match (entry, &mut self.journal) {
            (Entry::Record(record), Some(journal)) if self.terminal => {
                let mut bytes = Vec::new();
                let is_shown = journal.entry(&mut bytes, record, look)?;
                self.look.body(&mut self.out, &Record { body: &bytes, ..*record })?;
                return Ok(is_shown);
            }
            (Entry::Record(record), Some(journal)) => return journal.entry(&mut self.out, record, look),
            (_, Some(_)) => return Ok(false),
            (Entry::Record(record), None) => {
                if !(self.wanted.stream(record.stream) && self.wanted.body(record.body)) {
                    return Ok(false);
                }
                serde_json::to_string(&RecordJson(record))
            }
            (Entry::Gap(gap), None) => serde_json::to_string(&json!({ "gap": gap_json(gap) })),
            (Entry::Event(event), None) => serde_json::to_string(&event_json(event)),
        };
        let json = json.map_err(io::Error::from)?;
        let json = if self.terminal { clean_json(&json) } else { json };
        writeln!(self.out, "{json}")?;
        Ok(true)
    }
}
