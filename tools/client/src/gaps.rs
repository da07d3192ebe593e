//! What is known to be lost, with the time between the records around it.
//!
//! Invariant: the window of a gap is told only where the records on both its sides, or the one that is left, have a
//! time; nothing is guessed.

use std::io;

use lastgasp_core::gaps::GapCause;

use crate::client::{Flow, Lookup};
use crate::entry::{Entry, Gap};
use crate::error::Error;
use crate::query::Query;

/// Of so many gaps the windows are looked up; each takes two looks into the log.
const WINDOWS_MAX: usize = 1024;
/// A neighbour that is further away than this, with gaps in between, is none.
const LOOKS_MAX: u32 = 64;

/// A gap that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGap {
    /// First sequence number.
    pub first_seq: u64,
    /// Last sequence number; less than the first where no numbers are concerned (`LedgerLost`).
    pub last_seq: u64,
    /// `true` if every number of the range stood for a record; otherwise at most so many were lost.
    pub exact: bool,
    /// Why.
    pub cause: GapCause,
    /// The stream concerned; none for any.
    pub stream: Option<String>,
    /// Not before this time: that of the last record in front of it, microseconds since 1970.
    pub after_us: Option<i64>,
    /// Not after this time: that of the first record behind it.
    pub before_us: Option<i64>,
}

impl KnownGap {
    pub(crate) fn of(gap: &Gap<'_>) -> Self {
        Self {
            first_seq: gap.first_seq,
            last_seq: gap.last_seq,
            exact: gap.exact,
            cause: gap.cause,
            stream: gap.stream.map(str::to_owned),
            after_us: None,
            before_us: None,
        }
    }

    /// The gap, to be shown like one that was met while reading.
    #[must_use]
    pub fn as_gap(&self) -> Gap<'_> {
        Gap {
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            exact: self.exact,
            cause: self.cause,
            stream: self.stream.as_deref(),
        }
    }
}

/// Looks the windows of gaps up.
pub(crate) fn look_windows_up(gaps: &mut [KnownGap], look: &mut dyn Lookup) -> Result<(), Error> {
    for gap in gaps.iter_mut().take(WINDOWS_MAX).filter(|gap| gap.first_seq <= gap.last_seq) {
        if let Some(last) = gap.first_seq.checked_sub(1).filter(|last| *last > 0) {
            gap.after_us = nearest(look, &Query { to: last, reverse: true, ..Query::default() })?;
        }
        if let Some(first) = gap.last_seq.checked_add(1) {
            gap.before_us = nearest(look, &Query { from: first, ..Query::default() })?;
        }
    }
    Ok(())
}

/// When the first record of a read was received, if it is near.
fn nearest(look: &mut dyn Lookup, query: &Query) -> Result<Option<i64>, Error> {
    let (mut found, mut looks) = (None, 0);
    look.look(query, &mut |entry| -> io::Result<Flow> {
        looks += 1;
        match entry {
            Entry::Record(record) => found = record.received_us,
            Entry::Gap(_) | Entry::Event(_) if looks < LOOKS_MAX => return Ok(Flow::On),
            Entry::Gap(_) | Entry::Event(_) => {}
        }
        Ok(Flow::Stop)
    })?;
    Ok(found)
}
