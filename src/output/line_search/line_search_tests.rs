//! Lines found however the output is cut, interrupted and paused: the same as by looking at each line
//! alone.

use proptest::prelude::*;

use super::{
    found::FoundLines,
    matcher::{LineMatcher, tests::hard_letters},
    unfinished::WINDOW_BYTES,
    *,
};
use crate::job::{Gap, GapReason, Micros};

fn chunk(offset: Offset, stream: Stream, data: &[u8]) -> Item {
    Item::Chunk(Chunk {
        offset,
        stream,
        attempt: 1,
        at: Micros(0),
        data: data.to_vec(),
    })
}

fn gap(from: Offset, to: Offset) -> Item {
    let reason = GapReason::DropOldest;
    Item::Gap(Gap { from, to, reason })
}

fn end_of(items: &[Item]) -> Offset {
    items.last().map_or(0, Item::next_offset)
}

/// How a search is cut into calls.
#[derive(Debug, Clone, Copy)]
struct Calls {
    /// Items that are fed at once.
    together: usize,
    /// States that are visited in a turn.
    visits: u64,
    /// Lines that are found before the search is begun anew.
    lines_max: usize,
    threads_only: bool,
}

const AT_ONCE: Calls = Calls {
    together: usize::MAX,
    visits: u64::MAX,
    lines_max: usize::MAX,
    threads_only: false,
};

/// Searches all items, and begins anew where a search left off.
fn found(pattern: &LinePattern, items: &[Item], calls: Calls) -> Vec<FoundLine> {
    let mut position = LinePosition::begin(0);
    let mut all = Vec::new();
    loop {
        let mut search = LineSearch::new(pattern.clone(), None);
        search.begin(&position);
        let mut lines = FoundLines::new(calls.lines_max, usize::MAX);
        let rest: Vec<Item> = items
            .iter()
            .filter_map(|item| item.clone().from(position.from))
            .collect();
        let over = search_all(&mut search, &rest, &mut lines, calls);
        all.append(&mut lines.lines);
        if over {
            return all;
        }
        let told = search.position().to_string();
        position = told.parse().expect("a position");
        assert_eq!(position, search.position());
    }
}

/// Whether the search came to the end.
fn search_all(
    search: &mut LineSearch,
    items: &[Item],
    lines: &mut FoundLines,
    calls: Calls,
) -> bool {
    for piece in items.chunks(calls.together.min(items.len().max(1))) {
        search.begin_piece();
        search.matcher.set_gave_up(calls.threads_only);
        let mut at = ItemProgress::default();
        loop {
            let mut visits = calls.visits;
            match search.feed(piece, &mut at, lines, &mut visits) {
                Searched::Through => break,
                Searched::Paused => {}
                Searched::Full => return false,
            }
        }
    }
    loop {
        let mut visits = calls.visits;
        match search.finish(lines, &mut visits) {
            Searched::Through => return true,
            Searched::Paused => {}
            Searched::Full => return false,
        }
    }
}

/// A line by itself: its stream, its bytes with their offsets, the line ends before it.
struct OneLine {
    stream: Stream,
    bytes: Vec<(u8, Offset)>,
    number: Option<u64>,
}

/// All lines, in the order in which their ends are read.
fn lines_of(items: &[Item]) -> Vec<OneLine> {
    let mut open: [Option<OneLine>; 3] = [None, None, None];
    let (mut all, mut line_ends) = (Vec::new(), Some(0));
    for item in items {
        let Item::Chunk(chunk) = item else {
            all.extend(open.iter_mut().filter_map(Option::take));
            line_ends = None;
            continue;
        };
        let line = &mut open[usize::from(chunk.stream.code())];
        for (offset, byte) in (chunk.offset..).zip(&chunk.data) {
            let one = line.get_or_insert_with(|| OneLine {
                stream: chunk.stream,
                bytes: Vec::new(),
                number: line_ends.map(|before: u64| before + 1),
            });
            if *byte == b'\n' {
                // An empty line has its offset from its end.
                if one.bytes.is_empty() {
                    one.bytes.push((b'\n', offset));
                }
                all.extend(line.take());
                line_ends = line_ends.map(|before| before + 1);
            } else {
                one.bytes.push((*byte, offset));
            }
        }
    }
    all.extend(open.iter_mut().filter_map(Option::take));
    all
}

