//! The disk before and after a cut, for a driver.
//!
//! Invariant: a state kept by `record_cuts` is made by doing the operation on a clone whose power fails at it, so there
//! is one way only in which a cut happens.

use super::survivors::Piece;
use super::{Life, SimDisk, survivors};
use crate::cuttable::Cuttable;
use crate::outcome::{Outcome, Plan};
use crate::power::{AtRisk, Counters, Op};

impl SimDisk {
    /// All that a cut now would decide on, oldest first.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let torn = self.config.torn_unit as usize;
        let mut pieces = self.limbo.clone();
        for write in &self.unsynced {
            survivors::split(write, torn, true, &mut pieces);
        }
        pieces
    }

    /// Keeps the state in which power fails at the operation that is about to happen.
    pub(super) fn keep_cut(&mut self, operation: impl FnOnce(&mut Self)) {
        let Some(mut cuts) = self.cuts.take() else { return };
        if !self.meter.is_off() {
            let log = self.meter.take_log();
            let mut cut = self.clone();
            self.meter.put_log(log);
            cut.meter.cut_at(Some(cut.meter.ops()));
            operation(&mut cut);
            cuts.push(cut);
        }
        self.cuts = Some(cuts);
    }
}

impl Cuttable for SimDisk {
    fn ops(&self) -> u64 {
        self.meter.ops()
    }

    fn cut_at(&mut self, op: Option<u64>) {
        self.meter.cut_at(op);
    }

    fn power_off(&mut self) {
        self.meter.power_off();
    }

    fn is_off(&self) -> bool {
        self.meter.is_off()
    }

    fn at_risk(&self) -> Vec<AtRisk> {
        self.pieces().iter().map(|piece| piece.at_risk(self.config.torn_unit as usize)).collect()
    }

    fn outcomes(&self, plan: &Plan) -> Vec<Outcome> {
        let collateral = plan.collateral && self.config.allocation_unit.is_some();
        survivors::outcomes(&self.pieces(), self.meter.ops(), plan, collateral)
    }

    fn after(&self, outcome: &Outcome) -> Self {
        let mut medium = self.medium.clone();
        survivors::settle(&mut medium, &self.pieces(), outcome, &self.config);
        Self {
            lives: self.lives.iter().map(|life| Life { front: life.durable, ..*life }).collect(),
            faults: self.faults.after_power(self.meter.ops()),
            counters: self.counters,
            ..Self::with_image(self.config, medium)
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn record_ops(&mut self, on: bool) {
        self.meter.record(on);
    }

    fn op_log(&self) -> &[Op] {
        self.meter.log()
    }

    fn record_cuts(&mut self, on: bool) {
        self.cuts = on.then(Vec::new);
    }

    fn take_cuts(&mut self) -> Vec<Self> {
        self.cuts.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
