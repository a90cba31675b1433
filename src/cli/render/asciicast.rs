//! A recording as an asciicast v2: a header, then one event with its time per piece of text. Pure.
//!
//! The format is text for a terminal, not the job's exact bytes; `export` has other formats for
//! those.

use std::time::Duration;

use serde_json::{Value, json};

use super::{job::ShownJob, pacing::Pacing, recording::RecordedChunk};
use crate::{escape::visible_json, job::Stream};

/// The size of the terminal for a job without a PTY: columns and rows.
const SIZE: (u64, u64) = (80, 24);

/// Makes the lines of an asciicast, chunk by chunk.
#[derive(Debug)]
pub struct Asciicast {
    pacing: Pacing,
    /// The bytes of each stream's unfinished character, by the stream's code.
    partial: [Vec<u8>; 3],
    attempt: Option<u64>,
    /// Whether the last event ended with a carriage return.
    ends_with_cr: bool,
    elapsed: Duration,
}

impl Asciicast {
    /// An asciicast whose time 0 is the start of the job.
    pub fn new(job: &ShownJob, idle_max: Option<Duration>) -> Self {
        Self {
            pacing: Pacing::new(job.started_at, idle_max),
            partial: Default::default(),
            attempt: None,
            ends_with_cr: false,
            elapsed: Duration::ZERO,
        }
    }

    /// The first line. `value` is the job as the server sent it.
    pub fn header(job: &ShownJob, value: &Value) -> String {
        let size = |key: &str, other| value["pty"][key].as_u64().unwrap_or(other);
        let begin = job.started_at.or(job.submitted_at);
        let mut header = json!({
            "version": 2,
            "width": size("cols", SIZE.0),
            "height": size("rows", SIZE.1),
            "command": job.command(),
        });
        if let Some(begin) = begin {
            header["timestamp"] = json!(begin.timestamp());
        }
        if let Some(name) = &job.name {
            header["title"] = json!(name);
        }
        format!("{}\n", visible_json(&header.to_string()))
    }

    /// The lines for a chunk; empty if the chunk is only part of a character.
    pub fn lines(&mut self, chunk: &RecordedChunk) -> String {
        let mut lines = match self.attempt.replace(chunk.attempt) {
            // The process of another attempt does not finish this one's character.
            Some(before) if before != chunk.attempt => self.flush(),
            _ => String::new(),
        };
        self.elapsed = self.pacing.next(chunk.at);
        let partial = &mut self.partial[usize::from(chunk.stream.code())];
        partial.extend_from_slice(&chunk.data);
        let bytes = std::mem::take(partial);
        let whole = bytes.len() - unfinished(&bytes);
        partial.extend_from_slice(&bytes[whole..]);
        lines.push_str(&self.event(&bytes[..whole], chunk.stream == Stream::Pty));
        lines
    }

    /// The lines for characters that were never finished; empty if there are none.
    pub fn flush(&mut self) -> String {
        let partial = std::mem::take(&mut self.partial);
        let events = partial.iter().map(|bytes| self.event(bytes, true));
        events.collect()
    }

    fn event(&mut self, bytes: &[u8], is_terminal: bool) -> String {
        if bytes.is_empty() {
            return String::new();
        }
        let text = String::from_utf8_lossy(bytes);
        let text = match is_terminal {
            true => text.into_owned(),
            false => self.with_carriage_returns(&text),
        };
        self.ends_with_cr = text.ends_with('\r');
        let seconds = self.elapsed.as_micros() as f64 / 1e6;
        let event = json!([seconds, "o", text]).to_string();
        format!("{}\n", visible_json(&event))
    }

    /// Adds a carriage return before each newline, as a terminal's driver does; a pipe has none.
    fn with_carriage_returns(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 16);
        let mut ends_with_cr = self.ends_with_cr;
        for c in text.chars() {
            if c == '\n' && !ends_with_cr {
                out.push('\r');
            }
            out.push(c);
            ends_with_cr = c == '\r';
        }
        out
    }
}

