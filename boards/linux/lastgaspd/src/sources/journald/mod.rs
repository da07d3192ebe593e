//! The journal of systemd, kernel messages included: read by journalctl, entry by entry.
//!
//! Invariants: every entry is kept once, whenever this process, journalctl or journald is killed: the cursor of the
//! last entry rides in the batch of the entry, and entries up to it are passed by. Entries that the journal has dropped
//! before they were read are counted by their sequence numbers and become a gap. Memory is bounded, whatever is in the
//! journal; a body beyond the largest record is kept in parts, what is beyond [`MESSAGE_BYTES_MAX`] is cut, and the
//! record says so.
//!
//! **Boots.** journalctl with `-f` shows the running boot only, and a cursor of an earlier boot is looked for by the
//! wall clock, which on a machine without a battery for it goes back at a power cut. So boots are read one by one, each
//! by its id: first the rest of the boot in which the last run ended, then those after it, then the running one, which
//! is followed. A directory that does not hold the running boot is read in the order that journald gives it.

mod child;
pub mod cursor;
pub mod entry;
pub mod export;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lastgasp_core::gaps::GapCause;

use self::child::{Got, Journalctl, READ_BYTES, pause};
use self::cursor::{Cursor, Place, STATE_KEY};
use self::entry::NOTES_BYTES;
use self::export::{Entry, Limits, Parser};
use super::Context;
use crate::config::{Begin, Journald};
use crate::parcel::{Parcel, Slot};
use crate::queue::Closed;

/// So much of a body is kept.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// So much of the other fields is kept, if a record can hold it.
const FIELDS_BYTES_MAX: usize = 512 << 10;
/// A batch is ended here: it has to fit into the smallest memtable.
const BATCH_BYTES: usize = 24 << 10;
/// A parcel is handed over here.
const PARCEL_BYTES: usize = 128 << 10;
/// Records of a parcel at most.
const PARCEL_RECORDS: usize = 2048;
/// After so many entries that are left out the cursor is kept without a record.
const LEFT_OUT_MAX: u32 = 4096;
/// A list of boots is not read beyond this.
const LIST_BYTES_MAX: usize = 256 << 10;
/// Where the journal of a machine lies.
const DIRECTORIES: [&str; 2] = ["/run/log/journal", "/var/log/journal"];
/// The pauses before journalctl is started again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// The stream of gaps.
const GAP_STREAM: &str = "journald";

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that reads journals.
    pub journalctl: PathBuf,
    /// What to read.
    pub journal: Journald,
    /// The first pause before it is started again; each one in vain doubles it.
    pub pause: Duration,
}

impl From<&Journald> for Options {
    fn from(journal: &Journald) -> Self {
        Self { journalctl: "journalctl".into(), journal: journal.clone(), pause: PAUSE_MIN }
    }
}

/// Why there is nothing to read here; `None` if there is.
#[must_use]
pub fn unavailable(options: &Options) -> Option<String> {
    let directories: Vec<&Path> = match &options.journal.directory {
        Some(directory) => vec![directory],
        None => DIRECTORIES.iter().map(Path::new).collect(),
    };
    if !directories.iter().any(|directory| holds_journal(directory, 2)) {
        let names: Vec<_> = directories.iter().map(|d| d.display().to_string()).collect();
        return Some(format!("there is no journal in {}", names.join(" or ")));
    }
    let has_program = match options.journalctl.components().count() {
        1 => std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(&options.journalctl).is_file())),
        _ => options.journalctl.is_file(),
    };
    (!has_program).then(|| format!("{} is not installed; it reads the journal", options.journalctl.display()))
}

fn holds_journal(directory: &Path, depth: u8) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        let is_journal = [".journal", ".journal~"].iter().any(|end| name.to_string_lossy().ends_with(end));
        is_journal
            || (depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) && {
                let below = entry.path();
                holds_journal(&below, depth.saturating_sub(1))
            })
    })
}

