//! The last lines of a text that comes in pieces and may be of any length. Pure.

/// Keeps the end of a text.
pub struct StdoutEnd {
    /// At least so many bytes of the end are kept, and at most twice as many.
    bytes: usize,
    kept: Vec<u8>,
    /// How many lines ended in what was dropped.
    lines_before: usize,
    /// The first byte of the line that begins in what was dropped, blanks aside.
    cut: Option<u8>,
}

impl StdoutEnd {
    /// Keeps at least so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self {
            bytes,
            kept: Vec::new(),
            lines_before: 0,
            cut: None,
        }
    }

    /// The text goes on.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() <= 2 * self.bytes {
            return;
        }
        let dropped = &self.kept[..self.kept.len() - self.bytes];
        let begin = dropped.iter().rposition(|byte| *byte == b'\n');
        let line = &dropped[begin.map_or(0, |end| end + 1)..];
        let first = line
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .copied();
        self.cut = match begin {
            None => self.cut.or(first),
            Some(_) => first,
        };
        self.lines_before += dropped.iter().filter(|byte| **byte == b'\n').count();
        self.kept.drain(..dropped.len());
    }

    /// The number of the first line that is kept, and the text. Of a line whose beginning was dropped, the
    /// first character stands for the whole.
    pub fn end(&self) -> (usize, String) {
        let mut kept = &self.kept[..];
        let mut text = String::new();
        if let Some(first) = self.cut {
            let end = kept.iter().position(|byte| *byte == b'\n');
            kept = &kept[end.unwrap_or(kept.len())..];
            text.push_str(&String::from_utf8_lossy(&[first]));
        }
        text.push_str(&String::from_utf8_lossy(kept));
        (self.lines_before + 1, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(pieces: &[&str], bytes: usize) -> (usize, String) {
        let mut lines = StdoutEnd::of(bytes);
        for piece in pieces {
            lines.push(piece.as_bytes());
            assert!(lines.kept.len() <= 2 * bytes);
        }
        lines.end()
    }

    #[test]
    fn the_last_lines_stay_with_their_numbers() {
        assert_eq!(end(&[], 4), (1, String::new()));
        assert_eq!(end(&["a\nb", "c\n"], 4), (1, "a\nbc\n".to_owned()));
        assert_eq!(end(&["a\nb\nc\n", "d\ne\n"], 4), (4, "d\ne\n".to_owned()));
        assert_eq!(end(&["a\nb\nc\n", "  dd\n"], 4), (4, " dd\n".to_owned()));
    }

    /// Of a line of any length only the first character stays.
    #[test]
    fn a_long_line_is_not_kept() {
        let long = "y".repeat(1000);
        assert_eq!(end(&["a\n {", &long, "\nb\n"], 4), (2, "{\nb\n".to_owned()));
        assert_eq!(end(&["a\n", "{", &long, &long], 4), (2, "{".to_owned()));
        let pieces = [&long[..], &long, "\n{1}\n{2}\n{3}\n"];
        assert_eq!(end(&pieces, 40), (1, "y\n{1}\n{2}\n{3}\n".to_owned()));
        let many = ["{\"task\": \"a\"}\n"; 1000];
        let (first, text) = end(&many, 100);
        assert_eq!(first + text.lines().count(), 1001);
        assert!(text.ends_with(many[0]) && text.len() >= 80);
    }
}
