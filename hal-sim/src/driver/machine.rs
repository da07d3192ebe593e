//! Executes the steps of a workload on a store, and keeps the model beside it.
//!
//! Invariants:
//! - every mount gets memory that is full of garbage: nothing may survive in it;
//! - the model is told of an acknowledgement only after the call that gave it has returned, so the states kept for cuts
//!   during the call owe what was owed before;
//! - a panic of the engine, and a broken contract with the medium, are violations like any other.

use super::frames::list;
use super::medium::Medium;
use super::observe::{check_reverse, observe, row_of, state_key, stream_name};
use super::workload::{Boot, Ruin, Shape, Step, Stop};
use crate::model::{Damage, Model, Seen, Violation, fill_body};
use crate::rig::{Rig, ScanRig};
use lastgasp_core::catalog::Catalog;
use lastgasp_core::error::StoreError;
use lastgasp_core::format::header::SegmentKind;
use lastgasp_core::hal::{ReadStorage, SliceArena, Storage};
use lastgasp_core::pool::SegmentEntry;
use lastgasp_core::reader::Reader;
use lastgasp_core::recovery::RecoveryReport;
use lastgasp_core::store::{FormatOptions, OpenOptions, Store, Ticket, format};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

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

    /// Compares a mount with what is owed; `doubtful` if it saw cells that may read differently next time.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn check(&self, seen: &Seen, damage: &Damage, doubtful: bool) -> Result<Self, Violation> {
        let (base, settled) = match (self.main.check(seen, damage), &self.alternative) {
            (Ok(settled), _) => (&self.main, settled),
            (Err(e), None) => return Err(e),
            (Err(e), Some(alternative)) => (&**alternative, alternative.check(seen, damage).map_err(|_| e)?),
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

/// What happened, in words and in order, told by all that share it; silent unless it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Story(Option<Rc<RefCell<Vec<String>>>>);

impl Story {
    /// One that is told.
    #[must_use]
    pub fn told() -> Self {
        Self(Some(Rc::default()))
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on with what `text` says.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let text = text();
            lines.borrow_mut().push(text);
        }
    }

    /// What was told so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.as_ref().map(|lines| lines.borrow().clone()).unwrap_or_default()
    }
}

/// The engine's store on a medium of the driver.
type StoreOf<'m, M> = Store<'m, <M as Medium>::Storage, SliceArena<'m>>;

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
        mut medium: M,
        world: &mut World,
        boots: &[Boot],
        mut tap: Option<Tap<'_, M>>,
    ) -> Result<M, Violation> {
        for boot in boots {
            medium = self.boot(medium, world, boot, &mut tap, &Damage::default())?;
        }
        Ok(medium)
    }

    /// As [`Bench::run`], on a store that was damaged: what the damage may cost is forgiven in every mount.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run_damaged<M: Medium>(
        &mut self,
        mut medium: M,
        world: &mut World,
        boots: &[Boot],
        damage: &Damage,
    ) -> Result<M, Violation> {
        for boot in boots {
            medium = self.boot(medium, world, boot, &mut None, damage)?;
        }
        Ok(medium)
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

/// Where the damage goes. Without a segment of the log nothing would tell that this was a store.
fn ruin_of<M: Medium>(medium: &M, shape: &Shape, ruin: Ruin) -> Vec<Range<usize>> {
    if ruin == Ruin::Nothing {
        return Vec::new();
    }
    let geometry = medium.clone().into_storage(shape).geometry();
    let segments = list(&medium.bytes(), shape, &geometry);
    let log = segments.iter().filter(|s| s.header.kind == SegmentKind::Log);
    let Some(newest) = log.max_by_key(|s| s.header.generation) else { return Vec::new() };
    let slots = segments.iter().filter(|s| s.header.kind == SegmentKind::Manifest);
    let len = shape.segment_bytes as usize;
    let start = newest.header.segment as usize * len;
    let header = start..start + newest.header.encoded_bytes() as usize;
    let last_edits = slots.filter_map(|s| s.frames.last().map(|f| f.bytes.clone()));
    match ruin {
        Ruin::LastHeader => vec![header],
        Ruin::LastEdits => last_edits.collect(),
        Ruin::LastHeaderAndEdits => last_edits.chain([header]).collect(),
        _ => [0, shape.segments as usize / 2].map(|slot| slot * len..(slot + 1) * len).to_vec(),
    }
}

/// A mount in words.
#[must_use]
pub fn describe_mount(report: &RecoveryReport, seen: &Seen) -> String {
    let cases: String = report.cases.letters().collect();
    format!(
        "mount: previous end {:?}, adopted up to {}, durable up to {}, next {}, epoch {}, floor {}, \
         cases {cases}{}\n  {}",
        report.previous_end,
        report.adopted_upto,
        report.durable_upto,
        report.next_seq,
        report.epoch,
        seen.floor,
        if report.resumes { ", goes on in place" } else { "" },
        describe_items(seen),
    )
}

/// The segments of the log in words, in order, and those that come next.
#[must_use]
pub fn describe_pool(catalog: &Catalog<'_>) -> String {
    let words = |(segment, e): (u32, &SegmentEntry)| {
        let s = e.state;
        format!("{segment} {:?} g{} {}..={}+{}", s.used_for, s.generation, s.first_seq, s.last_seq, s.chain_tail)
    };
    let all: Vec<String> = catalog.pool().iter().map(words).collect();
    format!("  order {:?} of {}", catalog.pool().order(), all.join(", "))
}

fn describe_items(seen: &Seen) -> String {
    use crate::model::Item;
    let mut words: Vec<String> = Vec::new();
    let mut run: Option<(u64, u64)> = None;
    for item in &seen.items {
        match (item, &mut run) {
            (Item::Record(r), Some((_, last))) if *last + 1 == r.seq => *last = r.seq,
            (Item::Record(r), _) => {
                words.extend(run.take().map(|(a, b)| format!("{a}..={b}")));
                run = Some((r.seq, r.seq));
            }
            (other, _) => {
                words.extend(run.take().map(|(a, b)| format!("{a}..={b}")));
                words.push(match other {
                    Item::Gap { first, last, cause } => format!("[{first}..={last} {}]", cause.name()),
                    Item::Boot(epoch) => format!("boot {epoch}"),
                    _ => "close".to_owned(),
                });
            }
        }
    }
    words.extend(run.map(|(a, b)| format!("{a}..={b}")));
    format!("shown: {}; state {:?}", words.join(" "), seen.state)
}

/// A store that is open, and everything beside it.
struct Hands<'h, 't, 'm, M: Medium> {
    store: Option<StoreOf<'m, M>>,
    world: &'h mut World,
    tap: &'h mut Option<Tap<'t, M>>,
    tally: &'h mut Tally,
    story: &'h Story,
    ticket: Option<(Ticket, SyncResult<M>)>,
    bound: u32,
    wrote: bool,
    over: bool,
    /// Operations that the story has told.
    told: usize,
    shape: Shape,
}

