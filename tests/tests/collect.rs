//! The collector as users run it: the real daemon with files, a journal, syslog and HTTP, killed at random instants,
//! reloaded and limited.
//!
//! Invariants of these tests: they wait for conditions, never for time; they end only processes that they started; what
//! is random prints its seed. `LASTGASP_KILLS=200` kills more often, `LASTGASP_ENTRIES=100000` crafts a larger journal,
//! and `LASTGASP_SEED=n` repeats a run.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of tests are small")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::program;
use lastgasp_client::{Client, Entry, Flow, GapCause, NodeSource, Query, Target, Value};
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A directory below the target directory, which is rarely a tmpfs.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Random numbers with a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn new(what: &str) -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = match std::env::var("LASTGASP_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => u64::from(clock.subsec_nanos()) | 1,
        };
        println!("{what}: LASTGASP_SEED={seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Waits for less than a timer could, without one.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is there.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        // Nobody tells of it; another look in a little.
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 3_000_000 })).unwrap();
    }
}

fn kills(usual: u64) -> u64 {
    std::env::var("LASTGASP_KILLS").map_or(usual, |n| n.parse().unwrap())
}

/// What is kept for a node over its lives.
struct Home {
    dir: TempDir,
    /// Sockets have short paths.
    run: TempDir,
    size: &'static str,
}

impl Home {
    fn new(size: &'static str) -> Self {
        Self { dir: directory(), run: TempDir::new().unwrap(), size }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store.lg")
    }

    fn socket(&self) -> PathBuf {
        self.run.path().join("s")
    }

    /// Writes the configuration; sources that it does not name are off.
    fn configure(&self, toml: &str) {
        let mut all = format!("[api]\nsocket = {:?}\n", self.socket().to_str().unwrap());
        for source in ["journald", "syslog", "http"] {
            if !toml.contains(&format!("[sources.{source}]")) {
                writeln!(all, "[sources.{source}]\nenabled = false").unwrap();
            }
        }
        self.configure_as_it_is(&(all + toml));
    }

    fn configure_as_it_is(&self, toml: &str) {
        fs::write(self.path("node.toml"), toml).unwrap();
    }

    fn start(&self) -> Node {
        let mut command = Command::new(program("lastgaspd"));
        command.arg("--config").arg(self.path("node.toml")).arg("--store").arg(self.store());
        command.args(["--size", self.size, "--allow-volatile"]);
        let said = OpenOptions::new().create(true).append(true).open(self.path("said")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Node { child: command.spawn().unwrap(), socket: self.socket(), said: self.path("said") }
    }

    /// Reads the store of a node that does not run.
    fn read(&self) -> Log {
        let mut client = Client::open(&Target::Store(self.store()), &mut |_| ()).unwrap();
        let (log, next) = Log::of(&mut client);
        assert_eq!(next, client.next_seq().unwrap(), "the log ends where it says");
        log
    }
}

/// A record, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    seq: u64,
    stream: String,
    body: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
}

/// All of a log.
#[derive(Default)]
struct Log {
    lines: Vec<Line>,
    /// First and last number, cause, exact, stream.
    gaps: Vec<(u64, u64, GapCause, bool, Option<String>)>,
}

impl Log {
    /// Reads everything; every number is a record or in a gap, once. Also returns the number that comes next.
    fn of(client: &mut Client) -> (Self, u64) {
        let mut log = Self::default();
        let mut next = 1;
        client
            .read(&Query::default(), &mut |entry, _| {
                match entry {
                    Entry::Record(r) => {
                        assert_eq!(r.seq, next, "every number is a record or in a gap");
                        next = r.seq + 1;
                        let fields = r.fields().map(|(k, v)| (k.to_owned(), bytes_of(&v))).collect();
                        log.lines.push(Line { seq: r.seq, stream: r.stream.into(), body: r.body.to_vec(), fields });
                    }
                    Entry::Gap(gap) => {
                        assert_eq!(gap.first_seq, next, "every number is a record or in a gap");
                        next = gap.last_seq + 1;
                        let stream = gap.stream.map(str::to_owned);
                        log.gaps.push((gap.first_seq, gap.last_seq, gap.cause, gap.exact, stream));
                    }
                    Entry::Event(_) => {}
                }
                Ok(Flow::On)
            })
            .unwrap();
        (log, next)
    }

