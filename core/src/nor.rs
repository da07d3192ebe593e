//! NOR flash as a [`Storage`]: an adapter over any `embedded-storage` driver.
//!
//! Precondition on the driver: `write` and `erase` return when the cells are programmed or erased, not when the command
//! was accepted; `write` programs words in ascending order. Then what was written is durable in the order of the calls,
//! and `sync` has nothing to do.

use crate::hal::{Geometry, ReadStorage, Storage, StorageError, StorageErrorKind};
use core::time::Duration;
use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// An error of a NOR driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NorError<E> {
    /// The driver's own error.
    Driver(E),
    /// The driver failed to erase or program: by the data sheets the block is worn out.
    Failed(E),
    /// Beyond what the driver addresses.
    OutOfBounds,
}

impl<E: NorFlashError> StorageError for NorError<E> {
    fn kind(&self) -> StorageErrorKind {
        match self {
            Self::OutOfBounds => StorageErrorKind::OutOfBounds,
            Self::Failed(e) | Self::Driver(e) => match (e.kind(), self) {
                (NorFlashErrorKind::NotAligned, _) => StorageErrorKind::NotAligned,
                (NorFlashErrorKind::OutOfBounds, _) => StorageErrorKind::OutOfBounds,
                (_, Self::Failed(_)) => StorageErrorKind::Worn,
                _ => StorageErrorKind::Io,
            },
        }
    }
}

/// A NOR flash, or the front part of one, as a pool of segments.
#[derive(Debug)]
pub struct NorStorage<F> {
    flash: F,
    segment_bytes: u32,
    segments: u32,
    worst_busy: Duration,
}

impl<F: NorFlash> NorStorage<F> {
    /// Uses the first `segments` x `segment_bytes` bytes; both limited to what the flash has. `segment_bytes` is
    /// rounded up to whole erase blocks. `worst_busy` is the longest sector erase of the data sheet.
    pub fn new(flash: F, segments: u32, segment_bytes: u32, worst_busy: Duration) -> Self {
        let block = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX).max(1);
        let segment_bytes = segment_bytes.max(1).checked_next_multiple_of(block).unwrap_or(block);
        let capacity = u32::try_from(flash.capacity()).unwrap_or(u32::MAX);
        Self { segments: segments.min(capacity / segment_bytes), flash, segment_bytes, worst_busy }
    }

    /// Gives the flash back.
    pub fn into_inner(self) -> F {
        self.flash
    }

    /// The flash.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// The flash, for writing past the store.
    pub fn flash_mut(&mut self) -> &mut F {
        &mut self.flash
    }
}

impl<F: NorFlash> ReadStorage for NorStorage<F> {
    type Error = NorError<F::Error>;

    fn geometry(&self) -> Geometry {
        let write_unit = u32::try_from(F::WRITE_SIZE).unwrap_or(u32::MAX);
        Geometry {
            segments: self.segments,
            segment_bytes: self.segment_bytes,
            write_unit,
            read_unit: u32::try_from(F::READ_SIZE).unwrap_or(u32::MAX),
            torn_unit: write_unit,
            erased: Some(0xFF),
            erase_block_bytes: u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX),
            worst_busy: self.worst_busy,
            ordered: true,
        }
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        let at = u32::try_from(at).map_err(|_| NorError::OutOfBounds)?;
        ReadNorFlash::read(&mut self.flash, at, into).map_err(NorError::Driver)
    }
}

impl<F: NorFlash> Storage for NorStorage<F> {
    fn erase(&mut self, segment: u32) -> Result<(), Self::Error> {
        let from = segment.checked_mul(self.segment_bytes).ok_or(NorError::OutOfBounds)?;
        let to = from.checked_add(self.segment_bytes).ok_or(NorError::OutOfBounds)?;
        // One failure may be the bus's; a block that fails twice in a row is worn out.
        let erased = self.flash.erase(from, to).or_else(|_| self.flash.erase(from, to));
        erased.map_err(NorError::Failed)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        let at = u32::try_from(at).map_err(|_| NorError::OutOfBounds)?;
        self.flash.write(at, bytes).map_err(NorError::Failed)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
