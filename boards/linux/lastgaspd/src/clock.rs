//! Time of a run: microseconds since its start, which never go back, and the wall clock at the start.
//!
//! Invariant: every time in the program comes from one [`Clock`], so that times of different threads compare.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Made by systemd-timesyncd when it has set the clock.
const TIMESYNCD_MARK: &str = "/run/systemd/timesync/synchronized";

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    wall_us: i64,
    synchronised: bool,
}

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        let start = Instant::now();
        let wall_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        Self {
            start,
            wall_us: i64::try_from(wall_us).unwrap_or(i64::MAX),
            synchronised: Path::new(TIMESYNCD_MARK).exists(),
        }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant that is so many microseconds after the start; `None` if it is too far away to come.
    #[must_use]
    pub fn instant(&self, at_us: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_micros(at_us))
    }

    /// The wall clock at the start: microseconds since 1970.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        self.wall_us
    }

    /// The wall clock is known to be synchronised. Only systemd-timesyncd is asked: elsewhere it counts as not.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        self.synchronised
    }
}
