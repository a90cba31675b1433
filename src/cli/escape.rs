//! Makes text from outside harmless for a terminal.
//!
//! A job's name may contain an escape sequence that retitles the window or moves the cursor; what
//! `ls`, `show` and error lines print goes through here. Outputs of `run` and `tail` do not.

use std::fmt::Write;

/// Whether a terminal would act on this character instead of showing it. Also true for those that
/// turn the direction of the text around them.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every acting character written as an escape: `\n`, `\t`, `\x1b`, `\u{202e}`.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if acts(c) && c.is_ascii() => push(&mut out, format_args!("\\x{:02x}", c as u32)),
            c if acts(c) => push(&mut out, format_args!("\\u{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// JSON text in which the acting characters that JSON itself lets through (DEL, C1, direction)
/// are written as `\u009b`. Such characters only occur inside strings, so it stays the same value.
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if acts(c) => push(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

/// A word as a POSIX shell would need it, in quotes only where it must be.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert_eq!(
            visible("a\x1b[2Jb\u{9b}c\nd\x7f"),
            "a\\x1b[2Jb\\u{9b}c\\nd\\x7f"
        );
        assert_eq!(visible("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(visible("größe ✓"), "größe ✓");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"name": "a\u{9b}2J\x7f\x1b\u{202e}ß\n"});
        let text = visible_json(&value.to_string());
        assert!(!text.chars().any(acts), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back, value);
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(shell_word("cargo"), "cargo");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
