//! Searches output for a pattern, piece by piece: where the first match ends, however the bytes
//! were cut.
//!
//! It keeps the automaton's threads and no bytes. What is read, and when, is its caller's business.

use regex_automata::{
    nfa::thompson::State,
    util::{look::Look, primitives::StateID},
};

use super::{
    Item,
    pattern::{Pattern, alternates, step},
};
use crate::job::{Offset, Stream};

/// Longest match that is found, bytes.
pub const MATCH_BYTES_MAX: u64 = 64 << 10;

/// A search as far as it has come. The answer is the earliest place where a match ends, so it does
/// not depend on how the bytes came; what decides it is looked at in order and never again.
///
/// The bytes of the streams that are searched, from the search's beginning to the output's end,
/// are one text; a gap ends it and begins another one. `$` and its like wait for the byte behind
/// them, or for the text's end.
#[derive(Debug)]
pub struct Search {
    pattern: Pattern,
    stream: Option<Stream>,
    /// Newest first, so that of two in one state the shorter match goes on.
    threads: Vec<Thread>,
    /// How many bytes of the text were read.
    read: u64,
    /// The last of them.
    before: Option<u8>,
    /// Where it ends in the job's output.
    end: Offset,
}

/// A match that has begun.
#[derive(Debug, Clone, Copy)]
struct Thread {
    state: StateID,
    /// How many bytes of the text stand before it.
    start: u64,
}

/// What stands behind a place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Byte(u8),
    /// Nothing, ever.
    End,
    /// Nobody knows yet.
    Unknown,
}

/// What one piece of work needs and the next need not know.
struct Desk {
    /// By state: the last place to which a thread has come in it.
    seen: Vec<u32>,
    /// Counts the places, from 1.
    place: u32,
    open: Vec<StateID>,
    /// The threads that read the next byte.
    settled: Vec<Thread>,
}

impl Search {
    /// A search that begins at `from`.
    pub fn new(pattern: Pattern, stream: Option<Stream>, from: Offset) -> Self {
        Self {
            pattern,
            stream,
            threads: Vec::new(),
            read: 0,
            before: None,
            end: from,
        }
    }

    /// Goes on with what was read, in offset order; where the first match ends.
    pub fn feed(&mut self, items: &[Item]) -> Option<Offset> {
        let mut desk = Desk::new(&self.pattern);
        for item in items {
            let found = match item {
                Item::Chunk(chunk) if self.stream.is_none_or(|only| only == chunk.stream) => {
                    self.bytes(&mut desk, chunk.offset, &chunk.data)
                }
                Item::Chunk(_) => None,
                Item::Gap(gap) => self.cut(&mut desk, gap.to),
            };
            if found.is_some() {
                return found;
            }
        }
        let found = self.settle(&mut desk, Next::Unknown);
        // It may be long until there is more.
        self.threads.shrink_to_fit();
        found
    }

    /// Nothing follows any more; where the first match ends.
    pub fn finish(&mut self) -> Option<Offset> {
        self.settle(&mut Desk::new(&self.pattern), Next::End)
    }

    fn bytes(&mut self, desk: &mut Desk, offset: Offset, data: &[u8]) -> Option<Offset> {
        let mut at = 0;
        while at < data.len() {
            if self.threads.is_empty() {
                let barren = self.pattern.barren(&data[at..]);
                if barren > 0 {
                    at += barren;
                    self.pass(barren as u64, data[at - 1], offset + at as u64);
                    continue;
                }
            }
            let byte = data[at];
            if let Some(found) = self.settle(desk, Next::Byte(byte)) {
                return Some(found);
            }
            at += 1;
            self.pass(1, byte, offset + at as u64);
            self.advance(desk, byte);
        }
        None
    }

    /// The text ends here, and another one begins at `to`.
    fn cut(&mut self, desk: &mut Desk, to: Offset) -> Option<Offset> {
        let found = self.settle(desk, Next::End);
        *self = Self::new(self.pattern.clone(), self.stream, to);
        found
    }

    fn pass(&mut self, bytes: u64, last: u8, end: Offset) {
        self.read += bytes;
        self.before = Some(last);
        self.end = end;
    }

    /// Lets all threads, and one that begins here, come to where they read a byte; where a match
    /// ends, if one does so here.
    fn settle(&self, desk: &mut Desk, next: Next) -> Option<Offset> {
        desk.go_on();
        let begins = Thread {
            state: self.pattern.nfa().start_anchored(),
            start: self.read,
        };
        let all = std::iter::once(&begins).chain(&self.threads);
        for thread in all.take_while(|thread| self.read - thread.start <= MATCH_BYTES_MAX) {
            if self.follow(desk, *thread, next) {
                return Some(self.end);
            }
        }
        None
    }

