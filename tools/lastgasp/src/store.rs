//! Opening a store for reading.
//!
//! Invariant: nothing here can write; a store in use is opened too, and its user told of.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use lastgasp_core::reader::Reader;
use lastgasp_hal_linux::{FileStorage, StoreMemory};

/// Room for the names of more streams than any node takes by default.
const STREAMS: u16 = 4096;

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The store: its file, a block device, or an image of a card or flash chip.
    #[arg(long = "store", value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// Opens the medium read-only.
pub(crate) fn open(path: &Path) -> Result<FileStorage> {
    Ok(FileStorage::open_read_only(path)?)
}

/// Memory to mount what was opened.
pub(crate) fn memory(storage: &FileStorage) -> StoreMemory {
    use lastgasp_core::hal::ReadStorage;
    StoreMemory::with_streams(&storage.geometry(), STREAMS)
}

/// Mounts the store.
pub(crate) fn mount(storage: FileStorage, memory: &mut StoreMemory) -> Result<Reader<'_, FileStorage>> {
    let path = storage.path().to_path_buf();
    Reader::open(storage, memory.parts(), &mut |_, _| ()).with_context(|| path.display().to_string())
}

/// Who writes to the store right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    None,
    /// Its process number, if the system tells.
    Some(Option<u32>),
}

impl Writer {
    /// Where the file system has no locks, no node can have the store open either: it needs one.
    pub(crate) fn of(storage: &FileStorage) -> Self {
        if storage.is_locked_by_writer().unwrap_or(false) { Self::Some(storage.writer_pid()) } else { Self::None }
    }

    /// The writer, in words.
    pub(crate) fn name(pid: Option<u32>) -> String {
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    }
}
