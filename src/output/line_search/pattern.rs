//! What is searched for within lines: a text or a regular expression, compiled so that no match
//! contains a line end. So many lines can be searched at once.

use std::sync::Arc;

use regex_automata::{
    MatchKind,
    hybrid::{dfa, regex},
    nfa::thompson::{self, NFA},
    util::prefilter::Prefilter,
};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look,
    Repetition,
};

use crate::output::{
    Pattern, PatternError,
    search::pattern::{nfa_config, parse},
};

/// A compiled search. Cheap to clone.
///
/// A regex has the syntax of [`Pattern`], and each line is a text of its own: `^` and `\A` are its
/// beginning, `$` and `\z` its end, and no class has the line end in it.
#[derive(Debug, Clone)]
pub struct LinePattern(Arc<LinePatternInner>);

#[derive(Debug)]
struct LinePatternInner {
    pattern: Pattern,
    is_regex: bool,
    ignore_case: bool,
    automata: Option<regex::Regex>,
}

/// The states of a lazy automaton that are kept, bytes. A search has two of them.
const CACHE_BYTES: usize = 256 << 10;

/// How often these states may be thrown away before it is judged whether they are worth it.
const CACHE_CLEARS_MIN: usize = 2;

/// They are not worth it if each serves for fewer bytes than this...
const BYTES_PER_STATE_MIN: usize = 10;

/// ...or for fewer than the NFA's states divided by this: to make one costs a visit of each.
const NFA_STATES_PER_BYTE: usize = 16;

/// Shorter literals than this are at too many places to jump to them, bytes.
const LITERAL_BYTES_MIN: usize = 2;

impl LinePattern {
    /// A search for a text as it stands. With `ignore_case`, letters of ASCII match in both cases.
    ///
    /// # Errors
    ///
    /// The text is empty, too long, or contains a line end.
    pub fn text(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > Pattern::TEXT_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let hir = Hir::literal(text.as_bytes());
        let hir = match ignore_case {
            true => in_both_cases(text),
            false => hir,
        };
        Self::of_hir(text, within_line(hir)?, false, ignore_case)
    }

    /// A search for what matches a regular expression.
    ///
    /// # Errors
    ///
    /// It is no valid pattern, too large, or matches only with a line end.
    pub fn regex(regex: &str, ignore_case: bool) -> Result<Self, PatternError> {
        let hir = within_line(parse(regex, ignore_case)?)?;
        Self::of_hir(regex, hir, true, ignore_case)
    }

    fn of_hir(
        text: &str,
        hir: Hir,
        is_regex: bool,
        ignore_case: bool,
    ) -> Result<Self, PatternError> {
        let pattern = Pattern::of_hir(text, &hir)?;
        Ok(Self(Arc::new(LinePatternInner {
            automata: automata(&pattern, &hir),
            pattern,
            is_regex,
            ignore_case,
        })))
    }

    /// The text or the regular expression that it was made from.
    pub fn source(&self) -> &str {
        self.0.pattern.text()
    }

    pub(super) fn pattern(&self) -> &Pattern {
        &self.0.pattern
    }

    /// Finds a match and its beginning, in time that hardly depends on the pattern, unless it gives
    /// up. `None` where the pattern is too large for that.
    pub(super) fn automata(&self) -> Option<&regex::Regex> {
        self.0.automata.as_ref()
    }
}

impl PartialEq for LinePattern {
    fn eq(&self, other: &Self) -> bool {
        let key = |of: &Self| (of.0.is_regex, of.0.ignore_case);
        self.source() == other.source() && key(self) == key(other)
    }
}

