//! The life of one node: boot after boot, cut after cut, until its days are over.
//!
//! Invariants: a life ends at the first broken promise, with an id that replays it; what was counted until then is
//! kept; every boot gets memory full of garbage.

use super::hours::{End, Hours};
use super::sums::{CutPoint, Sums, Under, losses};
use super::traffic::{Arrivals, Bodies, Traffic};
use crate::clocked::{Access, Clocked, Spent, Timed};
use crate::driver::collateral::{self, damage_of};
use crate::driver::explore::guarded;
use crate::driver::machine::World;
use crate::driver::medium::{Fate, Medium};
use crate::driver::observe::observe_with;
use crate::driver::story::{Story, describe_mount};
use crate::driver::tell::tell_cut;
use crate::driver::workload::Shape;
use crate::model::{Damage, Violation};
use crate::outcome::Plan;
use crate::rig::{Rig, ScanRig};
use crate::rng::Rng;
use crate::supply::{Reserve, Script, Weather};
use crate::wall::WallClock;
use lastgasp_core::hal::SliceArena;
use lastgasp_core::node::Node;
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, format};

/// A day, in microseconds.
pub const DAY_US: u64 = 86_400_000_000;

/// One of so many boots finds mains that go again at once.
const WEAK_BOOTS: u64 = 10;

/// What a life is a function of.
#[derive(Debug, Clone, Copy)]
pub struct LifePlan<'p> {
    /// Seed of everything that is left to chance.
    pub seed: u64,
    /// How many days it lasts.
    pub days: u64,
    /// The supply.
    pub script: &'p Script,
    /// What comes in.
    pub traffic: &'p Traffic,
    /// What the records say.
    pub bodies: &'p Bodies,
    /// Tells of this boot, counted from 1, and of the mount that follows; then the life is over.
    pub tell: Option<u64>,
    /// With the frames on the medium and a dump of what was torn.
    pub verbose: bool,
}

/// A broken promise, and the boot before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Number of the boot whose end it shows; 0 for none.
    pub boot: u64,
    /// What broke.
    pub violation: Violation,
}

/// What became of a life.
#[derive(Debug)]
pub struct Lived {
    /// Counts and measurements.
    pub sums: Sums,
    /// What broke, if anything did.
    pub broken: Option<Broken>,
    /// The story, if it was asked for.
    pub story: Vec<String>,
}

/// The shape of a store that lives: larger than those that are cut exhaustively, so that retention takes its time, and
/// small enough that a mount is quick. On the disk old log is rewritten into tables.
#[must_use]
pub fn shape_of(profile: &str) -> Shape {
    let group_bytes = if profile == "disk" { 16_384 } else { 0 };
    match profile == "nor" {
        true => Shape { segments: 24, segment_bytes: 4096, frame_bytes: 4096, arena_bytes: 8192, ..Shape::nor() },
        false => Shape {
            segments: 24,
            segment_bytes: 16_384,
            frame_bytes: 8192,
            arena_bytes: 16_384,
            group_bytes,
            ..Shape::disk()
        },
    }
}

/// Lets a node live.
#[must_use]
pub fn live<M: Medium + Timed>(plan: &LifePlan<'_>) -> Lived {
    let mut life = Life::new(plan, shape_of(M::NAME));
    let result = guarded(|| life.run::<M>());
    let broken = result.err().map(|violation| Broken { boot: life.boots, violation });
    Lived { broken, story: life.story.lines(), sums: life.sums }
}

/// A medium that is lent to the store of one boot.
pub(super) type NodeOf<'m, 's, M> = Node<'m, &'s mut Clocked<M>, SliceArena<'m>>;

pub(super) struct Life<'p> {
    pub(super) plan: &'p LifePlan<'p>,
    pub(super) shape: Shape,
    pub(super) world: World,
    pub(super) sums: Sums,
    pub(super) story: Story,
    pub(super) arrivals: Arrivals,
    pub(super) weather: Weather,
    pub(super) rng: Rng,
    wall: WallClock,
    damage: Damage,
    now_us: u64,
    spent: Spent,
    /// Boots that have ended.
    boots: u64,
    /// The cut that the next mount follows.
    last_cut: Option<CutPoint>,
}

impl<'p> Life<'p> {
    fn new(plan: &'p LifePlan<'p>, shape: Shape) -> Self {
        Self {
            plan,
            shape,
            world: World::new(),
            sums: Sums::default(),
            story: Story::default(),
            arrivals: Arrivals::new(plan.traffic, plan.seed),
            weather: Weather::new(plan.script, plan.seed),
            rng: Rng::derived(plan.seed, 0x11fe),
            wall: WallClock::new(plan.seed),
            damage: Damage::default(),
            now_us: 0,
            spent: Spent::default(),
            boots: 0,
            last_cut: None,
        }
    }

