//! Points in time: parsing what people write, printing what programs and people read.
//!
//! Invariant: times are microseconds since 1970; what has no zone is local time.

use jiff::civil::DateTime;
use jiff::fmt::friendly;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// RFC 3339 in UTC with microseconds; none where the calendar ends.
pub(crate) fn rfc3339(us: i64) -> Option<String> {
    Timestamp::from_microsecond(us).ok().map(|time| format!("{time:.6}"))
}

/// As in syslog, in local time.
pub(crate) fn short(us: i64, zone: &TimeZone) -> Option<String> {
    let time = Timestamp::from_microsecond(us).ok()?.to_zoned(zone.clone());
    Some(time.strftime("%b %d %H:%M:%S").to_string())
}

/// As [`short`], with the year and the offset from UTC.
pub(crate) fn iso(us: i64, zone: &TimeZone) -> Option<String> {
    let time = Timestamp::from_microsecond(us).ok()?.to_zoned(zone.clone());
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%z").to_string())
}

/// For lists: date, time and zone.
pub(crate) fn listed(us: i64, zone: &TimeZone) -> Option<String> {
    let time = Timestamp::from_microsecond(us).ok()?.to_zoned(zone.clone());
    Some(time.strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string())
}

/// Parses a point in time.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<i64, String> {
    let text = text.trim();
    point(text, now).map(|time| time.as_microsecond()).ok_or_else(|| {
        format!(
            "`{text}` is no point in time; write 2026-07-26T15:04:05Z, \"2026-07-26 15:04:05\", 2026-07-26, 15:04, \
             today, yesterday, now, @1700000000, or how long ago: -90min, \"5 min ago\""
        )
    })
}

fn point(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return since_1970(seconds);
    }
    let zoned = match text {
        "now" => now.clone(),
        "today" => now.start_of_day().ok()?,
        "yesterday" => now.yesterday().ok()?.start_of_day().ok()?,
        "tomorrow" => now.tomorrow().ok()?.start_of_day().ok()?,
        _ => match text.parse::<DateTime>().or_else(|_| clock(text, now)) {
            Ok(local) => local.to_zoned(now.time_zone().clone()).ok()?,
            Err(_) => now.checked_add(span(text)?).ok()?,
        },
    };
    Some(zoned.timestamp())
}

/// `1700000000` or `1700000000.25`.
fn since_1970(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let micros = format!("{fraction:0<6}");
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let micros: i64 = Some(micros).filter(|m| m.len() == 6 && is_number(m))?.parse().ok()?;
    let seconds: i64 = Some(seconds).filter(|seconds| is_number(seconds))?.parse().ok()?;
    Timestamp::from_microsecond(seconds.checked_mul(1_000_000)?.checked_add(micros)?).ok()
}

/// `15:04` or `15:04:05` of today.
fn clock(text: &str, now: &Zoned) -> Result<DateTime, jiff::Error> {
    text.parse::<jiff::civil::Time>().map(|time| now.date().to_datetime(time))
}

/// `-90min`, `+1h`, `2 hours ago`; without a sign it could mean either.
fn span(text: &str) -> Option<Span> {
    let signed = text.starts_with(['-', '+']) || text.ends_with("ago");
    let span = friendly::SpanParser::new().parse_span(text.trim_start_matches('+')).ok()?;
    (signed && span.fieldwise() != 0.seconds().fieldwise()).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        "2026-07-26T15:04:05Z".parse::<Timestamp>().unwrap().to_zoned(zone)
    }

    fn parsed(text: &str) -> String {
        rfc3339(parse_at(text, &now()).unwrap()).unwrap()
    }

    #[test]
    fn points_in_time_are_parsed_as_people_write_them() {
        for (text, want) in [
            ("2026-07-26T15:04:05.25Z", "2026-07-26T15:04:05.250000Z"),
            ("2026-07-26T15:04:05+02:00", "2026-07-26T13:04:05.000000Z"),
            ("2026-07-26 15:04:05", "2026-07-26T13:04:05.000000Z"),
            ("2026-07-26", "2026-07-25T22:00:00.000000Z"),
            ("08:30", "2026-07-26T06:30:00.000000Z"),
            ("today", "2026-07-25T22:00:00.000000Z"),
            ("yesterday", "2026-07-24T22:00:00.000000Z"),
            ("now", "2026-07-26T15:04:05.000000Z"),
            ("-90min", "2026-07-26T13:34:05.000000Z"),
            ("2 hours ago", "2026-07-26T13:04:05.000000Z"),
            ("-1d", "2026-07-25T15:04:05.000000Z"),
            ("5 min ago", "2026-07-26T14:59:05.000000Z"),
            ("@1700000000.25", "2023-11-14T22:13:20.250000Z"),
            ("2026-07-26 15:04", "2026-07-26T13:04:00.000000Z"),
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_with_examples() {
        for text in ["", "soon", "5", "2026-13-01", "90min", "@", "@1.1234567", "@-1", "@99999999999999999999"] {
            let error = parse_at(text, &now()).unwrap_err();
            assert!(error.contains("2026-07-26T15:04:05Z"), "{text}: {error}");
        }
    }

    #[test]
    fn times_before_1970_and_beyond_the_calendar_are_no_panic() {
        assert_eq!(rfc3339(-1).as_deref(), Some("1969-12-31T23:59:59.999999Z"));
        assert_eq!((rfc3339(i64::MAX), rfc3339(i64::MIN)), (None, None));
        assert_eq!(short(0, &TimeZone::UTC).as_deref(), Some("Jan 01 00:00:00"));
        assert_eq!(iso(0, &TimeZone::fixed(jiff::tz::offset(2))).as_deref(), Some("1970-01-01T02:00:00+0200"));
        assert_eq!(listed(0, &TimeZone::UTC).as_deref(), Some("Thu 1970-01-01 00:00:00 UTC"));
    }
}
