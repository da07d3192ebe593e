//! How many records may be lost in a cut although their sender knows nothing of it.
//!
//! Invariants: it is never more than the caller allows; it grows before it is used up, so commits need not come sooner
//! than their class asks; it shrinks again when traffic does, so that a loss is not reported as larger than it can be.

/// The least, once there is such a record.
const LEAST: u32 = 16;
/// It is halved after so many commits in a row that needed a quarter of it or less.
const QUIET_COMMITS: u8 = 16;

/// The bound, and what it was needed for lately.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    most: u32,
    now: u32,
    /// The most numbers that were handed out ahead of what is durable since the last commit.
    needed: u32,
    quiet: u8,
}

impl Bound {
    /// None yet.
    pub(super) fn new(most: u32) -> Self {
        Self { most, now: 0, needed: 0, quiet: 0 }
    }

    /// A record with this number may get lost unknown to its sender; returns the bound that is to hold from the next
    /// commit on, `None` if there may be no such records.
    pub(super) fn exposed(&mut self, seq: u64, durable_upto: u64) -> Option<u32> {
        if self.most == 0 {
            return None;
        }
        let ahead = u32::try_from(seq.saturating_sub(durable_upto)).unwrap_or(u32::MAX);
        self.needed = self.needed.max(ahead);
        // Room for as much again while the commit is under way, and as much for the half that is kept in hand.
        let wanted = ahead.saturating_mul(4).max(LEAST).checked_next_power_of_two().unwrap_or(self.most);
        self.now = self.now.max(wanted).min(self.most);
        Some(self.now)
    }

    /// A commit has begun; returns the bound if it is a lower one now.
    pub(super) fn committed(&mut self) -> Option<u32> {
        let needed = core::mem::take(&mut self.needed);
        if self.now <= LEAST || needed > self.now / 8 {
            self.quiet = 0;
            return None;
        }
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet < QUIET_COMMITS {
            return None;
        }
        (self.now, self.quiet) = (self.now / 2, 0);
        Some(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_what_is_ahead_and_shrinks_when_traffic_does() {
        let mut bound = Bound::new(1000);
        assert_eq!(bound.committed(), None);
        assert_eq!(bound.exposed(1, 0), Some(16));
        assert_eq!(bound.exposed(100, 0), Some(512));
        assert_eq!(bound.exposed(900, 0), Some(1000), "no more than is allowed");
        assert_eq!(bound.committed(), None);
        let mut shrunk = 1000;
        for _ in 0..1000 {
            bound.exposed(1001, 1000).unwrap();
            shrunk = bound.committed().unwrap_or(shrunk);
        }
        assert!(shrunk <= 16, "{shrunk}");
    }

    #[test]
    fn where_no_loss_is_allowed_there_is_none() {
        assert_eq!(Bound::new(0).exposed(5, 0), None);
    }
}
