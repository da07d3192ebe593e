//! The reference model: what a store may and must show after a cut.
//!
//! It knows what was handed to the engine and what the engine acknowledged, and nothing of how records are stored.
//! After every mount [`Model::check`] compares what the mount shows ([`Seen`]) with the promises:
//! - P1: nothing acknowledged as durable is missing, unless retention published a floor above it;
//! - P2: what survives is a prefix of the batches, each whole, and the state entries are those of that prefix;
//! - P3: nothing invented, altered, shown twice, out of order, or back from the dead;
//! - P5: every number is a record or lies in a gap of a fitting cause; no rot on a store that was not damaged;
//! - no number that a client may know is ever given out again.
//!
//! Then the model settles: what survived is durable from then on, what did not is dead and may never come back.

use crate::rng::Rng;
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::gaps::GapCause;
use std::collections::BTreeMap;
use std::fmt;

/// What the model knows of a record. Everything else of it follows from its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// Sequence number.
    pub seq: u64,
    /// What its body, severity, times and fields are made of; never used twice.
    pub tag: u64,
    /// The batch it belongs to.
    pub batch: u32,
    /// Its stream.
    pub stream: u8,
    /// Length of its body.
    pub len: u32,
    /// What is promised.
    pub standing: Standing,
}

/// What is promised about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing: it was not acknowledged as durable.
    Pending,
    /// It is there after every cut.
    Durable,
    /// It was durable and was damaged; it has to be reported for ever.
    Lost,
}

/// State entries that a batch sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Setting {
    /// Batches up to this one count before it.
    batch: u32,
    /// The last number before or in the batch; whether the batch has records.
    last: u64,
    rows: bool,
    entries: Vec<(u8, u64)>,
}

/// Whether the log ends with a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Closed {
    No,
    Maybe,
    Yes,
}

/// What one entry of a scan showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(SeenRecord),
    /// A gap.
    Gap {
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
        /// Cause.
        cause: GapCause,
    },
    /// A boot with its epoch.
    Boot(u32),
    /// A clean stop.
    Close,
}

/// A record as it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRecord {
    /// Its number.
    pub seq: u64,
    /// Its tag, if everything in it is as that tag says.
    pub tag: Option<u64>,
    /// Length of its body.
    pub len: u32,
    /// Its stream, if its name is one of the model's.
    pub stream: Option<u8>,
}

/// What a mount showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A full forward scan.
    pub items: Vec<Item>,
    /// State entries; `None` stands for one that no batch could have set.
    pub state: Option<BTreeMap<u8, u64>>,
    /// Floor of retention.
    pub floor: u64,
    /// Everything up to here counts as durable.
    pub durable_upto: u64,
    /// The number the next record gets.
    pub next_seq: u64,
    /// The epoch of the next boot that writes.
    pub epoch: u32,
    /// How the boot before ended.
    pub previous_end: PreviousEnd,
}

/// What was damaged on purpose, so that its loss is no violation.
#[derive(Debug, Clone, Default)]
pub struct Damage {
    /// Batches that may be missing, if they are reported as rot.
    pub may_lose: Vec<u32>,
    /// Something of the log was hit: holes may be called rot.
    pub log_hit: bool,
    /// The ledger may be lost: a rebuild is no violation.
    pub ledger_hit: bool,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// P1: a record acknowledged as durable is missing. Its number.
    Lost(u64),
    /// P2: a record is there although one before it is not: present, missing.
    NotAPrefix(u64, u64),
    /// P2: a batch is there in part: a number of it that is there, one that is not.
    BatchInPart(u64, u64),
    /// P2: state entries are not those of the last surviving batch: seen, expected.
    State(String),
    /// P3: a record that was never appended, or was altered.
    Invented(SeenRecord),
    /// P3: a record that an earlier mount had declared dead, or that retention dropped, is back.
    Resurrected(SeenRecord),
    /// P3: entries doubled or out of order: number expected, number shown.
    OutOfOrder(u64, u64),
    /// P3: a record bears the wrong stream name.
    WrongStream(SeenRecord),
    /// P4: the store does not open.
    Refused(String),
    /// P4: the engine panicked.
    Panicked(String),
    /// P5: numbers up to this one should be there or in a gap, but the scan ends before.
    Unaccounted(u64),
    /// P5: a gap whose cause does not fit: first, last, cause.
    WrongCause(u64, u64, GapCause),
    /// P5: `rot` on a store that was not damaged, or for records that were not hit: first, last.
    FalseRot(u64, u64),
    /// P5: the store was rebuilt without need, or was and does not say so.
    LedgerLost(bool),
    /// A number that a client may know would be given out again: next, known.
    NumberReused(u64, u64),
    /// After a clean stop the numbers do not go on where they ended: next, expected.
    NumberSkipped(u64, u64),
    /// The floor is not one that was published: seen, lowest, highest.
    Floor(u64, u64, u64),
    /// Boots or clean stops in the wrong order or missing.
    Events(String),
    /// The reverse scan does not show what the forward scan shows, reversed.
    Reverse(String),
    /// A read-only mount does not show what a mount for writing shows.
    ReaderDiffers(String),
    /// The engine broke its word to the caller: an acknowledgement that went back, a number out of order.
    Contract(String),
}

