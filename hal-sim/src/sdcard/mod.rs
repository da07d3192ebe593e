//! An SD card: a disk with a volatile cache, on a flash translation layer that moves data behind the host's back.
//!
//! Fault model. Everything that a disk does ([`crate::disk`]): the cache is lost at a cut, and each piece of an
//! unsynced write is old, new, torn or garbage, in any order. Beyond it:
//! - **collateral damage**: while the card programs or moves an allocation unit, a cut can turn up to four torn units
//!   into garbage anywhere in the pages that lie in this unit, synced long ago or not
//!   ([`Outcome::Collateral`]). Mapped by pages, these are whatever else was written lately, from anywhere on the card;
//!   mapped by blocks, the rest of the same allocation unit. A card that is idle damages nothing;
//! - **stalls**: a sync waits until garbage is collected, and now and then for housekeeping, up to a quarter of a
//!   second;
//! - **a card that lies**: a sync returns at once and the data stays in the cache until that is full;
//! - **end of life**: units wear out by erases and are retired; when the spare ones are used up, the card turns
//!   read-only for good, in the middle of any operation.
//!
//! Invariants:
//! - what a good sync of an honest card covered stays after every outcome but collateral damage;
//! - collateral damage hits only pages that [`SimCard::in_danger`] names at that instant;
//! - everything is a function of the configuration, the calls made and the outcome.

mod config;
mod ftl;
mod medium;

pub use config::{CardConfig, CardTimes, Mapping};
pub use medium::{Card, LyingCard};

use crate::clocked::{Access, Timed};
use crate::cuttable::Cuttable;
use crate::disk::SimDisk;
use crate::disk::faults::{FailSync, SyncEffect};
use crate::image::Image;
use crate::outcome::{Outcome, Plan};
use crate::power::{AtRisk, Counters, Fault, Op};
use crate::rng::Rng;
use ftl::{Ftl, Work};
use lastgasp_core::hal::{Geometry, ReadStorage, Storage, StorageErrorKind};
use std::ops::Range;

/// Torn units that collateral damage hits at most.
const DAMAGED_MAX: u64 = 4;

/// A simulated SD card.
#[derive(Debug, Clone)]
pub struct SimCard {
    config: CardConfig,
    disk: SimDisk,
    ftl: Ftl,
    /// Logical pages with unsynced writes, in order of their first write.
    dirty: Vec<u32>,
    dirty_bytes: u64,
    wear: CardWear,
    cuts: Option<Vec<SimCard>>,
}

/// What a card did to its flash in its whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CardWear {
    /// Bytes programmed for the host, in whole pages.
    pub host_bytes: u64,
    /// Bytes programmed to move data.
    pub moved_bytes: u64,
    /// Units erased.
    pub erases: u64,
    /// Syncs that a lying card said were done.
    pub lies: u64,
}

impl SimCard {
    /// A fresh card.
    ///
    /// # Panics
    /// If the units do not divide each other.
    #[must_use]
    pub fn new(config: CardConfig) -> Self {
        config.check();
        Self::with_disk(config, SimDisk::new(config.disk))
    }

    /// A card with these bytes on it.
    ///
    /// # Panics
    /// As [`SimCard::new`].
    #[must_use]
    pub fn from_image(config: CardConfig, bytes: &[u8]) -> Self {
        config.check();
        let mut card = Self::with_disk(config, SimDisk::from_image(config.disk, bytes));
        let pages: Vec<u32> = (0..card.pages()).collect();
        card.ftl.write(&pages, &mut Work::default());
        card
    }

    fn with_disk(config: CardConfig, disk: SimDisk) -> Self {
        let total = config.disk.geometry().total_bytes();
        let units = u32::try_from(total.div_ceil(u64::from(config.unit_bytes))).unwrap_or(u32::MAX);
        let pages = config.unit_bytes / config.page_bytes;
        let ftl = Ftl::new(units, config.spare_units, pages, config.mapping, config.endurance);
        let wear = CardWear::default();
        Self { config, disk, ftl, dirty: Vec::new(), dirty_bytes: 0, wear, cuts: None }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> CardConfig {
        self.config
    }

    /// What is durable.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.disk.image()
    }

