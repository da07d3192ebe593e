//! Comparing a mount with what the store owes.
//!
//! Invariant: the first promise found broken is reported; the order goes from what a user would miss most to what only
//! an operator would see.

use super::seen::{Damage, Item, Seen, SeenRecord};
use super::violation::Violation;
use super::{Closed, Known, Model, Standing};
use lastgasp_core::format::events::PreviousEnd;
use lastgasp_core::format::header::LOG_FLOOR;
use lastgasp_core::gaps::GapCause;
use std::collections::BTreeMap;

impl Model {
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
        for (floor, (low, high)) in seen.floors.into_iter().zip(self.floors) {
            let low = if damage.ledger_hit || self.forgot(seen) { 1 } else { low };
            // A rebuild cannot tell what was moved out of the log from what was dropped.
            let high = if damage.by_card && damage.ledger_hit { high.max(self.floors[LOG_FLOOR].1) } else { high };
            if !(low..=high).contains(&floor) {
                return Err(Violation::Floor(floor, low, high));
            }
        }
        Ok(())
    }

    /// The manifest was lost: what only it knew may be forgotten, until what the rebuild found is written down.
    fn forgot(&self, seen: &Seen) -> bool {
        self.ruined.1 || (self.ruined.0 && seen.previous_end == PreviousEnd::Rebuilt)
    }

    /// That it was lost stood in a ledger that is gone.
    fn is_forgotten(&self, record: &Known, seen: &Seen) -> bool {
        record.lost && self.ruined.0 && record.seq < seen.floors[LOG_FLOOR]
    }

    /// Not below the floor of its class.
    fn is_visible(&self, record: &Known, seen: &Seen) -> bool {
        record.seq >= seen.floors[self.keep.class(record)]
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
                    if let Some(i) = self.identify(&record, damage)? {
                        present[i] = true;
                    }
                }
                Item::Gap { cause: GapCause::LedgerLost, .. } => ledger_lost = true,
                Item::Gap { first, last, cause } => {
                    if first != expect || last < first {
                        return Err(Violation::OutOfOrder(expect, first));
                    }
                    expect = last + 1;
                    if cause == GapCause::Overload {
                        self.check_lost(first, last, &mut present)?;
                    } else {
                        self.check_gap(first, last, cause, seen, damage)?;
                    }
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

    fn identify(&self, record: &SeenRecord, damage: &Damage) -> Result<Option<usize>, Violation> {
        let found = self.records.binary_search_by_key(&record.seq, |r| r.seq).ok();
        let known = found.map(|i| self.records[i]);
        match (record.tag, known) {
            (Some(tag), Some(known)) if tag == known.tag && record.len == known.len && !known.lost => {
                let nameless = damage.by_card && record.stream.is_none();
                if record.stream != Some(known.stream) && !nameless {
                    return Err(Violation::WrongStream(*record));
                }
                if known.standing == Standing::Lost && !(damage.by_card && damage.ledger_hit) {
                    return Err(Violation::Resurrected(*record));
                }
                Ok(found)
            }
            // After the ledger was lost, what retention dropped may show again.
            (Some(tag), None) if self.ruined.0 && record.seq < self.revived && tag < self.next_tag => Ok(None),
            (Some(tag), _) if tag < self.next_tag && damage.by_card && damage.ledger_hit => Ok(None),
            (Some(tag), _) if tag < self.next_tag => Err(Violation::Resurrected(*record)),
            _ => Err(Violation::Invented(*record)),
        }
    }

    /// What was handed over as lost is shown as such, and nothing else is.
    fn check_lost(&self, a: u64, b: u64, present: &mut [bool]) -> Result<(), Violation> {
        for seq in a..=b {
            match self.records.binary_search_by_key(&seq, |r| r.seq) {
                Ok(i) if self.records[i].lost && self.records[i].standing != Standing::Lost => present[i] = true,
                // Where the ledger is full, neighbours take in what retention dropped between them.
                Err(_) if seq < self.floors[LOG_FLOOR].1 => {}
                _ => return Err(Violation::WrongCause(a, b, GapCause::Overload)),
            }
        }
        Ok(())
    }

    fn check_gap(&self, a: u64, b: u64, cause: GapCause, seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        if cause == GapCause::Retention {
            let from = self.records.partition_point(|r| r.seq < a);
            let mut records = self.records[from..].iter().take_while(|r| r.seq <= b);
            let owed = records
                .find(|r| self.is_visible(r, seen) && r.standing == Standing::Durable && !self.is_forgotten(r, seen));
            return match owed {
                _ if b >= seen.floors[LOG_FLOOR] => Err(Violation::WrongCause(a, b, cause)),
                Some(record) if !damage.ledger_hit => Err(Violation::Lost(record.seq)),
                _ => Ok(()),
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
                (Standing::Evicting, GapCause::Rot) if damage.log_hit => {}
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
            GapCause::Rot if self.ruined.0 && a < self.lowest_floor().1.max(self.floors[LOG_FLOOR].1) => Ok(()),
            GapCause::Rot => Err(Violation::FalseRot(a, b)),
            _ => Err(Violation::WrongCause(a, b, cause)),
        }
    }

    /// P1 and P2.
    fn check_survivors(&self, present: &[bool], seen: &Seen, damage: &Damage) -> Result<(), Violation> {
        let mut missing: Option<u64> = None;
        for (i, record) in self.records.iter().enumerate().filter(|(_, r)| self.is_visible(r, seen)) {
            let excused = matches!(record.standing, Standing::Lost | Standing::Evicting)
                || self.is_forgotten(record, seen)
                || (record.lost && record.standing == Standing::Durable && damage.by_card && damage.ledger_hit)
                || damage.may_lose.contains(&record.batch);
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
            // Retention takes no heed of batches, and rot in a table costs a group.
            let same = pair[0].batch == pair[1].batch && pair[1].seq >= seen.floors[LOG_FLOOR];
            let whole = present[i] == present[i + 1] && (pair[0].seq >= seen.floors[LOG_FLOOR] || !present[i + 1]);
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
        // A boot that wrote nothing leaves the clean stop before it as it was, whatever it had taken in.
        let ended = if self.durable < self.boot_first { self.boot_first } else { self.next_seq };
        if undamaged && self.closed == Closed::Yes && seen.next_seq != ended {
            return Err(Violation::NumberSkipped(seen.next_seq, ended));
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
                    if !self.epochs.contains(epoch) && self.epoch_maybe != Some(*epoch) && !damage.by_card {
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
        if let Some(missing) = self.epochs.iter().find(|e| seen.floors[LOG_FLOOR] == 1 && !epochs.contains(e)) {
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
        for (record, present) in self.records.iter().zip(present).filter(|(r, _)| self.is_visible(r, seen)) {
            if *present {
                records.push(Known { standing: Standing::Durable, ..*record });
            } else if !matches!(record.standing, Standing::Pending | Standing::Evicting)
                && record.seq <= seen.durable_upto
            {
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
            floors: seen.floors.map(|floor| (floor, floor)),
            keep: self.keep,
            revived: self.revived,
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
