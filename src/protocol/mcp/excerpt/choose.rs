//! Which diagnostics are shown where there is no room for all, and with how many lines.

use std::ops::Range;

use super::{
    diagnose::{Diagnostic, Diagnostics, Severity},
    notes::{self, counted, grouped},
};

/// Most diagnostics that are shown.
const SHOWN_MAX: usize = 40;
/// Up to this number of errors, each is shown with all of its lines.
const WHOLE_ERRORS_MAX: u64 = 3;
/// How many lines of an error that is not the first one are shown where there are more of them.
const LINES_OF_MANY: usize = 5;
/// Most warnings that are shown, and only where nothing worse was found.
const WARNINGS_MAX: usize = 5;
/// Fewest characters of a diagnostic that are worth showing.
const CHARS_MIN: usize = 30;
/// Which share the first one may take where there are others, in percent.
const FIRST_PERCENT: usize = 60;
/// What it may take in any case if there is so much room, characters.
const FIRST_CHARS_MIN: usize = 150;
/// With fewer characters for all, their kinds are not counted.
const KINDS_CHARS_MIN: usize = 500;

/// The section about diagnostics, in the order of the output.
#[derive(Debug, Default)]
pub(super) struct Section {
    found: Option<Found>,
    shown: Vec<(u64, Vec<String>)>,
}

impl Section {
    /// Its rows.
    pub(super) fn rows(&self) -> Vec<String> {
        let Some(found) = &self.found else {
            return Vec::new();
        };
        let head = found.head(self.shown.len());
        let shown = self.shown.iter().flat_map(|(_, rows)| rows);
        let mut rows: Vec<String> = std::iter::once(&head).chain(shown).cloned().collect();
        rows.push(OUTPUT.to_owned());
        rows
    }

    /// Its characters, each row with a newline.
    pub(super) fn chars(&self) -> usize {
        self.rows().iter().map(|row| chars(row)).sum()
    }
}

/// The row between the diagnostics and the output.
const OUTPUT: &str = "output:";

/// What there is.
#[derive(Debug)]
struct Found {
    all: u64,
    /// How many of each kind, unless there is no room for it.
    kinds: Option<String>,
}

impl Found {
    fn new(all: &Diagnostics, has_kinds: bool) -> Self {
        let kinds = Severity::ALL
            .into_iter()
            .filter(|kind| all.found(*kind) > 0);
        let kinds = kinds.map(|kind| match (kind, all.found(kind)) {
            (Severity::Summary, number @ 2..) => format!("{} summaries", grouped(number)),
            (kind, number) => counted(number, kind.word()),
        });
        Self {
            all: all.found_all(),
            kinds: has_kinds.then(|| kinds.collect::<Vec<_>>().join(", ")),
        }
    }

    fn head(&self, shown: usize) -> String {
        let kinds = self.kinds.as_ref().map(|kinds| format!("; {kinds}"));
        let (all, kinds) = (grouped(self.all), kinds.unwrap_or_default());
        format!("diagnostics ({all} found, {shown} shown{kinds}):")
    }
}

/// Chooses for `chars_max` characters. What has no line in the range of the output that is hidden is
/// only named: it can be read below.
pub(super) fn choose(all: &Diagnostics, chars_max: usize, hidden: &Range<u64>) -> Section {
    let mut section = Section::default();
    if all.found_all() == 0 {
        return section;
    }
    let found = Found::new(all, chars_max >= KINDS_CHARS_MIN);
    let mut left = chars_max.saturating_sub(chars(&found.head(SHOWN_MAX)) + chars(OUTPUT));
    if left < CHARS_MIN {
        return section;
    }
    section.found = Some(found);
    let ordered = ordered(all);
    let first_chars_max = match ordered.len() {
        1 => left,
        _ => left.min(FIRST_CHARS_MIN.max(left * FIRST_PERCENT / 100)),
    };
    for (at, diagnostic) in ordered.into_iter().enumerate() {
        let rows = match at {
            // The first one is shown as far as there is room for it.
            0 => as_fits(
                diagnostic,
                first_chars_max,
                lines_max(all, at, diagnostic, hidden),
            ),
            _ => {
                let whole = rows(diagnostic, lines_max(all, at, diagnostic, hidden));
                if fits(&whole, left) {
                    whole
                } else {
                    rows(diagnostic, 1)
                }
            }
        };
        if fits(&rows, left) && section.shown.len() < SHOWN_MAX {
            left -= rows.iter().map(|row| chars(row)).sum::<usize>();
            section.shown.push((diagnostic.from, rows));
        }
    }
    section.shown.sort_by_key(|(from, _)| *from);
    section
}

