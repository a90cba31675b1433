//! Assertions about an output: it contains a text, matches a pattern, or has a digest.
//!
//! `executor/verify` feeds the bytes in piece by piece.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::{
    job::{Expectation, Finding, Offset},
    output::{
        Item, Pattern, PatternError, Search,
        search::{Progress, TURN_VISITS},
    },
};

/// Longest text that can be searched for, bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Something that a client asserts about an output. The protocol calls it a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Assertion {
    /// It contains these bytes.
    Contains(Vec<u8>),
    /// A part of it matches the pattern.
    Matches(Pattern),
    /// All of it has this SHA-256, in lower-case hex.
    Sha256(String),
}

impl Assertion {
    /// What a job expects, as an assertion.
    ///
    /// # Errors
    ///
    /// A pattern is none that can be searched for.
    pub fn of(expectation: &Expectation) -> Result<Self, PatternError> {
        Ok(match expectation {
            Expectation::Contains(text) => Self::Contains(text.as_bytes().to_vec()),
            Expectation::Regex(pattern) => Self::Matches(Pattern::new(pattern)?),
            Expectation::Sha256(hex) => Self::Sha256(hex.clone()),
        })
    }
}

/// Assertions that are checked while an output is read. A text and a match may span chunks and
/// streams, but no gap.
#[derive(Debug)]
pub struct Assertions {
    open: Vec<OpenAssertion>,
    /// How many of the open ones are patterns; these come first.
    patterns: usize,
    findings: Vec<Finding>,
    /// Bytes without a gap between them, collected from chunks for the searches for texts.
    run: Vec<u8>,
}

/// One assertion that is not decided yet.
#[derive(Debug)]
struct OpenAssertion {
    /// Its index among all assertions.
    index: usize,
    check: TextSearch,
}

#[derive(Debug)]
enum TextSearch {
    Text(Box<TextFinder>),
    Pattern(Box<Search>),
    Digest(String),
}

/// Searches for a text in bytes that come in pieces.
#[derive(Debug)]
struct TextFinder {
    finder: Finder<'static>,
    /// The last bytes before the next piece, up to the text's length minus one: a text that spans two
    /// pieces begins in them.
    kept: Vec<u8>,
}

impl Assertions {
    /// Assertions of which none is decided yet.
    pub fn new(assertions: Vec<Assertion>) -> Self {
        let findings = vec![Finding::default(); assertions.len()];
        let check = |assertion| match assertion {
            Assertion::Contains(text) => TextSearch::Text(Box::new(TextFinder {
                finder: Finder::new(&text).into_owned(),
                kept: Vec::new(),
            })),
            Assertion::Matches(pattern) => {
                TextSearch::Pattern(Box::new(Search::new(pattern, None, 0)))
            }
            Assertion::Sha256(hex) => TextSearch::Digest(hex),
        };
        let open = assertions.into_iter().enumerate();
        let open = open.map(|(index, assertion)| OpenAssertion {
            index,
            check: check(assertion),
        });
        let (patterns, others): (Vec<_>, Vec<_>) =
            open.partition(|open| matches!(open.check, TextSearch::Pattern(_)));
        Self {
            patterns: patterns.len(),
            open: patterns.into_iter().chain(others).collect(),
            findings,
            run: Vec::new(),
        }
    }

    /// How many patterns have not been found yet.
    pub fn patterns(&self) -> usize {
        self.patterns
    }

    /// Searches `items` for the pattern with index `nth`, for one turn of [`TURN_VISITS`]. Call it
    /// with the same items until `at` is through, since a hard pattern takes many turns. Feed the
    /// patterns from the last to the first: one that is found is removed, and later ones move up.
    pub fn feed_pattern(&mut self, nth: usize, items: &[Item], at: &mut Progress) {
        if let Some(TextSearch::Pattern(search)) =
            self.open.get_mut(nth).map(|open| &mut open.check)
            && let Some(range) = search.find_some(items, at, TURN_VISITS)
        {
            self.patterns -= 1;
            let open = self.open.remove(nth);
            self.findings[open.index] = found_at(range);
        }
    }

    /// Gives up all patterns that have not been found yet, and returns their indices: they count as not found.
    pub fn give_up_patterns(&mut self) -> Vec<usize> {
        let patterns = self.open.drain(..self.patterns);
        let indices = patterns.map(|open| open.index).collect();
        self.patterns = 0;
        indices
    }

    /// How many texts and digests have not been decided yet.
    pub fn texts(&self) -> usize {
        self.open.len() - self.patterns
    }

    /// Searches `items` for all texts. Feed them in offset order.
    pub fn feed_texts(&mut self, items: &[Item]) {
        let mut end = 0;
        for item in items {
            match item {
                Item::Chunk(chunk) => {
                    self.run.extend_from_slice(&chunk.data);
                    end = chunk.next_offset();
                }
                Item::Gap(_) => {
                    self.search_run(end);
                    self.forget_kept();
                }
            }
        }
        self.search_run(end);
    }

    /// Ends all searches: the output is complete, and `digest` is its SHA-256. Returns the findings
    /// in the order of the assertions.
    pub fn finish(mut self, digest: Option<&str>) -> Vec<Finding> {
        self.decide(|check| match check {
            TextSearch::Pattern(search) => search.find_last(),
            TextSearch::Text(_) | TextSearch::Digest(_) => None,
        });
        for open in &self.open {
            if let TextSearch::Digest(expected) = &open.check {
                self.findings[open.index].found = Some(expected.as_str()) == digest;
            }
        }
        self.findings
    }

