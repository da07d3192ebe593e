//! Stores in regular files: creating, opening, locking, refusing, and damage to the file.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{MIB, create, encoded, format_options, formatted, header, open, write_header};
use lastgasp_core::hal::{ReadStorage, Storage, StorageError, StorageErrorKind};
use lastgasp_hal_linux::{FileStorage, FormatOptions, OpenError, OpenOptions, choose_geometry};
use tempfile::tempdir;

#[test]
fn a_store_is_created_opened_and_read_again() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("store.lg");
    let mut steps = Vec::new();
    let mut storage =
        FileStorage::create(&path, &format_options(9 * MIB), &mut |done, total| steps.push((done, total))).unwrap();
    let geometry = storage.geometry();
    assert_eq!(geometry, choose_geometry(9 * MIB).unwrap());
    assert_eq!(steps, [(0, 9 * MIB), (4 * MIB, 9 * MIB), (8 * MIB, 9 * MIB), (9 * MIB, 9 * MIB)]);
    assert_eq!(fs::metadata(&path).unwrap().len(), geometry.total_bytes());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !0o640, 0, "others may not read logs");
    write_header(&mut storage, 0, 77);
    storage.write(4096, &[5; 4096]).unwrap();
    storage.sync().unwrap();
    drop(storage);
    let mut storage = open(&path).unwrap();
    assert_eq!(storage.geometry(), geometry);
    let mut bytes = [0; 10];
    storage.read(5000, &mut bytes).unwrap();
    assert_eq!(bytes, [5; 10]);
    assert_eq!((storage.written_bytes(), storage.fill_bytes(), storage.syncs()), (0, 0, 0));
    assert!(storage.open_report().cache_dropped);
}

#[test]
fn writes_outside_the_rules_are_refused_and_change_nothing() {
    let dir = tempdir().unwrap();
    let mut storage = create(&dir.path().join("s"), MIB).unwrap();
    let segment = u64::from(storage.geometry().segment_bytes);
    let total = storage.geometry().total_bytes();
    let kind = |result: Result<(), lastgasp_hal_linux::LinuxStorageError>| result.unwrap_err().kind();
    assert_eq!(kind(storage.write(1, &[1; 4096])), StorageErrorKind::NotAligned);
    assert_eq!(kind(storage.write(0, &[1; 4095])), StorageErrorKind::NotAligned);
    assert_eq!(kind(storage.write(segment - 4096, &[1; 8192])), StorageErrorKind::OutOfBounds);
    assert_eq!(kind(storage.write(total, &[1; 4096])), StorageErrorKind::OutOfBounds);
    assert_eq!(kind(storage.write(u64::MAX - 4095, &[1; 4096])), StorageErrorKind::OutOfBounds);
    assert_eq!(kind(storage.read(total - 1, &mut [0; 2])), StorageErrorKind::OutOfBounds);
    assert_eq!(kind(storage.read(u64::MAX, &mut [0; 2])), StorageErrorKind::OutOfBounds);
    assert_eq!(kind(storage.erase(storage.geometry().segments)), StorageErrorKind::OutOfBounds);
    let mut bytes = vec![1; usize::try_from(total).unwrap()];
    storage.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&b| b == 0));
}

#[test]
fn a_second_writer_in_the_same_process_is_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let storage = formatted(&path, MIB);
    assert!(matches!(open(&path), Err(OpenError::Locked { pid: Some(pid), .. }) if pid == std::process::id()));
    assert!(matches!(create(&path, MIB), Err(OpenError::Locked { .. })));
    let handle = storage.sync_handle().unwrap();
    drop(storage);
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })), "a sync may still be running");
    drop(handle);
    open(&path).unwrap();
}

#[test]
fn a_reader_beside_a_writer_sees_that_it_lives_and_takes_no_lock() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let writer = formatted(&path, MIB);
    let reader = FileStorage::open_read_only(&path).unwrap();
    assert!(writer.is_locked_by_writer().unwrap());
    assert!(reader.is_locked_by_writer().unwrap());
    assert_eq!(reader.writer_pid(), Some(std::process::id()));
    drop(writer);
    assert!(!reader.is_locked_by_writer().unwrap());
    let _writer = open(&path).unwrap();
    assert!(reader.is_locked_by_writer().unwrap());
}