/// The bytes of a text, each letter of ASCII in both cases.
fn in_both_cases(text: &str) -> Hir {
    let byte = |byte: u8| {
        let both = [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
        Hir::class(Class::Bytes(ClassBytes::new(
            both.map(|byte| ClassBytesRange::new(byte, byte)),
        )))
    };
    Hir::concat(text.bytes().map(byte).collect())
}

/// The same without what needs a line end.
fn within_line(hir: Hir) -> Result<Hir, PatternError> {
    Ok(match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => {
            return Err(PatternError::LineEnd);
        }
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class_within_line(class)?),
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(within_line(*repetition.sub)?),
            ..repetition
        }),
        HirKind::Capture(capture) => within_line(*capture.sub)?,
        HirKind::Concat(parts) => Hir::concat(all_within_line(parts)?),
        HirKind::Alternation(parts) => Hir::alternation(all_within_line(parts)?),
    })
}

fn all_within_line(parts: Vec<Hir>) -> Result<Vec<Hir>, PatternError> {
    parts.into_iter().map(within_line).collect()
}

fn class_within_line(class: Class) -> Result<Class, PatternError> {
    let was_empty = class.is_empty();
    let class = match class {
        Class::Bytes(mut class) => {
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Class::Bytes(class)
        }
        Class::Unicode(mut class) => {
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Class::Unicode(class)
        }
    };
    match class.is_empty() && !was_empty {
        true => Err(PatternError::LineEnd),
        false => Ok(class),
    }
}

/// Two automata that are made while they are used: one finds where a match ends, the other one where
/// it begins. Literals that every match begins with let the first one jump.
fn automata(pattern: &Pattern, hir: &Hir) -> Option<regex::Regex> {
    let reverse = thompson::Compiler::new()
        .configure(nfa_config().reverse(true))
        .build_from_hir(hir)
        .ok()?;
    let literals = Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, hir).filter(|literals| {
        hir.properties().is_literal() || literals.max_needle_len() >= LITERAL_BYTES_MIN
    });
    let forward = dfa::Config::new()
        .match_kind(MatchKind::LeftmostFirst)
        .prefilter(literals);
    let backward = dfa::Config::new().match_kind(MatchKind::All);
    let build = |config: dfa::Config, nfa: NFA| {
        let config = config
            .cache_capacity(CACHE_BYTES)
            .minimum_cache_clear_count(Some(CACHE_CLEARS_MIN))
            .minimum_bytes_per_state(Some(bytes_per_state(&nfa)));
        dfa::Builder::new()
            .configure(config)
            .build_from_nfa(nfa)
            .ok()
    };
    let forward = build(forward, pattern.nfa().clone())?;
    let backward = build(backward, reverse)?;
    Some(regex::Regex::builder().build_from_dfas(forward, backward))
}

fn bytes_per_state(nfa: &NFA) -> usize {
    BYTES_PER_STATE_MIN.max(nfa.states().len() / NFA_STATES_PER_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_line_end_is_refused() {
        for wrong in [
            r"a\nb",
            "a\nb",
            r"[\n]",
            r"\n+",
            r"x|y\n",
            r"(?u:[\n])",
            r"\r\n",
        ] {
            let refused = LinePattern::regex(wrong, false);
            assert_eq!(refused.err(), Some(PatternError::LineEnd), "{wrong:?}");
        }
        let text = |text| LinePattern::text(text, true).err();
        assert_eq!(text("a\nb"), Some(PatternError::LineEnd));
        assert_eq!(text(""), Some(PatternError::Empty));
        assert_eq!(text(r"a\nb(["), None);
        let long = "a".repeat(Pattern::TEXT_BYTES_MAX + 1);
        assert_eq!(text(&long), Some(PatternError::TooLong));
        let wrong = LinePattern::regex("(a", false).expect_err("no regex");
        assert!(wrong.to_string().contains("unclosed group"), "{wrong}");
    }

    #[test]
    fn what_may_be_a_line_end_among_others_is_accepted() {
        for good in [
            r"[^a]b", r"\s+", "(?s).*", r"\A\z", r"\W", "", "$", r"[^\n]", "é",
        ] {
            assert_eq!(LinePattern::regex(good, true).err(), None, "{good}");
        }
    }
}
