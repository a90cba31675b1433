//! The lines of an output in which a pattern is found.

use regex_automata::{meta::Regex, util::syntax};

use super::{
    clean_line::{CleanLine, Entry},
    clean_lines::CleanLines,
    notes::{self, grouped},
    pieces::{Part, Pieces},
};
use crate::executor::{Pattern, PatternError};

/// Longest line of a hit that is shown whole, characters.
const LINE_CHARS_MAX: usize = 400;
/// How much of a longer one is shown before the match, characters.
const BEFORE_CHARS: usize = 120;
/// Most ranges without bytes that are named.
const ABSENT_NAMED_MAX: usize = 4;

/// A pattern for lines. Its syntax is that of [`Pattern`].
#[derive(Debug, Clone)]
pub struct ShownLinePattern {
    regex: Regex,
}

/// Why a text is not accepted as a pattern for lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShownLinePatternError {
    /// It is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Its automaton would take too much memory.
    #[error("the pattern becomes too large: use fewer or smaller repetitions")]
    TooLarge,
}

impl ShownLinePattern {
    /// Largest NFA, bytes. It bounds the time per byte.
    const NFA_BYTES_MAX: usize = 64 << 10;

    /// Compiles a pattern.
    pub fn new(text: &str) -> Result<Self, ShownLinePatternError> {
        let pattern = Pattern::new(text)?;
        let syntax = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .multi_line(true);
        let config = Regex::config()
            .utf8_empty(false)
            .nfa_size_limit(Some(Self::NFA_BYTES_MAX));
        let regex = Regex::builder()
            .syntax(syntax)
            .configure(config)
            .build(pattern.text())
            .map_err(|_| ShownLinePatternError::TooLarge)?;
        Ok(Self { regex })
    }
}

/// A line in which the pattern was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its number, from 1, where it is known.
    pub number: Option<u64>,
    /// Offset of its first byte.
    pub from: u64,
    /// Offset after its last byte.
    pub to: u64,
    /// Offset of the match; that of the line where the two cannot be told apart.
    pub offset: u64,
    /// The line; of a long one what is around the match.
    pub line: String,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    /// The first ones, as many as there is room for.
    pub hits: Vec<Hit>,
    /// How many lines were found.
    pub found: u64,
    /// The hits as text, with what is not in it.
    pub text: String,
}

/// Finds the lines that match, as a terminal shows them. The text has at most `chars_max` characters;
/// it names how many more were found and which ranges were not searched. Takes time linear in the
/// output, for each pattern.
pub fn grep(pieces: &Pieces<'_>, pattern: &ShownLinePattern, chars_max: usize) -> Hits {
    let parts = pieces.parts();
    let notes = absent_notes(&parts, chars_max / 2);
    // The note about further hits with the largest numbers.
    let note_chars = more(u64::MAX, u64::MAX).chars().count() + 1;
    let notes_chars: usize = notes.iter().map(|note| note.chars().count() + 1).sum();
    let mut left = (chars_max + 1).saturating_sub(note_chars + notes_chars);
    let mut found = Hits {
        hits: Vec::new(),
        found: 0,
        text: String::new(),
    };
    let mut rows = Vec::new();
    let mut next = None;
    let mut act = |line: &CleanLine<'_>| {
        let Some(at) = pattern.regex.find(line.text.as_bytes()) else {
            return;
        };
        found.found += 1;
        if next.is_some() {
            return;
        }
        let hit = hit(line, at.start());
        let row = row(&hit);
        match left.checked_sub(row.chars().count() + 1) {
            Some(rest) => {
                left = rest;
                rows.push(row);
                found.hits.push(hit);
            }
            None => next = Some(hit.from),
        }
    };
    for entry in CleanLines::new(&parts) {
        match &entry {
            Entry::Line(line) => act(line),
            Entry::Redrawn(all) => all.lines.iter().for_each(&mut act),
            Entry::Absent(..) => {}
        }
    }
    let hidden = found.found - found.hits.len() as u64;
    rows.extend(next.map(|from| more(hidden, from)));
    rows.extend(notes);
    found.text = rows.join("\n").chars().take(chars_max).collect();
    found
}

fn more(hidden: u64, from: u64) -> String {
    let what = if hidden == 1 {
        "line matches"
    } else {
        "lines match"
    };
    format!(
        "[… {} more {what}, the next one at byte {from}]",
        grouped(hidden)
    )
}

/// The ranges that were not searched.
fn absent_notes(parts: &[Part<'_>], chars_max: usize) -> Vec<String> {
    let absent = parts.iter().filter_map(|part| match part {
        Part::Absent(range, why) => Some(notes::absent(range, *why)),
        Part::Bytes { .. } => None,
    });
    let all: Vec<String> = absent.collect();
    let mut left = chars_max;
    let mut named: Vec<String> = Vec::new();
    for note in all.iter().take(ABSENT_NAMED_MAX) {
        match left.checked_sub(note.chars().count() + 1) {
            Some(rest) => left = rest,
            None => break,
        }
        named.push(note.clone());
    }
    let unnamed = (all.len() - named.len()) as u64;
    if unnamed > 0 {
        named.push(format!("[… {} more ranges not searched]", grouped(unnamed)));
    }
    named
}

fn row(hit: &Hit) -> String {
    let line = hit.number.map(|number| format!("line {number}, "));
    format!(
        "{}byte {}: {}",
        line.unwrap_or_default(),
        hit.offset,
        hit.line
    )
}

/// `at`: where the match begins in the text.
fn hit(line: &CleanLine<'_>, at: usize) -> Hit {
    let before = line.text.as_bytes()[..at].iter();
    // A pattern may match within a character: the one that contains its first byte counts.
    let starts = before.filter(|byte| !is_inner_byte(**byte)).count();
    let is_inner = line
        .text
        .as_bytes()
        .get(at)
        .is_some_and(|byte| is_inner_byte(*byte));
    let char = if is_inner { starts - 1 } else { starts };
    Hit {
        number: line.number,
        from: line.from,
        to: line.to,
        offset: match line.is_rewritten {
            true => line.from,
            false => line.place(char).offset,
        },
        line: around(&line.text, char),
    }
}

/// Whether a byte of UTF-8 is not the first one of its character.
fn is_inner_byte(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// What is around a character of a long line.
fn around(text: &str, char: usize) -> String {
    let chars = text.chars().count();
    if chars <= LINE_CHARS_MAX {
        return text.to_owned();
    }
    let from = char
        .saturating_sub(BEFORE_CHARS)
        .min(chars - LINE_CHARS_MAX);
    let shown: String = text.chars().skip(from).take(LINE_CHARS_MAX).collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if from + LINE_CHARS_MAX < chars {
        "…"
    } else {
        ""
    };
    format!("{before}{shown}{after}")
}

#[cfg(test)]
#[path = "grep_tests.rs"]
mod tests;
