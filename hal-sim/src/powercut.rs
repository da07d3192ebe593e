//! What `lastgasp powercut` runs: every cut of the workloads written by hand, and the lives of whole nodes, on all
//! profiles and all cores.
//!
//! Invariants: what is found is a function of the request, unless it is bounded by time; every broken promise has an id
//! that [`replay`] takes; a card that lies is judged apart.

use crate::campaign::{self, Extent, Kind, Profile, Row, Task, profile_of, reach_of, run_one};
use crate::clocked::Timed;
use crate::disk::SimDisk;
use crate::driver::explore::Reach;
use crate::driver::medium::{Flash, Medium};
use crate::driver::workload::{by_hand, by_seed};
use crate::model::Violation;
use crate::node::life::{LifePlan, Lived, live};
use crate::node::sums::Sums;
use crate::node::traffic::{Bodies, Traffic};
use crate::sdcard::{Card, LyingCard};
use crate::supply::Script;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How thoroughly the workloads written by hand are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Not at all.
    Nothing,
    /// A sample of all cuts and outcomes: seconds.
    Sample,
    /// Every cut with every outcome: minutes.
    Single,
    /// And every cut of what follows: hours.
    Double,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Request {
    /// On which media.
    pub profiles: Vec<Profile>,
    /// How thoroughly workloads are cut.
    pub depth: Depth,
    /// The first seed.
    pub seed: u64,
    /// How many workloads by chance are cut on each medium.
    pub workloads: u64,
    /// How many nodes live on each medium.
    pub lives: u64,
    /// How many days each lives.
    pub days: u64,
    /// Lets nodes live until the time is over, however many that are.
    pub time: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// The supply of the nodes that live.
    pub script: Script,
    /// What they take in.
    pub traffic: Traffic,
    /// What their records say.
    pub bodies: Bodies,
}

impl Default for Request {
    /// Every honest medium and the lying card, in well under a minute on two cores.
    fn default() -> Self {
        Self {
            profiles: Profile::ALL.to_vec(),
            depth: Depth::Sample,
            seed: 0,
            workloads: 4,
            lives: 6,
            days: 10,
            time: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            script: Script::default(),
            traffic: Traffic::default(),
            bodies: Bodies::default(),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Pieces of work that are done.
    pub done: u64,
    /// Of so many; `None` if the time decides.
    pub total: Option<u64>,
    /// Cuts so far.
    pub cuts: u64,
}

/// What was found on one medium.
#[derive(Debug)]
pub struct Verdict {
    /// Which.
    pub profile: Profile,
    /// The first seed.
    pub seed: u64,
    /// Cuts of workloads, and cuts of what follows.
    pub explored: (u64, u64),
    /// Mounts, operations and acknowledged records of these.
    pub explored_mounts: u64,
    /// Operations of them.
    pub explored_operations: u64,
    /// Records acknowledged in them.
    pub explored_acknowledged: u64,
    /// Cuts of them that hit synced neighbours.
    pub explored_damaged: u64,
    /// Nodes that lived.
    pub lives: u64,
    /// What their lives came to.
    pub sums: Sums,
    /// Broken promises, by clause.
    pub broken: BTreeMap<&'static str, u64>,
    /// The first of them, with the ids that replay them.
    pub violations: Vec<(String, Violation)>,
    /// Time spent on it, over all threads.
    pub busy: Duration,
}

/// So many broken promises of one clause are kept with their ids.
const VIOLATIONS_KEPT: usize = 3;

impl Verdict {
    fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            seed,
            explored: (0, 0),
            explored_mounts: 0,
            explored_operations: 0,
            explored_acknowledged: 0,
            explored_damaged: 0,
            lives: 0,
            sums: Sums::default(),
            broken: BTreeMap::new(),
            violations: Vec::new(),
            busy: Duration::ZERO,
        }
    }

