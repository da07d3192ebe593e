//! Executes the steps of a workload on a store, and keeps the model beside it.
//!
//! Invariants:
//! - every mount gets memory that is full of garbage: nothing may survive in it;
//! - the model is told of an acknowledgement only after the call that gave it has returned, so the states kept for cuts
//!   during the call owe what was owed before;
//! - a panic of the engine, and a broken contract with the medium, are violations like any other.

use super::collateral;
use super::hands::Hands;
use super::medium::Medium;
use super::observe::{check_reverse, observe};
use super::ruin::ruin_of;
use super::story::{Story, describe_mount, describe_pool};
use super::workload::{Boot, Ruin, Shape};
use crate::model::{Damage, Keep, Model, Seen, Violation};
use crate::rig::{Rig, ScanRig};
use lastgasp_core::hal::SliceArena;
use lastgasp_core::reader::Reader;
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};

/// What a store owes, when what a mount saw is not yet bound by a write: cells between 0 and 1 may read differently
/// next time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// What it owes if the present boot has written, or saw the same as any other would.
    pub main: Model,
    /// What it owes if the present boot has not written yet and saw doubtful cells.
    pub alternative: Option<Box<Model>>,
}

impl World {
    /// A new store.
    #[must_use]
    pub fn new() -> Self {
        Self { main: Model::new(), alternative: None }
    }

    fn set_keep(&mut self, keep: Keep) {
        self.main.set_keep(keep);
        if let Some(alternative) = &mut self.alternative {
            alternative.set_keep(keep);
        }
    }

    /// Compares a mount with what is owed; `doubtful` if it saw cells that may read differently next time.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn check(&self, seen: &Seen, damage: &Damage, doubtful: bool) -> Result<Self, Violation> {
        let (base, settled) = match (collateral::check(&self.main, seen, damage), &self.alternative) {
            (Ok(settled), _) => (&self.main, settled),
            (Err(e), None) => return Err(e),
            (Err(e), Some(alternative)) => {
                (&**alternative, collateral::check(alternative, seen, damage).map_err(|_| e)?)
            }
        };
        let mut settled = settled;
        if doubtful {
            settled.forget_boots();
        }
        let alternative = doubtful.then(|| Box::new(self.alternative.as_deref().unwrap_or(base).clone()));
        Ok(Self { main: settled, alternative })
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// What was counted on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Mounts.
    pub mounts: u64,
    /// Operations of the medium.
    pub operations: u64,
    /// Records acknowledged as durable.
    pub acknowledged: u64,
    /// Cases of recovery's decision table that were visited, as bits.
    pub cases: u32,
}

/// Memory for one store at a time, and what was counted with it.
#[derive(Debug)]
pub struct Bench {
    shape: Shape,
    rig: Rig,
    scan: ScanRig,
    /// Counts.
    pub tally: Tally,
    /// What happened, in words, if wanted.
    pub story: Story,
}

/// The engine's store on a medium of the driver.
pub(super) type StoreOf<'m, M> = Store<'m, <M as Medium>::Storage, SliceArena<'m>>;

/// Told of each cut state, with what is owed if power fails there.
pub type Tap<'t, M> = &'t mut dyn FnMut(M, &World);

impl Bench {
    /// Memory for stores of this shape.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let size = shape.rig_size();
        Self {
            shape,
            rig: Rig::new(&size),
            scan: ScanRig::new(&size),
            tally: Tally::default(),
            story: Story::default(),
        }
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A medium with an empty store on it.
    ///
    /// # Errors
    /// It cannot be formatted.
    pub fn formatted<M: Medium>(&mut self) -> Result<M, Violation> {
        let mut storage = M::fresh(&self.shape).into_storage(&self.shape);
        self.rig.poison();
        let (memory, _) = self.rig.parts();
        format(&mut storage, memory, &FormatOptions { store_id: 0x1a57_9a59 })
            .map_err(|e| Violation::Refused(e.to_string()))?;
        Ok(M::of_storage(storage).power_cycle(super::medium::Fate::All))
    }

