//! The whole output of a job, as a server tells it when all is over, in pieces of one stream and
//! attempt each. Judges nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{facts::Facts, history::Span, link::Link, plan::Key};

/// What is there of one job.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// In order; neighbours differ in stream or attempt.
    pub runs: Vec<Run>,
    /// From, to.
    pub gaps: Vec<(u64, u64)>,
    pub next_offset: u64,
    pub facts: Option<Facts>,
    /// What came in no order.
    pub wrong: Option<String>,
}

/// Bytes in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub stream: u8,
    pub attempt: u32,
    pub bytes: Vec<u8>,
}

impl Truth {
    /// Downloads a job by `job.read`.
    pub fn download(link: &mut Link, key: Key, id: &str) -> Self {
        let mut truth = Self::default();
        while truth.facts.is_none() && truth.wrong.is_none() {
            let params = json!({"job": id, "from": truth.next_offset, "max_bytes": 524_288});
            match link.insist(Some(key), "job.read", "whole", &params) {
                Some(Ok((_, reply))) => truth.take(&reply),
                Some(Err((_, error))) => truth.wrong = Some(error.to_string()),
                None => truth.wrong = Some("the run is over".to_owned()),
            }
        }
        truth
    }

    fn take(&mut self, reply: &Value) {
        let chunks = reply["chunks"].as_array().map_or(&[][..], Vec::as_slice);
        for chunk in chunks {
            self.take_chunk(chunk);
        }
        if let Some(end) = reply.get("end").filter(|end| !end.is_null()) {
            self.facts = Facts::of(end);
        } else if chunks.is_empty() {
            self.wrong = Some(format!("neither chunks nor an end: {reply}"));
        }
    }

    fn take_chunk(&mut self, chunk: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
        if let Some(gap) = chunk.get("gap") {
            self.gaps.push((number(&gap["from"]), number(&gap["to"])));
            self.next_offset = number(&gap["to"]);
            return;
        }
        let bytes = match (&chunk["data"], &chunk["data_base64"]) {
            (Value::String(text), _) => text.clone().into_bytes(),
            (_, Value::String(text)) => STANDARD.decode(text).unwrap_or_default(),
            _ => Vec::new(),
        };
        let stream = u8::from(chunk["stream"] == "stderr");
        let attempt = number(&chunk["attempt"]) as u32;
        if number(&chunk["offset"]) != self.next_offset || bytes.is_empty() {
            self.wrong = Some(format!("a chunk at {}: {chunk:.200}", self.next_offset));
        }
        self.add(stream, attempt, &bytes);
    }

    /// Adds bytes at the end.
    pub fn add(&mut self, stream: u8, attempt: u32, bytes: &[u8]) {
        match self.runs.last_mut() {
            Some(last)
                if (last.stream, last.attempt) == (stream, attempt)
                    && last.offset + last.bytes.len() as u64 == self.next_offset =>
            {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.runs.push(Run {
                offset: self.next_offset,
                stream,
                attempt,
                bytes: bytes.to_vec(),
            }),
        }
        self.next_offset += bytes.len() as u64;
    }

    /// All bytes of a stream of an attempt.
    pub fn stream(&self, stream: u8, attempt: u32) -> Vec<u8> {
        let runs = self.runs.iter();
        let of_it = runs.filter(|run| (run.stream, run.attempt) == (stream, attempt));
        of_it.flat_map(|run| run.bytes.iter().copied()).collect()
    }

    /// Whether exactly these bytes stand there, of this stream and attempt.
    pub fn has(&self, span: &Span) -> bool {
        let at = self.runs.partition_point(|run| run.offset <= span.offset);
        let Some(run) = at.checked_sub(1).and_then(|at| self.runs.get(at)) else {
            return false;
        };
        let from = (span.offset - run.offset) as usize;
        let bytes = run.bytes.get(from..from + span.length as usize);
        (run.stream, run.attempt) == (span.stream, span.attempt)
            && bytes.is_some_and(|bytes| crc32c::crc32c(bytes) == span.crc32c)
    }
}
