//! Every cut of a workload with every outcome, and every cut of what follows.
//!
//! Invariants:
//! - the states are those that the run itself passes through ([`crate::cuttable::Cuttable::record_cuts`]), so nothing
//!   is run twice to reach them;
//! - a pair of (image, what is owed) is examined once;
//! - every violation has an id by which [`Explorer::replay`] reaches the same state and tells the story.

use super::collateral::{self, damage_of};
use super::frames::list;
use super::machine::{Bench, Tally, World};
use super::medium::{Fate, Medium, digest};
use super::story::Story;
use super::tell::tell_cut;
use super::trace::{CutId, TraceId};
use super::workload::{Boot, Shape, Step, Stop, Workload, append, boot};
use crate::model::{Damage, Violation};
use crate::outcome::{Outcome, Plan};
use lastgasp_core::format::frame::FrameKind;
use lastgasp_core::hal::ReadStorage;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How far a campaign goes.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Outcomes of a first cut.
    pub first: Plan,
    /// Outcomes of a second cut.
    pub second: Plan,
    /// Of how many states after a first cut one is cut again; 0 for none.
    pub second_one_in: u64,
    /// Of how many states after a first cut one is examined; 1 for all.
    pub first_one_in: u64,
    /// So many violations of one clause are kept; all are counted.
    pub violations_kept: usize,
}

impl Default for Reach {
    fn default() -> Self {
        let first = Plan::default();
        let second = Plan { exhaustive: 2, singles: 2, samples: 1, ..first };
        Self { first, second, second_one_in: 8, first_one_in: 1, violations_kept: 3 }
    }
}

/// What a campaign did and found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// First cuts examined: pairs of a cut and an outcome.
    pub cuts: u64,
    /// Second cuts examined.
    pub second_cuts: u64,
    /// Cases that led to a state examined before.
    pub repeated: u64,
    /// First cuts that hit synced neighbours.
    pub damaged: u64,
    /// Mounts, operations, acknowledged records, cases of the decision table.
    pub tally: Tally,
    /// The first broken promises of each clause and workload, each with its case.
    pub violations: Vec<(TraceId, Violation)>,
    /// How many there were, by clause.
    pub broken: BTreeMap<&'static str, u64>,
}

impl Findings {
    /// Adds what another campaign did and found.
    pub fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.second_cuts += other.second_cuts;
        self.repeated += other.repeated;
        self.damaged += other.damaged;
        add_tally(&mut self.tally, other.tally);
        self.violations.extend(other.violations);
        for (clause, count) in other.broken {
            *self.broken.entry(clause).or_default() += count;
        }
    }
}

fn add_tally(to: &mut Tally, from: Tally) {
    to.mounts += from.mounts;
    to.operations += from.operations;
    to.acknowledged += from.acknowledged;
    to.cases |= from.cases;
}

/// Runs `act`; a panic of the engine or a broken contract with the medium becomes a violation.
///
/// # Errors
/// What `act` found, or its panic.
pub fn guarded<T>(act: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation::Panicked(text.unwrap_or_default()))
    })
}

/// Explores one workload on one kind of medium.
#[derive(Debug)]
pub struct Explorer {
    reach: Reach,
    benches: [Bench; 2],
    examined: HashSet<u64>,
    findings: Findings,
    /// Only this case, if it is replayed.
    only: Option<TraceId>,
    story: Story,
    /// The story as it was when the case that is replayed was over.
    ended: Option<Vec<String>>,
    verbose: bool,
}

impl Explorer {
    /// An explorer that goes as far as `reach`.
    #[must_use]
    pub fn new(shape: Shape, reach: Reach) -> Self {
        Self {
            reach,
            benches: [Bench::new(shape), Bench::new(shape)],
            examined: HashSet::new(),
            findings: Findings::default(),
            only: None,
            story: Story::default(),
            ended: None,
            verbose: false,
        }
    }

    /// Runs the workload, with every cut of it.
    #[must_use]
    pub fn explore<M: Medium>(mut self, workload: &Workload) -> Findings {
        let mut base = Bench::new(workload.shape);
        let result = guarded(|| self.run::<M>(workload, &mut base));
        let id = TraceId { profile: M::NAME.to_owned(), workload: workload.name.clone(), cuts: Vec::new() };
        if let Err(violation) = result {
            *self.findings.broken.entry(violation.clause()).or_default() += 1;
            self.findings.violations.push((id, violation));
        }
        add_tally(&mut self.findings.tally, base.tally);
        for bench in &self.benches {
            add_tally(&mut self.findings.tally, bench.tally);
        }
        self.findings
    }

    /// Lists the frames on the medium and dumps what was torn when a case is replayed.
    #[must_use]
    pub fn verbose(mut self, on: bool) -> Self {
        self.verbose = on;
        self
    }

