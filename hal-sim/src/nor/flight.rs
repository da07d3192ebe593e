//! The operation of a NOR flash that was in flight when power failed, and what it may leave.
//!
//! Fault model: see the flash. The units that an outcome names are the bits a program would clear, from the lowest
//! address and the lowest bit on; where it names a byte position, the unit is 0: the whole program unit or block.
//!
//! Invariants:
//! - no outcome of a program sets a bit or clears one that the program would not clear;
//! - nothing outside the operation's range changes;
//! - a list of outcomes holds each way for a metastable cell to deceive: it looks applied at first, it looks untouched
//!   at first, it looks like anything.

use super::cells::Cells;
use crate::outcome::{Listing, Outcome, Plan};
use crate::rng::Rng;
use std::sync::Arc;

/// How metastable cells read in the first mount after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Applied,
    Untouched,
    Anything,
}

const LOOKS: [Look; 3] = [Look::Applied, Look::Untouched, Look::Anything];

/// An operation in flight.
#[derive(Debug, Clone)]
pub(super) enum Flight {
    /// The programming of one unit.
    Program { at: u32, bytes: Arc<[u8]> },
    /// The erase of one block.
    Erase { at: u32, len: u32 },
}

impl Flight {
    pub(super) fn at(&self) -> u32 {
        match self {
            Self::Program { at, .. } | Self::Erase { at, .. } => *at,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Program { bytes, .. } => bytes.len(),
            Self::Erase { len, .. } => *len as usize,
        }
    }

    /// It completes.
    pub(super) fn land(&self, cells: &mut Cells) {
        match self {
            Self::Program { at, bytes } => cells.clear(*at, bytes),
            Self::Erase { at, len } => cells.set(*at, &vec![0xff; *len as usize]),
        }
    }

    /// It fails on a worn-out block: it completes but for one cell in a hundred or so, and for one at least.
    pub(super) fn fail(&self, cells: &mut Cells, seed: u64) {
        let mut rng = Rng::new(seed);
        let old = self.old(cells);
        self.land(cells);
        let stuck = self.len().div_ceil(12);
        for _ in 0..stuck {
            let index = rng.index(self.len());
            let bit = 1 << rng.below(8);
            let at = self.at() + offset(index);
            let now = cells.settled().byte(at as usize);
            cells.set(at, &[now & !bit | old[index] & bit]);
        }
    }

    fn old(&self, cells: &Cells) -> Vec<u8> {
        let mut old = vec![0; self.len()];
        cells.settled().read(self.at() as usize, &mut old);
        old
    }

    /// Leaves on the cells what `outcome` says.
    ///
    /// # Panics
    /// If the outcome names a unit that is not there or cannot happen to this operation.
    pub(super) fn settle(&self, cells: &mut Cells, outcome: &Outcome) {
        let old = self.old(cells);
        match (self, *outcome) {
            (_, Outcome::None) => {}
            (_, Outcome::All) => self.land(cells),
            (Self::Program { at, bytes }, _) => settle_program(cells, *at, &old, bytes, outcome),
            (Self::Erase { at, .. }, _) => settle_erase(cells, *at, &old, outcome),
        }
    }
}

/// A position within an operation as part of an address.
fn offset(index: usize) -> u32 {
    u32::try_from(index).expect("an operation lies inside a flash of 32-bit addresses")
}

/// The bits a program would clear, as (byte position, bit).
fn bits(old: &[u8], new: &[u8]) -> Vec<(usize, u32)> {
    let cleared = old.iter().zip(new).map(|(old, new)| old & !new).enumerate();
    cleared
        .flat_map(|(index, mask)| (0..8).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| (index, bit)))
        .collect()
}

fn settle_program(cells: &mut Cells, at: u32, old: &[u8], new: &[u8], outcome: &Outcome) {
    let bits = bits(old, new);
    let named = |unit: u32| {
        let known = (unit as usize) < bits.len();
        assert!(known, "outcome {outcome} belongs to another cut: only {} bits are in flight here", bits.len());
        unit as usize
    };
    let chosen = |choose: &mut dyn FnMut(usize) -> bool| {
        let mut mask = vec![0xff; new.len()];
        for (number, &(index, bit)) in bits.iter().enumerate() {
            if choose(number) {
                mask[index] &= !(1 << bit);
            }
        }
        mask
    };
    match *outcome {
        Outcome::Subset(mask) => {
            assert!(bits.len() < 64 && mask >> bits.len() == 0, "outcome {outcome} belongs to another cut");
            cells.clear(at, &chosen(&mut |bit| mask >> bit & 1 == 1));
        }
        Outcome::Drop(unit) => {
            let unit = named(unit);
            cells.clear(at, &chosen(&mut |bit| bit != unit));
        }
        Outcome::Only(unit) => {
            let unit = named(unit);
            cells.clear(at, &chosen(&mut |bit| bit == unit));
        }
        Outcome::Head { unit: 0, at: head } => cells.clear(at, &new[..(head as usize).min(new.len())]),
        Outcome::Tail { unit: 0, at: tail } => {
            let tail = (tail as usize).min(new.len());
            cells.clear(at + offset(tail), &new[tail..]);
        }
        Outcome::Metastable(seed) => {
            let mut rng = Rng::new(seed);
            let look = look_of(seed);
            waver_program(cells, at, &bits, look, &mut rng);
        }
        Outcome::Seeded(seed) => {
            let mut rng = Rng::new(seed);
            let kept = [1, 4, 7][rng.index(3)];
            cells.clear(at, &chosen(&mut |_| rng.chance(kept, 8)));
        }
        _ => panic!("outcome {outcome} does not happen to a program of NOR flash"),
    }
}

