//! Followed files: every line, or every few lines that belong together, is a record.
//!
//! Invariants: no line is skipped or doubled, whenever this process is killed and however files are rotated meanwhile:
//! how far a file was read rides in the batch of its lines, and is taken up only on the same file in the same life
//! (see [`identity`]). A line is kept byte for byte; the last one waits for its newline, until its file was moved away.
//! Memory is bounded, however long lines are and however many files match.
//!
//! - **Renamed**: the old file is read to its end before the one in its place, and followed on while its writer still
//!   has it; after a restart it is found by its inode under its new name in the same directory.
//! - **Emptied** (`copytruncate`): what the copy has and was not read yet is read from the copy, then the file from its
//!   front. A copy with a rotated name is no new file as long as it has the same bytes.
//! - **Deleted**: it is read to its end while it is open.
//! - What a file loses before it was read (emptied without a copy, deleted while the node is down) cannot be known.
//!
//! Files that rotation has packed (`.gz` and the like) are left out unless the pattern names the ending.

pub mod book;
pub mod cut;
pub mod find;
pub mod identity;
mod meet;
mod read;
mod tail;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::book::{Book, FILES_MAX};
use self::find::find;
use self::identity::Id;
use self::tail::Tail;
use self::watch::Watch;
use super::Context;
use crate::config::Files;
use crate::parcel::Parcel;
use crate::queue::Closed;

/// After growth, so long more is waited for: many lines in one go cost less.
const SETTLE: Duration = Duration::from_millis(20);
/// A file that was moved away and is quiet for so long has its last line as it is.
const FINAL_AFTER_US: u64 = 5_000_000;
/// And after so long it is not followed any more.
const LEAVE_AFTER_US: u64 = 300_000_000;
/// So often names are looked at again if they change meanwhile.
const SCANS_MAX: usize = 8;
/// File descriptors this takes, with some for the others.
const DESCRIPTORS: u64 = 2048;

/// What to follow.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the section in the configuration.
    pub section: String,
    /// What it says.
    pub files: Files,
}

/// Follows files until a stop. What cannot be opened is said in the status, and tried again.
pub fn run<E>(options: &Options, ctx: &Context<E>) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < DESCRIPTORS) {
        let current = limit.maximum.map_or(DESCRIPTORS, |max| max.min(DESCRIPTORS));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    }
    // The queue has been closed, or a stop was asked for: in both cases all that was read is handed over.
    let _ = Follower::new(options, ctx).run();
}

struct Follower<'a, E> {
    options: &'a Options,
    ctx: &'a Context<E>,
    watch: Watch,
    book: Book,
    tails: BTreeMap<Id, Tail>,
    window: Vec<u8>,
    parcel: Option<Parcel>,
    refused: BTreeMap<PathBuf, String>,
    /// Watches of files that are not followed, for they may be copies.
    others: BTreeSet<i32>,
    is_first_scan: bool,
    too_many: bool,
}

impl<'a, E> Follower<'a, E> {
    fn new(options: &'a Options, ctx: &'a Context<E>) -> Self {
        let default_stream = options.files.stream_of(&options.section, Path::new(""));
        Self {
            options,
            ctx,
            watch: Watch::default(),
            book: Book::open(&options.section, &default_stream, ctx.cursors.iter()),
            tails: BTreeMap::new(),
            window: Vec::new(),
            parcel: None,
            refused: BTreeMap::new(),
            others: BTreeSet::new(),
            is_first_scan: true,
            too_many: false,
        }
    }

    fn run(&mut self) -> Result<(), Closed> {
        self.scan()?;
        let mut last_scan_us = self.ctx.clock.now_us();
        loop {
            let busy = self.drain_all()?;
            self.hand_over()?;
            self.leave_old();
            let wait = if busy { Duration::ZERO } else { self.patience() };
            let Some(mut news) = self.watch.wait(wait, &self.ctx.stop) else { return Ok(()) };
            if !busy && (news.rescan || !news.files.is_empty()) {
                // More is likely to come at once.
                let (files, rescan, all) = (news.files, news.rescan, news.all);
                if self.pause() {
                    return Ok(());
                }
                let Some(more) = self.watch.wait(Duration::ZERO, &self.ctx.stop) else { return Ok(()) };
                news = more;
                news.files.extend(files);
                (news.rescan, news.all) = (news.rescan || rescan, news.all || all);
            }
            let now_us = self.ctx.clock.now_us();
            let is_time = now_us.saturating_sub(last_scan_us) >= micros(self.watch.patience());
            for tail in self.tails.values_mut() {
                tail.dirty |= news.all || is_time || tail.watch.is_none_or(|watch| news.files.contains(&watch));
            }
            if news.rescan || is_time || !news.files.is_disjoint(&self.others) {
                self.scan()?;
                last_scan_us = self.ctx.clock.now_us();
            }
        }
    }

