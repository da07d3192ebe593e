//! What to read.
//!
//! Invariant: gaps and events of the range always come; the filters choose among records alone.

use crate::entry::Record;

/// A range of numbers, a direction, and which records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// First sequence number.
    pub from: u64,
    /// Last sequence number; what is not durable yet is left out.
    pub to: u64,
    /// Newest first; boots and stops do not come then.
    pub reverse: bool,
    /// Only these streams, by name; all if there is none.
    pub streams: Vec<String>,
    /// Only severities from here up (worse).
    pub severity_min: Option<u8>,
    /// Only severities up to here.
    pub severity_max: Option<u8>,
    /// Not before this time, microseconds since 1970: event time where given, else time of receipt.
    pub since_us: Option<i64>,
    /// Before this time.
    pub until_us: Option<i64>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            from: 1,
            to: u64::MAX,
            reverse: false,
            streams: Vec::new(),
            severity_min: None,
            severity_max: None,
            since_us: None,
            until_us: None,
        }
    }
}

impl Query {
    /// Gaps and events of the range, and no record.
    #[must_use]
    pub fn without_records(from: u64, to: u64) -> Self {
        Self { from, to, until_us: Some(i64::MIN), ..Self::default() }
    }

    /// What a scan of the engine cannot filter by itself: several streams, a greatest severity.
    pub(crate) fn keeps(&self, record: &Record<'_>) -> bool {
        self.severity_max.is_none_or(|max| record.severity <= max)
            && (self.streams.is_empty() || self.streams.iter().any(|name| name == record.stream))
    }
}
