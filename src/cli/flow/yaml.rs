//! YAML as a tree with places: one document of tables, lists and scalars (those of JSON, by the core
//! schema of YAML 1.2). Anchors, tags and merge keys are refused.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Value, json};

use super::tree::{FileContent, FileEntry, FileFault, FileNode, FilePlace, FileTable};

/// Deepest nesting.
const DEPTH_MAX: usize = 64;

/// Reads a YAML document.
pub fn read(text: &str) -> Result<FileNode, FileFault> {
    let mut events = Events(Parser::new_from_str(text));
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::DocumentStart(_) => break,
            Event::StreamEnd => return Err(fault(&span.start, "the file is empty")),
            _ => {}
        }
    }
    let first = events.next()?;
    let document = events.node(first, 0)?;
    let (_, _) = events.next()?;
    match events.next()? {
        (Event::StreamEnd, _) => Ok(document),
        (_, span) => Err(fault(&span.start, "must be one document")),
    }
}

fn place(marker: &Marker) -> FilePlace {
    FilePlace {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

fn fault(marker: &Marker, message: &str) -> FileFault {
    FileFault::new(place(marker), message)
}

struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), FileFault> {
        match self.0.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(fault(error.marker(), error.info())),
            None => Err(FileFault::new(FilePlace::default(), "the file ends early")),
        }
    }

    /// The value that begins with this event.
    fn node(
        &mut self,
        (event, span): (Event<'a>, Span),
        depth: usize,
    ) -> Result<FileNode, FileFault> {
        if depth > DEPTH_MAX {
            return Err(fault(&span.start, "is nested too deep"));
        }
        let content = match event {
            Event::Scalar(text, style, 0, None) => {
                FileContent::Scalar(scalar(&text, style == ScalarStyle::Plain))
            }
            Event::SequenceStart(0, None) => FileContent::List(self.list(depth)?),
            Event::MappingStart(0, None) => FileContent::Table(self.table(depth)?),
            _ => {
                let message = "anchors, aliases and tags are not taken; write the value itself";
                return Err(fault(&span.start, message));
            }
        };
        Ok(FileNode {
            place: place(&span.start),
            content,
        })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<FileNode>, FileFault> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(nodes),
                first => nodes.push(self.node(first, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<FileTable, FileFault> {
        let mut table = FileTable::default();
        loop {
            let (key, key_place) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(table),
                (Event::Scalar(text, _, 0, None), span) => (text.into_owned(), place(&span.start)),
                (_, span) => return Err(fault(&span.start, "a key must be a string")),
            };
            let first = self.next()?;
            table.add(FileEntry {
                key,
                place: key_place,
                value: self.node(first, depth + 1)?,
            })?;
        }
    }
}

/// A scalar's value by YAML's core schema; quoted ones and blocks are strings.
fn scalar(text: &str, is_plain: bool) -> Value {
    if !is_plain {
        return json!(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => json!(true),
        "false" | "False" | "FALSE" => json!(false),
        _ => number(text).unwrap_or_else(|| json!(text)),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i64>().ok().map(|number| json!(number));
    }
    let number: f64 = text.parse().ok()?;
    number.is_finite().then(|| json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places() {
        let text = "name: x\nstep:\n  - a: [1, 2.5, true, \"3\", ~]\n    p: |\n      hi\n      you\n  - b: {c: no}\n";
        let read = read(text).expect("YAML");
        let expected = json!({"name": "x", "step": [
            {"a": [1, 2.5, true, "3", null], "p": "hi\nyou\n"}, {"b": {"c": "no"}}]});
        assert_eq!(read.json(), expected);
        let steps = read.table("").expect("a table").get("step").expect("steps");
        let first = steps.list("step").expect("a list")[0]
            .table("")
            .expect("a table");
        assert_eq!(first.place_of("p").expect("p").to_string(), "4:5");
    }

    #[test]
    fn mistakes_are_named_with_their_places() {
        for (text, place) in [
            ("a: 1\na: 2\n", "2:1"),
            ("a: [1,\n", "2:1"),
            ("a: &x 1\nb: *x\n", "1:4"),
            ("a: 1\n---\nb: 1\n", "2:1"),
            ("", "1:1"),
            ("? [a]\n: b\n", "1:3"),
        ] {
            let fault = read(text).expect_err("a mistake");
            assert_eq!(fault.place.to_string(), place, "{text}: {fault}");
        }
    }
}
