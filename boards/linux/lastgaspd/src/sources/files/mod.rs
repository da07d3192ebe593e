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
pub mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::book::{Book, FILES_MAX};
use self::cut::{Flush, Rules, first_record};
use self::find::{Found, files_in, find, is_sibling};
use self::identity::{Id, Trail, is_front_of};
use self::watch::Watch;
use super::{Context, severity};
use crate::config::{Begin, Files};
use crate::parcel::{Parcel, Slot};
use crate::queue::Closed;

/// Read at once, unless a line is longer.
const WINDOW_BYTES: usize = 64 << 10;
/// A longer line is kept in parts, if not told otherwise.
const LINE_BYTES_MAX: usize = 1 << 20;
/// A batch is ended here: it has to fit into the smallest memtable.
const BATCH_BYTES: usize = 24 << 10;
/// A parcel is handed over here.
const PARCEL_BYTES: usize = 128 << 10;
/// Records of a parcel at most.
const PARCEL_RECORDS: usize = 2048;
/// So much of one file before the others have their turn.
const TURN_BYTES: u64 = 1 << 20;
/// After growth, so long more is waited for: many lines in one go cost less.
const SETTLE: Duration = Duration::from_millis(20);
/// A file that was moved away and is quiet for so long has its last line as it is.
const FINAL_AFTER_US: u64 = 5_000_000;
/// And after so long it is not followed any more.
const LEAVE_AFTER_US: u64 = 300_000_000;
/// State entries of a batch without records.
const STATES_AT_ONCE: usize = 16;
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

/// A followed file.
#[derive(Debug)]
struct Tail {
    file: File,
    path: PathBuf,
    stream: String,
    trail: Trail,
    /// There is no whole record up to here.
    scanned: u64,
    /// Whole lines wait for the next one.
    waits: bool,
    watch: Option<i32>,
    /// Look at it.
    dirty: bool,
    /// When it grew last.
    grown_us: u64,
    /// It was moved away: its last line may be final.
    moved: bool,
    /// No name that matches leads to it any more.
    gone: bool,
    /// Severity of the record that goes on.
    severity: Option<u8>,
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

    /// Known files that are not followed and have a name that does not match: after a restart all of them, for their
    /// writers may still have them; later those that have grown.
    fn find_renamed(&mut self, found: &Found, seen: &BTreeSet<Id>, is_first: bool) {
        let wanted: BTreeSet<Id> = self.book.absent().map(|(id, _)| id).filter(|id| !seen.contains(id)).collect();
        if wanted.is_empty() {
            return;
        }
        let parents = found.files.keys().filter_map(|path| path.parent().map(Path::to_owned));
        let directories: BTreeSet<PathBuf> = parents.chain(found.directories.iter().cloned()).collect();
        for (path, metadata) in directories.iter().flat_map(|directory| files_in(directory)) {
            let id = Id::from(&metadata);
            let Some(known) = wanted.contains(&id).then(|| self.book.get(id)).flatten().cloned() else { continue };
            if self.tails.contains_key(&id) || (!is_first && metadata.len() <= known.mark.offset) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            if let Ok(Some(trail)) = Trail::resume(&file, &known.mark) {
                self.follow(id, file, &path, known.stream, trail);
                if let Some(tail) = self.tails.get_mut(&id) {
                    (tail.gone, tail.moved) = (true, true);
                }
            }
        }
    }

