//! What holds for every output, however it was read.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    Bounds, Page, Piece, Pieces, ShownLinePattern, excerpt, excerpt_tests::checked, grep,
    last_lines, page,
};

/// Lines as programs write them, with everything that is folded, cut or found.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[a-z]{1,6} [0-9]{1,4}\n".prop_map(String::into_bytes),
        1 => (1u32..30).prop_map(|times| "again\n".repeat(times as usize).into_bytes()),
        1 => (1u32..60).prop_map(|times| (0..times).map(|n| format!("load {n}%\n")).collect::<String>().into_bytes()),
        1 => (1u32..60).prop_map(|times| (0..times).map(|n| format!("\rload {n}%")).collect::<String>().into_bytes()),
        1 => (1u32..60).prop_map(|times| (0..times).map(|n| format!("item_{n}\n")).collect::<String>().into_bytes()),
        1 => (1u32..9).prop_map(|times| "a\nb\nc\n\x1b[3A\x1b[2K".repeat(times as usize).into_bytes()),
        1 => "error(\\[E0[0-9]{3}\\])?: [a-zé ]{1,20}\n(  --> [a-z]\\.rs:[0-9]\n)?\n?".prop_map(String::into_bytes),
        1 => Just(b"Traceback (most recent call last):\n  File \"x\"\nKeyError: 'x'\n".to_vec()),
        1 => "[x漢]{300,900}\n".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(line, 0..120).prop_map(|lines| lines.concat())
}

/// Which ranges of the output were read, and which were dropped, by the lengths of ranges in turn.
type Cuts = Vec<(u8, u16)>;

fn cuts() -> impl Strategy<Value = Cuts> {
    proptest::collection::vec((0u8..6, 0u16..3_000), 0..12)
}

fn read<'a>(bytes: &'a [u8], cuts: &Cuts) -> Pieces<'a> {
    let mut pieces = Pieces::new(Vec::new(), bytes.len() as u64);
    let mut at = 0;
    for (kind, length) in cuts {
        let end = bytes.len().min(at + usize::from(*length));
        match kind {
            0 => {}
            1 => pieces.dropped.push(at as u64..end as u64),
            _ => pieces.pieces.push(Piece {
                from: at as u64,
                bytes: &bytes[at..end],
            }),
        }
        at = end;
    }
    pieces.pieces.push(Piece {
        from: at as u64,
        bytes: &bytes[at..],
    });
    pieces
}

/// An eighth of the usual number: each case is a whole output.
pub(super) fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases / 8,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fuzz_an_excerpt_is_short_and_accounts_for_every_byte(
        bytes in output(),
        cuts in cuts(),
        chars_max in 0usize..3_000,
        from in 0u64..300,
    ) {
        let mut pieces = read(&bytes, &cuts);
        pieces.from = from;
        let text = checked(&pieces, chars_max);
        prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
    }

    #[test]
    fn fuzz_no_pieces_are_refused(
        list in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..5),
        near in proptest::collection::vec((0u64..20, proptest::collection::vec(any::<u8>(), 0..9)), 0..5),
        dropped in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        output_bytes: u64,
    ) {
        let all = list.iter().chain(&near);
        let mut pieces = Pieces::new(all.map(|(from, bytes)| Piece { from: *from, bytes }).collect(), output_bytes);
        pieces.dropped = dropped.into_iter().map(|(from, to)| from..to).collect();
        excerpt(&pieces, Bounds::default());
        page(&pieces, 3, 200, true);
        page(&pieces, 3, 200, false);
        last_lines(&pieces, 5, 200);
        grep(&pieces, &ShownLinePattern::new("a").expect("a pattern"), 200);
    }

    #[test]
    fn fuzz_pages_follow_each_other_to_the_end(
        bytes in output(),
        chars_max in 1usize..400,
        raw: bool,
        is_final: bool,
    ) {
        let mut pieces = Pieces::whole(&bytes);
        pieces.is_final = is_final;
        let mut from = 0;
        while from < bytes.len() as u64 {
            let next = page(&pieces, from, chars_max, raw);
            prop_assert!(next.text.chars().count() <= chars_max.max(Page::CHARS_MIN), "{:?}", next);
            prop_assert!(next.next_offset > from, "{:?}", next);
            prop_assert!(next.text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            from = next.next_offset;
        }
        prop_assert_eq!(from, bytes.len() as u64);
    }

    #[test]
    fn fuzz_raw_pages_have_all_the_text(text in "[a-zé漢\n\t🎉]{0,300}", chars_max in 1usize..50) {
        let pieces = Pieces::whole(text.as_bytes());
        let mut from = 0;
        let mut all = String::new();
        while from < text.len() as u64 {
            let next = page(&pieces, from, chars_max, true);
            all += &next.text;
            from = next.next_offset;
        }
        prop_assert_eq!(all, text);
    }

    #[test]
    fn fuzz_last_lines_are_short_and_account_for_every_byte(
        bytes in output(),
        cuts in cuts(),
        lines in 0usize..30,
        chars_max in 0usize..2_000,
    ) {
        let pieces = read(&bytes, &cuts);
        let last = last_lines(&pieces, lines, chars_max);
        prop_assert!(last.text.chars().count() <= chars_max);
        if chars_max >= 200 && last.from > 0 {
            // The range before it begins with the first byte.
            let note = last.text.lines().next().unwrap_or_default();
            let named = note.split_once("bytes 0-").map_or("", |(_, end)| end);
            let digits = named.find(|c: char| !c.is_ascii_digit()).unwrap_or_default();
            prop_assert!(named[..digits].parse::<u64>().is_ok_and(|end| end >= last.from), "{:?}", last);
        }
    }

    #[test]
    fn fuzz_hits_are_short_and_all_are_counted(bytes in output(), chars_max in 0usize..2_000) {
        let pieces = Pieces::whole(&bytes);
        let found = grep(&pieces, &ShownLinePattern::new("[ae]").expect("a pattern"), chars_max);
        prop_assert!(found.text.chars().count() <= chars_max);
        prop_assert!(found.hits.len() as u64 <= found.found);
        for hit in &found.hits {
            prop_assert!(hit.from <= hit.offset && hit.offset < hit.to);
        }
    }

    /// From the text alone: every line is shown, or its bytes are in a range that is named.
    #[test]
    fn fuzz_every_line_is_in_the_text_or_in_a_range(lines in 1usize..400, chars_max in 300usize..4_000, seed: u32) {
        let word = |n: usize| ["red", "green", "blue", "error: grey"][(seed as usize).wrapping_mul(n * n + 1) % 4];
        let all: Vec<String> = (0..lines).map(|n| format!("{} <{n}>\n", word(n))).collect();
        let bytes = all.concat();
        let text = excerpt(&Pieces::whole(bytes.as_bytes()), Bounds { chars_max, ..Bounds::default() });
        let output = text.split_once("\noutput:\n").map_or(&text[..], |(_, output)| output);
        let shown: BTreeSet<&str> = output.lines().collect();
        let named: Vec<(usize, usize)> = output
            .lines()
            .filter_map(|line| line.strip_suffix(']')?.rsplit_once("bytes ")?.1.split_once('-'))
            .map(|(from, to)| (from.parse().expect("a number"), to.parse().expect("a number")))
            .collect();
        let mut at = 0;
        for line in &all {
            let end = at + line.len();
            let is_named = named.iter().any(|(from, to)| *from <= at && end <= *to);
            prop_assert!(is_named || shown.contains(line.trim_end()), "{}: {}", line, text);
            prop_assert!(!(is_named && shown.contains(line.trim_end())), "{}: {}", line, text);
            at = end;
        }
    }
}
