//! What depends on the medium below: metadata, page cache, room, file systems in RAM, block devices.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use common::{Loop, MIB, Mount, alone, create, format_options, formatted, open, or_skip, write_header};
use lastgasp_core::hal::{ReadStorage, Storage};
use lastgasp_hal_linux::{FILLED_AT_CREATION_BYTES, FileStorage, FormatOptions, MediumKind, OpenError};
use rustix::fs::SeekFrom;
use tempfile::tempdir;

/// Bytes of the file that are in the page cache.
fn cached_bytes(path: &Path) -> Result<u64, String> {
    let out = Command::new("fincore").args(["--noheadings", "--bytes", "--output", "RES"]).arg(path).output();
    let out = out.map_err(|error| format!("fincore: {error}"))?;
    String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|_| "fincore tells no number".to_owned())
}

#[test]
fn writing_and_syncing_change_no_size_and_no_blocks() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let size = FILLED_AT_CREATION_BYTES + 64 * MIB;
    let mut storage = create(&path, size).unwrap();
    let geometry = storage.geometry();
    // The first lap: segments beyond what creation filled.
    let last = geometry.segments - 1;
    for segment in [0, 1, last - 1, last] {
        storage.erase(segment).unwrap();
    }
    let file = File::open(&path).unwrap();
    let hole = rustix::fs::seek(&file, SeekFrom::Hole(FILLED_AT_CREATION_BYTES)).unwrap();
    if hole >= size {
        eprintln!("note: this file system tells of no unwritten extents");
    } else {
        assert_eq!(storage.fill_bytes(), 2 * u64::from(geometry.segment_bytes));
    }
    let before = fs::metadata(&path).unwrap();
    for segment in [0, 1, last - 1, last] {
        for unit in 0..16 {
            storage.write(geometry.segment_start(segment) + unit * 4096, &[9; 4096]).unwrap();
            storage.sync().unwrap();
        }
    }
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.len(), before.blocks(), before.ino()), (after.len(), after.blocks(), after.ino()));
    assert_eq!(storage.written_bytes(), 4 * 16 * 4096);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(geometry.segment_start(last))).unwrap(), size);
}

#[test]
fn a_segment_is_filled_once_also_after_its_holes_were_read() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let mut storage = create(&path, FILLED_AT_CREATION_BYTES + 64 * MIB).unwrap();
    let geometry = storage.geometry();
    let segment = geometry.segments - 2;
    let file = File::open(&path).unwrap();
    let start = geometry.segment_start(segment);
    if rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap() != start {
        eprintln!("skipped: this file system tells of no unwritten extents");
        return;
    }
    // A page that was read is in the cache, and counts as data for SEEK_HOLE.
    storage.read(start, &mut [0; 100_000]).unwrap();
    storage.erase(segment).unwrap();
    assert_eq!(storage.fill_bytes(), u64::from(geometry.segment_bytes));
    let syncs = storage.syncs();
    storage.erase(segment).unwrap();
    assert_eq!((storage.fill_bytes(), storage.syncs()), (u64::from(geometry.segment_bytes), syncs));
    assert_eq!(storage.written_bytes(), 0);
}

#[test]
fn opening_drops_what_the_page_cache_holds_of_the_store() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    drop(formatted(&path, 32 * MIB));
    let size = 32 * MIB;
    for read_only in [false, true] {
        assert_eq!(fs::read(&path).unwrap().len() as u64, size);
        let Some(before) = or_skip(cached_bytes(&path)) else { return };
        // A machine short of memory takes some pages back by itself.
        assert!(before > size / 2, "all of it was read just now, {before} bytes are cached");
        let storage = if read_only { FileStorage::open_read_only(&path) } else { open(&path) }.unwrap();
        assert!(storage.open_report().cache_dropped);
        let after = cached_bytes(&path).unwrap();
        if after > MIB {
            // On tmpfs the cache is the medium. Elsewhere only the header's neighbourhood was read since.
            let volatile = FileStorage::create(dir.path().join("t"), &FormatOptions::new(MIB), &mut |_, _| {});
            assert!(matches!(volatile, Err(OpenError::Volatile { .. })), "{after} stale bytes survive opening");
        }
    }
}

