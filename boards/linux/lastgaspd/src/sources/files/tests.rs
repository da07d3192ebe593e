//! Real files under rotation, with runs that are cut at random.
//!
//! A cut run keeps a prefix of the batches, with their states, as the store does; the next one starts from there.

use super::meet::STATES_AT_ONCE;
use super::read::BATCH_BYTES;
use super::*;
use crate::config::Begin;
use crate::config::pattern::{LineStart, PathPattern};
use crate::queue::{Event, Queue};
use crate::sources::status::SourceStatus;
use crate::stop::{Ring, Stop};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

const RECORD_BYTES_MAX: usize = 4000;

struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::env::var("LASTGASP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0xf11e);
        println!("LASTGASP_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    stream: String,
    body: String,
    continued: bool,
}

/// What a store has after all runs.
#[derive(Default, Clone)]
struct Held {
    states: BTreeMap<Vec<u8>, Vec<u8>>,
    records: Vec<Kept>,
    words: String,
    gave_up: bool,
}

impl Held {
    /// One run: takes batches in until `enough` says so, then the power is cut: what was not taken in is lost.
    fn run(&mut self, options: &Options, mut enough: impl FnMut(&Self) -> bool) {
        let (queue, ring, status, source) = start(options, &self.states);
        let give_up = Instant::now() + Duration::from_secs(15);
        'run: while !enough(self) {
            let parcel = match queue.next(Some(Instant::now() + Duration::from_millis(50))) {
                Some(Event::Parcel(parcel)) => parcel,
                Some(Event::SourceEnded) => panic!("the source ended by itself"),
                _ => {
                    if Instant::now() < give_up {
                        continue;
                    }
                    println!("nothing comes: {}", status.report().words);
                    self.gave_up = true;
                    break;
                }
            };
            for at in 0.. {
                let Some(batch) = parcel.batch(at) else { break };
                let bytes: usize = batch.slots.iter().map(|s| s.body.len()).sum();
                assert!(bytes <= BATCH_BYTES && batch.states.len() <= 2 * STATES_AT_ONCE, "{bytes}");
                for slot in batch.slots {
                    assert!(slot.body.len() <= RECORD_BYTES_MAX);
                    self.records.push(Kept {
                        stream: parcel.stream_name(slot.stream).to_owned(),
                        body: String::from_utf8(parcel.get(&slot.body).to_vec()).unwrap(),
                        continued: slot.continued,
                    });
                }
                for (key, value) in batch.states {
                    self.states.insert(parcel.get(key).to_vec(), parcel.get(value).to_vec());
                }
                if enough(self) {
                    break 'run;
                }
            }
            queue.recycle(parcel);
        }
        self.words = status.report().words;
        ring.ring();
        drop(queue);
        source.join().unwrap();
    }

    fn bodies(&self) -> Vec<&str> {
        self.records.iter().map(|record| record.body.as_str()).collect()
    }
}

type Started = (Queue<()>, Ring, Arc<SourceStatus>, thread::JoinHandle<()>);

fn start(options: &Options, states: &BTreeMap<Vec<u8>, Vec<u8>>) -> Started {
    let queue: Queue<()> = Queue::new(2);
    let (stop, ring) = Stop::by_hand().unwrap();
    let cursors = Arc::new(states.clone());
    let record_bytes_max = RECORD_BYTES_MAX;
    let ctx = Context { record_bytes_max, cursors, ..Context::by_hand(queue.intake(), stop) };
    let status = Arc::clone(&ctx.status);
    let options = options.clone();
    let source = thread::spawn(move || run(&options, &ctx));
    (queue, ring, status, source)
}

