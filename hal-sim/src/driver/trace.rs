//! The id of a case: short enough to be said aloud, and all that is needed to run it again.
//!
//! `disk:w3` is a workload by itself; `disk:w3:c117:a` its cut number 117 with outcome `a`; `disk:w3:c117:a:c4:h2.17`
//! a second cut, at operation 4 of what followed, with outcome `h2.17`.
//!
//! Invariant: `id.parse::<TraceId>()` gives back what printed `id`.

use crate::outcome::Outcome;
use std::fmt;
use std::str::FromStr;

/// A cut and what it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CutId {
    /// Number of the cut, counted over all boots of the run.
    pub number: u64,
    /// What it left.
    pub outcome: Outcome,
}

impl fmt::Display for CutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}:{}", self.number, self.outcome)
    }
}

/// A case of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceId {
    /// Name of the medium's profile.
    pub profile: String,
    /// Name of the workload.
    pub workload: String,
    /// No, one or two cuts.
    pub cuts: Vec<CutId>,
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.profile, self.workload)?;
        self.cuts.iter().try_for_each(|cut| write!(f, ":{cut}"))
    }
}

/// A string that is not a trace id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotATraceId(String);

impl fmt::Display for NotATraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a trace id, such as disk:w3:c117:a or nor:s5:c9:h0.3:c4:n", self.0)
    }
}

impl std::error::Error for NotATraceId {}

impl FromStr for TraceId {
    type Err = NotATraceId;

    fn from_str(id: &str) -> Result<Self, NotATraceId> {
        parse(id).ok_or_else(|| NotATraceId(id.to_owned()))
    }
}

fn parse(id: &str) -> Option<TraceId> {
    let mut parts = id.split(':');
    let (profile, workload) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut cuts = Vec::new();
    while let Some(cut) = parts.next() {
        let number = cut.strip_prefix('c')?.parse().ok()?;
        cuts.push(CutId { number, outcome: parts.next()?.parse().ok()? });
    }
    (!profile.is_empty() && !workload.is_empty() && cuts.len() <= 2).then_some(TraceId { profile, workload, cuts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_parse_back() {
        for id in ["disk:w3", "disk:w3:c117:a", "nor:s5:c9:h0.3:c4:n"] {
            assert_eq!(id.parse::<TraceId>().unwrap().to_string(), id);
        }
        for text in ["", "disk", "disk:w3:c117", "disk:w3:117:a", "disk:w3:c1:a:c2:a:c3:a", ":w3"] {
            assert!(text.parse::<TraceId>().is_err(), "{text}");
        }
    }
}