    /// Power cuts, of all kinds.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.explored.0 + self.explored.1 + self.sums.cuts
    }

    /// Operations of the medium.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.explored_operations + self.sums.operations
    }

    /// Mounts.
    #[must_use]
    pub fn mounts(&self) -> u64 {
        self.explored_mounts + self.sums.mounts
    }

    /// Records acknowledged as durable.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.explored_acknowledged + self.sums.acknowledged
    }

    /// Acknowledged records that were lost although nothing hit them.
    #[must_use]
    pub fn acknowledged_lost(&self) -> u64 {
        let in_lives = self.sums.lost.get("broken").copied().unwrap_or(0);
        in_lives.max(self.of_clause("P1"))
    }

    /// How often promises whose clause begins so were broken.
    #[must_use]
    pub fn of_clause(&self, clause: &str) -> u64 {
        self.broken.iter().filter(|(name, _)| name.starts_with(clause)).map(|(_, count)| count).sum()
    }

    /// All broken promises.
    #[must_use]
    pub fn all_broken(&self) -> u64 {
        self.broken.values().sum()
    }

    /// Cuts a second and thread.
    #[must_use]
    pub fn cuts_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss)]
        let cuts = self.cuts() as f64;
        cuts / self.busy.as_secs_f64().max(1e-9)
    }

    fn violation(&mut self, id: String, violation: Violation, count: bool) {
        if count {
            *self.broken.entry(violation.clause()).or_default() += 1;
        }
        let alike = self.violations.iter().filter(|(_, known)| known.clause() == violation.clause()).count();
        if alike < VIOLATIONS_KEPT {
            self.violations.push((id, violation));
        }
    }

    fn take_row(&mut self, row: Row) {
        self.explored.0 += row.cuts;
        self.explored.1 += row.second_cuts;
        self.explored_mounts += row.tally.mounts;
        self.explored_operations += row.tally.operations;
        self.explored_acknowledged += row.tally.acknowledged;
        self.explored_damaged += row.damaged;
        self.busy += row.time;
        for (clause, count) in row.broken {
            *self.broken.entry(clause).or_default() += count;
        }
        for (id, violation) in row.violations {
            self.violation(id, violation, false);
        }
    }

    fn take_life(&mut self, seed: u64, lived: Lived, took: Duration) {
        self.lives += 1;
        self.sums.add(lived.sums);
        self.busy += took;
        if let Some(broken) = lived.broken {
            let id = LifeId { profile: self.profile, seed, boot: broken.boot.max(1) };
            self.violation(id.to_string(), broken.violation, true);
        }
    }
}

/// The id of a boot in a life: `disk:n7:b12`, the 12th boot of the node with seed 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeId {
    /// On which medium.
    pub profile: Profile,
    /// Seed of the life.
    pub seed: u64,
    /// Which boot, from 1.
    pub boot: u64,
}

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:n{}:b{}", self.profile.name(), self.seed, self.boot)
    }
}

impl FromStr for LifeId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        let malformed = || format!("{id:?} is not the id of a boot in a life, such as disk:n7:b12");
        let mut parts = id.split(':');
        let profile = profile_of(parts.next().unwrap_or_default())?;
        let seed = parts.next().and_then(|part| part.strip_prefix('n')).and_then(|n| n.parse().ok());
        let boot = parts.next().and_then(|part| part.strip_prefix('b')).and_then(|n| n.parse().ok());
        match (seed, boot.filter(|boot| *boot > 0), parts.next()) {
            (Some(seed), Some(boot), None) => Ok(Self { profile, seed, boot }),
            _ => Err(malformed()),
        }
    }
}

fn is_life(id: &str) -> bool {
    let name = id.split(':').nth(1).and_then(|name| name.strip_prefix('n'));
    name.is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
}

#[derive(Debug)]
enum Job {
    Explore(Box<Task>, Reach),
    Live(Profile, u64),
}