    /// Runs one case again; returns its story, and what is broken if it still is.
    #[must_use]
    pub fn replay<M: Medium>(mut self, workload: &Workload, id: &TraceId) -> (Vec<String>, Option<Violation>) {
        let mut base = Bench::new(workload.shape);
        self.story = Story::told();
        base.story = self.story.clone();
        self.benches.iter_mut().for_each(|bench| bench.story = self.story.clone());
        self.only = Some(id.clone());
        let result = guarded(|| self.run::<M>(workload, &mut base));
        let found = self.findings.violations.into_iter().find(|(case, _)| case == id).map(|(_, v)| v);
        (self.ended.unwrap_or_else(|| self.story.lines()), found.or(result.err().filter(|_| id.cuts.is_empty())))
    }

    fn run<M: Medium>(&mut self, workload: &Workload, base: &mut Bench) -> Result<(), Violation> {
        let medium: M = base.formatted()?;
        let mut world = World::new();
        let mut number = 0;
        let name = &workload.name;
        let mut tap = |cut: M, world: &World| {
            self.first_cuts(name, number, &cut, world);
            number += 1;
        };
        let tap: super::machine::Tap<'_, M> = &mut tap;
        let medium = base.run(medium, &mut world, &workload.boots, Some(tap))?;
        base.story.tell(|| "a last look".to_owned());
        base.look(medium, &world, &Damage::default())?;
        Ok(())
    }

    /// The outcomes of the `nth` cut of a case: those of the plan, or the one that is replayed.
    fn outcomes<M: Medium>(&self, cut: &M, nth: usize, number: u64) -> Vec<Outcome> {
        match &self.only {
            Some(only) => only.cuts.get(nth).filter(|c| c.number == number).map(|c| c.outcome).into_iter().collect(),
            None => cut.outcomes(if nth == 0 { &self.reach.first } else { &self.reach.second }),
        }
    }

    fn first_cuts<M: Medium>(&mut self, name: &str, number: u64, cut: &M, world: &World) {
        let owed = hash_of(world);
        for outcome in self.outcomes(cut, 0, number) {
            let id = CutId { number, outcome };
            let medium = cut.after(&outcome);
            let Some(key) = self.fresh(&medium, owed, outcome) else { continue };
            if self.only.is_none() && self.reach.first_one_in > 1 && !key.is_multiple_of(self.reach.first_one_in) {
                continue;
            }
            self.findings.cuts += 1;
            let twice = match &self.only {
                Some(only) => only.cuts.len() > 1,
                None => self.reach.second_one_in > 0 && (key >> 8).is_multiple_of(self.reach.second_one_in),
            };
            if self.only.is_some() {
                tell_cut(&self.story, cut, &outcome, world, &self.benches[0].shape(), self.verbose);
            }
            let damage = damage_of(cut, &outcome, world, &self.benches[0].shape());
            self.findings.damaged += u64::from(damage.log_hit);
            let result = guarded(|| self.after_first(name, id, medium, world, twice, &damage));
            let result = excused(result, &damage);
            if self.only.as_ref().is_some_and(|only| only.cuts.len() == 1) {
                self.ended = Some(self.story.lines());
            }
            if let Err(violation) = result {
                self.violation::<M>(name, vec![id], violation);
            }
        }
    }

    /// The digest of a state that was not examined before.
    fn fresh<M: Medium>(&mut self, medium: &M, owed: u64, outcome: Outcome) -> Option<u64> {
        // What reads differently from mount to mount is told apart by how it came about.
        let image = medium.digest().unwrap_or_else(|| digest(&medium.bytes()) ^ hash_of(&outcome));
        let key = image ^ owed.rotate_left(17);
        if self.examined.insert(key) || self.only.is_some() {
            return Some(key);
        }
        self.findings.repeated += 1;
        None
    }

    fn after_first<M: Medium>(
        &mut self,
        name: &str,
        id: CutId,
        medium: M,
        world: &World,
        twice: bool,
        damage: &Damage,
    ) -> Result<(), Violation> {
        let [first, _] = &mut self.benches;
        let boots = continuation(&first.shape(), id);
        let mut world = world.clone();
        if !twice {
            let medium = first.run_tapped(medium, &mut world, &boots, None, damage)?;
            first.look(medium, &world, damage)?;
            return Ok(());
        }
        let shape = first.shape();
        let mut first = std::mem::replace(first, Bench::new(shape));
        let mut number = 0;
        let mut tap = |cut: M, world: &World| {
            self.second_cuts(name, id, number, &cut, world, damage);
            number += 1;
        };
        let result = guarded(|| {
            let medium = first.run_tapped(medium, &mut world, &boots, Some(&mut tap), damage)?;
            first.look(medium, &world, damage)
        });
        self.benches[0] = first;
        result.map(|_| ())
    }