impl Violation {
    /// The clause that is broken, in a word or two.
    #[must_use]
    pub fn clause(&self) -> &'static str {
        match self {
            Self::Lost(_) => "P1 acknowledged lost",
            Self::NotAPrefix(..) => "P2 not a prefix",
            Self::BatchInPart(..) => "P2 batch in part",
            Self::State(_) => "P2 state",
            Self::Invented(_) => "P3 invented",
            Self::Resurrected(_) => "P3 resurrected",
            Self::OutOfOrder(..) => "P3 order",
            Self::WrongStream(_) => "P3 stream",
            Self::Refused(_) => "P4 refused",
            Self::Panicked(_) => "P4 panic",
            Self::Unaccounted(_) => "P5 unaccounted",
            Self::WrongCause(..) => "P5 cause",
            Self::FalseRot(..) => "P5 false rot",
            Self::LedgerLost(_) => "P5 ledger",
            Self::NumberReused(..) => "number reused",
            Self::NumberSkipped(..) => "number skipped",
            Self::Floor(..) => "floor",
            Self::Events(_) => "events",
            Self::Reverse(_) => "reverse scan",
            Self::ReaderDiffers(_) => "reader",
            Self::Contract(_) => "contract",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:?}", self.clause())
    }
}

impl std::error::Error for Violation {}

