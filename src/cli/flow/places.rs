//! The places of bytes in a text, found without reading the text again for each.

use super::tree::FilePlace;

/// How many bytes are counted together.
const BLOCK_BYTES: usize = 256;

/// A text whose places can be asked for.
pub struct TextPlaces<'a> {
    text: &'a [u8],
    /// The first byte of each line.
    lines: Vec<usize>,
    /// How many characters begin before each block of [`BLOCK_BYTES`].
    characters: Vec<usize>,
}

impl<'a> TextPlaces<'a> {
    /// Reads the text once.
    pub fn of(text: &'a str) -> Self {
        let text = text.as_bytes();
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut characters = vec![0];
        for block in text.chunks(BLOCK_BYTES) {
            let before = characters.last().copied().unwrap_or_default();
            characters.push(before + beginnings(block));
        }
        Self {
            text,
            lines: std::iter::once(0)
                .chain(ends.map(|(at, _)| at + 1))
                .collect(),
            characters,
        }
    }

    /// The place of a byte; of one within a character, that character's.
    pub fn at(&self, byte: usize) -> FilePlace {
        let mut byte = byte.min(self.text.len());
        while byte > 0 && self.text.get(byte).is_some_and(|byte| !begins(*byte)) {
            byte -= 1;
        }
        let line = self.lines.partition_point(|begin| *begin <= byte);
        FilePlace {
            line,
            column: self.characters_before(byte) - self.characters_before(self.lines[line - 1]) + 1,
        }
    }

    fn characters_before(&self, byte: usize) -> usize {
        let block = byte / BLOCK_BYTES;
        self.characters[block] + beginnings(&self.text[block * BLOCK_BYTES..byte])
    }
}

/// How many characters of UTF-8 begin here.
fn beginnings(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| begins(**byte)).count()
}

fn begins(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with a text that is read from its beginning for each place.
    #[test]
    fn every_byte_has_its_line_and_column() {
        for text in [
            "",
            "\n",
            "a\nbü\n\nç",
            &"aü€\n𝄞".repeat(200),
            &"ü".repeat(700),
        ] {
            let places = TextPlaces::of(text);
            for byte in 0..=text.len() + 1 {
                let mut at = byte.min(text.len());
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let expected = FilePlace {
                    line: text[..at].matches('\n').count() + 1,
                    column: text[begin..at].chars().count() + 1,
                };
                assert_eq!(places.at(byte), expected, "byte {byte}");
            }
        }
    }
}
