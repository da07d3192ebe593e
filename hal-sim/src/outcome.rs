//! What a cut leaves behind, as one small value with a short id that is printed by a failing case and replays it.
//!
//! A medium names the *units at risk* when power fails: on a disk, each piece of an unsynced write that lies in one
//! torn unit, oldest first; on NOR flash, each bit that the word in flight would clear. An outcome says what becomes
//! of them. Where an outcome speaks of one unit, all others are applied.
//!
//! Invariants:
//! - `id.parse::<Outcome>()` gives back what printed `id`;
//! - a plan gives the same outcomes for the same number of units, always with nothing applied and everything applied;
//! - no outcome is listed twice.

use crate::rng::Rng;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// What a cut leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing of what was at risk is on the medium. Id `n`.
    None,
    /// Everything is. Id `a`.
    All,
    /// Everything is, but of units written twice the older content stayed on top. Disk only. Id `v`.
    Reversed,
    /// Unit `i` is applied if bit `i` is set. Id `s<hex>`.
    Subset(u64),
    /// All but this unit. Id `d<unit>`.
    Drop(u32),
    /// This unit only. Id `o<unit>`.
    Only(u32),
    /// The first `at` bytes of this unit are new, the rest old. On NOR the unit is 0: the word or block.
    /// Id `h<unit>.<at>`.
    Head {
        /// The torn unit.
        unit: u32,
        /// How many bytes are new.
        at: u32,
    },
    /// All but the first `at` bytes of this unit are new. On NOR the unit is 0: the word or block.
    /// Id `t<unit>.<at>`.
    Tail {
        /// The torn unit.
        unit: u32,
        /// How many bytes are old.
        at: u32,
    },
    /// The whole torn unit around this piece is garbage. On NOR (erase only) the block. Id `g<unit>.<hex>`.
    Garbage {
        /// The unit.
        unit: u32,
        /// Seed of the garbage.
        seed: u64,
    },
    /// All is applied, but something else in the same allocation unit is garbage, synced or not. Disk only; breaks
    /// the promise that a synced write is safe, and is listed only on demand. Id `c<unit>.<hex>`.
    Collateral {
        /// The unit whose write did the damage.
        unit: u32,
        /// Seed of what is damaged, and how.
        seed: u64,
    },
    /// The block reads as zeros: flash programs a block before it erases it. NOR erase only. Id `z`.
    Zeroed,
    /// Some cells hold a charge between 0 and 1 and read differently from mount to mount. NOR only. Id `m<hex>`.
    Metastable(u64),
    /// Chance decides for each unit on its own: old, new, torn at any byte, garbage, in any order. Id `r<hex>`.
    Seeded(u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "n"),
            Self::All => write!(f, "a"),
            Self::Reversed => write!(f, "v"),
            Self::Subset(mask) => write!(f, "s{mask:x}"),
            Self::Drop(unit) => write!(f, "d{unit}"),
            Self::Only(unit) => write!(f, "o{unit}"),
            Self::Head { unit, at } => write!(f, "h{unit}.{at}"),
            Self::Tail { unit, at } => write!(f, "t{unit}.{at}"),
            Self::Garbage { unit, seed } => write!(f, "g{unit}.{seed:x}"),
            Self::Collateral { unit, seed } => write!(f, "c{unit}.{seed:x}"),
            Self::Zeroed => write!(f, "z"),
            Self::Metastable(seed) => write!(f, "m{seed:x}"),
            Self::Seeded(seed) => write!(f, "r{seed:x}"),
        }
    }
}

/// A string that is not the id of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnOutcome(String);

impl fmt::Display for NotAnOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not the id of an outcome", self.0)
    }
}

impl std::error::Error for NotAnOutcome {}

impl FromStr for Outcome {
    type Err = NotAnOutcome;

    fn from_str(id: &str) -> Result<Self, NotAnOutcome> {
        parse(id).ok_or_else(|| NotAnOutcome(id.to_owned()))
    }
}

fn parse(id: &str) -> Option<Outcome> {
    let (letter, rest) = id.split_at_checked(1)?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let two = || rest.split_once('.');
    Some(match (letter, rest) {
        ("n", "") => Outcome::None,
        ("a", "") => Outcome::All,
        ("v", "") => Outcome::Reversed,
        ("z", "") => Outcome::Zeroed,
        ("s", _) => Outcome::Subset(hex(rest)?),
        ("d", _) => Outcome::Drop(rest.parse().ok()?),
        ("o", _) => Outcome::Only(rest.parse().ok()?),
        ("h", _) => Outcome::Head { unit: two()?.0.parse().ok()?, at: two()?.1.parse().ok()? },
        ("t", _) => Outcome::Tail { unit: two()?.0.parse().ok()?, at: two()?.1.parse().ok()? },
        ("g", _) => Outcome::Garbage { unit: two()?.0.parse().ok()?, seed: hex(two()?.1)? },
        ("c", _) => Outcome::Collateral { unit: two()?.0.parse().ok()?, seed: hex(two()?.1)? },
        ("m", _) => Outcome::Metastable(hex(rest)?),
        ("r", _) => Outcome::Seeded(hex(rest)?),
        _ => return None,
    })
}

