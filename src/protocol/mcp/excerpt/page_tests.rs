//! Where pages end, and what is left for the next one.

use super::*;
use crate::protocol::mcp::excerpt::Piece;

fn of(pieces: &Pieces<'_>, from: u64, chars_max: usize) -> (String, u64) {
    let page = page(pieces, from, chars_max, false);
    (page.text, page.next_offset)
}

fn raw(bytes: &[u8], from: u64, chars_max: usize) -> (String, u64) {
    let page = page(&Pieces::whole(bytes), from, chars_max, true);
    (page.text, page.next_offset)
}

#[test]
fn a_page_ends_after_a_line() {
    let pieces = Pieces::whole(b"abcde\nfghi\n\x1b[1mjk\x1b[0m\n\nl");
    assert_eq!(of(&pieces, 0, 200), ("abcde\nfghi\njk\n\nl".into(), 24));
    assert_eq!(of(&pieces, 0, 10), ("abcde\nfghi".into(), 11));
    assert_eq!(of(&pieces, 0, 12), ("abcde\nfghi".into(), 11));
    assert_eq!(of(&pieces, 11, 10), ("jk\n\nl".into(), 24));
    assert_eq!(of(&pieces, 24, 10), (String::new(), 24));
    assert_eq!(of(&pieces, 99, 10), (String::new(), 99));
}

#[test]
fn a_longer_line_ends_between_characters() {
    let pieces = Pieces::whole("\x1b[31mgrößer🎉\x1b[0m als\n".as_bytes());
    assert_eq!(of(&pieces, 0, 10), ("größer🎉 al".into(), 24));
    assert_eq!(of(&pieces, 24, 10), ("s".into(), 26));
    // An escape is whole.
    let pieces = Pieces::whole(b"ab\x01\x01\x01cdef");
    assert_eq!(of(&pieces, 0, 10), ("ab\\x01\\x01".into(), 4));
    assert_eq!(of(&pieces, 4, 10), ("\\x01cdef".into(), 9));
    let pieces = Pieces::whole("\u{e0001}\u{e0001}a".as_bytes());
    assert_eq!(of(&pieces, 0, 0), ("\\u{e0001}".into(), 4));
}

#[test]
fn a_rewritten_line_is_one_with_all_of_its_bytes() {
    let bytes = format!(
        "{}\n",
        (0..=100)
            .map(|n| format!("\rload {n}%"))
            .collect::<String>()
    );
    let end = bytes.len() as u64;
    let pieces = Pieces::whole(bytes.as_bytes());
    assert_eq!(of(&pieces, 0, 200), ("load 100%".into(), end));
    assert_eq!(of(&pieces, 0, 10), ("load 100%".into(), end));
    let pieces = Pieces::whole(b"a 1%\nb 1%\n\x1b[2Aa 2%\nb 2%\nc");
    let note = "[2 lines above redrawn 1 time, bytes 0-24]";
    assert_eq!(of(&pieces, 0, 200), (format!("a 2%\nb 2%\n{note}\nc"), 25));
    assert_eq!(of(&pieces, 0, 50), (format!("{note}\na 2%"), 24));
}

#[test]
fn what_is_still_to_come_is_left_for_the_next_page() {
    let mut pieces = Pieces::whole("name? é".as_bytes());
    pieces.pieces[0].bytes = &pieces.pieces[0].bytes[..7];
    pieces.output_bytes = 7;
    pieces.is_final = false;
    assert_eq!(of(&pieces, 0, 99), ("name? ".into(), 6));
    // A page shows it where there is nothing else.
    assert_eq!(of(&pieces, 6, 99), ("\u{fffd}".into(), 7));
    assert_eq!(page(&pieces, 0, 99, true).next_offset, 6);
    pieces.is_final = true;
    assert_eq!(of(&pieces, 0, 99), ("name? \u{fffd}".into(), 7));
    let mut pieces = Pieces::whole(b"ab\x1b[3");
    pieces.is_final = false;
    assert_eq!(of(&pieces, 0, 99), ("ab".into(), 2));
    let mut pieces = Pieces::whole(b"ab\r");
    pieces.is_final = false;
    assert_eq!(of(&pieces, 0, 99), ("ab".into(), 2));
    assert_eq!(page(&pieces, 0, 99, true).text, "ab\\r");
}

#[test]
fn a_page_ends_before_what_was_not_read() {
    let piece = |from, text: &'static str| Piece {
        from,
        bytes: text.as_bytes(),
    };
    let mut pieces = Pieces::new(vec![piece(0, "ab\ncd\nef"), piece(100, "gh\n")], 200);
    assert_eq!(of(&pieces, 0, 99), ("ab\ncd".into(), 6));
    assert_eq!(of(&pieces, 6, 99), ("ef".into(), 8));
    assert_eq!(of(&pieces, 8, 99), (String::new(), 8));
    pieces.dropped.push(8..100);
    let note = "[… bytes 8-100 dropped]";
    assert_eq!(of(&pieces, 3, 99), (format!("cd\nef\n{note}\ngh"), 103));
    let raw = page(&pieces, 3, 99, true);
    assert_eq!(
        (raw.text, raw.next_offset),
        (format!("cd\nef\n{note}\ngh\n"), 103)
    );
}

#[test]
fn a_raw_page_has_everything_and_acts_on_nothing() {
    let bytes = b"a\tb\r\n\x1b[31mred\x07\xff\xe2\x80\xae\xc3\xa9";
    let text = "a\tb\\r\n\\x1b[31mred\\x07\u{fffd}\\u{202e}é";
    assert_eq!(raw(bytes, 0, 200), (text.into(), 20));
    assert_eq!(raw(bytes, 0, 10), ("a\tb\\r\n".into(), 5));
    assert_eq!(raw(bytes, 5, 10), ("\\x1b[31mre".into(), 12));
    let text = "é漢🎉".repeat(4);
    assert_eq!(raw(text.as_bytes(), 0, 10), ("é漢🎉é漢🎉é漢🎉é".into(), 29));
}
