//! Names of severities: OpenTelemetry's 1 to 24, and syslog's mapped onto them.
//!
//! Invariants: the mapping is that of the OpenTelemetry log data model, appendix B; every severity has a name, so that
//! numbers can be those of `journalctl -p` where the two differ.

/// Severities from the least to the worst, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Severities {
    pub(crate) min: u8,
    /// None for the worst there is.
    pub(crate) max: Option<u8>,
}

/// The name of a severity: `info`, `warn2`; none for 0, which is unknown.
pub(crate) fn name(severity: u8) -> Option<String> {
    let severity = severity.checked_sub(1).filter(|s| *s < 24)?;
    let range = ["trace", "debug", "info", "warn", "error", "fatal"].get(usize::from(severity / 4))?;
    Some(match severity % 4 {
        0 => (*range).to_owned(),
        step => format!("{range}{}", step + 1),
    })
}

/// Syslog's number of a severity; none for 0, which is unknown.
pub(crate) fn syslog(severity: u8) -> Option<u8> {
    match severity {
        1..=8 => Some(7),
        9 => Some(6),
        10..=12 => Some(5),
        13..=16 => Some(4),
        17 => Some(3),
        18 => Some(2),
        19 | 20 => Some(1),
        21..=24 => Some(0),
        _ => None,
    }
}

/// Parses one severity, meaning it and worse, or a range of two, in whatever order.
pub(crate) fn parse(text: &str) -> Result<Severities, String> {
    match text.split_once("..") {
        None => Ok(Severities { min: one(text)?.0, max: None }),
        Some((from, to)) => {
            let (from, to) = (one(from)?, one(to)?);
            Ok(Severities { min: from.0.min(to.0), max: Some(from.1.max(to.1)) })
        }
    }
}

/// What a name or number stands for: the least and the worst.
fn one(text: &str) -> Result<(u8, u8), String> {
    let text = text.trim().to_ascii_lowercase();
    let of_syslog = match text.as_str() {
        "emerg" | "emergency" | "panic" | "0" | "fatal" => Some((21, 24)),
        "alert" | "1" => Some((19, 20)),
        "crit" | "critical" | "2" => Some((18, 18)),
        "err" | "3" => Some((17, 17)),
        "error" => Some((17, 20)),
        "warning" | "warn" | "4" => Some((13, 16)),
        "notice" | "5" => Some((10, 12)),
        "information" | "info" | "6" => Some((9, 9)),
        "debug" | "7" => Some((5, 8)),
        "trace" => Some((1, 4)),
        _ => None,
    };
    let number = || text.parse::<u8>().ok().filter(|number| (8..=24).contains(number));
    let named = || (1..=24).find(|severity| name(*severity).as_deref() == Some(&text));
    of_syslog.or_else(|| number().or_else(named).map(|severity| (severity, severity))).ok_or_else(|| {
        format!(
            "`{text}` is no severity; use trace, debug, info, notice, warn, error, crit, alert, fatal or a step such \
             as warn2, a number of syslog (0 emerg to 7 debug) or of OpenTelemetry (8 to 24), or a range such as \
             err..warning"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn min(text: &str) -> u8 {
        parse(text).unwrap().min
    }

    #[test]
    fn every_severity_has_a_name_that_parses_back() {
        for severity in 1..=24 {
            assert_eq!(min(&name(severity).unwrap()), severity);
        }
        assert_eq!((name(0), name(25)), (None, None));
        assert_eq!(name(9).as_deref(), Some("info"));
    }

    #[test]
    fn syslog_maps_as_opentelemetry_says() {
        let names = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        assert_eq!(names.map(min), [21, 19, 18, 17, 13, 10, 9, 5]);
        for (number, name) in (0_u8..).zip(names) {
            assert_eq!(parse(&number.to_string()), parse(name), "as in journalctl -p {number}");
            assert_eq!(syslog(min(name)), Some(number));
        }
        assert_eq!((8..=24).map(|n: u8| min(&n.to_string())).collect::<Vec<_>>(), (8..=24).collect::<Vec<_>>());
        assert_eq!((syslog(0), syslog(25)), (None, None));
    }

    #[test]
    fn a_range_holds_both_its_ends_in_whatever_order() {
        for text in ["err..warning", "warning..err", "4..3"] {
            assert_eq!(parse(text), Ok(Severities { min: 13, max: Some(17) }), "{text}");
        }
        assert_eq!(parse("debug..info"), Ok(Severities { min: 5, max: Some(9) }));
        assert_eq!(parse("warn..fatal"), Ok(Severities { min: 13, max: Some(24) }));
    }

    #[test]
    fn what_is_no_severity_is_told_with_examples() {
        for text in ["loud", "25", "", "..", "err..", "info..loud", "-1"] {
            assert!(parse(text).unwrap_err().contains("no severity"), "{text}");
        }
    }
}
