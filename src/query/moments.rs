//! Bounds of times that follow from comparisons of their texts.
//!
//! The views show a time as RFC 3339 in UTC with six digits, and users compare it with texts of any form.
//! For times of the years 0 to 9999, texts sort as times do, so a bound of texts is a bound of times.

use crate::job::Micros;

/// The first and the last time with a year of four digits, µs since 1970.
const FIRST_US: i64 = -62_167_219_200_000_000;
const LAST_US: i64 = 253_402_300_799_999_999;

/// The earliest time whose text is `text` or sorts after it, µs since 1970: `i64::MIN` if every text does,
/// `i64::MAX` if none of the years 0 to 9999 does.
pub fn first_at(text: &[u8]) -> i64 {
    first(|shown| shown >= text)
}

/// The latest time whose text is `text` or sorts before it, µs since 1970: `i64::MAX` if every text does,
/// `i64::MIN` if none of the years 0 to 9999 does.
pub fn last_at(text: &[u8]) -> i64 {
    match first(|shown| shown > text) {
        i64::MAX => i64::MAX,
        after => after.saturating_sub(1),
    }
}

/// The earliest time whose text is beyond a bound: none before it is, all after it are.
fn first(is_beyond: impl Fn(&[u8]) -> bool) -> i64 {
    let is_beyond = |us: i64| is_beyond(Micros(us).to_rfc3339().as_bytes());
    if is_beyond(FIRST_US) {
        return i64::MIN;
    }
    if !is_beyond(LAST_US) {
        return i64::MAX;
    }
    let (mut within, mut beyond) = (FIRST_US, LAST_US);
    while beyond - within > 1 {
        let middle = within + (beyond - within) / 2;
        match is_beyond(middle) {
            true => beyond = middle,
            false => within = middle,
        }
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_texts_is_a_bound_of_times() {
        let day = 1_795_305_600_000_000;
        let (hour, after) = (36_000_000_000, 86_400_000_000);
        for (text, first, last) in [
            ("2026-11-22T10:00:00.000000Z", day + hour, day + hour),
            ("2026-11-22", day, day - 1),
            ("2026-11-22 10:00:00", day, day - 1),
            ("2026-11-22T10", day + hour, day + hour - 1),
            // A digit sorts after the point, and 'Z' after every digit.
            (
                "2026-11-22T10:00:00Z",
                day + hour + 1_000_000,
                day + hour + 999_999,
            ),
            (
                "2026-11-22T10:00:00.5Z",
                day + hour + 600_000,
                day + hour + 599_999,
            ),
            (
                "2026-11-22T10:00:00.000000+01:00",
                day + hour,
                day + hour - 1,
            ),
            ("2026-11-22t10:00:00.000000Z", day + after, day + after - 1),
            ("2026-11-22T10:00:00.000000z", day + hour + 1, day + hour),
            ("2026-11-22Thursday", day + after, day + after - 1),
            // After every "1970-0…", before "1970-10".
            ("1970-1-1", 23_587_200_000_000, 23_587_199_999_999),
            ("1969-99", 0, -1),
            (" 2026-12-1", i64::MIN, i64::MIN),
            ("", i64::MIN, i64::MIN),
            ("+12026-01-01T00:00:00.000000Z", i64::MIN, i64::MIN),
            ("0", i64::MIN, i64::MIN),
            ("0000-01-01T00:00:00.000000Z", i64::MIN, FIRST_US),
            ("9999-12-31T23:59:59.999999Z", LAST_US, i64::MAX),
            ("yesterday", i64::MAX, i64::MAX),
        ] {
            let found = (first_at(text.as_bytes()), last_at(text.as_bytes()));
            assert_eq!(found, (first, last), "{text}");
        }
        assert_eq!(first_at(b"\xff"), i64::MAX);
    }

    /// Against what the views show.
    #[test]
    fn texts_of_any_form_lose_no_row() {
        let shown: Vec<(i64, Vec<u8>)> = (0..300)
            .map(|n: i64| 1_795_305_600_000_000 + n * n * n * 7_654_321)
            .map(|us| (us, Micros(us).to_rfc3339().into_bytes()))
            .collect();
        for n in 0..300_usize {
            let mut text = shown[n].1.clone();
            let at = n * 31 % text.len();
            match n % 4 {
                0 => text.truncate(at),
                1 => text[at] = b" -+.:TZtz09"[n % 11],
                2 => text.insert(at, b" 0-"[n % 3]),
                _ => drop(text.remove(at)),
            }
            let (first, last) = (first_at(&text), last_at(&text));
            for (us, row) in &shown {
                let what = String::from_utf8_lossy(&text);
                assert_eq!(*row >= text, *us >= first, "{what} and {us}");
                assert_eq!(*row <= text, *us <= last, "{what} and {us}");
            }
        }
    }
}
