//! What of the unsynced writes is on the disk after a cut.
//!
//! Fault model: see the disk. The unit at risk is a *piece*: the part of one write that lies in one torn unit.
//!
//! Invariants:
//! - pieces are listed oldest first, within a write by address; their index is the unit that an outcome names;
//! - garbage covers the torn unit around a piece, except where a later write into that unit was synced: then the
//!   medium has written the unit, and only the piece's own bytes are in doubt;
//! - bytes of a piece in limbo that a later synced write covers are no longer in doubt at all.

use super::{DiskConfig, Unsynced};
use crate::image::Image;
use crate::outcome::{Listing, Outcome, Plan};
use crate::power::AtRisk;
use crate::rng::Rng;
use std::ops::Range;
use std::sync::Arc;

/// The part of one write that lies in one torn unit.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    op: u64,
    pub(super) at: usize,
    source: Arc<[u8]>,
    part: Range<usize>,
    /// A write into the same torn unit was synced later, so the unit as a whole is not at risk.
    settled_around: bool,
    /// Reads see it.
    pub(super) cached: bool,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.source[self.part.clone()]
    }

    fn range(&self) -> Range<usize> {
        self.at..self.at + self.part.len()
    }

    /// What a cut can destroy on account of this piece.
    fn scope(&self, torn: usize) -> Range<usize> {
        if self.settled_around {
            return self.range();
        }
        let start = self.at / torn * torn;
        start..start + torn
    }

    pub(super) fn at_risk(&self, torn: usize) -> AtRisk {
        let scope = self.scope(torn);
        AtRisk {
            op: self.op,
            at: self.at as u64,
            len: self.part.len() as u64,
            unit_at: scope.start as u64,
            unit_len: scope.len() as u64,
        }
    }

    /// What is left of it outside `range`.
    fn without(&self, range: &Range<usize>) -> impl Iterator<Item = Self> {
        let own = self.range();
        let before = own.start..own.end.min(range.start);
        let behind = own.start.max(range.end)..own.end;
        [before, behind].into_iter().filter(|rest| !rest.is_empty()).map(move |rest| Self {
            at: rest.start,
            part: self.part.start + (rest.start - own.start)..self.part.start + (rest.end - own.start),
            ..self.clone()
        })
    }
}

/// Cuts a write into its pieces.
pub(super) fn split(write: &Unsynced, torn: usize, cached: bool, into: &mut Vec<Piece>) {
    let end = write.at + write.bytes.len();
    let mut at = write.at;
    while at < end {
        let next = ((at / torn + 1) * torn).min(end);
        into.push(Piece {
            op: write.op,
            at,
            source: Arc::clone(&write.bytes),
            part: at - write.at..next - write.at,
            settled_around: false,
            cached,
        });
        at = next;
    }
}

/// Takes out of `limbo` what a synced write of `range` settles.
pub(super) fn supersede(limbo: &mut Vec<Piece>, range: Range<usize>, torn: usize) {
    if limbo.is_empty() || range.is_empty() {
        return;
    }
    let units = range.start / torn * torn..range.end.div_ceil(torn) * torn;
    let mut rest = Vec::with_capacity(limbo.len());
    for mut piece in limbo.drain(..) {
        piece.settled_around |= units.contains(&piece.at);
        rest.extend(piece.without(&range));
    }
    *limbo = rest;
}

/// What becomes of one piece.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Old,
    New,
    Head(usize),
    Tail(usize),
    Garbage(u64),
}

fn apply(medium: &mut Image, piece: &Piece, fate: Fate, torn: usize) {
    let bytes = piece.bytes();
    match fate {
        Fate::Old => {}
        Fate::New => medium.write(piece.at, bytes),
        Fate::Head(at) => medium.write(piece.at, &bytes[..at.min(bytes.len())]),
        Fate::Tail(at) => {
            let at = at.min(bytes.len());
            medium.write(piece.at + at, &bytes[at..]);
        }
        Fate::Garbage(seed) => garbage(medium, piece.scope(torn), &mut Rng::new(seed)),
    }
}

fn garbage(medium: &mut Image, scope: Range<usize>, rng: &mut Rng) {
    let end = scope.end.min(medium.len());
    medium.edit(scope.start..end, |_, part| rng.fill(part));
}

