//! Lengths of time as people write and read them. Pure.

/// Reads `90`, `1.5`, `500ms`, `90s`, `5m`, `2h`, `1d` or a chain such as `1h30m`, as seconds.
///
/// Refused: nothing, signs, unknown units, a bare number inside a chain.
pub fn parse(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a length of time; write 90, 90s, 5m, 2h or 1h30m");
    if let Some(seconds) = number(text) {
        return Ok(seconds);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .ok_or_else(wrong)?;
        let after = &rest[digits..];
        let unit = &after[..after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len())];
        sum += number(&rest[..digits]).ok_or_else(wrong)? * unit_seconds(unit).ok_or_else(wrong)?;
        rest = &after[unit.len()..];
    }
    if text.is_empty() || !sum.is_finite() {
        return Err(wrong());
    }
    Ok(sum)
}

/// Digits with at most one point; no sign, no exponent, no `inf`.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    text.parse::<f64>().ok().filter(|n| plain && n.is_finite())
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        _ => None,
    }
}

/// A length for people, with at most two units: `42ms`, `1.3s`, `12s`, `3m05s`, `2h10m`, `3d04h`.
pub fn short(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let ms = (seconds * 1000.0).round() as u64;
    if ms < 1000 {
        return format!("{ms}ms");
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read() {
        for (text, seconds) in [
            ("90", 90.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("500ms", 0.5),
            ("90s", 90.0),
            ("5m", 300.0),
            ("2h", 7200.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("1d", 86_400.0),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in [
            "", "-1", "+1", "s", "1x", "1h30", "nan", "inf", "1e3", "1.2.3s", "5 m", ".",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_shown_with_two_units_at_most() {
        for (seconds, text) in [
            (0.04, "40ms"),
            (0.9999, "1.0s"),
            (3.12, "3.1s"),
            (9.97, "10s"),
            (59.6, "1m00s"),
            (185.0, "3m05s"),
            (7800.0, "2h10m"),
            (273_600.0, "3d04h"),
            (-5.0, "0ms"),
        ] {
            assert_eq!(short(seconds), text);
        }
    }
}
