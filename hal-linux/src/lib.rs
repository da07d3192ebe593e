//! lastgasp-hal-linux: the engine's traits on Linux.
//!
//! [`FileStorage`] keeps a store in one preallocated regular file or on a raw block device, [`SyncHandle`] syncs it
//! from another thread, [`HeapArena`] is a memtable's memory that an encoder thread may read, [`StoreMemory`] and
//! [`ScanBuffers`] are the rest of the engine's memory.
//!
//! Invariants of the whole crate: no file is created, grown, renamed or deleted while a store runs; a failed sync is
//! never repeated; content that is not ours is never changed; every error says what is wrong, where, and what to do.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod arena;
mod create;
mod error;
mod geometry;
mod lock;
mod medium;
pub mod memory;
mod open;
mod open_error;
mod probe;
mod storage;
mod sync;
mod syscalls;
mod window;

pub use arena::{FrozenHeapArena, HeapArena};
pub use create::{FILLED_AT_CREATION_BYTES, FormatOptions};
pub use error::{LinuxStorageError, Operation};
pub use geometry::{
    GeometryError, SEGMENT_BYTES_ON_FILE_MAX, SEGMENT_BYTES_ON_FILE_MIN, SEGMENT_BYTES_USUAL, SEGMENTS_ON_FILE_MIN,
    TORN_UNIT_DEFAULT, choose_geometry, choose_geometry_with,
};
pub use medium::MediumKind;
pub use memory::{ScanBuffers, SnapshotMemory, StoreMemory};
pub use open::OpenOptions;
pub use open_error::OpenError;
pub use storage::{FileStorage, Meter, OpenReport};
pub use sync::SyncHandle;
