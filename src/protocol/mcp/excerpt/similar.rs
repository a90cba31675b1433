//! When two lines are the same but for what changes while something is in progress.

/// Units that may change along with their number.
const UNITS: [&str; 33] = [
    "kib/s", "mib/s", "gib/s", "kb/s", "mb/s", "gb/s", "tb/s", "b/s", "it/s", "/s", "bytes", "kib",
    "mib", "gib", "tib", "kb", "mb", "gb", "tb", "ms", "us", "µs", "ns", "min", "hr", "k", "m",
    "g", "t", "b", "s", "h", "d",
];

/// Whether two lines are the same but for the digits of their numbers.
pub(super) fn is_same_but_digits(one: &str, other: &str) -> bool {
    Masked::new(one, false).eq(Masked::new(other, false))
}

/// Whether two lines report the same progress: the same text but for numbers, units, bars and spinners,
/// and something in both that only progress has.
pub(super) fn is_same_progress(one: &str, other: &str) -> bool {
    Masked::new(one, true).eq(Masked::new(other, true)) && is_progress(one) && is_progress(other)
}

/// Whether a line has a percentage, a count of a total (`3/7`), a size with a unit, a bar or a spinner.
fn is_progress(line: &str) -> bool {
    let bytes = line.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let numbers = (0..bytes.len()).filter(|at| is_digit(*at) && !is_digit(at + 1));
    let is_counter = |at: usize| {
        let rest = &line[at + 1..];
        let unit = rest.trim_start_matches(' ');
        let is_of_total = |rest: &str| {
            rest.strip_prefix('/')
                .is_some_and(|rest| rest.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        };
        unit.starts_with('%')
            || is_of_total(unit)
            || unit.starts_with("of ")
            || [
                "kb", "mb", "gb", "kib", "mib", "gib", "bytes", "b/s", "it/s",
            ]
            .iter()
            .any(|name| starts_with_unit(unit, name))
    };
    numbers.into_iter().any(is_counter)
        || line.chars().any(|c| !c.is_ascii() && is_bar(c))
        || line.contains("===")
        || line.contains("###")
}

/// Whether progress bars and spinners are made of this character.
fn is_bar(c: char) -> bool {
    match c {
        '=' | '#' | '>' | '<' | '-' | '.' | '*' | '_' | ' ' | '\t' => true,
        '[' | ']' | '(' | ')' | '|' | '/' | '\\' | '·' | '•' => true,
        // Box drawing, blocks, circles, braille.
        '\u{2500}'..='\u{259f}' | '\u{25cb}'..='\u{25e1}' | '\u{2800}'..='\u{28ff}' => true,
        _ => false,
    }
}

/// Whether a text begins with a unit that is a whole word.
fn starts_with_unit(text: &str, unit: &str) -> bool {
    let begin = text.get(..unit.len());
    let is_unit = begin.is_some_and(|begin| begin.eq_ignore_ascii_case(unit));
    is_unit && !text[unit.len()..].starts_with(|c: char| c.is_alphanumeric())
}

/// A line in which each number is one and the same item.
struct Masked<'a> {
    rest: &'a str,
    /// Whether bars and units are masked, too.
    is_progress: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum MaskedChar {
    Char(char),
    Mask,
}

impl<'a> Masked<'a> {
    fn new(line: &'a str, is_progress: bool) -> Self {
        Self {
            rest: line,
            is_progress,
        }
    }

    /// Skips a number with its unit, or a part of a bar.
    fn skip_one(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else {
            return false;
        };
        if c.is_ascii_digit() {
            let in_number = |c: char| c.is_ascii_digit() || ".,:%".contains(c);
            self.rest = match self.is_progress {
                true => self.rest.trim_start_matches(in_number),
                false => self.rest.trim_start_matches(|c: char| c.is_ascii_digit()),
            };
            if self.is_progress {
                self.skip_unit();
            }
            return true;
        }
        if self.is_progress && is_bar(c) {
            self.rest = &self.rest[c.len_utf8()..];
            return true;
        }
        false
    }

    fn skip_unit(&mut self) {
        let spaced = self.rest.strip_prefix(' ').unwrap_or(self.rest);
        for unit in UNITS {
            if starts_with_unit(spaced, unit) {
                self.rest = &spaced[unit.len()..];
                return;
            }
        }
        // `1m03s`: a unit with the next number right after it.
        let unit = self.rest.trim_start_matches(|c: char| "hms".contains(c));
        let skipped = self.rest.len() - unit.len();
        if skipped == 1 && unit.starts_with(|c: char| c.is_ascii_digit()) {
            self.rest = unit;
        }
    }
}

impl Iterator for Masked<'_> {
    type Item = MaskedChar;

    fn next(&mut self) -> Option<MaskedChar> {
        let c = self.rest.chars().next()?;
        let is_special = c.is_ascii_digit() || (self.is_progress && is_bar(c));
        if !is_special {
            self.rest = &self.rest[c.len_utf8()..];
            return Some(MaskedChar::Char(c));
        }
        while self.skip_one() {
            if !self.is_progress {
                break;
            }
        }
        Some(MaskedChar::Mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_progress_are_the_same() {
        for (one, other) in [
            ("Downloading 1%", "Downloading 100%"),
            ("Downloading   9% [=>    ]", "Downloading  10% [==>   ]"),
            ("[12/900] building", "[899/900] building"),
            (
                "  1.5 kB/2 MB 900 kB/s eta 0:00:01",
                "  2 MB/2 MB 1.2 MB/s eta 0:01:59",
            ),
            ("⠋ resolving", "⠹ resolving"),
            ("━━━╸ 3.1/4.0 MB", "━━━━ 4.0/4.0 MB"),
            ("3 of 10 files in 59s", "10 of 10 files in 1m03s"),
            (
                " 3%|▎      | 3/100 [00:01<00:50, 1.9it/s]",
                "99%|██████▉| 99/100 [00:52<00:00, 2.2it/s]",
            ),
        ] {
            assert!(is_same_progress(one, other), "{one} {other}");
        }
    }

    #[test]
    fn lines_that_merely_have_numbers_are_no_progress() {
        for (one, other) in [
            ("test a_1 ... ok", "test a_2 ... ok"),
            ("1", "2"),
            ("10.0.0.1 up", "10.0.0.2 up"),
            ("Downloading a 1%", "Downloading b 2%"),
            ("50% done", "50% left"),
        ] {
            assert!(!is_same_progress(one, other), "{one} {other}");
        }
    }

    #[test]
    fn digits_alone_may_differ() {
        assert!(is_same_but_digits("test a_1 ... ok", "test a_27 ... ok"));
        assert!(is_same_but_digits("", ""));
        assert!(!is_same_but_digits("a 1", "a 1.5"));
        assert!(!is_same_but_digits("a1", "b1"));
    }
}