    /// How often each allocation unit was erased.
    #[must_use]
    pub fn erases(&self) -> Vec<u32> {
        self.ftl.erases()
    }

    /// What it did to its flash.
    #[must_use]
    pub fn wear(&self) -> CardWear {
        self.wear
    }

    /// Whether it is at the end of its life.
    #[must_use]
    pub fn is_worn_out(&self) -> bool {
        self.ftl.is_worn_out()
    }

    /// The disk inside, to let it fail.
    pub fn disk(&mut self) -> &mut SimDisk {
        &mut self.disk
    }

    /// Byte ranges that a cut now can hit beside the unsynced writes: what the card would program or move to save
    /// these. Empty if nothing is unsynced.
    #[must_use]
    pub fn in_danger(&self) -> Vec<Range<usize>> {
        if self.dirty.is_empty() {
            return Vec::new();
        }
        let (ftl, work) = self.work_of(&self.dirty);
        let page = self.config.page_bytes as usize;
        ftl.touched(&work).into_iter().map(|nth| nth as usize * page..(nth as usize + 1) * page).collect()
    }

    /// What `outcome` turns into garbage beside the unsynced writes.
    #[must_use]
    pub fn collateral(&self, outcome: &Outcome) -> Vec<Range<usize>> {
        let Outcome::Collateral { seed, .. } = *outcome else { return Vec::new() };
        let danger = self.in_danger();
        let torn = self.config.disk.torn_unit as usize;
        let mut rng = Rng::new(seed);
        let mut hit = Vec::new();
        if danger.is_empty() {
            return hit;
        }
        for _ in 0..=rng.below(DAMAGED_MAX) {
            let page = &danger[rng.index(danger.len())];
            let at = page.start + rng.index(page.len() / torn) * torn;
            hit.push(at..at + torn);
        }
        hit
    }

    fn pages(&self) -> u32 {
        let total = self.config.disk.geometry().total_bytes();
        u32::try_from(total / u64::from(self.config.page_bytes)).unwrap_or(u32::MAX)
    }

    /// What saving these pages would do, without doing it.
    fn work_of(&self, pages: &[u32]) -> (Ftl, Work) {
        let (mut ftl, mut work) = (self.ftl.clone(), Work::default());
        ftl.write(pages, &mut work);
        (ftl, work)
    }

    /// The card saves what its cache holds.
    fn save(&mut self) {
        let (ftl, work) = self.work_of(&self.dirty);
        self.ftl = ftl;
        let page = u64::from(self.config.page_bytes);
        self.wear.host_bytes += work.programmed * page;
        self.wear.moved_bytes += work.copied * page;
        self.wear.erases += work.erased;
        self.dirty.clear();
        self.dirty_bytes = 0;
        if self.ftl.is_worn_out() {
            let now = self.disk.ops();
            self.disk.read_only_at(Some(now));
        }
    }

    fn touch(&mut self, at: u64, len: usize) {
        let page = u64::from(self.config.page_bytes);
        let last = (at + (len as u64).max(1) - 1) / page;
        for nth in at / page..=last {
            let nth = u32::try_from(nth).unwrap_or(u32::MAX);
            if !self.dirty.contains(&nth) {
                self.dirty.push(nth);
            }
        }
        self.dirty_bytes += len as u64;
    }

    /// Keeps the state in which power fails at the operation that is about to happen.
    fn keep_cut(&mut self, operation: impl FnOnce(&mut Self)) {
        let Some(mut cuts) = self.cuts.take() else { return };
        if !self.disk.is_off() {
            let mut cut = self.clone();
            cut.disk.cut_at(Some(cut.disk.ops()));
            operation(&mut cut);
            cuts.push(cut);
        }
        self.cuts = Some(cuts);
    }

    /// Whether the next sync is a lie.
    fn lies_now(&self) -> bool {
        self.config.lies_bytes > 0 && self.dirty_bytes <= u64::from(self.config.lies_bytes)
    }
}

impl ReadStorage for SimCard {
    type Error = Fault;

    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.disk.read(at, into)
    }
}