    /// Searches the run, which ends at `end`, for all texts, and empties it.
    fn search_run(&mut self, end: Offset) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            self.decide(|check| match check {
                TextSearch::Text(text) => text.find(&run, end),
                TextSearch::Pattern(_) | TextSearch::Digest(_) => None,
            });
        }
        self.run = run;
        self.run.clear();
    }

    /// A gap: no text spans it.
    fn forget_kept(&mut self) {
        for open in &mut self.open {
            if let TextSearch::Text(text) = &mut open.check {
                text.kept.clear();
            }
        }
    }

    fn decide(&mut self, mut found: impl FnMut(&mut TextSearch) -> Option<Range<Offset>>) {
        let findings = &mut self.findings;
        self.open.retain_mut(|open| match found(&mut open.check) {
            None => true,
            Some(range) => {
                findings[open.index] = found_at(range);
                false
            }
        });
    }
}

fn found_at(range: Range<Offset>) -> Finding {
    Finding {
        found: true,
        offset: Some(range.start),
        end: Some(range.end),
    }
}

impl TextFinder {
    /// Searches the bytes that were kept and these, which end at `end`.
    fn find(&mut self, bytes: &[u8], end: Offset) -> Option<Range<Offset>> {
        let length = self.finder.needle().len();
        let range_from = |before_end: usize| {
            let start = end - before_end as u64;
            start..start + length as u64
        };
        // A text that begins in the kept bytes ends within the first `length - 1` of these.
        let kept = self.kept.len();
        let seam = bytes.len().min(length - 1);
        self.kept.extend_from_slice(&bytes[..seam]);
        if let Some(at) = self.finder.find(&self.kept) {
            return Some(range_from(bytes.len() + kept - at));
        }
        if let Some(at) = self.finder.find(bytes) {
            return Some(range_from(bytes.len() - at));
        }
        if bytes.len() > seam {
            self.kept.clear();
            self.kept.extend_from_slice(&bytes[bytes.len() - seam..]);
        }
        let surplus = self.kept.len().saturating_sub(length - 1);
        self.kept.drain(..surplus);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{Chunk, Gap, GapReason, Micros, Stream};

    fn items(pieces: &[&[u8]]) -> Vec<Item> {
        let mut offset = 0;
        let chunk = |data: &&[u8]| {
            let chunk = Chunk {
                offset,
                stream: Stream::Stdout,
                attempt: 1,
                at: Micros(0),
                data: data.to_vec(),
            };
            offset = chunk.next_offset();
            Item::Chunk(chunk)
        };
        pieces.iter().map(chunk).collect()
    }

    fn check(assertion: Assertion, feeds: &[Vec<Item>], digest: Option<&str>) -> Finding {
        let mut assertions = Assertions::new(vec![assertion]);
        for items in feeds {
            for nth in (0..assertions.patterns()).rev() {
                let mut at = Progress::default();
                while !at.is_through() {
                    assertions.feed_pattern(nth, items, &mut at);
                }
            }
            assertions.feed_texts(items);
        }
        assertions.finish(digest)[0]
    }

    fn place(finding: Finding) -> Option<(u64, u64)> {
        assert_eq!(finding.found, finding.offset.is_some());
        finding.offset.zip(finding.end)
    }

    #[test]
    fn a_match_is_found_with_its_beginning_and_its_end() {
        let all = [items(&[b"one ", b"two", b" three"])];
        for (pattern, expected) in [
            ("two", Some((4, 7))),
            ("e t.*w", Some((2, 6))),
            ("three$", Some((8, 13))),
            ("four", None),
        ] {
            let matches = Assertion::Matches(Pattern::new(pattern).expect("valid"));
            assert_eq!(place(check(matches, &all, None)), expected, "{pattern}");
        }
    }

    #[test]
    fn nothing_is_found_across_a_gap() {
        let gap = |from, to| {
            let reason = GapReason::DropOldest;
            Item::Gap(Gap { from, to, reason })
        };
        let mut all = items(&[b"on"]);
        all.push(gap(2, 5));
        all.extend(items(&[b"xxxxx", b"e one"]).into_iter().skip(1));
        let contains = |text: &str| Assertion::Contains(text.as_bytes().to_vec());
        let feeds = [all];
        assert_eq!(place(check(contains("one"), &feeds, None)), Some((7, 10)));
        assert_eq!(place(check(contains("ne o"), &feeds, None)), None);
        let pattern = Pattern::new("on+e").expect("valid");
        let found = check(Assertion::Matches(pattern), &feeds, None);
        assert_eq!(place(found), Some((7, 10)));
    }

    #[test]
    fn a_digest_is_compared() {
        let sha256 = || Assertion::Sha256("ab".to_owned());
        let found = |digest| check(sha256(), &[], digest).found;
        assert_eq!(
            [found(Some("ab")), found(Some("ac")), found(None)],
            [true, false, false]
        );
    }

    proptest! {
        /// However the bytes are cut, the search finds what a search of all bytes at once finds.
        #[test]
        fn no_cut_hides_a_text(
            data in proptest::collection::vec(0..3_u8, 0..60),
            text in proptest::collection::vec(0..3_u8, 1..6),
            cuts in proptest::collection::vec(1..7_usize, 60),
            together in 1..4_usize,
        ) {
            let expected = data
                .windows(text.len())
                .position(|window| window == text)
                .map(|at| (at as u64, (at + text.len()) as u64));
            let (mut pieces, mut rest) = (Vec::new(), &data[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                pieces.extend((!piece.is_empty()).then_some(piece));
            }
            let feeds: Vec<Vec<Item>> = items(&pieces)
                .chunks(together)
                .map(<[Item]>::to_vec)
                .collect();
            let found = check(Assertion::Contains(text), &feeds, None);
            prop_assert_eq!(place(found), expected);
        }
    }
}
