//! A disk with a volatile cache: an SSD, an SD card, an eMMC behind a page cache.
//!
//! Fault model. A write lies in the cache until a sync returns `Ok`; reads see it at once. If power fails, every piece
//! of an unsynced write that lies in one torn unit is, on its own and in any order, old, new, torn at any byte from
//! either side, or the whole torn unit around it is garbage. The write in flight is one more unsynced write; a sync in
//! flight leaves any subset. A sync or a write can fail without a cut ([`faults`]): then the bytes are in limbo, look
//! clean, are read back from the cache, and no later sync saves them.
//!
//! Invariants:
//! - what a good sync covered stays after every outcome, in every torn unit not written since (only
//!   [`Outcome::Collateral`] breaks this);
//! - bytes outside the torn units touched since the last good sync are the same after every outcome;
//! - the engine's side of the contract is asserted: writes are aligned, lie in one segment, and go forward only
//!   within a life of that segment (an empty write is nothing, and no operation). After a cut, a life ends where its
//!   durable writes end; what was in flight may be written again. Where `erase` does something, an erase that was not
//!   synced has to be repeated after a cut.

mod config;
mod cut;
pub mod faults;
mod survivors;

pub use config::{DiskConfig, EraseModel};

use crate::image::Image;
use crate::outcome::Outcome;
use crate::power::{Counters, Fault, Meter, OpKind, Step};
use crate::rng::Rng;
use faults::{Faults, SyncVerdict};
use lastgasp_core::hal::{Geometry, ReadStorage, Storage, StorageErrorKind};
use std::sync::Arc;
use survivors::Piece;

/// One write or erase since the last good sync.
#[derive(Debug, Clone)]
struct Unsynced {
    op: u64,
    kind: OpKind,
    at: usize,
    bytes: Arc<[u8]>,
}

/// How far a segment has been written in this life: as the engine sees it, and as survives a cut. In bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    front: usize,
    durable: usize,
}

/// A disk with a volatile cache.
#[derive(Debug, Clone)]
pub struct SimDisk {
    config: DiskConfig,
    /// What is durable.
    medium: Image,
    /// What reads see: the medium under `limbo` under `unsynced`.
    cache: Image,
    unsynced: Vec<Unsynced>,
    /// Pieces of writes whose sync failed, or that failed themselves.
    limbo: Vec<Piece>,
    lives: Vec<Life>,
    faults: Faults,
    meter: Meter,
    counters: Counters,
    cuts: Option<Vec<SimDisk>>,
}

impl SimDisk {
    /// A fresh disk.
    ///
    /// # Panics
    /// If the units do not divide a segment.
    #[must_use]
    pub fn new(config: DiskConfig) -> Self {
        config.check();
        Self::with_image(config, Image::filled(config.total(), config.blank))
    }

    /// A disk with these bytes on it; shorter than the geometry if the store was cut short.
    ///
    /// # Panics
    /// If the units do not divide a segment or there are more bytes than the geometry has.
    #[must_use]
    pub fn from_image(config: DiskConfig, bytes: &[u8]) -> Self {
        config.check();
        assert!(bytes.len() <= config.total(), "{} bytes do not fit the geometry", bytes.len());
        Self::with_image(config, Image::from_bytes(bytes))
    }

    fn with_image(config: DiskConfig, medium: Image) -> Self {
        Self {
            config,
            cache: medium.clone(),
            medium,
            unsynced: Vec::new(),
            limbo: Vec::new(),
            lives: vec![Life::default(); config.segments as usize],
            faults: Faults::default(),
            meter: Meter::default(),
            counters: Counters::default(),
            cuts: None,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> DiskConfig {
        self.config
    }

    /// What is durable: the last state that a good sync confirmed.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.medium
    }

    /// What reads see.
    #[must_use]
    pub fn view(&self) -> &Image {
        &self.cache
    }

    /// Changes what is durable behind the engine's back; what the cache holds above it stays.
    ///
    /// An image that was truncated makes accesses beyond it fail with `OutOfBounds`.
    pub fn rot(&mut self, change: impl FnOnce(&mut Image)) {
        change(&mut self.medium);
        self.rebuild_cache();
    }

    /// From now on segments may be written from their start, as if nothing had been written into them before.
    pub(crate) fn forget_lives(&mut self) {
        self.lives.fill(Life::default());
    }

    /// Flips bit `bit` of the byte at `at` on the medium.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn flip_bit(&mut self, at: u64, bit: u32) {
        let at = usize_of(at);
        self.rot(|image| image.flip_bit(at, bit));
    }

