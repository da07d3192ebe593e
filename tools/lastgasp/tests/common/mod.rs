//! What the tests of the command line share: stores in files, made through the engine, and the binary.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lastgasp_core::format::row::Row;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::store::{self, OpenOptions as MountOptions, Store};
use lastgasp_hal_linux::{FileStorage, FormatOptions, HeapArena, OpenOptions, StoreMemory};
use tempfile::TempDir;

/// The least a store can be: 32 segments of 16 KiB.
pub(crate) const SMALLEST: u64 = 512 << 10;
/// 2023-11-14T22:13:20Z.
pub(crate) const WALL_US: i64 = 1_700_000_000_000_000;

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
}

/// A store that is open for writing.
pub(crate) type Node<'m> = Store<'m, FileStorage, HeapArena>;

impl TestStore {
    pub(crate) fn new(size_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let options = FormatOptions { allow_volatile: true, ..FormatOptions::new(size_bytes) };
        let mut storage = FileStorage::create(&path, &options, &mut |_, _| {}).unwrap();
        let mut memory = StoreMemory::new(&storage.geometry());
        store::format(&mut storage, memory.parts(), &store::FormatOptions { store_id: 7 }).unwrap();
        Self { dir, path }
    }

    /// One boot.
    pub(crate) fn boot<T>(&self, run: impl FnOnce(&mut Node<'_>) -> T) -> T {
        self.boot_as(&MountOptions { wall_us: WALL_US, synchronised: true, volatile_bound: 0 }, run)
    }

    /// One boot with a clock and a bound of its own.
    pub(crate) fn boot_as<T>(&self, options: &MountOptions, run: impl FnOnce(&mut Node<'_>) -> T) -> T {
        let storage = OpenOptions::new().allow_volatile(true).open(&self.path).unwrap();
        let mut memory = StoreMemory::new(&storage.geometry());
        let arenas = || HeapArena::new(4 << 20);
        let mut store =
            Store::open(storage, memory.parts(), arenas(), Some(arenas()), options, &mut |_, _| ()).unwrap();
        run(&mut store)
    }

    /// A boot that stores each body by itself, and stops cleanly.
    pub(crate) fn boot_with(&self, stream: &str, bodies: &[&[u8]]) {
        self.boot(|node| {
            let stream = node.stream(stream);
            for body in bodies {
                node.append(&[row(stream, body)], &[]).unwrap();
                node.commit().unwrap();
            }
            node.close().unwrap();
        });
    }

    pub(crate) fn flip(&self, at: usize) {
        let mut bytes = std::fs::read(&self.path).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&self.path, bytes).unwrap();
    }

    /// Where a text stands in the file.
    pub(crate) fn find(&self, text: &[u8]) -> usize {
        let bytes = std::fs::read(&self.path).unwrap();
        bytes.windows(text.len()).position(|window| window == text).unwrap()
    }

    /// Runs `lastgasp COMMAND --store PATH ARGUMENTS`.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Output {
        lastgasp(&[&[command, "--store", self.path.to_str().unwrap()], arguments].concat())
    }

    /// As [`Self::run`], which must succeed; gives its standard output.
    pub(crate) fn text(&self, command: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.bytes(command, arguments)).unwrap()
    }

    pub(crate) fn bytes(&self, command: &str, arguments: &[&str]) -> Vec<u8> {
        let out = self.run(command, arguments);
        assert!(out.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// The lines of `tail -o json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let text = self.text("tail", &[arguments, &["-o", "json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) fn row(stream: u16, body: &[u8]) -> Row<'_> {
    Row { stream, severity: 9, continued: false, received_us: 5, event_time_us: None, trace: None, body, fields: &[] }
}

/// The command line where nobody has a store or a node of their own.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastgasp"));
    command.args(arguments).env("TZ", "UTC").env("HOME", "/nonexistent");
    for variable in
        ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "NO_COLOR", "LASTGASP_PAGER", "PAGER", "LASTGASP_LESS"]
    {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn lastgasp(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Standard output of a run that must succeed.
pub(crate) fn stdout(arguments: &[&str]) -> String {
    let out = lastgasp(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Ends a process that a test has started.
pub(crate) struct Guard(pub(crate) std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit code and standard error.
pub(crate) fn failure(out: &Output) -> (Option<i32>, String) {
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// A file of these bytes.
pub(crate) fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
