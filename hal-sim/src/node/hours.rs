//! The hours of one boot: what comes in, what the node wants, what the mains do, in the order of their times.
//!
//! While core has no power policy of its own, this is what the node does with its sense: when it says that power fails,
//! nothing more is taken in and everything is made durable; when it says that power is back, the node goes on; and when
//! it has said so for three hold-ups and the node still lives, it is not believed any more.
//!
//! Invariants: at equal times the sync ends first, then the mains, the sense, the node's own wish, what comes in; the
//! model learns of numbers and acknowledgements after the step that gave them has returned.

use super::life::{Life, NodeOf, clock, millis};
use super::sums::Flush;
use super::traffic::Arrival;
use crate::clocked::{Clocked, Timed};
use crate::driver::medium::Medium;
use crate::driver::observe::{floors_of, row_of, scan_all, state_key, stream_name};
use crate::model::{Item, Violation};
use crate::rig::ScanRig;
use crate::supply::{Event, Sense};
use lastgasp_core::error::ReadOnlyReason;
use lastgasp_core::format::row::Lost;
use lastgasp_core::gaps::GapCause;
use lastgasp_core::hal::ReadStorage;
use lastgasp_core::node::{Batch, Class, Input, Next, Output, Refused, Taken};

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The power is off.
    Power,
    /// The process was killed.
    Killed,
    /// By a clean stop.
    Stopped,
    /// The medium takes no more writes.
    Failed(ReadOnlyReason),
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    SyncEnds,
    Mains,
    Sensed,
    Doubt,
    Due,
    Arrives,
}

/// A sync that is under way.
#[derive(Debug, Clone, Copy)]
struct Syncing {
    since_us: u64,
    ends_us: u64,
}

/// A last gasp that is under way.
#[derive(Debug, Clone, Copy)]
struct Gasp {
    mains_went_us: u64,
    hold_up_us: u64,
    upto: u64,
    records: u64,
}

type ErrorOf<M> = <<M as Medium>::Storage as ReadStorage>::Error;

/// The hours of one boot.
pub(super) struct Hours<'h, 'p, 'm, 's, M: Medium + Timed> {
    life: &'h mut Life<'p>,
    node: NodeOf<'m, 's, M>,
    bound: u32,
    wrote: bool,
    stopping: bool,
    due_us: Option<u64>,
    syncing: Option<Syncing>,
    /// The next thing that the weather does.
    weather: Option<(u64, Event)>,
    /// When the mains change next in an event that is under way, to what; the last one first.
    edges: Vec<(u64, bool)>,
    /// When the sense says something new, and what.
    sensed: Vec<(u64, bool)>,
    /// What the node believes of the mains.
    believes: bool,
    /// When it stops to believe that they fail.
    doubt_us: Option<u64>,
    gasp: Option<Gasp>,
    /// When the mains went, and what the reserve gave then; not if they were away when the node booted.
    mains_went: Option<(u64, u64)>,
    /// A batch that found memory full.
    waiting: Option<Arrival>,
    /// Memory for looking what a rewrite left out.
    scan: ScanRig,
    since_durable_us: u64,
    end: Option<End>,
}

impl<'h, 'p, 'm, 's, M: Medium + Timed> Hours<'h, 'p, 'm, 's, M> {
    pub(super) fn new(life: &'h mut Life<'p>, mut node: NodeOf<'m, 's, M>, bound: u32) -> Self {
        let now_us = node.medium().now_us();
        let mains = node.medium().reserve.mains();
        let weather = life.weather.next(now_us);
        let size = life.shape.rig_size();
        let mut hours = Self {
            life,
            node,
            bound,
            wrote: false,
            stopping: false,
            due_us: None,
            syncing: None,
            weather,
            edges: Vec::new(),
            sensed: Vec::new(),
            believes: true,
            doubt_us: None,
            gasp: None,
            mains_went: None,
            waiting: None,
            scan: ScanRig::new(&size),
            since_durable_us: now_us,
            end: None,
        };
        // The level is read at start.
        hours.sense(now_us, mains);
        hours
    }

