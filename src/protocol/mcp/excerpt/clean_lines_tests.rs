//! Lines as a terminal shows them: rewrites, redraws, ranges and numbers.

use proptest::prelude::*;

use super::{
    clean_line::{CleanLine, Entry},
    clean_lines::CleanLines,
    pieces::{Piece, Pieces},
    properties_tests::cases,
};

/// Each entry in a line of its own: its range, the number of its line, its text.
fn entries(pieces: &Pieces<'_>) -> Vec<String> {
    let parts = pieces.parts();
    let number = |line: &CleanLine<'_>| line.number.map_or("?".into(), |number| number.to_string());
    let entries = CleanLines::new(&parts);
    let shown = entries.map(|entry| {
        let range = entry.range();
        match &entry {
            Entry::Line(line) => format!("{range:?} {}: {}", number(line), line.text),
            Entry::Absent(_, why) => format!("{range:?} {}", why.words()),
            Entry::Redrawn(rows) => {
                let lines: Vec<&str> = rows.lines.iter().map(|line| &*line.text).collect();
                let number = number(&rows.lines[0]);
                format!("{range:?} {number}: {} times {lines:?}", rows.times)
            }
        }
    });
    shown.collect()
}

fn whole(bytes: &str) -> Vec<String> {
    entries(&Pieces::whole(bytes.as_bytes()))
}

/// The texts of all lines, redrawn ones too.
fn texts(bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in CleanLines::new(&Pieces::whole(bytes).parts()) {
        match entry {
            Entry::Line(line) => texts.push(line.text.into_owned()),
            Entry::Redrawn(rows) => {
                texts.extend(rows.lines.into_iter().map(|line| line.text.into_owned()))
            }
            Entry::Absent(..) => {}
        }
    }
    texts
}

#[test]
fn lines_have_ranges_and_numbers() {
    assert_eq!(whole("a\n\nbc"), ["0..2 1: a", "2..3 2: ", "3..5 3: bc"]);
    assert_eq!(whole("a\r\nb\r\n"), ["0..3 1: a", "3..6 2: b"]);
    assert_eq!(whole("\n\n"), ["0..1 1: ", "1..2 2: "]);
    assert!(whole("").is_empty());
    // What follows the last newline without being text belongs to the last line.
    assert_eq!(whole("a\n\x1b[0m"), ["0..6 1: a"]);
    assert_eq!(whole("\x1b[0m"), ["0..4 1: "]);
}

#[test]
fn numbers_are_known_only_where_everything_was_read() {
    let piece = |from, text: &'static str| Piece {
        from,
        bytes: text.as_bytes(),
    };
    let mut pieces = Pieces::new(vec![piece(0, "a\nb"), piece(10, "c\nd\n")], 20);
    pieces.dropped.push(14..16);
    let expected = [
        "0..2 1: a",
        "2..3 2: b",
        "3..10 not scanned",
        "10..12 ?: c",
        "12..14 ?: d",
        "14..16 dropped",
        "16..20 not scanned",
    ];
    assert_eq!(entries(&pieces), expected);
    let later = Pieces::new(vec![piece(10, "c\n")], 12);
    assert_eq!(entries(&later), ["0..10 not scanned", "10..12 ?: c"]);
}

#[test]
fn the_last_state_of_a_rewritten_line_stays() {
    let download: String = (0..=100).map(|n| format!("\rDownloading {n}%")).collect();
    let end = download.len() + 1;
    assert_eq!(
        whole(&format!("{download}\n")),
        [format!("0..{end} 1: Downloading 100%")]
    );
    for (bytes, expected) in [
        ("long text\rab\n", "abng text"),
        ("long text\r\x1b[Kab\n", "ab"),
        ("long text\r\x1b[2Kab\n", "ab"),
        ("abc\x08\x08X\n", "aXc"),
        ("|\x08/\x08-\x08\\\n", "\\"),
        ("_\x08u_\x08n\n", "un"),
        ("ab\r\r\n", "ab"),
        ("a\x1b[5Gb\n", "a   b"),
        ("a\x1b[3Cb\n", "a   b"),
        ("abc\x1b[2D\x1b[1PX\n", "aX"),
        ("ac\x1b[1D\x1b[1@b\n", "abc"),
        ("wait...\r\x1b[K\n", ""),
        ("wait...\r       \n", ""),
        ("é漢🎉\r1\n", "1漢🎉"),
    ] {
        assert_eq!(texts(bytes.as_bytes()), [expected], "{bytes:?}");
    }
}

#[test]
fn a_row_longer_than_any_terminal_is_not_rewritten() {
    let long = "x".repeat(2_000);
    assert_eq!(
        whole(&format!("{long}\rab\n")),
        [format!("0..2001 1: {long}"), "2001..2004 1: ab".to_owned()]
    );
    assert_eq!(texts(format!("{long}\x1b[K\r\n").as_bytes()), [long]);
}

#[test]
fn rows_that_are_redrawn_have_their_last_state_and_one_range() {
    let first = "start\none 1%\ntwo 1%\n";
    let again: String = (2..=9)
        .map(|n| format!("\x1b[2A\x1b[2Kone {n}%\n\x1b[2Ktwo {n}%\n"))
        .collect();
    let end = first.len() + again.len();
    let found = whole(&format!("{first}{again}done\n"));
    let expected = [
        "0..6 1: start".to_owned(),
        format!("6..{end} 2: 8 times [\"one 9%\", \"two 9%\"]"),
        format!("{end}..{} 20: done", end + 5),
    ];
    assert_eq!(found, expected);
}

