//! What senders mean by times and severities.
//!
//! Invariant: a value that is not understood is `None`, never a guess.

use chrono::DateTime;

use crate::sources::severity::of_name;

/// Microseconds since 1970 of a time: RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds since
/// 1970, told apart by their size: up to 10^11 they are seconds (that is the year 5138), and so on in thousands.
pub(super) fn time_us(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    if let Ok(number) = text.parse::<i64>() {
        return match number.unsigned_abs() {
            n if n < 100_000_000_000 => number.checked_mul(1_000_000),
            n if n < 100_000_000_000_000 => number.checked_mul(1000),
            n if n < 100_000_000_000_000_000 => Some(number),
            _ => Some(number.div_euclid(1000)),
        };
    }
    // Digits only: words like `inf` are numbers too.
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    let factor = match number.abs() {
        n if n < 1e11 => 1e6,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1.0,
        n if n < 9e18 => 1e-3,
        _ => return None,
    };
    #[allow(clippy::cast_possible_truncation, reason = "below 9e18 as it is, and saturating anyway")]
    Some((number * factor).round() as i64)
}

/// The key a severity came by: the same number means different things by different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// `severity`: OpenTelemetry's numbers.
    Severity,
    /// `level`: syslog's numbers (as in GELF), or bunyan's and pino's.
    Level,
}

/// The severity of a name or number.
pub(super) fn severity(text: &str, by: By) -> Option<u8> {
    let text = text.trim();
    if let Ok(number) = text.parse::<u8>() {
        return match (number, by) {
            (0..=7, By::Level) => Some(crate::sources::severity::of_syslog(number.into())),
            (10 | 20 | 30 | 40 | 50 | 60, By::Level) | (30 | 40 | 50 | 60, By::Severity) => Some(of_bunyan(number)),
            (1..=24, _) => Some(number),
            _ => None,
        };
    }
    of_name(text.as_bytes()).or_else(|| stepped(text))
}

/// trace, debug, info, warn, error, fatal.
fn of_bunyan(level: u8) -> u8 {
    (level / 10).saturating_sub(1).saturating_mul(4).saturating_add(1)
}

/// OpenTelemetry's names with a step: `INFO2`, `error4`.
fn stepped(text: &str) -> Option<u8> {
    let step = text.strip_suffix(['1', '2', '3', '4'])?;
    let first = of_name(step.as_bytes()).filter(|first| first % 4 == 1)?;
    let digit = text.as_bytes().last()?.checked_sub(b'1')?;
    first.checked_add(digit)
}

/// Bytes of a hexadecimal id.
pub(super) fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut id = [0; N];
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    id.iter().any(|byte| *byte != 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_by_their_form_and_size() {
        let same = [
            "2023-11-14T22:13:20.5Z",
            "2023-11-14T23:13:20.500000+01:00",
            "2023-11-14 22:13:20.5Z",
            "1700000000.5",
            "1700000000500",
            "1700000000500000",
            "1700000000500000000",
            "1.7000000005e9",
            " 1700000000500.0 ",
        ];
        for text in same {
            assert_eq!(time_us(text), Some(1_700_000_000_500_000), "{text}");
        }
        assert_eq!(time_us("0"), Some(0));
        assert_eq!(time_us("-1.5"), Some(-1_500_000));
        assert_eq!(time_us("1969-12-31T23:59:59Z"), Some(-1_000_000));
        assert_eq!(time_us("-9223372036854775808"), Some(-9_223_372_036_854_776));
        for text in
            ["", "yesterday", "inf", "NaN", "-", "1e400", "2023-11-14", "2023-13-14T00:00:00Z", "99999999999999999999"]
        {
            assert_eq!(time_us(text), None, "{text}");
        }
    }

    #[test]
    fn severities_of_all_schools_are_understood() {
        let named =
            [("WARN", 13), ("warning", 13), ("Error", 17), ("fatal", 21), ("INFO2", 10), ("error4", 20), ("trace1", 1)];
        for (text, want) in named {
            assert_eq!((severity(text, By::Severity), severity(text, By::Level)), (Some(want), Some(want)), "{text}");
        }
        for (level, want) in
            [(10, 1), (20, 5), (30, 9), (40, 13), (50, 17), (60, 21), (0, 21), (3, 17), (6, 9), (7, 5), (9, 9)]
        {
            assert_eq!(severity(&level.to_string(), By::Level), Some(want), "level {level}");
        }
        for (number, want) in [(1, 1), (10, 10), (17, 17), (20, 20), (24, 24), (30, 9), (50, 17)] {
            assert_eq!(severity(&number.to_string(), By::Severity), Some(want), "severity {number}");
        }
        for text in ["", "loud", "25", "70", "notice2", "warn5", "-1", "1.5"] {
            assert_eq!((severity(text, By::Severity), severity(text, By::Level)), (None, None), "{text}");
        }
        assert_eq!(severity("0", By::Severity), None);
    }

    #[test]
    fn ids_are_hexadecimal_and_not_nought() {
        assert_eq!(id("00f067aa0ba902b7"), Some([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        for bad in ["", "0000000000000000", "00f067aa0ba902b", "00f067aa0ba902bg", "+0f067aa0ba902b7"] {
            assert_eq!(id::<8>(bad), None, "{bad}");
        }
    }
}