    /// When the last commit became durable.
    pub(super) fn since_durable_us(&self) -> u64 {
        self.since_durable_us
    }

    fn now_us(&mut self) -> u64 {
        self.node.medium().now_us()
    }

    fn clocked(&mut self) -> &mut Clocked<M> {
        self.node.medium()
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.life.story.is_told() {
            let now = clock(self.now_us());
            self.life.story.tell(|| format!("{now} {}", text()));
        }
    }

    pub(super) fn run(&mut self) -> Result<End, Violation> {
        let life_ends_us = self.life.plan.days * super::life::DAY_US + 1;
        loop {
            let (at_us, what) = self.next();
            let busy = self.syncing.is_some();
            let at_us = at_us.max(self.now_us()).min(life_ends_us.max(self.now_us()));
            self.clocked().wait(at_us, busy);
            if self.clocked().is_off() {
                return Ok(self.off());
            }
            if at_us >= life_ends_us {
                return Ok(End::Killed);
            }
            self.happens(what)?;
            if self.clocked().is_off() {
                return Ok(self.off());
            }
            if let Some(end) = self.end {
                return Ok(end);
            }
        }
    }

    fn off(&mut self) -> End {
        if let Some(gasp) = self.gasp.take() {
            self.life.sums.flushes_missed += 1;
            let Gasp { hold_up_us, records, .. } = gasp;
            self.life.sums.flushes.push(Flush { hold_up_us, took_us: None, records });
        }
        End::Power
    }

    fn next(&mut self) -> (u64, Happening) {
        let edge = self.edges.last().map(|edge| edge.0).or(self.weather.map(|event| event.0));
        let takes_in = self.believes && self.waiting.is_none() && !self.stopping;
        let due = self.due_us.filter(|_| self.syncing.is_none());
        [
            (self.syncing.map(|s| s.ends_us), Happening::SyncEnds),
            (edge, Happening::Mains),
            (self.sensed.first().map(|s| s.0), Happening::Sensed),
            (self.doubt_us, Happening::Doubt),
            (due, Happening::Due),
            (Some(self.life.arrivals.next_us()).filter(|_| takes_in), Happening::Arrives),
        ]
        .into_iter()
        .filter_map(|(at, what)| Some((at?, what)))
        .min_by_key(|(at, _)| *at)
        .unwrap_or((u64::MAX, Happening::Due))
    }

    fn happens(&mut self, what: Happening) -> Result<(), Violation> {
        match what {
            Happening::SyncEnds => {
                let Some(syncing) = self.syncing.take() else { return Ok(()) };
                let synced = self.clocked().finish_sync(syncing.ends_us - syncing.since_us);
                self.tell(|| format!("sync: {:.1} ms", millis(syncing.ends_us - syncing.since_us)));
                self.step(Input::Synced(synced))?;
                if let Some(waiting) = self.waiting.take() {
                    self.arrives(waiting)?;
                }
            }
            Happening::Mains => self.mains(),
            Happening::Sensed => {
                let (_, mains) = self.sensed.remove(0);
                self.believe(mains)?;
            }
            Happening::Doubt => {
                self.doubt_us = None;
                self.tell(|| "the sense has told of a failure for too long, and is not believed".to_owned());
                self.believes = true;
                self.node.pause_rewriting(false);
            }
            Happening::Due => {
                self.due_us = None;
                self.step(Input::Tick)?;
            }
            Happening::Arrives => {
                let now_us = self.now_us();
                let arrival = self.life.arrivals.take(now_us);
                self.arrives(arrival)?;
            }
        }
        Ok(())
    }

