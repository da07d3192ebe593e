//! Names of severities: OpenTelemetry's 1 to 24, and syslog's mapped onto them.
//!
//! Invariant: the mapping is that of the OpenTelemetry log data model, appendix B.

/// The name of a severity: `info`, `warn2`; none for 0, which is unknown.
pub(crate) fn name(severity: u8) -> Option<String> {
    let severity = severity.checked_sub(1).filter(|s| *s < 24)?;
    let range = ["trace", "debug", "info", "warn", "error", "fatal"].get(usize::from(severity / 4))?;
    Some(match severity % 4 {
        0 => (*range).to_owned(),
        step => format!("{range}{}", step + 1),
    })
}

/// Parses a number from 1 to 24, OpenTelemetry's or syslog's name.
pub(crate) fn parse(text: &str) -> Result<u8, String> {
    let text = text.trim().to_ascii_lowercase();
    if let Ok(number) = text.parse::<u8>()
        && (1..=24).contains(&number)
    {
        return Ok(number);
    }
    let of_syslog = match text.as_str() {
        "emerg" | "emergency" | "panic" => Some(21),
        "alert" => Some(19),
        "crit" | "critical" => Some(18),
        "err" => Some(17),
        "warning" => Some(13),
        "notice" => Some(10),
        "information" => Some(9),
        _ => None,
    };
    of_syslog.or_else(|| (1..=24).find(|s| name(*s).as_deref() == Some(&text))).ok_or_else(|| {
        "this is no severity; use trace, debug, info, notice, warn, error, crit, alert, fatal, or a number from 1 to 24"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_severity_has_a_name_that_parses_back() {
        for severity in 1..=24 {
            assert_eq!(parse(&name(severity).unwrap()), Ok(severity));
            assert_eq!(parse(&severity.to_string()), Ok(severity));
        }
        assert_eq!((name(0), name(25)), (None, None));
        assert_eq!(name(9).as_deref(), Some("info"));
    }

    #[test]
    fn syslog_maps_as_opentelemetry_says() {
        let names = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        assert_eq!(names.map(|n| parse(n).unwrap()), [21, 19, 18, 17, 13, 10, 9, 5]);
        assert!(parse("loud").unwrap_err().contains("no severity"));
        assert!(parse("0").is_err() && parse("25").is_err());
    }
}