/// Not a test of its own: the second process of the next one.
#[test]
fn helper_opens_what_it_is_given() {
    let Some(path) = std::env::var_os("LASTGASP_TEST_STORE") else { return };
    let verdict = match open(Path::new(&path)) {
        Ok(_) => "opened".to_owned(),
        Err(OpenError::Locked { pid, .. }) => format!("locked by {}", pid.unwrap_or(0)),
        Err(error) => error.to_string(),
    };
    println!("verdict: {verdict}.");
}

#[test]
fn a_second_writer_in_another_process_is_refused_and_told_by_whom() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let storage = formatted(&path, MIB);
    let other = || {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_opens_what_it_is_given", "--nocapture"])
            .env("LASTGASP_TEST_STORE", &path)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let expected = format!("verdict: locked by {}.", std::process::id());
    let out = other();
    assert!(out.contains(&expected), "{out}");
    drop(storage);
    let out = other();
    assert!(out.contains("verdict: opened."), "{out}");
}

#[test]
fn foreign_content_is_refused_and_left_as_it_is() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    let mut late = vec![0; 3_000_000];
    late[2_999_999] = 1;
    for (content, first) in [(b"my only copy".to_vec(), 0), (late, 2_999_999)] {
        fs::write(&path, &content).unwrap();
        let before = fs::metadata(&path).unwrap();
        let forced = FormatOptions { force: true, ..format_options(MIB) };
        for result in [
            open(&path),
            FileStorage::open_read_only(&path),
            create(&path, MIB),
            FileStorage::create(&path, &forced, &mut |_, _| {}),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, OpenError::Foreign { first_byte_at, .. } if first_byte_at == first), "{error}");
            assert!(error.to_string().contains("nothing was changed"), "{error}");
        }
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(
            (before.mtime(), before.mtime_nsec(), before.len(), before.mode()),
            (after.mtime(), after.mtime_nsec(), after.len(), after.mode())
        );
    }
}

#[test]
fn a_blank_file_is_blank_to_open_and_taken_by_create() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    for len in [0, 1000, MIB, 3 * MIB] {
        let file = fs::File::create(&path).unwrap();
        file.set_len(len).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Blank { .. })));
        let storage = create(&path, 2 * MIB).unwrap();
        assert_eq!(storage.geometry().total_bytes(), 2 * MIB);
        assert_eq!(fs::metadata(&path).unwrap().len(), 2 * MIB);
        drop(storage);
        fs::remove_file(&path).unwrap();
    }
    fs::write(&path, vec![0; usize::try_from(MIB).unwrap()]).unwrap();
    assert_eq!(create(&path, 0).unwrap().geometry(), choose_geometry(MIB).unwrap(), "0 takes the size that is there");
}

#[test]
fn a_format_that_was_cut_is_taken_again() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let geometry = choose_geometry(2 * MIB).unwrap();
    for slot in [0, geometry.segments / 2] {
        let mut storage = create(&path, 2 * MIB).unwrap();
        let mut torn = encoded(&header(&geometry, slot, 3), 4096);
        torn[90..].fill(0);
        storage.write(geometry.segment_start(slot), &torn).unwrap();
        drop(storage);
        assert!(matches!(open(&path), Err(OpenError::Blank { .. })));
        let mut storage = create(&path, 2 * MIB).unwrap();
        let mut bytes = vec![1; 4096];
        storage.read(geometry.segment_start(slot), &mut bytes).unwrap();
        assert!(bytes.iter().all(|&b| b == 0));
        drop(storage);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_store_is_not_created_over_a_store() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    drop(formatted(&path, MIB));
    let before = fs::read(&path).unwrap();
    assert!(matches!(create(&path, MIB), Err(OpenError::AlreadyAStore { .. })));
    assert!(matches!(create(&path, 2 * MIB), Err(OpenError::AlreadyAStore { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_geometry_is_found_by_any_one_header() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let geometry = formatted(&path, 3 * MIB).geometry();
    let whole = fs::read(&path).unwrap();
    let segment = usize::try_from(geometry.segment_bytes).unwrap();
    for survivor in [0, 1, 2, geometry.segments / 2, geometry.segments - 1] {
        let mut damaged = whole.clone();
        for (i, bytes) in damaged.chunks_mut(segment).enumerate() {
            if i != usize::try_from(survivor).unwrap() {
                bytes[..4096].fill(0xA5);
            }
        }
        fs::write(&path, &damaged).unwrap();
        assert_eq!(open(&path).unwrap().geometry(), geometry, "survivor {survivor}");
    }
    let mut none = whole;
    none.chunks_mut(segment).for_each(|bytes| bytes[60] ^= 1);
    fs::write(&path, &none).unwrap();
    assert!(matches!(open(&path), Err(OpenError::NoIntactHeader { damaged_at: 0, .. })));
    assert!(matches!(create(&path, MIB), Err(OpenError::NoIntactHeader { .. })));
}

#[test]
fn the_copy_of_a_store_inside_something_else_is_not_a_store() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("backup.tar");
    drop(formatted(&path, MIB));
    let mut shifted = vec![b'x'; 10_240];
    shifted.extend(fs::read(&path).unwrap());
    fs::write(&path, &shifted).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Foreign { first_byte_at: 0, .. })));
}