    fn second_cuts<M: Medium>(
        &mut self,
        name: &str,
        first: CutId,
        number: u64,
        cut: &M,
        world: &World,
        before: &Damage,
    ) {
        let owed = hash_of(world);
        for outcome in self.outcomes(cut, 1, number) {
            let id = CutId { number, outcome };
            let medium = cut.after(&outcome);
            if self.fresh(&medium, owed, outcome).is_none() {
                continue;
            }
            self.findings.second_cuts += 1;
            if self.only.is_some() {
                tell_cut(&self.story, cut, &outcome, world, &self.benches[0].shape(), self.verbose);
            }
            let mut world = world.clone();
            bind(&mut world, &medium, cut, &self.benches[1].shape());
            let [_, second] = &mut self.benches;
            let boots = [boot(vec![append(&[25]), Step::Commit, append(&[12]), Step::Commit], Stop::Close)];
            let mut damage = before.clone();
            collateral::add(&mut damage, damage_of(cut, &outcome, &world, &second.shape()));
            let result = guarded(|| {
                let medium = second.run_tapped(medium, &mut world, &boots, None, &damage)?;
                second.look(medium, &world, &damage)
            });
            let result = excused(result.map(|_| ()), &damage);
            if self.only.is_some() {
                self.ended = Some(self.story.lines());
            }
            if let Err(violation) = result {
                self.violation::<M>(name, vec![first, id], violation);
            }
        }
    }

    fn violation<M: Medium>(&mut self, name: &str, cuts: Vec<CutId>, violation: Violation) {
        let id = TraceId { profile: M::NAME.to_owned(), workload: name.to_owned(), cuts };
        let count = self.findings.broken.entry(violation.clause()).or_default();
        *count += 1;
        if *count <= self.reach.violations_kept as u64 {
            self.findings.violations.push((id, violation));
        }
    }
}

/// Where a mount saw cells that may read differently next time, its verdict binds once its origin is on the medium:
/// then what it did not see may never come back. The model learns that from the medium, as the call had not returned.
fn bind<M: Medium>(world: &mut World, medium: &M, cut: &M, shape: &Shape) {
    let Some(epoch) = world.main.epoch_in_doubt().filter(|_| world.alternative.is_some()) else { return };
    let geometry = medium.clone().into_storage(shape).geometry();
    let segments = list(&medium.bytes(), shape, &geometry);
    let origin = segments.iter().flat_map(|s| &s.frames).find(|f| {
        f.frame.kind == FrameKind::Origin && f.frame.epoch == epoch && f.frame.first_seq == world.main.first_of_boot()
    });
    let in_flight = |at: usize, end: usize| {
        cut.at_risk().iter().any(|risk| risk.at < end as u64 && (at as u64) < risk.at + risk.len)
    };
    if origin.is_some_and(|f| !in_flight(f.bytes.start, f.bytes.end)) {
        world.main.started();
        world.alternative = None;
    }
}

/// A store without an intact header may be refused.
fn excused(result: Result<(), Violation>, damage: &Damage) -> Result<(), Violation> {
    match result {
        Err(Violation::Refused(_)) if damage.may_refuse => Ok(()),
        other => other,
    }
}

fn hash_of<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a node does after a cut; which of several depends on the cut.
fn continuation(shape: &Shape, id: CutId) -> Vec<Boot> {
    let half = shape.segment_bytes / 4;
    let states = |lens: &[u32], keys: &[u8]| Step::Append {
        rows: lens.iter().map(|len| (1, *len)).collect(),
        states: keys.to_vec(),
    };
    match hash_of(&id) % 5 {
        0 => vec![boot(vec![append(&[30]), Step::Commit, states(&[20, 9], &[1]), Step::Commit], Stop::Close)],
        1 => {
            let steps = vec![append(&[30]), Step::Commit, append(&[20]), append(&[half; 2]), Step::Commit];
            vec![Boot { bound: 3, ..boot(steps, Stop::Crash(Fate::None)) }]
        }
        2 => vec![
            boot(vec![append(&[half; 2]), Step::Commit, append(&[half; 2]), Step::Begin, Step::Sync], Stop::Close),
            boot(vec![states(&[], &[2]), Step::Commit], Stop::Crash(Fate::All)),
        ],
        3 => vec![
            boot(vec![], Stop::Crash(Fate::None)),
            boot(vec![append(&[9; 3]), Step::Begin], Stop::Crash(Fate::Seeded(id.number))),
            boot(vec![append(&[40]), Step::Commit], Stop::Close),
        ],
        _ => {
            let part = u32::try_from(shape.frame_bytes / 3).unwrap_or(9);
            vec![boot(vec![append(&[part; 4]), Step::Commit, append(&[9]), Step::Commit], Stop::Close)]
        }
    }
}