fn jobs(request: &Request) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &profile in &request.profiles {
        let shapes = profile.shapes();
        let seeds = request.seed..request.seed + request.workloads;
        let workloads = by_hand(&shapes).into_iter().chain(seeds.map(|seed| by_seed(seed, &shapes)));
        let extent = match request.depth {
            Depth::Nothing => continue,
            Depth::Sample => Extent::Smoke,
            Depth::Single | Depth::Double => Extent::Full,
        };
        let mut reach = reach_of(extent, profile, Kind::Cuts);
        match request.depth {
            Depth::Single => reach.second_one_in = 0,
            Depth::Double => reach.second_one_in = 1,
            Depth::Sample | Depth::Nothing => {}
        }
        let task = |workload| Box::new(Task { profile, kind: Kind::Cuts, workload });
        jobs.extend(workloads.map(|workload| Job::Explore(task(workload), reach)));
    }
    // Lives take turns on the media, so that a run that is bounded by time gives each its share.
    let lives = request.seed..request.seed + request.lives;
    jobs.extend(lives.flat_map(|seed| request.profiles.iter().map(move |profile| Job::Live(*profile, seed))));
    jobs
}

/// A life on one medium.
#[must_use]
pub fn live_on(profile: Profile, plan: &LifePlan<'_>) -> Lived {
    fn on<M: Medium + Timed>(plan: &LifePlan<'_>) -> Lived {
        live::<M>(plan)
    }
    match profile {
        Profile::Disk => on::<SimDisk>(plan),
        Profile::Nor => on::<Flash>(plan),
        Profile::SdCard => on::<Card>(plan),
        Profile::Liar => on::<LyingCard>(plan),
    }
}

fn plan_of(request: &Request, seed: u64) -> LifePlan<'_> {
    let Request { days, script, traffic, bodies, .. } = request;
    LifePlan { seed, days: *days, script, traffic, bodies, tell: None, verbose: false }
}