/// How many outcomes of a cut a driver wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Up to this many units at risk, every subset of them is listed (at most 16 are taken).
    pub exhaustive: u32,
    /// Of how many units each single fate is listed; beyond, the first, the last and a sample by seed.
    pub singles: u32,
    /// How many outcomes by chance are listed, wherever anything is at risk.
    pub samples: u32,
    /// Seed of all chances.
    pub seed: u64,
    /// Whether damage to synced neighbours in an allocation unit is listed.
    pub collateral: bool,
}

impl Default for Plan {
    /// Every subset of up to 6 units, the single fates of 8, 4 samples, seed 0, no collateral damage.
    fn default() -> Self {
        Self { exhaustive: 6, singles: 8, samples: 4, seed: 0, collateral: false }
    }
}

/// A list of outcomes without repetition.
pub(crate) struct Listing<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) rng: Rng,
    list: Vec<Outcome>,
    seen: HashSet<Outcome>,
}

impl<'p> Listing<'p> {
    /// A list under `plan`; `place` tells the cut points of one run apart, so that they draw different samples.
    pub(crate) fn new(plan: &'p Plan, place: u64) -> Self {
        let mut listing =
            Self { plan, rng: Rng::derived(plan.seed, place), list: Vec::new(), seen: HashSet::default() };
        listing.add(Outcome::None);
        listing
    }

    /// Adds one, unless it is there.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        if self.seen.insert(outcome) {
            self.list.push(outcome);
        }
    }

    /// Adds every subset of `units`, if they are few, else the single fates of some.
    pub(crate) fn add_subsets(&mut self, units: u32) {
        if units > 0 && units <= self.plan.exhaustive.min(16) {
            for mask in 1..(1_u64 << units) - 1 {
                self.add(Outcome::Subset(mask));
            }
        } else {
            for unit in self.picks(units) {
                self.add(Outcome::Drop(unit));
                self.add(Outcome::Only(unit));
            }
        }
    }

    /// All of `units` if they are few, else the first, the last and some between them.
    pub(crate) fn picks(&mut self, units: u32) -> Vec<u32> {
        if units <= self.plan.singles {
            return (0..units).collect();
        }
        let mut picks: Vec<u32> = [0, units - 1].into_iter().take(self.plan.singles as usize).collect();
        // A sample with repetition: `add` drops what comes twice.
        for _ in 2..self.plan.singles {
            picks.push(u32::try_from(self.rng.below(u64::from(units))).unwrap_or(0));
        }
        picks
    }

    /// A short seed, so that ids stay short.
    pub(crate) fn seed(&mut self) -> u64 {
        self.rng.below(1 << 32)
    }

    /// The list.
    pub(crate) fn done(self) -> Vec<Outcome> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_ids_parse_back() {
        let all = [
            Outcome::None,
            Outcome::All,
            Outcome::Reversed,
            Outcome::Zeroed,
            Outcome::Subset(0xbeef),
            Outcome::Drop(7),
            Outcome::Only(0),
            Outcome::Head { unit: 3, at: 511 },
            Outcome::Tail { unit: 0, at: 2 },
            Outcome::Garbage { unit: 12, seed: u64::MAX },
            Outcome::Collateral { unit: 1, seed: 16 },
            Outcome::Metastable(9),
            Outcome::Seeded(0xabc_def0),
        ];
        for outcome in all {
            let id = outcome.to_string();
            assert_eq!(id.parse(), Ok(outcome), "{id}");
            assert!(id.len() <= 20, "{id} is not short");
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in ["", "n1", "x", "h3", "h3.", "s", "sxyz", "d-1", "\u{e4}", "g1.g"] {
            assert_eq!(text.parse::<Outcome>(), Err(NotAnOutcome(text.to_owned())));
        }
    }

    #[test]
    fn few_units_are_listed_exhaustively_and_many_are_sampled() {
        let plan = Plan { exhaustive: 3, singles: 4, ..Plan::default() };
        let mut few = Listing::new(&plan, 0);
        few.add_subsets(3);
        assert_eq!(few.done().len(), 1 + 6);
        let mut many = Listing::new(&plan, 0);
        many.add_subsets(1000);
        let many = many.done();
        assert!(many.contains(&Outcome::Drop(0)) && many.contains(&Outcome::Only(999)));
        assert!(many.len() <= 1 + 8);
    }
}
