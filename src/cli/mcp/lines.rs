//! Cuts the client's bytes into lines and never holds more than one line of the longest length that a
//! message may have. Pure.

use memchr::memchr;

use crate::cli::connect::wire::MESSAGE_BYTES_MAX;

/// How much is kept of each end of a line that is too long, bytes.
pub const ENDS_BYTES: usize = 4 << 10;

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine {
    /// All of it.
    Whole(Vec<u8>),
    /// One of more than [`MESSAGE_BYTES_MAX`] bytes.
    Overlong {
        /// Its first [`ENDS_BYTES`].
        head: Vec<u8>,
        /// Its last [`ENDS_BYTES`].
        tail: Vec<u8>,
    },
}

/// The bytes that have come.
#[derive(Debug, Default)]
pub struct InputLines {
    piece: Vec<u8>,
    /// How much of the piece is used.
    at: usize,
    /// The line so far; of one that is too long the last [`ENDS_BYTES`].
    line: Vec<u8>,
    /// The first bytes of a line that is too long.
    head: Option<Vec<u8>>,
}

impl InputLines {
    /// Takes the next bytes, after [`Self::next`] has returned `None`.
    pub fn push(&mut self, piece: Vec<u8>) {
        debug_assert!(self.at == self.piece.len());
        self.piece = piece;
        self.at = 0;
    }

    /// The next line; `None` if more bytes are needed.
    pub fn next(&mut self) -> Option<InputLine> {
        let rest = &self.piece[self.at..];
        match memchr(b'\n', rest) {
            Some(length) => {
                self.extend(length);
                self.at += 1;
                Some(self.take())
            }
            None => {
                self.extend(rest.len());
                None
            }
        }
    }

    /// The bytes after the last line end, when no more will come; `None` if there are none.
    pub fn rest(&mut self) -> Option<InputLine> {
        let is_empty = self.line.is_empty() && self.head.is_none();
        (!is_empty).then(|| self.take())
    }

    /// Moves `length` bytes of the piece to the line.
    fn extend(&mut self, length: usize) {
        let bytes = &self.piece[self.at..self.at + length];
        self.at += length;
        let room = MESSAGE_BYTES_MAX - self.line.len().min(MESSAGE_BYTES_MAX);
        if self.head.is_none() && bytes.len() > room {
            self.head = Some(
                self.line
                    .iter()
                    .chain(bytes)
                    .take(ENDS_BYTES)
                    .copied()
                    .collect(),
            );
        }
        self.line.extend(bytes);
        if self.head.is_some() {
            let from = self.line.len().saturating_sub(ENDS_BYTES);
            self.line.drain(..from);
            self.line.shrink_to(ENDS_BYTES);
        }
    }

    fn take(&mut self) -> InputLine {
        let line = std::mem::take(&mut self.line);
        match self.head.take() {
            Some(head) => InputLine::Overlong { head, tail: line },
            None => InputLine::Whole(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<InputLine> {
        let mut input = InputLines::default();
        let mut lines = Vec::new();
        for piece in pieces {
            input.push(piece);
            lines.extend(std::iter::from_fn(|| input.next()));
            assert!(input.line.len() <= MESSAGE_BYTES_MAX);
        }
        lines.extend(input.rest());
        lines
    }

    fn whole(text: &str) -> InputLine {
        InputLine::Whole(text.into())
    }

    #[test]
    fn lines_come_whole_wherever_the_pieces_are_cut() {
        let text = b"one\n\ntwo three\nfour";
        let expected = [whole("one"), whole(""), whole("two three"), whole("four")];
        for size in 1..=text.len() {
            let pieces = text.chunks(size).map(<[u8]>::to_vec);
            assert_eq!(lines(pieces), expected, "pieces of {size} bytes");
        }
        assert_eq!(lines([b"one\n".to_vec()]), [whole("one")]);
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_one_more_byte_is_not() {
        for size in [1 << 16, MESSAGE_BYTES_MAX * 2] {
            let mut text = vec![b'x'; MESSAGE_BYTES_MAX];
            text.push(b'\n');
            let pieces = text.chunks(size).map(<[u8]>::to_vec);
            assert_eq!(
                lines(pieces),
                [InputLine::Whole(vec![b'x'; MESSAGE_BYTES_MAX])]
            );

            let mut text = b"HEAD".to_vec();
            text.resize(MESSAGE_BYTES_MAX - 3, b'x');
            text.extend(b"TAIL\nnext\n");
            let found = lines(text.chunks(size).map(<[u8]>::to_vec));
            let [InputLine::Overlong { head, tail }, next] = found.as_slice() else {
                panic!("{} lines", found.len());
            };
            assert_eq!((head.len(), tail.len()), (ENDS_BYTES, ENDS_BYTES));
            assert!(head.starts_with(b"HEADx") && tail.ends_with(b"xTAIL"));
            assert_eq!(next, &whole("next"));
        }
    }

    #[test]
    fn ten_megabytes_are_skipped() {
        let mut pieces = vec![vec![b'x'; 1 << 16]; 160];
        pieces.push(b"\nnext".to_vec());
        let found = lines(pieces);
        assert!(matches!(found[0], InputLine::Overlong { .. }));
        assert_eq!(found[1..], [whole("next")]);
    }
}