fn options(directory: &Path, patterns: &[&str]) -> Options {
    let pattern = |name: &&str| PathPattern::new(directory.join(name).to_str().unwrap()).unwrap();
    Options {
        section: "test".into(),
        files: Files { paths: patterns.iter().map(pattern).collect(), ..Files::default() },
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A program that writes a log, and what rotates it.
struct Writer {
    name: &'static str,
    path: PathBuf,
    /// Numbers of its lines.
    next: usize,
    /// The first of the life that the file has now.
    first: usize,
    /// Half a line is written.
    half: bool,
}

impl Writer {
    fn line(&self, i: usize) -> String {
        format!("{} {i} {}", self.name, "x".repeat(i * 7 % 300))
    }

    fn write(&mut self, lines: usize) {
        for _ in 0..lines {
            let line = self.line(self.next) + "\n";
            let from = if mem::take(&mut self.half) { line.len() / 2 } else { 0 };
            append(&self.path, &line[from..]);
            self.next += 1;
        }
    }

    fn write_half(&mut self) {
        if !self.half {
            let line = self.line(self.next) + "\n";
            append(&self.path, &line[..line.len() / 2]);
            self.half = true;
        }
    }

    fn rotated(&self, n: usize) -> PathBuf {
        self.path.with_file_name(format!("{}.log.{n}", self.name))
    }

    fn shift(&self) {
        for n in (1..3).rev() {
            let _ = fs::rename(self.rotated(n), self.rotated(n + 1));
        }
    }

    /// One operation, if the rotation cannot lose what nobody has read.
    fn operate(&mut self, random: &mut Random, is_kept: impl Fn(&str) -> bool) {
        let has_begun = self.next > self.first && is_kept(&self.line(self.first));
        let all_kept = self.next > self.first && is_kept(&self.line(self.next - 1));
        match random.below(12) {
            0 if has_begun && !self.half => {
                self.shift();
                fs::rename(&self.path, self.rotated(1)).unwrap();
                self.first = self.next;
                self.write(1);
            }
            1 if has_begun && !self.half => {
                self.shift();
                fs::copy(&self.path, self.rotated(1)).unwrap();
                File::create(&self.path).unwrap();
                self.first = self.next;
            }
            2 if all_kept && !self.half => {
                fs::remove_file(&self.path).unwrap();
                self.first = self.next;
                self.write(1);
            }
            3 => self.write_half(),
            _ => self.write(1 + random.below(40)),
        }
    }
}

/// Many rounds of writing, rotating and reading, cut at random; all lines are there once, in order.
fn survive(patterns: &[&str], rounds: usize) {
    let mut random = Random::seeded();
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path(), patterns);
    let mut writers = ["a", "b", "c"].map(|name| {
        let path = directory.path().join(format!("{name}.log"));
        Writer { name, path, next: 0, first: 0, half: false }
    });
    let kept: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut held = Held::default();
    for round in 0..rounds {
        let mut steps = Random(random.0.wrapping_mul(round as u64 + 3) | 1);
        let operations = 10 + random.below(60);
        let seen = Arc::clone(&kept);
        let writing = thread::spawn(move || {
            for _ in 0..operations {
                let writer = steps.below(3);
                writers[writer].operate(&mut steps, |line| seen.lock().unwrap().contains(line));
            }
            for writer in &mut writers {
                writer.write(1);
            }
            writers
        });
        // Some of what comes, or all of it.
        let some = held.records.len() + 1 + random.below(200);
        let all = random.below(3) == 0 || round + 1 == rounds;
        let mut writing = Some(writing);
        let mut written = None;
        held.run(&options, |held| {
            kept.lock().unwrap().extend(held.records.iter().rev().take(100).map(|record| record.body.clone()));
            if writing.as_ref().is_some_and(thread::JoinHandle::is_finished) {
                written = writing.take().map(|writing| writing.join().unwrap());
            }
            let total = written.as_ref().map(|writers| writers.iter().map(|w| w.next).sum::<usize>());
            total.is_some_and(|total| held.records.len() >= total) || (!all && held.records.len() >= some)
        });
        let gave_up = held.gave_up;
        writers = written.or_else(|| writing.take().map(|writing| writing.join().unwrap())).unwrap();
        kept.lock().unwrap().extend(held.records.iter().map(|record| record.body.clone()));
        if gave_up {
            break;
        }
    }
    for writer in &writers {
        let prefix = format!("{} ", writer.name);
        let got: Vec<&str> = held.bodies().into_iter().filter(|body| body.starts_with(&prefix)).collect();
        let want: Vec<String> = (0..writer.next).map(|i| writer.line(i)).collect();
        let differs =
            (0..got.len().max(want.len())).find(|at| got.get(*at).copied() != want.get(*at).map(String::as_str));
        let near = |at: usize| {
            got.iter().skip(at.saturating_sub(2)).take(5).map(|b| &b[..b.len().min(12)]).collect::<Vec<_>>()
        };
        assert!(
            differs.is_none(),
            "{}: {} of {}; at {differs:?}: {:?}",
            writer.name,
            got.len(),
            want.len(),
            near(differs.unwrap())
        );
    }
    let total: usize = writers.iter().map(|writer| writer.next).sum();
    assert_eq!(held.records.len(), total);
    assert!(total > rounds * 20, "{total}");
}

#[test]
fn no_line_is_lost_or_doubled_under_rotation_and_cuts() {
    survive(&["*.log"], 60);
}

#[test]
fn the_same_if_rotated_files_match_too() {
    survive(&["*.log*"], 60);
}

#[test]
fn a_late_writer_is_read_from_the_renamed_file_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("a.log"), directory.path().join("a.log.1"));
    let options = options(directory.path(), &["a.log"]);
    let mut held = Held::default();
    append(&path, "1\n");
    held.run(&options, |held| held.records.len() == 1);
    fs::rename(&path, &old).unwrap();
    append(&old, "2\n");
    append(&path, "3\n");
    let mut late = Some("4\n");
    held.run(&options, |held| {
        if held.records.len() == 3 {
            late.take().into_iter().for_each(|text| append(&old, text));
        }
        held.records.len() == 4
    });
    assert_eq!(held.bodies(), ["1", "2", "3", "4"], "the old file first");
    append(&old, "last, without its newline");
    held.run(&options, |held| held.records.len() == 5);
    assert_eq!(held.bodies()[4], "last, without its newline");
}

