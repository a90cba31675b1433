//! Which lines are found, and what is said of the others.

use super::*;
use crate::protocol::mcp::excerpt::Piece;

fn of(pieces: &Pieces<'_>, pattern: &str, chars_max: usize) -> Hits {
    grep(
        pieces,
        &ShownLinePattern::new(pattern).expect("a pattern"),
        chars_max,
    )
}

#[test]
fn lines_are_found_as_a_terminal_shows_them() {
    let bytes = b"one\n\x1b[1mt\x1b[0mwo\nload 1%\rload 9%\nthree two\n";
    let found = of(&Pieces::whole(bytes), "two|9%", 200);
    assert_eq!(
        found.text,
        "line 2, byte 8: two\nline 3, byte 16: load 9%\nline 4, byte 38: three two"
    );
    assert_eq!(found.found, 3);
    let hit = &found.hits[2];
    assert_eq!((hit.from, hit.to, hit.offset), (32, 42, 38));
    assert_eq!(of(&Pieces::whole(bytes), "1%", 200).found, 0);
    assert_eq!(of(&Pieces::whole(bytes), "^two$", 200).found, 1);
    assert_eq!(of(&Pieces::whole(bytes), "(?i)TWO", 200).found, 2);
}

#[test]
fn what_has_no_room_is_counted() {
    let text: String = (0..1_000).map(|n| format!("hit {n}\n")).collect();
    let found = of(&Pieces::whole(text.as_bytes()), "hit", 300);
    let shown = found.hits.len();
    assert!(shown > 5 && found.found == 1_000);
    let next = text.find(&format!("hit {shown}\n")).expect("in it");
    let note = format!(
        "[… {} more lines match, the next one at byte {next}]",
        1_000 - shown
    );
    assert_eq!(found.text.lines().last(), Some(&note[..]));
}

#[test]
fn what_was_not_searched_is_named() {
    let piece = |from, text: &'static str| Piece {
        from,
        bytes: text.as_bytes(),
    };
    let mut pieces = Pieces::new(vec![piece(0, "hit\n"), piece(90, "hit\n")], 94);
    pieces.dropped.push(4..10);
    assert_eq!(
        of(&pieces, "hit", 300).text,
        "line 1, byte 0: hit\nbyte 90: hit\n[… bytes 4-10 dropped]\n[… bytes 10-90 not scanned]"
    );
    let pieces = Pieces::new((0..9).map(|n| piece(10 * n, "x")).collect(), 90);
    let text = of(&pieces, "hit", 300).text;
    assert!(text.ends_with("[… 5 more ranges not searched]"), "{text}");
}

#[test]
fn of_a_long_line_the_match_is_shown() {
    let line = format!("{}é{}\n", "x".repeat(5_000), "y".repeat(5_000));
    for pattern in ["é", r"\xa9"] {
        let found = of(&Pieces::whole(line.as_bytes()), pattern, 1_000);
        let hit = &found.hits[0];
        assert_eq!(hit.offset, 5_000);
        assert!(
            hit.line.starts_with("…xxx") && hit.line.contains("xéy") && hit.line.ends_with("y…")
        );
        assert_eq!(hit.line.chars().count(), LINE_CHARS_MAX + 2);
    }
}

#[test]
fn what_is_wrong_with_a_pattern_is_said() {
    let error = ShownLinePattern::new("(a").expect_err("open").to_string();
    assert!(error.contains("unclosed group"), "{error}");
    let error = ShownLinePattern::new("(a{50}){50}")
        .expect_err("large")
        .to_string();
    assert!(error.contains("too large"), "{error}");
}