#[test]
fn layers_that_are_redrawn_without_newlines_are_rows() {
    let mut bytes = "a: waiting\nb: waiting\n".to_owned();
    for n in 1..=100 {
        bytes += &format!("\x1b[2A\x1b[2K\ra: {n}%\x1b[2B\r\x1b[1A\x1b[2K\rb: {n}%\x1b[1B\r");
    }
    bytes += "all pulled\n";
    assert_eq!(
        texts(bytes.as_bytes()),
        ["a: 100%", "b: 100%", "all pulled"]
    );
    let found = whole(&bytes);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].ends_with("200 times [\"a: 100%\", \"b: 100%\"]"),
        "{found:?}"
    );
}

#[test]
fn a_movement_that_draws_nothing_redraws_nothing() {
    let found = whole("a\nb\n\x1b[2A\x1b[2Bc\n");
    assert_eq!(found, ["0..2 1: a", "2..8 2: b", "8..14 3: c"]);
}

#[test]
fn a_cleared_screen_keeps_its_lines() {
    for clear in ["\x1b[H\x1b[2J\x1b[3J", "\x1bc", "\x1b[2J\x1b[H"] {
        let bytes = format!("error: x\nb\n{clear}c\nd\n");
        assert_eq!(
            texts(bytes.as_bytes()),
            ["error: x", "b", "c", "d"],
            "{clear:?}"
        );
    }
}

#[test]
fn a_screen_that_is_drawn_again_and_again_is_shown_once() {
    let frame = |n: u32| format!("\x1b[Htop {n}\x1b[K\nbody {n}\x1b[K\n\x1b[J");
    let bytes: String = (1..=50).map(frame).collect();
    assert_eq!(
        texts(format!("\x1b[2J{bytes}").as_bytes()),
        ["top 50", "body 50"]
    );
}

#[test]
fn a_status_line_at_a_fixed_place_is_no_output() {
    let status = |n: u32| format!("\x1b7\x1b[25;0fProgress: [{n:3}%]\x1b8");
    let mut bytes = String::new();
    for n in 1..=3 {
        bytes += &status(n);
        bytes += &format!("Setting up package{n} ...\r\n");
    }
    let expected = [1, 2, 3].map(|n| format!("Setting up package{n} ..."));
    assert_eq!(texts(bytes.as_bytes()), expected);
}

#[test]
fn jumps_cannot_blow_up_the_text() {
    let bytes = b"\x1b[9999C\x1b[9999Cx\n".repeat(10_000);
    let chars: usize = texts(&bytes).iter().map(|text| text.chars().count()).sum();
    assert!(chars < 400_000, "{chars}");
}

/// Bytes among which terminal sequences are frequent.
fn terminal_bytes() -> impl Strategy<Value = Vec<u8>> {
    let sequence = prop_oneof![
        6 => "[a-z0-9 %.:/é漢]{0,12}".prop_map(String::into_bytes),
        3 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\x08".to_vec()),
        2 => ("[0-9]{0,2}(;[0-9]{0,2})?", "[A-HJKPX@fsumh]")
            .prop_map(|(numbers, end)| format!("\x1b[{numbers}{end}").into_bytes()),
        1 => "\x1b[\\]78cMP(\\\\]".prop_map(String::into_bytes),
        1 => Just("\u{9b}1A".as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(sequence, 0..120).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn fuzz_entries_meet_and_have_no_controls(bytes in terminal_bytes()) {
        let pieces = Pieces::whole(&bytes);
        let mut at = 0;
        for entry in CleanLines::new(&pieces.parts()) {
            let range = entry.range();
            prop_assert_eq!(range.start, at);
            prop_assert!(range.end > at);
            at = range.end;
        }
        prop_assert_eq!(at, bytes.len() as u64);
        for text in texts(&bytes) {
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\t'), "{:?}", text);
        }
    }

    #[test]
    fn fuzz_how_an_output_was_cut_into_pieces_does_not_matter(
        bytes in terminal_bytes(),
        lengths in proptest::collection::vec(1usize..9, 1..200),
    ) {
        let mut pieces = Vec::new();
        let mut at = 0;
        for length in lengths {
            let end = bytes.len().min(at + length);
            pieces.push(Piece { from: at as u64, bytes: &bytes[at..end] });
            at = end;
        }
        pieces.push(Piece { from: at as u64, bytes: &bytes[at..] });
        let cut = Pieces::new(pieces, bytes.len() as u64);
        prop_assert_eq!(entries(&cut), entries(&Pieces::whole(&bytes)));
    }

    #[test]
    fn fuzz_a_shortened_line_says_where_it_is_cut(
        bytes in terminal_bytes(),
        chars_max in 0usize..80,
    ) {
        let line: Vec<u8> = bytes.into_iter().filter(|byte| !b"\n\r\x08\x1b".contains(byte)).collect();
        let pieces = Pieces::whole(&line);
        for entry in CleanLines::new(&pieces.parts()) {
            let Entry::Line(each) = entry else { continue };
            let short = each.shortened(chars_max);
            if short == each.text {
                continue;
            }
            let (head, rest) = short.split_once("[… ").expect("a note");
            let (note, tail) = rest.split_once(']').expect("its end");
            let (from, to) = note.rsplit_once("bytes ").and_then(|(_, range)| range.split_once('-')).expect("a range");
            let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
            let shown = |bytes: &[u8]| texts(bytes).concat();
            prop_assert_eq!(shown(&line[..from]), head);
            prop_assert_eq!(shown(&line[to..]), tail);
        }
    }
}