    fn run<M: Medium + Timed>(&mut self) -> Result<(), Violation> {
        let size = self.shape.rig_size();
        let (mut rig, mut scan) = (Rig::new(&size), ScanRig::new(&size));
        rig.poison();
        let mut storage = M::fresh(&self.shape).into_storage(&self.shape);
        let made = format(&mut storage, rig.parts().0, &FormatOptions { store_id: 0x1a57_9a59 ^ self.plan.seed });
        made.map_err(|e| Violation::Refused(e.to_string()))?;
        let mut medium = Some(M::of_storage(storage).power_cycle(Fate::All));
        while let Some(before) = medium.take() {
            let told = self.plan.tell.is_some_and(|tell| self.boots > tell);
            if told || self.now_us >= self.plan.days * DAY_US {
                self.measure(&before);
                break;
            }
            if self.plan.tell == Some(self.boots + 1) {
                self.story = Story::told();
            }
            medium = self.boot(before, &mut rig, &mut scan)?;
        }
        Ok(())
    }

    /// The reserve that a boot finds: full, or mains that go again at once, which cuts a mount or what follows it.
    fn reserve(&mut self) -> Reserve {
        if !self.rng.chance(1, WEAK_BOOTS) {
            return Reserve::new(self.plan.script.hold_up_us);
        }
        let most = [20_000, 200_000, 2_000_000][self.rng.index(3)];
        let mut reserve = Reserve::new(self.rng.below(most));
        reserve.set_mains(false);
        reserve
    }

    /// One boot; returns the medium as the next one finds it, or `None` if the medium is at its end.
    fn boot<M: Medium + Timed>(
        &mut self,
        mut medium: M,
        rig: &mut Rig,
        scan: &mut ScanRig,
    ) -> Result<Option<M>, Violation> {
        medium.record_ops(self.story.is_told());
        let bound = if self.rng.chance(1, 3) { u32::try_from(self.rng.below(200)).unwrap_or(0) } else { 0 };
        let reserve = self.reserve();
        let began_us = self.now_us;
        self.wall.boot(began_us);
        let reading = self.wall.read(began_us);
        let options =
            OpenOptions { wall_us: reading.wall_us, synchronised: reading.synchronised, volatile_bound: bound };
        let spent = std::mem::take(&mut self.spent);
        let mut clocked = Clocked::new(medium, &self.shape, began_us, reserve, spent);
        rig.poison();
        let (memory, [first, second]) = rig.parts();
        let spare = self.shape.spare.then_some(SliceArena(second));
        let opened = Store::open(&mut clocked, memory, SliceArena(first), spare, &options, &mut |_, _| ());
        // A mount in which the power fails may find the rest unreadable and go on: nobody is there to see it.
        let opened = opened.map_err(|e| e.to_string()).and_then(|mut store| match store.parts().0.is_off() {
            true => Err(String::new()),
            false => Ok(store),
        });
        let mut store = match opened {
            Ok(store) => store,
            Err(text) => {
                if !clocked.is_off() && self.damage.may_refuse {
                    // None of its headers is intact: this node is at its end.
                    self.sums.lose("collateral", self.world.main.records().len() as u64);
                    return Ok(None);
                }
                if !clocked.is_off() {
                    return Err(Violation::Refused(text));
                }
                self.sums.cuts_in_mounts += 1;
                return self.cut_off(clocked, began_us);
            }
        };
        self.mounted(&mut store, scan, began_us)?;
        let mut hours = Hours::new(self, Node::new(store, bound), bound);
        let end = hours.run()?;
        let since_us = hours.since_durable_us();
        drop(hours);
        self.ended(clocked, end, since_us)
    }

    /// Compares what a mount shows with what is owed.
    fn mounted<M: Medium + Timed>(
        &mut self,
        store: &mut Store<'_, &mut Clocked<M>, SliceArena<'_>>,
        scan: &mut ScanRig,
        began_us: u64,
    ) -> Result<(), Violation> {
        self.sums.mounts += 1;
        let report = *store.report();
        let bodies = self.plan.bodies;
        let (clocked, catalog) = store.parts();
        let took = clocked.now_us() - began_us;
        self.sums.recovery_us.push(u32::try_from(took).unwrap_or(u32::MAX));
        let doubtful = clocked.medium().digest().is_none();
        clocked.free = true;
        let fill = |tag, body: &mut [u8]| bodies.fill(tag, body);
        let seen = observe_with(clocked, catalog, &report, &mut scan.parts(), &fill)?;
        clocked.free = false;
        self.story.tell(|| format!("{} boot {}, mounted in {:.1} ms", clock(began_us), self.boots + 1, millis(took)));
        self.story.tell(|| describe_mount(&report, &seen));
        let checked = self.world.check(&seen, &self.damage, doubtful);
        let [ram, acknowledged, retention] = losses(self.world.main.records(), &seen);
        self.sums.lose("ram-tier", ram);
        self.sums.lose("retention", retention);
        self.sums.lose(if checked.is_ok() { "collateral" } else { "broken" }, acknowledged);
        if let Some(point) = self.last_cut.take() {
            let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            let (unacknowledged_lost, acknowledged_lost) = (small(ram), small(acknowledged));
            self.sums.points.push(CutPoint { unacknowledged_lost, acknowledged_lost, ..point });
        }
        self.world = checked?;
        self.sums.acknowledged_hit += acknowledged;
        // Whatever the damage made unprovable is settled now.
        self.damage.may_undo = None;
        Ok(())
    }

