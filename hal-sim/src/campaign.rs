//! A campaign: a list of tasks, run by a few threads.
//!
//! Invariants: tasks share nothing, so their order does not matter; a task that panics is a violation, not the end.

use crate::disk::SimDisk;
use crate::driver::explore::{Explorer, Findings, Reach};
use crate::driver::faulty::{named, variants};
use crate::driver::machine::{Bench, Tally};
use crate::driver::medium::{Flash, Medium};
use crate::driver::rot::{RotReach, closed};
use crate::driver::story::Story;
use crate::driver::trace::TraceId;
use crate::driver::workload::{Shapes, Workload, by_hand, by_seed, tables_by_seed};
use crate::model::Violation;
use crate::outcome::Plan;
use crate::sdcard::{Card, LyingCard};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A kind of medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// A disk with a volatile cache.
    Disk,
    /// NOR flash.
    Nor,
    /// An SD card that honours sync.
    SdCard,
    /// An SD card that lies about sync: expected to lose, and no broken promise.
    Liar,
}

impl Profile {
    /// Its name in trace ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => SimDisk::NAME,
            Self::Nor => Flash::NAME,
            Self::SdCard => Card::NAME,
            Self::Liar => LyingCard::NAME,
        }
    }

    /// All of them, those that honour sync first.
    pub const ALL: [Self; 4] = [Self::Nor, Self::Disk, Self::SdCard, Self::Liar];

    /// Whether it honours sync.
    #[must_use]
    pub fn is_honest(self) -> bool {
        self != Self::Liar
    }

    /// The shapes of its stores.
    #[must_use]
    pub fn shapes(self) -> Shapes {
        match self {
            Self::Disk | Self::SdCard | Self::Liar => Shapes::disk(),
            Self::Nor => Shapes::nor(),
        }
    }
}

/// How far a campaign goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What a `cargo test` can wait for: seconds.
    Smoke,
    /// About a minute and a half on two cores.
    Short,
    /// All there is: hours.
    Full,
}

/// What a campaign is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// How far it goes.
    pub extent: Extent,
    /// On which media.
    pub profiles: Vec<Profile>,
    /// How many workloads by chance on each.
    pub seeds: u64,
    /// How many threads.
    pub threads: usize,
    /// Only workloads whose names begin so.
    pub only: Option<String>,
}

/// What kind of task a row of the result is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Every cut of a workload.
    Cuts,
    /// Failures of syncs and writes put into it, with cuts.
    Failures,
    /// Flipped bits of what it leaves.
    Rot,
}

/// One piece of work.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) profile: Profile,
    pub(crate) kind: Kind,
    pub(crate) workload: Workload,
}

/// What one task did and found.
#[derive(Debug, Clone)]
pub struct Row {
    /// On which medium.
    pub profile: Profile,
    /// What was done.
    pub kind: Kind,
    /// To which workload.
    pub workload: String,
    /// What that crosses.
    pub about: &'static str,
    /// First cuts.
    pub cuts: u64,
    /// Second cuts.
    pub second_cuts: u64,
    /// States that had been examined before.
    pub repeated: u64,
    /// First cuts that hit synced neighbours.
    pub damaged: u64,
    /// Bits flipped, and how many of those cost records.
    pub flips: (u64, u64),
    /// Mounts, operations, acknowledged records, cases.
    pub tally: Tally,
    /// What broke, by clause.
    pub broken: BTreeMap<&'static str, u64>,
    /// The first of it, with ids.
    pub violations: Vec<(String, Violation)>,
    /// How long it took.
    pub time: Duration,
}

/// So many violations of one clause are shown of each row.
const VIOLATIONS_SHOWN: usize = 3;

/// Second cuts after one of so many first cuts: NOR flash has many more operations and outcomes than a disk.
pub(crate) fn reach_of(extent: Extent, profile: Profile, kind: Kind) -> Reach {
    let base = Reach::default();
    let (first_one_in, second_one_in) = match (extent, profile, kind) {
        (Extent::Smoke, Profile::Disk, Kind::Cuts) => (2, 60),
        (Extent::Smoke, Profile::Nor, Kind::Cuts) => (40, 200),
        (Extent::Smoke, Profile::Disk, _) => (64, 0),
        (Extent::Short, Profile::Disk, Kind::Cuts) => (1, 10),
        (Extent::Short, Profile::Nor, Kind::Cuts) => (4, 400),
        (Extent::Short, Profile::Disk, _) => (50, 50),
        (Extent::Full, Profile::Disk, Kind::Cuts) => (1, 1),
        (Extent::Full, Profile::Nor, Kind::Cuts) => (1, 8),
        (Extent::Full, Profile::Disk, _) => (1, 8),
        (_, Profile::Nor, _) => (64, 0),
        // As on a disk, and the damage beside: so many more outcomes.
        (Extent::Smoke, Profile::SdCard | Profile::Liar, _) => (8, 400),
        (Extent::Short, Profile::SdCard | Profile::Liar, _) => (1, 40),
        (Extent::Full, Profile::SdCard | Profile::Liar, _) => (1, 4),
    };
    let first = match profile {
        Profile::Disk | Profile::SdCard | Profile::Liar => base.first,
        // A word has up to 256 bits in flight: single fates of a few, and samples.
        Profile::Nor => Plan { singles: 3, ..base.first },
    };
    Reach { first, first_one_in, second_one_in, ..base }
}

