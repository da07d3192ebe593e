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

mod check;
mod seen;
mod undo;
mod violation;

pub use seen::{Damage, Item, Seen, SeenRecord};
pub use undo::Undo;
pub use violation::Violation;

use crate::rng::Rng;
use lastgasp_core::format::header::{CLASSES_MAX, FLOORS, LOG_FLOOR};
use lastgasp_core::retention::{KeepPolicy, KeepRule};
use std::collections::BTreeMap;

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
    /// It was handed over as lost: it has to be in a gap that says so.
    pub lost: bool,
    /// What is promised.
    pub standing: Standing,
}

/// Which classes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Keep {
    /// One.
    #[default]
    One,
    /// By severity and stream.
    Three,
}

/// Rules of [`Keep::Three`].
const THREE: &[KeepRule<'_>] = &[
    KeepRule { stream: None, severity_min: 17, class: 2 },
    KeepRule { stream: Some("unit-1"), severity_min: 0, class: 1 },
];

impl Keep {
    /// What the engine is given.
    #[must_use]
    pub fn policy(self) -> KeepPolicy<'static> {
        let mut policy = KeepPolicy::default();
        if self == Self::Three {
            policy.rules = THREE;
            policy.classes[1].share_per_mille = 200;
            policy.classes[2].share_per_mille = 300;
        }
        policy
    }

    fn class(self, record: &Known) -> usize {
        match self {
            Self::One => 0,
            Self::Three if record.tag % 25 >= 17 => 2,
            Self::Three => usize::from(record.stream == 1),
        }
    }
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
    /// A rewrite left it out, and whether that is published is not known.
    Evicting,
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
    /// The floors lie in these ranges: of the classes, and of the log.
    floors: [(u64, u64); FLOORS],
    /// Which class a record is kept in.
    keep: Keep,
    /// What retention had dropped below this number may show again: nothing else knew of it than a lost manifest.
    revived: u64,
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
            floors: [(1, 1); FLOORS],
            keep: Keep::One,
            revived: 0,
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
            self.records.push(Known { seq, tag, batch, stream, len, lost: false, standing: Standing::Pending });
        }
        if !entries.is_empty() {
            self.settings.push(Setting { batch, last, rows: !rows.is_empty(), entries });
        }
        self.next_seq = last + 1;
        self.ceiling = self.ceiling.max(last);
        Ok(())
    }

    /// The engine took in that `records` of a stream were lost, and gave them these numbers.
    ///
    /// # Errors
    /// The numbers are not the next ones.
    pub fn appended_lost(&mut self, numbers: (u64, u64), stream: u8, records: u32) -> Result<(), Violation> {
        let tags = self.tags(u64::from(records));
        let rows: Vec<_> = tags.map(|tag| (stream, tag, 0)).collect();
        self.appended(numbers, &rows, Vec::new())?;
        let first = self.records.len() - rows.len();
        self.records[first..].iter_mut().for_each(|record| record.lost = true);
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

    /// The engine may have published these floors; `surely` if the call returned without an error.
    pub fn floors(&mut self, floors: [u64; FLOORS], surely: bool) {
        for (known, floor) in self.floors.iter_mut().zip(floors) {
            known.1 = known.1.max(floor);
            known.0 = if surely { known.1 } else { known.0 };
        }
        if surely {
            let keep = self.keep;
            self.records.retain(|r| r.seq >= floors[keep.class(r)]);
            let floor = floors[..CLASSES_MAX].iter().copied().min().unwrap_or(1);
            self.holes.retain(|h| h.1 >= floor);
        }
    }

    /// The range of the floor below which everything is gone.
    fn lowest_floor(&self) -> (u64, u64) {
        let classes = || self.floors.iter().take(CLASSES_MAX);
        (classes().map(|f| f.0).min().unwrap_or(1), classes().map(|f| f.1).min().unwrap_or(1))
    }

    /// Which class a record is kept in, from now on.
    pub fn set_keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// A rewrite left these out, which were durable.
    ///
    /// # Errors
    /// One of them is of a stream that takes next to nothing, so nobody may have evicted it.
    pub fn evicted(&mut self, numbers: &[u64], surely: bool) -> Result<(), Violation> {
        let mut bytes = [0u64; 256];
        self.records.iter().for_each(|r| bytes[usize::from(r.stream)] += u64::from(r.len));
        let all: u64 = bytes.iter().sum();
        for number in numbers {
            let Ok(i) = self.records.binary_search_by_key(number, |r| r.seq) else { continue };
            let is_small = bytes[usize::from(self.records[i].stream)] * 8 < all;
            match self.records[i].standing {
                Standing::Durable if is_small => return Err(Violation::Lost(*number)),
                Standing::Durable => self.records[i].standing = Standing::Evicting,
                _ => {}
            }
        }
        if surely {
            self.records.retain(|r| r.standing != Standing::Evicting);
        }
        Ok(())
    }

    /// Those of these numbers that are not below the floor of their class.
    #[must_use]
    pub fn not_below(&self, numbers: &[u64], floors: [u64; FLOORS]) -> Vec<u64> {
        let known = |seq: &u64| self.records.binary_search_by_key(seq, |r| r.seq).ok().map(|i| &self.records[i]);
        let is_above = |seq: &&u64| known(seq).is_some_and(|record| record.seq >= floors[self.keep.class(record)]);
        numbers.iter().filter(is_above).copied().collect()
    }

    /// A number that should be there, in a table.
    #[must_use]
    pub fn is_owed(&self, seq: u64) -> bool {
        let found = self.records.binary_search_by_key(&seq, |r| r.seq).ok();
        found.is_some_and(|i| matches!(self.records[i].standing, Standing::Durable | Standing::Evicting))
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
        self.revived = self.revived.max(self.floors[LOG_FLOOR].1);
        self.forgets_boots = true;
        self.must_rebuild = surely;
        self.floors.iter_mut().for_each(|floor| floor.0 = 1);
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
