//! Makes and opens a store as the daemon does: its geometry, its two memtables.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use lastgasp_core::format::row::Row;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::store::{self, Store};
use lastgasp_hal_linux::{FileStorage, FormatOptions, HeapArena, StoreMemory};

use crate::corpus::Record;

/// Size of each memtable.
const ARENA_BYTES: usize = 4 << 20;
/// The severity of every record: INFO.
const SEVERITY: u8 = 9;
/// Any number will do for a store that is removed at the end.
const STORE_ID: u64 = 0x6c61_7374_6761_7370;

/// A store of the bench.
pub(crate) type BenchStore<'m> = Store<'m, FileStorage, HeapArena>;

/// Makes a store of at most `size_bytes` at `path`, its file filled as the daemon fills it.
pub(crate) fn make(path: &Path, size_bytes: u64) -> Result<(FileStorage, StoreMemory)> {
    let mut storage = FileStorage::create(path, &FormatOptions::new(size_bytes), &mut |_, _| ())?;
    let mut memory = StoreMemory::new(&storage.geometry());
    store::format(&mut storage, memory.parts(), &store::FormatOptions { store_id: STORE_ID })
        .map_err(|error| anyhow!("{}: making the store failed: {error}", path.display()))?;
    Ok((storage, memory))
}

/// Mounts it.
pub(crate) fn open(storage: FileStorage, memory: &mut StoreMemory) -> Result<BenchStore<'_>> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let wall_us = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
    let options = store::OpenOptions { wall_us, synchronised: false, volatile_bound: 0 };
    let (active, spare) = (HeapArena::new(ARENA_BYTES), HeapArena::new(ARENA_BYTES));
    Store::open(storage, memory.parts(), active, Some(spare), &options, &mut |_, _| ())
        .map_err(|error| anyhow!("opening the store failed: {error}"))
}

/// A record as the engine takes it.
pub(crate) fn row<'a>(stream: u16, received_us: u64, record: &'a Record) -> Row<'a> {
    Row {
        stream,
        severity: SEVERITY,
        continued: false,
        received_us,
        event_time_us: None,
        trace: None,
        body: &record.body,
        fields: &[],
    }
}
