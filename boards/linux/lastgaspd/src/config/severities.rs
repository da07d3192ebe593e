//! A range of severities, as `error`, `trace..debug`, `..info`, `13..16`.
//!
//! Invariants: never empty; within 1 to 24, OpenTelemetry's numbers; syslog's names are understood. A record without a
//! severity counts as `info`.

use std::fmt;

/// What a record without a severity counts as.
pub(super) const UNKNOWN: u8 = 9;
/// The worst.
pub(super) const MOST: u8 = 24;

/// Severities from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Severities {
    first: u8,
    last: u8,
}

impl Severities {
    /// All of them.
    pub const ALL: Self = Self { first: 1, last: MOST };

    /// Reads a range. A single name means it and everything worse.
    ///
    /// # Errors
    /// What is wrong, and what is understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        let (from, to) = text.split_once("..").unwrap_or((&text, ""));
        let first = if from.trim().is_empty() && text.contains("..") { 1 } else { named(from)?.0 };
        let last = if to.trim().is_empty() { MOST } else { named(to)?.1 };
        if first > last {
            return Err(format!("is an empty range: {from} is worse than {to}; write {to}..{from}"));
        }
        Ok(Self { first, last })
    }

    /// Whether a record of this severity (0 is unknown) is meant.
    #[must_use]
    pub fn contains(self, severity: u8) -> bool {
        let severity = if severity == 0 { UNKNOWN } else { severity };
        (self.first..=self.last).contains(&severity)
    }

    /// The severities in it.
    pub(super) fn each(self) -> impl Iterator<Item = u8> {
        self.first..=self.last
    }

    /// How much it says: narrower over wider, then worse over milder.
    pub(super) fn rank(self) -> (u8, u8) {
        (MOST.saturating_sub(self.last.saturating_sub(self.first)), self.first)
    }
}

/// The lowest and highest number of a name.
fn named(text: &str) -> Result<(u8, u8), String> {
    let text = text.trim();
    if let Ok(number) = text.parse::<u8>()
        && (1..=MOST).contains(&number)
    {
        return Ok((number, number));
    }
    if let Some(range) = NAMES.iter().position(|name| *name == text) {
        let first = u8::try_from(range).unwrap_or_default().saturating_mul(4).saturating_add(1);
        return Ok((first, first.saturating_add(3)));
    }
    // Syslog's, as the OpenTelemetry log data model maps them: each one number.
    let exact = match text {
        "emerg" | "emergency" | "panic" => 21,
        "alert" => 19,
        "crit" | "critical" => 18,
        "err" => 17,
        "warning" => 13,
        "notice" => 10,
        _ => {
            return Err(
                "names no severity; use trace, debug, info, notice, warn, error, crit, alert, fatal, a number \
                        from 1 to 24, or a range as trace..debug"
                    .to_owned(),
            );
        }
    };
    Ok((exact, exact))
}

/// The names of OpenTelemetry, each four numbers.
const NAMES: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

impl fmt::Display for Severities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |number: u8| match (number.checked_sub(1).map(|n| n % 4), number.saturating_sub(1) / 4) {
            (Some(0), range) => NAMES.get(usize::from(range)).map(|name| (*name).to_owned()),
            _ => None,
        };
        let from = start(self.first).unwrap_or_else(|| self.first.to_string());
        if self.last == MOST {
            return f.write_str(&from);
        }
        let end = self.last.checked_sub(3).filter(|_| self.last.is_multiple_of(4)).and_then(start);
        write!(f, "{from}..{}", end.unwrap_or_else(|| self.last.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_it_and_worse_and_a_range_both_ends() {
        let range = |text| Severities::parse(text).map(|s| (s.first, s.last));
        assert_eq!(range("error"), Ok((17, 24)));
        assert_eq!(range("trace..debug"), Ok((1, 8)));
        assert_eq!(range("..info"), Ok((1, 12)));
        assert_eq!(range(" WARN.."), Ok((13, 24)));
        assert_eq!(range("notice..err"), Ok((10, 17)));
        assert_eq!(range("13..13"), Ok((13, 13)));
        for bad in ["", "loud", "0", "25", "error..info", "info..loud"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_range_prints_as_what_reads_back() {
        for first in 1..=24 {
            for last in first..=24 {
                let range = Severities { first, last };
                assert_eq!(Severities::parse(&range.to_string()), Ok(range), "{range}");
            }
        }
    }

    #[test]
    fn what_has_no_severity_counts_as_info() {
        assert!(Severities::parse("info").unwrap().contains(0) && !Severities::parse("warn").unwrap().contains(0));
        assert!(Severities::parse("trace..debug").unwrap().contains(8));
    }
}
