//! Opening the store of a node, or making it.
//!
//! Invariants: what is there is never changed unless it is ours or blank; a store whose making was cut short is made
//! again; every refusal says which path, what is wrong and what to do.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use lastgasp_core::error::OpenError;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::gaps::Gap;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::store::{self, Store};
use lastgasp_hal_linux::{
    FileStorage, FormatOptions, HeapArena, OpenError as MediumError, OpenOptions, StoreMemory, choose_geometry,
};

use crate::cli::{SIZE_DEFAULT_BYTES, bytes_for_people};
use crate::clock::Clock;
use crate::say;

/// Largest memtable; there are two.
const ARENA_BYTES_MAX: usize = 4 << 20;
/// Smallest.
const ARENA_BYTES_MIN: usize = 64 << 10;
/// Size of the store that takes over when the medium has failed.
const VOLATILE_BYTES: u64 = 16 << 20;
/// The directory of the built-in path is readable by its group.
const DIRECTORY_MODE: u32 = 0o750;

/// What to open.
#[derive(Debug, Clone)]
pub struct Place {
    /// File or block device.
    pub path: PathBuf,
    /// Its size, if one was asked for.
    pub size_bytes: Option<u64>,
    /// Also where nothing is sure to survive a power cut.
    pub allow_volatile: bool,
    /// Streams that are told apart.
    pub streams: u16,
}

/// The built-in path of the store, and its directory made.
///
/// # Errors
/// There is no home directory, or it cannot be written to.
pub fn default_path() -> Result<PathBuf> {
    let directory = if rustix::process::geteuid().is_root() && std::env::var_os("XDG_STATE_HOME").is_none() {
        PathBuf::from("/var/lib/lastgasp")
    } else {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.context("neither XDG_STATE_HOME nor HOME is set: name the store with --store PATH")?.join("lastgasp")
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(&directory)
        .with_context(|| format!("{} cannot be made; name another place with --store PATH", directory.display()))?;
    Ok(directory.join("store.lg"))
}

/// Opens the medium for writing; makes a store on it if there is none.
///
/// # Errors
/// It is foreign, in use, too small, read-only, volatile or of another size, each with what to do.
pub fn open_or_make(place: &Place) -> Result<FileStorage> {
    let options = OpenOptions::new().allow_volatile(place.allow_volatile);
    match options.open(&place.path) {
        Ok(storage) => {
            refuse_other_size(place, &storage)?;
            Ok(storage)
        }
        Err(MediumError::NotFound { .. } | MediumError::Blank { .. }) => make(place),
        Err(error) => Err(error.into()),
    }
}

fn refuse_other_size(place: &Place, storage: &FileStorage) -> Result<()> {
    let Some(asked) = place.size_bytes else { return Ok(()) };
    let there = storage.geometry();
    let wanted = choose_geometry(asked)?;
    if (wanted.segments, wanted.segment_bytes) != (there.segments, there.segment_bytes) {
        let (there, asked) = (bytes_for_people(there.total_bytes()), bytes_for_people(asked));
        bail!(
            "{}: this store has {there}, --size asks for {asked}; a store keeps its size: leave --size out, or name \
             another path",
            place.path.display()
        );
    }
    Ok(())
}

fn make(place: &Place) -> Result<FileStorage> {
    let options = FormatOptions {
        allow_volatile: place.allow_volatile,
        ..FormatOptions::new(place.size_bytes.unwrap_or(SIZE_DEFAULT_BYTES))
    };
    let mut told = false;
    let mut storage = FileStorage::create(&place.path, &options, &mut |done, all| {
        if !std::mem::replace(&mut told, true) {
            let size = bytes_for_people(all.saturating_sub(done));
            say(format_args!("making a store at {}: filling {size}", place.path.display()));
        }
    })
    .map_err(|error| match error {
        MediumError::NotFound { path } => {
            anyhow!("{}: its directory is not there; make it first, or check the path", path.display())
        }
        error => error.into(),
    })?;
    format(&mut storage)?;
    Ok(storage)
}

fn format(storage: &mut FileStorage) -> Result<()> {
    let mut id = [0; 8];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).context("no random numbers")?;
    let geometry = storage.geometry();
    let options = store::FormatOptions { store_id: u64::from_le_bytes(id) };
    let path = storage.path().to_path_buf();
    store::format(storage, StoreMemory::new(&geometry).parts(), &options)
        .map_err(|error| anyhow!("{}: making the store failed: {error}", path.display()))
}