    /// The mains change.
    fn mains(&mut self) {
        let now_us = self.now_us();
        if let Some((_, on)) = self.edges.pop() {
            self.edge(now_us, on);
        } else if let Some((_, event)) = self.weather.take() {
            self.tell(|| event.to_string());
            match event {
                Event::Cut => self.edge(now_us, false),
                Event::Yank if self.life.rng.chance(1, 4) => self.clocked().reserve.yank(),
                Event::Yank => {
                    // Aimed: chance alone would hardly ever hit an operation.
                    let op = self.clocked().medium().ops() + self.life.rng.below(10);
                    self.clocked().cut_at_op = Some(op);
                }
                Event::Sag(us) => {
                    self.edge(now_us, false);
                    self.edges.push((now_us + us, true));
                }
                Event::Bounce(times) => {
                    let mut at = now_us;
                    for nth in 0..2 * times + 1 {
                        self.edges.insert(0, (at, nth % 2 == 1));
                        at += 20_000 + self.life.rng.below(60_000);
                    }
                }
            }
        }
        if self.edges.is_empty() && self.weather.is_none() {
            self.weather = self.life.weather.next(now_us);
        }
    }

    fn edge(&mut self, now_us: u64, on: bool) {
        if on && !self.clocked().reserve.mains() {
            self.life.sums.survived_sags += 1;
        }
        self.clocked().reserve.set_mains(on);
        if !on {
            self.mains_went = Some((now_us, self.clocked().reserve.hold_up_us()));
        }
        self.sense(now_us, on);
    }

    /// The sense sees a level, and tells of it as it does.
    fn sense(&mut self, now_us: u64, on: bool) {
        match self.life.plan.script.sense {
            // An edge of a line is there within a millisecond.
            Sense::Right => self.sensed.push((now_us + 500, on)),
            Sense::Late(us) => self.sensed.push((now_us + us, on)),
            Sense::Opposite => self.sensed.push((now_us + 500, !on)),
            Sense::Stuck => {}
        }
    }

    fn believe(&mut self, mains: bool) -> Result<(), Violation> {
        if mains == self.believes {
            return Ok(());
        }
        self.believes = mains;
        self.node.pause_rewriting(!mains);
        if mains {
            self.tell(|| "the sense: power is back".to_owned());
            self.doubt_us = None;
            self.gasp = None;
            return Ok(());
        }
        self.tell(|| "the sense: power fails; nothing more is taken in, everything is made durable".to_owned());
        let now_us = self.now_us();
        self.doubt_us = Some(now_us + 3 * self.life.plan.script.hold_up_us.max(1_000_000));
        let (next, durable) = (self.node.store().next_seq(), self.node.store().durable_upto());
        self.gasp =
            self.mains_went.filter(|_| !self.node.medium().reserve.mains()).map(|(mains_went_us, hold_up_us)| Gasp {
                mains_went_us,
                hold_up_us,
                upto: next - 1,
                records: (next - 1).saturating_sub(durable),
            });
        // What the node has to do for it is an empty batch of the class that commits at once.
        self.step(Input::Batch(Batch { rows: &[], states: &[], class: Class::Each }))?;
        if self.syncing.is_none() && self.end.is_none() {
            self.step(Input::Tick)?;
        }
        Ok(())
    }

    fn arrives(&mut self, arrival: Arrival) -> Result<(), Violation> {
        match arrival {
            Arrival::Batch { .. } => self.batch(arrival)?,
            Arrival::Lost { stream, records } => {
                let id = self.node.stream(&stream_name(stream));
                let now_us = self.now_us();
                let cause = GapCause::Overload;
                let lost = Lost { records, stream: Some(id), cause, since_us: now_us, until_us: now_us };
                if let Some(Ok(taken)) = self.step(Input::Lost(lost))? {
                    let numbers = (taken.first_seq, taken.last_seq);
                    self.life.world.main.appended_lost(numbers, stream, records)?;
                    self.life.sums.lose("overload", u64::from(records));
                }
                self.tick_if_idle()?;
            }
            Arrival::Stop => {
                self.tell(|| "a clean stop".to_owned());
                self.stopping = true;
                self.step(Input::Stop)?;
            }
            Arrival::Kill => {
                self.tell(|| "the process is killed".to_owned());
                self.end = Some(End::Killed);
            }
        }
        Ok(())
    }

