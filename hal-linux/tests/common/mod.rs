//! What the tests of whole stores share: headers, temporary places, and guards that undo mounts and loop devices.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastgasp_core::format::header::{ClockAnchor, SegmentHeader, SegmentKind};
use lastgasp_core::hal::{Geometry, ReadStorage, Storage};
use lastgasp_hal_linux::{FileStorage, FormatOptions, OpenError, OpenOptions};

pub(crate) const MIB: u64 = 1 << 20;

/// A header as the engine writes it.
pub(crate) fn header(geometry: &Geometry, segment: u32, store_id: u64) -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Log,
        store_id,
        segment,
        segments: geometry.segments,
        segment_bytes: geometry.segment_bytes,
        torn_unit: geometry.torn_unit,
        write_unit: geometry.write_unit,
        generation: 1 + u64::from(segment),
        epoch: 1,
        erase_count: 1,
        first_seq: 1,
        void_from: 1,
        edit_no: 1,
        durable_upto: 0,
        anchor: ClockAnchor::default(),
        floor_seq: [0; 5],
        floors: 5,
        codec: 1,
        reserve_bytes: geometry.torn_unit.max(32),
        later_bytes: 0,
        volatile_bound: 0,
    }
}

pub(crate) fn encoded(header: &SegmentHeader, unit: u32) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(unit.max(256)).unwrap()];
    header.encode(&mut bytes).unwrap();
    bytes
}

/// Writes the header of one segment.
pub(crate) fn write_header(storage: &mut FileStorage, segment: u32, store_id: u64) {
    let geometry = storage.geometry();
    let bytes = encoded(&header(&geometry, segment, store_id), geometry.torn_unit);
    storage.erase(segment).unwrap();
    storage.write(geometry.segment_start(segment), &bytes).unwrap();
}

pub(crate) fn format_options(size_bytes: u64) -> FormatOptions {
    FormatOptions { allow_volatile: true, ..FormatOptions::new(size_bytes) }
}

pub(crate) fn create(path: &Path, size_bytes: u64) -> Result<FileStorage, OpenError> {
    FileStorage::create(path, &format_options(size_bytes), &mut |_, _| {})
}

/// A store with a header in every segment.
pub(crate) fn formatted(path: &Path, size_bytes: u64) -> FileStorage {
    let mut storage = create(path, size_bytes).unwrap();
    for segment in 0..storage.geometry().segments {
        write_header(&mut storage, segment, 77);
    }
    storage.sync().unwrap();
    storage
}

/// Opens for writing, also where the temporary directory lies in RAM.
pub(crate) fn open(path: &Path) -> Result<FileStorage, OpenError> {
    OpenOptions::new().allow_volatile(true).open(path)
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Lets one test at a time run programs: a child that is just being started holds the files of the other tests.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !out.status.success() {
        return Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// A mounted file system, unmounted when dropped, also when a test fails.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    pub(crate) fn new(arguments: &[&str], at: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("mounting needs root".into());
        }
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let at_text = at.to_str().ok_or("path is not text")?;
        run("mount", &[arguments, &[at_text]].concat())?;
        Ok(Self(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[self.0.to_str().unwrap_or_default()]) {
            eprintln!("{error}");
        }
    }
}

/// A loop device, detached when dropped.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn new(image: &Path) -> Result<Self, String> {
        if !is_root() {
            return Err("a loop device needs root".into());
        }
        let image = image.to_str().ok_or("path is not text")?;
        Ok(Self(run("losetup", &["--find", "--show", image])?.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &["--detach", self.0.to_str().unwrap_or_default()]) {
            eprintln!("{error}");
        }
    }
}

/// `None`, with the reason printed, where this machine cannot do what a test needs.
pub(crate) fn or_skip<T>(what: Result<T, String>) -> Option<T> {
    what.map_err(|reason| eprintln!("skipped: {reason}")).ok()
}
