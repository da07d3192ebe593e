//! Sizes, times and shares as people write them: `64M`, `1h30m`, `20%`.
//!
//! Invariants: a unit is always written, and what is written reads back as the same; nothing overflows.

use std::time::Duration;

/// Units of a size, by the power of 2.
const SIZES: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
/// Units of a time in milliseconds, the largest first.
const TIMES: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `64M`, `64MiB`, `512B`: powers of 1024.
pub(crate) fn read_size(text: &str) -> Result<u64, String> {
    let advice = "write a whole number with K, M, G, T or B behind it, as \"64M\"";
    let (number, unit) = split(text).ok_or_else(|| format!("is no size; {advice}"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => return Err(format!("has no unit; {advice}")),
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("is no size; {advice}")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "is more than any medium has; write less".to_owned())
}

/// Reads `5s`, `2m`, `1h30m`, `90d`.
pub(super) fn read_time(text: &str) -> Result<Duration, String> {
    let advice = "write a whole number with ms, s, m, h, d or w behind it, as \"5s\" or \"90d\"";
    let mut rest = text.trim();
    let mut total_ms = 0u64;
    if rest.is_empty() {
        return Err(format!("is no time; {advice}"));
    }
    while !rest.is_empty() {
        let end = rest.char_indices().skip_while(|(_, c)| c.is_ascii_digit()).find(|(_, c)| c.is_ascii_digit());
        let (part, more) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        let (number, unit) = split(part).ok_or_else(|| format!("is no time; {advice}"))?;
        let unit_ms = match unit {
            "" => return Err(format!("has no unit; {advice}")),
            "min" => 60_000,
            "M" => return Err("has the unit M, which is no time; write m for minutes, d for days".to_owned()),
            unit => TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(|| format!("is no time; {advice}"))?.1,
        };
        let sum = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms));
        total_ms = sum.ok_or_else(|| "is longer than any log; write less".to_owned())?;
        rest = more;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads `20%`.
pub(super) fn read_share(text: &str) -> Result<u64, String> {
    let advice = "write a whole number from 1 to 100 with % behind it, as \"20%\"";
    match split(text) {
        Some((number @ 1..=100, "%")) => Ok(number),
        Some((_, "")) => Err(format!("has no unit; {advice}")),
        Some((_, "%")) => Err(format!("is out of bounds; {advice}")),
        _ => Err(format!("is no share; {advice}")),
    }
}

/// The digits at the start as a number, and what follows.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// A size as it reads back.
pub(super) fn size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes}B"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// A time as it reads back, in the largest unit without a fraction; what is less than a millisecond is left out.
pub(super) fn time(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // Weeks are read, but days say more: 90d.
    let exact = TIMES.iter().skip(1).find(|(_, unit_ms)| ms != 0 && ms.is_multiple_of(*unit_ms));
    exact.map_or_else(|| "0s".to_owned(), |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_print_back() {
        for (text, bytes) in [("64M", 64 << 20), ("2 gib", 2 << 30), ("1K", 1 << 10), ("1537B", 1537), ("0B", 0)] {
            assert_eq!(read_size(text), Ok(bytes));
            assert_eq!(read_size(&size(bytes)), Ok(bytes));
        }
        for bad in ["", "M", "64", "64X", "1.5G", "-1M", "99999999999T", "99999999999999999999M"] {
            assert!(read_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_need_a_unit_and_print_back() {
        let day = 86_400_000;
        for (text, ms) in [("5s", 5_000), ("2m", 120_000), ("90d", 90 * day), ("1h30m", 5_400_000), ("250ms", 250)] {
            assert_eq!(read_time(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(read_time(&time(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)));
        }
        assert_eq!((time(Duration::from_secs(5_400)), time(Duration::ZERO)), ("90m".into(), "0s".into()));
        assert_eq!((read_time("2w"), time(Duration::from_secs(1_209_600))), (read_time("14d"), "14d".into()));
        for bad in ["", "5", "s", "5 parsecs", "1.5h", "-1s", "5s3", "99999999999999w", "5M", "5s s"] {
            assert!(read_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_whole_per_cents() {
        assert_eq!((read_share("20%"), read_share("100 %")), (Ok(20), Ok(100)));
        for bad in ["", "20", "0%", "101%", "1.5%", "%"] {
            assert!(read_share(bad).is_err(), "{bad}");
        }
    }
}
