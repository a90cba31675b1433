//! The words with which something is left out: what it is, how much, and its range of bytes. A range is
//! `FROM-TO`: the first byte that is left out and the first one after it, both usable as `from`.

use std::ops::Range;

use super::pieces::{Absence, Part};

/// A number with its noun: `1 line`, `1,204 lines`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A number with a comma between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A range as it is written in every note.
pub(super) fn range(range: &Range<u64>) -> String {
    format!("{}-{}", range.start, range.end)
}

/// A range without bytes.
pub(super) fn absent(range: &Range<u64>, why: Absence) -> String {
    format!("[… bytes {} {}]", self::range(range), why.words())
}

/// Lines that are not shown: how many, their range, and which of its bytes were not there to be shown.
#[derive(Debug, Clone)]
pub(super) struct Omission {
    pub(super) lines: u64,
    pub(super) range: Range<u64>,
    absent: Vec<(Range<u64>, Absence)>,
}

impl Omission {
    /// How many ranges of a kind are named.
    const NAMED_MAX: usize = 2;

    pub(super) fn new(lines: u64, range: Range<u64>, parts: &[Part<'_>]) -> Self {
        let within = |part: &Part<'_>| match part {
            Part::Absent(each, why) => {
                let each = each.start.max(range.start)..each.end.min(range.end);
                (!each.is_empty()).then_some((each, *why))
            }
            Part::Bytes { .. } => None,
        };
        Self {
            lines,
            absent: parts.iter().filter_map(within).collect(),
            range,
        }
    }

    /// All that can be said.
    pub(super) fn long(&self) -> String {
        if let [(range, why)] = &self.absent[..]
            && *range == self.range
        {
            return absent(range, *why);
        }
        let mut text = self.beginning();
        for why in [Absence::NotRead, Absence::Dropped] {
            let ranges: Vec<String> = self.ranges(why).map(range).collect();
            let named = ranges.len().min(Self::NAMED_MAX);
            match ranges.len() - named {
                _ if named == 0 => continue,
                0 => text += &format!("; {}: {}", why.words(), ranges.join(", ")),
                more => {
                    let named = ranges[..named].join(", ");
                    text += &format!(
                        "; {}: {named} and {} more",
                        why.words(),
                        grouped(more as u64)
                    );
                }
            }
        }
        text + "]"
    }

    /// The same in fewer words.
    pub(super) fn short(&self) -> String {
        let mut text = self.beginning();
        for why in [Absence::NotRead, Absence::Dropped] {
            if self.ranges(why).next().is_some() {
                text += &format!(", partly {}", why.words());
            }
        }
        text + "]"
    }

    /// How many characters the text of any part of this omission has at most.
    pub(super) fn chars_max(&self, is_long: bool) -> usize {
        /// `; not scanned: ` and ` and 1,234,567 more`.
        const WORDS_CHARS_MAX: usize = 40;
        let end = self.range.end;
        let widest = range(&(end..end)).len();
        let longest = Self {
            lines: self.lines,
            range: end..end,
            absent: self.absent.clone(),
        };
        let kinds = [Absence::NotRead, Absence::Dropped];
        let kinds = kinds
            .into_iter()
            .filter(|why| self.ranges(*why).next().is_some());
        match is_long {
            true => {
                let named = WORDS_CHARS_MAX + Self::NAMED_MAX * (widest + 2);
                longest.beginning().chars().count() + 1 + kinds.count() * named
            }
            false => longest.short().chars().count(),
        }
    }

    fn beginning(&self) -> String {
        let range = range(&self.range);
        match self.lines {
            0 => format!("[… bytes {range} omitted"),
            lines => format!("[… {} omitted, bytes {range}", counted(lines, "line")),
        }
    }

    fn ranges(&self, why: Absence) -> impl Iterator<Item = &Range<u64>> {
        let same = move |each: &&(Range<u64>, Absence)| each.1 == why;
        self.absent.iter().filter(same).map(|(range, _)| range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_and_nouns() {
        let all: Vec<String> = [0, 1, 999, 1_000, 1_234_567]
            .map(|number| counted(number, "line"))
            .into();
        let expected = [
            "0 lines",
            "1 line",
            "999 lines",
            "1,000 lines",
            "1,234,567 lines",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn an_omission_names_what_was_not_there() {
        let absent = |range, why| Part::Absent(range, why);
        let parts = [
            absent(0..10, Absence::Dropped),
            absent(20..30, Absence::NotRead),
            absent(40..50, Absence::Dropped),
            absent(60..70, Absence::Dropped),
            absent(80..90, Absence::Dropped),
        ];
        let all = Omission::new(1_204, 5..85, &parts);
        assert_eq!(
            all.long(),
            "[… 1,204 lines omitted, bytes 5-85; not scanned: 20-30; dropped: 5-10, 40-50 and 2 more]"
        );
        assert_eq!(
            all.short(),
            "[… 1,204 lines omitted, bytes 5-85, partly not scanned, partly dropped]"
        );
        let one = Omission::new(1, 30..40, &parts);
        assert_eq!(one.long(), "[… 1 line omitted, bytes 30-40]");
        assert_eq!(one.short(), one.long());
    }
}