#[test]
fn a_copy_is_not_read_again_and_an_unread_rest_is() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("a.log"), directory.path().join("a.log.1"));
    for patterns in [["a.log"], ["a.log*"]] {
        let options = options(directory.path(), &patterns);
        let mut held = Held::default();
        fs::write(&path, "1\n2\n").unwrap();
        held.run(&options, |held| held.records.len() == 2);
        // While nobody looks: more is written, copied, emptied, and written anew, longer than before.
        append(&path, "3\n4\n");
        fs::copy(&path, &copy).unwrap();
        fs::write(&path, "5\n6\n7\n8\n9\n").unwrap();
        held.run(&options, |held| held.records.len() == 9);
        append(&path, "10\n");
        held.run(&options, |held| held.records.len() >= 10);
        assert_eq!(held.bodies(), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], "{patterns:?}");
        fs::remove_file(&copy).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn lines_that_belong_together_are_joined_and_the_last_waits_only_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let mut options = options(directory.path(), &["*.log"]);
    options.files.multiline_start = Some(LineStart::new("^[0-9]").unwrap());
    options.files.multiline_wait = Duration::from_millis(200);
    let mut held = Held::default();
    append(&path, "1 panic\n at a\n at b\n2 x\n at ");
    held.run(&options, |held| held.records.len() == 2);
    assert_eq!(held.bodies(), ["1 panic\n at a\n at b", "2 x"], "the second by the clock");
    append(&path, "c\n3 y\n");
    held.run(&options, |held| held.records.len() == 4);
    assert_eq!(held.bodies()[2..], [" at c", "3 y"]);
}

#[test]
fn long_lines_are_kept_in_parts_though_runs_are_cut_between_them() {
    let mut random = Random::seeded();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let options = options(directory.path(), &["*.log"]);
    let line: String =
        (0..300_000u32).map(|i| char::from(b'a' + u8::try_from(i / 7 * (i % 11) % 23).unwrap())).collect();
    append(&path, &format!("first\n{line}\nlast\n"));
    let mut held = Held::default();
    while held.records.last().is_none_or(|record| record.body != "last") {
        let until = held.records.len() + 1 + random.below(20);
        held.run(&options, |held| {
            held.records.len() >= until || held.records.last().is_some_and(|record| record.body == "last")
        });
    }
    let (first, rest) = held.records.split_first().unwrap();
    let (last, parts) = rest.split_last().unwrap();
    assert_eq!((first.body.as_str(), last.body.as_str()), ("first", "last"));
    assert_eq!(parts.iter().map(|part| part.body.as_str()).collect::<String>(), line);
    assert!(parts.iter().rev().skip(1).all(|part| part.continued) && !parts.last().unwrap().continued);
}

#[test]
fn from_the_end_means_what_comes_after_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old.log"), directory.path().join("new.log"));
    append(&old, "before\n");
    let mut options = options(directory.path(), &["*.log"]);
    options.files.from = Begin::End;
    options.files.stream = Some("{stem}".to_owned());
    let mut held = Held::default();
    held.run(&options, |held| !held.states.is_empty());
    append(&old, "after\n");
    append(&new, "all of it\n");
    held.run(&options, |held| held.records.len() == 2);
    let mut got: Vec<(&str, &str)> = held.records.iter().map(|r| (r.stream.as_str(), r.body.as_str())).collect();
    got.sort_unstable();
    assert_eq!(got, [("new", "all of it"), ("old", "after")]);
}

#[test]
fn files_that_come_later_are_met_through_directories_that_are_not_there_yet() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path(), &["deep/*/x.log"]);
    let mut held = Held::default();
    let mut made = 0;
    let (queue, ring, status, source) = start(&options, &held.states);
    while held.records.len() < 3 {
        // Only once the last one has come: directories are noticed one after the other.
        if made == held.records.len() {
            let below = directory.path().join("deep").join(made.to_string());
            fs::create_dir_all(&below).unwrap();
            append(&below.join("x.log"), "hello\n");
            made += 1;
        }
        match queue.next(Some(Instant::now() + Duration::from_secs(20))) {
            Some(Event::Parcel(parcel)) => {
                let records = parcel.records();
                held.records.extend((0..records).map(|_| Kept {
                    stream: String::new(),
                    body: String::new(),
                    continued: false,
                }));
                queue.recycle(parcel);
            }
            _ => panic!("nothing comes: {}", status.report().words),
        }
    }
    assert!(status.report().works, "{}", status.report().words);
    ring.ring();
    source.join().unwrap();
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    symlink(directory.path().join("loop.log"), directory.path().join("loop.log")).unwrap();
    append(&directory.path().join("real.data"), "line \u{1F980}\n");
    symlink(directory.path().join("real.data"), directory.path().join("link.log")).unwrap();
    let mut held = Held::default();
    held.run(&options(directory.path(), &["*.log"]), |held| held.records.len() == 1);
    assert_eq!(held.bodies(), ["line \u{1F980}"]);
    assert!(held.words.contains("following 1 file; cannot read") && held.words.contains("loop.log"), "{}", held.words);
}