#[test]
fn a_reader_leaves_the_cache_of_a_live_writer_alone() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let path = dir.path().join("s");
    let _writer = formatted(&path, MIB);
    assert!(!FileStorage::open_read_only(&path).unwrap().open_report().cache_dropped);
}

#[test]
fn a_file_system_in_ram_is_refused_unless_allowed() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some(mount) = or_skip(Mount::new(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], &dir.path().join("ram"))) else {
        return;
    };
    let path = mount.0.join("store.lg");
    let error = FileStorage::create(&path, &FormatOptions::new(MIB), &mut |_, _| {}).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Volatile { .. }));
    assert!(text.contains("tmpfs") && text.contains("--allow-volatile"), "{text}");
    assert!(!path.exists());
    drop(formatted(&path, MIB));
    assert!(matches!(FileStorage::open(&path), Err(OpenError::Volatile { .. })));
    open(&path).unwrap();
    FileStorage::open_read_only(&path).unwrap();
}

#[test]
fn too_little_room_is_told_in_bytes_and_leaves_nothing() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some(mount) = or_skip(Mount::new(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"], &dir.path().join("small"))) else {
        return;
    };
    check_no_room(&mount.0.join("store.lg"), 8 * MIB, 4 * MIB);
}

#[test]
fn too_little_room_on_ext4_is_told_in_bytes_and_leaves_nothing() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some(mount) = or_skip(small_ext4(dir.path(), &[])) else { return };
    check_no_room(&mount.0.join("store.lg"), 64 * MIB, 32 * MIB);
}

fn check_no_room(path: &Path, size: u64, least_missing: u64) {
    let error = create(path, size).unwrap_err();
    let OpenError::NoSpace { size_bytes, missing_bytes, .. } = &error else { panic!("{error}") };
    assert_eq!(*size_bytes, size);
    assert!((least_missing..size).contains(missing_bytes), "{missing_bytes}");
    assert!(!path.exists());
    drop(create(path, MIB).unwrap());
}

/// A file system of 32 MiB of its own.
fn small_ext4(dir: &Path, options: &[&str]) -> Result<Mount, String> {
    let image = dir.join("ext4.img");
    let made = File::create(&image).and_then(|file| file.set_len(32 * MIB)).map_err(|error| error.to_string());
    made?;
    let mkfs = Command::new("mkfs.ext4").arg("-q").arg(&image).status().map_err(|e| e.to_string())?;
    if !mkfs.success() {
        return Err("mkfs.ext4 failed".into());
    }
    let image = image.to_str().ok_or("path is not text")?;
    Mount::new(&[options, &["-o", "loop", image]].concat(), &dir.join("ext4"))
}

#[test]
fn a_read_only_mount_is_readable_and_says_so_to_a_writer() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some(mount) = or_skip(small_ext4(dir.path(), &[])) else { return };
    let path = mount.0.join("store.lg");
    drop(formatted(&path, MIB));
    let at = mount.0.to_str().unwrap().to_owned();
    let remount = Command::new("mount").args(["-o", "remount,ro", &at]).status().unwrap();
    assert!(remount.success());
    FileStorage::open_read_only(&path).unwrap().read(0, &mut [0; 100]).unwrap();
    assert!(matches!(FileStorage::open(&path), Err(OpenError::ReadOnlyMedium { .. })));
    assert!(matches!(create(&mount.0.join("new"), MIB), Err(OpenError::ReadOnlyMedium { .. })));
}

/// A loop device over an image of this size.
fn loop_device(dir: &Path, size: u64) -> Option<(File, Loop)> {
    let image = dir.join("card.img");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&image).unwrap();
    file.set_len(size).unwrap();
    or_skip(Loop::new(&image)).map(|device| (file, device))
}