    fn batch(&mut self, arrival: Arrival) -> Result<(), Violation> {
        let Arrival::Batch { stream, ref sizes, state, class } = arrival else { return Ok(()) };
        let bodies_of = self.life.plan.bodies;
        let id = self.node.stream(&stream_name(stream));
        let tags: Vec<u64> = self.life.world.main.tags(sizes.len() as u64).collect();
        let value = state.map(|key| (key, self.life.world.main.tags(1).start));
        let bodies: Vec<Vec<u8>> = tags.iter().zip(sizes).map(|(tag, size)| body(bodies_of, *tag, *size)).collect();
        let rows: Vec<_> = tags.iter().zip(&bodies).map(|(tag, body)| row_of(*tag, id, body)).collect();
        let pair = value.map(|(key, value)| (state_key(key), value.to_le_bytes()));
        let states: Vec<(&[u8], &[u8])> = pair.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        let taken = self.step(Input::Batch(Batch { rows: &rows, states: &states, class }))?;
        match taken {
            Some(Ok(taken)) => {
                let len = |body: &Vec<u8>| u32::try_from(body.len()).unwrap_or(u32::MAX);
                let known: Vec<_> = tags.iter().zip(&bodies).map(|(tag, body)| (stream, *tag, len(body))).collect();
                let numbers = (taken.first_seq, taken.last_seq);
                self.life.world.main.appended(numbers, &known, value.into_iter().collect())?;
                self.life.sums.body_bytes += bodies.iter().map(|body| body.len() as u64).sum::<u64>();
                let limit = self.node.store().ram_limit();
                self.life.world.main.ram_limit(limit);
                self.tell(|| format!("{class:?} batch of stream {stream}: {}..={}", numbers.0, numbers.1));
            }
            // The sender waits until the sync that is under way has ended.
            Some(Err(Refused::Full)) if self.syncing.is_some() => self.waiting = Some(arrival),
            Some(Err(Refused::Failed(_))) | None => {}
            Some(Err(refused)) => {
                return Err(Violation::Contract(format!("a batch of {} records: {refused}", tags.len())));
            }
        }
        self.tick_if_idle()
    }

    fn tick_if_idle(&mut self) -> Result<(), Violation> {
        let now_us = self.now_us();
        if self.syncing.is_none() && self.end.is_none() && self.due_us.is_some_and(|due| due <= now_us) {
            self.due_us = None;
            self.step(Input::Tick)?;
        }
        Ok(())
    }

    /// One step of the node, and what the model learns from it.
    fn step(&mut self, input: Input<'_, ErrorOf<M>>) -> Result<Option<Result<Taken, Refused>>, Violation> {
        let world = &mut self.life.world;
        if self.node.store().memtable_bytes().0 > 0 {
            self.wrote = true;
            world.main.writing(self.node.store().report().epoch, self.bound);
        }
        if self.stopping && self.wrote {
            world.main.closing(false);
        }
        let now_us = self.node.medium().now_us();
        let told = self.node.medium().medium().op_log().len();
        let edits = self.node.store().stats().edits;
        let output = self.node.step(now_us, input);
        let evicted = self.evicted(edits)?;
        if self.life.story.is_told() {
            let ops = self.node.medium().medium().op_log()[told..].iter().map(ToString::to_string);
            let ops: Vec<String> = ops.collect();
            if !ops.is_empty() {
                self.tell(|| format!("  operations: {}", ops.join(", ")));
            }
        }
        self.life.world.main.evicted(&evicted, false)?;
        self.learn(&output)?;
        if !self.clocked().is_off() {
            self.life.sums.lose("retention", evicted.len() as u64);
            self.life.world.main.evicted(&evicted, true)?;
        }
        Ok(output.batch)
    }