    /// The bodies of a stream.
    fn of_stream(&self, stream: &str) -> Vec<String> {
        let lines = self.lines.iter().filter(|line| line.stream == stream);
        lines.map(|line| String::from_utf8_lossy(&line.body).into_owned()).collect()
    }

    /// Nothing was lost but to this.
    #[track_caller]
    fn assert_only_gaps(&self, cause: Option<GapCause>) {
        assert!(self.gaps.iter().all(|gap| Some(gap.2) == cause), "{:?}", self.gaps);
    }
}

fn bytes_of(value: &Value<'_>) -> Vec<u8> {
    match value {
        Value::Str(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}

/// Line by line; says where they part, and not all of them.
#[track_caller]
fn assert_lines(what: &str, got: &[String], want: &[String]) {
    if got == want {
        return;
    }
    let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let around = |lines: &[String]| lines.iter().skip(at.saturating_sub(2)).take(6).cloned().collect::<Vec<_>>();
    let (seen, wanted): (BTreeSet<_>, BTreeSet<_>) = (got.iter().collect(), want.iter().collect());
    let lost: Vec<_> = wanted.difference(&seen).take(5).collect();
    panic!(
        "{what}: {} lines came out, {} went in; they part at {at}:\n got {:#?}\nwant {:#?}\nlost {lost:#?}",
        got.len(),
        want.len(),
        around(got),
        around(want)
    );
}

/// A node that runs.
struct Node {
    child: Child,
    socket: PathBuf,
    said: PathBuf,
}

impl Node {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Connects, once it answers.
    fn client(&mut self) -> NodeSource {
        until("the node to answer", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended ({status}): {}", self.said());
            }
            NodeSource::open(&self.socket).ok()
        })
    }

    /// What is durable.
    fn log(&mut self) -> Log {
        Log::of(&mut Client::Node(Box::new(self.client()))).0
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it in an orderly way.
    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Where a source listens, once it does.
    fn listens(&mut self, source: &str) -> SocketAddr {
        let mut client = self.client();
        until(&format!("{source} to listen"), || address_of(&mut client, source))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Only the child this test started; it has ended already unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a source says that it listens.
fn address_of(client: &mut NodeSource, source: &str) -> Option<SocketAddr> {
    let words = words_of(client, source)?;
    let at = words.split(['/', ' ', ',']).find_map(|word| word.parse().ok());
    at.filter(|_| words.starts_with("listening"))
}

/// What a source says of itself.
fn words_of(client: &mut NodeSource, source: &str) -> Option<String> {
    let status = client.status().ok()?;
    let fact = status.facts.iter().find(|fact| fact.topic == "source" && fact.name == source)?;
    fact.fields().find_map(|(_, value)| match value {
        Value::Str(text) if text.contains(' ') => Some(text.to_owned()),
        _ => None,
    })
}

// ---- followed files

/// How a file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Rename,
    CopyTruncate,
    Recreate,
}

/// A program that writes a log file, and what rotates it.
struct Logger {
    name: &'static str,
    habit: Habit,
    path: PathBuf,
    file: File,
    /// All lines, as they were written.
    lines: Vec<String>,
    /// Half of a line was written.
    half: Option<String>,
    /// How many lines there were at the last rotation.
    rotated_at: usize,
    rotations: u64,
    reused: u64,
}

impl Logger {
    fn new(dir: &Path, name: &'static str, habit: Habit) -> Self {
        let path = dir.join(format!("{name}.log"));
        let file = append_to(&path);
        Self { name, habit, path, file, lines: Vec::new(), half: None, rotated_at: 0, rotations: 0, reused: 0 }
    }

    fn write(&mut self, random: &mut Random) {
        let mut text = String::new();
        if let Some(half) = self.half.take() {
            text.push_str(&half);
            text.push('\n');
        }
        for _ in 0..random.below(20) {
            let n = self.lines.len();
            let line = match random.below(40) {
                0 => String::new(),
                1 => format!("{} {n} {}", self.name, "y".repeat(random.below(200_000) as usize)),
                _ => format!("{} {n} {}", self.name, "x".repeat(random.below(300) as usize)),
            };
            text.push_str(&line);
            text.push('\n');
            self.lines.push(line);
        }
        if random.below(3) == 0 {
            let line = format!("{} {} in two writes", self.name, self.lines.len());
            let (first, rest) = line.split_at(8);
            text.push_str(first);
            self.half = Some(rest.to_owned());
            self.lines.push(line);
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    fn end_line(&mut self) {
        if let Some(half) = self.half.take() {
            self.file.write_all(format!("{half}\n").as_bytes()).unwrap();
        }
    }

    /// Whether the node may lose nothing if the file is rotated now, by what the store has of it.
    fn may_rotate(&self, durable: usize) -> bool {
        match self.habit {
            // A file that comes and goes between two looks was never seen.
            Habit::Rename | Habit::CopyTruncate => durable > self.rotated_at,
            // What was not read goes with the file.
            Habit::Recreate => durable == self.lines.len() && self.half.is_none(),
        }
    }

    fn rotate(&mut self, random: &mut Random) {
        self.rotations += 1;
        let old = self.path.with_extension("log.1");
        match self.habit {
            Habit::Rename => {
                fs::rename(&self.path, &old).unwrap();
                if random.below(2) == 0 {
                    // Its writer does not know yet.
                    self.write(random);
                }
                self.end_line();
                self.file = append_to(&self.path);
            }
            Habit::CopyTruncate => {
                // As logrotate does it: a copy is a file of its own, and the one before is moved on.
                let _ = fs::rename(&old, self.path.with_extension("log.2"));
                fs::copy(&self.path, &old).unwrap();
                self.file.set_len(0).unwrap();
                // The first half of a line is in the copy, where nobody ends it: it is a line of its own.
                assert!(self.half.is_none());
            }
            Habit::Recreate => {
                let inode = self.file.metadata().unwrap().ino();
                fs::remove_file(&self.path).unwrap();
                // Without anybody who holds it, the inode is free.
                self.file = File::open("/dev/null").unwrap();
                self.file = append_to(&self.path);
                self.reused += u64::from(self.file.metadata().unwrap().ino() == inode);
            }
        }
        self.rotated_at = self.lines.len();
    }
}

fn append_to(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// Writes and rotates for a while. `durable` says how many lines of each the store has.
fn write_and_rotate(loggers: &mut [Logger], random: &mut Random, durable: &[usize]) {
    for (logger, durable) in loggers.iter_mut().zip(durable) {
        for _ in 0..random.below(4) {
            logger.write(random);
        }
        if random.below(2) == 0 && logger.may_rotate(*durable) {
            if logger.habit == Habit::CopyTruncate {
                logger.end_line();
            }
            logger.rotate(random);
            logger.write(random);
        }
    }
}

/// How many lines of each logger are durable.
fn durable_lines(log: &Log, loggers: &[Logger]) -> Vec<usize> {
    loggers.iter().map(|logger| log.lines.iter().filter(|line| line.stream == logger.name).count()).collect()
}

#[test]
fn followed_files_come_out_line_by_line_however_they_are_rotated_and_the_node_is_killed() {
    let mut random = Random::new("followed files");
    let home = Home::new("64M");
    let logs = home.path("logs");
    fs::create_dir(&logs).unwrap();
    home.configure(&format!(
        "[classes]\ndefault = \"group\"\n[sources.files.app]\npaths = [\"{}/*.log\"]\nstream = \"{{stem}}\"\n",
        logs.display()
    ));
    let habits = [("rename", Habit::Rename), ("copytruncate", Habit::CopyTruncate), ("recreate", Habit::Recreate)];
    let mut loggers: Vec<Logger> = habits.map(|(name, habit)| Logger::new(&logs, name, habit)).into();
    for _ in 0..kills(12) {
        let mut node = home.start();
        if random.below(4) > 0 {
            let mut client = node.client();
            for _ in 0..random.below(4) {
                let log = node.log();
                let durable = durable_lines(&log, &loggers);
                write_and_rotate(&mut loggers, &mut random, &durable);
                if random.below(2) == 0 {
                    let next = client.status().unwrap().numbers.durable_upto + 1;
                    client.wait(next, Duration::from_millis(200)).unwrap();
                }
            }
        }
        spin(Duration::from_micros(random.below(60_000)));
        node.kill();
        let is_made = Client::open(&Target::Store(home.store()), &mut |_| ()).is_ok();
        let durable = if is_made { durable_lines(&home.read(), &loggers) } else { vec![0; loggers.len()] };
        write_and_rotate(&mut loggers, &mut random, &durable);
    }
    loggers.iter_mut().for_each(Logger::end_line);
    let all: usize = loggers.iter().map(|logger| logger.lines.len()).sum();
    let mut node = home.start();
    let mut client = node.client();
    let mut seen = 0;
    let start = Instant::now();
    while seen < all && start.elapsed() < PATIENCE / 8 {
        let upto = client.status().unwrap().numbers.durable_upto;
        client.wait(upto + 1, Duration::from_secs(1)).unwrap();
        seen = node.log().lines.len();
    }
    node.stop();
    let log = home.read();
    log.assert_only_gaps(None);
    for logger in &loggers {
        let Logger { name, rotations, reused, .. } = logger;
        println!("{name}: {} lines, {rotations} rotations, {reused} times in the same inode", logger.lines.len());
        assert_lines(name, &log.of_stream(name), &logger.lines);
    }
    assert_eq!(log.lines.len(), all, "and nothing else");
}

// ---- the journal

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

type Pairs = Vec<(&'static str, Vec<u8>)>;

/// An entry of a crafted journal. Every tenth is the same as the one before but for its time.
fn entry(i: u64) -> Pairs {
    let text = |value: String| value.into_bytes();
    let of = i - u64::from(i % 10 == 9);
    let mut all = vec![
        ("__REALTIME_TIMESTAMP", text((1_700_000_000_000_000 + i * 700).to_string())),
        ("__MONOTONIC_TIMESTAMP", text((1_000_000 + i * 700).to_string())),
        ("_BOOT_ID", text(format!("000000000000000000000000000000b{}", i / 7000 % 10))),
        ("PRIORITY", text((of % 8).to_string())),
        ("_SYSTEMD_UNIT", text(format!("unit{}.service", of / 7 % 30))),
        ("TWICE", text("a".into())),
        ("TWICE", text(format!("b{of}"))),
        ("MESSAGE", text(format!("entry {of}"))),
    ];
    match of % 7 {
        0 => all[7].1 = text(format!("line {of}\nnext\n\nlast")),
        1 => all[7].1 = [b"bytes \xff\0", of.to_string().as_bytes()].concat(),
        2 => all.push(("BINARY", vec![0, 0xff, b'\n', b'\n', b'=', (of % 251) as u8])),
        3 => all.push(("LARGE", vec![b'z'; (of % 5000) as usize + 1])),
        _ => {}
    }
    all
}

fn craft(path: &Path, entries: u64) {
    let mut remote = Command::new(REMOTE);
    remote.arg(format!("--output={}", path.display())).arg("-").stdin(Stdio::piped()).stderr(Stdio::null());
    let mut remote = remote.spawn().unwrap();
    let mut input = std::io::BufWriter::new(remote.stdin.take().unwrap());
    for i in 0..entries {
        for (name, value) in entry(i) {
            input.write_all(name.as_bytes()).unwrap();
            if value.iter().any(|b| *b < 32 || *b >= 127) {
                input.write_all(b"\n").unwrap();
                input.write_all(&(value.len() as u64).to_le_bytes()).unwrap();
            } else {
                input.write_all(b"=").unwrap();
            }
            input.write_all(&value).unwrap();
            input.write_all(b"\n").unwrap();
        }
        input.write_all(b"\n").unwrap();
    }
    drop(input.into_inner().unwrap());
    assert!(remote.wait().unwrap().success(), "systemd-journal-remote");
}

/// Sorted, so that duplicates count and the order does not.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort();
    fields
}

#[test]
fn every_entry_and_field_of_a_journal_is_there_once_after_kills() {
    if let Some(path) = [REMOTE, "/usr/bin/journalctl"].into_iter().find(|path| !Path::new(path).exists()) {
        println!("skipped: {path} is not installed (package systemd-journal-remote)");
        return;
    }
    let mut random = Random::new("journal");
    let entries = std::env::var("LASTGASP_ENTRIES").map_or(20_000, |n| n.parse().unwrap());
    let home = Home::new("256M");
    let journal = home.path("journal");
    fs::create_dir(&journal).unwrap();
    craft(&journal.join("crafted.journal"), entries);
    home.configure(&format!(
        "[sources.journald]\nenabled = true\nfrom = \"start\"\ndirectory = {:?}\n",
        journal.to_str().unwrap()
    ));
    for _ in 0..kills(8) {
        let mut node = home.start();
        let mut client = node.client();
        let before = client.status().unwrap().numbers.durable_upto;
        if random.below(3) > 0 && before < entries {
            client.wait(before + 1, PATIENCE).unwrap();
        }
        spin(Duration::from_micros(random.below(100_000)));
        let upto = client.status().unwrap().numbers.durable_upto;
        node.kill();
        println!("killed at {upto}");
    }
    let mut node = home.start();
    let mut client = node.client();
    loop {
        let upto = client.status().unwrap().numbers.durable_upto;
        if upto >= entries {
            break;
        }
        assert!(client.wait(upto + 1, PATIENCE).unwrap(), "{upto} of {entries}: {}", node.said());
    }
    node.stop();
    let log = home.read();
    log.assert_only_gaps(None);
    assert_eq!(log.lines.len() as u64, entries, "none twice, none missing");
    for (i, line) in (0..entries).zip(&log.lines) {
        let mut want: Vec<(String, Vec<u8>)> = entry(i).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let (_, message) = want.remove(7);
        assert_eq!(line.body, message, "entry {i}");
        let kept: Vec<_> = line.fields.iter().filter(|(k, _)| want.iter().any(|(w, _)| w == k)).cloned().collect();
        assert_eq!(sorted(kept), sorted(want), "entry {i}");
        assert_eq!(line.stream, format!("unit{}", (i - u64::from(i % 10 == 9)) / 7 % 30), "entry {i}");
    }
}

// ---- the network

/// Sends a request and reads the answer: status and body; none if the connection broke.
fn post(at: SocketAddr, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head =
        format!("POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

const HTTP: &str = "[sources.http]\nenabled = true\nlisten = [\"127.0.0.1:0\"]\n";
const SYSLOG: &str = "[sources.syslog]\nenabled = true\nudp = []\ntcp = [\"127.0.0.1:0\"]\n";

#[test]
fn what_http_called_durable_survives_a_kill_and_what_it_refused_left_nothing() {
    let mut random = Random::new("http");
    let home = Home::new("8M");
    home.configure(HTTP);
    let mut want: Vec<String> = Vec::new();
    for life in 0..kills(10) {
        let mut node = home.start();
        let at = node.listens("http");
        for request in 0..random.below(6) + 1 {
            let lines: Vec<String> = (0..random.below(30) + 1).map(|i| format!("{life} {request} {i}")).collect();
            let bad = random.below(3) == 0;
            let mut body: String = lines.iter().map(|line| format!("{{\"body\": \"{line}\"}}\n")).collect();
            if bad {
                body.push_str("{\"body\": \"refused\n");
            }
            let (code, answer) = post(at, &body).expect("an answer");
            if bad {
                assert_eq!(code, 400, "{answer}");
                assert!(answer.contains(&format!("\"line\":{}", lines.len() + 1)), "{answer}");
                continue;
            }
            assert_eq!(code, 200, "{answer}");
            let first = want.len() as u64 + 1;
            want.extend(lines);
            assert_eq!(answer.trim(), format!("{{\"first_seq\":{first},\"last_seq\":{}}}", want.len()));
        }
        node.kill();
        let log = home.read();
        log.assert_only_gaps(None);
        assert_lines("http", &log.of_stream("http"), &want);
    }
}

/// Set when the test is done with it, also when it fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts lines that were sent and whose fate is known.
#[derive(Default)]
struct Sent {
    lines: Vec<String>,
    /// Bursts whose sender could not tell whether they arrived.
    unknown: u64,
}

/// Sends bursts of lines, each over a connection of its own, until told to stop.
fn send_syslog(node_socket: &Path, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut client = until("the node", || NodeSource::open(node_socket).ok());
    let mut burst = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut stream) = address_of(&mut client, "syslog.tcp").and_then(|at| TcpStream::connect(at).ok()) else {
            continue;
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines: Vec<String> = (0..40).map(|i| format!("line {burst} {i}")).collect();
        let text: String = lines.iter().map(|l| format!("<14>Nov 20 07:00:00 host tcp: {l}\n")).collect();
        burst += 1;
        let taken = stream.write_all(text.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
        // The node ends a connection when it has read all of it; a reset tells that it has not.
        match taken.and_then(|()| stream.read_to_end(&mut Vec::new())) {
            Ok(_) => sent.lines.extend(lines),
            Err(_) => sent.unknown += 1,
        }
    }
    sent
}

fn send_http(node_socket: &Path, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let mut client = until("the node", || NodeSource::open(node_socket).ok());
    let mut burst = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Some(at) = address_of(&mut client, "http") else { continue };
        let lines: Vec<String> = (0..10).map(|i| format!("line {burst} {i}")).collect();
        burst += 1;
        match post(at, &lines.iter().map(|l| format!("{l:?}\n")).collect::<String>()) {
            Some((200, _)) => sent.lines.extend(lines),
            _ => sent.unknown += 1,
        }
    }
    sent
}

fn write_file(path: &Path, stop: &AtomicBool) -> Vec<String> {
    let (mut file, mut lines) = (append_to(path), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let line = format!("line {}", lines.len());
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        lines.push(line);
        if lines.len() % 50 == 0 {
            poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
        }
    }
    lines
}

/// The known lines are all there once, and what else is there came once, too.
#[track_caller]
fn assert_has(what: &str, got: &[String], sent: &Sent) {
    let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
    got.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n > 1).take(5).collect();
    let lost: Vec<_> = sent.lines.iter().filter(|line| !counts.contains_key(line)).collect();
    println!("{what}: {} lines taken, {} bursts of unknown fate", sent.lines.len(), sent.unknown);
    assert!(twice.is_empty(), "{what}: twice: {twice:?}");
    assert!(lost.is_empty(), "{what}: {} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert!(!sent.lines.is_empty(), "{what} was heard");
}

#[test]
fn reloading_under_load_loses_nothing_and_a_wrong_configuration_changes_nothing() {
    let home = Home::new("64M");
    let logs = home.path("logs");
    fs::create_dir(&logs).unwrap();
    // Each round another source is started anew, some of them several at a time.
    let config = |round: u64| {
        format!(
            "{SYSLOG}{HTTP}max_request = \"{}K\"\n[sources.files.app]\npaths = [\"{}/*.log\"]\nmax_line = \"{}K\"\n\
             [classes]\ndefault = \"{}\"\n",
            64 + round / 2,
            logs.display(),
            64 + round / 3,
            ["group", "interval"][(round % 2) as usize],
        )
        .replace("udp = []\ntcp = [\"127.0.0.1:0\"]", &tcp_of(round))
    };
    home.configure(&config(0));
    let mut node = home.start();
    let stop = AtomicBool::new(false);
    let (socket, path) = (home.socket(), logs.join("a.log"));
    let mut client = node.client();
    let (tcp, http, file) = thread::scope(|scope| {
        let tcp = scope.spawn(|| send_syslog(&socket, &stop));
        let http = scope.spawn(|| send_http(&socket, &stop));
        let file = scope.spawn(|| write_file(&path, &stop));
        let done = Done(&stop);
        for round in 1..=12 {
            let before = node.said().matches("reload: ").count();
            let at = address_of(&mut client, "http");
            if round % 4 == 0 {
                home.configure_as_it_is("[store]\nsise = \"1M\"\n");
                node.signal(Signal::HUP);
                until("a refusal", || (node.said().matches("nothing changed, because").count() > 0).then_some(()));
                assert!(node.said().contains("sise"), "{}", node.said());
                assert_eq!(address_of(&mut client, "http"), at, "everything is as it was");
                fs::write(home.path("said"), "").unwrap();
            } else {
                home.configure(&config(round));
                node.signal(Signal::HUP);
                until("a reload", || (node.said().matches("reload: ").count() > before).then_some(()));
                until("http to listen", || address_of(&mut client, "http"));
                until("syslog to listen", || address_of(&mut client, "syslog.tcp"));
            }
            let next = client.status().unwrap().numbers.durable_upto + 500;
            until("the senders to go on", || client.wait(next, Duration::from_secs(5)).unwrap().then_some(()));
        }
        drop(done);
        (tcp.join().unwrap(), http.join().unwrap(), file.join().unwrap())
    });
    until("the file to be read", || {
        let log = node.log();
        (log.of_stream("app").len() >= file.len()).then_some(())
    });
    node.stop();
    let log = home.read();
    log.assert_only_gaps(None);
    assert_has("syslog", &log.of_stream("tcp"), &tcp);
    assert_has("http", &log.of_stream("http"), &http);
    assert_lines("file", &log.of_stream("app"), &file);
}

/// Another list of addresses has the listeners opened anew.
fn tcp_of(round: u64) -> String {
    let addresses = vec!["\"127.0.0.1:0\""; (round / 5 % 2) as usize + 1].join(", ");
    format!("udp = []\ntcp = [{addresses}]")
}

/// Sends all of it over one connection, and waits until the node has read it.
fn send_all(at: SocketAddr, text: &[u8]) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_stream_over_its_rate_loses_exactly_what_a_gap_says_and_others_lose_nothing() {
    let home = Home::new("8M");
    home.configure(&format!("{SYSLOG}[limits]\nrate = 1\nburst = 500\n"));
    let mut node = home.start();
    let at = node.listens("syslog.tcp");
    let mut text = String::new();
    for i in 0..3000 {
        writeln!(text, "<14>Nov 20 07:00:00 host loud: line {i}").unwrap();
        if i % 10 == 0 {
            writeln!(text, "<14>Nov 20 07:00:00 host calm: line {i}").unwrap();
        }
    }
    send_all(at, text.as_bytes());
    node.stop();
    let log = home.read();
    log.assert_only_gaps(Some(GapCause::Overload));
    let (loud, calm) = (log.of_stream("loud"), log.of_stream("calm"));
    assert_eq!(calm, (0..300).map(|i| format!("line {}", i * 10)).collect::<Vec<_>>());
    assert!((500..1000).contains(&loud.len()), "{} kept of a burst of 500", loud.len());
    assert!(log.gaps.iter().all(|gap| gap.3 && gap.4.as_deref() == Some("loud")), "{:?}", log.gaps);
    let lost: u64 = log.gaps.iter().map(|gap| gap.1 - gap.0 + 1).sum();
    assert_eq!(loud.len() as u64 + lost, 3000, "{:?}", log.gaps);
}

#[test]
fn streams_beyond_the_limit_are_told_apart_by_a_field() {
    let home = Home::new("8M");
    home.configure(SYSLOG);
    let mut node = home.start();
    let at = node.listens("syslog.tcp");
    let name = |i: u64| format!("program-{i}");
    let text: String = (0..600u64).map(|i| format!("<14>Nov 20 07:00:00 host {}: line {i}\n", name(i % 300))).collect();
    send_all(at, text.as_bytes());
    node.stop();
    let log = home.read();
    log.assert_only_gaps(None);
    assert_eq!(log.lines.len(), 600);
    let mut others = BTreeSet::new();
    for (i, line) in (0..).zip(&log.lines) {
        assert_eq!(line.body, format!("line {i}").into_bytes());
        let name = name(i % 300);
        if line.stream == "other" {
            assert!(line.fields.contains(&("stream".into(), name.clone().into_bytes())), "{line:?}");
            others.insert(name);
        } else {
            assert_eq!(line.stream, name);
        }
    }
    assert_eq!(others.len(), 300 - 256);
}

#[test]
fn a_stream_that_floods_a_small_store_evicts_no_line_of_a_quiet_one() {
    const STORE: usize = 16 << 20;
    let home = Home::new("16M");
    home.configure(SYSLOG);
    let mut node = home.start();
    let at = node.listens("syslog.tcp");
    let (mut loud, mut quiet) = (TcpStream::connect(at).unwrap(), TcpStream::connect(at).unwrap());
    let mut random = Random(42);
    let (mut sent, mut said) = (0, Vec::new());
    let mut text = Vec::with_capacity(1 << 20);
    while sent < 20 * STORE {
        text.clear();
        while text.len() < 1 << 18 {
            text.extend_from_slice(b"<14>Nov 20 07:00:00 host loud: ");
            // As hard to pack as base64.
            for _ in 0..40 {
                text.extend(random.next().to_le_bytes().map(|b| b'0' + b % 64));
            }
            text.push(b'\n');
        }
        loud.write_all(&text).unwrap();
        sent += text.len();
        if said.len() < sent / (STORE / 8) {
            let line = format!("line {}", said.len());
            quiet.write_all(format!("<14>Nov 20 07:00:00 host quiet: {line}\n").as_bytes()).unwrap();
            said.push(line);
        }
    }
    for mut stream in [loud, quiet] {
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    node.stop();
    let log = home.read();
    log.assert_only_gaps(Some(GapCause::Retention));
    let newest = log.lines.last().unwrap();
    println!("{} lines of the flood are left of {}", log.of_stream("loud").len(), newest.seq);
    assert_lines("quiet", &log.of_stream("quiet"), &said);
}
