//! What a path leads to: a regular file or a block device, its size, and whether it can keep a promise.
//!
//! Invariants: a path is looked at before it is opened (opening a character device can have effects: a watchdog is
//! armed by it), and the opened file is checked again; nothing here writes.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, fstatfs, fstatvfs, major, minor};

/// What a store can lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    /// A regular, preallocated file.
    File,
    /// A raw block device: a card, a partition, a loop device.
    BlockDevice,
}

impl MediumKind {
    /// `None` for a directory, pipe, socket or character device.
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        if kind.is_file() {
            Some(Self::File)
        } else if kind.is_block_device() {
            Some(Self::BlockDevice)
        } else {
            None
        }
    }
}

/// Size in bytes: of a device, its capacity.
pub(crate) fn size_bytes(file: &File, kind: MediumKind) -> io::Result<u64> {
    match kind {
        MediumKind::File => Ok(file.metadata()?.len()),
        MediumKind::BlockDevice => Ok(rustix::fs::seek(file, SeekFrom::End(0))?),
    }
}

/// Logical sector of a device in bytes: a shorter write would be a read, a change and a write of the whole sector.
pub(crate) fn sector_bytes(file: &File) -> io::Result<u32> {
    Ok(rustix::fs::ioctl_blksszget(file)?)
}

/// Page of the page cache: a block device is written back in blocks of up to this size.
pub(crate) fn page_bytes() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX)
}

/// Bytes the file system has left for us, at most.
pub(crate) fn free_bytes(file: &File) -> io::Result<u64> {
    let statvfs = fstatvfs(file)?;
    Ok(statvfs.f_bavail.saturating_mul(statvfs.f_frsize))
}

/// Bytes the file takes on its file system.
pub(crate) fn allocated_bytes(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks().saturating_mul(512))
}

/// Names what makes this medium unfit for a promise of durability, if anything does.
pub(crate) fn volatile_because(file: &File, kind: MediumKind) -> io::Result<Option<&'static str>> {
    match kind {
        MediumKind::File => Ok(volatile_file_system(magic(file)?)),
        MediumKind::BlockDevice => Ok(volatile_device(&device_name(&file.metadata()?))),
    }
}

/// `true` on btrfs, where only a file without copy-on-write is overwritten in place.
pub(crate) fn is_btrfs(file: &File) -> io::Result<bool> {
    Ok(magic(file)? == 0x9123_683E)
}

/// The magic number of the file system; its C type differs by architecture, its 32 bits do not.
fn magic(file: &File) -> io::Result<u32> {
    let bytes = fstatfs(file)?.f_type.to_ne_bytes();
    let word: [u8; 4] =
        if cfg!(target_endian = "big") { bytes.last_chunk() } else { bytes.first_chunk() }.copied().unwrap_or_default();
    Ok(u32::from_ne_bytes(word))
}

/// Numbers from `linux/magic.h`.
fn volatile_file_system(magic: u32) -> Option<&'static str> {
    match magic {
        0x0102_1994 => Some("tmpfs, which lives in RAM"),
        0x8584_58F6 => Some("ramfs, which lives in RAM"),
        0x794C_7630 => Some("an overlay, whose upper layer may live in RAM (a read-only root usually does it so)"),
        _ => None,
    }
}

fn volatile_device(name: &str) -> Option<&'static str> {
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    (numbered("ram") || numbered("zram")).then_some("a RAM disk")
}

/// The kernel's name of the device, `mmcblk0p3`; empty if sysfs does not tell.
fn device_name(metadata: &Metadata) -> String {
    let link = fs::read_link(sysfs(metadata.rdev())).unwrap_or_default();
    link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn sysfs(rdev: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev)))
}

/// Where the device, or a partition of it, is mounted; the first of several.
pub(crate) fn mounted_at(path: &Path) -> Option<PathBuf> {
    let rdev = fs::metadata(path).ok()?.rdev();
    let mut devices = vec![format!("{}:{}", major(rdev), minor(rdev))];
    for entry in fs::read_dir(sysfs(rdev)).into_iter().flatten().flatten() {
        // A partition is a directory of the disk's with a file `dev` that holds its numbers.
        devices.extend(fs::read_to_string(entry.path().join("dev")).map(|numbers| numbers.trim().to_owned()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| mount_point(line, &devices))
}

/// One line of mountinfo: `36 35 98:0 /root /mount/point rw ...`, with `\040` for a space.
fn mount_point(line: &str, devices: &[String]) -> Option<PathBuf> {
    let mut words = line.split(' ').skip(2);
    let device = words.next()?;
    let point = words.nth(1)?;
    devices.iter().any(|wanted| wanted == device).then(|| PathBuf::from(point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_in_ram_are_known_by_their_magic() {
        assert!(volatile_file_system(0x0102_1994).unwrap().contains("tmpfs"));
        assert!(volatile_file_system(0x8584_58F6).unwrap().contains("ramfs"));
        assert!(volatile_file_system(0x794C_7630).unwrap().contains("overlay"));
        for fit in [0xEF53, 0x9123_683E, 0x4D44, 0xF2F5_2010] {
            assert_eq!(volatile_file_system(fit), None);
        }
    }

    #[test]
    fn ram_disks_are_known_by_their_name() {
        for name in ["ram0", "zram1"] {
            assert!(volatile_device(name).is_some());
        }
        for name in ["mmcblk0p3", "ram", "rambo1", "sda", "loop0", ""] {
            assert!(volatile_device(name).is_none());
        }
    }

    #[test]
    fn the_mount_point_of_a_device_is_found() {
        let line = r"36 35 179:2 / /mnt/my\040card rw,noatime master:1 - ext4 /dev/mmcblk0p2 rw";
        assert_eq!(mount_point(line, &["179:2".into()]), Some(PathBuf::from("/mnt/my card")));
        assert_eq!(mount_point(line, &["179:1".into()]), None);
        assert_eq!(mount_point("", &["179:1".into()]), None);
    }

    #[test]
    fn a_directory_and_a_character_device_are_no_medium() {
        assert_eq!(MediumKind::of(&fs::metadata("/").unwrap()), None);
        assert_eq!(MediumKind::of(&fs::metadata("/dev/null").unwrap()), None);
    }
}