type SyncResult<M> = Option<Result<(), ErrorOf<M>>>;
type ErrorOf<M> = <<M as Medium>::Storage as ReadStorage>::Error;

impl<'m, M: Medium> Hands<'_, '_, 'm, M> {
    fn store(&mut self) -> &mut StoreOf<'m, M> {
        self.store.as_mut().expect("the store is open until the boot stops")
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        if self.over {
            return Ok(());
        }
        self.story.tell(|| format!("{step:?}"));
        match step {
            Step::Append { rows, states } => self.append(rows, states)?,
            Step::Commit => self.commit()?,
            Step::Begin => self.begin()?,
            Step::Sync => {
                if let Some((ticket, _)) = self.ticket.take() {
                    let synced = self.store().parts().0.sync();
                    self.ticket = Some((ticket, Some(synced)));
                    self.hand_over();
                }
            }
            Step::End => self.end()?,
            Step::FailSyncs(fail) => _ = self.medium(|m| m.fail_syncs(*fail)),
            Step::FailWrites(at, count) => self.medium(|m| m.fail_writes(*at, *count)),
            Step::WearOut(segment, wear) => {
                let shape = self.shape;
                self.medium(|m| m.wear_out(&shape, *segment, *wear));
            }
        }
        Ok(())
    }

    fn medium<T>(&mut self, act: impl FnOnce(&mut M) -> T) -> T {
        act(M::inside(self.store().parts().0))
    }

    /// Hands over the cuts of the call that has just ended; the floor may have been raised in it.
    fn hand_over(&mut self) {
        if self.story.is_told() {
            let ops = self.medium(|m| m.op_log().iter().map(ToString::to_string).collect::<Vec<_>>());
            let told = std::mem::replace(&mut self.told, ops.len());
            if ops.len() > told {
                self.story.tell(|| format!("  operations: {}", ops[told..].join(", ")));
            }
        }
        if self.store().stats().segments_dropped > 0 {
            self.world.main.forget_boots();
        }
        let floor = self.store().catalog().floor();
        self.world.main.floor(floor, false);
        let cuts = self.medium(|m| m.take_cuts());
        self.tally.operations += cuts.len() as u64;
        if let Some(tap) = self.tap {
            for cut in cuts {
                tap(cut, self.world);
            }
        }
    }

    /// The call went well: what it may have published is published.
    fn published(&mut self) {
        let floor = self.store().catalog().floor();
        self.world.main.floor(floor, true);
    }

    fn append(&mut self, rows: &[(u8, u32)], states: &[u8]) -> Result<(), Violation> {
        let names: Vec<u16> = rows.iter().map(|(stream, _)| self.store().stream(&stream_name(*stream))).collect();
        let tags: Vec<u64> = self.world.main.tags(rows.len() as u64).collect();
        let values: Vec<u64> = self.world.main.tags(states.len() as u64).collect();
        let mut bodies: Vec<Vec<u8>> = rows.iter().map(|(_, len)| vec![0; *len as usize]).collect();
        bodies.iter_mut().zip(&tags).for_each(|(body, tag)| fill_body(*tag, body));
        let records: Vec<_> =
            tags.iter().zip(&names).zip(&bodies).map(|((tag, name), body)| row_of(*tag, *name, body)).collect();
        let pairs: Vec<([u8; 2], [u8; 8])> =
            states.iter().zip(&values).map(|(key, value)| (state_key(*key), value.to_le_bytes())).collect();
        let entries: Vec<(&[u8], &[u8])> = pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let mut result = self.store().append(&records, &entries);
        if matches!(result, Err(StoreError::MemtableFull)) && self.ticket.is_none() {
            self.commit()?;
            result = self.store().append(&records, &entries);
        }
        match result {
            Ok(numbers) => {
                let known: Vec<_> = rows.iter().zip(&tags).map(|((stream, len), tag)| (*stream, *tag, *len)).collect();
                let entries = states.iter().copied().zip(values).collect();
                self.world.main.appended(numbers, &known, entries)?;
                let limit = self.store().ram_limit();
                self.world.main.ram_limit(limit);
            }
            Err(e) => self.refused(&format!("append: {e:?}")),
        }
        Ok(())
    }

    fn refused(&mut self, text: &str) {
        self.story.tell(|| format!("  refused: {text}"));
    }

    fn writing(&mut self) {
        let epoch = self.store().report().epoch;
        let nothing = self.store().memtable_bytes().0 == 0;
        if !nothing {
            self.wrote = true;
            self.world.main.writing(epoch, self.bound);
        }
    }

    fn begin(&mut self) -> Result<(), Violation> {
        if self.ticket.is_some() {
            return Ok(());
        }
        self.writing();
        let begun = self.store().begin_commit();
        self.hand_over();
        match begun {
            Ok(Some(ticket)) => {
                self.started();
                self.ticket = Some((ticket, None));
            }
            Ok(None) => {}
            Err(e) => self.give_up(&format!("begin: {e:?}")),
        }
        Ok(())
    }

    /// The origin is synced: what this mount saw is bound.
    fn started(&mut self) {
        self.published();
        self.world.main.started();
        self.world.alternative = None;
    }

    fn end(&mut self) -> Result<(), Violation> {
        let Some((ticket, synced)) = self.ticket.take() else { return Ok(()) };
        let Some(synced) = synced else {
            self.ticket = Some((ticket, synced));
            return Ok(());
        };
        let ended = self.store().end_commit(ticket, synced);
        self.hand_over();
        match ended {
            Ok(upto) => self.acknowledged(upto),
            Err(e) => {
                self.give_up(&format!("end: {e:?}"));
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> Result<(), Violation> {
        if self.ticket.is_some() {
            return Ok(());
        }
        self.writing();
        let committed = self.store().commit();
        self.hand_over();
        match committed {
            Ok(upto) => {
                if self.wrote {
                    self.started();
                }
                self.acknowledged(upto)
            }
            Err(e) => {
                self.give_up(&format!("commit: {e:?}"));
                Ok(())
            }
        }
    }

    fn acknowledged(&mut self, upto: u64) -> Result<(), Violation> {
        self.published();
        let before = self.world.main.durable();
        if upto >= before && self.wrote {
            self.world.main.acknowledged(upto)?;
            self.tally.acknowledged += upto - before;
        }
        let limit = self.store().ram_limit();
        self.world.main.ram_limit(limit);
        Ok(())
    }

    /// The store is read-only: nothing more comes of this boot.
    fn give_up(&mut self, text: &str) {
        self.refused(text);
        self.over = true;
    }

    fn stop(mut self, stop: Stop) -> Result<M, Violation> {
        self.story.tell(|| format!("{stop:?}"));
        if stop == Stop::Close && !self.over {
            self.end_pending()?;
            self.close()?;
        }
        let store = self.store.take().expect("the store is open until the boot stops");
        let medium = M::of_storage(store.into_storage());
        Ok(match stop {
            Stop::Close => medium.power_cycle(super::medium::Fate::None),
            Stop::Crash(fate) => medium.power_cycle(fate),
        })
    }

    fn end_pending(&mut self) -> Result<(), Violation> {
        if let Some((ticket, None)) = self.ticket.take() {
            let synced = self.store().parts().0.sync();
            self.hand_over();
            self.ticket = Some((ticket, Some(synced)));
        }
        self.end()
    }

    fn close(&mut self) -> Result<(), Violation> {
        self.commit()?;
        if self.over {
            return Ok(());
        }
        if self.wrote {
            self.world.main.closing(false);
        }
        let closed = self.store().close();
        self.hand_over();
        match closed {
            Ok(upto) => {
                if self.wrote {
                    self.world.main.closing(true);
                }
                self.acknowledged(upto)
            }
            Err(e) => {
                self.give_up(&format!("close: {e:?}"));
                Ok(())
            }
        }
    }
}