    /// Runs boots one after another; every mount is checked. With a tap, the states of all cuts are handed over.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run<M: Medium>(
        &mut self,
        medium: M,
        world: &mut World,
        boots: &[Boot],
        tap: Option<Tap<'_, M>>,
    ) -> Result<M, Violation> {
        self.run_tapped(medium, world, boots, tap, &Damage::default())
    }

    /// As [`Bench::run`], on a store that was damaged: what the damage may cost is forgiven in every mount.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run_tapped<M: Medium>(
        &mut self,
        mut medium: M,
        world: &mut World,
        boots: &[Boot],
        mut tap: Option<Tap<'_, M>>,
        damage: &Damage,
    ) -> Result<M, Violation> {
        for boot in boots {
            medium = self.boot(medium, world, boot, &mut tap, damage)?;
        }
        Ok(medium)
    }

    /// As [`Bench::run_tapped`], without a tap.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run_damaged<M: Medium>(
        &mut self,
        medium: M,
        world: &mut World,
        boots: &[Boot],
        damage: &Damage,
    ) -> Result<M, Violation> {
        self.run_tapped(medium, world, boots, None, damage)
    }

    fn boot<M: Medium>(
        &mut self,
        mut medium: M,
        world: &mut World,
        boot: &Boot,
        tap: &mut Option<Tap<'_, M>>,
        damage: &Damage,
    ) -> Result<M, Violation> {
        let ruin = self.ruin(&mut medium, world, boot.ruin);
        let damage = ruin.as_ref().unwrap_or(damage);
        let doubtful = medium.digest().is_none();
        medium.record_ops(self.story.is_told());
        medium.record_cuts(tap.is_some());
        self.rig.poison();
        let options = OpenOptions { volatile_bound: boot.bound, ..OpenOptions::default() };
        let (memory, [first, second]) = self.rig.parts();
        let spare = self.shape.spare.then_some(SliceArena(second));
        let storage = medium.into_storage(&self.shape);
        let mut store = Store::open(storage, memory, SliceArena(first), spare, &options, &mut |_, _| ())
            .map_err(|e| Violation::Refused(e.to_string()))?;
        store.set_keep(self.shape.keep.policy());
        world.set_keep(self.shape.keep);
        let report = *store.report();
        self.tally.mounts += 1;
        self.tally.cases |= report.cases.0;
        let mut mem = self.scan.parts();
        let (storage, catalog) = store.parts();
        let seen = observe(storage, catalog, &report, &mut mem)?;
        self.story.tell(|| describe_mount(&report, &seen));
        self.story.tell(|| describe_pool(catalog));
        *world = world.check(&seen, damage, doubtful)?;
        let mut hands = Hands {
            store: Some(store),
            world,
            tap,
            tally: &mut self.tally,
            story: &self.story,
            ticket: None,
            bound: boot.bound,
            wrote: false,
            over: false,
            told: 0,
            shape: self.shape,
            scan: &mut self.scan,
        };
        for step in &boot.steps {
            hands.step(step)?;
        }
        hands.stop(boot.stop)
    }

    /// Does the damage that comes before a boot; returns what it may cost.
    fn ruin<M: Medium>(&mut self, medium: &mut M, world: &mut World, ruin: Ruin) -> Option<Damage> {
        let hit = ruin_of(medium, &self.shape, ruin);
        if hit.is_empty() {
            return None;
        }
        let mut image = medium.bytes();
        for range in &hit {
            image[range.clone()].iter_mut().for_each(|b| *b = b.rotate_left(3) ^ 0x5a);
        }
        // Made anew from its bytes: the medium holds nobody to what was written before the damage.
        *medium = M::from_bytes(&self.shape, &image);
        self.story.tell(|| format!("{ruin:?} ruined: {hit:x?}"));
        if ruin != Ruin::LastHeader {
            world.main.ruin_manifest(ruin == Ruin::Manifest);
        }
        // No record stands in a header.
        let log_hit = matches!(ruin, Ruin::LastHeader | Ruin::LastHeaderAndEdits);
        Some(Damage { log_hit, ..Damage::default() })
    }

    /// A read-only mount, compared with what is owed, in both directions.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn look<M: Medium>(&mut self, medium: M, world: &World, damage: &Damage) -> Result<Seen, Violation> {
        let (seen, _) = self.look_and_keep(medium, world, damage)?;
        Ok(seen)
    }

    /// As [`Bench::look`]; also what is owed from then on.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn look_and_keep<M: Medium>(
        &mut self,
        medium: M,
        world: &World,
        damage: &Damage,
    ) -> Result<(Seen, World), Violation> {
        let doubtful = medium.digest().is_none();
        self.rig.poison();
        let (memory, _) = self.rig.parts();
        let storage = medium.into_storage(&self.shape);
        let mut reader =
            Reader::open(storage, memory, &mut |_, _| ()).map_err(|e| Violation::Refused(e.to_string()))?;
        self.tally.mounts += 1;
        let report = *reader.report();
        self.tally.cases |= report.cases.0;
        let mut mem = self.scan.parts();
        let (storage, catalog) = reader.parts();
        let seen = observe(storage, catalog, &report, &mut mem)?;
        self.story.tell(|| describe_mount(&report, &seen));
        let world = world.check(&seen, damage, doubtful)?;
        check_reverse(storage, catalog, &mut mem, &seen.items)?;
        Ok((seen, world))
    }
}
