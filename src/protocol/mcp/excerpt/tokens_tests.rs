//! What is text in a line, and what a terminal acts on.

use super::*;
use crate::escape;

fn tokens(line: &[u8]) -> Vec<TerminalToken<'_>> {
    TerminalTokens::new(line).map(|(_, token)| token).collect()
}

/// The text alone.
fn text(line: &[u8]) -> String {
    let mut text = String::new();
    for token in tokens(line) {
        match token {
            TerminalToken::Text(part) => text.push_str(part),
            TerminalToken::Escaped(c) => text.push_str(&escape::visible(&c.to_string())),
            TerminalToken::Invalid => text.push('\u{fffd}'),
            TerminalToken::Action(_) | TerminalToken::Ignored => {}
        }
    }
    text
}

#[test]
fn sequences_have_no_text() {
    for (line, expected) in [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mred\x1b[m", "red"),
        ("\x1b[?25lhidden\x1b[?25h", "hidden"),
        ("\x1b]0;a title\x07text", "text"),
        (
            "\x1b]8;;http://a/\x1b\\link\x1b]8;;\x1b\\ text",
            "link text",
        ),
        ("\x1bP1$r0m\x1b\\a\x1b_Gi=1\x1b\\b\x1b^x\x1b\\c", "abc"),
        ("\x1b(Ba\x1b)0b\x1b#8c", "abc"),
        ("\x1b=a\x1b>b\x1b7c\x1b8", "abc"),
        (
            "\u{9b}31mred\u{9b}0m \u{9d}0;title\u{9c}text\u{85}",
            "red text",
        ),
        ("a\tb\x07\0\x0e\x0f", "a\tb"),
        ("a\x01b\x7f\u{202e}", "a\\x01b\\x7f\\u{202e}"),
        (
            "⚠\u{fe0f} 漢字 é 👩\u{200d}🚀\u{feff}",
            "⚠ 漢字 é 👩\u{200d}🚀",
        ),
    ] {
        assert_eq!(text(line.as_bytes()), expected, "{line:?}");
    }
}

#[test]
fn what_is_not_finished_is_no_sequence() {
    assert_eq!(
        text(b"\x1b]0;title without an end"),
        "0;title without an end"
    );
    assert_eq!(text(b"a\x1b[31"), "a");
    assert_eq!(text(b"a\x1b["), "a");
    assert_eq!(text(b"a\x1b"), "a");
    assert_eq!(text(b"a\x1b[3\x01b"), "a\\x01b");
    assert_eq!(text("\x1b[é".as_bytes()), "é");
    assert_eq!(text(b"\x1b]0;a\x1b[1mb\x07c"), "bc");
}

#[test]
fn bytes_that_are_no_text_become_the_replacement_character() {
    assert_eq!(text(b"a\xffb\xc3(\xe2\x82"), "a\u{fffd}b\u{fffd}(\u{fffd}");
    assert_eq!(text(b"\x9b31m"), "\u{fffd}31m");
}

#[test]
fn actions_are_read_with_their_numbers() {
    let actions: Vec<TerminalToken<'_>> =
        tokens(b"\r\x08\x1b[A\x1b[12A\x1b[2K\x1b[K\x1b[;5H\x1b[99999999999B");
    let expected = [
        TerminalAction::Column(0),
        TerminalAction::Left(1),
        TerminalAction::Up(1),
        TerminalAction::Up(12),
        TerminalAction::EraseInLine(Erase::All),
        TerminalAction::EraseInLine(Erase::ToEnd),
        TerminalAction::Place(0, 4),
        TerminalAction::Down(ARGUMENT_MAX),
    ];
    assert_eq!(actions, expected.map(TerminalToken::Action));
}

#[test]
fn many_strings_without_an_end_take_linear_time() {
    let line = b"\x1b]".repeat(300_000);
    assert_eq!(tokens(&line).len(), 300_000);
    let line = b"\xc2\x9d".repeat(300_000);
    assert_eq!(tokens(&line).len(), 300_000);
}
