//! The flash before and after a cut, for a driver.
//!
//! Invariants:
//! - a state kept by `record_cuts` is made by doing the operation on a clone whose power fails at it;
//! - a mount follows every cut, so metastable cells of earlier cuts are drawn anew; those of this one show their first
//!   look.

use super::SimNor;
use super::flight::{self, Flight};
use crate::cuttable::Cuttable;
use crate::outcome::{Outcome, Plan};
use crate::power::{AtRisk, Counters, Meter, Op};
use std::sync::Arc;

impl<const WRITE: usize, const ERASE: usize> SimNor<WRITE, ERASE> {
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

impl<const WRITE: usize, const ERASE: usize> Cuttable for SimNor<WRITE, ERASE> {
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
        let Some(flight) = &self.flight else { return Vec::new() };
        let (at, len) = (u64::from(flight.at()), flight.len() as u64);
        vec![AtRisk { op: self.meter.ops(), at, len, unit_at: at, unit_len: len }]
    }

    fn outcomes(&self, plan: &Plan) -> Vec<Outcome> {
        flight::outcomes(self.flight.as_ref(), &self.cells, WRITE, self.meter.ops(), plan)
    }

    fn after(&self, outcome: &Outcome) -> Self {
        let mut next = Self {
            config: self.config,
            cells: self.cells.clone(),
            programmed: Arc::clone(&self.programmed),
            erases: self.erases.clone(),
            worn: self.worn.clone(),
            flight: None,
            meter: Meter::default(),
            counters: self.counters,
            cuts: None,
        };
        next.cells.remount();
        match &self.flight {
            None => assert_eq!(*outcome, Outcome::None, "outcome {outcome} of no operation in flight"),
            Some(_) if *outcome == Outcome::None => {}
            Some(flight) => {
                flight.settle(&mut next.cells, outcome);
                let words = flight.at() as usize / WRITE..(flight.at() as usize + flight.len()) / WRITE;
                match flight {
                    Flight::Program { .. } if *outcome == Outcome::All => next.set_programmed(words, true),
                    Flight::Program { .. } => {}
                    Flight::Erase { at, len } => {
                        next.set_programmed(words, false);
                        next.erases[(at / len) as usize] += 1;
                    }
                }
            }
        }
        next
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
