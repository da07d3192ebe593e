//! The wall clock of a node that has none of its own: what it reads at boot, and how it jumps.
//!
//! Fault model. At boot the clock reads 1970, what was saved at the last clean moment (so it stands still while the
//! node is dark), or any time at all: 2099, last year. After a while a time server sets it right in one step, forwards
//! or backwards, or never does. A leap of an hour comes now and then.
//!
//! Invariants: what is true is an argument; the reading is a function of the seed and of the times asked about; only a
//! clock that a server has set calls itself synchronised.

use crate::rng::Rng;

/// True time at the beginning of every life: 2026-11-20 00:00 UTC, in microseconds since 1970.
pub const LIFE_BEGINS_US: i64 = 1_795_132_800_000_000;
/// 2099-01-01 00:00 UTC.
const FAR_FUTURE_US: i64 = 4_070_908_800_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// What the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Microseconds since 1970.
    pub wall_us: i64,
    /// A time server has set it.
    pub synchronised: bool,
}

/// The wall clock of one node.
#[derive(Debug, Clone)]
pub struct WallClock {
    rng: Rng,
    /// What it shows beside the truth.
    error_us: i64,
    synchronised: bool,
    saved_us: i64,
    /// When the next jump is, in true microseconds of the node's life.
    jump_at_us: Option<u64>,
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

impl WallClock {
    /// The clock of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = Rng::derived(seed, 0xc10c);
        Self { rng, error_us: 0, synchronised: true, saved_us: LIFE_BEGINS_US, jump_at_us: None }
    }

    /// The node boots, so many microseconds into its life.
    pub fn boot(&mut self, now_us: u64) {
        let truth = LIFE_BEGINS_US + signed(now_us);
        let shown = match self.rng.below(8) {
            0 => signed(self.rng.below(60_000_000)),
            1 => FAR_FUTURE_US,
            2 => truth - 365 * 24 * HOUR_US,
            3 => truth,
            _ => self.saved_us,
        };
        self.error_us = shown - truth;
        self.synchronised = false;
        self.jump_at_us = self.rng.chance(3, 4).then(|| now_us + 2_000_000 + self.rng.below(300_000_000));
    }

    /// What it shows at this instant; jumps that were due have happened.
    pub fn read(&mut self, now_us: u64) -> Reading {
        while let Some(at) = self.jump_at_us.filter(|at| *at <= now_us) {
            if self.synchronised && self.rng.chance(1, 4) {
                self.error_us += if self.rng.chance(1, 2) { HOUR_US } else { -HOUR_US };
                self.synchronised = false;
            } else {
                (self.error_us, self.synchronised) = (0, true);
            }
            self.jump_at_us = Some(at + 3_600_000_000 + self.rng.below(36_000_000_000));
        }
        let wall_us = LIFE_BEGINS_US + signed(now_us) + self.error_us;
        self.saved_us = wall_us;
        Reading { wall_us, synchronised: self.synchronised }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_forwards_and_backwards_and_is_right_when_it_says_so() {
        let mut seen = [false; 4];
        for seed in 0..40 {
            let mut clock = WallClock::new(seed);
            clock.boot(1_000_000);
            let mut before = clock.read(1_000_000).wall_us;
            seen[0] |= before < HOUR_US;
            seen[1] |= before >= FAR_FUTURE_US;
            for minute in 1..2000_u64 {
                let now = 1_000_000 + minute * 60_000_000;
                let reading = clock.read(now);
                if reading.synchronised {
                    assert_eq!(reading.wall_us, LIFE_BEGINS_US + signed(now), "seed {seed}");
                }
                seen[2] |= reading.wall_us < before;
                seen[3] |= reading.wall_us > before + HOUR_US;
                before = reading.wall_us;
            }
        }
        assert_eq!(seen, [true; 4], "1970, 2099, backwards, forwards");
    }

    #[test]
    fn the_clock_of_a_seed_is_the_same() {
        let run = |seed| {
            let mut clock = WallClock::new(seed);
            clock.boot(5);
            (0..500).map(|n| clock.read(5 + n * 600_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