/// What was done to one store, and what it owes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Model {
    /// By number; those below the floor are forgotten.
    records: Vec<Known>,
    settings: Vec<Setting>,
    /// State of everything that is durable.
    state: BTreeMap<u8, u64>,
    /// Numbers that are gone, as an earlier mount reported them.
    holes: Vec<(u64, u64)>,
    next_tag: u64,
    next_batch: u32,
    /// Highest number that a client may know.
    exposed: u64,
    /// Highest number that was given out or covered by a bound.
    ceiling: u64,
    durable: u64,
    /// The floor lies in this range.
    floor: (u64, u64),
    closed: Closed,
    next_seq: u64,
    /// The number that the present boot began with.
    boot_first: u64,
    epochs: Vec<u32>,
    epoch_maybe: Option<u32>,
    /// The manifest was ruined on purpose: at some time; since the last mount.
    ruined: (bool, bool),
    /// The next mount has to tell that it rebuilt the ledger.
    must_rebuild: bool,
    /// Boots may be missing: segments without records were dropped, or a mount saw cells that read differently later.
    forgets_boots: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A store that was just made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            records: Vec::new(),
            settings: Vec::new(),
            state: BTreeMap::new(),
            holes: Vec::new(),
            next_tag: 1,
            next_batch: 1,
            exposed: 0,
            ceiling: 0,
            durable: 0,
            floor: (1, 1),
            closed: Closed::No,
            next_seq: 1,
            boot_first: 1,
            epochs: Vec::new(),
            epoch_maybe: None,
            ruined: (false, false),
            must_rebuild: false,
            forgets_boots: false,
        }
    }

    /// Tags for the next `n` records or state values.
    pub fn tags(&mut self, n: u64) -> std::ops::Range<u64> {
        let first = self.next_tag;
        self.next_tag += n;
        first..self.next_tag
    }

    /// The engine took in a batch and gave it these numbers; `rows` are stream, tag and body length.
    ///
    /// # Errors
    /// The numbers are not the next ones.
    pub fn appended(
        &mut self,
        numbers: (u64, u64),
        rows: &[(u8, u64, u32)],
        entries: Vec<(u8, u64)>,
    ) -> Result<(), Violation> {
        let (first, last) = numbers;
        if first != self.next_seq || last + 1 != first + rows.len() as u64 {
            let text = format!("numbers {first}..={last} for {} records, next was {}", rows.len(), self.next_seq);
            return Err(Violation::Contract(text));
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        for (seq, &(stream, tag, len)) in (first..).zip(rows) {
            self.records.push(Known { seq, tag, batch, stream, len, standing: Standing::Pending });
        }
        if !entries.is_empty() {
            self.settings.push(Setting { batch, last, rows: !rows.is_empty(), entries });
        }
        self.next_seq = last + 1;
        self.ceiling = self.ceiling.max(last);
        Ok(())
    }

    /// The engine begins to write; this boot has `epoch` and may be on the medium from now on, and with it a `bound`.
    pub fn writing(&mut self, epoch: u32, bound: u32) {
        self.ceiling = self.ceiling.max(self.next_seq - 1 + u64::from(bound));
        if self.closed == Closed::Yes {
            self.closed = Closed::Maybe;
        }
        if self.epochs.last() != Some(&epoch) {
            self.epoch_maybe = Some(epoch);
        }
    }

    /// The engine wrote its origin and synced it.
    pub fn started(&mut self) {
        self.epochs.extend(self.epoch_maybe.take());
        self.closed = Closed::No;
    }

    /// The epoch of a boot that may have written, but has not said so.
    #[must_use]
    pub fn epoch_in_doubt(&self) -> Option<u32> {
        self.epoch_maybe
    }

    /// The number that the present boot began with.
    #[must_use]
    pub fn first_of_boot(&self) -> u64 {
        self.boot_first
    }

    /// The engine says that everything up to `upto` is durable.
    ///
    /// # Errors
    /// It said more before, or says more than it was given.
    pub fn acknowledged(&mut self, upto: u64) -> Result<(), Violation> {
        if upto < self.durable || upto >= self.next_seq.max(self.durable + 1) {
            let text = format!("acknowledged {upto} after {}, next number {}", self.durable, self.next_seq);
            return Err(Violation::Contract(text));
        }
        self.durable = upto;
        self.exposed = self.exposed.max(upto);
        for record in self.records.iter_mut().rev() {
            if record.seq <= upto && record.standing == Standing::Pending {
                record.standing = Standing::Durable;
            }
        }
        for setting in std::mem::take(&mut self.settings) {
            if setting.last <= upto {
                self.state.extend(setting.entries);
            } else {
                self.settings.push(setting);
            }
        }
        Ok(())
    }

    /// Numbers up to `limit` may be acknowledged before they are durable.
    pub fn ram_limit(&mut self, limit: u64) {
        self.ceiling = self.ceiling.max(limit);
        self.exposed = self.exposed.max(limit.min(self.next_seq - 1));
    }

    /// The engine may have published this floor; `surely` if the call returned without an error.
    pub fn floor(&mut self, floor: u64, surely: bool) {
        self.floor.1 = self.floor.1.max(floor);
        if surely {
            self.floor.0 = self.floor.1;
            self.records.retain(|r| r.seq >= floor);
            self.holes.retain(|h| h.1 >= floor);
        }
    }

    /// The engine begins to write a close frame, or has.
    pub fn closing(&mut self, surely: bool) {
        self.closed = if surely { Closed::Yes } else { Closed::Maybe };
    }

    /// From now on boots need not be shown, nor how the last one ended.
    pub fn forget_boots(&mut self) {
        self.forgets_boots = true;
    }

    /// Both slots of the manifest were ruined on purpose; `surely` if nothing of it is left.
    pub fn ruin_manifest(&mut self, surely: bool) {
        self.ruined = (true, true);
        self.forgets_boots = true;
        self.must_rebuild = surely;
        self.floor.0 = 1;
    }

    /// The records that are known, by number.
    #[must_use]
    pub fn records(&self) -> &[Known] {
        &self.records
    }

    /// Everything up to here was acknowledged as durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The number the next record gets, as far as the model knows.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Compares a mount with what the store owes; returns the model as it is from then on.
    ///
    /// # Errors
    /// The first promise found broken.
    pub fn check(&self, seen: &Seen, damage: &Damage) -> Result<Self, Violation> {
        self.check_floor(seen, damage)?;
        let present = self.check_items(seen, damage)?;
        self.check_survivors(&present, seen, damage)?;
        self.check_numbers(seen, damage)?;
        self.check_events(seen, damage)?;
        let state = self.check_state(&present, seen, damage)?;
        Ok(self.settled(seen, &present, state, damage))
    }

    fn check_floor(&self, seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        let low = if damage.ledger_hit || self.ruined.1 { 1 } else { self.floor.0 };
        match (low..=self.floor.1).contains(&seen.floor) {
            true => Ok(()),
            false => Err(Violation::Floor(seen.floor, low, self.floor.1)),
        }
    }

    /// Walks the scan: order, identity of the records, causes of the gaps. Returns which records are there.
    fn check_items(&self, seen: &Seen, damage: &Damage) -> Result<Vec<bool>, Violation> {
        let mut present = vec![false; self.records.len()];
        let mut expect = 1;
        let mut ledger_lost = false;
        for item in &seen.items {
            match *item {
                Item::Record(record) => {
                    if record.seq != expect {
                        return Err(Violation::OutOfOrder(expect, record.seq));
                    }
                    expect += 1;
                    if let Some(i) = self.identify(&record)? {
                        present[i] = true;
                    }
                }
                Item::Gap { cause: GapCause::LedgerLost, .. } => ledger_lost = true,
                Item::Gap { first, last, cause } => {
                    if first != expect || last < first {
                        return Err(Violation::OutOfOrder(expect, first));
                    }
                    expect = last + 1;
                    self.check_gap(first, last, cause, seen, damage)?;
                }
                Item::Boot(_) | Item::Close => {}
            }
        }
        if expect <= seen.durable_upto {
            return Err(Violation::Unaccounted(seen.durable_upto));
        }
        if ledger_lost && !self.ruined.0 && !damage.ledger_hit {
            return Err(Violation::LedgerLost(true));
        }
        if !ledger_lost && self.must_rebuild {
            return Err(Violation::LedgerLost(false));
        }
        Ok(present)
    }

    fn identify(&self, record: &SeenRecord) -> Result<Option<usize>, Violation> {
        let found = self.records.binary_search_by_key(&record.seq, |r| r.seq).ok();
        let known = found.map(|i| self.records[i]);
        match (record.tag, known) {
            (Some(tag), Some(known)) if tag == known.tag && record.len == known.len => {
                if record.stream != Some(known.stream) {
                    return Err(Violation::WrongStream(*record));
                }
                if known.standing == Standing::Lost {
                    return Err(Violation::Resurrected(*record));
                }
                Ok(found)
            }
            // After the ledger was lost, what retention dropped may show again.
            (Some(tag), None) if self.ruined.1 && record.seq < self.floor.1 && tag < self.next_tag => Ok(None),
            (Some(tag), _) if tag < self.next_tag => Err(Violation::Resurrected(*record)),
            _ => Err(Violation::Invented(*record)),
        }
    }

    fn check_gap(&self, a: u64, b: u64, cause: GapCause, seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        if cause == GapCause::Retention {
            return match b < seen.floor {
                true => Ok(()),
                false => Err(Violation::WrongCause(a, b, cause)),
            };
        }
        let from = self.records.partition_point(|r| r.seq < a.max(seen.floor));
        for record in self.records[from..].iter().take_while(|r| r.seq <= b) {
            let excused = damage.may_lose.contains(&record.batch) || record.standing == Standing::Lost;
            match (record.standing, cause) {
                (Standing::Durable | Standing::Lost, GapCause::Rot) if excused => {}
                (Standing::Durable, GapCause::Rot) if damage.log_hit => return Err(Violation::FalseRot(a, b)),
                (Standing::Durable, _) => return Err(Violation::Lost(record.seq)),
                (Standing::Pending, GapCause::RamTier) => {}
                (_, GapCause::Rot) => return Err(Violation::FalseRot(a, b)),
                _ => return Err(Violation::WrongCause(a, b, cause)),
            }
        }
        let has_records = self.records.get(from).is_some_and(|r| r.seq <= b);
        match cause {
            // Numbers that were given out once, or covered by a bound (F3); nothing else may be called so.
            GapCause::RamTier if b <= self.ceiling => Ok(()),
            GapCause::Rot if has_records || damage.log_hit => Ok(()),
            // A hole that was called rot once stays so; below a floor that was forgotten nothing is known.
            GapCause::Rot if self.holes.iter().any(|h| h.0 <= a && b <= h.1) => Ok(()),
            GapCause::Rot if self.ruined.0 && a < self.floor.1 => Ok(()),
            GapCause::Rot => Err(Violation::FalseRot(a, b)),
            _ => Err(Violation::WrongCause(a, b, cause)),
        }
    }

    /// P1 and P2.
    fn check_survivors(&self, present: &[bool], seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        let mut missing: Option<u64> = None;
        for (i, record) in self.records.iter().enumerate().filter(|(_, r)| r.seq >= seen.floor) {
            let excused = record.standing == Standing::Lost || damage.may_lose.contains(&record.batch);
            if !present[i] {
                if record.standing == Standing::Durable && !excused {
                    return Err(Violation::Lost(record.seq));
                }
                missing = missing.or((!excused).then_some(record.seq));
                if excused && seen.durable_upto < record.seq {
                    return Err(Violation::Unaccounted(record.seq));
                }
            } else if let Some(before) = missing {
                return Err(Violation::NotAPrefix(record.seq, before));
            }
        }
        for (i, pair) in self.records.windows(2).enumerate() {
            let same = pair[0].batch == pair[1].batch && pair[1].seq >= seen.floor;
            let whole = present[i] == present[i + 1] && (pair[0].seq >= seen.floor || !present[i + 1]);
            if same && !whole {
                return Err(Violation::BatchInPart(pair[usize::from(present[i + 1])].seq, pair[0].seq));
            }
        }
        Ok(())
    }

    fn check_numbers(&self, seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        if seen.next_seq <= self.exposed.max(seen.durable_upto) {
            return Err(Violation::NumberReused(seen.next_seq, self.exposed.max(seen.durable_upto)));
        }
        let undamaged = !damage.log_hit && !damage.ledger_hit && !self.ruined.1;
        if undamaged && self.closed == Closed::Yes && seen.next_seq != self.next_seq {
            return Err(Violation::NumberSkipped(seen.next_seq, self.next_seq));
        }
        // Nothing was ever promised beyond the ceiling, so nothing needs to be skipped there.
        if undamaged && seen.next_seq > self.ceiling.max(self.next_seq - 1) + 1 {
            return Err(Violation::NumberSkipped(seen.next_seq, self.ceiling + 1));
        }
        Ok(())
    }

    fn check_events(&self, seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        let mut epochs: Vec<u32> = Vec::new();
        let mut ends_closed = false;
        for item in &seen.items {
            match item {
                Item::Boot(epoch) => {
                    if epochs.last().is_some_and(|last| last >= epoch) {
                        return Err(Violation::Events(format!("boot {epoch} after boot {epochs:?}")));
                    }
                    if !self.epochs.contains(epoch) && self.epoch_maybe != Some(*epoch) {
                        return Err(Violation::Events(format!("boot {epoch} never wrote")));
                    }
                    epochs.push(*epoch);
                    ends_closed = false;
                }
                Item::Close => ends_closed = true,
                Item::Record(_) => ends_closed = false,
                Item::Gap { .. } => {}
            }
        }
        if damage.log_hit || damage.ledger_hit || self.ruined.1 || self.forgets_boots {
            return Ok(());
        }
        let clean = seen.previous_end == PreviousEnd::Clean;
        let fits = match self.closed {
            Closed::Yes => clean,
            Closed::Maybe => true,
            Closed::No => !clean,
        };
        if !fits || (clean && !ends_closed) {
            let text = format!("previous end {:?}, closed {:?}, shown {ends_closed}", seen.previous_end, self.closed);
            return Err(Violation::Events(text));
        }
        if let Some(missing) = self.epochs.iter().find(|e| seen.floor == 1 && !epochs.contains(e)) {
            return Err(Violation::Events(format!("boot {missing} is not shown, only {epochs:?}")));
        }
        if self.epochs.last().is_some_and(|last| seen.epoch <= *last) {
            return Err(Violation::Events(format!("epoch {} comes after {:?}", seen.epoch, self.epochs.last())));
        }
        Ok(())
    }

    /// The state is that of the last surviving batch; one of states alone may or may not have survived behind it.
    fn check_state(&self, present: &[bool], seen: &Seen, damage: &Damage) -> Result<BTreeMap<u8, u64>, Violation> {
        let Some(shown) = &seen.state else { return Err(Violation::State("an entry that nobody set".to_owned())) };
        let mut state = self.state.clone();
        if damage.log_hit || damage.ledger_hit || self.ruined.1 {
            // What only the damaged place held is gone; what is shown must have been set once.
            return Ok(shown.clone());
        }
        let survives = |batch: u32| {
            let i = self.records.partition_point(|r| r.batch < batch);
            self.records.get(i).is_some_and(|r| r.batch == batch && present[i])
        };
        let behind = |batch: u32| self.records.iter().zip(present).any(|(r, there)| r.batch > batch && *there);
        for setting in &self.settings {
            let must = (setting.rows && survives(setting.batch)) || behind(setting.batch);
            if !must && (setting.rows || *shown == state) {
                break;
            }
            state.extend(setting.entries.iter().copied());
        }
        match *shown == state {
            true => Ok(state),
            false => Err(Violation::State(format!("shown {shown:?}, expected {state:?}"))),
        }
    }

    fn settled(&self, seen: &Seen, present: &[bool], state: BTreeMap<u8, u64>, damage: &Damage) -> Self {
        let mut records = Vec::with_capacity(self.records.len());
        for (record, present) in self.records.iter().zip(present).filter(|(r, _)| r.seq >= seen.floor) {
            if *present {
                records.push(Known { standing: Standing::Durable, ..*record });
            } else if record.standing != Standing::Pending && record.seq <= seen.durable_upto {
                records.push(Known { standing: Standing::Lost, ..*record });
            }
        }
        let holes = seen.items.iter().filter_map(|item| match *item {
            Item::Gap { first, last, cause } if cause != GapCause::LedgerLost => Some((first, last)),
            _ => None,
        });
        let last = records.last().map_or(0, |r| r.seq);
        let durable = self.durable.max(last).max(seen.durable_upto);
        let mut epochs = self.epochs.clone();
        let shown = |e: &u32| seen.items.contains(&Item::Boot(*e));
        epochs.extend(self.epoch_maybe.filter(shown));
        if damage.log_hit {
            epochs.retain(shown);
        }
        Self {
            records,
            settings: Vec::new(),
            state,
            holes: holes.collect(),
            next_tag: self.next_tag,
            next_batch: self.next_batch,
            exposed: self.exposed.max(durable),
            ceiling: self.ceiling.max(seen.next_seq - 1),
            durable,
            floor: (seen.floor, seen.floor),
            closed: if seen.previous_end == PreviousEnd::Clean { Closed::Yes } else { Closed::No },
            next_seq: seen.next_seq,
            boot_first: seen.next_seq,
            epochs,
            epoch_maybe: None,
            ruined: (self.ruined.0 || damage.ledger_hit, false),
            must_rebuild: false,
            forgets_boots: self.forgets_boots,
        }
    }
}

/// The body of the record with this tag: the tag, then text, and of every fourth record bytes that do not compress.
pub fn fill_body(tag: u64, body: &mut [u8]) {
    const TEXT: &[u8] = b"level=info msg=\"request served\" status=200 path=/api/v1/items took=";
    let mut rng = Rng::new(tag);
    if tag.is_multiple_of(4) {
        rng.fill(body);
    }
    for line in body.chunks_mut(TEXT.len() + 2).filter(|_| !tag.is_multiple_of(4)) {
        line.iter_mut().zip(TEXT.iter().copied().chain([rng.byte(), rng.byte()])).for_each(|(to, from)| *to = from);
    }
    let head = tag.to_le_bytes();
    let len = head.len().min(body.len());
    body[..len].copy_from_slice(&head[..len]);
}

/// The tag a body begins with.
#[must_use]
pub fn tag_of(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|head| u64::from_le_bytes(*head))
}
