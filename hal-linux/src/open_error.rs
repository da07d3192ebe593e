//! Why a store could not be opened or created, and what to do.
//!
//! Invariants: each cause is a variant of its own, so that a program can decide by it; each text names the path, what
//! is wrong and what to do; an error of these means that nothing was changed on the medium, except where it says so.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::geometry::GeometryError;

/// Why a store could not be opened or created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at this path.
    #[error("{}: not found; create the store first, or check the path", path.display())]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The user of this process may not.
    #[error("{}: permission denied; run as the owner of the store, or give this user access to it", path.display())]
    Permission {
        /// The path asked for.
        path: PathBuf,
    },
    /// The file system is mounted read-only, or the device is write-protected.
    #[error(
        "{}: the file system or device is read-only; open the store read-only, or make the medium writable",
        path.display()
    )]
    ReadOnlyMedium {
        /// The path asked for.
        path: PathBuf,
    },
    /// Another writer has it open.
    #[error("{}: in use by {}; stop it, or ask it over its own interface", path.display(), holder(*pid))]
    Locked {
        /// The path asked for.
        path: PathBuf,
        /// The process that holds the lock, if the system tells.
        pid: Option<u32>,
    },
    /// The device is mounted, or part of a RAID, LVM or crypt volume.
    #[error("{}: the device is in use{}; unmount or release it first", path.display(), mount(mounted_at.as_deref()))]
    Busy {
        /// The path asked for.
        path: PathBuf,
        /// Where it, or a partition of it, is mounted.
        mounted_at: Option<PathBuf>,
    },
    /// A directory.
    #[error("{}: is a directory; give the path of the store's file in it", path.display())]
    IsDirectory {
        /// The path asked for.
        path: PathBuf,
    },
    /// A pipe, socket or character device.
    #[error("{}: is neither a regular file nor a block device; give the path of one", path.display())]
    NotAFile {
        /// The path asked for.
        path: PathBuf,
    },
    /// Not ours and not blank.
    #[error(
        "{}: holds something else than a lastgasp store (first byte of it at offset {first_byte_at}); nothing was \
         changed. Choose another path, or remove it yourself first (a device: format it with force)",
        path.display()
    )]
    Foreign {
        /// The path asked for.
        path: PathBuf,
        /// Where the first byte that is not zero lies.
        first_byte_at: u64,
    },
    /// Nothing was formatted here yet, or the format was cut before it was complete.
    #[error("{}: is blank; format it first", path.display())]
    Blank {
        /// The path asked for.
        path: PathBuf,
    },
    /// It once was a store, but no segment header is left intact.
    #[error(
        "{}: carries the mark of a lastgasp store (at offset {damaged_at}), but no segment header is intact; keep a \
         copy, then remove it or format the device with force",
        path.display()
    )]
    NoIntactHeader {
        /// The path asked for.
        path: PathBuf,
        /// Where the first damaged header lies.
        damaged_at: u64,
    },
    /// Written by a later version.
    #[error(
        "{}: was written by format version {major}, this program knows up to {}; use a newer lastgasp",
        path.display(),
        lastgasp_core::format::header::VERSION_MAJOR
    )]
    NewerVersion {
        /// The path asked for.
        path: PathBuf,
        /// The major version found.
        major: u8,
    },
    /// The image of a NOR chip, opened for writing.
    #[error("{}: is the image of a flash chip; it can be read but not written, open it read-only", path.display())]
    ChipImage {
        /// The path asked for.
        path: PathBuf,
    },
    /// The medium cannot keep what a store promises.
    #[error(
        "{}: lies on {because}; nothing stored there is sure to survive a power cut. Choose another place, or accept \
         the loss with --allow-volatile",
        path.display()
    )]
    Volatile {
        /// The path asked for.
        path: PathBuf,
        /// What it lies on.
        because: &'static str,
    },
    /// A store was to be created where one is.
    #[error("{}: is a lastgasp store already; open it, or remove it (a device: format it with force)", path.display())]
    AlreadyAStore {
        /// The path asked for.
        path: PathBuf,
    },
    /// No store of this size or torn unit is possible.
    #[error("{}: {source}", path.display())]
    Geometry {
        /// The path asked for.
        path: PathBuf,
        /// What is wrong with it, with the limits.
        source: GeometryError,
    },
    /// The size asked for exceeds the device.
    #[error("{}: the device has {device_bytes} bytes, {size_bytes} were asked for; ask for less", path.display())]
    DeviceTooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Size asked for.
        size_bytes: u64,
        /// Size of the device.
        device_bytes: u64,
    },
    /// The file system has too little room for the whole store.
    #[error(
        "{}: a store of {size_bytes} bytes does not fit, {missing_bytes} bytes are missing; make room or choose a \
         smaller size. Nothing was left behind",
        path.display()
    )]
    NoSpace {
        /// The path asked for.
        path: PathBuf,
        /// Size of the store in bytes.
        size_bytes: u64,
        /// How many bytes are missing.
        missing_bytes: u64,
    },
    /// The file system has no files of this size (FAT ends at 4 GiB).
    #[error("{}: this file system has no files of {size_bytes} bytes; choose a smaller size", path.display())]
    FileTooLarge {
        /// The path asked for.
        path: PathBuf,
        /// Size of the store in bytes.
        size_bytes: u64,
    },
    /// Any other error of input or output.
    #[error("{}: {action} failed: {source}; look into the kernel log", path.display())]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => "this very process".to_owned(),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

fn mount(at: Option<&Path>) -> String {
    at.map_or_else(String::new, |at| format!(", mounted at {}", at.display()))
}

/// Sorts an error of the kernel, met while doing `action` at `path`.
pub(crate) fn sort(path: &Path, action: &'static str, error: impl Into<io::Error>) -> OpenError {
    let source = error.into();
    let path = path.to_path_buf();
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => OpenError::NotFound { path },
        Some(Errno::ACCESS | Errno::PERM) => OpenError::Permission { path },
        Some(Errno::ROFS) => OpenError::ReadOnlyMedium { path },
        Some(Errno::ISDIR) => OpenError::IsDirectory { path },
        _ => OpenError::Io { path, action, source },
    }
}
