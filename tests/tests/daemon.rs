//! The real daemon, real files, the real kernel: what goes in by stdin comes out, whatever happens in between.
//!
//! Invariants of these tests: they wait for conditions, never for time; they end only processes that they started; what
//! is random prints its seed. `LASTGASP_KILLS=200` kills more often, `LASTGASP_SEED=n` repeats a run, and
//! `LASTGASP_SAMPLES=dir` puts real log files through the daemon as well.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of tests are small")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::program;
use lastgasp_core::format::crc::Crc32c;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::gaps::{Gap, GapCause};
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Scan, ScanOptions};
use lastgasp_hal_linux::{FileStorage, ScanBuffers, StoreMemory};
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

/// A directory below the target directory, which is rarely a tmpfs.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The fixed interface. Build directories may lie on overlays, which are volatile.
fn daemon(store: &Path, size: &str) -> Command {
    let mut command = Command::new(program("lastgaspd"));
    command.arg("--store").arg(store).args(["--size", size, "--no-defaults", "--stdin", "--stream", "app"]);
    command.args(["--print-acks", "--allow-volatile"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A daemon that runs.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    acks: BufReader<ChildStdout>,
    /// The last number acknowledged.
    acked: u64,
}

impl Running {
    fn start(store: &Path, size: &str) -> Self {
        Self::spawn(&mut daemon(store, size))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let acks = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), acks, acked: 0, child }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The next acknowledgement; `None` when the daemon has closed its output. A line cut short does not count.
    fn next_ack(&mut self) -> Option<u64> {
        let mut line = String::new();
        self.acks.read_line(&mut line).unwrap();
        let number = line.strip_suffix('\n')?.strip_prefix("ack ").unwrap_or_else(|| panic!("{line:?}"));
        let number = number.parse().unwrap();
        assert!(number > self.acked, "acknowledgements rise: {number} after {}", self.acked);
        self.acked = number;
        Some(number)
    }

    fn wait_for_ack(&mut self, number: u64) {
        while self.acked < number {
            assert!(self.next_ack().is_some(), "the daemon ended before ack {number}: {}", self.complaint());
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Ends the input, reads all acknowledgements, and waits for an exit with this code. Returns what it said.
    fn finish(mut self, code: i32) -> (u64, String) {
        self.input = None;
        while self.next_ack().is_some() {}
        let complaint = self.complaint();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{status}: {complaint}");
        (self.acked, complaint)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only the child this test started; it has ended already unless the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts bytes in, ends the input and waits for the orderly end. Returns the last acknowledgement.
fn keep(store: &Path, size: &str, input: &[u8]) -> u64 {
    let mut node = Running::start(store, size);
    thread::scope(|scope| {
        let mut to = node.input.take().unwrap();
        scope.spawn(move || to.write_all(input).unwrap());
        while node.next_ack().is_some() {}
    });
    node.finish(0).0
}

/// What a store holds.
struct Held {
    end: PreviousEnd,
    next_seq: u64,
    /// Number, whether it goes on in the next one, body.
    records: Vec<(u64, bool, Vec<u8>)>,
    gaps: Vec<Gap>,
}

impl Held {
    /// What `cat` prints.
    fn cat(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, continued, body) in &self.records {
            out.extend_from_slice(body);
            if !continued {
                out.push(b'\n');
            }
        }
        out
    }
}

/// Reads a store that nobody writes to.
fn read(store: &Path) -> Held {
    let medium = FileStorage::open_read_only(store).unwrap();
    let geometry = medium.geometry();
    let (mut memory, mut buffers) = (StoreMemory::new(&geometry), ScanBuffers::new(&geometry));
    let mut reader = Reader::open(medium, memory.parts(), &mut |_, _| ()).unwrap();
    let report = *reader.report();
    let mut held = Held { end: report.previous_end, next_seq: report.next_seq, records: Vec::new(), gaps: Vec::new() };
    let mut scan = Scan::new(reader.catalog(), ScanOptions::default());
    let mut memory = buffers.parts();
    let (medium, catalog) = reader.parts();
    while let Some(entry) = scan.next(medium, catalog, &mut memory) {
        match entry {
            Entry::Record(r) => held.records.push((r.seq, r.row.continued, r.row.body.to_vec())),
            Entry::Gap(gap) => held.gaps.push(gap),
            Entry::Event(_) => {}
        }
    }
    held
}

/// Whole input: compared piecewise, so that a difference prints no megabytes.
#[track_caller]
fn assert_same(got: &[u8], want: &[u8]) {
    if got != want {
        let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
        panic!("{} bytes came out, {} went in, they differ from byte {at} on", got.len(), want.len());
    }
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

/// Log lines as machines write them.
fn log_text(lines: usize) -> Vec<u8> {
    let mut random = Random(42);
    let mut text = Vec::new();
    for i in 0..lines {
        let (a, b, c) = (random.below(1 << 32), random.below(60), random.below(5));
        let line = match c {
            0 => format!("Nov 20 07:{b:02}:01 edge sshd[{i}]: Failed password for root from 10.0.{b}.9 port {a} ssh2"),
            1 => format!("{a:016x} INFO dfs.DataNode$PacketResponder: PacketResponder {b} for block blk_{a} ended"),
            2 => format!("[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state {b}\r"),
            3 => format!(
                "{{\"level\":\"warn\",\"n\":{i},\"text\":\"caf\u{e9} \u{1f50c} {}\"}}",
                "x".repeat(a as usize % 900)
            ),
            _ => String::new(),
        };
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

#[test]
fn lines_come_out_byte_for_byte() {
    let dir = directory();
    let text = log_text(20_000);
    let store = dir.path().join("logs.lg");
    assert_eq!(keep(&store, "64M", &text), 20_000);
    let held = read(&store);
    assert_eq!((held.end, held.next_seq, held.gaps.len()), (PreviousEnd::Clean, 20_001, 0));
    assert!(held.records.iter().map(|r| r.0).eq(1..=20_000), "numbered from 1, none twice, none missing");
    assert_same(&held.cat(), &text);
}

#[test]
fn odd_bytes_come_out_byte_for_byte() {
    let dir = directory();
    let cases: [&[u8]; 9] = [
        b"",
        b"\n",
        b"\n\n\n",
        b"no newline at the end",
        b"a\n\nb\r\n\tc\0d\0\n",
        b"\xff\xfe\xc3\x28 not UTF-8 \x80\n\xed\xa0\x80\n",
        b"\0",
        b"\0\n\0",
        b"\x1b[31mred\x1b[0m\x07\n",
    ];
    for (i, input) in cases.into_iter().enumerate() {
        let store = dir.path().join(format!("{i}.lg"));
        let mut want = input.to_vec();
        if !input.is_empty() && !input.ends_with(b"\n") {
            want.push(b'\n');
        }
        let lines = want.iter().filter(|b| **b == b'\n').count() as u64;
        assert_eq!(keep(&store, "1M", input), lines, "{i}");
        assert_same(&read(&store).cat(), &want);
    }
}

#[test]
fn sample_logs_come_out_byte_for_byte() {
    let Some(samples) = std::env::var_os("LASTGASP_SAMPLES") else { return };
    let dir = directory();
    for sample in fs::read_dir(samples).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        let mut text = fs::read(&sample).unwrap();
        let store = dir.path().join("sample.lg");
        keep(&store, "64M", &text);
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let held = read(&store);
        println!("{}: {} records", sample.display(), held.records.len());
        assert_same(&held.cat(), &text);
        assert_same(&tail_cat(&store), &text);
        fs::remove_file(store).unwrap();
    }
}

/// What the command line tool prints.
fn tail_cat(store: &Path) -> Vec<u8> {
    let tail =
        Command::new(program("lastgasp")).args(["tail", "--store"]).arg(store).args(["--all", "-o", "cat"]).output();
    let tail = tail.unwrap();
    assert!(tail.status.success(), "{}", String::from_utf8_lossy(&tail.stderr));
    tail.stdout
}

#[test]
fn the_tool_prints_what_went_in() {
    let dir = directory();
    let store = dir.path().join("tail.lg");
    let mut text = log_text(3000);
    text.extend_from_slice(b"\xff\0\n\n");
    text.extend(std::iter::repeat_n(b'L', 1 << 20));
    text.push(b'\n');
    keep(&store, "8M", &text);
    assert_same(&tail_cat(&store), &text);
}

/// The most memory a process had in use so far, in KiB.
fn peak_kib(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Puts one line of so many bytes between two short ones through a daemon, and compares.
fn long_line(size: &str, bytes: usize, peak_limit_kib: u64) {
    let dir = directory();
    let store = dir.path().join("long.lg");
    let mut text = b"before\n".to_vec();
    let mut random = Random(7);
    text.extend((0..bytes).map(|_| (random.next() >> 56) as u8).map(|b| if b == b'\n' { 0 } else { b }));
    text.extend_from_slice(b"\nafter\n");
    let mut node = Running::start(&store, size);
    let mut peak = 0;
    thread::scope(|scope| {
        let mut to = node.input.take().unwrap();
        let text = &text;
        scope.spawn(move || to.write_all(text).unwrap());
        while node.next_ack().is_some() {
            peak = peak.max(peak_kib(node.pid()).unwrap_or(0));
        }
    });
    node.finish(0);
    let held = read(&store);
    println!("a line of {bytes} bytes: {} records, at most {peak} KiB in use", held.records.len());
    assert!(held.records.windows(2).all(|w| w[0].1 || w[1].0 == w[0].0 + 1));
    let (first, last) = (&held.records[0], &held.records[held.records.len() - 1]);
    assert_eq!((first.2.as_slice(), first.1), (&b"before"[..], false));
    assert_eq!((last.2.as_slice(), last.1), (&b"after"[..], false));
    let parts = &held.records[1..held.records.len() - 1];
    assert!(parts[..parts.len() - 1].iter().all(|p| p.1) && !parts[parts.len() - 1].1, "all parts but the last go on");
    assert_same(&held.cat(), &text);
    assert!(peak < peak_limit_kib, "{peak} KiB in use for a line of {bytes} bytes");
}

#[test]
fn a_line_of_1_mib_is_one_record() {
    long_line("64M", 1 << 20, 48 << 10);
    let dir = directory();
    let store = dir.path().join("one.lg");
    assert_eq!(keep(&store, "64M", &vec![b'x'; 1 << 20]), 1);
}

#[test]
fn a_line_of_100_mib_is_kept_in_parts_with_bounded_memory() {
    long_line("256M", 100 << 20, 64 << 10);
}

/// The line with this number in this life of the daemon: what it is can be seen from its text alone.
fn numbered_line(life: u64, n: u64) -> Vec<u8> {
    let filler = (life.wrapping_mul(31).wrapping_add(n.wrapping_mul(7919))) % 400;
    let mut line = format!("life {life} line {n} ").into_bytes();
    line.resize(line.len() + filler as usize, b'.');
    line
}

/// Waits for less than a timer could, without one.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Runs a daemon under load and kills it at a random instant; `before` is the last number in the store. Returns the
/// last number it acknowledged.
fn life_and_death(store: &Path, life: u64, before: u64, random: &mut Random) -> u64 {
    let mut node = Running::start(store, "16M");
    let rounds = random.below(60);
    let burst = [1, 1, 3, 50][random.below(4) as usize];
    let lines = move |from: u64| -> Vec<u8> {
        (from..from + burst).flat_map(|n| [numbered_line(life, n), vec![b'\n']].concat()).collect()
    };
    if random.below(2) == 0 {
        // A client that waits for its answers: most commits are of one line.
        for round in 0..rounds {
            node.write(&lines(round * burst));
            node.wait_for_ack(before + (round + 1) * burst);
        }
        node.write(&lines(rounds * burst));
        spin(Duration::from_micros(random.below(300)));
        node.child.kill().unwrap();
    } else {
        // One that writes as fast as it can, until the pipe breaks.
        let mut to = node.input.take().unwrap();
        let feeder = thread::spawn(move || while_ok((0..).map(|n| to.write_all(&lines(n * burst)))));
        for _ in 0..rounds {
            node.next_ack().expect("it runs until it is killed");
        }
        spin(Duration::from_micros(random.below(3000)));
        node.child.kill().unwrap();
        feeder.join().unwrap();
    }
    // What it had printed before is in the pipe, and was promised.
    while node.next_ack().is_some() {}
    assert_eq!(node.child.wait().unwrap().signal(), Some(9), "{}", node.complaint());
    node.acked
}

fn while_ok(mut results: impl Iterator<Item = std::io::Result<()>>) {
    while let Some(Ok(())) = results.next() {}
}

#[test]
fn kill_at_random_instants_loses_nothing_acknowledged() {
    let kills = std::env::var("LASTGASP_KILLS").map_or(20, |n| n.parse().unwrap());
    let mut random = Random::new("kills");
    let dir = directory();
    let store = dir.path().join("killed.lg");
    // Body by number, for all that was ever found.
    let mut known: Vec<Vec<u8>> = Vec::new();
    let (mut acknowledged, mut beyond) = (0, 0);
    for life in 0..kills {
        let acked = life_and_death(&store, life, known.len() as u64, &mut random);
        if acked == 0 && known.is_empty() && FileStorage::open_read_only(&store).is_err() {
            continue; // killed while the store was being made: the next life makes it
        }
        let held = read(&store);
        let before = known.len() as u64;
        assert!(held.gaps.iter().all(|g| g.cause == GapCause::Retention), "life {life}: {:?}", held.gaps);
        let first = held.records.first().map_or(held.next_seq, |r| r.0);
        assert!(held.records.iter().map(|r| r.0).eq(first..held.next_seq), "life {life}: each number once, in order");
        assert!(held.next_seq > before.max(acked), "life {life}: {acked} was acknowledged, {} is next", held.next_seq);
        for (seq, _, body) in &held.records {
            let want = match known.get(*seq as usize - 1) {
                Some(known) => known.clone(),
                None => numbered_line(life, seq - 1 - before),
            };
            assert!(*body == want, "life {life}, number {seq}: {:?}", String::from_utf8_lossy(body));
        }
        known.extend((before..held.next_seq - 1).map(|seq| numbered_line(life, seq - before)));
        acknowledged += acked.saturating_sub(before);
        beyond += (held.next_seq - 1).saturating_sub(acked.max(before));
    }
    println!("{kills} kills: {acknowledged} acknowledged lines all there, and {beyond} more that were on their way");
    let last = keep(&store, "16M", b"goes on\n");
    assert_eq!(last, known.len() as u64 + 1);
}

#[test]
fn a_kill_while_the_store_is_made_costs_nothing() {
    let dir = directory();
    let mut random = Random::new("kills while making");
    for i in 0..10 {
        let store = dir.path().join(format!("{i}.lg"));
        let mut node = Running::start(&store, "8M");
        spin(Duration::from_micros(random.below(20_000)));
        node.child.kill().unwrap();
        node.child.wait().unwrap();
        assert_eq!(keep(&store, "8M", b"a line\n"), 1);
        assert_same(&read(&store).cat(), b"a line\n");
    }
}

#[test]
fn blank_files_become_stores() {
    let dir = directory();
    let store = dir.path().join("blank.lg");
    File::create(&store).unwrap().set_len(8 << 20).unwrap();
    assert_eq!(keep(&store, "8M", b"a line\n"), 1);
}

#[test]
fn sigterm_and_sigint_keep_everything_that_was_read() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = directory();
        let store = dir.path().join("stopped.lg");
        let mut node = Running::start(&store, "8M");
        // In one write, so that the half line was read with the line that is acknowledged.
        node.write(b"one\ntwo\nhalf a line");
        node.wait_for_ack(2);
        node.signal(signal);
        let input = node.input.take();
        assert_eq!(node.next_ack(), Some(3), "what was read is a record, though the input is still open");
        let (acked, said) = node.finish(0);
        drop(input);
        assert_eq!(acked, 3);
        assert!(said.contains("everything up to number 3 is durable"), "{said}");
        let held = read(&store);
        assert_eq!((held.end, held.next_seq), (PreviousEnd::Clean, 4));
        // Its writer may not have been done with it: it is kept as a part that goes on, not as a line.
        assert_same(&held.cat(), b"one\ntwo\nhalf a line");
    }
}

#[test]
fn sigterm_under_load_ends_cleanly() {
    let dir = directory();
    let store = dir.path().join("busy.lg");
    let mut node = Running::start(&store, "8M");
    let mut to = node.input.take().unwrap();
    let feeder = thread::spawn(move || {
        let written = (0u64..).take_while(|n| to.write_all(&[numbered_line(0, *n), vec![b'\n']].concat()).is_ok());
        written.count()
    });
    node.wait_for_ack(200);
    node.signal(Signal::TERM);
    let (acked, _) = node.finish(0);
    feeder.join().unwrap();
    let held = read(&store);
    assert_eq!((held.end, held.next_seq), (PreviousEnd::Clean, acked + 1), "everything kept was acknowledged");
    // The last line may be half of one: the sender was in the middle of it.
    let whole = &held.records[..held.records.len() - 1];
    assert!(whole.iter().all(|(seq, _, body)| *body == numbered_line(0, seq - 1)));
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = directory();
    let store = dir.path().join("twice.lg");
    let mut node = Running::start(&store, "8M");
    // A full pipe that nobody reads holds up the orderly stop for a while.
    let pipe = node.acks.get_ref();
    fcntl_setpipe_size(pipe, 4096).unwrap();
    let (mut lines, mut printed) = (0, 0);
    while printed < 4000 {
        node.input.as_mut().unwrap().write_all(b"a line\n").unwrap();
        lines += 1;
        while printed == ioctl_fionread(pipe).unwrap() {
            std::hint::spin_loop();
        }
        printed = ioctl_fionread(pipe).unwrap();
    }
    node.write("a line\n".repeat(50).as_bytes());
    let is_reading = || {
        let threads = fs::read_dir(format!("/proc/{}/task", node.child.id())).unwrap();
        threads.flatten().any(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|name| name == "stdin\n"))
    };
    assert!(is_reading());
    node.signal(Signal::TERM);
    while is_reading() {
        std::hint::spin_loop();
    }
    node.signal(Signal::INT);
    assert_eq!(node.child.wait().unwrap().code(), Some(130));
    assert!(read(&store).records.len() >= lines);
}

#[test]
fn a_store_whose_making_was_cut_in_its_first_headers_is_made_again() {
    let dir = directory();
    let store = dir.path().join("begun.lg");
    keep(&store, "8M", b"");
    // What is left is one header of the manifest, without an entry.
    let file = File::options().read(true).write(true).open(&store).unwrap();
    let mut header = vec![0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
    file.write_all_at(&header, 0).unwrap();
    assert_eq!(keep(&store, "8M", b"a line\n"), 1);
    assert_same(&read(&store).cat(), b"a line\n");
}

#[test]
fn a_reader_of_acknowledgements_that_goes_away_costs_no_records() {
    let dir = directory();
    let store = dir.path().join("deaf.lg");
    let mut child = daemon(&store, "8M").spawn().unwrap();
    drop(child.stdout.take());
    let text = log_text(500);
    child.stdin.take().unwrap().write_all(&text).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("acknowledgements can no longer be printed"), "{said}");
    assert_same(&read(&store).cat(), &text);
}

/// Runs a daemon that cannot start; returns what it says.
fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{status}: {said}");
    assert!(stdout.is_empty());
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_second_node_on_the_same_store_is_refused() {
    let dir = directory();
    let store = dir.path().join("one.lg");
    let mut node = Running::start(&store, "8M");
    node.write(b"first\n");
    node.wait_for_ack(1);
    let said = refused(&mut daemon(&store, "8M"));
    assert!(said.contains(&format!("in use by process {}", node.child.id())), "{said}");
    node.write(b"second\n");
    assert_eq!(node.finish(0).0, 2);
    assert_same(&read(&store).cat(), b"first\nsecond\n");
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
    let dir = directory();
    let store = dir.path().join("letter.txt");
    let letter = "Dear reader, this is no store.\n".repeat(1000);
    fs::write(&store, &letter).unwrap();
    let said = refused(&mut daemon(&store, "8M"));
    assert!(said.contains("something else than a lastgasp store"), "{said}");
    assert_eq!(fs::read_to_string(&store).unwrap(), letter);
    assert!(refused(&mut daemon(dir.path(), "8M")).contains("is a directory"));
    assert!(refused(&mut daemon(Path::new("/dev/null"), "8M")).contains("neither a regular file"));
    assert!(refused(&mut daemon(&dir.path().join("no/such/dir.lg"), "8M")).contains("directory is not there"));
}

#[test]
fn a_size_that_cannot_be_is_refused() {
    let dir = directory();
    let store = dir.path().join("sized.lg");
    assert!(refused(&mut daemon(&store, "10K")).contains("too few for a store"));
    assert!(refused(&mut daemon(&store, "64Q")).contains("64Q"));
    let filesystem = rustix::fs::statvfs(dir.path()).unwrap();
    if filesystem.f_bavail.saturating_mul(filesystem.f_frsize) < 4 << 40 {
        let said = refused(&mut daemon(&store, "4096G"));
        assert!(said.contains("make room or choose a smaller size") || said.contains("no files of"), "{said}");
    }
    assert!(!store.exists(), "nothing is left behind");
    keep(&store, "8M", b"a line\n");
    let said = refused(&mut daemon(&store, "16M"));
    assert!(said.contains("this store has 8 MiB, --size asks for 16 MiB"), "{said}");
    assert_same(&read(&store).cat(), b"a line\n");
}

#[test]
fn a_store_one_may_not_write_to_is_refused() {
    // Root may write to everything, so as somebody else, who has to find the program and the store.
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let store = dir.path().join("theirs.lg");
    keep(&store, "1M", b"a line\n");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o444)).unwrap();
    let copy = dir.path().join("lastgaspd");
    fs::copy(program("lastgaspd"), &copy).unwrap();
    let mut command = Command::new(copy);
    command.arg("--store").arg(&store).args(["--stdin", "--allow-volatile"]).current_dir(dir.path());
    command.env("XDG_CONFIG_HOME", dir.path());
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let said = refused(&mut command);
    assert!(said.contains("permission denied"), "{said}");
}

#[test]
fn memory_that_forgets_is_refused_unless_allowed() {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    let shm = Path::new("/dev/shm");
    if rustix::fs::statfs(shm).is_ok_and(|f| f.f_type as u32 == TMPFS_MAGIC) {
        let dir = TempDir::new_in(shm).unwrap();
        let store = dir.path().join("volatile.lg");
        let mut command = Command::new(program("lastgaspd"));
        let said = refused(command.arg("--store").arg(&store).args(["--size", "1M", "--stdin"]));
        assert!(said.contains("--allow-volatile"), "{said}");
        assert!(!store.exists());
        assert_eq!(keep(&store, "1M", b"a line\n"), 1);
    }
}

#[test]
fn a_newer_version_is_refused() {
    let dir = directory();
    let store = dir.path().join("newer.lg");
    keep(&store, "1M", b"a line\n");
    let file = File::options().read(true).write(true).open(&store).unwrap();
    // In both slots of the manifest the first byte of the metadata is the major version; the checksum covers it.
    for slot in [0, 16 * (32 << 10)] {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, slot).unwrap();
        let end = 64 + usize::from(u16::from_le_bytes([header[0x10], header[0x11]]));
        header[64] = 200;
        header[0x14..0x18].fill(0);
        let mut crc = Crc32c::plain();
        crc.update(&header[..end]);
        header[0x14..0x18].copy_from_slice(&crc.finish().to_le_bytes());
        file.write_all_at(&header, slot).unwrap();
    }
    let said = refused(&mut daemon(&store, "1M"));
    assert!(said.contains("newer"), "{said}");
}

#[test]
fn a_medium_that_refuses_writes_ends_the_node_and_keeps_what_was_acknowledged() {
    let dir = directory();
    let store = dir.path().join("failing.lg");
    let mut node = Running::start(&store, "8M");
    node.write(b"one\ntwo\n");
    node.wait_for_ack(2);
    // From now on each write to a file fails, as on a card that has turned read-only.
    prlimit(Some(node.pid()), Resource::Fsize, Rlimit { current: Some(0), maximum: None }).unwrap();
    node.write(b"three\n");
    let (acked, said) = node.finish(1);
    assert_eq!(acked, 2, "what could not be kept is not acknowledged");
    assert!(said.contains("takes no more writes") && said.contains("up to number 2 is kept"), "{said}");
    assert_same(&read(&store).cat(), b"one\ntwo\n");
    assert_eq!(keep(&store, "8M", b"three again\n"), 3);
}

#[test]
fn when_the_medium_fails_the_node_can_go_on_in_memory() {
    let dir = directory();
    let (store, config) = (dir.path().join("failing.lg"), dir.path().join("node.toml"));
    fs::write(&config, "[store]\non_failure = \"memory\"\n").unwrap();
    let mut command = daemon(&store, "64M");
    let mut node = Running::spawn(command.arg("--config").arg(&config).env("XDG_RUNTIME_DIR", dir.path()));
    node.write(b"one\ntwo\n");
    node.wait_for_ack(2);
    // From now on the medium takes no writes behind its first segments; the store in memory is smaller.
    prlimit(Some(node.pid()), Resource::Fsize, Rlimit { current: Some(18 << 20), maximum: None }).unwrap();
    let mut random = Random(11);
    for _ in 0..400 {
        let line: Vec<u8> = (0..60_000).map(|_| b' ' + (random.next() >> 56) as u8 % 90).chain([b'\n']).collect();
        node.write(&line);
    }
    let (acked, said) = node.finish(0);
    assert!(said.contains("takes no more writes") && said.contains("kept in memory only"), "{said}");
    let held = read(&store);
    assert!(held.records.len() as u64 >= acked && acked > 2, "{acked} of {}", held.records.len());
    assert!(acked < 400, "what only memory holds is not acknowledged");
}

#[test]
fn without_arguments_it_keeps_what_is_piped() {
    let dir = directory();
    let run = |input: &[u8]| {
        let mut command = Command::new(program("lastgaspd"));
        command.arg("--allow-volatile").env("XDG_STATE_HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    let store = dir.path().join("lastgasp/store.lg");
    run(b"one\ntwo\n");
    let said = run(b"three");
    assert!(said.contains("recovered 2 record(s), next number 3, the last run ended cleanly, no gaps"), "{said}");
    assert_same(&read(&store).cat(), b"one\ntwo\nthree\n");
    let mode = fs::metadata(dir.path().join("lastgasp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777 & !0o750, 0, "{mode:o}");
}

#[test]
fn what_only_memory_held_when_it_was_killed_is_a_gap() {
    let dir = directory();
    let store = dir.path().join("interval.lg");
    let mut command = daemon(&store, "8M");
    let mut node = Running::spawn(command.args(["--class", "interval"]));
    node.write(b"one\n");
    // The first commit of a run is not put off: it writes down how much may be lost from here on.
    node.wait_for_ack(1);
    node.write(b"two\n");
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    let held = read(&store);
    assert_same(&held.cat(), b"one\n");
    let number = keep(&store, "8M", b"three\n");
    assert!(number > 2, "the number of a line that may have been seen is not used again");
    let held = read(&store);
    assert_same(&held.cat(), b"one\nthree\n");
    assert_eq!(held.records[1].0, number);
    let gap = held.gaps.iter().find(|g| g.cause == GapCause::RamTier).expect("the loss is named");
    assert_eq!((gap.first_seq, gap.last_seq, gap.exact), (2, number - 1, false));
}
