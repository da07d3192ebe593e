//! The lock of a store: one writer, known by its process number.
//!
//! Invariants: a writer holds an exclusive `flock` on the open file for as long as any handle of it lives, so the
//! kernel frees it whatever way the process ends; a reader holds none. A second opener is refused, also inside the
//! same process.
//!
//! `flock` and not an open-file-description lock of fcntl: `/proc/locks` names the holder of the first but not of the
//! second, and on block devices `flock` is also what keeps udev from probing (systemd's block device locking).
//! Readers and udev test by taking a shared lock for an instant, so a refused writer tries again for a tenth of a
//! second.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a writer tries to get what somebody else holds.
pub(crate) const TRIES: u32 = 20;
/// How long it waits between two tries.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// An open store file, with the writer's lock or without; shared by the storage and its sync handles.
///
/// The lock is given back by the last of them, and not left to the closing: a child process that is just being started
/// has inherited the open file, and would keep the lock until its exec.
#[derive(Debug)]
pub(crate) struct StoreFile {
    file: File,
    locked: bool,
}

impl StoreFile {
    /// A file that is only read.
    pub(crate) fn unlocked(file: File) -> Self {
        Self { file, locked: false }
    }

    /// Takes the writer's lock.
    pub(crate) fn locked(file: File) -> Result<Self, LockError> {
        lock_exclusive(&file).map(|()| Self { file, locked: true })
    }
}

impl Deref for StoreFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        if self.locked {
            // If it fails, the close that follows frees the lock.
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// Why the lock was not given.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else holds it.
    Held { pid: Option<u32> },
    /// The file system does not lock, or another error.
    Io(io::Error),
}

fn lock_exclusive(file: &File) -> Result<(), LockError> {
    for tried in 1..=TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                if tried == TRIES {
                    break;
                }
                thread::sleep(PAUSE);
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
    }
    Err(LockError::Held { pid: writer_pid(file) })
}

/// `true` if a writer holds the lock. Only for a file that holds no lock itself: it would lose it.
pub(crate) fn is_locked_by_another(file: &File) -> Result<bool, Errno> {
    if writer_pid(file).is_some() {
        return Ok(true);
    }
    // The holder may be invisible to us (another process namespace, no /proc): the lock itself is the truth.
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// The process that holds the exclusive lock, if `/proc` tells.
pub(crate) fn writer_pid(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device =
        mounted_device(file).unwrap_or_else(|| (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev())));
    // The kernel gives the list piece by piece; one that changes meanwhile may lack an entry, so it is read again.
    (0..3).find_map(|_| {
        let locks = std::fs::read("/proc/locks").ok()?;
        let locks = String::from_utf8_lossy(&locks);
        locks.lines().find_map(|line| exclusive_holder(line, device, metadata.ino()))
    })
}

/// Parses one line of `/proc/locks`: `2: FLOCK  ADVISORY  WRITE 1234 fe:00:56789 0 EOF`; waiters have an arrow.
fn exclusive_holder(line: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" || words.next()? != "ADVISORY" || words.next()? != "WRITE" {
        return None;
    }
    let pid = words.next()?.parse::<u32>().ok().filter(|&pid| pid != 0)?;
    let mut place = words.next()?.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    let found = place.next()?.parse::<u64>().ok()?;
    ((major, minor) == device && found == inode).then_some(pid)
}

/// The device of the file's mount, as `/proc/locks` prints it; on btrfs it is not the one that stat gives.
fn mounted_device(file: &File) -> Option<(u32, u32)> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount_id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next()? == mount_id).then_some(())?;
        let (major, minor) = words.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_proc_locks() {
        let line = "3: FLOCK  ADVISORY  WRITE 1234 fe:0a:56789 0 EOF";
        assert_eq!(exclusive_holder(line, (0xfe, 0x0a), 56_789), Some(1234));
        assert_eq!(exclusive_holder(line, (0xfe, 0x0a), 56_780), None);
        assert_eq!(exclusive_holder(line, (0xfe, 0x0b), 56_789), None);
        for other in [
            "3: -> FLOCK  ADVISORY  WRITE 1234 fe:0a:56789 0 EOF",
            "3: FLOCK  ADVISORY  READ 1234 fe:0a:56789 0 EOF",
            "3: POSIX  ADVISORY  WRITE 1234 fe:0a:56789 0 EOF",
            "3: OFDLCK ADVISORY  WRITE -1 fe:0a:56789 0 EOF",
            "3: FLOCK  ADVISORY  WRITE",
            "",
        ] {
            assert_eq!(exclusive_holder(other, (0xfe, 0x0a), 56_789), None, "{other}");
        }
    }

    #[test]
    fn a_lock_is_refused_to_a_second_opener_and_free_after_the_first_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = File::options().write(true).open(file.path()).unwrap();
        let second = File::options().write(true).open(file.path()).unwrap();
        let first = StoreFile::locked(first).unwrap();
        let LockError::Held { pid } = lock_exclusive(&second).unwrap_err() else { panic!("not held") };
        assert_eq!(pid, Some(std::process::id()));
        assert_eq!(is_locked_by_another(&second), Ok(true));
        drop(first);
        assert_eq!(is_locked_by_another(&second), Ok(false));
        lock_exclusive(&second).unwrap();
    }

    #[test]
    fn a_shared_lock_is_not_taken_for_a_writer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        flock(&reader, FlockOperation::NonBlockingLockShared).unwrap();
        let other = File::open(file.path()).unwrap();
        assert_eq!(is_locked_by_another(&other), Ok(false));
    }
}