/// Runs everything; `progress` is told after each piece of work.
#[must_use]
pub fn run(request: &Request, progress: &(dyn Fn(Progress) + Sync)) -> Vec<Verdict> {
    let start = Instant::now();
    let jobs = jobs(request);
    let total = request.time.is_none().then_some(jobs.len() as u64);
    let (next, done, cuts) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let verdicts = request.profiles.iter().map(|profile| Verdict::new(*profile, request.seed));
    let verdicts = Mutex::new(verdicts.collect::<Vec<_>>());
    let is_over = || request.time.is_some_and(|time| start.elapsed() >= time);
    std::thread::scope(|scope| {
        for _ in 0..request.jobs.max(1) {
            scope.spawn(|| {
                while !is_over() {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let made;
                    let job = match (jobs.get(nth), request.time) {
                        (Some(job), _) => job,
                        (None, Some(_)) => {
                            made = further(request, nth - jobs.len());
                            &made
                        }
                        (None, None) => return,
                    };
                    let before = Instant::now();
                    let result = work(request, job);
                    let took = before.elapsed();
                    let mut verdicts = verdicts.lock().expect("no work panics while it holds this");
                    let of = match job {
                        Job::Explore(task, _) => task.profile,
                        Job::Live(profile, _) => *profile,
                    };
                    let new = result.cuts();
                    if let Some(verdict) = verdicts.iter_mut().find(|verdict| verdict.profile == of) {
                        match result {
                            Worked::Row(row) => verdict.take_row(*row),
                            Worked::Life(seed, lived) => verdict.take_life(seed, *lived, took),
                        }
                    }
                    drop(verdicts);
                    let cuts = cuts.fetch_add(new, Ordering::Relaxed) + new;
                    progress(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total, cuts });
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("no work panics while it holds this");
    // Threads finish in any order; what is shown may not depend on it.
    verdicts.iter_mut().for_each(|verdict| verdict.violations.sort_by(|a, b| a.0.cmp(&b.0)));
    verdicts
}

/// The nth life beyond those that were asked for.
fn further(request: &Request, nth: usize) -> Job {
    let profiles = request.profiles.len().max(1);
    Job::Live(request.profiles[nth % profiles], request.seed + request.lives + (nth / profiles) as u64)
}

enum Worked {
    Row(Box<Row>),
    Life(u64, Box<Lived>),
}

impl Worked {
    fn cuts(&self) -> u64 {
        match self {
            Self::Row(row) => row.cuts + row.second_cuts,
            Self::Life(_, lived) => lived.sums.cuts,
        }
    }
}

fn work(request: &Request, job: &Job) -> Worked {
    match job {
        Job::Explore(task, reach) => Worked::Row(Box::new(run_one(task, *reach, Extent::Short))),
        Job::Live(profile, seed) => Worked::Life(*seed, Box::new(live_on(*profile, &plan_of(request, *seed)))),
    }
}

/// A case again, as a story.
#[derive(Debug)]
pub struct Replayed {
    /// What happened, in order.
    pub story: Vec<String>,
    /// What is broken, if it still is.
    pub broken: Option<Violation>,
    /// Whether the medium honours sync.
    pub is_honest: bool,
}

/// Runs one case again: a cut of a workload, a flipped bit, or a boot in a life of `request`.
///
/// # Errors
/// There is no such case; the text says why.
pub fn replay(id: &str, request: &Request, verbose: bool) -> Result<Replayed, String> {
    let profile = profile_of(id.split(':').next().unwrap_or_default())?;
    let is_honest = profile.is_honest();
    if !is_life(id) {
        let (story, broken) = campaign::replay(id, verbose)?;
        return Ok(Replayed { story, broken, is_honest });
    }
    let id: LifeId = id.parse()?;
    let plan = LifePlan { tell: Some(id.boot), verbose, days: u64::from(u16::MAX), ..plan_of(request, id.seed) };
    let lived = live_on(id.profile, &plan);
    if lived.story.is_empty() {
        return Err(format!(
            "this life ends before its boot {}: {}",
            id.boot,
            match lived.broken {
                Some(broken) => format!("boot {} shows {}", broken.boot, broken.violation),
                None => "the medium is at its end".to_owned(),
            }
        ));
    }
    Ok(Replayed { story: lived.story, broken: lived.broken.map(|broken| broken.violation), is_honest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Request {
        Request { workloads: 0, lives: 2, days: 2, depth: Depth::Nothing, ..Request::default() }
    }

    #[test]
    fn ids_of_lives_parse_back_and_others_are_refused() {
        for id in ["disk:n7:b12", "sdcard-liar:n0:b1"] {
            assert_eq!(id.parse::<LifeId>().unwrap().to_string(), id);
            assert!(is_life(id));
        }
        for id in ["disk:n7", "disk:n7:b0", "disk:n7:b1:x", "tape:n1:b1", "disk:w3:c1:a", ""] {
            assert!(id.parse::<LifeId>().is_err(), "{id}");
        }
        assert!(!is_life("disk:w3:c1:a"));
    }

    #[test]
    fn honest_media_keep_every_promise_and_a_lying_card_is_caught_with_an_id_that_replays_it() {
        let request = small();
        let verdicts = run(&request, &|_| ());
        for verdict in verdicts.iter().filter(|verdict| verdict.profile.is_honest()) {
            assert!(verdict.broken.is_empty(), "{}: {:?}", verdict.profile.name(), verdict.violations);
            assert!(verdict.cuts() > 20 && verdict.acknowledged() > 300, "{verdict:?}");
        }
        let liar = verdicts.iter().find(|verdict| !verdict.profile.is_honest()).unwrap();
        let (id, violation) = liar.violations.first().expect("a lying card loses");
        let replayed = replay(id, &request, true).unwrap();
        assert_eq!(replayed.broken.as_ref(), Some(violation), "{id}");
        assert!(!replayed.is_honest && replayed.story.iter().any(|line| line.contains("the power is off")));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let outline = |jobs| {
            let verdicts = run(&Request { jobs, ..small() }, &|_| ());
            let one = |v: &Verdict| (v.cuts(), v.operations(), v.acknowledged(), v.broken.clone(), v.sums.lost.clone());
            verdicts.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(outline(1), outline(4));
    }

    #[test]
    fn a_case_that_does_not_exist_is_refused_with_words() {
        for id in ["disk:w99:c1:a", "nowhere:n1:b1", "disk:n1:b0", "disk"] {
            assert!(replay(id, &small(), false).is_err(), "{id}");
        }
    }
}