    fn ended<M: Medium + Timed>(
        &mut self,
        clocked: Clocked<M>,
        end: End,
        since_us: u64,
    ) -> Result<Option<M>, Violation> {
        if end == End::Power {
            return self.cut_off(clocked, since_us);
        }
        self.boots += 1;
        self.now_us = clocked.now_us() + 2_000_000;
        let (medium, spent) = clocked.into_parts();
        self.spent = spent;
        self.sums.operations += medium.ops();
        self.sums.lived_us = self.now_us;
        self.arrivals.skip_to(self.now_us);
        match end {
            End::Killed => {
                self.sums.kills += 1;
                Ok(Some(medium.power_cycle(Fate::All)))
            }
            End::Stopped => {
                self.sums.stops += 1;
                Ok(Some(medium.power_cycle(Fate::None)))
            }
            End::Failed(_) | End::Power => {
                self.measure(&medium);
                Ok(None)
            }
        }
    }

    /// The power is off: what it left is left to chance.
    fn cut_off<M: Medium + Timed>(&mut self, mut clocked: Clocked<M>, since_us: u64) -> Result<Option<M>, Violation> {
        let under = match clocked.cut_in {
            None => Under::Rest,
            Some(Access::Read { .. }) => Under::Mount,
            Some(Access::Write { .. }) => Under::Write,
            Some(Access::Erase { .. }) => Under::Erase,
            Some(Access::Sync) => Under::Sync,
        };
        clocked.power_off();
        self.sums.cuts += 1;
        self.boots += 1;
        let now_us = clocked.now_us();
        let (medium, spent) = clocked.into_parts();
        self.spent = spent;
        self.sums.operations += medium.ops();
        let plan = Plan { exhaustive: 2, singles: 3, samples: 3, seed: self.rng.any(), collateral: true };
        let outcomes = medium.outcomes(&plan);
        let outcome = outcomes[self.rng.index(outcomes.len())];
        self.story.tell(|| format!("{} the power is off, {}", clock(now_us), under.name()));
        tell_cut(&self.story, &medium, &outcome, &self.world, &self.shape, self.plan.verbose);
        let damage = damage_of(&medium, &outcome, &self.world, &self.shape);
        self.sums.damaged += u64::from(damage.log_hit);
        collateral::add(&mut self.damage, damage);
        let since_durable_us = now_us.saturating_sub(since_us);
        self.last_cut = Some(CutPoint { under, since_durable_us, unacknowledged_lost: 0, acknowledged_lost: 0 });
        self.now_us = now_us + self.weather.dark_us();
        self.sums.lived_us = self.now_us;
        self.arrivals.skip_to(self.now_us);
        Ok(Some(medium.after(&outcome)))
    }

    fn measure<M: Medium + Timed>(&mut self, medium: &M) {
        self.sums.written_bytes = self.spent.written.iter().sum();
        self.sums.flash_bytes = medium.flash_bytes();
        self.sums.longest_sync_us = self.spent.longest_sync_us;
        let erases = medium.wear_of_segments(&self.shape);
        self.sums.wear_is_erases = !erases.is_empty();
        self.sums.wear = match erases.is_empty() {
            true => self.spent.written.iter().map(|bytes| bytes / 1024).collect(),
            false => erases.into_iter().map(u64::from).collect(),
        };
    }
}

/// A time of a life, as a story shows it.
pub(super) fn clock(us: u64) -> String {
    let ms = us / 1000;
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let (hours, rest) = (rest / 3_600_000, rest % 3_600_000);
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    format!("day {days} {hours:02}:{minutes:02}:{:02}.{:03}", rest / 1000, rest % 1000)
}

pub(super) fn millis(us: u64) -> f64 {
    #[expect(clippy::cast_precision_loss)]
    let us = us as f64;
    us / 1000.0
}
