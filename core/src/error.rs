//! Errors of the engine: what is wrong, and where.

use crate::hal::{StorageError, StorageErrorKind};
use core::fmt;

/// What the engine was doing when the medium failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Doing {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing.
    Sync,
    /// Erasing.
    Erase,
}

/// A failure of the medium, with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediumError<E> {
    /// What the engine was doing.
    pub doing: Doing,
    /// The segment concerned.
    pub segment: u32,
    /// Offset in the segment.
    pub offset: u32,
    /// The medium's own error.
    pub source: E,
}

impl<E: fmt::Debug> fmt::Display for MediumError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.doing {
            Doing::Read => "reading",
            Doing::Write => "writing",
            Doing::Sync => "syncing",
            Doing::Erase => "erasing",
        };
        write!(f, "{doing} segment {} at offset {} failed: {:?}", self.segment, self.offset, self.source)
    }
}

/// A slice of the caller's memory is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemoryError {
    /// Which one, by the name of its field in [`crate::catalog::Memory`].
    pub name: &'static str,
    /// Its length.
    pub have: usize,
    /// The length it would need.
    pub need: usize,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory `{}` has {} elements and needs {}", self.name, self.have, self.need)
    }
}

/// Why a store could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing of ours is on the medium, and it is not blank.
    Foreign,
    /// The medium is blank, or a format of it was cut short before anything was stored: format it.
    Blank,
    /// No header verifies, and some cannot even be read: the medium or its connection fails.
    Unreadable {
        /// The first segment that cannot be read.
        segment: u32,
    },
    /// There are headers of a store, but not one verifies.
    NoIntactHeader {
        /// The first segment with such a header.
        segment: u32,
    },
    /// A newer version of lastgasp wrote it.
    NewerVersion {
        /// The major version found.
        major: u8,
    },
    /// The medium has another shape than the store on it.
    GeometryMismatch {
        /// Number of segments of the store.
        segments: u32,
        /// Size of its segments in bytes.
        segment_bytes: u32,
    },
    /// The medium cannot hold a store at all.
    UnusableGeometry,
    /// The caller's memory is too small.
    Memory(MemoryError),
}

impl From<MemoryError> for OpenError {
    fn from(e: MemoryError) -> Self {
        Self::Memory(e)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "this is not a lastgasp store, and it is not blank"),
            Self::Blank => write!(f, "there is no store here yet: format it first"),
            Self::Unreadable { segment } => {
                write!(f, "segment {segment} cannot be read: check the medium and its connection, and try again")
            }
            Self::NoIntactHeader { segment } => {
                write!(f, "there was a store here, but no segment header is intact (the first is of segment {segment})")
            }
            Self::NewerVersion { major } => {
                write!(f, "format version {major} is newer than this program's: use a newer lastgasp")
            }
            Self::GeometryMismatch { segments, segment_bytes } => {
                write!(f, "the store has {segments} segments of {segment_bytes} bytes, the medium another shape")
            }
            Self::UnusableGeometry => write!(f, "no store can be made on a medium of this shape"),
            Self::Memory(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// Why a store is read-only until it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ReadOnlyReason {
    /// Three attempts to rewrite a failed commit failed too.
    CommitFailed,
    /// The first copy of a manifest edit could not be made durable.
    ManifestFailed,
    /// The medium refuses writes.
    Medium(StorageErrorKind),
    /// Too few usable segments are left.
    WornOut,
    /// The store was closed.
    Closed,
}

impl fmt::Display for ReadOnlyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitFailed => write!(f, "a commit failed, and so did three attempts to write it elsewhere"),
            Self::ManifestFailed => write!(f, "a manifest edit could not be made durable"),
            Self::Medium(kind) => write!(f, "the medium refuses writes ({kind:?})"),
            Self::WornOut => write!(f, "too few usable segments are left"),
            Self::Closed => write!(f, "it was closed"),
        }
    }
}

/// Why an operation on an open store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError<E> {
    /// The memtable has no room: commit first. Nothing was taken in.
    MemtableFull,
    /// The record or batch is larger than this store takes. Nothing was taken in.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest size.
        max: usize,
    },
    /// A stream name or state entry has no room or is too long. Nothing was taken in.
    TableFull(&'static str),
    /// A commit is under way; end it first.
    CommitPending,
    /// The store takes no more writes.
    ReadOnly(ReadOnlyReason),
    /// The medium failed.
    Medium(MediumError<E>),
}

impl<E: StorageError> fmt::Display for StoreError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemtableFull => write!(f, "the memtable is full: commit first"),
            Self::TooLarge { bytes, max } => write!(f, "{bytes} bytes are more than this store takes at once ({max})"),
            Self::TableFull(what) => write!(f, "no room for this {what}"),
            Self::CommitPending => write!(f, "a commit is under way"),
            Self::ReadOnly(reason) => write!(f, "the store is read-only: {reason}"),
            Self::Medium(e) => e.fmt(f),
        }
    }
}

impl<E: StorageError> core::error::Error for StoreError<E> {}

impl<E> From<MediumError<E>> for StoreError<E> {
    fn from(e: MediumError<E>) -> Self {
        Self::Medium(e)
    }
}
