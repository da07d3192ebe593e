//! The real daemon follows files under rotation and a crafted journal, and is killed at random instants: every line
//! and every entry is in the store once, in its order.
//!
//! What is random prints its seed; `LASTGASP_SEED=n` repeats a run, `LASTGASP_KILLS=200` kills more often. Crafting a
//! journal takes the package systemd-journal-remote; without it that half is skipped, with a printed reason.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::program;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::reader::Reader;
use lastgasp_core::scan::{Entry, Scan, ScanOptions};
use lastgasp_hal_linux::{FileStorage, ScanBuffers, StoreMemory};
use rustix::process::{Pid, Signal, kill_process};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const ENTRIES: usize = 20_000;

struct Random(u64);

impl Random {
    fn new() -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = match std::env::var("LASTGASP_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => u64::from(clock.subsec_nanos()) | 1,
        };
        println!("LASTGASP_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}

/// The bodies in a store that nobody writes to, and how many records are in gaps.
fn bodies(store: &Path) -> (Vec<String>, u64) {
    let medium = FileStorage::open_read_only(store).unwrap();
    let geometry = medium.geometry();
    let (mut memory, mut buffers) = (StoreMemory::new(&geometry), ScanBuffers::new(&geometry));
    let mut reader = Reader::open(medium, memory.parts(), &mut |_, _| ()).unwrap();
    let mut scan = Scan::new(reader.catalog(), ScanOptions::default());
    let (mut bodies, mut lost) = (Vec::new(), 0);
    let mut memory = buffers.parts();
    let (medium, catalog) = reader.parts();
    while let Some(entry) = scan.next(medium, catalog, &mut memory) {
        match entry {
            Entry::Record(record) => bodies.push(String::from_utf8(record.row.body.to_vec()).unwrap()),
            Entry::Gap(gap) if gap.cause == lastgasp_core::gaps::GapCause::Overload => {
                lost += gap.last_seq - gap.first_seq + 1;
            }
            _ => {}
        }
    }
    (bodies, lost)
}

/// A daemon on a configuration; ended when dropped.
struct Node(Child);

impl Node {
    fn start(program: &Path, config: &Path, store: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("--store").arg(store);
        command.args(["--size", "64M", "--no-defaults", "--allow-volatile"]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it ran until it was killed");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the daemon run on for a while.
fn let_run(millis: u64) {
    let (_to, from) = crossbeam_channel::bounded::<()>(0);
    let _ = from.recv_timeout(Duration::from_millis(millis));
}

/// A program's log, and what rotates it.
struct Log {
    name: &'static str,
    path: PathBuf,
    next: usize,
    /// First line of the life that the file has now.
    first: usize,
    rotated: bool,
}

impl Log {
    fn line(&self, i: usize) -> String {
        format!("{} {i} {}", self.name, "y".repeat(i * 11 % 200))
    }

    fn write(&mut self, lines: u64) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
        for _ in 0..lines {
            writeln!(file, "{}", self.line(self.next)).unwrap();
            self.next += 1;
        }
    }

    /// Rotates, once at most while nobody has looked at what is kept; what is deleted has been read.
    fn rotate(&mut self, how: u64, kept: &BTreeSet<String>) {
        let was_rotated = std::mem::replace(&mut self.rotated, true);
        let is_kept = |i: usize| i < self.next && kept.contains(&self.line(i));
        if was_rotated || !is_kept(self.first) {
            return;
        }
        let name = |n: u8| self.path.with_extension(format!("log.{n}"));
        let _ = fs::rename(name(1), name(2));
        match how {
            0 => fs::rename(&self.path, name(1)).unwrap(),
            1 => {
                fs::copy(&self.path, name(1)).unwrap();
                File::create(&self.path).unwrap();
            }
            _ if is_kept(self.next - 1) => fs::remove_file(&self.path).unwrap(),
            _ => return,
        }
        self.first = self.next;
    }
}

fn craft_journal(directory: &Path) -> bool {
    if ![REMOTE, "/usr/bin/journalctl"].iter().all(|path| Path::new(path).exists()) {
        println!("skipped for journals: {REMOTE} is not installed (package systemd-journal-remote)");
        return false;
    }
    fs::create_dir(directory).unwrap();
    let mut remote = Command::new(REMOTE)
        .arg(format!("--output={}", directory.join("x.journal").display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for i in 0..ENTRIES {
        text += &format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={:032x}\n_SYSTEMD_UNIT=unit{}.service\n\
             PRIORITY={}\nMESSAGE=journal {i}\n\n",
            1_700_000_000_000_000 + i,
            1 + i,
            1 + i / 7000,
            i / 9 % 4,
            i % 8,
        );
    }
    remote.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(remote.wait().unwrap().success());
    true
}

#[test]
fn a_killed_daemon_keeps_every_line_and_entry_once() {
    let kills: u64 = std::env::var("LASTGASP_KILLS").map_or(15, |n| n.parse().unwrap());
    let mut random = Random::new();
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| directory.path().join(name);
    let has_journal = craft_journal(&path("journal"));
    let config = format!(
        "[api]\nenabled = false\n[sources.journald]\nenabled = {has_journal}\nfrom = \"start\"\ndirectory = {:?}\n\
         [sources.files.app]\npaths = [{:?}]\n",
        path("journal"),
        path("*.log")
    );
    fs::write(path("config.toml"), config).unwrap();
    let (program, store) = (program("lastgaspd"), path("store.lg"));
    let mut logs =
        ["a", "b"].map(|name| Log { name, path: path(&format!("{name}.log")), next: 0, first: 0, rotated: false });
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for _ in 0..kills {
        let node = Node::start(&program, &path("config.toml"), &store);
        for _ in 0..2 + random.below(12) {
            for log in &mut logs {
                log.write(random.below(60));
                if random.below(6) == 0 {
                    log.rotate(random.below(3), &kept);
                }
                log.write(1);
            }
            let_run(random.below(120));
        }
        node.kill();
        if store.exists() {
            kept = bodies(&store).0.into_iter().collect();
        }
        logs.iter_mut().for_each(|log| log.rotated = false);
    }
    let total = logs.iter().map(|log| log.next).sum::<usize>() + if has_journal { ENTRIES } else { 0 };
    let (mut got, mut lost) = (Vec::new(), 0);
    for _ in 0..60 {
        let node = Node::start(&program, &path("config.toml"), &store);
        let_run(500);
        node.stop();
        (got, lost) = bodies(&store);
        if got.len() >= total {
            break;
        }
    }
    for log in &logs {
        let prefix = format!("{} ", log.name);
        let lines: Vec<&String> = got.iter().filter(|body| body.starts_with(&prefix)).collect();
        let differs = (0..log.next.max(lines.len())).find(|i| lines.get(*i).is_none_or(|line| **line != log.line(*i)));
        assert_eq!((differs, lines.len()), (None, log.next), "lines of {}", log.name);
    }
    if has_journal {
        let entries = got.iter().filter(|body| body.starts_with("journal "));
        assert!(
            entries.eq(&(0..ENTRIES).map(|i| format!("journal {i}")).collect::<Vec<_>>()),
            "entries of the journal"
        );
    }
    assert_eq!((got.len(), lost), (total, 0));
}