    /// Follows one thread; whether it is a match.
    fn follow(&self, desk: &mut Desk, thread: Thread, next: Next) -> bool {
        desk.open.push(thread.state);
        while let Some(id) = desk.open.pop() {
            if !desk.visit(id) {
                continue;
            }
            match self.pattern.nfa().state(id) {
                State::Match { .. } => return true,
                State::Look { look, next: then } if holds(*look, self.before, next) => {
                    desk.open.push(*then);
                }
                State::Look { .. } => {}
                state if state.is_epsilon() => desk.open.extend(alternates(state)),
                _ => desk.settled.push(Thread {
                    state: id,
                    ..thread
                }),
            }
        }
        false
    }

    /// Lets the settled threads read a byte.
    fn advance(&mut self, desk: &Desk, byte: u8) {
        self.threads.clear();
        let nfa = self.pattern.nfa();
        let moved = desk.settled.iter().filter_map(|thread| {
            let state = step(nfa.state(thread.state), byte)?;
            Some(Thread { state, ..*thread })
        });
        self.threads.extend(moved);
    }
}

impl Desk {
    fn new(pattern: &Pattern) -> Self {
        Self {
            seen: vec![0; pattern.nfa().states().len()],
            place: 0,
            open: Vec::new(),
            settled: Vec::new(),
        }
    }

    fn go_on(&mut self) {
        self.place += 1;
        self.open.clear();
        self.settled.clear();
    }

    /// Whether nobody was there before.
    fn visit(&mut self, id: StateID) -> bool {
        std::mem::replace(&mut self.seen[id.as_usize()], self.place) != self.place
    }
}

