//! The promises, as what it means to break each.
//!
//! Invariant: every variant names one clause; campaigns count by [`Violation::clause`].

use super::seen::SeenRecord;
use lastgasp_core::gaps::GapCause;
use std::fmt;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// P1: a record acknowledged as durable is missing. Its number.
    Lost(u64),
    /// P2: a record is there although one before it is not: present, missing.
    NotAPrefix(u64, u64),
    /// P2: a batch is there in part: a number of it that is there, one that is not.
    BatchInPart(u64, u64),
    /// P2: state entries are not those of the last surviving batch: seen, expected.
    State(String),
    /// P3: a record that was never appended, or was altered.
    Invented(SeenRecord),
    /// P3: a record that an earlier mount had declared dead, or that retention dropped, is back.
    Resurrected(SeenRecord),
    /// P3: entries doubled or out of order: number expected, number shown.
    OutOfOrder(u64, u64),
    /// P3: a record bears the wrong stream name.
    WrongStream(SeenRecord),
    /// P4: the store does not open.
    Refused(String),
    /// P4: the engine panicked.
    Panicked(String),
    /// P5: numbers up to this one should be there or in a gap, but the scan ends before.
    Unaccounted(u64),
    /// P5: a gap whose cause does not fit: first, last, cause.
    WrongCause(u64, u64, GapCause),
    /// P5: `rot` on a store that was not damaged, or for records that were not hit: first, last.
    FalseRot(u64, u64),
    /// P5: the store was rebuilt without need, or was and does not say so.
    LedgerLost(bool),
    /// A number that a client may know would be given out again: next, known.
    NumberReused(u64, u64),
    /// After a clean stop the numbers do not go on where they ended: next, expected.
    NumberSkipped(u64, u64),
    /// The floor is not one that was published: seen, lowest, highest.
    Floor(u64, u64, u64),
    /// Boots or clean stops in the wrong order or missing.
    Events(String),
    /// The reverse scan does not show what the forward scan shows, reversed.
    Reverse(String),
    /// A read-only mount does not show what a mount for writing shows.
    ReaderDiffers(String),
    /// The engine broke its word to the caller: an acknowledgement that went back, a number out of order.
    Contract(String),
}

impl Violation {
    /// The clause that is broken, in a word or two.
    #[must_use]
    pub fn clause(&self) -> &'static str {
        match self {
            Self::Lost(_) => "P1 acknowledged lost",
            Self::NotAPrefix(..) => "P2 not a prefix",
            Self::BatchInPart(..) => "P2 batch in part",
            Self::State(_) => "P2 state",
            Self::Invented(_) => "P3 invented",
            Self::Resurrected(_) => "P3 resurrected",
            Self::OutOfOrder(..) => "P3 order",
            Self::WrongStream(_) => "P3 stream",
            Self::Refused(_) => "P4 refused",
            Self::Panicked(_) => "P4 panic",
            Self::Unaccounted(_) => "P5 unaccounted",
            Self::WrongCause(..) => "P5 cause",
            Self::FalseRot(..) => "P5 false rot",
            Self::LedgerLost(_) => "P5 ledger",
            Self::NumberReused(..) => "number reused",
            Self::NumberSkipped(..) => "number skipped",
            Self::Floor(..) => "floor",
            Self::Events(_) => "events",
            Self::Reverse(_) => "reverse scan",
            Self::ReaderDiffers(_) => "reader",
            Self::Contract(_) => "contract",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:?}", self.clause())
    }
}

impl std::error::Error for Violation {}