/// Follows the journal until a stop. If journalctl is not there it says so and ends; if it fails it is started again,
/// from where it was, after a pause.
pub fn run<E>(options: &Options, ctx: &Context<E>) {
    let mut reader = Reader::new(options, ctx);
    let mut wait = options.pause;
    loop {
        let before = reader.entries;
        let words = match reader.run_plan() {
            Ok(words) => words,
            Err(Over::Stopped | Over::Closed) => return,
            Err(Over::NoProgram) => {
                let program = options.journalctl.display();
                ctx.status.fails(format!("{program} is not installed; the journal is not read"));
                return;
            }
        };
        ctx.status.erred();
        ctx.status.fails(format!("{words}; journalctl is started again"));
        if reader.entries != before {
            wait = options.pause;
        }
        if pause(&ctx.stop, wait) {
            return;
        }
        wait = wait.saturating_mul(2).min(PAUSE_MAX);
    }
}

/// Why reading is over for good.
enum Over {
    Stopped,
    Closed,
    NoProgram,
}

impl From<Closed> for Over {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A stretch of the journal.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Of this boot only.
    boot: Option<String>,
    /// From this cursor on.
    cursor: Option<String>,
    /// Goes on when all is read.
    follow: bool,
    /// Only what comes from now on.
    from_end: bool,
}

impl Step {
    fn of(boot: Option<&str>, cursor: Option<&Cursor>, follow: bool) -> Self {
        let cursor = cursor.map(|c| c.text.clone());
        Self { boot: boot.map(str::to_owned), cursor, follow, from_end: false }
    }

    fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.follow {
            // Without --merge, -f means -b; the match by boot keeps out what --merge would add.
            all.extend(["--follow".to_owned(), "--merge".to_owned()]);
            all.push(if self.from_end { "--lines=1".to_owned() } else { "--no-tail".to_owned() });
        }
        all.extend(self.cursor.iter().map(|cursor| format!("--cursor={cursor}")));
        all.extend(self.boot.iter().map(|boot| format!("_BOOT_ID={boot}")));
        all
    }
}

/// The batch that is not ended yet.
#[derive(Debug, Default)]
struct Open {
    stream: u16,
    bytes: usize,
    cursor: Option<Cursor>,
}

struct Reader<'a, E> {
    options: &'a Options,
    ctx: &'a Context<E>,
    buffer: Box<[u8]>,
    /// The entry that was read last, and what of it is kept.
    last: Option<Place>,
    /// Entries up to `last` come again, and are passed by.
    resuming: bool,
    /// Entries from before this time are passed by: microseconds since 1970.
    not_before_us: u64,
    /// Not all entries can be seen.
    blind: bool,
    /// The running boot.
    boot: Option<String>,
    parcel: Option<Parcel>,
    open: Open,
    left_out: u32,
    entries: u64,
}

