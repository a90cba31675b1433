//! What at the end of some bytes may be completed by the next ones.

const ESCAPE: u8 = 0x1b;

/// How many bytes at the end of `bytes` are the beginning of a character or of a terminal sequence that
/// the next bytes may complete, or a carriage return that may belong to a newline.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    /// Longest beginning of a sequence that is looked for, bytes.
    const SEQUENCE_BYTES_MAX: usize = 4 << 10;
    if bytes.last() == Some(&b'\r') {
        return 1;
    }
    let of_char = unfinished_char(bytes);
    if of_char > 0 {
        return of_char;
    }
    let near = &bytes[bytes.len().saturating_sub(SEQUENCE_BYTES_MAX)..];
    let Some(begin) = near.iter().rposition(|byte| *byte == ESCAPE) else {
        return 0;
    };
    let sequence = &near[begin..];
    let is_open = match sequence {
        [_] => true,
        [_, b'[', rest @ ..] => rest.iter().all(|byte| (0x20..0x40).contains(byte)),
        [_, b']' | b'P' | b'X' | b'^' | b'_', rest @ ..] => !rest
            .iter()
            .any(|byte| matches!(byte, 0x07 | 0x18 | 0x1a | b'\n')),
        [_, rest @ ..] => rest.iter().all(|byte| (0x20..0x30).contains(byte)),
        [] => false,
    };
    if is_open { sequence.len() } else { 0 }
}

/// How many bytes at the end are the beginning of a character.
pub(super) fn unfinished_char(bytes: &[u8]) -> usize {
    let near = &bytes[bytes.len().saturating_sub(4)..];
    let Some(begin) = near.iter().rposition(|byte| *byte >= 0xc0) else {
        return 0;
    };
    match str::from_utf8(&near[begin..]) {
        Err(error) if error.error_len().is_none() => near.len() - begin,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_bytes_may_complete_is_found() {
        for (bytes, expected) in [
            (&b"abc"[..], 0),
            (b"", 0),
            (b"abc\r", 1),
            ("aé".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"a\xe2\x82", 2),
            (b"a\xf0\x9f\x8e", 3),
            (b"a\xff", 0),
            (b"a\x1b", 1),
            (b"a\x1b[31", 4),
            (b"a\x1b[31m", 0),
            (b"a\x1b]0;ti", 6),
            (b"a\x1b]0;ti\x07", 0),
            (b"a\x1b(", 2),
            (b"a\x1b(B", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