    /// Sets `len` bytes at `at` on the medium to `byte`.
    ///
    /// # Panics
    /// If they do not lie on the medium.
    pub fn fill(&mut self, at: u64, len: u64, byte: u8) {
        let range = usize_of(at)..usize_of(at + len);
        self.rot(|image| image.fill(range, byte));
    }

    /// Drops what the page cache holds clean, as memory pressure or the first read of another process may do: what
    /// lay in limbo is settled by `outcome` and from now on read from the medium. Unsynced writes stay.
    ///
    /// # Panics
    /// If `outcome` names a unit that is not in limbo.
    pub fn drop_cache(&mut self, outcome: &Outcome) {
        let limbo = std::mem::take(&mut self.limbo);
        survivors::settle(&mut self.medium, &limbo, outcome, &self.config);
        self.rebuild_cache();
    }

    /// How many unsynced writes the cache holds.
    #[must_use]
    pub fn unsynced_writes(&self) -> usize {
        self.unsynced.len()
    }

    fn rebuild_cache(&mut self) {
        self.cache = self.medium.clone();
        for piece in self.limbo.iter().filter(|piece| piece.cached) {
            self.cache.write(piece.at, piece.bytes());
        }
        for write in &self.unsynced {
            self.cache.write(write.at, &write.bytes);
        }
    }

    fn segment_range(&self, segment: u32) -> Result<(usize, usize), Fault> {
        assert!(segment < self.config.segments, "there is no segment {segment}");
        let len = self.config.segment_bytes as usize;
        let start = segment as usize * len;
        if start + len > self.medium.len() {
            return Err(Fault::Broken(StorageErrorKind::OutOfBounds));
        }
        Ok((start, len))
    }

    /// Asserts what the engine owes for a write and gives its segment and the end of the write in it.
    fn check_write(&self, at: u64, len: usize) -> (usize, usize) {
        let unit = self.config.write_unit as usize;
        let segment_bytes = self.config.segment_bytes as usize;
        let at = usize_of(at);
        assert!(at.is_multiple_of(unit) && len.is_multiple_of(unit), "write {at:#x}+{len} is not aligned to {unit}");
        let (segment, from) = (at / segment_bytes, at % segment_bytes);
        assert!(segment < self.lives.len(), "write {at:#x}+{len} lies beyond the disk");
        assert!(from + len <= segment_bytes, "write {at:#x}+{len} crosses the end of segment {segment}");
        let front = self.lives[segment].front;
        assert!(from >= front, "write {at:#x}+{len} goes back: segment {segment} is written up to {front:#x}");
        (segment, from + len)
    }

    fn put(&mut self, op: u64, kind: OpKind, at: usize, bytes: Arc<[u8]>, step: Step) {
        if step == Step::Goes {
            self.cache.write(at, &bytes);
        }
        self.unsynced.push(Unsynced { op, kind, at, bytes });
    }
}

fn usize_of(at: u64) -> usize {
    usize::try_from(at).expect("a simulated disk fits the address space")
}

impl ReadStorage for SimDisk {
    type Error = Fault;

    fn geometry(&self) -> Geometry {
        self.config.geometry()
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.meter.powered()?;
        let unit = self.config.read_unit as usize;
        let at = usize::try_from(at).map_err(|_| Fault::Broken(StorageErrorKind::OutOfBounds))?;
        if !at.is_multiple_of(unit) || !into.len().is_multiple_of(unit) {
            return Err(Fault::Broken(StorageErrorKind::NotAligned));
        }
        if at.checked_add(into.len()).is_none_or(|end| end > self.cache.len()) {
            return Err(Fault::Broken(StorageErrorKind::OutOfBounds));
        }
        self.faults.read(at..at + into.len())?;
        self.counters.reads += 1;
        self.counters.read_bytes += into.len() as u64;
        self.cache.read(at, into);
        Ok(())
    }
}