/// Puts on the medium what `outcome` leaves of `pieces`.
///
/// # Panics
/// If the outcome names a piece that is not there or cannot happen to a disk.
pub(super) fn settle(medium: &mut Image, pieces: &[Piece], outcome: &Outcome, config: &DiskConfig) {
    let torn = config.torn_unit as usize;
    let named = |unit: u32| {
        let known = (unit as usize) < pieces.len();
        assert!(known, "outcome {outcome} belongs to another cut: only {} units are at risk here", pieces.len());
        unit as usize
    };
    let mut each = |fate: &dyn Fn(usize) -> Fate| {
        for (index, piece) in pieces.iter().enumerate() {
            apply(medium, piece, fate(index), torn);
        }
    };
    let but = |unit: u32, fate: Fate| {
        let unit = named(unit);
        move |index: usize| if index == unit { fate } else { Fate::New }
    };
    let picked = |yes: bool| if yes { Fate::New } else { Fate::Old };
    match *outcome {
        Outcome::None => {}
        Outcome::All => each(&|_| Fate::New),
        Outcome::Reversed => pieces.iter().rev().for_each(|piece| apply(medium, piece, Fate::New, torn)),
        Outcome::Subset(mask) => {
            assert!(pieces.len() < 64 && mask >> pieces.len() == 0, "outcome {outcome} belongs to another cut");
            each(&|index| picked(mask >> index & 1 == 1));
        }
        Outcome::Drop(unit) => each(&but(unit, Fate::Old)),
        Outcome::Only(unit) => {
            let unit = named(unit);
            each(&|index| picked(index == unit));
        }
        Outcome::Head { unit, at } => each(&but(unit, Fate::Head(at as usize))),
        Outcome::Tail { unit, at } => each(&but(unit, Fate::Tail(at as usize))),
        Outcome::Garbage { unit, seed } => each(&but(unit, Fate::Garbage(seed))),
        Outcome::Collateral { unit, seed } => {
            each(&|_| Fate::New);
            collateral(medium, &pieces[named(unit)], seed, config);
        }
        Outcome::Seeded(seed) => by_chance(medium, pieces, seed, torn),
        Outcome::Zeroed | Outcome::Metastable(_) => panic!("outcome {outcome} does not happen to a disk"),
    }
}

/// One to four torn units somewhere in the allocation unit around `piece` are garbage.
fn collateral(medium: &mut Image, piece: &Piece, seed: u64, config: &DiskConfig) {
    let torn = config.torn_unit as usize;
    let unit = config.allocation_unit.map_or(torn, |unit| unit as usize).max(torn);
    let start = piece.at / unit * unit;
    let mut rng = Rng::new(seed);
    for _ in 0..=rng.below(4) {
        let at = start + rng.index(unit / torn) * torn;
        if at < medium.len() {
            garbage(medium, at..at + torn, &mut rng);
        }
    }
}

fn by_chance(medium: &mut Image, pieces: &[Piece], seed: u64, torn: usize) {
    let mut rng = Rng::new(seed);
    let mut order: Vec<&Piece> = pieces.iter().collect();
    rng.shuffle(&mut order);
    // Of ten pieces, so many are kept: nearly none, half of them, or nearly all.
    let kept = [1, 5, 9][rng.index(3)];
    for piece in order {
        let len = piece.bytes().len();
        let fate = match rng.below(8) {
            0 => Fate::Head(rng.index(len + 1)),
            1 => Fate::Tail(rng.index(len + 1)),
            2 => Fate::Garbage(rng.any()),
            _ if rng.chance(kept, 10) => Fate::New,
            _ => Fate::Old,
        };
        apply(medium, piece, fate, torn);
    }
}

/// What may become of `pieces`, as far as `plan` wants to see it.
pub(super) fn outcomes(pieces: &[Piece], place: u64, plan: &Plan, collateral: bool) -> Vec<Outcome> {
    let mut listing = Listing::new(plan, place);
    // Pieces are as many as torn units in what was written between two syncs.
    let units = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    if units == 0 {
        return listing.done();
    }
    listing.add(Outcome::All);
    listing.add_subsets(units);
    if overlap(pieces) {
        listing.add(Outcome::Reversed);
    }
    for unit in listing.picks(units) {
        let half = u32::try_from(pieces[unit as usize].bytes().len() / 2).unwrap_or(u32::MAX);
        listing.add(Outcome::Head { unit, at: half });
        listing.add(Outcome::Tail { unit, at: half });
        let seed = listing.seed();
        listing.add(Outcome::Garbage { unit, seed });
        if collateral {
            let seed = listing.seed();
            listing.add(Outcome::Collateral { unit, seed });
        }
    }
    for _ in 0..plan.samples {
        let seed = listing.seed();
        listing.add(Outcome::Seeded(seed));
    }
    listing.done()
}

/// Whether two pieces share bytes, so that their order matters.
fn overlap(pieces: &[Piece]) -> bool {
    let mut ranges: Vec<Range<usize>> = pieces.iter().map(Piece::range).collect();
    ranges.sort_by_key(|range| range.start);
    ranges.windows(2).any(|pair| pair[0].end > pair[1].start)
}
