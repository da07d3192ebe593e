//! Single system calls fail under a real file: what the engine is told, and what this layer does not try again.

use super::*;
use crate::create::{FormatOptions, create_with};
use crate::open_error::OpenError;
use crate::syscalls::faulty::{Call, Fault, Faulty};
use lastgasp_core::format::header::{ClockAnchor, SegmentHeader, SegmentKind};
use lastgasp_core::hal::StorageError;
use tempfile::TempDir;

const SIZE: u64 = 512 * 1024;

fn options() -> FormatOptions {
    FormatOptions { allow_volatile: true, ..FormatOptions::new(SIZE) }
}

fn store() -> (TempDir, Arc<Faulty>, FileStorage) {
    let directory = tempfile::tempdir().unwrap();
    let sys = Arc::new(Faulty::default());
    let path = directory.path().join("store.lg");
    let storage = create_with(&path, &options(), &mut |_, _| {}, sys.clone()).unwrap();
    (directory, sys, storage)
}

fn read_back(storage: &mut FileStorage, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    storage.read(at, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_short_write_is_completed() {
    let (_directory, sys, mut storage) = store();
    let bytes: Vec<u8> = (0..8192_u32).map(|i| i.to_le_bytes()[0]).collect();
    sys.fail(Call::Pwrite, 1, Fault::Short(1000));
    sys.fail(Call::Pwrite, 2, Fault::Errno(Errno::INTR));
    sys.fail(Call::Pwrite, 3, Fault::Short(1));
    let before = sys.count(Call::Pwrite);
    storage.write(4096, &bytes).unwrap();
    assert_eq!(sys.count(Call::Pwrite) - before, 4);
    assert_eq!(read_back(&mut storage, 4096, 8192), bytes);
    assert_eq!(storage.written_bytes(), 8192);
}

#[test]
fn a_short_read_is_completed() {
    let (_directory, sys, mut storage) = store();
    storage.write(0, &[7; 4096]).unwrap();
    sys.fail(Call::Pread, 1, Fault::Short(3));
    sys.fail(Call::Pread, 2, Fault::Errno(Errno::INTR));
    assert_eq!(read_back(&mut storage, 0, 4096), [7; 4096]);
}

#[test]
fn a_write_that_makes_no_progress_ends_as_an_error() {
    let (_directory, sys, mut storage) = store();
    sys.fail(Call::Pwrite, 1, Fault::Short(0));
    assert_eq!(storage.write(0, &[7; 4096]).unwrap_err().kind(), StorageErrorKind::Io);
    assert_eq!(storage.written_bytes(), 0);
}

#[test]
fn errors_of_the_kernel_reach_the_engine_by_kind() {
    let (_directory, sys, mut storage) = store();
    for (errno, kind) in [
        (Errno::IO, StorageErrorKind::Io),
        (Errno::NOSPC, StorageErrorKind::Io),
        (Errno::ROFS, StorageErrorKind::ReadOnly),
    ] {
        sys.fail(Call::Pwrite, 1, Fault::Errno(errno));
        let error = storage.write(0, &[7; 4096]).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (kind, Some(errno.raw_os_error())));
    }
    sys.fail(Call::Pread, 1, Fault::Errno(Errno::IO));
    assert_eq!(storage.read(0, &mut [0; 10]).unwrap_err().kind(), StorageErrorKind::Io);
}

#[test]
fn a_failed_sync_is_told_and_not_tried_again_by_any_handle() {
    let (_directory, sys, mut storage) = store();
    let handle = storage.sync_handle().unwrap();
    let before = sys.count(Call::Fdatasync);
    for nth in 1..=4 {
        sys.fail(Call::Fdatasync, 1, Fault::Errno(Errno::IO));
        let result = if nth % 2 == 0 { handle.sync() } else { storage.sync() };
        assert_eq!(result.unwrap_err().kind(), StorageErrorKind::SyncFailed);
        assert_eq!(sys.count(Call::Fdatasync) - before, nth);
    }
    let good = storage.syncs();
    handle.sync().unwrap();
    assert_eq!(storage.syncs(), good + 1);
}

#[test]
fn a_fill_whose_sync_failed_fails_the_next_sync_of_the_engine() {
    let (_directory, sys, mut storage) = store();
    punch(&storage, 16 * 1024, 16 * 1024);
    storage.write(0, &[7; 4096]).unwrap();
    sys.fail(Call::Fdatasync, 1, Fault::Errno(Errno::IO));
    assert_eq!(storage.erase(1).unwrap_err().kind(), StorageErrorKind::SyncFailed);
    let made = sys.count(Call::Fdatasync);
    assert_eq!(storage.sync().unwrap_err().kind(), StorageErrorKind::SyncFailed, "its write may be lost");
    assert_eq!(sys.count(Call::Fdatasync), made);
    storage.sync().unwrap();
}

#[test]
fn a_file_system_without_holes_counts_as_filled() {
    let (_directory, sys, mut storage) = store();
    punch(&storage, 16 * 1024, 16 * 1024);
    sys.fail(Call::SeekHole, 1, Fault::Errno(Errno::INVAL));
    storage.erase(1).unwrap();
    assert_eq!(storage.fill_bytes(), 0);
    sys.fail(Call::SeekHole, 1, Fault::Errno(Errno::IO));
    assert_eq!(storage.erase(1).unwrap_err().kind(), StorageErrorKind::Io);
}

#[test]
fn a_creation_that_fails_leaves_nothing_behind() {
    for (call, errno) in [
        (Call::Fallocate, Errno::NOSPC),
        (Call::Fallocate, Errno::FBIG),
        (Call::Pwrite, Errno::NOSPC),
        (Call::Fdatasync, Errno::IO),
        (Call::Fsync, Errno::IO),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.lg");
        let sys = Arc::new(Faulty::default());
        sys.fail(call, 1, Fault::Errno(errno));
        let error = create_with(&path, &options(), &mut |_, _| {}, sys.clone()).unwrap_err();
        match (errno, &error) {
            (Errno::NOSPC, OpenError::NoSpace { size_bytes: SIZE, missing_bytes: 1.., .. })
            | (Errno::FBIG, OpenError::FileTooLarge { .. })
            | (Errno::IO, OpenError::Io { .. }) => {}
            _ => panic!("{call:?} {errno}: {error}"),
        }
        assert!(!path.exists(), "{call:?} {errno}");
        // A blank file that was there before is left as it was.
        std::fs::write(&path, [0; 1000]).unwrap();
        sys.fail(call, 1, Fault::Errno(errno));
        create_with(&path, &options(), &mut |_, _| {}, sys).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), [0; 1000], "{call:?} {errno}");
    }
}