    /// A file that is not followed yet; `true` if the path leads to another one by now.
    fn meet(&mut self, path: &Path, id: Id, is_first: bool) -> Result<bool, Closed> {
        match self.try_meet(path, id, is_first)? {
            Ok(is_there) => Ok(!is_there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => {
                self.refused.insert(path.to_owned(), error.to_string());
                Ok(false)
            }
        }
    }

    fn try_meet(&mut self, path: &Path, listed: Id, is_first: bool) -> Result<io::Result<bool>, Closed> {
        let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let id = Id::from(&metadata);
        // A file that was renamed keeps the stream it had.
        let known = self.book.get(id).map(|known| known.stream.clone());
        let stream = known.unwrap_or_else(|| self.options.files.stream_of(&self.options.section, path));
        if id != listed {
            return Ok(Ok(false));
        }
        if self.tails.contains_key(&id) || !metadata.is_file() {
            return Ok(Ok(true));
        }
        let trail = match self.resume(id, &file, path, &stream)? {
            Ok(None) => match self.is_copy(&file, path) {
                Ok(true) => return Ok(Ok(true)),
                Ok(false) if is_first && self.book.is_new() && self.options.files.from == Begin::End => {
                    Trail::at(&file, metadata.len())
                }
                Ok(false) => Ok(Trail::default()),
                Err(error) => Err(error),
            },
            Ok(Some(trail)) => Ok(trail),
            Err(error) => Err(error),
        };
        Ok(trail.map(|trail| {
            self.follow(id, file, path, stream, trail);
            true
        }))
    }

    /// Where a known file was left, if it is in the same life still.
    fn resume(&mut self, id: Id, file: &File, path: &Path, stream: &str) -> Result<io::Result<Option<Trail>>, Closed> {
        let Some(mark) = self.book.get(id).map(|known| known.mark) else { return Ok(Ok(None)) };
        let resumed = Trail::resume(file, &mark);
        if matches!(resumed, Ok(None)) {
            self.rescue(id, path, stream, &mark)?;
        }
        Ok(resumed)
    }

    fn follow(&mut self, id: Id, file: File, path: &Path, stream: String, trail: Trail) {
        if !self.book.set(id, trail.mark(), &stream) || self.tails.len() >= FILES_MAX {
            self.too_many = true;
            return;
        }
        let watch = self.watch.file(&file);
        self.others.retain(|other| Some(*other) != watch);
        let tail = Tail {
            watch,
            file,
            path: path.to_owned(),
            stream,
            scanned: trail.offset(),
            trail,
            waits: false,
            dirty: true,
            grown_us: self.ctx.clock.now_us(),
            moved: false,
            gone: false,
            severity: None,
        };
        self.tails.insert(id, tail);
    }

    /// Whether a new file is a copy of one that is followed, as `copytruncate` makes it; or may become one.
    fn is_copy(&mut self, file: &File, path: &Path) -> io::Result<bool> {
        for tail in self.tails.values() {
            if tail.gone || tail.trail.offset() == 0 || !is_sibling(&tail.path, path) {
                continue;
            }
            // It may grow apart from the original; watched before it is looked at, or a change could go unseen.
            let watch = self.watch.file(file);
            // In this order: by the time the original is emptied the copy is whole.
            if tail.trail.holds(file)? || is_front_of(file, &tail.file)? || tail.trail.holds(file)? {
                self.others.extend(watch);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A file has lost what was read of it: if there is a copy, the rest is in there.
    fn rescue(&mut self, id: Id, path: &Path, stream: &str, mark: &identity::Mark) -> Result<(), Closed> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut copy = None;
        for (other, metadata) in files_in(parent).filter(|_| mark.offset > 0) {
            let other_id = Id::from(&metadata);
            if other_id == id
                || self.tails.contains_key(&other_id)
                || metadata.len() < mark.offset
                || !is_sibling(path, &other)
            {
                continue;
            }
            let Ok(file) = File::open(&other) else { continue };
            // It may have the inode of a file that is no more.
            let known = self.book.get(other_id).filter(|known| known.mark.offset > 0);
            if known.is_some_and(|known| matches!(Trail::resume(&file, &known.mark), Ok(Some(_)))) {
                continue;
            }
            if let Ok(Some(trail)) = Trail::resume(&file, mark) {
                copy = Some((other_id, file, other, trail));
                break;
            }
        }
        let start = Trail::default().mark();
        self.book.set(id, start, stream);
        if let Some((copy_id, file, other, trail)) = copy {
            self.follow(copy_id, file, &other, stream.to_owned(), trail);
            if let Some(tail) = self.tails.get_mut(&copy_id) {
                (tail.gone, tail.moved) = (true, true);
            }
            // Both at once: neither is the rest of the copy lost, nor is it read twice.
            self.note(&[id, copy_id])?;
            self.drain(copy_id)?;
        }
        Ok(())
    }

    /// Keeps how far these files were read, without a record.
    fn note(&mut self, ids: &[Id]) -> Result<(), Closed> {
        let states: BTreeMap<_, _> = ids.iter().flat_map(|id| self.book.states_with(*id)).collect();
        let parcel = self.parcel()?;
        for (key, value) in &states {
            parcel.state(key, value);
        }
        parcel.end_batch(None);
        Ok(())
    }

    /// Keeps that this section has begun, and where.
    fn note_all(&mut self) -> Result<(), Closed> {
        let mut ids: Vec<Id> = self.tails.keys().copied().collect();
        ids.push(Id { dev: 0, ino: 0 });
        ids.chunks(STATES_AT_ONCE).try_for_each(|ids| self.note(ids))
    }

    /// Reads what there is to read; `true` if there is more. Files that were moved away come first, then those that
    /// were written to longer ago: so what rotation has torn apart comes in its order.
    fn drain_all(&mut self) -> Result<bool, Closed> {
        let age = |(id, tail): (&Id, &Tail)| {
            let modified =
                if tail.dirty { tail.file.metadata().and_then(|metadata| metadata.modified()).ok() } else { None };
            (!tail.moved, modified, Reverse(tail.path.clone()), *id)
        };
        let mut order: Vec<_> = self.tails.iter().map(age).collect();
        order.sort_unstable();
        let mut busy = false;
        for (is_current, .., id) in order {
            let has_more = self.drain(id)?;
            busy |= has_more;
            if has_more && !is_current {
                break; // it has to be read to its end first
            }
        }
        Ok(busy)
    }

    /// Reads one file as far as its turn goes; `true` if there is more.
    fn drain(&mut self, id: Id) -> Result<bool, Closed> {
        let Some(mut tail) = self.tails.remove(&id) else { return Ok(false) };
        let read = self.drain_tail(id, &mut tail);
        let path = tail.path.clone();
        self.tails.insert(id, tail);
        match read {
            Ok(Read::Done) => Ok(false),
            Ok(Read::More) => Ok(true),
            Ok(Read::Reborn) => self.reborn(id),
            Err(Failed::Closed) => Err(Closed),
            Err(Failed::Io(error)) => {
                if self.refused.insert(path, error.to_string()).is_none() {
                    self.ctx.status.erred();
                    self.say_what_it_does();
                }
                Ok(false)
            }
        }
    }

    /// A file was emptied, and may have new bytes.
    fn reborn(&mut self, id: Id) -> Result<bool, Closed> {
        let Some(tail) = self.tails.get_mut(&id) else { return Ok(false) };
        let (mark, path, stream) = (tail.trail.mark(), tail.path.clone(), tail.stream.clone());
        tail.trail = Trail::default();
        (tail.scanned, tail.waits, tail.dirty, tail.severity) = (0, false, true, None);
        self.rescue(id, &path, &stream, &mark)?;
        Ok(true)
    }

    fn drain_tail(&mut self, id: Id, tail: &mut Tail) -> Result<Read, Failed> {
        let now_us = self.ctx.clock.now_us();
        let size = tail.file.metadata()?.len();
        if size > tail.scanned {
            tail.grown_us = now_us;
        }
        let quiet_us = now_us.saturating_sub(tail.grown_us);
        let flush = match () {
            () if tail.moved && quiet_us >= FINAL_AFTER_US => Flush::All,
            () if tail.waits && quiet_us >= micros(self.options.files.multiline_wait) => Flush::Lines,
            () => Flush::Wait,
        };
        let pending = tail.scanned > tail.trail.offset();
        let is_due = pending && flush != Flush::Wait;
        if !tail.dirty && !is_due {
            return Ok(Read::Done);
        }
        if size < tail.trail.offset() {
            return Ok(Read::Reborn);
        }
        let max =
            self.options.files.max_line_bytes.map_or(LINE_BYTES_MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let max = max.min(self.ctx.record_bytes_max).max(1);
        let mut turn = 0;
        let mut window = mem::take(&mut self.window);
        let read = self.read_records(id, tail, max, flush, &mut turn, &mut window);
        window.clear();
        window.shrink_to(WINDOW_BYTES);
        self.window = window;
        let read = read?;
        tail.dirty = matches!(read, Read::More);
        Ok(read)
    }

    fn read_records(
        &mut self,
        id: Id,
        tail: &mut Tail,
        max: usize,
        flush: Flush,
        turn: &mut u64,
        window: &mut Vec<u8>,
    ) -> Result<Read, Failed> {
        let options = self.options;
        let rules = Rules { max, start: options.files.multiline_start.as_ref() };
        let mut room = WINDOW_BYTES;
        loop {
            let offset = tail.trail.offset();
            if flush == Flush::Wait && tail.goes_on_without_newline(max, window)? {
                return Ok(Read::Done);
            }
            let is_end = fill(&tail.file, offset, room, window)?;
            // Only now: what was read has to be of the same life as what was read before.
            if !tail.trail.holds(&tail.file)? {
                return Ok(Read::Reborn);
            }
            let used = self.put(id, tail, rules, flush, window)?;
            let rest = window.get(used..).unwrap_or_default();
            tail.scanned = tail.trail.offset().saturating_add(rest.len() as u64);
            tail.waits = rules.start.is_some() && memchr::memchr(b'\n', rest).is_some();
            *turn = turn.saturating_add(used as u64);
            if is_end {
                return Ok(Read::Done);
            }
            if *turn >= TURN_BYTES {
                return Ok(Read::More);
            }
            // Without a whole record in it, the window was too small.
            room = if used == 0 { room.saturating_mul(2) } else { WINDOW_BYTES };
        }
    }

    /// Puts the whole records of a window into the parcel; how many bytes they took.
    fn put(&mut self, id: Id, tail: &mut Tail, rules: Rules<'_>, flush: Flush, window: &[u8]) -> Result<usize, Closed> {
        let (mut at, mut begun) = (0usize, 0usize);
        loop {
            let rest = window.get(at..).unwrap_or_default();
            let cut = first_record(rest, rules, flush);
            // The batch ends before the record with which it would be too large.
            let bytes = cut.map_or(0, |cut| cut.next);
            let is_full = at.saturating_sub(begun).saturating_add(bytes) > BATCH_BYTES;
            if at > begun && (cut.is_none() || is_full) {
                tail.trail.advance(window.get(begun..at).unwrap_or_default());
                begun = at;
                self.book.set(id, tail.trail.mark(), &tail.stream);
                let states = self.book.states_with(id);
                let parcel = self.parcel()?;
                for (key, value) in &states {
                    parcel.state(key, value);
                }
                parcel.end_batch(None);
                if parcel.bytes.len() >= PARCEL_BYTES || parcel.records() >= PARCEL_RECORDS {
                    self.hand_over()?;
                }
            }
            let Some(cut) = cut else { return Ok(at) };
            let body = rest.get(..cut.end).unwrap_or_default();
            let severity = tail.severity.take().unwrap_or_else(|| severity::detect(body));
            tail.severity = cut.continued.then_some(severity);
            let parcel = self.parcel()?;
            let stream = parcel.stream(&tail.stream);
            let body = parcel.copy(body);
            parcel.push(Slot { severity, continued: cut.continued, ..Slot::plain(stream, body) });
            self.ctx.status.read(1);
            at = at.saturating_add(cut.next);
        }
    }

    fn parcel(&mut self) -> Result<&mut Parcel, Closed> {
        let parcel = match self.parcel.take() {
            Some(parcel) => parcel,
            None => self.ctx.intake.parcel()?,
        };
        Ok(self.parcel.insert(parcel))
    }

    fn hand_over(&mut self) -> Result<(), Closed> {
        let Some(mut parcel) = self.parcel.take() else { return Ok(()) };
        parcel.received_us = self.ctx.clock.now_us();
        self.ctx.intake.send(parcel)
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

/// How reading a file ended.
enum Read {
    Done,
    More,
    /// It is not what was read before.
    Reborn,
}

enum Failed {
    Closed,
    Io(io::Error),
}

impl From<Closed> for Failed {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Tail {
    /// A path that matches leads to it.
    fn is_at(&mut self, path: &Path, found: &Found) {
        if mem::take(&mut self.gone) {
            self.dirty = true;
        }
        let leads_here = found
            .files
            .get(&self.path)
            .is_some_and(|metadata| self.file.metadata().is_ok_and(|own| Id::from(&own) == Id::from(metadata)));
        if !leads_here {
            (self.moved, self.dirty) = (true, true);
            path.clone_into(&mut self.path);
        }
    }

    /// Whether nothing but more of one line came since it was looked at last.
    fn goes_on_without_newline(&mut self, max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let offset = self.trail.offset();
        let size = self.file.metadata()?.len();
        if size < self.scanned {
            self.scanned = offset; // what there was of the line is not there any more
        }
        let new = size.saturating_sub(self.scanned);
        if self.scanned <= offset || size.saturating_sub(offset) > max as u64 || new >= WINDOW_BYTES as u64 {
            return Ok(false);
        }
        let is_end = fill(&self.file, self.scanned, WINDOW_BYTES, buffer)?;
        if !is_end || memchr::memchr(b'\n', buffer).is_some() || !self.trail.holds(&self.file)? {
            return Ok(false);
        }
        self.scanned = self.scanned.saturating_add(buffer.len() as u64);
        Ok(true)
    }
}

/// Reads up to `room` bytes from an offset; whether that is the end of the file.
fn fill(file: &File, offset: u64, room: usize, window: &mut Vec<u8>) -> io::Result<bool> {
    window.clear();
    window.resize(room, 0);
    let mut len = 0usize;
    while let Some(free) = window.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(bytes) => len = len.saturating_add(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    window.truncate(len);
    Ok(len < room)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