impl Storage for SimDisk {
    fn erase(&mut self, segment: u32) -> Result<(), Fault> {
        self.meter.powered()?;
        let (start, len) = self.segment_range(segment)?;
        self.keep_cut(|cut| _ = cut.erase(segment));
        let op = self.meter.ops();
        let broken = self.faults.refuses(op, segment);
        let step = self.meter.step(OpKind::Erase, start as u64, len as u64)?;
        if let Some(fault) = broken {
            return Err(if step == Step::Cut { Fault::Off } else { fault });
        }
        let bytes: Option<Arc<[u8]>> = match self.config.erase {
            EraseModel::Nothing => None,
            EraseModel::Fill(byte) => Some(vec![byte; len].into()),
            EraseModel::Scramble => {
                let mut bytes = vec![0; len];
                Rng::derived(self.config.seed, self.counters.erases ^ start as u64).fill(&mut bytes);
                Some(bytes.into())
            }
        };
        match bytes {
            Some(bytes) => {
                self.put(op, OpKind::Erase, start, bytes, step);
                self.lives[segment as usize].front = 0;
            }
            // There is nothing that a cut could take back.
            None if step == Step::Goes => self.lives[segment as usize] = Life::default(),
            None => {}
        }
        if step == Step::Cut {
            return Err(Fault::Off);
        }
        self.faults.mend(start..start + len);
        self.counters.erases += 1;
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.meter.powered()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (segment, end) = self.check_write(at, bytes.len());
        let start = usize_of(at);
        if start + bytes.len() > self.medium.len() {
            return Err(Fault::Broken(StorageErrorKind::OutOfBounds));
        }
        self.keep_cut(|cut| _ = cut.write(at, bytes));
        let op = self.meter.ops();
        // A medium cannot have more segments than its configuration, which counts them in 32 bits.
        let broken = self.faults.refuses(op, u32::try_from(segment).unwrap_or(u32::MAX));
        let step = self.meter.step(OpKind::Write, at, bytes.len() as u64)?;
        if let Some(fault) = broken {
            return Err(if step == Step::Cut { Fault::Off } else { fault });
        }
        self.lives[segment].front = end;
        if step == Step::Cut {
            self.put(op, OpKind::Write, start, bytes.into(), step);
            return Err(Fault::Off);
        }
        if let Some(fault) = self.faults.write() {
            self.lose_write(op, start, bytes);
            return Err(fault);
        }
        self.put(op, OpKind::Write, start, bytes.into(), step);
        self.faults.mend(start..start + bytes.len());
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.meter.powered()?;
        self.keep_cut(|cut| _ = cut.sync());
        let op = self.meter.ops();
        let read_only = self.faults.is_read_only(op);
        if self.meter.step(OpKind::Sync, 0, 0)? == Step::Cut {
            return Err(Fault::Off);
        }
        if read_only {
            self.give_up();
            return Err(Fault::Broken(StorageErrorKind::ReadOnly));
        }
        let failed = Err(Fault::Broken(StorageErrorKind::SyncFailed));
        match self.faults.sync() {
            SyncVerdict::Good => {
                self.make_durable();
                self.counters.syncs += 1;
                Ok(())
            }
            SyncVerdict::StaysDirty => failed,
            SyncVerdict::LooksClean => {
                self.give_up();
                failed
            }
            SyncVerdict::Evicted(outcome) => {
                self.give_up();
                self.drop_cache(&outcome);
                failed
            }
        }
    }
}

impl SimDisk {
    fn make_durable(&mut self) {
        let segment_bytes = self.config.segment_bytes as usize;
        let torn = self.config.torn_unit as usize;
        for write in self.unsynced.drain(..) {
            self.medium.write(write.at, &write.bytes);
            survivors::supersede(&mut self.limbo, write.at..write.at + write.bytes.len(), torn);
            let life = &mut self.lives[write.at / segment_bytes];
            match write.kind {
                OpKind::Erase => life.durable = 0,
                _ => life.durable = write.at % segment_bytes + write.bytes.len(),
            }
        }
    }

    fn give_up(&mut self) {
        let torn = self.config.torn_unit as usize;
        for write in std::mem::take(&mut self.unsynced) {
            survivors::split(&write, torn, true, &mut self.limbo);
        }
    }

    /// A write that fails: all of it is in limbo, and of the first part, by chance, reads see the new bytes.
    fn lose_write(&mut self, op: u64, at: usize, bytes: &[u8]) {
        let torn = self.config.torn_unit as usize;
        let seen = Rng::derived(self.config.seed, op).index(bytes.len() + 1);
        for (from, part, cached) in [(0, &bytes[..seen], true), (seen, &bytes[seen..], false)] {
            let write = Unsynced { op, kind: OpKind::Write, at: at + from, bytes: part.into() };
            survivors::split(&write, torn, cached, &mut self.limbo);
        }
        self.cache.write(at, &bytes[..seen]);
    }
}