    /// Waits for a little; `true` if a stop was asked for.
    fn pause(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stopped = self.ctx.stop.fd();
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(SETTLE.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&stopped, PollFlags::IN)], Some(&time));
        self.ctx.stop.is_asked()
    }

    /// How long nothing has to be done.
    fn patience(&self) -> Duration {
        let now_us = self.ctx.clock.now_us();
        let due = |tail: &Tail| {
            let lines = tail.waits.then(|| micros(self.options.files.multiline_wait));
            let last = (tail.moved && tail.scanned > tail.trail.offset()).then_some(FINAL_AFTER_US);
            let leave = tail.gone.then_some(LEAVE_AFTER_US);
            let after = [lines, last, leave].into_iter().flatten().min()?;
            Some(tail.grown_us.saturating_add(after).saturating_sub(now_us).saturating_add(1000))
        };
        let due = self.tails.values().filter_map(due).min().map_or(Duration::MAX, Duration::from_micros);
        due.min(self.watch.patience())
    }

    /// Looks for files: new ones are met, those that are not found any more are gone.
    fn scan(&mut self) -> Result<(), Closed> {
        for _ in 0..SCANS_MAX {
            if !self.scan_once()? {
                break;
            }
        }
        self.say_what_it_does();
        Ok(())
    }

    /// `true` if files have changed their names meanwhile.
    fn scan_once(&mut self) -> Result<bool, Closed> {
        let mut found = find(&self.options.files);
        for directory in &found.directories {
            self.watch.directory(directory);
        }
        if self.is_first_scan {
            // What came before the directories were watched.
            found = find(&self.options.files);
        }
        let is_first = mem::take(&mut self.is_first_scan);
        self.too_many = found.is_too_much;
        self.refused.clone_from(&found.refused);
        let mut seen = BTreeSet::new();
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (path, metadata) in &found.files {
            let id = Id::from(metadata);
            if !seen.insert(id) {
                continue; // another name of the same file
            }
            match self.tails.get_mut(&id) {
                Some(tail) => tail.is_at(path, &found),
                None if self.book.get(id).is_some() => known.push((path, id)),
                None => new.push((path, id)),
            }
        }
        for (id, tail) in &mut self.tails {
            if !seen.contains(id) && !tail.gone {
                (tail.gone, tail.moved, tail.dirty) = (true, true, true);
            }
        }
        self.find_renamed(&found, &seen, is_first);
        if is_first {
            // Again: a directory that changes while it is listed may not show all there is.
            self.find_renamed(&found, &seen, is_first);
        }
        // What was moved away is read before what took its place.
        let mut has_changed = false;
        for (path, id) in known.into_iter().chain(new) {
            has_changed |= self.meet(path, id, is_first)?;
        }
        if is_first && self.book.is_new() {
            self.note_all()?;
        }
        Ok(has_changed)
    }

    /// Closes files that are gone and quiet.
    fn leave_old(&mut self) {
        let now_us = self.ctx.clock.now_us();
        let is_old = |tail: &Tail| tail.gone && now_us.saturating_sub(tail.grown_us) >= LEAVE_AFTER_US;
        let old: Vec<Id> = self.tails.iter().filter(|(_, tail)| is_old(tail)).map(|(id, _)| *id).collect();
        for id in old {
            let Some(tail) = self.tails.remove(&id) else { continue };
            if let Some(watch) = tail.watch {
                self.watch.leave(watch);
            }
            if tail.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
                self.book.forget(id);
            } else {
                self.book.leave(id);
            }
        }
    }

    fn say_what_it_does(&self) {
        let count = self.tails.values().filter(|tail| !tail.gone).count();
        let mut words = match count {
            0 => "no file matches yet".to_owned(),
            1 => "following 1 file".to_owned(),
            n => format!("following {n} files"),
        };
        if let Some((path, why)) = self.refused.first_key_value() {
            let more = self.refused.len().saturating_sub(1);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            words = format!("{words}; cannot read {} ({why}){more}", path.display());
        }
        if self.too_many {
            words = format!("{words}; more files match than can be followed ({FILES_MAX})");
        }
        if self.refused.is_empty() && !self.too_many {
            self.ctx.status.works(words)
        } else {
            self.ctx.status.fails(words)
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