/// How many lines are shown of the diagnostic that is the next one in the order of their importance.
fn lines_max(all: &Diagnostics, at: usize, each: &Diagnostic, hidden: &Range<u64>) -> usize {
    let is_whole = at == 0 || all.found(Severity::Error) <= WHOLE_ERRORS_MAX;
    match () {
        () if !is_hidden(each, hidden) => 1,
        () if is_whole => usize::MAX,
        () => LINES_OF_MANY,
    }
}

fn is_hidden(diagnostic: &Diagnostic, hidden: &Range<u64>) -> bool {
    diagnostic.from < hidden.end && hidden.start < diagnostic.to
}

fn chars(row: &str) -> usize {
    row.chars().count() + 1
}

fn fits(rows: &[String], chars_max: usize) -> bool {
    rows.iter().map(|row| chars(row)).sum::<usize>() <= chars_max
}

/// A diagnostic as rows: its place, then its lines; in one row if it has one line.
fn rows(diagnostic: &Diagnostic, lines_max: usize) -> Vec<String> {
    let lines = &diagnostic.text[..diagnostic.text.len().min(lines_max)];
    let place = place(diagnostic);
    match lines {
        [line] => vec![format!("{place}: {}", line.trim())],
        lines => std::iter::once(format!("{place}:"))
            .chain(lines.iter().cloned())
            .collect(),
    }
}

fn place(diagnostic: &Diagnostic) -> String {
    let range = notes::range(&(diagnostic.from..diagnostic.to));
    let line = diagnostic.number.map(|number| format!("line {number}, "));
    let times = (diagnostic.times > 1).then(|| format!(", {}", counted(diagnostic.times, "time")));
    format!(
        "[{}bytes {range}{}]",
        line.unwrap_or_default(),
        times.unwrap_or_default()
    )
}

/// As many lines as there is room for; of the first one as many characters.
fn as_fits(diagnostic: &Diagnostic, chars_max: usize, lines_max: usize) -> Vec<String> {
    let lines_max = lines_max.min(diagnostic.text.len());
    let shorter = (1..=lines_max).rev().map(|lines| rows(diagnostic, lines));
    let mut fitting = shorter.filter(|rows| fits(rows, chars_max));
    fitting.next().unwrap_or_else(|| {
        let row = format!("[byte {}]: {}", diagnostic.from, diagnostic.text[0].trim());
        let kept = chars_max.saturating_sub(2);
        vec![row.chars().take(kept).chain(['…']).collect()]
    })
}

/// All that are kept, most important first: the first error and the last one, then some of what
/// failed, then the others.
fn ordered(all: &Diagnostics) -> Vec<&Diagnostic> {
    let of = |severity| -> Vec<&Diagnostic> { all.kept(severity).collect() };
    let errors = from_both_ends(of(Severity::Error));
    let failures = from_both_ends(of(Severity::Failure));
    // Of lines that only have the words of an error, the last ones say most.
    let mentions: Vec<_> = of(Severity::Mention).into_iter().rev().collect();
    let summaries: Vec<_> = of(Severity::Summary).into_iter().rev().take(2).collect();
    let is_clean = errors.is_empty() && failures.is_empty() && mentions.is_empty();
    let warnings = match is_clean {
        true => from_both_ends(of(Severity::Warning)),
        false => Vec::new(),
    };
    let (first_errors, errors) = divide(errors, 2);
    let (first_failures, failures) = divide(failures, 3);
    let (first_mentions, mentions) = divide(mentions, 2);
    let (last_summary, summaries) = divide(summaries, 1);
    let groups = [
        first_errors,
        first_failures,
        first_mentions,
        last_summary,
        errors,
        failures,
        mentions,
        warnings.into_iter().take(WARNINGS_MAX).collect(),
        summaries,
    ];
    groups.concat()
}

fn divide(mut list: Vec<&Diagnostic>, first: usize) -> (Vec<&Diagnostic>, Vec<&Diagnostic>) {
    let rest = list.split_off(first.min(list.len()));
    (list, rest)
}

/// The first one, the last one, then two from the beginning for each one from the end.
fn from_both_ends(list: Vec<&Diagnostic>) -> Vec<&Diagnostic> {
    let mut from_end = list.len();
    let mut from_begin = 0;
    let mut ordered = Vec::new();
    while from_begin < from_end {
        match ordered.len() % 3 {
            1 => {
                from_end -= 1;
                ordered.push(list[from_end]);
            }
            _ => {
                ordered.push(list[from_begin]);
                from_begin += 1;
            }
        }
    }
    ordered
}