fn look_of(seed: u64) -> Look {
    // The remainder is below 3.
    LOOKS[usize::try_from(seed % 3).unwrap_or(0)]
}

/// About half of the bits in flight, and one at least, stay between 0 and 1.
fn waver_program(cells: &mut Cells, at: u32, bits: &[(usize, u32)], look: Look, rng: &mut Rng) {
    let sure = rng.index(bits.len());
    for (number, &(index, bit)) in bits.iter().enumerate() {
        let (address, mask) = (at + offset(index), 1_u8 << bit);
        if number == sure || rng.chance(1, 2) {
            let first = match look {
                Look::Applied => 0,
                Look::Untouched => mask,
                Look::Anything => rng.byte() & mask,
            };
            waver(cells, address, mask, first);
        } else if look == Look::Applied || look == Look::Anything && rng.chance(1, 2) {
            cells.clear(address, &[!mask]);
        }
    }
}

/// Unsettles more bits of a byte; those of it that were unsettled in this mount keep their first look.
fn waver(cells: &mut Cells, address: u32, mask: u8, first: u8) {
    let mut now = [0];
    cells.read(address, &mut now);
    cells.unsettle(address, mask, now[0] & !mask | first & mask);
}

fn settle_erase(cells: &mut Cells, at: u32, old: &[u8], outcome: &Outcome) {
    let len = old.len();
    match *outcome {
        Outcome::Zeroed => cells.set(at, &vec![0; len]),
        Outcome::Head { unit: 0, at: head } => cells.set(at, &vec![0xff; (head as usize).min(len)]),
        Outcome::Tail { unit: 0, at: tail } => {
            let tail = (tail as usize).min(len);
            cells.set(at + offset(tail), &vec![0xff; len - tail]);
        }
        Outcome::Garbage { unit: 0, seed } => {
            let mut bytes = vec![0; len];
            Rng::new(seed).fill(&mut bytes);
            cells.set(at, &bytes);
        }
        Outcome::Metastable(seed) => waver_erase(cells, at, old, look_of(seed), &mut Rng::new(seed)),
        Outcome::Seeded(seed) => {
            let mut rng = Rng::new(seed);
            let kept = [1, 4, 7][rng.index(3)];
            let bytes: Vec<u8> =
                old.iter().map(|old| if rng.chance(kept, 8) { *old } else { old | rng.byte() }).collect();
            cells.set(at, &bytes);
        }
        _ => panic!("outcome {outcome} does not happen to an erase of NOR flash"),
    }
}

/// One byte in eight keeps cells between old and erased; the rest is erased, old where the block looks untouched.
fn waver_erase(cells: &mut Cells, at: u32, old: &[u8], look: Look, rng: &mut Rng) {
    if look != Look::Untouched {
        cells.set(at, &vec![0xff; old.len()]);
    }
    let candidates: Vec<usize> = (0..old.len()).filter(|&index| old[index] != 0xff).collect();
    let sure = rng.index(candidates.len());
    for (number, index) in candidates.into_iter().enumerate() {
        let charged = !old[index];
        if number != sure && !rng.chance(1, 8) {
            continue;
        }
        let mask = match charged & rng.byte() {
            0 => charged,
            some => some,
        };
        let first = match look {
            Look::Applied => mask,
            Look::Untouched => 0,
            Look::Anything => rng.byte() & mask,
        };
        cells.unsettle(at + offset(index), mask, first);
    }
}

/// What may become of the operation in flight, as far as `plan` wants to see it.
pub(super) fn outcomes(flight: Option<&Flight>, cells: &Cells, word: usize, place: u64, plan: &Plan) -> Vec<Outcome> {
    let mut listing = Listing::new(plan, place);
    let Some(flight) = flight else { return listing.done() };
    let len = flight.len();
    let mut ends = vec![word, len / 2, len - word];
    match flight {
        Flight::Program { bytes, .. } => {
            let units = offset(bits(&flight.old(cells), bytes).len());
            listing.add(Outcome::All);
            if units == 0 {
                return listing.done();
            }
            listing.add_subsets(units);
        }
        Flight::Erase { .. } => {
            listing.add(Outcome::All);
            listing.add(Outcome::Zeroed);
            let seed = listing.seed();
            listing.add(Outcome::Garbage { unit: 0, seed });
        }
    }
    ends.extend(listing.picks(offset(len)).into_iter().map(|at| at as usize));
    for at in ends.into_iter().filter(|at| (1..len).contains(at)).map(offset) {
        listing.add(Outcome::Head { unit: 0, at });
        listing.add(Outcome::Tail { unit: 0, at });
    }
    for look in 0..3 {
        let seed = listing.seed() / 3 * 3 + look;
        listing.add(Outcome::Metastable(seed));
    }
    for _ in 0..plan.samples {
        let seed = listing.seed();
        listing.add(Outcome::Seeded(seed));
    }
    listing.done()
}
