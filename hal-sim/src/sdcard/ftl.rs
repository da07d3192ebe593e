//! The flash translation layer of a card: which page lies where, what has to be moved to make room, and the wear.
//!
//! Fault model, as far as it is decided here. NAND is erased in allocation units and programmed in pages, in order,
//! once. Mapped by pages, a write goes to the next page of the open unit; when none is free, the unit with the fewest
//! valid pages is moved and erased, and the host waits. Mapped by blocks, a write that goes on in an open unit is
//! cheap, any other moves a whole unit. A unit that was erased as often as it lasts is retired; when too few are left
//! to move anything, the card turns read-only.
//!
//! Cells are programmed together with those of the pages that share them, and a unit that is moved is in two places.
//! So what a cut can hit beside the write in flight is every page that lies in a unit the card is programming or
//! moving at that moment: [`Work::touched`].
//!
//! Invariants: contents are not kept here, only places; each logical page has at most one physical page; the count of
//! valid pages of a unit is the number of logical pages that point into it; there is always a free page after a write,
//! or the card is worn out.

use super::config::Mapping;

const NOWHERE: u32 = u32::MAX;

/// What writes made the card do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Pages programmed for the host.
    pub(super) programmed: u64,
    /// Pages programmed to move them.
    pub(super) copied: u64,
    /// Units erased.
    pub(super) erased: u64,
    /// Physical units that were programmed or erased.
    touched_units: Vec<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Unit {
    erases: u32,
    valid: u32,
    /// The next page to be programmed.
    next: u32,
    retired: bool,
}

/// A logical unit that is being written anew, in order.
#[derive(Debug, Clone, Copy)]
struct Open {
    logical: u32,
    physical: u32,
}

/// Places and wear.
#[derive(Debug, Clone)]
pub(super) struct Ftl {
    mapping: Mapping,
    pages: u32,
    endurance: u32,
    /// Where each logical page lies.
    place: Vec<u32>,
    /// Which logical page lies in each physical one.
    owner: Vec<u32>,
    units: Vec<Unit>,
    free: Vec<u32>,
    active: u32,
    /// Mapped by blocks: the open units, the one used last at the end.
    open: Vec<Open>,
    worn_out: bool,
}

impl Ftl {
    /// A card of `logical` units of `pages` pages, and `spare` more.
    pub(super) fn new(logical: u32, spare: u32, pages: u32, mapping: Mapping, endurance: u32) -> Self {
        let units = logical + spare;
        Self {
            mapping,
            pages,
            endurance,
            place: vec![NOWHERE; (logical * pages) as usize],
            owner: vec![NOWHERE; (units * pages) as usize],
            units: vec![Unit::default(); units as usize],
            free: (1..units).rev().collect(),
            active: 0,
            open: Vec::new(),
            worn_out: false,
        }
    }

    /// How often each unit was erased.
    pub(super) fn erases(&self) -> Vec<u32> {
        self.units.iter().map(|unit| unit.erases).collect()
    }

    /// Too few units are left.
    pub(super) fn is_worn_out(&self) -> bool {
        self.worn_out
    }

    /// Writes these logical pages, in order.
    pub(super) fn write(&mut self, pages: &[u32], work: &mut Work) {
        for &page in pages {
            if self.worn_out {
                return;
            }
            match self.mapping {
                Mapping::Page => self.write_page(page, work),
                Mapping::Block { open } => self.write_in_order(page, open.max(1) as usize, work),
            }
        }
    }