fn tasks(options: &Options) -> Vec<Task> {
    let mut tasks = Vec::new();
    for &profile in &options.profiles {
        let shapes = profile.shapes();
        let by_hand = by_hand(&shapes);
        let seeded = (0..options.seeds).map(|seed| by_seed(seed, &shapes));
        let tables = (0..options.seeds).filter_map(|seed| tables_by_seed(seed, &shapes));
        let cuts = by_hand.iter().cloned().chain(seeded).chain(tables);
        tasks.extend(cuts.map(|workload| Task { profile, kind: Kind::Cuts, workload }));
        if profile == Profile::Disk {
            // Row groups change what is written, not when: two of them are enough but for the long campaign.
            let chosen = by_hand.iter().filter(|workload| {
                let name = workload.name.as_str();
                match options.extent {
                    Extent::Smoke => name == "w15",
                    Extent::Short => name.starts_with('w') || ["g4", "g6", "t3", "t8"].contains(&name),
                    Extent::Full => true,
                }
            });
            tasks.extend(chosen.cloned().map(|workload| Task { profile, kind: Kind::Failures, workload }));
        }
        let damaged = by_hand.iter().filter(|workload| match options.extent {
            Extent::Smoke => profile == Profile::Nor && workload.name == "w2",
            Extent::Short => ["w2", "w3", "w6", "g4", "g6", "t0", "t1"].contains(&workload.name.as_str()),
            Extent::Full => true,
        });
        let damaged = damaged.filter(|_| matches!(profile, Profile::Disk | Profile::Nor));
        tasks.extend(damaged.cloned().map(|workload| Task { profile, kind: Kind::Rot, workload }));
    }
    if let Some(only) = &options.only {
        tasks.retain(|task| task.workload.name.starts_with(only.as_str()));
    }
    // The long ones first, so that the threads end together.
    tasks.sort_by_key(|t| (t.profile != Profile::Nor, t.kind, t.workload.name.clone()));
    tasks
}

/// Runs a campaign; `progress` is told how many tasks of how many are done.
#[must_use]
pub fn run(options: &Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Vec<Row> {
    let tasks = tasks(options);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = run_one(task, reach_of(options.extent, task.profile, task.kind), options.extent);
                    rows.lock().expect("no task panics while it holds this").push(row);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, tasks.len());
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no task panics while it holds this");
    rows.sort_by_key(|row| (row.profile, row.kind, number_of(row)));
    rows
}

/// Workloads by hand before those by seed, each by number.
fn number_of(row: &Row) -> (u8, u64) {
    let class = match row.workload.as_bytes().first() {
        Some(b'w') => 0,
        Some(b'g') => 1,
        Some(b't') => 2,
        Some(b's') => 3,
        _ => 4,
    };
    (class, row.workload[1..].parse().unwrap_or(0))
}

/// Runs one task on its medium.
pub(crate) fn run_one(task: &Task, reach: Reach, extent: Extent) -> Row {
    match task.profile {
        Profile::Disk => run_task::<SimDisk>(task, reach, extent),
        Profile::Nor => run_task::<Flash>(task, reach, extent),
        Profile::SdCard => run_task::<Card>(task, reach, extent),
        Profile::Liar => run_task::<LyingCard>(task, reach, extent),
    }
}

fn run_task<M: Medium>(task: &Task, reach: Reach, extent: Extent) -> Row {
    let start = Instant::now();
    let Task { profile, kind, workload } = task;
    let mut row = Row {
        profile: *profile,
        kind: *kind,
        workload: workload.name.clone(),
        about: workload.about,
        cuts: 0,
        second_cuts: 0,
        repeated: 0,
        damaged: 0,
        flips: (0, 0),
        tally: Tally::default(),
        broken: BTreeMap::new(),
        violations: Vec::new(),
        time: Duration::ZERO,
    };
    match kind {
        Kind::Cuts => row.take(Explorer::new(workload.shape, reach).explore::<M>(workload)),
        Kind::Failures => {
            let places = match extent {
                Extent::Smoke => 3,
                Extent::Short => 5,
                Extent::Full => 40,
            };
            for variant in variants(workload, places) {
                row.take(Explorer::new(variant.shape, reach).explore::<M>(&variant));
            }
        }
        Kind::Rot => rot::<M>(workload, extent, &mut row),
    }
    row.time = start.elapsed();
    row
}