#[test]
fn a_block_device_carries_a_store_and_one_writer() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some((_image, device)) = loop_device(dir.path(), 4 * MIB) else { return };
    assert!(matches!(open(&device.0), Err(OpenError::Blank { .. })));
    let too_large = FileStorage::create(&device.0, &format_options(5 * MIB), &mut |_, _| {}).unwrap_err();
    assert!(matches!(too_large, OpenError::DeviceTooSmall { device_bytes, .. } if device_bytes == 4 * MIB));
    let mut storage = create(&device.0, 0).unwrap();
    assert_eq!(storage.kind(), MediumKind::BlockDevice);
    assert_eq!(storage.geometry().total_bytes(), 4 * MIB);
    for segment in 0..storage.geometry().segments {
        write_header(&mut storage, segment, 1);
    }
    storage.sync().unwrap();
    assert_eq!(storage.fill_bytes(), 0);
    let second = open(&device.0).unwrap_err();
    assert!(matches!(second, OpenError::Locked { pid: Some(_), .. }), "{second}");
    let reader = FileStorage::open_read_only(&device.0).unwrap();
    assert!(reader.is_locked_by_writer().unwrap());
    let geometry = storage.geometry();
    drop((storage, reader));
    assert_eq!(open(&device.0).unwrap().geometry(), geometry);
    assert!(matches!(create(&device.0, 0), Err(OpenError::AlreadyAStore { .. })));
    let forced = FormatOptions { force: true, ..format_options(2 * MIB) };
    drop(FileStorage::create(&device.0, &forced, &mut |_, _| {}).unwrap());
    assert!(matches!(open(&device.0), Err(OpenError::Blank { .. })), "no header of the old store is left");
}

#[test]
fn a_block_device_with_a_foreign_mark_is_refused_unless_forced() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some((image, device)) = loop_device(dir.path(), 4 * MIB) else { return };
    for mark_at in [510, MIB - 1, 3 * MIB, 4 * MIB - 512] {
        image.write_all_at(&[0x55], mark_at).unwrap();
        let error = create(&device.0, 0).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { first_byte_at, .. } if first_byte_at == mark_at), "{error}");
        let mut byte = [0];
        image.read_exact_at(&mut byte, mark_at).unwrap();
        assert_eq!(byte, [0x55]);
        let forced = FormatOptions { force: true, ..format_options(0) };
        drop(FileStorage::create(&device.0, &forced, &mut |_, _| {}).unwrap());
        image.read_exact_at(&mut byte, mark_at).unwrap();
        assert_eq!(byte, [0]);
    }
}

#[test]
fn a_mounted_block_device_is_refused_even_when_forced() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some((_image, device)) = loop_device(dir.path(), 32 * MIB) else { return };
    let mkfs = Command::new("mkfs.ext4").arg("-q").arg(&device.0).status();
    if !mkfs.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfs.ext4");
        return;
    }
    let Some(mount) = or_skip(Mount::new(&[device.0.to_str().unwrap()], &dir.path().join("mounted"))) else { return };
    let forced = FormatOptions { force: true, ..format_options(0) };
    let error = FileStorage::create(&device.0, &forced, &mut |_, _| {}).unwrap_err();
    let OpenError::Busy { mounted_at: Some(at), .. } = &error else { panic!("{error}") };
    assert_eq!(at, &mount.0);
}

#[test]
fn a_stale_page_cache_is_not_believed_after_opening() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let Some((image, device)) = loop_device(dir.path(), 4 * MIB) else { return };
    let mut storage = create(&device.0, 0).unwrap();
    write_header(&mut storage, 0, 1);
    storage.write(2 * MIB, &[1; 4096]).unwrap();
    storage.sync().unwrap();
    drop(storage);
    // Another descriptor keeps the device's pages in the cache; then the medium turns out to hold something else.
    let keeper = File::open(&device.0).unwrap();
    let mut bytes = [0; 4096];
    keeper.read_exact_at(&mut bytes, 2 * MIB).unwrap();
    image.write_all_at(&[2; 4096], 2 * MIB).unwrap();
    keeper.read_exact_at(&mut bytes, 2 * MIB).unwrap();
    assert_eq!(bytes, [1; 4096], "the cache is stale");
    let mut storage = open(&device.0).unwrap();
    storage.read(2 * MIB, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 4096], "what is read after opening is what the medium holds");
}
