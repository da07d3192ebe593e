//! Making an empty store.

use super::{FormatOptions, announce, at};
use crate::catalog::{Catalog, Memory, is_usable};
use crate::error::{Doing, MediumError, OpenError};
use crate::hal::Storage;
use crate::manifest::{Manifest, SlotScan};
use crate::wal::WriteError;

/// Makes an empty store.
///
/// # Power loss
/// Until it returns, the medium may hold an unfinished store, which opens as [`OpenError::Blank`].
///
/// # Errors
/// The geometry is unusable, the memory too small, or the medium failed.
pub fn format<S: Storage>(
    storage: &mut S,
    memory: Memory<'_>,
    options: &FormatOptions,
) -> Result<(), FormatError<S::Error>> {
    let g = storage.geometry();
    if !is_usable(&g) {
        return Err(FormatError::Open(OpenError::UnusableGeometry));
    }
    memory.check(&g).map_err(|e| FormatError::Open(e.into()))?;
    let (mut catalog, memory) = Catalog::new(g, memory);
    catalog.store_id = options.store_id;
    catalog.head.next_generation = 1;
    // Headers of an earlier store would be found by a later rebuild if theirs were the same id: ids are random.
    for slot in catalog.pool.manifest_slots() {
        storage.erase(slot).map_err(|source| at(Doing::Erase, slot, 0, source))?;
    }
    for _ in 0..catalog.announced_wanted() {
        let Some(segment) = catalog.pool.least_worn_free() else { break };
        announce(&mut catalog, segment);
        storage.erase(segment).map_err(|source| at(Doing::Erase, segment, 0, source))?;
    }
    catalog.tables_dirty = true;
    let blank = [SlotScan::default(); 2];
    let mut manifest = Manifest::resume(&blank, 0, true);
    for _ in 0..2 {
        manifest.publish(storage, &mut catalog, memory.frame)?;
        if manifest.is_mirrored() {
            return Ok(());
        }
    }
    Err(FormatError::HalfDone)
}

/// Why a store could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError<E> {
    /// The medium or memory does not fit.
    Open(OpenError),
    /// The medium failed.
    Medium(MediumError<E>),
    /// The second copy of the manifest could not be made durable.
    HalfDone,
}

impl<E> From<WriteError<E>> for FormatError<E> {
    fn from(e: WriteError<E>) -> Self {
        match e {
            WriteError::Medium(e) => Self::Medium(e),
            WriteError::Misfit => Self::Open(OpenError::UnusableGeometry),
        }
    }
}

impl<E> From<MediumError<E>> for FormatError<E> {
    fn from(e: MediumError<E>) -> Self {
        Self::Medium(e)
    }
}

impl<E: core::fmt::Debug> core::fmt::Display for FormatError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open(e) => e.fmt(f),
            Self::Medium(e) => e.fmt(f),
            Self::HalfDone => write!(f, "the second copy of the manifest could not be made durable: try again"),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for FormatError<E> {}