impl Row {
    fn take(&mut self, found: Findings) {
        let mut all = Findings { tally: self.tally, ..Findings::default() };
        all.add(found);
        self.tally = all.tally;
        self.cuts += all.cuts;
        self.second_cuts += all.second_cuts;
        self.repeated += all.repeated;
        self.damaged += all.damaged;
        for (clause, count) in all.broken {
            *self.broken.entry(clause).or_default() += count;
        }
        for (id, violation) in all.violations {
            let alike = self.violations.iter().filter(|(_, v)| v.clause() == violation.clause()).count();
            if alike < VIOLATIONS_SHOWN {
                self.violations.push((id.to_string(), violation));
            }
        }
    }
}

fn rot<M: Medium>(workload: &Workload, extent: Extent, row: &mut Row) {
    let mut bench = Bench::new(workload.shape);
    let reach = RotReach {
        all_bits: extent == Extent::Full,
        go_on_one_in: if extent == Extent::Full { 8 } else { 32 },
        // A store with tables is larger; a part of it holds all there is.
        share: if extent == Extent::Short && workload.name.starts_with('t') { (1, 3) } else { (0, 1) },
    };
    match closed::<M>(workload, &mut bench) {
        Err(violation) => {
            row.broken.insert(violation.clause(), 1);
            row.violations.push((format!("{}:{}", M::NAME, workload.name), violation));
        }
        Ok(store) => {
            let found = store.flip_all(&mut bench, &reach);
            row.flips = (found.flips, found.costly);
            row.tally = found.tally;
            for (at, bit, violation) in found.violations {
                row.broken.insert(violation.clause(), found.broken);
                row.violations.push((format!("{}:{}:rot:{at:#x}.{bit}", M::NAME, workload.name), violation));
            }
        }
    }
}

/// Runs one case again.
///
/// # Errors
/// There is no such case.
pub fn replay(id: &str, verbose: bool) -> Result<(Vec<String>, Option<Violation>), String> {
    if id.contains(":rot:") {
        return replay_rot(id);
    }
    let id: TraceId = id.parse().map_err(|e| format!("{e}"))?;
    let profile = profile_of(&id.profile)?;
    let shapes = profile.shapes();
    let workload = named(&id.workload, &shapes).ok_or_else(|| format!("there is no workload {}", id.workload))?;
    let explorer = Explorer::new(workload.shape, Reach::default()).verbose(verbose);
    Ok(match profile {
        Profile::Disk => explorer.replay::<SimDisk>(&workload, &id),
        Profile::Nor => explorer.replay::<Flash>(&workload, &id),
        Profile::SdCard => explorer.replay::<Card>(&workload, &id),
        Profile::Liar => explorer.replay::<LyingCard>(&workload, &id),
    })
}

pub(crate) fn profile_of(name: &str) -> Result<Profile, String> {
    let known = Profile::ALL.into_iter().find(|p| p.name() == name);
    known.ok_or_else(|| format!("there is no profile {name:?}: nor, disk, sdcard or sdcard-liar"))
}

fn replay_rot(id: &str) -> Result<(Vec<String>, Option<Violation>), String> {
    let malformed = || format!("{id:?} is not the id of a flipped bit, such as disk:w3:rot:0x1628.0");
    let (place, bits) = id.split_once(":rot:").ok_or_else(malformed)?;
    let (profile, name) = place.split_once(':').ok_or_else(malformed)?;
    let (at, bit) = bits.strip_prefix("0x").and_then(|f| f.split_once('.')).ok_or_else(malformed)?;
    let at = usize::from_str_radix(at, 16).map_err(|_| malformed())?;
    let bit = bit.parse().ok().filter(|bit| *bit < 8).ok_or_else(malformed)?;
    let profile = profile_of(profile)?;
    let shapes = profile.shapes();
    let workload = named(name, &shapes).ok_or_else(|| format!("there is no workload {name}"))?;
    match profile {
        Profile::Disk => flip::<SimDisk>(&workload, at, bit),
        Profile::Nor => flip::<Flash>(&workload, at, bit),
        Profile::SdCard | Profile::Liar => Err("bits are flipped on disk and nor only".to_owned()),
    }
}

fn flip<M: Medium>(workload: &Workload, at: usize, bit: u32) -> Result<(Vec<String>, Option<Violation>), String> {
    let mut bench = Bench::new(workload.shape);
    let store = closed::<M>(workload, &mut bench).map_err(|e| e.to_string())?;
    if at >= store.image.len() {
        return Err(format!("the store ends at {:#x}", store.image.len()));
    }
    let hit = store.frames.iter().find(|f| f.bytes.contains(&at)).map(ToString::to_string);
    bench.story = Story::told();
    bench.story.tell(|| format!("hit: {}", hit.unwrap_or_else(|| "no frame".to_owned())));
    let result = store.flip(&mut bench, at, bit, true);
    Ok((bench.story.lines(), result.err()))
}
