//! Lengths in bytes as people write and read them. Pure.

/// Units by name, in lower case and without the `b`: those of people who count in 1024 and of those
/// who count in 1000.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("ki", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mi", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gi", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("ti", 1 << 40),
];

/// Reads `1048576`, `64KiB`, `1.5MiB`, `5GiB`, `1TiB` (`64K` and so on are the same) and `5GB`, which
/// is 5,000,000,000, as bytes.
///
/// Refused: nothing, signs, unknown units, more than 2^63-1.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 1048576, 64KiB, 500MiB or 5GiB");
    let digits = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let unit = match unit.strip_suffix("ib") {
        Some(prefix) if !prefix.is_empty() => format!("{prefix}i"),
        _ => unit,
    };
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, factor) = unit.ok_or_else(wrong)?;
    if let Ok(whole) = number.parse::<u64>() {
        let bytes = whole.checked_mul(*factor);
        return bytes
            .filter(|b| i64::try_from(*b).is_ok())
            .ok_or_else(wrong);
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * *factor as f64;
    match bytes < i64::MAX as f64 {
        true => Ok(bytes.round() as u64),
        false => Err(wrong()),
    }
}

/// A length for people: `0 B`, `812 B`, `3.4 KiB`, `12.0 GiB`.
pub fn short(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut at = 0;
    // So that no length is shown as 1024.0 of its unit.
    while size >= 1023.95 && at + 1 < units.len() {
        size /= 1024.0;
        at += 1;
    }
    format!("{size:.1} {}", units[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64KiB", 64 << 10),
            ("64k", 64 << 10),
            ("1.5MiB", 3 << 19),
            ("5GiB", 5 << 30),
            ("5gib", 5 << 30),
            ("5GB", 5_000_000_000),
            ("1T", 1 << 40),
            ("12B", 12),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "GiB",
            "-1",
            "+1",
            "5 GiB",
            "5X",
            "1.2.3M",
            "ib",
            "1ib",
            "nan",
            "inf",
            "1e3",
            "9223372036854775808",
            "99999999999T",
            ".",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_their_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (12 << 30, "12.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(short(bytes), text);
        }
    }
}
