//! Escapes text from outside before it goes to a terminal or into a line of the log: characters that a
//! terminal acts on and characters that are invisible become escapes, all others stay.
//!
//! A job's own output is not escaped; it stays byte for byte.

use std::fmt::Write;

/// Invisible characters that are neither controls nor line ends: those of category Cf and those that
/// Unicode calls default-ignorable (DerivedCoreProperties.txt, Unicode 17). They change the direction
/// of the text around them, or make two different names look the same.
const INVISIBLE: [(u32, u32); 26] = [
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
    // Noncharacters at the end of the Basic Multilingual Plane.
    (0xfffe, 0xffff),
];

/// Whether a terminal would act on this character or show nothing for it.
pub fn needs_escape(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let code = u32::from(c);
    c.is_control()
        || INVISIBLE
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&code))
}

/// The text, with every character that [`needs_escape`] written as an escape: `\n`, `\t`, `\x1b`,
/// `\u{202e}`.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_visible(&mut out, c));
    out
}

/// The same for a text of several lines: `\n` stays.
pub fn visible_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            c => push_visible(&mut out, c),
        }
    }
    out
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if !needs_escape(c) => out.push(c),
        c if c.is_ascii() => push(out, format_args!("\\x{:02x}", u32::from(c))),
        c => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
    }
}

/// JSON text in which the characters that JSON does not escape itself (DEL, C1, direction, tags) are
/// written as `\u009b`. Such characters only occur inside strings, so the value stays the same.
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if needs_escape(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    push(&mut out, format_args!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One character of each kind.
    const ACTING: &str = "\x1b\x07\x7f\u{85}\u{9b}\u{ad}\u{61c}\u{180e}\u{200b}\u{200d}\u{200e}\
                          \u{200f}\u{2028}\u{202e}\u{2060}\u{2066}\u{2069}\u{3164}\u{fe0f}\u{feff}\
                          \u{fff9}\u{1d173}\u{e0001}\u{e0041}\u{e007f}\u{e0100}";

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert_eq!(
            visible("a\x1b[2Jb\u{9b}c\nd\x7f"),
            "a\\x1b[2Jb\\u{9b}c\\nd\\x7f"
        );
        assert_eq!(visible("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(visible("größe ✓ 漢字 🎉"), "größe ✓ 漢字 🎉");
        for c in ACTING.chars() {
            assert!(needs_escape(c), "{c:?}");
        }
        assert!(visible(ACTING).is_ascii());
    }

    #[test]
    fn lines_stay_lines_and_all_else_is_escaped() {
        assert_eq!(visible_lines("a\r\nb\u{200f}\n"), "a\\r\nb\\u{200f}\n");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"name": format!("a\u{9b}2J\n{ACTING}ß🎉")});
        let text = visible_json(&value.to_string());
        assert!(!text.chars().any(needs_escape), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, value);
    }
}
