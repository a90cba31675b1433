//! Claims about an output: that it contains a text, matches a pattern, has a digest.
//!
//! The bytes are handed in piece by piece; where they come from is not known here.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::{
    job::{Finding, Offset},
    output::{
        Item, Pattern, Search,
        search::{Progress, TURN_VISITS},
    },
};

/// Longest text that can be claimed, bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Something that somebody says about an output.
#[derive(Debug, Clone, PartialEq)]
pub enum Assertion {
    /// These bytes are in it.
    Contains(Vec<u8>),
    /// Something in it matches.
    Matches(Pattern),
    /// All of it has this SHA-256, in lower-case hex.
    Sha256(String),
}

/// Claims on their way through an output. A text and a match may span chunks and streams, but no
/// gap.
#[derive(Debug)]
pub struct Assertions {
    open: Vec<OpenAssertion>,
    /// How many of the open ones are patterns; these come first.
    patterns: usize,
    findings: Vec<Finding>,
    /// Bytes that follow each other, collected from chunks for those who look for texts.
    run: Vec<u8>,
}

/// One claim that is not decided yet.
#[derive(Debug)]
struct OpenAssertion {
    /// Its place among all claims.
    index: usize,
    look: TextSearch,
}

#[derive(Debug)]
enum TextSearch {
    Text(Box<TextLook>),
    Pattern(Box<Search>),
    Digest(String),
}

/// Looks for a text.
#[derive(Debug)]
struct TextLook {
    finder: Finder<'static>,
    /// The last bytes before those that come next, one fewer than the text has.
    carried: Vec<u8>,
}