impl Storage for SimCard {
    fn erase(&mut self, segment: u32) -> Result<(), Fault> {
        self.keep_cut(|cut| _ = cut.erase(segment));
        self.disk.erase(segment)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return self.disk.write(at, bytes);
        }
        self.keep_cut(|cut| _ = cut.write(at, bytes));
        let written = self.disk.write(at, bytes);
        if !matches!(written, Err(Fault::Broken(_))) {
            self.touch(at, bytes.len());
        }
        written
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.keep_cut(|cut| _ = cut.sync());
        if self.lies_now() {
            self.disk.fail_syncs(FailSync { at: 0, count: 1, effect: SyncEffect::StaysDirty });
            return match self.disk.sync() {
                Err(Fault::Broken(StorageErrorKind::SyncFailed)) => {
                    self.wear.lies += 1;
                    Ok(())
                }
                other => other,
            };
        }
        let synced = self.disk.sync();
        match synced {
            Ok(()) => self.save(),
            Err(Fault::Off) => {}
            // What is in limbo is not written any more, but for what stays dirty.
            Err(Fault::Broken(_)) if self.disk.unsynced_writes() == 0 => {
                self.dirty.clear();
                self.dirty_bytes = 0;
            }
            Err(Fault::Broken(_)) => {}
        }
        synced
    }
}

impl Timed for SimCard {
    fn cost_us(&self, access: Access) -> u64 {
        let times = &self.config.times;
        match access {
            Access::Read { len } => times.read_us + times.read_kib_us * len / 1024,
            Access::Write { .. } => times.accept_us,
            Access::Erase { .. } => 0,
            Access::Sync if self.dirty.is_empty() || self.lies_now() => times.accept_us,
            Access::Sync => {
                let (_, work) = self.work_of(&self.dirty);
                let programmed = (work.programmed + work.copied) * u64::from(self.config.page_bytes) / 1024;
                let busy = times.write_us + times.write_kib_us * programmed + times.erase_us * work.erased;
                let mut rng = Rng::derived(self.config.seed, self.disk.counters().syncs);
                let stalls = times.stall_one_in > 0 && rng.chance(1, times.stall_one_in);
                let (least, most) = times.stall_us;
                busy + if stalls { least + rng.below(most - least) } else { 0 }
            }
        }
    }
}

impl Cuttable for SimCard {
    fn ops(&self) -> u64 {
        self.disk.ops()
    }

    fn cut_at(&mut self, op: Option<u64>) {
        self.disk.cut_at(op);
    }

    fn power_off(&mut self) {
        self.disk.power_off();
    }

    fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    fn at_risk(&self) -> Vec<AtRisk> {
        self.disk.at_risk()
    }

    fn outcomes(&self, plan: &Plan) -> Vec<Outcome> {
        let mut outcomes = self.disk.outcomes(&Plan { collateral: false, ..*plan });
        if plan.collateral && !self.dirty.is_empty() {
            let mut rng = Rng::derived(plan.seed ^ 0xc011, self.disk.ops());
            let more = (0..plan.samples.max(1)).map(|_| Outcome::Collateral { unit: 0, seed: rng.below(1 << 32) });
            outcomes.extend(more);
        }
        outcomes
    }

    fn after(&self, outcome: &Outcome) -> Self {
        let hit = self.collateral(outcome);
        let of_disk = match outcome {
            Outcome::Collateral { .. } if self.disk.at_risk().is_empty() => &Outcome::None,
            Outcome::Collateral { .. } => &Outcome::All,
            other => other,
        };
        let mut disk = self.disk.after(of_disk);
        if let Outcome::Collateral { seed, .. } = outcome {
            let mut rng = Rng::derived(*seed, 1);
            disk.rot(|image| {
                for range in hit {
                    image.edit(range, |_, part| rng.fill(part));
                }
            });
            // The medium holds nobody to what was written before the damage.
            disk.forget_lives();
        }
        let mut after = Self { disk, dirty: self.dirty.clone(), cuts: None, ftl: self.ftl.clone(), ..*self };
        after.save();
        after
    }

    fn counters(&self) -> Counters {
        self.disk.counters()
    }

    fn record_ops(&mut self, on: bool) {
        self.disk.record_ops(on);
    }

    fn op_log(&self) -> &[Op] {
        self.disk.op_log()
    }

    fn record_cuts(&mut self, on: bool) {
        self.cuts = on.then(Vec::new);
    }

    fn take_cuts(&mut self) -> Vec<Self> {
        self.cuts.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
