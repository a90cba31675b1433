//! Which characters are shown as they are, which as an escape, and which not at all.

use std::borrow::Cow;

use crate::escape;

/// The escapes of the ASCII controls below the space.
const ESCAPES: [&str; 32] = [
    "\\x00", "\\x01", "\\x02", "\\x03", "\\x04", "\\x05", "\\x06", "\\x07", "\\x08", "\\t", "\\n",
    "\\x0b", "\\x0c", "\\r", "\\x0e", "\\x0f", "\\x10", "\\x11", "\\x12", "\\x13", "\\x14",
    "\\x15", "\\x16", "\\x17", "\\x18", "\\x19", "\\x1a", "\\x1b", "\\x1c", "\\x1d", "\\x1e",
    "\\x1f",
];

/// A character that is shown as an escape.
pub(super) fn escaped(c: char) -> Cow<'static, str> {
    match ESCAPES.get(c as usize) {
        Some(escape) => Cow::Borrowed(escape),
        None => Cow::Owned(escape::visible(c.encode_utf8(&mut [0; 4]))),
    }
}

/// The first character, or how many bytes at the beginning are no UTF-8.
pub(super) fn decode(bytes: &[u8]) -> Result<char, usize> {
    match *bytes {
        [] => return Err(0),
        [byte, ..] if byte.is_ascii() => return Ok(char::from(byte)),
        // No character begins with such a byte, or goes on with such a one.
        [..0xc2 | 0xf5.., ..] | [_, ..0x80 | 0xc0.., ..] => return Err(1),
        _ => {}
    }
    let near = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(near) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            str::from_utf8(&near[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return Err(error.error_len().unwrap_or(near.len())),
    };
    valid.chars().next().ok_or(1)
}

/// Whether a character beyond ASCII is shown as it is. The joiners are invisible but part of how some
/// languages and emoji are written.
pub(super) fn is_text(c: char) -> bool {
    match c {
        '\u{ae}'..'\u{34f}' | '\u{2070}'..'\u{3164}' | '\u{4e00}'..='\u{d7ff}' => true,
        '\u{200c}' | '\u{200d}' => true,
        c => !escape::needs_escape(c),
    }
}

/// Whether nothing is shown for a character beyond ASCII: C1 controls, and variation selectors and the
/// byte order mark, which are invisible, common and without a meaning of their own.
pub(super) fn is_ignored(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// The line, if all of it is text: the usual case, found quickly.
pub(super) fn plain(line: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == b'\t';
    if line.iter().all(is_plain) {
        return str::from_utf8(line).ok();
    }
    if line.iter().any(|byte| byte.is_ascii() && !is_plain(byte)) {
        return None;
    }
    str::from_utf8(line)
        .ok()
        .filter(|text| text.chars().all(|c| c.is_ascii() || is_text(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_every_other_text() {
        for c in ('\0'..' ').chain(['\x7f', '\u{85}', '\u{202e}']) {
            assert_eq!(escaped(c), escape::visible(&c.to_string()));
        }
    }

    #[test]
    fn a_plain_line_is_seen_at_once() {
        assert_eq!(plain("a\tß ✓".as_bytes()), Some("a\tß ✓"));
        for special in ["a\r", "\x1b[m", "\u{202e}", "\u{9b}", "\x7f", "\0"] {
            assert_eq!(plain(special.as_bytes()), None, "{special:?}");
        }
        assert_eq!(plain(b"\xff"), None);
    }
}
