//! Images of whole cards: finds the store on them, or says how to get at it.
//!
//! Invariant: nothing is mounted and nothing written; where a file system has to be mounted first, the user is told
//! how.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use lastgasp_hal_linux::{FileStorage, OpenError, OpenOptions};
use rustix::fs::SeekFrom;

use crate::error::Error;
use crate::partition::{FileSystem, Partition, file_system, partitions, read_up_to};

/// First bytes of what images are packed as, and how to unpack them.
const PACKED: [(&[u8], &str, &str); 5] = [
    (b"\xFD7zXZ\0", "xz", "xz -dk"),
    (b"\x1F\x8B", "gzip", "gzip -dk"),
    (b"\x28\xB5\x2F\xFD", "zstd", "zstd -dk"),
    (b"BZh", "bzip2", "bzip2 -dk"),
    (b"PK\x03\x04", "zip", "unzip"),
];

/// Opens the store at `path`, or on a partition of the disk that it is.
pub(crate) fn open(path: &Path) -> Result<FileStorage, Error> {
    let refused = match FileStorage::open_read_only(path) {
        Ok(storage) => return Ok(storage),
        Err(error @ (OpenError::Foreign { .. } | OpenError::Blank { .. } | OpenError::NoIntactHeader { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let disk = File::open(path).map_err(|e| Error::io(path, "opening", e))?;
    let size_bytes = rustix::fs::seek(&disk, SeekFrom::End(0)).map_err(|e| Error::io(path, "seeking", e.into()))?;
    let found = partitions(&disk, size_bytes).map_err(|e| Error::io(path, "reading the partition table", e))?;
    for Partition { start, len_bytes, .. } in &found {
        if let Ok(storage) = OpenOptions::new().piece(*start, *len_bytes).open(path) {
            return Ok(storage);
        }
    }
    explain(path, &disk, &found)?;
    Err(refused.into())
}

/// Says what to do with what is there, if that is known.
fn explain(path: &Path, disk: &File, found: &[Partition]) -> Result<(), Error> {
    let whole = Partition { number: 0, start: 0, len_bytes: 0 };
    let mut systems = Vec::new();
    for partition in [&whole].into_iter().chain(found) {
        let system = file_system(disk, partition.start).map_err(|e| Error::io(path, "reading", e))?;
        systems.extend(system.map(|system| (system, *partition)));
    }
    // On a card of a Raspberry Pi the first holds what boots; logs are on the last that is not FAT.
    let logs = systems.iter().rev().find(|(system, _)| *system != FileSystem::Fat).or(systems.last());
    if let Some((system, partition)) = logs {
        return Err(Error::unfit(path, mount_words(path, *system, *partition)));
    }
    if !found.is_empty() {
        let count = found.len();
        let what = format!(
            "is a disk with {count} partitions; none of them holds a store, nor a file system that is known here. \
             If its file system is encrypted, open it first; then mount it read-only and name it with --root"
        );
        return Err(Error::unfit(path, what));
    }
    let mut head = [0; 8];
    read_up_to(disk, &mut head, 0).map_err(|e| Error::io(path, "reading", e))?;
    if let Some((_, name, unpack)) = PACKED.iter().find(|(mark, ..)| head.starts_with(mark)) {
        let what = format!("is packed with {name}; unpack it first: {unpack} {}", quoted(path));
        return Err(Error::unfit(path, what));
    }
    Ok(())
}

fn mount_words(path: &Path, system: FileSystem, partition: Partition) -> String {
    let Partition { number, start, .. } = partition;
    let name = system.name();
    let place = if number == 0 { "is".to_owned() } else { format!("is a disk whose partition {number} holds") };
    let is_device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mount = match (is_device, number) {
        (true, 0) => format!("mount -o {} {} /mnt", system.options(), quoted(path)),
        (true, _) => format!("mount -o {} {} /mnt", system.options(), device_of(path, number)),
        (false, 0) => format!("mount -o {},loop {} /mnt", system.options(), quoted(path)),
        (false, _) => format!("mount -o {},loop,offset={start} {} /mnt", system.options(), quoted(path)),
    };
    format!(
        "{place} a file system ({name}), not a store; the store is a file in it. Mount it read-only, then name where: \
         {mount} && lastgasp tail --root /mnt"
    )
}

/// `/dev/sda2`, `/dev/mmcblk0p2`.
fn device_of(disk: &Path, number: u32) -> String {
    let disk = disk.display().to_string();
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{p}{number}")
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.img")), "/a/b-1.img");
        assert_eq!(quoted(Path::new("it's $x")), r"'it'\''s $x'");
    }

    #[test]
    fn partitions_of_devices_are_named_as_the_kernel_does() {
        assert_eq!(device_of(Path::new("/dev/sda"), 2), "/dev/sda2");
        assert_eq!(device_of(Path::new("/dev/mmcblk0"), 2), "/dev/mmcblk0p2");
    }
}
