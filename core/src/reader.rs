//! A store that is only read: of a stopped node, of a card image, of a damaged copy.
//!
//! Invariant: nothing is written, so a reader of a live store's medium can be overtaken; it notices by the generations.

use crate::catalog::{Catalog, Memory, is_usable};
use crate::error::OpenError;
use crate::hal::ReadStorage;
use crate::recovery::{self, RecoveryReport};

/// A mounted store without a writer.
#[derive(Debug)]
pub struct Reader<'m, R> {
    storage: R,
    catalog: Catalog<'m>,
    report: RecoveryReport,
}

impl<'m, R: ReadStorage> Reader<'m, R> {
    /// Mounts the store on `storage`.
    ///
    /// # Errors
    /// As [`crate::store::Store::open`].
    pub fn open(mut storage: R, memory: Memory<'m>, progress: &mut dyn FnMut(u32, u32)) -> Result<Self, OpenError> {
        let geometry = storage.geometry();
        if !is_usable(&geometry) {
            return Err(OpenError::UnusableGeometry);
        }
        memory.check(&geometry)?;
        let (mut catalog, memory) = Catalog::new(geometry, memory);
        let mounted = recovery::mount(&mut storage, &mut catalog, memory.frame, progress)?;
        Ok(Self { storage, catalog, report: mounted.report })
    }

    /// What the mount found.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Everything known of the store.
    #[must_use]
    pub fn catalog(&self) -> &Catalog<'m> {
        &self.catalog
    }

    /// The medium and the catalog, for scans.
    pub fn parts(&mut self) -> (&mut R, &Catalog<'m>) {
        (&mut self.storage, &self.catalog)
    }

    /// Gives the medium back.
    pub fn into_storage(self) -> R {
        self.storage
    }
}