    /// What a rewrite in the step left out, found by looking; if it was cut, whoever may be among it.
    fn evicted(&mut self, edits: u64) -> Result<Vec<u64>, Violation> {
        if self.life.shape.group_bytes == 0 {
            return Ok(Vec::new());
        }
        if self.clocked().is_off() {
            // Where the step was a commit, nobody is left out; the model is then only more lenient than it had to be.
            let log_floor = self.node.store().catalog().log_floor();
            self.life.world.main.may_be_evicted(log_floor);
            return Ok(Vec::new());
        }
        if self.node.store().stats().edits == edits {
            return Ok(Vec::new());
        }
        let mut storage = self.clocked().medium().clone().into_storage(&self.life.shape);
        let catalog = self.node.store().catalog();
        let items = scan_all(&mut storage, catalog, &mut self.scan.parts(), false)?;
        let main = &self.life.world.main;
        let gone = items.iter().filter_map(|item| match item {
            Item::Gap { first, last, cause: GapCause::Retention } => Some(*first..=*last),
            _ => None,
        });
        let gone: Vec<u64> = gone.flatten().filter(|seq| *seq < catalog.log_floor() && main.is_owed(*seq)).collect();
        Ok(main.not_below(&gone, floors_of(catalog)))
    }

    fn learn(&mut self, output: &Output) -> Result<(), Violation> {
        let world = &mut self.life.world;
        let store = self.node.store();
        if store.stats().segments_dropped > 0 {
            world.main.forget_boots();
        }
        let began = matches!(output.next, Next::Sync { .. });
        let known = world.main.records().len();
        world.main.floors(floors_of(store.catalog()), began);
        let before = world.main.durable();
        if output.durable_upto > before {
            world.main.acknowledged(output.durable_upto)?;
            world.main.floors(floors_of(store.catalog()), true);
            self.life.sums.acknowledged += output.durable_upto - before;
        }
        let dropped = known - world.main.records().len();
        self.life.sums.lose("retention", dropped as u64);
        world.main.ram_limit(store.ram_limit());
        if began {
            world.main.started();
            world.alternative = None;
        }
        let now_us = self.now_us();
        if output.durable_upto > before {
            self.since_durable_us = now_us;
            self.tell(|| format!("durable up to {}", output.durable_upto));
        }
        match output.next {
            Next::Sync { .. } => {
                let ends_us = now_us + self.clocked().sync_cost_us();
                self.syncing = Some(Syncing { since_us: now_us, ends_us });
                self.due_us = None;
            }
            Next::Wait { until_us } => self.due_us = until_us,
            Next::Stopped { clean } => {
                if clean && self.wrote {
                    self.life.world.main.closing(true);
                }
                self.end = Some(End::Stopped);
            }
            Next::Failed(reason) => {
                self.tell(|| format!("the store takes no more writes: {reason}"));
                self.end = Some(End::Failed(reason));
            }
        }
        self.gasped(output.durable_upto);
        Ok(())
    }

    /// Whether the last gasp is done.
    fn gasped(&mut self, durable_upto: u64) {
        let Some(gasp) = self.gasp.filter(|gasp| durable_upto >= gasp.upto) else { return };
        self.gasp = None;
        let took_us = self.now_us() - gasp.mains_went_us;
        self.tell(|| {
            let (took, hold_up) = (millis(took_us), millis(gasp.hold_up_us));
            format!("last gasp: {} records durable after {took:.1} ms of {hold_up:.1} ms", gasp.records)
        });
        let Gasp { hold_up_us, records, .. } = gasp;
        self.life.sums.flushes.push(Flush { hold_up_us, took_us: Some(took_us), records });
    }
}

fn body(bodies: &super::traffic::Bodies, tag: u64, size: u32) -> Vec<u8> {
    let mut body = vec![0; bodies.len_of(tag, size) as usize];
    bodies.fill(tag, &mut body);
    body
}
