//! Patterns searched in pieces: what is found, where it ends, and that cuts do not change that.

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

/// Feeds pieces of one stream and ends the text.
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
fn a_match_at_the_moving_end_is_found_unless_what_follows_decides() {
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
    // The byte that decides comes after bytes of another stream; the end does not move.
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