/// What is to be found: stream, offset, number, the match's beginning and end, text.
type Expected = (Stream, Offset, Option<u64>, Range<Offset>, Vec<u8>);

fn expected(pattern: &LinePattern, items: &[Item]) -> Vec<Expected> {
    let mut all = Vec::new();
    for line in lines_of(items) {
        let text: Vec<u8> = line.bytes.iter().map(|(byte, _)| *byte).collect();
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let mut visits = u64::MAX;
        let mut matcher = LineMatcher::new(pattern.clone());
        let Sought::Match(range) = matcher.find(text, 0..text.len(), &mut visits) else {
            continue;
        };
        let last = line.bytes.last().map_or(0, |(_, offset)| offset + 1);
        let offset_of = |at: usize| line.bytes.get(at).map_or(last, |(_, offset)| *offset);
        let end = match range.is_empty() {
            true => offset_of(range.start),
            false => offset_of(range.end - 1) + 1,
        };
        let found = offset_of(range.start)..end;
        all.push((line.stream, offset_of(0), line.number, found, text.to_vec()));
    }
    all
}

fn told(line: FoundLine) -> Expected {
    assert!(!line.goes_on);
    assert_eq!(line.text_offset, line.offset);
    (line.stream, line.offset, line.number, line.found, line.text)
}

const PATTERNS: [&str; 12] = [
    "ab", "a+b", "^b", "b$", r"\bab\b", "^$", "", "a.b", "(?R)a$", r"[^b]a", "a$|^b", "(?i)B",
];

