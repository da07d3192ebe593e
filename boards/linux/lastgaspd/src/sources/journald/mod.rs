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
mod keep;
mod steps;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::child::{Got, Journalctl, READ_BYTES, pause};
use self::cursor::{Place, STATE_KEY};
use self::entry::NOTES_BYTES;
use self::export::{Limits, Parser};
use self::keep::Open;
use self::steps::Step;
use super::Context;
use crate::config::Journald;
use crate::parcel::Parcel;
use crate::queue::Closed;

/// So much of a body is kept.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// So much of the other fields is kept, if a record can hold it.
const FIELDS_BYTES_MAX: usize = 512 << 10;
/// A list of boots is not read beyond this.
const LIST_BYTES_MAX: usize = 256 << 10;
/// Where the journal of a machine lies.
const DIRECTORIES: [&str; 2] = ["/run/log/journal", "/var/log/journal"];
/// The pauses before journalctl is started again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

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
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
