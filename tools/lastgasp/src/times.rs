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

/// Parses a point in time.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<i64, String> {
    let text = text.trim();
    point(text, now).map(|time| time.as_microsecond()).ok_or_else(|| {
        format!(
            "`{text}` is no point in time; write 2026-07-26T15:04:05Z, \"2026-07-26 15:04:05\", 2026-07-26, 15:04, \
             today, yesterday, now, or how long ago: -90min, \"2 hours ago\""
        )
    })
}

fn point(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
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
        ] {
            assert_eq!(parsed(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_with_examples() {
        for text in ["", "soon", "5", "2026-13-01", "90min"] {
            let error = parse_at(text, &now()).unwrap_err();
            assert!(error.contains("2026-07-26T15:04:05Z"), "{text}: {error}");
        }
    }

    #[test]
    fn times_before_1970_and_beyond_the_calendar_are_no_panic() {
        assert_eq!(rfc3339(-1).as_deref(), Some("1969-12-31T23:59:59.999999Z"));
        assert_eq!((rfc3339(i64::MAX), rfc3339(i64::MIN)), (None, None));
        assert_eq!(short(0, &TimeZone::UTC).as_deref(), Some("Jan 01 00:00:00"));
    }
}