/// Memory of a mounted store.
#[derive(Debug, Default)]
pub struct Memory {
    first: Option<StoreMemory>,
    again: Option<StoreMemory>,
}

/// Mounts the store that was opened or made.
///
/// # Errors
/// It was written by a newer version.
pub fn mount<'m>(
    storage: FileStorage,
    place: &Place,
    memory: &'m mut Memory,
    clock: &Clock,
) -> Result<Store<'m, FileStorage, HeapArena>> {
    // The node raises the bound once there are records that may get lost.
    let options =
        store::OpenOptions { wall_us: clock.wall_us(), synchronised: clock.is_synchronised(), volatile_bound: 0 };
    let memory_for = |room: &'m mut Option<StoreMemory>, storage: &FileStorage| {
        room.insert(StoreMemory::with_streams(&storage.geometry(), place.streams)).parts()
    };
    let first = memory_for(&mut memory.first, &storage);
    match open(storage, first, &options) {
        // A cut in the middle of making a store can leave headers, but no record: it is made again.
        Err(OpenError::Blank) => {
            say(format_args!("{}: making this store was cut short before anything was kept", place.path.display()));
            let mut storage = OpenOptions::new().allow_volatile(place.allow_volatile).open(&place.path)?;
            format(&mut storage)?;
            let again = memory_for(&mut memory.again, &storage);
            open(storage, again, &options)
        }
        opened => opened,
    }
    .map_err(|error| anyhow!("{}: {error}", place.path.display()))
}

/// A store in memory, for a node whose medium has failed: what is in it is gone with the machine's power, or when it is
/// opened the next time.
///
/// # Errors
/// There is no tmpfs one may write to.
pub fn make_volatile(streams: u16) -> Result<(FileStorage, Place)> {
    let directory = runtime_directory();
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(&directory)
        .with_context(|| format!("{} cannot be made", directory.display()))?;
    let path = directory.join("volatile.lg");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} is there and cannot be removed", path.display()));
        }
        _ => {}
    }
    let place = Place { path, size_bytes: Some(VOLATILE_BYTES), allow_volatile: true, streams };
    Ok((open_or_make(&place)?, place))
}

/// Where things live that do not outlive the machine's power.
fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    let of_session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    match of_session {
        _ if user.is_root() => PathBuf::from("/run/lastgasp"),
        Some(directory) => directory.join("lastgasp"),
        None => PathBuf::from(format!("/dev/shm/lastgasp-{}", user.as_raw())),
    }
}

fn open<'m>(
    storage: FileStorage,
    memory: lastgasp_core::catalog::Memory<'m>,
    options: &store::OpenOptions,
) -> Result<Store<'m, FileStorage, HeapArena>, OpenError> {
    let arena_bytes = arena_bytes(&storage);
    let (active, spare) = (HeapArena::new(arena_bytes), HeapArena::new(arena_bytes));
    Store::open(storage, memory, active, Some(spare), options, &mut |_, _| ())
}

/// Two segments' worth, within bounds: the largest record fits, and a full memtable is worth a large write.
fn arena_bytes(storage: &FileStorage) -> usize {
    let segment = usize::try_from(storage.geometry().segment_bytes).unwrap_or(usize::MAX);
    segment.saturating_mul(2).clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX)
}

/// What the mount found, in one line for people.
#[must_use]
pub fn summary(path: &Path, store: &Store<'_, FileStorage, HeapArena>) -> String {
    let report = store.report();
    let floor = store.catalog().floor();
    let gaps = store.catalog().gaps();
    let lost: u64 = gaps.iter().filter(|g| g.last_seq >= g.first_seq).map(numbers_of).sum();
    let held = report.next_seq.saturating_sub(floor).saturating_sub(lost);
    let end = match report.previous_end {
        PreviousEnd::New => "it is new",
        PreviousEnd::Clean => "the last run ended cleanly",
        PreviousEnd::Cut => "the last run was cut off",
        PreviousEnd::Rebuilt => "the manifest was lost and rebuilt",
    };
    let gaps = match gaps.len() {
        0 => "no gaps".to_owned(),
        n => format!("{n} gap(s), at most {lost} record(s) lost in them"),
    };
    let size = bytes_for_people(store.catalog().geometry().total_bytes());
    format!(
        "store {} ({size}): recovered {held} record(s), next number {}, {end}, {gaps}",
        path.display(),
        report.next_seq
    )
}

fn numbers_of(gap: &Gap) -> u64 {
    gap.last_seq.saturating_sub(gap.first_seq).saturating_add(1)
}