#[test]
fn without_preallocation_the_whole_store_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.lg");
    let sys = Arc::new(Faulty::default());
    sys.fail(Call::Fallocate, 1, Fault::Errno(Errno::OPNOTSUPP));
    let size = crate::create::FILLED_AT_CREATION_BYTES + 4 * 1024 * 1024;
    let mut last = (0, 0);
    let options = FormatOptions { allow_volatile: true, ..FormatOptions::new(size) };
    create_with(&path, &options, &mut |done, total| last = (done, total), sys).unwrap();
    assert_eq!(last, (size, size));
}

#[test]
fn a_flush_that_fails_at_opening_is_reported_and_does_not_keep_the_store_shut() {
    let (_directory, sys, storage) = store();
    let path = storage.path().to_path_buf();
    drop(storage);
    let options = crate::OpenOptions::new().allow_volatile(true);
    // Nothing is formatted: this comes after the flush, which therefore did not stop it.
    sys.fail(Call::Fdatasync, 1, Fault::Errno(Errno::IO));
    let before = sys.count(Call::Fdatasync);
    assert!(matches!(options.open_with(&path, sys.clone()), Err(OpenError::Blank { .. })));
    assert_eq!(sys.count(Call::Fdatasync) - before, 1, "it is not tried again");
}

#[test]
fn a_store_opens_whose_first_places_cannot_be_read() {
    let (_directory, sys, mut storage) = store();
    let geometry = storage.geometry;
    for segment in [0, 3] {
        let mut bytes = [0; 4096];
        header(geometry, segment).encode(&mut bytes).unwrap();
        storage.write(geometry.segment_start(segment), &bytes).unwrap();
    }
    let path = storage.path().to_path_buf();
    drop(storage);
    for nth in 1..=3 {
        sys.fail(Call::Pread, nth, Fault::Errno(Errno::IO));
    }
    let options = crate::OpenOptions::new().allow_volatile(true);
    assert_eq!(options.open_with(&path, sys).unwrap().geometry(), geometry);
}

#[test]
fn a_file_cut_short_that_cannot_grow_again_says_so() {
    let (_directory, sys, mut storage) = store();
    storage.file.set_len(SIZE / 2).unwrap();
    storage.present_bytes = SIZE / 2;
    sys.fail(Call::Fallocate, 1, Fault::Errno(Errno::NOSPC));
    let error = storage.write(SIZE - 4096, &[1; 4096]).unwrap_err();
    assert_eq!((error.kind(), error.is_no_space()), (StorageErrorKind::Io, true));
    assert_eq!(storage.file.metadata().unwrap().len(), SIZE / 2);
    sys.fail(Call::Fallocate, 1, Fault::Errno(Errno::INTR));
    sys.fail(Call::Fsync, 1, Fault::Errno(Errno::IO));
    let error = storage.write(SIZE - 4096, &[1; 4096]).unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::SyncFailed);
    assert_eq!(storage.sync().unwrap_err().kind(), StorageErrorKind::SyncFailed, "the engine is told again");
    storage.write(SIZE - 4096, &[1; 4096]).unwrap();
    assert_eq!(storage.file.metadata().unwrap().len(), SIZE);
}

fn header(geometry: Geometry, segment: u32) -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Log,
        store_id: 1,
        segment,
        segments: geometry.segments,
        segment_bytes: geometry.segment_bytes,
        torn_unit: geometry.torn_unit,
        write_unit: geometry.write_unit,
        generation: 1,
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
        reserve_bytes: geometry.torn_unit,
        later_bytes: 0,
        volatile_bound: 0,
    }
}

/// Makes a hole, as if the range had never been written.
fn punch(storage: &FileStorage, at: u64, len: u64) {
    use rustix::fs::FallocateFlags;
    rustix::fs::fallocate(&**storage.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len).unwrap();
}