fn items(parts: &[(u8, Vec<u8>)]) -> Vec<Item> {
    let mut offset = 0;
    let mut items: Vec<Item> = Vec::new();
    for (kind, data) in parts {
        let item = match kind {
            0 => chunk(offset, Stream::Stderr, data),
            1 => gap(offset, offset + data.len() as u64),
            _ => chunk(offset, Stream::Stdout, data),
        };
        offset = item.next_offset();
        items.push(item);
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_found_does_not_depend_on_the_calls(
        which in 0..PATTERNS.len(),
        parts in proptest::collection::vec(
            (0u8..6, proptest::collection::vec(proptest::sample::select(b"abc \n\n\r".to_vec()), 1..9)),
            0..12,
        ),
        together in 1usize..5,
        visits in 1u64..40,
        lines_max in 1usize..4,
        threads_only in any::<bool>(),
    ) {
        let pattern = LinePattern::regex(PATTERNS[which], false).expect("valid");
        let items = items(&parts);
        let calls = Calls { together, visits, lines_max, threads_only };
        let found: Vec<Expected> = found(&pattern, &items, calls).into_iter().map(told).collect();
        prop_assert_eq!(&found, &expected(&pattern, &items));
    }
}

#[test]
fn only_the_wanted_streams_are_searched_and_all_line_ends_count() {
    let items = [
        chunk(0, Stream::Stderr, b"x\nx\n"),
        chunk(4, Stream::Stdout, b"a x"),
        chunk(7, Stream::Stderr, b"x\n"),
        chunk(9, Stream::Stdout, b"y\nx\n"),
    ];
    let pattern = LinePattern::text("x", false).expect("valid");
    let mut search = LineSearch::new(pattern, Some(vec![Stream::Stdout]));
    let mut lines = FoundLines::new(9, usize::MAX);
    assert!(search_all(&mut search, &items, &mut lines, AT_ONCE));
    let told: Vec<_> = lines
        .lines
        .iter()
        .map(|line| (line.offset, line.number, line.found.clone(), &line.text[..]))
        .collect();
    assert_eq!(
        told,
        [
            (4, Some(3), 6..7, &b"a xy"[..]),
            (11, Some(5), 11..12, b"x")
        ]
    );
}

/// Lines of these lengths, each in pieces.
fn long_lines(lines: &[&[u8]]) -> Vec<Item> {
    let text = lines.join(&b'\n');
    let mut items = Vec::new();
    for (nth, piece) in text.chunks(50_000).enumerate() {
        items.push(chunk(nth as u64 * 50_000, Stream::Stdout, piece));
    }
    items
}

#[test]
fn long_lines_are_searched_window_by_window() {
    let fill = |length: usize| vec![b'.'; length];
    let far = 3 * WINDOW_BYTES;
    let long = LINE_MATCH_BYTES_MAX - 2;
    let line = [&fill(far)[..], b"a", &fill(long), b"b", &fill(far)].concat();
    let items = long_lines(&[&line, b"ab", &line]);
    let second = line.len() as u64 + 1;
    let third = second + 3;
    let far = far as u64;
    for (pattern, places) in [
        (r"a\.*b", vec![far, second, third + far]),
        ("^a", vec![second]),
        (r"^\.", vec![0, third]),
        (
            r"\.$",
            vec![line.len() as u64 - 1, third + line.len() as u64 - 1],
        ),
        ("b$", vec![second + 1]),
        (r"\Ba\b", vec![]),
        (r"\ba\b", vec![far, third + far]),
    ] {
        let pattern = LinePattern::regex(pattern, false).expect("valid");
        for calls in [
            AT_ONCE,
            Calls {
                lines_max: 1,
                ..AT_ONCE
            },
        ] {
            let found = found(&pattern, &items, calls);
            let begins: Vec<_> = found.iter().map(|line| line.found.start).collect();
            assert_eq!(begins, places, "{pattern:?}");
            let offsets: Vec<_> = found
                .iter()
                .map(|line| (line.offset, line.number))
                .collect();
            for (offset, number) in offsets {
                let number = number.expect("known");
                assert_eq!(offset, [0, second, third][number as usize - 1]);
            }
            let longest = found.iter().map(|line| line.text.len()).max();
            assert!(longest <= Some(FoundLine::TEXT_BYTES_MAX));
        }
    }
}

#[test]
fn a_search_can_stop_within_a_long_line_and_need_not_read_it_again() {
    let fill = vec![b'.'; 10 * WINDOW_BYTES];
    let items = long_lines(&[&fill, b"x"]);
    let pattern = LinePattern::text("x", false).expect("valid");
    let mut search = LineSearch::new(pattern, None);
    let mut lines = FoundLines::new(9, usize::MAX);
    let mut at = ItemProgress::default();
    let mut visits = u64::MAX;
    let half = &items[..items.len() / 2];
    assert_eq!(
        search.feed(half, &mut at, &mut lines, &mut visits),
        Searched::Through
    );
    let position = search.position();
    assert_eq!(position.next(), end_of(half));
    assert!(end_of(half) - position.from <= WINDOW_BYTES as u64);
    search.begin(&position.to_string().parse().expect("a position"));
    let rest: Vec<Item> = items
        .iter()
        .filter_map(|item| item.clone().from(position.from))
        .collect();
    assert!(search_all(&mut search, &rest, &mut lines, AT_ONCE));
    let [line] = &lines.lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!((line.offset, line.number), (fill.len() as u64 + 1, Some(2)));
}

#[test]
fn a_line_that_is_interrupted_for_too_long_ends() {
    let between = vec![b'\n'; 1 << 20];
    let pattern = LinePattern::text("ab", false).expect("valid");
    let found = |more: &[u8]| {
        let between = [&between[..], more].concat();
        let after = 1 + between.len() as u64;
        let items = [
            chunk(0, Stream::Stdout, b"a"),
            chunk(1, Stream::Stderr, &between),
            chunk(after, Stream::Stdout, b"b\n"),
        ];
        let calls = Calls {
            together: 1,
            ..AT_ONCE
        };
        found(&pattern, &items, calls).len()
    };
    assert_eq!((found(b""), found(b"\n")), (1, 0));
}

#[test]
fn automata_are_used_again_for_the_next_piece() {
    let pattern = LinePattern::regex("[ab]*a[ab]{200}c", false).expect("valid");
    let hard = hard_letters(20_000);
    let easy = [&[b'a'; 300][..], b"c\n"].concat();
    let items = [
        chunk(0, Stream::Stdout, &[&hard[..], b"\n"].concat()),
        chunk(hard.len() as u64 + 1, Stream::Stdout, &easy),
    ];
    let calls = Calls {
        together: 1,
        visits: 100_000,
        ..AT_ONCE
    };
    assert_eq!(found(&pattern, &items, calls).len(), 1);
}
