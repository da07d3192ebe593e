//! Sizes as people write them: `64M`, `1G`, `512K`, or bytes.
//!
//! Invariant: K, M, G and T are powers of 1024.

/// Parses a size into bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("`{unit}` is no unit of size; use K, M, G or T, for example 64M")),
    };
    let digits = digits.trim();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{digits}` is not a whole number; write for example 64M, 1G or 512K"));
    }
    let number: u64 = digits.parse().map_err(|_| "this is more than any medium holds".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "this is more than any medium holds".to_owned())
}

/// Bytes as people read them.
pub(crate) fn human(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift {
            let tenths = u128::from(bytes) * 10 / (1 << shift);
            return if tenths % 10 == 0 || tenths >= 1000 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("512K", 512 << 10),
            ("4096", 4096),
            ("2 GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_why() {
        for (text, why) in [
            ("64X", "`X` is no unit"),
            ("1.5G", "not a whole number"),
            ("", "not a whole number"),
            ("M", "not a whole number"),
            ("-1M", "not a whole number"),
            ("99999999T", "more than any medium"),
            ("99999999999999999999", "more than any medium"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        assert_eq!([human(512), human(64 << 20), human(1536)], ["512 bytes", "64 MiB", "1.5 KiB"]);
    }
}