    /// Logical pages that a cut can hit while the card does this work.
    pub(super) fn touched(&self, work: &Work) -> Vec<u32> {
        let mut touched = Vec::new();
        for unit in &work.touched_units {
            let first = (unit * self.pages) as usize;
            touched.extend(self.owner[first..first + self.pages as usize].iter().filter(|page| **page != NOWHERE));
        }
        // Mapped by blocks, the unit that is being replaced still holds what was not written anew.
        for open in &self.open {
            if work.touched_units.contains(&open.physical) {
                touched.extend(open.logical * self.pages..(open.logical + 1) * self.pages);
            }
        }
        touched.retain(|page| self.place[*page as usize] != NOWHERE);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    fn write_page(&mut self, page: u32, work: &mut Work) {
        if self.units[self.active as usize].next == self.pages {
            self.make_room(work);
        }
        if !self.worn_out {
            self.put(page, self.active, work);
            work.programmed += 1;
        }
    }

    /// Opens a fresh unit; if it was the last one, moves the emptiest unit into it.
    fn make_room(&mut self, work: &mut Work) {
        while self.units[self.active as usize].next == self.pages && !self.worn_out {
            self.active = self.take_free();
            if self.free.is_empty() {
                self.collect(work);
            }
        }
    }

    fn collect(&mut self, work: &mut Work) {
        let full = |unit: &u32| *unit != self.active && !self.units[*unit as usize].retired;
        let all = 0..u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        let victim = all.filter(full).min_by_key(|unit| {
            let unit = &self.units[*unit as usize];
            (unit.valid, unit.erases)
        });
        let Some(victim) = victim.filter(|unit| self.units[*unit as usize].valid < self.pages) else {
            self.worn_out = true;
            return;
        };
        self.move_all(victim, self.active, work);
        self.erase(victim, work);
    }

    fn move_all(&mut self, from: u32, to: u32, work: &mut Work) {
        for physical in from * self.pages..(from + 1) * self.pages {
            let page = self.owner[physical as usize];
            if page != NOWHERE {
                self.put(page, to, work);
                work.copied += 1;
            }
        }
    }

    /// Programs a logical page into the next page of a unit.
    fn put(&mut self, page: u32, unit: u32, work: &mut Work) {
        let old = self.place[page as usize];
        if old != NOWHERE {
            self.owner[old as usize] = NOWHERE;
            self.units[(old / self.pages) as usize].valid -= 1;
        }
        let slot = &mut self.units[unit as usize];
        let physical = unit * self.pages + slot.next;
        slot.next += 1;
        slot.valid += 1;
        self.owner[physical as usize] = page;
        self.place[page as usize] = physical;
        if !work.touched_units.contains(&unit) {
            work.touched_units.push(unit);
        }
    }

    fn erase(&mut self, unit: u32, work: &mut Work) {
        let state = &mut self.units[unit as usize];
        state.erases += 1;
        (state.next, state.valid) = (0, 0);
        work.erased += 1;
        if state.erases >= self.endurance {
            state.retired = true;
        } else {
            self.free.push(unit);
        }
        let usable = self.units.iter().filter(|unit| !unit.retired).count();
        self.worn_out |= usable * self.pages as usize <= self.place.len() + 2 * self.pages as usize;
    }

    /// The free unit that was erased least often.
    fn take_free(&mut self) -> u32 {
        let least = (0..self.free.len()).min_by_key(|i| (self.units[self.free[*i] as usize].erases, self.free[*i]));
        if let Some(index) = least {
            return self.free.swap_remove(index);
        }
        self.worn_out = true;
        self.active
    }

    fn write_in_order(&mut self, page: u32, open_max: usize, work: &mut Work) {
        let (logical, nth) = (page / self.pages, page % self.pages);
        let at = self.open.iter().position(|open| open.logical == logical);
        if let Some(at) = at {
            let open = self.open.remove(at);
            if self.units[open.physical as usize].next <= nth {
                self.open.push(open);
            } else {
                self.finish(open, work);
            }
        }
        if self.open.last().is_none_or(|open| open.logical != logical) {
            if self.open.len() >= open_max {
                let oldest = self.open.remove(0);
                self.finish(oldest, work);
            }
            let physical = self.take_free();
            self.open.push(Open { logical, physical });
        }
        if self.worn_out {
            return;
        }
        if let Some(open) = self.open.last().copied() {
            self.copy_up_to(open, nth, work);
            self.put(page, open.physical, work);
            work.programmed += 1;
            if nth + 1 == self.pages {
                self.open.pop();
                self.drop_old(open, work);
            }
        }
    }

    /// Copies what lies before page `nth` of a logical unit out of its old place, so that the order is kept.
    fn copy_up_to(&mut self, open: Open, nth: u32, work: &mut Work) {
        for at in self.units[open.physical as usize].next..nth {
            let page = open.logical * self.pages + at;
            if self.place[page as usize] == NOWHERE {
                self.units[open.physical as usize].next += 1;
            } else {
                self.put(page, open.physical, work);
                work.copied += 1;
            }
        }
    }

    fn finish(&mut self, open: Open, work: &mut Work) {
        self.copy_up_to(open, self.pages, work);
        self.drop_old(open, work);
    }

    /// Everything of a logical unit lies in its new place: old ones that are empty now are erased.
    fn drop_old(&mut self, open: Open, work: &mut Work) {
        for unit in 0..u32::try_from(self.units.len()).unwrap_or(u32::MAX) {
            let state = self.units[unit as usize];
            let is_open = unit == open.physical || self.open.iter().any(|other| other.physical == unit);
            if state.valid == 0 && state.next > 0 && !state.retired && !is_open {
                self.erase(unit, work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn check(ftl: &Ftl) {
        for (unit, state) in ftl.units.iter().enumerate() {
            let pages = unit * ftl.pages as usize..(unit + 1) * ftl.pages as usize;
            let valid = ftl.owner[pages].iter().filter(|page| **page != NOWHERE).count();
            assert_eq!(valid, state.valid as usize, "unit {unit}");
        }
        for (page, place) in ftl.place.iter().enumerate().filter(|(_, place)| **place != NOWHERE) {
            assert_eq!(ftl.owner[*place as usize] as usize, page);
        }
    }

    fn random_writes(mapping: Mapping, writes: u32) -> (Ftl, Work) {
        let mut ftl = Ftl::new(8, 3, 8, mapping, u32::MAX);
        let (mut rng, mut work) = (Rng::new(3), Work::default());
        for _ in 0..writes {
            ftl.write(&[u32::try_from(rng.below(64)).unwrap()], &mut work);
            check(&ftl);
        }
        assert!(!ftl.is_worn_out());
        (ftl, work)
    }

    #[test]
    fn pages_written_at_random_are_found_and_cost_garbage_collection() {
        let (ftl, work) = random_writes(Mapping::Page, 2000);
        assert_eq!(work.programmed, 2000);
        assert!(work.copied > 100 && work.erased > 200, "{work:?}");
        assert!(ftl.erases().iter().all(|erases| *erases > 0), "{:?}", ftl.erases());
    }

    #[test]
    fn a_card_mapped_by_blocks_pays_for_disorder_and_not_for_order() {
        let (_, disorder) = random_writes(Mapping::Block { open: 2 }, 500);
        let mut ftl = Ftl::new(8, 3, 8, Mapping::Block { open: 2 }, u32::MAX);
        let mut order = Work::default();
        for round in 0..10 {
            ftl.write(&(0..64).collect::<Vec<_>>(), &mut order);
            check(&ftl);
            assert_eq!(order.copied, 0, "round {round}");
        }
        assert!(disorder.copied > disorder.programmed, "{disorder:?}");
    }

    #[test]
    fn a_cut_can_hit_neighbours_that_were_written_long_ago() {
        let mut ftl = Ftl::new(8, 3, 8, Mapping::Page, u32::MAX);
        ftl.write(&[1, 2, 3], &mut Work::default());
        let mut work = Work::default();
        ftl.write(&[40], &mut work);
        assert_eq!(ftl.touched(&work), [1, 2, 3, 40]);
        let mut blocks = Ftl::new(8, 3, 8, Mapping::Block { open: 1 }, u32::MAX);
        blocks.write(&(0..16).collect::<Vec<_>>(), &mut Work::default());
        let mut work = Work::default();
        blocks.write(&[8], &mut work);
        assert_eq!(blocks.touched(&work), (8..16).collect::<Vec<_>>());
    }

    #[test]
    fn units_wear_out_and_the_card_with_them() {
        for mapping in [Mapping::Page, Mapping::Block { open: 2 }] {
            let mut ftl = Ftl::new(8, 3, 8, mapping, 20);
            let (mut rng, mut writes) = (Rng::new(5), 0);
            while !ftl.is_worn_out() && writes < 100_000 {
                ftl.write(&[u32::try_from(rng.below(64)).unwrap()], &mut Work::default());
                writes += 1;
            }
            assert!(ftl.is_worn_out() && writes > 100, "{writes} writes");
        }
    }
}