impl Assertions {
    /// Claims that are all open.
    pub fn new(claims: Vec<Assertion>) -> Self {
        let findings = vec![Finding::default(); claims.len()];
        let look = |claim| match claim {
            Assertion::Contains(text) => TextSearch::Text(Box::new(TextLook {
                finder: Finder::new(&text).into_owned(),
                carried: Vec::new(),
            })),
            Assertion::Matches(pattern) => {
                TextSearch::Pattern(Box::new(Search::new(pattern, None, 0)))
            }
            Assertion::Sha256(hex) => TextSearch::Digest(hex),
        };
        let open = claims.into_iter().enumerate();
        let open = open.map(|(index, claim)| OpenAssertion {
            index,
            look: look(claim),
        });
        let (patterns, others): (Vec<_>, Vec<_>) =
            open.partition(|open| matches!(open.look, TextSearch::Pattern(_)));
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

    /// Lets one of the patterns, by its place from the last to the first, go on with what was read
    /// for one turn. To be called with the same items until `at` is through: a hard one takes many.
    pub fn feed_pattern(&mut self, nth: usize, items: &[Item], at: &mut Progress) {
        if let Some(TextSearch::Pattern(search)) = self.open.get_mut(nth).map(|open| &mut open.look)
            && let Some(place) = search.find_some(items, at, TURN_VISITS)
        {
            self.patterns -= 1;
            let open = self.open.remove(nth);
            self.findings[open.index] = found_at(place);
        }
    }

    /// How many texts have not been found yet.
    pub fn texts(&self) -> usize {
        self.open.len() - self.patterns
    }

    /// Lets all others go on with what was read, in offset order.
    pub fn feed_texts(&mut self, items: &[Item]) {
        let mut end = 0;
        for item in items {
            match item {
                Item::Chunk(chunk) => {
                    self.run.extend_from_slice(&chunk.data);
                    end = chunk.next_offset();
                }
                Item::Gap(_) => {
                    self.look_for_texts(end);
                    self.forget();
                }
            }
        }
        self.look_for_texts(end);
    }

    /// Nothing follows any more, and this is the digest of it all. What became of the claims.
    pub fn finish(mut self, digest: Option<&str>) -> Vec<Finding> {
        self.decide(|look| match look {
            TextSearch::Pattern(search) => search.find_last(),
            TextSearch::Text(_) | TextSearch::Digest(_) => None,
        });
        for open in &self.open {
            if let TextSearch::Digest(claimed) = &open.look {
                self.findings[open.index].found = Some(claimed.as_str()) == digest;
            }
        }
        self.findings
    }

    /// Looks through the run, which ends at `end`.
    fn look_for_texts(&mut self, end: Offset) {
        let run = std::mem::take(&mut self.run);
        if !run.is_empty() {
            self.decide(|look| match look {
                TextSearch::Text(text) => text.look(&run, end),
                TextSearch::Pattern(_) | TextSearch::Digest(_) => None,
            });
        }
        self.run = run;
        self.run.clear();
    }

    /// A gap: nothing goes on behind it.
    fn forget(&mut self) {
        for open in &mut self.open {
            if let TextSearch::Text(text) = &mut open.look {
                text.carried.clear();
            }
        }
    }

    fn decide(&mut self, mut found: impl FnMut(&mut TextSearch) -> Option<Range<Offset>>) {
        let findings = &mut self.findings;
        self.open.retain_mut(|open| match found(&mut open.look) {
            None => true,
            Some(place) => {
                findings[open.index] = found_at(place);
                false
            }
        });
    }
}

fn found_at(place: Range<Offset>) -> Finding {
    Finding {
        found: true,
        offset: Some(place.start),
        end: Some(place.end),
    }
}

impl TextLook {
    /// Looks in the bytes that were carried and in these, which end at `end`.
    fn look(&mut self, bytes: &[u8], end: Offset) -> Option<Range<Offset>> {
        let length = self.finder.needle().len();
        let place = |back: usize| {
            let start = end - back as u64;
            start..start + length as u64
        };
        // What begins before these bytes ends within the first of them.
        let carried = self.carried.len();
        let seam = bytes.len().min(length - 1);
        self.carried.extend_from_slice(&bytes[..seam]);
        if let Some(at) = self.finder.find(&self.carried) {
            return Some(place(bytes.len() + carried - at));
        }
        if let Some(at) = self.finder.find(bytes) {
            return Some(place(bytes.len() - at));
        }
        if bytes.len() > seam {
            self.carried.clear();
            self.carried.extend_from_slice(&bytes[bytes.len() - seam..]);
        }
        let surplus = self.carried.len().saturating_sub(length - 1);
        self.carried.drain(..surplus);
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

    fn look(claim: Assertion, feeds: &[Vec<Item>], digest: Option<&str>) -> Finding {
        let mut claims = Assertions::new(vec![claim]);
        for items in feeds {
            for nth in (0..claims.patterns()).rev() {
                let mut at = Progress::default();
                while !at.is_through() {
                    claims.feed_pattern(nth, items, &mut at);
                }
            }
            claims.feed_texts(items);
        }
        claims.finish(digest)[0]
    }

    fn place(finding: Finding) -> Option<(u64, u64)> {
        assert_eq!(finding.found, finding.offset.is_some());
        finding.offset.zip(finding.end)
    }

    #[test]
    fn a_match_is_told_with_its_beginning_and_its_end() {
        let all = [items(&[b"one ", b"two", b" three"])];
        for (pattern, expected) in [
            ("two", Some((4, 7))),
            ("e t.*w", Some((2, 6))),
            ("three$", Some((8, 13))),
            ("four", None),
        ] {
            let claim = Assertion::Matches(Pattern::new(pattern).expect("valid"));
            assert_eq!(place(look(claim, &all, None)), expected, "{pattern}");
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
        assert_eq!(place(look(contains("one"), &feeds, None)), Some((7, 10)));
        assert_eq!(place(look(contains("ne o"), &feeds, None)), None);
        let pattern = Pattern::new("on+e").expect("valid");
        let found = look(Assertion::Matches(pattern), &feeds, None);
        assert_eq!(place(found), Some((7, 10)));
    }

    #[test]
    fn a_digest_is_compared() {
        let claim = || Assertion::Sha256("ab".to_owned());
        let found = |digest| look(claim(), &[], digest).found;
        assert_eq!(
            [found(Some("ab")), found(Some("ac")), found(None)],
            [true, false, false]
        );
    }

    proptest! {
        /// However the bytes are cut, the first place is the one that a whole look finds.
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
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                rest = behind;
                pieces.extend((!piece.is_empty()).then_some(piece));
            }
            let feeds: Vec<Vec<Item>> = items(&pieces)
                .chunks(together)
                .map(<[Item]>::to_vec)
                .collect();
            let found = look(Assertion::Contains(text), &feeds, None);
            prop_assert_eq!(place(found), expected);
        }
    }
}
