//! What had to be dropped, counted by stream and cause until the log says so.
//!
//! Invariants: every record that is dropped is counted in exactly one entry; entries are bounded: streams beyond
//! [`STREAMS_MAX`] are counted together; counting never waits for the writer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lastgasp_core::gaps::GapCause;

/// Streams that are counted apart.
const STREAMS_MAX: usize = 64;
/// The others together.
const OTHERS: &str = "other";

/// Records of a stream that were dropped for one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Name of their stream.
    pub stream: String,
    /// Why.
    pub cause: GapCause,
    /// How many.
    pub records: u64,
    /// When the first was dropped, and the last, by the clock of the run.
    pub since_us: u64,
    /// See `since_us`.
    pub until_us: u64,
}

/// The count.
#[derive(Debug, Default)]
pub struct Drops {
    pending: Mutex<BTreeMap<(String, u8), Dropped>>,
    total: AtomicU64,
}

impl Drops {
    /// Counts records that are dropped now.
    pub fn count(&self, stream: &str, cause: GapCause, records: u64, now_us: u64) {
        if records == 0 {
            return;
        }
        self.total.fetch_add(records, Ordering::Relaxed);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pending.contains_key(&(stream.to_owned(), cause as u8));
        let name = if known || pending.len() < STREAMS_MAX { stream } else { OTHERS };
        let fresh = || Dropped { stream: name.to_owned(), cause, records: 0, since_us: now_us, until_us: now_us };
        let entry = pending.entry((name.to_owned(), cause as u8)).or_insert_with(fresh);
        entry.records = entry.records.saturating_add(records);
        entry.until_us = entry.until_us.max(now_us);
    }

    /// Takes out what was counted since the last time.
    pub fn take(&self) -> Vec<Dropped> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending).into_values().collect()
    }

    /// Nothing is counted that was not taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Records dropped in this run.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_add_up_by_stream_and_cause_however_many_streams_there_are() {
        let drops = Drops::default();
        for i in 0..1000u64 {
            drops.count(&format!("s{}", i % 200), GapCause::Overload, 2, i);
            drops.count("s0", GapCause::Oversize, 1, i);
        }
        let taken = drops.take();
        assert!(taken.len() <= STREAMS_MAX + 2, "{}", taken.len());
        assert_eq!(taken.iter().map(|d| d.records).sum::<u64>(), 3000);
        let oversize = taken.iter().find(|d| d.cause == GapCause::Oversize).unwrap();
        assert_eq!((oversize.records, oversize.since_us, oversize.until_us), (1000, 0, 999));
        assert!(drops.is_empty() && drops.total() == 3000);
    }
}
