//! What every simulated medium offers to a driver that cuts its power.
//!
//! Invariants:
//! - `outcomes` and `after` are functions of the medium's state and their arguments; they change nothing;
//! - every outcome of `outcomes` is one that `after` takes, here and on any medium that did the same calls;
//! - `after` gives a medium with fresh power: operation 0 is next, no cut is set, nothing is recorded, transient
//!   failures are gone; wear, rot, counters and what lies on the medium stay.
//!
//! Two ways to drive an exhaustive campaign:
//! - rerun: for each `n`, clone the fresh medium, `cut_at(Some(n))`, run the workload until it fails;
//! - record: run the workload once with `record_cuts(true)` and take the states. The engine cannot know of a cut
//!   before it happens, so the states are the same, and the workload is run once instead of once a cut. The driver
//!   keeps what had been acknowledged at each [`Cuttable::ops`] on the way.

use crate::outcome::{Outcome, Plan};
use crate::power::{AtRisk, Counters, Op};

/// A medium whose power can be cut at any operation.
pub trait Cuttable: Clone {
    /// Operations since power came on; after a cut, the number of the operation that was cut.
    fn ops(&self) -> u64;

    /// Lets power fail at the operation of this number (counted from 0 since power came on).
    fn cut_at(&mut self, op: Option<u64>);

    /// Lets power fail now, between two operations.
    fn power_off(&mut self);

    /// `true` once power has failed.
    fn is_off(&self) -> bool;

    /// What the outcomes decide on, for telling what one means: on a disk, the units by their index; on NOR flash, one
    /// entry for the word or block in flight (its units are the bits that would be cleared, from the lowest address
    /// and the lowest bit on).
    fn at_risk(&self) -> Vec<AtRisk>;

    /// What may be on the medium when power comes back, if it failed now or has failed already.
    fn outcomes(&self, plan: &Plan) -> Vec<Outcome>;

    /// The medium when power has come back, with what `outcome` says on it.
    ///
    /// # Panics
    /// If `outcome` names a unit that is not at risk: then the id belongs to another run.
    #[must_use]
    fn after(&self, outcome: &Outcome) -> Self;

    /// What the medium did in its whole life.
    fn counters(&self) -> Counters;

    /// Starts a recording of the operations, or ends it and drops it.
    fn record_ops(&mut self, on: bool);

    /// The recording so far, the operation that was cut included.
    fn op_log(&self) -> &[Op];

    /// From now on keeps, for every operation, the medium as if power had failed at it; or ends this.
    fn record_cuts(&mut self, on: bool);

    /// Takes the states kept so far, in order; each is off and its `ops` is the number of the operation cut.
    /// The recording goes on.
    fn take_cuts(&mut self) -> Vec<Self>;
}
