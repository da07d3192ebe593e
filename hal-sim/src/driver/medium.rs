//! What the driver needs of a medium: to make one, to hand it to the engine and get it back, to let it fail.
//!
//! Invariant: a medium that went through [`Medium::into_storage`] and [`Medium::of_storage`] is the same.

use super::workload::Shape;
use crate::cuttable::Cuttable;
use crate::disk::faults::FailSync;
use crate::disk::{DiskConfig, SimDisk};
use crate::nor::{NorConfig, SimNor, Wear};
use crate::outcome::Outcome;
use lastgasp_core::hal::{Storage, StorageErrorKind};
use lastgasp_core::nor::NorStorage;
use std::ops::Range;
use std::time::Duration;

/// A medium that the driver drives.
pub trait Medium: Cuttable + Send + 'static {
    /// What the engine gets.
    type Storage: Storage;

    /// Name of the profile, the first part of a trace id.
    const NAME: &'static str;

    /// A fresh medium.
    fn fresh(shape: &Shape) -> Self;

    /// A medium with these bytes on it.
    fn from_bytes(shape: &Shape, bytes: &[u8]) -> Self;

    /// All bytes, as a mount would read them after a power cycle.
    fn bytes(&self) -> Vec<u8>;

    /// Hands the medium to the engine.
    fn into_storage(self, shape: &Shape) -> Self::Storage;

    /// Takes it back.
    fn of_storage(storage: Self::Storage) -> Self;

    /// The medium inside what the engine has.
    fn inside(storage: &mut Self::Storage) -> &mut Self;

    /// Lets syncs fail; `false` if this medium has none that could.
    fn fail_syncs(&mut self, fail: FailSync) -> bool;

    /// Lets writes fail.
    fn fail_writes(&mut self, at: u64, count: u64);

    /// Wears a segment out.
    fn wear_out(&mut self, shape: &Shape, segment: u32, wear: Wear);

    /// What an outcome of a cut destroys beside the writes that were at risk; nothing on most media.
    fn collateral(&self, _: &Outcome) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// A digest of what lies on it; `None` if it reads differently from mount to mount.
    fn digest(&self) -> Option<u64>;

    /// Power off and on again, with all that was at risk on the medium, or none of it, or some by chance.
    #[must_use]
    fn power_cycle(&self, fate: Fate) -> Self {
        let mut off = self.clone();
        off.power_off();
        match (fate, off.at_risk().is_empty()) {
            (_, true) => off.after(&Outcome::None),
            (Fate::All, _) => off.after(&Outcome::All),
            (Fate::None, _) => off.after(&Outcome::None),
            (Fate::Seeded(seed), _) => off.after(&Outcome::Seeded(seed)),
        }
    }
}

/// What becomes of unsynced writes when a process dies or power fails between two operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of them reach the medium: only the process died.
    All,
    /// None does.
    None,
    /// Chance decides.
    Seeded(u64),
}

/// A quick digest for telling images apart: every 8 bytes are multiplied in.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^= sum >> 32;
    }
    sum
}

impl Medium for SimDisk {
    type Storage = Self;
    const NAME: &'static str = "disk";

    fn fresh(shape: &Shape) -> Self {
        Self::new(DiskConfig::new(shape.segments, shape.segment_bytes))
    }

    fn from_bytes(shape: &Shape, bytes: &[u8]) -> Self {
        Self::from_image(DiskConfig::new(shape.segments, shape.segment_bytes), bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        self.image().to_vec()
    }

    fn into_storage(self, _: &Shape) -> Self {
        self
    }

    fn of_storage(storage: Self) -> Self {
        storage
    }

    fn inside(storage: &mut Self) -> &mut Self {
        storage
    }

    fn fail_syncs(&mut self, fail: FailSync) -> bool {
        Self::fail_syncs(self, fail);
        true
    }

    fn fail_writes(&mut self, at: u64, count: u64) {
        Self::fail_writes(self, at, count, StorageErrorKind::Io);
    }

    fn wear_out(&mut self, _: &Shape, segment: u32, _: Wear) {
        Self::wear_out(self, segment);
    }

    fn digest(&self) -> Option<u64> {
        Some(digest(&self.image().to_vec()))
    }
}

/// The flash the campaigns run on: words of 4 bytes, erase blocks of 1 KiB, so that a segment has two of them.
pub type Flash = SimNor<4, 1024>;

/// Bytes one program operation covers at most: more operations than a page, fewer than one a word.
const PROGRAM_UNIT: u32 = 32;

fn flash_config(shape: &Shape) -> NorConfig {
    NorConfig::new(shape.segments * (shape.segment_bytes / 1024), PROGRAM_UNIT)
}

impl Medium for Flash {
    type Storage = NorStorage<Self>;
    const NAME: &'static str = "nor";

    fn fresh(shape: &Shape) -> Self {
        Self::new(flash_config(shape))
    }

    fn from_bytes(shape: &Shape, bytes: &[u8]) -> Self {
        Self::from_image(flash_config(shape), bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        self.peek()
    }

    fn into_storage(self, shape: &Shape) -> NorStorage<Self> {
        NorStorage::new(self, shape.segments, shape.segment_bytes, Duration::from_millis(400))
    }

    fn of_storage(storage: NorStorage<Self>) -> Self {
        storage.into_inner()
    }

    fn inside(storage: &mut NorStorage<Self>) -> &mut Self {
        storage.flash_mut()
    }

    fn fail_syncs(&mut self, _: FailSync) -> bool {
        false
    }

    fn fail_writes(&mut self, _: u64, _: u64) {}

    fn wear_out(&mut self, shape: &Shape, segment: u32, wear: Wear) {
        let blocks = shape.segment_bytes / 1024;
        // The second block: the first one still takes the header.
        Self::wear_out(self, segment * blocks + blocks - 1, 0, wear);
    }

    fn digest(&self) -> Option<u64> {
        (self.metastable_bytes() == 0).then(|| digest(&self.image().to_vec()))
    }
}
