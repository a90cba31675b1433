//! How far the search of an output has come, so that it can go on later and finds what it would have
//! found.

use std::{fmt, str::FromStr};

use crate::job::Offset;

/// Largest offset.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// How far the search of one output has come. As text it is one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePosition {
    /// The first byte that is read again.
    pub from: Offset,
    /// The line ends before it, if that is known.
    pub line_ends: Option<u64>,
    pub(super) streams: [StreamPosition; 3],
}

/// How far the search of one stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamPosition {
    /// Its first byte that is needed.
    pub(super) begin: Offset,
    /// The line in the middle of which that byte is.
    pub(super) open: Option<OpenLine>,
}

/// A line whose end has not been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenLine {
    /// Where it begins.
    pub(super) offset: Offset,
    /// Its number, from 1, if that is known.
    pub(super) number: Option<u64>,
    /// Whether it has a match already.
    pub(super) is_found: bool,
}

impl LinePosition {
    /// The beginning of a search at `from`, as if a line began there.
    pub fn begin(from: Offset) -> Self {
        let stream = StreamPosition {
            begin: from,
            open: None,
        };
        Self {
            from,
            line_ends: (from == 0).then_some(0),
            streams: [stream; 3],
        }
    }

    /// The first byte that was not searched in any stream: what is before it has been searched, unless
    /// it belongs to a line that goes on after it.
    pub fn next(&self) -> Offset {
        let begins = self.streams.iter().map(|stream| stream.begin);
        begins.max().unwrap_or(self.from)
    }
}

impl fmt::Display for LinePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.from, KnownCount(self.line_ends))?;
        for stream in &self.streams {
            write!(f, ".{}", stream.begin)?;
            if let Some(open) = stream.open {
                let found = if open.is_found { "+" } else { "" };
                write!(f, "_{}_{}{found}", open.offset, KnownCount(open.number))?;
            }
        }
        Ok(())
    }
}

/// A count, or `-` if it is unknown.
struct KnownCount(Option<u64>);

impl fmt::Display for KnownCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPosition;

impl FromStr for LinePosition {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let parts: Vec<&str> = text.split('.').collect();
        let [from, line_ends, streams @ ..] = &parts[..] else {
            return Err(NotAPosition);
        };
        let streams: Vec<StreamPosition> = streams
            .iter()
            .map(|text| stream(text))
            .collect::<Result<_, _>>()?;
        let read = Self {
            from: number(from)?,
            line_ends: known(line_ends)?,
            streams: streams.try_into().map_err(|_| NotAPosition)?,
        };
        let begins = read.streams.iter().map(|stream| stream.begin);
        match begins.min() == Some(read.from) {
            true => Ok(read),
            false => Err(NotAPosition),
        }
    }
}

fn stream(text: &str) -> Result<StreamPosition, NotAPosition> {
    let mut parts = text.split('_');
    let begin = number(parts.next().unwrap_or_default())?;
    let open = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => None,
        (Some(offset), Some(line), None) => Some(OpenLine {
            offset: number(offset)?,
            number: known(line.strip_suffix('+').unwrap_or(line))?,
            is_found: line.ends_with('+'),
        }),
        _ => return Err(NotAPosition),
    };
    match open.is_some_and(|open| open.offset > begin) {
        true => Err(NotAPosition),
        false => Ok(StreamPosition { begin, open }),
    }
}

fn known(text: &str) -> Result<Option<u64>, NotAPosition> {
    match text {
        "-" => Ok(None),
        text => number(text).map(Some),
    }
}

/// Digits alone.
fn number(text: &str) -> Result<u64, NotAPosition> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number <= OFFSET_MAX);
    number.filter(|_| is_plain).ok_or(NotAPosition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_one_word() {
        let mut position = LinePosition::begin(0);
        assert_eq!(position.to_string(), "0.0.0.0.0");
        assert_eq!(position.to_string().parse(), Ok(position));
        position.streams[1] = StreamPosition {
            begin: 20,
            open: Some(OpenLine {
                offset: 7,
                number: Some(3),
                is_found: false,
            }),
        };
        position.streams[2] = StreamPosition {
            begin: 30,
            open: Some(OpenLine {
                offset: 30,
                number: None,
                is_found: true,
            }),
        };
        position.line_ends = None;
        assert_eq!(position.to_string(), "0.-.0.20_7_3.30_30_-+");
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!(position.next(), 30);
    }

    #[test]
    fn other_words_are_refused() {
        for wrong in [
            "",
            "0",
            "0.0",
            "0.0.0.0",
            "0.0.0.0.0.0",
            "0.0.0.0.-1",
            "0.0.0.0.+1",
            "1.0.0.1.1",
            "0.0.0.0.1_2_1",
            "0.0.0.0.1_1",
            "0.0.0.0.1_1_1_1",
            "0.0.0.0.9223372036854775808",
            "x",
        ] {
            assert_eq!(wrong.parse::<LinePosition>(), Err(NotAPosition), "{wrong}");
        }
    }
}
