//! A regular expression over bytes: its syntax, its limits, and its NFA. `search` runs the NFA.

use std::sync::Arc;

use regex_automata::{
    nfa::thompson::{self, NFA, State, WhichCaptures},
    util::{primitives::StateID, syntax},
};
use regex_syntax::hir::Hir;

/// A compiled pattern. Cheap to clone.
///
/// The syntax is that of the crate `regex`, over bytes: as if `(?m-u)` stood in front, so `^` and
/// `$` are the ends of lines, `.` is any byte but a newline, `\w`, `\d`, `\s`, `\b` and `(?i)` are
/// ASCII, and `\xff` is that byte. `(?u:…)` turns characters on where a class needs them.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    nfa: NFA,
    /// The bytes that a match can begin with; `None` where one can be empty.
    first: Option<Arc<[bool; 256]>>,
}

/// Why a text is not accepted as a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has more than [`Pattern::TEXT_BYTES_MAX`] bytes.
    #[error("a pattern has at most {} bytes", Pattern::TEXT_BYTES_MAX)]
    TooLong,
    /// It is not a regular expression; the parser's message.
    #[error("{0}")]
    Syntax(String),
    /// Its automaton would take too much memory.
    #[error("the pattern becomes too large: use fewer or smaller repetitions")]
    TooLarge,
    /// It has Unicode word boundaries.
    #[error("word boundaries are not supported under (?u): write (?-u:\\b)")]
    UnicodeBoundary,
    /// It needs a line end, and is for a search within lines.
    #[error(
        "a line end is never found, because each line is searched by itself: search for a part of one line"
    )]
    LineEnd,
    /// It is the empty text.
    #[error("must not be empty; the regex ^ finds every line")]
    Empty,
}

impl Pattern {
    /// Longest text of a pattern, bytes.
    pub const TEXT_BYTES_MAX: usize = 4 << 10;
    /// Largest NFA, bytes: it bounds the time per byte and the memory per search.
    const NFA_BYTES_MAX: usize = 256 << 10;

    /// Compiles a pattern.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::of_hir(text, &parse(text, false)?)
    }

    /// Compiles what was parsed from `text`.
    pub(in crate::output) fn of_hir(text: &str, hir: &Hir) -> Result<Self, PatternError> {
        let nfa = thompson::Compiler::new()
            .configure(nfa_config())
            .build_from_hir(hir)
            .map_err(|_| PatternError::TooLarge)?;
        if nfa.look_set_any().contains_word_unicode() {
            return Err(PatternError::UnicodeBoundary);
        }
        Ok(Self {
            text: text.into(),
            first: first_bytes(&nfa).map(Arc::new),
            nfa,
        })
    }

    /// The text from which it was compiled.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The memory that its NFA takes, bytes.
    pub fn compiled_bytes(&self) -> usize {
        self.nfa.memory_usage()
    }

    pub(in crate::output) fn nfa(&self) -> &NFA {
        &self.nfa
    }

    /// How many bytes at the beginning of `data` can be skipped because no match begins with them.
    pub(in crate::output) fn no_match_before(&self, data: &[u8]) -> usize {
        let Some(first) = &self.first else { return 0 };
        let found = data.iter().position(|byte| first[usize::from(*byte)]);
        found.unwrap_or(data.len())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Parses a pattern. With `ignore_case`, letters of ASCII match in both cases, as if `(?i)` stood in
/// front.
pub(in crate::output) fn parse(text: &str, ignore_case: bool) -> Result<Hir, PatternError> {
    if text.len() > Pattern::TEXT_BYTES_MAX {
        return Err(PatternError::TooLong);
    }
    let syntax = syntax::Config::new()
        .unicode(false)
        .utf8(false)
        .multi_line(true)
        .case_insensitive(ignore_case);
    syntax::parse_with(text, &syntax)
        .map_err(|error| PatternError::Syntax(advice(last_line(&error.to_string()))))
}

/// How an NFA is built: over bytes, without captures, and bounded.
pub(in crate::output) fn nfa_config() -> thompson::Config {
    NFA::config()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(Pattern::NFA_BYTES_MAX))
}

/// The parser's message, with what to write instead where it is about Unicode.
fn advice(message: String) -> String {
    match message.contains("Unicode") {
        true => format!("{message}; characters beyond ASCII in a class need (?u:…)"),
        false => message,
    }
}

/// The parser's message shows the pattern with a marker below it; only the last line says what is
/// wrong.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or(message);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The bytes that a match can begin with, whatever precedes or follows; `None` if a match can be
/// empty.
fn first_bytes(nfa: &NFA) -> Option<[bool; 256]> {
    let mut first = [false; 256];
    let mut seen = vec![false; nfa.states().len()];
    let mut open = vec![nfa.start_anchored()];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut seen[id.as_usize()], true) {
            continue;
        }
        match nfa.state(id) {
            State::Match { .. } => return None,
            State::Look { next, .. } => open.push(*next),
            state if state.is_epsilon() => open.extend(alternates(state)),
            state => (0..=u8::MAX)
                .filter(|byte| step(state, *byte).is_some())
                .for_each(|byte| first[usize::from(byte)] = true),
        }
    }
    Some(first)
}

/// The states to which a state leads without a byte and without a condition.
pub(in crate::output) fn alternates(state: &State) -> impl Iterator<Item = StateID> {
    let (many, one, two) = match state {
        State::Union { alternates } => (&alternates[..], None, None),
        State::BinaryUnion { alt1, alt2 } => (&[][..], Some(*alt1), Some(*alt2)),
        State::Capture { next, .. } => (&[][..], Some(*next), None),
        _ => (&[][..], None, None),
    };
    many.iter().copied().chain(one).chain(two)
}

/// The state to which a state leads with this byte, if any.
pub(in crate::output) fn step(state: &State, byte: u8) -> Option<StateID> {
    match state {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(sparse) => sparse.matches_byte(byte),
        State::Dense(dense) => dense.matches_byte(byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bytes_and_characters_only_where_asked_for() {
        for good in [
            r"\xff\xfe",
            "é+",
            "(?u:[❯>]) ",
            r"(?i)error",
            r"^done$",
            r"\bx\b",
            "a{0,500}",
            "",
        ] {
            assert_eq!(
                Pattern::new(good).map(|p| p.text().to_owned()),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (wrong, says) in [
            ("(a", "unclosed group"),
            ("[❯]", "(?u:…)"),
            (r"(?u)\b", "word boundaries"),
            ("((a{100}){100}){100}", "too large"),
        ] {
            let error = Pattern::new(wrong).expect_err(wrong).to_string();
            assert!(
                error.contains(says) && !error.contains('\n'),
                "{wrong}: {error}"
            );
        }
        let long = "a".repeat(Pattern::TEXT_BYTES_MAX + 1);
        assert_eq!(Pattern::new(&long), Err(PatternError::TooLong));
    }

    #[test]
    fn what_cannot_begin_a_match_is_passed_over() {
        let skipped = |pattern, data: &str| {
            let pattern = Pattern::new(pattern).expect("valid");
            pattern.no_match_before(data.as_bytes())
        };
        assert_eq!(skipped("ready|done", "all is ready"), 7);
        assert_eq!(skipped("(?i)x", "abcX"), 3);
        assert_eq!(skipped("zz", "abc"), 3);
        assert_eq!(skipped("z*", "abc"), 0);
        assert_eq!(skipped("$", "abc"), 0);
    }
}
