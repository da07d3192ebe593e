//! The source against real journals, crafted by systemd-journal-remote, with runs that are cut at random.
//!
//! A cut run keeps a prefix of the batches, with their states, as the store does; the next one starts from there.

use super::keep::{BATCH_BYTES, LEFT_OUT_MAX};
use super::*;
use crate::config::Begin;
use crate::parcel::Slot;
use crate::queue::{Event, Queue};
use crate::stop::Stop;
use lastgasp_core::format::fields::{Fields, Value};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const BOOTS: [&str; 3] =
    ["000000000000000000000000000000b1", "000000000000000000000000000000b2", "000000000000000000000000000000b3"];

/// A reason to skip, printed.
fn cannot_craft() -> bool {
    let missing = [REMOTE, "/usr/bin/journalctl"].into_iter().find(|p| !Path::new(p).exists());
    if let Some(path) = missing {
        println!("skipped: {path} is not installed (package systemd-journal-remote)");
    }
    missing.is_some()
}

struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::env::var("LASTGASP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
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

type Pairs = Vec<(String, Vec<u8>)>;

/// An entry as it is put into the journal.
fn pairs(i: u64, boot: &str) -> Pairs {
    let pair = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let mut all = vec![
        pair("__REALTIME_TIMESTAMP", (1_700_000_000_000_000 + i * 1000).to_string().as_bytes()),
        pair("__MONOTONIC_TIMESTAMP", (1_000_000 + i * 1000).to_string().as_bytes()),
        pair("_BOOT_ID", boot.as_bytes()),
        pair("PRIORITY", (i % 8).to_string().as_bytes()),
        pair("_SYSTEMD_UNIT", format!("unit{}.service", i / 7 % 5).as_bytes()),
        pair("TWICE", b"a"),
        pair("TWICE", format!("b{i}").as_bytes()),
    ];
    match i % 5 {
        0 => all.push(pair("MESSAGE", format!("line {i}\nnext\n\nlast").as_bytes())),
        1 => all.push(pair("MESSAGE", &[b"bytes \xff\0", i.to_string().as_bytes()].concat())),
        _ => all.push(pair("MESSAGE", format!("entry {i}").as_bytes())),
    }
    if i.is_multiple_of(3) {
        all.push(pair("BINARY", &[0, 0xff, b'\n', b'\n', b'=', (i % 251) as u8]));
    }
    all
}

fn export(pairs: &Pairs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.extend_from_slice(name.as_bytes());
        if value.iter().any(|b| *b < 32 || *b >= 127) {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

/// Makes a journal file of these entries.
fn craft(path: &Path, entries: &[Pairs]) {
    let mut remote = Command::new(REMOTE)
        .arg(format!("--output={}", path.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = remote.stdin.take().unwrap();
    for entry in entries {
        input.write_all(&export(entry)).unwrap();
    }
    drop(input);
    assert!(remote.wait().unwrap().success(), "systemd-journal-remote");
}

/// A record that was kept.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    stream: String,
    severity: u8,
    continued: bool,
    event_time_us: Option<i64>,
    body: Vec<u8>,
    fields: Pairs,
}

/// What a store has after all runs.
#[derive(Default)]
struct Held {
    states: BTreeMap<Vec<u8>, Vec<u8>>,
    records: Vec<Kept>,
    gaps: u64,
}

impl Held {
    /// One run: takes batches in until `enough` says so, then the power is cut: what was not taken in is lost.
    fn run(&mut self, options: &Options, record_bytes_max: usize, mut enough: impl FnMut(&Self) -> bool) {
        let queue: Queue<()> = Queue::new(2);
        let (stop, ring) = Stop::by_hand().unwrap();
        let cursors = Arc::new(self.states.clone());
        let ctx = Context { record_bytes_max, cursors, ..Context::by_hand(queue.intake(), stop) };
        let (options, status) = (options.clone(), Arc::clone(&ctx.status));
        let source = thread::spawn(move || run(&options, &ctx));
        'run: while !enough(self) {
            let parcel = match queue.next(Some(Instant::now() + Duration::from_secs(60))) {
                Some(Event::Parcel(parcel)) => parcel,
                Some(Event::SourceEnded) => panic!("the source ended by itself"),
                Some(_) => continue,
                None => panic!("nothing comes: {}", status.report().words),
            };
            self.gaps += queue.drops().take().iter().map(|d| d.records).sum::<u64>();
            for at in 0.. {
                let Some(batch) = parcel.batch(at) else { break };
                let bytes: usize = batch.slots.iter().map(|s| s.body.len() + s.fields.len()).sum();
                assert!(bytes <= BATCH_BYTES.max(record_bytes_max), "a batch of {bytes} bytes");
                for slot in batch.slots {
                    assert!(slot.body.len() + slot.fields.len() <= record_bytes_max);
                    self.records.push(kept(&parcel, slot));
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
        ring.ring();
        drop(queue);
        source.join().unwrap();
    }

    /// What was kept, as entries: parts joined.
    fn entries(&self) -> Vec<Pairs> {
        let mut all: Vec<Pairs> = Vec::new();
        let mut goes_on = false;
        for record in &self.records {
            if goes_on {
                let last = all.last_mut().unwrap();
                last.iter_mut().find(|(name, _)| name == "MESSAGE").unwrap().1.extend_from_slice(&record.body);
                assert!(record.fields.is_empty());
            } else {
                let mut fields = record.fields.clone();
                fields.retain(|(name, _)| !name.starts_with("__SEQNUM"));
                fields.push(("MESSAGE".to_owned(), record.body.clone()));
                all.push(fields);
            }
            goes_on = record.continued;
        }
        all
    }
}

fn kept(parcel: &Parcel, slot: &Slot) -> Kept {
    let value = |value| match value {
        Value::Str(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    Kept {
        stream: parcel.stream_name(slot.stream).to_owned(),
        severity: slot.severity,
        continued: slot.continued,
        event_time_us: slot.event_time_us,
        body: parcel.get(&slot.body).to_vec(),
        fields: Fields::new(parcel.get(&slot.fields)).map(|(k, v)| (k.to_owned(), value(v))).collect(),
    }
}

/// The journal keeps no order of the fields of an entry.
fn sorted(entries: &[Pairs]) -> Vec<Pairs> {
    entries
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            entry.sort();
            entry
        })
        .collect()
}

#[track_caller]
fn assert_same(got: &[Pairs], want: &[Pairs]) {
    let (got, want) = (sorted(got), sorted(want));
    if let Some(at) = (0..got.len().max(want.len())).find(|at| got.get(*at) != want.get(*at)) {
        let show = |e: Option<&Pairs>| {
            e.map_or("nothing".into(), |e| {
                e.iter().fold(String::new(), |mut all, (k, v)| {
                    let _ = write!(all, "{k}={} ", v.escape_ascii());
                    all
                })
            })
        };
        panic!(
            "{} kept, {} put in; number {at}:\n{}\n{}",
            got.len(),
            want.len(),
            show(got.get(at)),
            show(want.get(at))
        );
    }
}

fn options(directory: &Path) -> Options {
    let journal = Journald { directory: Some(directory.to_owned()), from: Begin::Start, ..Journald::default() };
    Options { pause: Duration::from_millis(20), ..Options::from(&journal) }
}

/// A journalctl whose process id can be read from `pid`.
fn killable(directory: &Path) -> (PathBuf, PathBuf) {
    let (script, pid) = (directory.join("journalctl"), directory.join("pid"));
    let text =
        format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}\nexec /usr/bin/journalctl \"$@\"\n", pid.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    (script, pid)
}

#[test]
fn every_entry_of_a_large_journal_is_kept_once_though_runs_and_journalctl_are_killed() {
    if cannot_craft() {
        return;
    }
    let mut random = Random::seeded();
    let directory = tempfile::tempdir().unwrap();
    let journals = directory.path().join("journals");
    fs::create_dir(&journals).unwrap();
    let entries: Vec<Pairs> = (0..100_000).map(|i| pairs(i, BOOTS[usize::try_from(i / 40_000).unwrap()])).collect();
    craft(&journals.join("x.journal"), &entries);
    let (journalctl, pid) = killable(directory.path());
    let options = Options { journalctl, ..options(&journals) };
    let mut held = Held::default();
    while held.records.len() < entries.len() {
        let until = (held.records.len() + random.below(25_000)).min(entries.len());
        let kill_at = held.records.len() + random.below(12_000);
        let mut killed = false;
        held.run(&options, 100_000, |held| {
            if held.records.len() >= kill_at && !std::mem::replace(&mut killed, true) {
                let pid = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            held.records.len() >= until
        });
    }
    assert_same(&held.entries(), &entries);
    assert_eq!(held.gaps, 0);
    // The next entry is all that comes.
    let next: Vec<Pairs> = (100_000..100_001).map(|i| pairs(i, BOOTS[2])).collect();
    craft(&journals.join("y.journal"), &next);
    held.run(&options, 100_000, |held| held.records.len() > entries.len());
    assert_same(&held.entries()[entries.len()..], &next);
    let first = &held.records[0];
    assert_eq!((first.stream.as_str(), first.severity), ("unit0", 21));
    assert_eq!(first.event_time_us, Some(1_700_000_000_000_000));
}

#[test]
fn a_long_message_is_kept_in_parts_once_though_runs_are_cut_between_them() {
    if cannot_craft() {
        return;
    }
    let mut random = Random::seeded();
    let directory = tempfile::tempdir().unwrap();
    let long = |i: u64| {
        let mut entry = pairs(i * 5 + 2, BOOTS[0]);
        let body = entry.iter_mut().find(|(name, _)| name == "MESSAGE").unwrap();
        body.1 = (0..50_000 + i * 10_000).map(|at| b'a' + u8::try_from((at + i) % 26).unwrap()).collect();
        entry
    };
    let entries: Vec<Pairs> = (0..6).map(|i| if i % 2 == 0 { long(i) } else { pairs(i * 5 + 2, BOOTS[0]) }).collect();
    craft(&directory.path().join("x.journal"), &entries);
    for _ in 0..20 {
        let mut held = Held::default();
        while held.entries().len() < entries.len() || held.records.last().is_some_and(|r| r.continued) {
            let until = held.records.len() + 1 + random.below(8);
            let whole = |held: &Held| {
                held.entries().len() == entries.len() && !held.records.last().is_some_and(|r| r.continued)
            };
            held.run(&options(directory.path()), 12_000, |held| held.records.len() >= until || whole(held));
        }
        assert_same(&held.entries(), &entries);
        assert!(held.records.len() > 15, "in parts");
    }
}

#[test]
fn what_no_record_can_hold_is_cut_and_the_record_says_so() {
    if cannot_craft() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut entry = pairs(1, BOOTS[0]);
    entry.push(("DUMP".to_owned(), vec![b'x'; 300_000]));
    craft(&directory.path().join("x.journal"), &[entry, pairs(2, BOOTS[0])]);
    let mut held = Held::default();
    held.run(&options(directory.path()), 16_000, |held| held.records.len() == 2);
    let field = |name: &str| held.records[0].fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice()).unwrap();
    let dump = field("DUMP").len();
    assert!((500..2000).contains(&dump), "{dump}");
    assert_eq!(field("cut"), format!("DUMP: {dump} of 300000 bytes are kept").as_bytes());
    assert_same(&held.entries()[1..], &[pairs(2, BOOTS[0])]);
}

/// A journald of its own, in a mount namespace, with volatile and persistent directories.
struct Live {
    holder: std::process::Child,
    journald: Option<std::process::Child>,
}

impl Live {
    fn start() -> Option<Self> {
        if cannot_craft() || !rustix::process::geteuid().is_root() {
            println!("skipped: running a journald of its own takes root");
            return None;
        }
        let set_up = "mount --make-rprivate / && mount -t tmpfs none /run && mount -t tmpfs none /var/log && \
                      mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /var/log/journal && \
                      printf '[Journal]\\nRateLimitBurst=0\\nReadKMsg=no\\nAudit=no\\n' \
                      > /run/systemd/journald.conf.d/x.conf && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", set_up])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        if io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).is_err() {
            let ended = holder.wait();
            println!("skipped: no mount namespace can be made here ({ended:?})");
            return None;
        }
        let mut live = Self { holder, journald: None };
        live.start_journald();
        Some(live)
    }

    fn root(&self) -> String {
        format!("/proc/{}/root", self.holder.id())
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "-t", &self.holder.id().to_string(), program]);
        command
    }

    fn start_journald(&mut self) {
        let mut command = self.inside("/lib/systemd/systemd-journald");
        self.journald = Some(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn kill_journald(&mut self) {
        let mut journald = self.journald.take().unwrap();
        journald.kill().unwrap();
        journald.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.journald.as_ref().unwrap().id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Sends a message by journald's own protocol; waits while there is no journald to take it.
    fn send(&self, i: u64) {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let to = format!("{}/run/systemd/journal/socket", self.root());
        let text = format!("MESSAGE=number {i}\nPRIORITY=6\nTEST={i}\n");
        for _ in 0..3000 {
            if socket.send_to(text.as_bytes(), &to).is_ok() {
                return;
            }
            wait_a_little();
        }
        panic!("no journald");
    }

    /// The numbers that the journal holds, in its order.
    fn numbers(&self) -> Vec<u64> {
        let shown = self.inside("journalctl").args(["-o", "cat", "--output-fields=TEST", "-q"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap().lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn options(&self, directory: &Path) -> Options {
        let script = directory.join("journalctl");
        let text = format!("#!/bin/sh\nexec nsenter --mount -t {} /usr/bin/journalctl \"$@\"\n", self.holder.id());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let journal = Journald { from: Begin::Boot, ..Journald::default() };
        Options { journalctl: script, pause: Duration::from_millis(20), ..Options::from(&journal) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for child in self.journald.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_a_little() {
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let _ = rustix::event::poll(&mut [], Some(&time));
}

fn numbers(held: &Held) -> Vec<u64> {
    let test = |record: &Kept| {
        let (_, value) = record.fields.iter().find(|(name, _)| name == "TEST")?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    held.records.iter().filter_map(test).collect()
}

#[test]
fn a_live_journal_is_kept_once_through_rotation_flush_and_kills_and_what_is_vacuumed_is_a_gap() {
    let mut random = Random::seeded();
    let Some(mut live) = Live::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let options = live.options(directory.path());
    let mut held = Held::default();
    let mut sent = 0;
    for round in 0..14 {
        let burst = 50 + random.below(300) as u64;
        for i in 0..burst {
            live.send(sent + i);
            if i == burst / 2 {
                match round % 4 {
                    0 => live.signal(Signal::USR2), // rotate
                    1 => live.signal(Signal::USR1), // from /run to /var
                    2 => {
                        live.kill_journald();
                        live.start_journald();
                    }
                    _ => {}
                }
            }
        }
        sent += burst;
        // Reads some of it; every other time all of it, so that the next start is at the end of the journal.
        let mark = sent;
        live.send(mark);
        sent += 1;
        let until = held.records.len() + 1 + random.below(300);
        held.run(&options, 100_000, |held| {
            numbers(held).last() == Some(&mark) || (round % 2 == 0 && held.records.len() >= until)
        });
    }
    live.send(sent);
    held.run(&options, 100_000, |held| numbers(held).last() == Some(&sent));
    assert_eq!(numbers(&held), live.numbers());
    assert!(held.records.len() > 1000, "{}", held.records.len());
    assert_eq!(held.gaps, 0);

    // What is dropped while nobody reads: rotated twice, and all but the newest file removed.
    for i in 1..=300 {
        live.send(sent + i);
        if i == 100 || i == 200 {
            live.signal(Signal::USR2);
            while !live.numbers().contains(&(sent + i)) {
                wait_a_little();
            }
        }
    }
    while !live.numbers().contains(&(sent + 300)) {
        wait_a_little();
    }
    let vacuum = live.inside("journalctl").args(["-q", "--vacuum-files=1"]).output().unwrap();
    assert!(vacuum.status.success(), "{vacuum:?}");
    let left = live.numbers();
    assert!(!left.is_empty() && left[0] > sent + 1, "{left:?}");
    let mut after = Held { states: std::mem::take(&mut held.states), ..Held::default() };
    after.run(&options, 100_000, |held| numbers(held).last() == Some(&(sent + 300)));
    assert_eq!(numbers(&after), left);
    let lost = left[0] - sent - 1;
    // journald's own messages about its rotation are lost too.
    assert!((lost..lost + 20).contains(&after.gaps), "{} in the gap, {lost} of ours", after.gaps);
}

#[test]
fn units_that_are_not_wanted_are_left_out_and_not_read_again() {
    if cannot_craft() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    craft(&directory.path().join("x.journal"), &(0..9000).map(|i| pairs(i, BOOTS[0])).collect::<Vec<_>>());
    let mut options = options(directory.path());
    options.journal.exclude = vec![crate::config::pattern::Pattern::new("unit[0-9].service").unwrap()];
    let mut held = Held::default();
    held.run(&options, 100_000, |held| !held.states.is_empty());
    let read = Place::decode(&held.states[STATE_KEY]).unwrap().cursor.seqnum;
    assert_eq!((held.records.len(), read), (0, u64::from(LEFT_OUT_MAX)));
    options.journal.exclude.clear();
    held.run(&options, 100_000, |held| !held.records.is_empty());
    assert_same(&held.entries()[..1], &[pairs(u64::from(LEFT_OUT_MAX), BOOTS[0])]);
}

#[test]
fn what_keeps_the_source_from_its_work_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let why = unavailable(&options(directory.path())).unwrap();
    assert!(why.contains("no journal in"), "{why}");
    fs::write(directory.path().join("x.journal"), "").unwrap();
    let missing = Options { journalctl: directory.path().join("journalctl"), ..options(directory.path()) };
    assert!(unavailable(&missing).unwrap().contains("not installed"));
    let queue: Queue<()> = Queue::new(1);
    let (stop, _ring) = Stop::by_hand().unwrap();
    let ctx = Context::by_hand(queue.intake(), stop);
    run(&missing, &ctx);
    assert!(!ctx.status.report().works && ctx.status.report().words.contains("not installed"));
}