#[test]
fn a_header_left_behind_by_an_older_store_does_not_win() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let mut storage = formatted(&path, 2 * MIB);
    let geometry = storage.geometry();
    // An older store of half the size had its segment 1 here; the start of this one is damaged.
    let old = header(&choose_geometry(MIB).unwrap(), 1, 5);
    storage.write(u64::from(old.segment_bytes), &encoded(&old, 4096)).unwrap();
    storage.write(0, &[0xA5; 4096]).unwrap();
    drop(storage);
    assert_eq!(open(&path).unwrap().geometry(), geometry);
}

#[test]
fn a_file_cut_short_opens_and_gets_its_size_back_at_the_first_write_beyond() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let geometry = formatted(&path, 2 * MIB).geometry();
    fs::File::options().write(true).open(&path).unwrap().set_len(MIB + 100).unwrap();
    let reader = FileStorage::open_read_only(&path).unwrap();
    assert_eq!(reader.open_report().missing_bytes, MIB - 100);
    drop(reader);
    let mut storage = open(&path).unwrap();
    assert_eq!(storage.geometry(), geometry);
    assert_eq!(storage.read(MIB + 90, &mut [0; 20]).unwrap_err().kind(), StorageErrorKind::OutOfBounds);
    assert_eq!(storage.read(2 * MIB - 10, &mut [0; 10]).unwrap_err().kind(), StorageErrorKind::OutOfBounds);
    storage.write(4096, &[1; 4096]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), MIB + 100, "not before it is needed");
    storage.write(2 * MIB - 4096, &[2; 4096]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * MIB);
    storage.erase(geometry.segments - 2).unwrap();
    assert_eq!(storage.fill_bytes(), u64::from(geometry.segment_bytes));
}

#[test]
fn a_read_only_file_opens_for_reading_and_refuses_writes() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    drop(formatted(&path, MIB));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let mut reader = FileStorage::open_read_only(&path).unwrap();
    reader.read(0, &mut [0; 100]).unwrap();
    assert_eq!(reader.write(0, &[0; 4096]).unwrap_err().kind(), StorageErrorKind::ReadOnly);
    assert_eq!(reader.erase(0).unwrap_err().kind(), StorageErrorKind::ReadOnly);
    assert_eq!(reader.sync().unwrap_err().kind(), StorageErrorKind::ReadOnly);
    assert!(reader.sync_handle().is_err());
    if common::is_root() {
        eprintln!("skipped: root may write a file without permission");
    } else {
        assert!(matches!(open(&path), Err(OpenError::Permission { .. })));
    }
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let dir = tempdir().unwrap();
    let absent = dir.path().join("absent");
    assert!(matches!(open(&absent), Err(OpenError::NotFound { .. })));
    assert!(matches!(create(&absent, 0), Err(OpenError::Geometry { .. })));
    assert!(matches!(open(dir.path()), Err(OpenError::IsDirectory { .. })));
    assert!(matches!(create(dir.path(), MIB), Err(OpenError::IsDirectory { .. })));
    assert!(matches!(open(Path::new("/dev/null")), Err(OpenError::NotAFile { .. })));
    assert!(matches!(create(Path::new("/dev/null"), MIB), Err(OpenError::NotAFile { .. })));
    let error = create(&absent, 1000).unwrap_err();
    assert!(error.to_string().contains("the least is 524288 bytes"), "{error}");
    assert!(!absent.exists());
}

