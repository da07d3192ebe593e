//! What can go wrong with a store that is open.
//!
//! Invariants: every error names the operation, the place in the file, the path and the reason of the kernel; the
//! engine decides by the kind alone. Every failed sync is [`StorageErrorKind::SyncFailed`] or `ReadOnly`, whatever
//! the errno was.

use core::fmt;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lastgasp_core::hal::{StorageError, StorageErrorKind};
use rustix::io::Errno;

/// What the storage was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Making writes durable.
    Sync,
    /// Preparing a segment for its next life (on Linux: its first-lap fill).
    Erase,
    /// Giving a file that was cut short its full size again.
    Extend,
    /// Asking who holds the lock.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::Erase => "preparing",
            Self::Extend => "extending",
            Self::Lock => "asking for the lock of",
        })
    }
}

/// Why: the kernel's number, or a rule of this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Errno(Errno),
    Rule(&'static str),
}

/// An error of a store on Linux.
#[derive(Debug, Clone)]
pub struct LinuxStorageError {
    kind: StorageErrorKind,
    operation: Operation,
    at_bytes: u64,
    len_bytes: u64,
    cause: Cause,
    path: Arc<Path>,
}

impl LinuxStorageError {
    /// An error the kernel reported.
    pub(crate) fn from_errno(
        operation: Operation,
        at_bytes: u64,
        len_bytes: u64,
        errno: Errno,
        path: &Arc<Path>,
    ) -> Self {
        let kind = kind_of(operation, errno);
        Self { kind, operation, at_bytes, len_bytes, cause: Cause::Errno(errno), path: Arc::clone(path) }
    }

    /// A call this layer refuses itself.
    pub(crate) fn from_rule(
        kind: StorageErrorKind,
        operation: Operation,
        at_bytes: u64,
        len_bytes: u64,
        rule: &'static str,
        path: &Arc<Path>,
    ) -> Self {
        Self { kind, operation, at_bytes, len_bytes, cause: Cause::Rule(rule), path: Arc::clone(path) }
    }

    /// What the storage was doing.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Where in the store, in bytes from its start (0 for a sync).
    #[must_use]
    pub fn at_bytes(&self) -> u64 {
        self.at_bytes
    }

    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        match self.cause {
            Cause::Errno(errno) => Some(errno.raw_os_error()),
            Cause::Rule(_) => None,
        }
    }

    /// `true` if the medium or quota has no room left (a thin or copy-on-write medium, or a file that must grow).
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self.cause, Cause::Errno(Errno::NOSPC | Errno::DQUOT))
    }

    /// The file or device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn advice(&self) -> &'static str {
        match self.kind {
            StorageErrorKind::SyncFailed => "what was written since the last good sync must be written elsewhere",
            StorageErrorKind::ReadOnly => "the file system or device refuses writes; look into the kernel log",
            _ if self.is_no_space() => "make room on the file system",
            StorageErrorKind::Io => "the medium may be failing; look into the kernel log",
            _ => "",
        }
    }
}

/// Only the operation and the errno decide.
fn kind_of(operation: Operation, errno: Errno) -> StorageErrorKind {
    match errno {
        // A device whose write-protect is on answers EPERM or EACCES, a file system that turned read-only EROFS.
        Errno::ROFS | Errno::PERM | Errno::ACCESS if operation != Operation::Read => StorageErrorKind::ReadOnly,
        _ if operation == Operation::Sync => StorageErrorKind::SyncFailed,
        _ => StorageErrorKind::Io,
    }
}

impl fmt::Display for LinuxStorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.operation {
            Operation::Sync | Operation::Extend | Operation::Lock => write!(f, "{} {path} failed: ", self.operation)?,
            _ => {
                let (len, at) = (self.len_bytes, self.at_bytes);
                write!(f, "{} {len} bytes at offset {at} of {path} failed: ", self.operation)?;
            }
        }
        match self.cause {
            Cause::Errno(errno) => write!(f, "{}", io::Error::from(errno))?,
            Cause::Rule(rule) => f.write_str(rule)?,
        }
        match self.advice() {
            "" => Ok(()),
            advice => write!(f, "; {advice}"),
        }
    }
}

impl Error for LinuxStorageError {}

impl StorageError for LinuxStorageError {
    fn kind(&self) -> StorageErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(operation: Operation, errno: Errno) -> LinuxStorageError {
        LinuxStorageError::from_errno(operation, 8192, 4096, errno, &Arc::from(Path::new("/s/store.lg")))
    }

    #[test]
    fn errno_becomes_the_kind_the_engine_decides_by() {
        use StorageErrorKind::{Io, ReadOnly, SyncFailed};
        let table = [
            (Operation::Write, Errno::IO, Io),
            (Operation::Write, Errno::NOSPC, Io),
            (Operation::Write, Errno::ROFS, ReadOnly),
            (Operation::Write, Errno::PERM, ReadOnly),
            (Operation::Write, Errno::NODEV, Io),
            (Operation::Read, Errno::IO, Io),
            (Operation::Read, Errno::PERM, Io),
            (Operation::Sync, Errno::IO, SyncFailed),
            (Operation::Sync, Errno::NOSPC, SyncFailed),
            (Operation::Sync, Errno::DQUOT, SyncFailed),
            (Operation::Sync, Errno::INTR, SyncFailed),
            (Operation::Sync, Errno::ROFS, ReadOnly),
        ];
        for (operation, errno, kind) in table {
            assert_eq!(error(operation, errno).kind(), kind, "{operation} {errno}");
        }
    }

    #[test]
    fn the_text_says_what_where_why_and_what_to_do() {
        let text = error(Operation::Write, Errno::NOSPC).to_string();
        for part in ["writing 4096 bytes", "offset 8192", "/s/store.lg", "No space left", "make room"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(error(Operation::Sync, Errno::IO).to_string().contains("written elsewhere"));
        assert!(error(Operation::Write, Errno::NOSPC).is_no_space());
    }
}