/// How many bytes at the end are the beginning of a UTF-8 character.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let invalid = last.map_or(&[][..], |chunk| chunk.invalid());
    // No error_len: the bytes end within a character, and its rest may come with the next chunk.
    let may_go_on = match std::str::from_utf8(invalid) {
        Err(error) => error.error_len().is_none(),
        Ok(_) => false,
    };
    if may_go_on { invalid.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::cli::render::job::sample;

    fn cast() -> Asciicast {
        let job = sample(json!({"started_at": "1970-01-01T00:00:01Z"}));
        Asciicast::new(&job, None)
    }

    fn chunk(ms: i64, stream: Stream, attempt: u64, data: &[u8]) -> RecordedChunk {
        RecordedChunk {
            offset: 0,
            stream,
            attempt,
            at: DateTime::<Utc>::from_timestamp_millis(ms).expect("a moment"),
            data: data.to_vec(),
            json: Value::Null,
        }
    }

    #[test]
    fn a_header_names_size_moment_command_and_title() {
        let job = sample(json!({
            "argv": ["echo", "a b"], "name": "greeting", "started_at": "1970-01-01T00:01:40.5Z",
        }));
        let header = Asciicast::header(&job, &json!({"pty": {"cols": 100, "rows": 30}}));
        let header: Value = serde_json::from_str(&header).expect("JSON");
        let expected = json!({
            "version": 2, "width": 100, "height": 30, "timestamp": 100,
            "command": "echo 'a b'", "title": "greeting",
        });
        assert_eq!(header, expected);
        let header = Asciicast::header(&sample(json!({})), &json!({"pty": false}));
        let header: Value = serde_json::from_str(&header).expect("JSON");
        assert_eq!(
            (&header["width"], &header["height"]),
            (&json!(80), &json!(24))
        );
    }

    #[test]
    fn lines_end_as_on_a_terminal() {
        let mut cast = cast();
        let out =
            |cast: &mut Asciicast, stream, data: &[u8]| cast.lines(&chunk(1500, stream, 1, data));
        assert_eq!(
            out(&mut cast, Stream::Stdout, b"a\nb\r\nc\r"),
            "[0.5,\"o\",\"a\\r\\nb\\r\\nc\\r\"]\n"
        );
        assert_eq!(
            out(&mut cast, Stream::Stderr, b"\n\n"),
            "[0.5,\"o\",\"\\n\\r\\n\"]\n"
        );
        assert_eq!(out(&mut cast, Stream::Pty, b"\n"), "[0.5,\"o\",\"\\n\"]\n");
    }

    #[test]
    fn a_character_that_was_cut_comes_whole_and_what_is_none_is_replaced() {
        let mut cast = cast();
        let mut out =
            |ms, stream, attempt, data: &[u8]| cast.lines(&chunk(ms, stream, attempt, data));
        let euro = "€".as_bytes();
        assert_eq!(out(1000, Stream::Stdout, 1, &euro[..1]), "");
        assert_eq!(out(1000, Stream::Stderr, 1, b"x"), "[0.0,\"o\",\"x\"]\n");
        assert_eq!(out(1001, Stream::Stdout, 1, &euro[1..2]), "");
        assert_eq!(
            out(2001, Stream::Stdout, 1, &euro[2..]),
            "[1.001,\"o\",\"€\"]\n"
        );
        assert_eq!(
            out(2001, Stream::Stdout, 1, b"\xffa\xe2"),
            "[1.001,\"o\",\"\u{fffd}a\"]\n"
        );
        let next = "[1.001,\"o\",\"\u{fffd}\"]\n[2.0,\"o\",\"b\"]\n";
        assert_eq!(out(3000, Stream::Stdout, 2, b"b"), next);
        assert_eq!(out(3000, Stream::Stdout, 2, &euro[..2]), "");
        assert_eq!(cast.flush(), "[2.0,\"o\",\"\u{fffd}\"]\n");
        assert_eq!(cast.flush(), "");
    }
}