impl<'a, E> Reader<'a, E> {
    fn new(options: &'a Options, ctx: &'a Context<E>) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            options,
            ctx,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            last: ctx.cursors.get(STATE_KEY).and_then(|value| Place::decode(value)),
            resuming: false,
            not_before_us: 0,
            blind: false,
            boot: boot.map(|id| id.trim().replace('-', "")),
            parcel: None,
            open: Open::default(),
            left_out: 0,
            entries: 0,
        }
    }

    fn start(&self, arguments: &[&str]) -> Result<io::Result<Journalctl>, Over> {
        let directory = self.options.journal.directory.as_deref();
        match Journalctl::start(&self.options.journalctl, directory, arguments) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Over::NoProgram),
            started => Ok(started),
        }
    }

    /// What journalctl prints with these arguments.
    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, Over> {
        match self.start(arguments)? {
            Ok(journalctl) => journalctl.collect(LIST_BYTES_MAX, &self.ctx.stop).ok_or(Over::Stopped),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Reads what is to be read, step by step; why the last step ended.
    fn run_plan(&mut self) -> Result<String, Over> {
        for step in self.plan()? {
            if let Some(words) = self.read(&step)? {
                return Ok(words);
            }
        }
        Ok("journalctl ended".to_owned())
    }

    fn plan(&mut self) -> Result<Vec<Step>, Over> {
        let last = self.last.as_ref().map(|place| place.cursor.clone());
        let Some(boot) = self.boot_of_journal()? else {
            let from_end = last.is_none() && self.options.journal.from == Begin::End;
            return Ok(vec![Step { from_end, ..Step::of(None, last.as_ref(), true) }]);
        };
        let boot = Some(boot.as_str());
        let mut steps = Vec::new();
        match (&last, self.options.journal.from) {
            (Some(cursor), _) if Some(cursor.boot.as_str()) == boot => {
                return Ok(vec![Step::of(boot, Some(cursor), true)]);
            }
            (Some(cursor), _) => {
                steps.push(Step::of(Some(&cursor.boot), Some(cursor), false));
                let listed = self.boots()?;
                let later = match listed.iter().position(|b| *b == cursor.boot) {
                    Some(at) => listed.get(at.saturating_add(1)..).unwrap_or_default().to_vec(),
                    // journald has lost that boot: those that end later were not read.
                    None => self.ending_after(listed, cursor.realtime_us)?,
                };
                steps.extend(later.iter().filter(|b| Some(b.as_str()) != boot).map(|b| Step::of(Some(b), None, false)));
            }
            (None, Begin::Start) => {
                let listed = self.boots()?;
                steps
                    .extend(listed.iter().filter(|b| Some(b.as_str()) != boot).map(|b| Step::of(Some(b), None, false)));
            }
            (None, Begin::Boot) => {}
            (None, Begin::End) => return Ok(vec![Step { from_end: true, ..Step::of(boot, None, true) }]),
        }
        steps.push(Step::of(boot, None, true));
        Ok(steps)
    }

    /// The running boot, if the journal is that of this machine.
    fn boot_of_journal(&self) -> Result<Option<String>, Over> {
        let Some(boot) = self.boot.clone() else { return Ok(None) };
        if self.options.journal.directory.is_none() {
            return Ok(Some(boot));
        }
        let found = self.ask(&["--lines=1", &format!("_BOOT_ID={boot}")])?;
        Ok((!found.is_empty()).then_some(boot))
    }

    /// The boots of the journal, oldest first.
    fn boots(&self) -> Result<Vec<String>, Over> {
        let list = self.ask(&["--list-boots", "--quiet"])?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(list.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id).map(str::to_owned).collect())
    }

    fn ending_after(&self, boots: Vec<String>, realtime_us: u64) -> Result<Vec<String>, Over> {
        let mut later = Vec::new();
        for boot in boots {
            let last = self.ask(&["--lines=1", &format!("_BOOT_ID={boot}")])?;
            let mut ends_us = 0;
            let Ok(()) = Parser::new(self.limits()).feed(&last, |entry| {
                let time = entry.text(b"__REALTIME_TIMESTAMP").and_then(|t| t.parse().ok());
                ends_us = time.unwrap_or(ends_us);
                Ok::<(), Infallible>(())
            });
            if ends_us > realtime_us {
                later.push(boot);
            }
        }
        Ok(later)
    }

    fn limits(&self) -> Limits {
        let record = self.ctx.record_bytes_max;
        let fields_bytes = (record / 2).saturating_sub(NOTES_BYTES).min(FIELDS_BYTES_MAX);
        Limits { message_bytes: MESSAGE_BYTES_MAX.max(record), fields_bytes }
    }

    /// Reads a step to its end; `None` if there is no more of it, or why it did not get there.
    fn read(&mut self, step: &Step) -> Result<Option<String>, Over> {
        let arguments = step.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut journalctl = match self.start(&arguments)? {
            Ok(journalctl) => journalctl,
            Err(error) => return Ok(Some(format!("journalctl cannot be started: {error}"))),
        };
        self.resuming = step.cursor.is_some();
        self.not_before_us = if step.from_end { now_us() } else { 0 };
        let mut parser = Parser::new(self.limits());
        self.say_what_it_does(step, &journalctl);
        let mut buffer = std::mem::take(&mut self.buffer);
        let ended = loop {
            match journalctl.next(&mut buffer, self.parcel.is_none(), &self.ctx.stop) {
                Got::Bytes(bytes) => {
                    if !self.blind && journalctl.said().contains("not seeing messages") {
                        self.blind = true;
                        self.say_what_it_does(step, &journalctl);
                    }
                    let chunk = buffer.get(..bytes).unwrap_or_default();
                    if let Err(Closed) = parser.feed(chunk, |entry| self.take(entry)) {
                        break Err(Over::Closed);
                    }
                }
                Got::Nothing => {
                    if let Err(Closed) = self.hand_over() {
                        break Err(Over::Closed);
                    }
                }
                Got::End => break Ok(()),
                Got::Stopped => break Err(Over::Stopped),
            }
        };
        self.buffer = buffer;
        self.hand_over()?;
        ended?;
        let ended = journalctl.end();
        let said = journalctl.said();
        let said = said.lines().next_back().unwrap_or("").trim();
        Ok(match ended {
            Ok(status) if status.success() && !step.follow => None,
            // Of a boot that journald has lost there is nothing to read.
            Ok(status) if status.code() == Some(1) && !step.follow && said.is_empty() => None,
            Ok(status) if said.is_empty() => Some(format!("journalctl ended ({status})")),
            Ok(status) => Some(format!("journalctl ended ({status}): {said}")),
            Err(error) => Some(format!("journalctl ended: {error}")),
        })
    }

    fn say_what_it_does(&self, step: &Step, journalctl: &Journalctl) {
        let status = &self.ctx.status;
        if self.blind || journalctl.said().contains("insufficient permissions") {
            status.works(
                "following the messages of this user only: to see all, add the user to the group systemd-journal",
            );
        } else if step.follow {
            status.works("following the journal");
        } else {
            status.works("reading the journal of an earlier boot");
        }
    }

    /// Takes an entry in.
    fn take(&mut self, entry: &Entry) -> Result<(), Closed> {
        let cursor = entry.text(b"__CURSOR").and_then(Cursor::parse);
        let mut from = 0;
        if let Some(cursor) = &cursor {
            match self.pass_by(cursor) {
                Some(kept) => from = kept,
                None => return Ok(()),
            }
        }
        self.entries = self.entries.saturating_add(1);
        if entry.malformed.is_some() {
            self.ctx.status.erred();
        }
        let too_old = cursor.as_ref().is_some_and(|c| c.realtime_us < self.not_before_us);
        if too_old || !self.is_wanted(entry) {
            return self.leave_out(cursor, too_old);
        }
        self.put(entry, cursor, from)
    }

    /// Compares an entry with where the source is: from which byte of its body on it is to be kept, if it is.
    fn pass_by(&mut self, cursor: &Cursor) -> Option<usize> {
        let mut from = 0;
        if let Some(last) = &self.last {
            let partial = last.partial_bytes;
            let is_same = self.resuming && cursor.is_same(&last.cursor);
            if is_same && let Some(bytes) = partial {
                from = bytes;
            } else if is_same || (self.resuming && cursor.is_at_or_before(&last.cursor)) {
                return None;
            }
            let cut_off = u64::from(partial.is_some() && !is_same);
            let missing = if self.blind { 0 } else { cursor.missing_after(&last.cursor) };
            let missing = missing.saturating_add(cut_off);
            self.ctx.intake.dropped(GAP_STREAM, GapCause::Overload, missing, self.ctx.clock.now_us());
        }
        self.resuming = false;
        self.last = Some(Place { cursor: cursor.clone(), partial_bytes: None });
        Some(from)
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let journal = &self.options.journal;
        if entry::is_kernel(entry) { journal.kernel } else { journal.keeps_unit(entry::unit(entry).unwrap_or("")) }
    }

    /// An entry that is not kept: its cursor is, with the next one that is, or by itself before too many have to be
    /// read again.
    fn leave_out(&mut self, cursor: Option<Cursor>, at_once: bool) -> Result<(), Closed> {
        self.left_out = self.left_out.saturating_add(1);
        if at_once || self.left_out >= LEFT_OUT_MAX {
            self.end_batch();
            self.parcel()?;
            self.open.cursor = cursor;
            self.end_batch();
        }
        Ok(())
    }

    fn parcel(&mut self) -> Result<&mut Parcel, Closed> {
        let parcel = match self.parcel.take() {
            Some(parcel) => parcel,
            None => self.ctx.intake.parcel()?,
        };
        Ok(self.parcel.insert(parcel))
    }

    /// Puts an entry into the parcel, from a byte of its body on.
    fn put(&mut self, entry: &Entry, cursor: Option<Cursor>, from: usize) -> Result<(), Closed> {
        let body = entry::body(entry);
        let severity = entry::severity(entry, body);
        let rest = body.get(from..).unwrap_or_default();
        let (event_time_us, max) = (entry::event_time_us(entry), self.ctx.record_bytes_max.max(1));
        let name = entry::stream(entry);
        let room = if from == 0 { entry::fields_room(entry) } else { 0 };
        let stream = self.parcel()?.stream(name);
        let bytes = rest.len().saturating_add(room);
        if self.open.stream != stream || self.open.bytes.saturating_add(bytes) > BATCH_BYTES {
            self.end_batch();
        }
        let parcel = self.parcel()?;
        let fields = match from {
            0 => parcel.fields(room, |out| entry::write_fields(entry, out)).unwrap_or(0..0),
            _ => 0..0,
        };
        let first = rest.len().min(max.saturating_sub(fields.len()));
        let slot =
            |body, fields, continued| Slot { severity, continued, event_time_us, fields, ..Slot::plain(stream, body) };
        if first == rest.len() {
            let body = parcel.copy(rest);
            parcel.push(slot(body, fields, false));
            self.open.stream = stream;
            self.open.bytes = self.open.bytes.saturating_add(bytes);
            // Malformed entries may have none: that of the one before stays.
            self.open.cursor = cursor.or(self.open.cursor.take());
        } else {
            // Each part is a batch, and says how far the body is kept.
            self.end_batch();
            let (mut fields, mut at, mut end) = (fields, 0, first);
            loop {
                let parcel = self.parcel()?;
                let stream = parcel.stream(name);
                let body = parcel.copy(rest.get(at..end).unwrap_or_default());
                let continued = end < rest.len();
                parcel.push(Slot { stream, ..slot(body, std::mem::replace(&mut fields, 0..0), continued) });
                if let Some(cursor) = &cursor {
                    let partial_bytes = continued.then_some(from.saturating_add(end));
                    parcel.state(STATE_KEY, &Place { cursor: cursor.clone(), partial_bytes }.encode());
                }
                parcel.end_batch(None);
                if !continued {
                    break;
                }
                self.hand_over_if_large()?;
                (at, end) = (end, end.saturating_add(max).min(rest.len()));
            }
        }
        self.left_out = 0;
        self.ctx.status.read(1);
        self.hand_over_if_large()
    }

    /// Ends the batch, with the cursor of its last entry.
    fn end_batch(&mut self) {
        let open = std::mem::take(&mut self.open);
        let Some(parcel) = &mut self.parcel else { return };
        if let Some(cursor) = open.cursor {
            parcel.state(STATE_KEY, &Place { cursor, partial_bytes: None }.encode());
            self.left_out = 0;
        }
        parcel.end_batch(None);
    }

    fn hand_over_if_large(&mut self) -> Result<(), Closed> {
        let is_large = |p: &Parcel| p.bytes.len() >= PARCEL_BYTES || p.records() >= PARCEL_RECORDS;
        if self.parcel.as_ref().is_some_and(is_large) { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), Closed> {
        self.end_batch();
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        parcel.received_us = self.ctx.clock.now_us();
        self.ctx.intake.send(parcel)
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