/// Whether a look at the neighbours holds. What nobody knows yet does not hold yet.
fn holds(look: Look, before: Option<u8>, next: Next) -> bool {
    let is = |byte: u8| next == Next::Byte(byte);
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let word_before = before.is_some_and(word);
    let word_next = matches!(next, Next::Byte(byte) if word(byte));
    let known = next != Next::Unknown;
    match look {
        Look::Start => before.is_none(),
        Look::End => next == Next::End,
        Look::StartLF => before.is_none_or(|byte| byte == b'\n'),
        Look::EndLF => next == Next::End || is(b'\n'),
        Look::StartCRLF => {
            before.is_none_or(|byte| byte == b'\n')
                || (before == Some(b'\r') && known && !is(b'\n'))
        }
        Look::EndCRLF => next == Next::End || is(b'\r') || (is(b'\n') && before != Some(b'\r')),
        Look::WordAscii => known && word_before != word_next,
        Look::WordAsciiNegate => known && word_before == word_next,
        Look::WordStartAscii => !word_before && word_next,
        Look::WordEndAscii => word_before && known && !word_next,
        Look::WordStartHalfAscii => !word_before,
        Look::WordEndHalfAscii => known && !word_next,
        // Refused when the pattern was compiled.
        Look::WordUnicode
        | Look::WordUnicodeNegate
        | Look::WordStartUnicode
        | Look::WordEndUnicode
        | Look::WordStartHalfUnicode
        | Look::WordEndHalfUnicode => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{Chunk, Gap, GapReason, Micros};

    fn chunk(offset: Offset, stream: Stream, data: &[u8]) -> Item {
        Item::Chunk(Chunk {
            offset,
            stream,
            attempt: 1,
            at: Micros(0),
            data: data.to_vec(),
        })
    }

    /// Feeds pieces of one stream, and says that nothing follows.
    fn found(pattern: &str, pieces: &[&[u8]]) -> Option<Offset> {
        let pattern = Pattern::new(pattern).expect("valid");
        let mut search = Search::new(pattern, None, 0);
        let mut offset = 0;
        for piece in pieces {
            let item = chunk(offset, Stream::Stdout, piece);
            if let Some(found) = search.feed(&[item]) {
                return Some(found);
            }
            offset += piece.len() as u64;
        }
        search.finish()
    }

    /// Feeds bytes of a job that has not ended.
    fn live(pattern: &str, data: &str) -> Option<Offset> {
        let pattern = Pattern::new(pattern).expect("valid");
        Search::new(pattern, None, 0).feed(&[chunk(0, Stream::Stdout, data.as_bytes())])
    }

    #[test]
    fn the_answer_is_where_a_match_ends_first() {
        for (pattern, data, end) in [
            ("ready", "it is ready now", Some(11)),
            ("a+", "xaaa", Some(2)),
            ("a.*b", "a1b2b", Some(3)),
            ("foobar|bar|b", "xxfoobar", Some(6)),
            ("^b", "ab\nb", Some(4)),
            ("b$", "ab\nb", Some(2)),
            (r"\Ab", "ab\nb", None),
            (r"b\z", "b\nab", Some(4)),
            (r"\bis\b", "this is it", Some(7)),
            (r"\xff\x00", "x", None),
            ("", "x", Some(0)),
            ("x", "", None),
        ] {
            assert_eq!(
                found(pattern, &[data.as_bytes()]),
                end,
                "{pattern} in {data:?}"
            );
        }
        assert_eq!(found(r"\xff\x00", &[b"a\xff\x00"]), Some(3));
    }

    #[test]
    fn a_match_at_the_moving_end_is_told_unless_what_follows_decides() {
        assert_eq!(live("> ", "name> "), Some(6));
        assert_eq!(live("(?i)PASSWORD: ?", "password:"), Some(9));
        assert_eq!(live("> $", "name> "), None);
        assert_eq!(live(r"name\b", "name"), None);
        assert_eq!(live(r"name\b", "name>"), Some(4));
        assert_eq!(found("> $", &[b"name> "]), Some(6));
        assert_eq!(live("(?R)^x", "\rx"), Some(2));
        assert_eq!(live("(?R)x$", "x\r"), Some(1));
    }

    #[test]
    fn longer_matches_are_not_found_and_hide_no_shorter_one() {
        let max = MATCH_BYTES_MAX as usize;
        let text = |between: usize| format!("a{}b", "x".repeat(between));
        assert_eq!(
            found("ax*b", &[text(max - 2).as_bytes()]),
            Some(MATCH_BYTES_MAX)
        );
        assert_eq!(found("ax*b", &[text(max - 1).as_bytes()]), None);
        let both = format!("{}{}", text(max), text(5));
        assert_eq!(
            found("(?s)a.*b", &[both.as_bytes()]),
            Some(both.len() as u64)
        );
    }

    #[test]
    fn a_stream_is_searched_as_if_it_were_alone() {
        let items = [
            chunk(0, Stream::Stdout, b"rea"),
            chunk(3, Stream::Stderr, b"x"),
            chunk(4, Stream::Stdout, b"dy\n"),
        ];
        let search = |pattern, stream| {
            let pattern = Pattern::new(pattern).expect("valid");
            Search::new(pattern, stream, 0).feed(&items)
        };
        assert_eq!(search("ready", None), None);
        assert_eq!(search("reaxdy", None), Some(6));
        assert_eq!(search("ready", Some(Stream::Stdout)), Some(6));
        assert_eq!(search("^rea", Some(Stream::Stderr)), None);
        // What decides stands behind bytes of another stream; the end does not move.
        assert_eq!(search(r"rea\B", Some(Stream::Stdout)), Some(3));
    }

    #[test]
    fn a_gap_ends_one_text_and_begins_another() {
        let reason = GapReason::PowerLoss;
        let items = [
            chunk(0, Stream::Stdout, b"rea"),
            Item::Gap(Gap {
                from: 3,
                to: 10,
                reason,
            }),
            chunk(10, Stream::Stdout, b"dy"),
        ];
        let search = |pattern| {
            let pattern = Pattern::new(pattern).expect("valid");
            Search::new(pattern, None, 0).feed(&items)
        };
        assert_eq!(search("ready"), None);
        assert_eq!((search("a$"), search("^dy")), (Some(3), Some(12)));
    }

    const PATTERNS: [&str; 12] = [
        "ab",
        "a+b",
        "a|bc",
        "^b",
        "b$",
        r"\bab\b",
        r"\Ba",
        "(?s)a.{2}b",
        r"a\z",
        "(a|b)*c",
        "(?R)^a$",
        r"\n\n",
    ];

    proptest! {
        #[test]
        fn however_it_is_cut_the_answer_is_the_same(
            which in 0..PATTERNS.len(),
            data in proptest::collection::vec(proptest::sample::select(b"abc \n\r".to_vec()), 0..40),
            cuts in proptest::collection::vec(0usize..40, 0..8),
        ) {
            let pattern = PATTERNS[which];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
            cuts.extend([0, data.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &data[w[0]..w[1]]).collect();
            prop_assert_eq!(found(pattern, &pieces), found(pattern, &[&data]));
        }
    }
}