#[test]
fn a_newer_major_version_is_refused_by_number() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    drop(formatted(&path, MIB));
    let mut bytes = fs::read(&path).unwrap();
    bytes[0x40] = 9;
    let len = 64 + usize::from(u16::from_le_bytes([bytes[0x10], bytes[0x11]]));
    bytes[0x14..0x18].fill(0);
    let sum = crc32c(&bytes[..len]);
    bytes[0x14..0x18].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(open(&path), Err(OpenError::NewerVersion { major: 9, .. })));
    assert!(matches!(create(&path, MIB), Err(OpenError::NewerVersion { major: 9, .. })));
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0_u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1))))
}

#[test]
fn the_image_of_a_flash_chip_is_read_but_not_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("chip.bin");
    let geometry = lastgasp_core::hal::Geometry {
        segments: 10,
        segment_bytes: 12 * 1024,
        torn_unit: 4,
        write_unit: 4,
        ..choose_geometry(MIB).unwrap()
    };
    let mut image = vec![0xFF; 120 * 1024];
    let bytes = encoded(&header(&geometry, 3, 1), 4);
    image[36 * 1024..][..bytes.len()].copy_from_slice(&bytes);
    fs::write(&path, &image).unwrap();
    let found = FileStorage::open_read_only(&path).unwrap().geometry();
    assert_eq!((found.segments, found.segment_bytes, found.torn_unit), (10, 12 * 1024, 4));
    assert_eq!((found.erased, found.ordered), (Some(0xFF), true));
    assert!(matches!(open(&path), Err(OpenError::ChipImage { .. })));
}

#[test]
fn opening_options_default_to_writing_on_a_durable_medium() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let plain = FileStorage::create(&path, &FormatOptions::new(MIB), &mut |_, _| {});
    match plain {
        Err(OpenError::Volatile { because, .. }) => eprintln!("skipped: the temporary directory is on {because}"),
        plain => {
            write_header(&mut plain.unwrap(), 0, 1);
            OpenOptions::new().open(&path).unwrap().write(0, &[0; 4096]).unwrap();
        }
    }
}

#[test]
fn a_store_in_a_piece_of_a_file_is_read_and_nothing_around_it() {
    let dir = tempdir().unwrap();
    let store = dir.path().join("store");
    let mut storage = create(&store, MIB).unwrap();
    write_header(&mut storage, 0, 77);
    storage.write(4096, &[5; 4096]).unwrap();
    drop(storage);
    let image = dir.path().join("image");
    let start = 4 * MIB + 512;
    let bytes = [vec![0xEE; usize::try_from(start).unwrap()], fs::read(&store).unwrap(), vec![0xDD; 5000]].concat();
    fs::write(&image, &bytes).unwrap();
    let mut piece = OpenOptions::new().piece(start, MIB).open(&image).unwrap();
    assert_eq!(piece.geometry(), choose_geometry(MIB).unwrap());
    let mut read = [0; 8192];
    piece.read(4096, &mut read).unwrap();
    assert_eq!((read[..4096].iter().all(|b| *b == 5), read[4096..].iter().all(|b| *b == 0)), (true, true));
    assert_eq!(piece.open_report().missing_bytes, 0);
    assert_eq!(piece.write(4096, &[1; 4096]).unwrap_err().kind(), StorageErrorKind::ReadOnly);
    assert!(matches!(OpenOptions::new().piece(512, MIB).open(&image), Err(OpenError::Foreign { .. })));
    let short = OpenOptions::new().piece(start, MIB / 2).open(&image).unwrap();
    assert_eq!(short.open_report().missing_bytes, MIB / 2);
    assert_eq!(fs::read(&image).unwrap(), bytes);
}
