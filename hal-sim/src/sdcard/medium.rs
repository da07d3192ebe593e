//! The two cards that campaigns run on: an honest one, and one that lies about sync.
//!
//! Invariant: they differ in nothing else.

use super::{CardConfig, Mapping, SimCard};
use crate::clocked::{Access, Timed};
use crate::cuttable::Cuttable;
use crate::disk::faults::FailSync;
use crate::driver::medium::{Medium, digest};
use crate::driver::workload::Shape;
use crate::nor::Wear;
use crate::outcome::{Outcome, Plan};
use crate::power::{AtRisk, Counters, Fault, Op};
use lastgasp_core::hal::{Geometry, ReadStorage, Storage, StorageErrorKind};
use std::ops::Range;

/// A card of a campaign; `LIES` about sync or does not.
#[derive(Debug, Clone)]
pub struct Habit<const LIES: bool>(SimCard);

/// An honest card.
pub type Card = Habit<false>;

/// A card that says a sync is done when it is not.
pub type LyingCard = Habit<true>;

/// What a lying card keeps in its cache, in segments.
const LIES_SEGMENTS: u32 = 2;

impl<const LIES: bool> Habit<LIES> {
    /// The card inside.
    #[must_use]
    pub fn card(&self) -> &SimCard {
        &self.0
    }

    fn config(shape: &Shape) -> CardConfig {
        let lies_bytes = if LIES { LIES_SEGMENTS * shape.segment_bytes } else { 0 };
        // Both kinds of mapping are met: one on the plain shapes, the other on those of more segments.
        let mapping = if shape.segments > 8 { Mapping::Page } else { Mapping::Block { open: 2 } };
        CardConfig { lies_bytes, mapping, ..CardConfig::new(shape.segments, shape.segment_bytes) }
    }
}

impl<const LIES: bool> ReadStorage for Habit<LIES> {
    type Error = Fault;

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read(at, into)
    }
}

impl<const LIES: bool> Storage for Habit<LIES> {
    fn erase(&mut self, segment: u32) -> Result<(), Fault> {
        self.0.erase(segment)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write(at, bytes)
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.0.sync()
    }
}

impl<const LIES: bool> Timed for Habit<LIES> {
    fn cost_us(&self, access: Access) -> u64 {
        self.0.cost_us(access)
    }

    fn wear_of_segments(&self, _: &Shape) -> Vec<u32> {
        self.0.erases()
    }

    fn flash_bytes(&self) -> u64 {
        let wear = self.0.wear();
        wear.host_bytes + wear.moved_bytes
    }
}

impl<const LIES: bool> Cuttable for Habit<LIES> {
    fn ops(&self) -> u64 {
        self.0.ops()
    }

    fn cut_at(&mut self, op: Option<u64>) {
        self.0.cut_at(op);
    }

    fn power_off(&mut self) {
        self.0.power_off();
    }

    fn is_off(&self) -> bool {
        self.0.is_off()
    }

    fn at_risk(&self) -> Vec<AtRisk> {
        self.0.at_risk()
    }

    fn outcomes(&self, plan: &Plan) -> Vec<Outcome> {
        // Damage to neighbours is what makes a card a card; how much of it is looked at follows the samples.
        self.0.outcomes(&Plan { collateral: true, ..*plan })
    }

    fn after(&self, outcome: &Outcome) -> Self {
        Self(self.0.after(outcome))
    }

    fn counters(&self) -> Counters {
        self.0.counters()
    }

    fn record_ops(&mut self, on: bool) {
        self.0.record_ops(on);
    }

    fn op_log(&self) -> &[Op] {
        self.0.op_log()
    }

    fn record_cuts(&mut self, on: bool) {
        self.0.record_cuts(on);
    }

    fn take_cuts(&mut self) -> Vec<Self> {
        self.0.take_cuts().into_iter().map(Self).collect()
    }
}

impl<const LIES: bool> Medium for Habit<LIES> {
    type Storage = Self;
    const NAME: &'static str = if LIES { "sdcard-liar" } else { "sdcard" };

    fn fresh(shape: &Shape) -> Self {
        Self(SimCard::new(Self::config(shape)))
    }

    fn from_bytes(shape: &Shape, bytes: &[u8]) -> Self {
        Self(SimCard::from_image(Self::config(shape), bytes))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.image().to_vec()
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
        self.0.disk().fail_syncs(fail);
        true
    }

    fn fail_writes(&mut self, at: u64, count: u64) {
        self.0.disk().fail_writes(at, count, StorageErrorKind::Io);
    }

    fn wear_out(&mut self, _: &Shape, segment: u32, _: Wear) {
        self.0.disk().wear_out(segment);
    }

    fn digest(&self) -> Option<u64> {
        Some(digest(&self.bytes()))
    }

    fn collateral(&self, outcome: &Outcome) -> Vec<Range<usize>> {
        self.0.collateral(outcome)
    }
}
