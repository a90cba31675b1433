//! What one reader of one job is shown, entered into the history as it comes: bytes that follow each
//! other as one span. Judges nothing, and does not know how the reader comes by it.

use std::sync::{Arc, atomic::Ordering};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    facts::Facts,
    harness::Frame,
    history::{How, Span, What},
    link::NOT_FOUND,
    plan::Key,
    world::{Known, World},
};

/// One reader of one job, over any number of connections.
pub struct Reading<'j> {
    pub job: &'j Arc<Known>,
    pub key: Option<Key>,
    /// Its name in the history; another one for each connection.
    name: u32,
    pub next_offset: u64,
    /// The stream that it reads; `None`: both.
    pub stream: Option<u8>,
    span: Option<Span>,
    words_left: u64,
    pub silences_left: u32,
    pub ended: bool,
}

impl<'j> Reading<'j> {
    /// A reader that begins here and has enough after so many words.
    pub fn new(job: &'j Arc<Known>, from: u64, stream: Option<u8>, words: u64) -> Self {
        Self {
            job,
            key: Some(job.plan.key),
            name: 0,
            next_offset: from,
            stream,
            span: None,
            words_left: words,
            silences_left: 8,
            ended: false,
        }
    }

    /// Begins anew, on a new connection or at the first.
    pub fn begin(&mut self, world: &World, how: How) {
        self.name = world.history.name();
        let began = What::Began {
            reader: self.name,
            from: self.next_offset,
            how,
            stream: self.stream,
        };
        world.history.note(self.key, began);
    }

    /// Enters what was shown last.
    pub fn flush(&mut self, world: &World) {
        if let Some(span) = self.span.take() {
            let reader = self.name;
            world.history.note(self.key, What::Shown { reader, span });
        }
    }

    /// Takes the reply to a `job.read`.
    pub fn take_reply(&mut self, world: &World, reply: &Value) {
        let chunks = reply["chunks"].as_array().cloned().unwrap_or_default();
        if chunks.is_empty() {
            self.silences_left = self.silences_left.saturating_sub(1);
        }
        for chunk in &chunks {
            match chunk.get("gap") {
                Some(gap) => self.gap(world, gap),
                None => self.output(world, chunk),
            }
        }
        self.passed(world, &reply["next_offset"]);
        if let Some(end) = reply.get("end").filter(|end| !end.is_null()) {
            self.end(world, end);
        }
    }

    /// Takes what came on the connection; what is about another subscription is not ours.
    pub fn take(&mut self, world: &World, subscription: &Value, frame: Frame) {
        self.words_left = self.words_left.saturating_sub(1);
        let value = match frame {
            Frame::Binary(frame) => {
                if Some(u64::from(frame.subscription)) == subscription.as_u64() {
                    self.shown(
                        world,
                        frame.offset,
                        frame.stream,
                        frame.attempt,
                        &frame.data,
                    );
                }
                return;
            }
            Frame::Json(value) => value,
            _ => return,
        };
        let params = &value["params"];
        if params["subscription"] != *subscription {
            return;
        }
        let reader = self.name;
        match value["method"].as_str() {
            Some("job.output") => self.output(world, params),
            Some("job.gap") => self.gap(world, params),
            Some("job.caught_up") => {
                self.flush(world);
                let next_offset = params["next_offset"].as_u64().unwrap_or(u64::MAX);
                world.history.note(
                    self.key,
                    What::CaughtUp {
                        reader,
                        next_offset,
                    },
                );
            }
            Some("job.state") => {
                let state = params["state"].as_str().unwrap_or_default().to_owned();
                world.history.note(self.key, What::Told { reader, state });
            }
            Some("job.end") => self.end(world, &params["job"]),
            _ => world
                .history
                .wrong(self.key, format!("a notification {value}")),
        }
    }

    /// Goes on where a reply says: behind its chunks, or behind what follows of the other stream.
    fn passed(&mut self, world: &World, next_offset: &Value) {
        let to = next_offset.as_u64().unwrap_or(u64::MAX);
        if to == self.next_offset {
            return;
        }
        if self.stream.is_none() {
            let what = format!("next_offset {to}, chunks end at {}", self.next_offset);
            return world.history.wrong(self.key, what);
        }
        self.flush(world);
        let reader = self.name;
        world.history.note(self.key, What::Passed { reader, to });
        self.next_offset = to;
    }

    /// The parameter `streams`.
    pub fn streams(&self) -> Value {
        match self.stream {
            None => Value::Null,
            Some(0) => json!(["stdout"]),
            Some(_) => json!(["stderr"]),
        }
    }

    fn output(&mut self, world: &World, chunk: &Value) {
        let data = match (&chunk["data"], &chunk["data_base64"]) {
            (Value::String(text), _) => text.clone().into_bytes(),
            (_, Value::String(text)) => STANDARD.decode(text).unwrap_or_default(),
            _ => Vec::new(),
        };
        let stream = match chunk["stream"].as_str() {
            Some("stdout") => 0,
            Some("stderr") => 1,
            _ => u8::MAX,
        };
        let offset = chunk["offset"].as_u64().unwrap_or(u64::MAX);
        if chunk["next_offset"].as_u64() != Some(offset.wrapping_add(data.len() as u64)) {
            world
                .history
                .wrong(self.key, format!("a chunk's next_offset: {chunk}"));
        }
        let attempt = chunk["attempt"].as_u64().unwrap_or_default() as u32;
        self.shown(world, offset, stream, attempt, &data);
    }

    fn shown(&mut self, world: &World, offset: u64, stream: u8, attempt: u32, data: &[u8]) {
        let extended = self
            .span
            .as_mut()
            .is_some_and(|span| span.extend(offset, stream, attempt, data));
        if !extended {
            self.flush(world);
            let (length, crc32c) = (data.len() as u64, crc32c::crc32c(data));
            self.span = Some(Span {
                offset,
                length,
                stream,
                attempt,
                crc32c,
            });
        }
        self.next_offset = offset + data.len() as u64;
        self.job
            .shown_to
            .fetch_max(self.next_offset, Ordering::Relaxed);
    }

    fn gap(&mut self, world: &World, gap: &Value) {
        self.flush(world);
        let (from, to) = (gap["from"].as_u64(), gap["to"].as_u64());
        let (from, to) = (from.unwrap_or(u64::MAX), to.unwrap_or(u64::MAX));
        let reason = gap["reason"].as_str().unwrap_or_default().to_owned();
        let reader = self.name;
        world.history.note(
            self.key,
            What::Gap {
                reader,
                from,
                to,
                reason,
            },
        );
        self.next_offset = to;
    }

    fn end(&mut self, world: &World, job: &Value) {
        self.flush(world);
        self.ended = true;
        self.job.done.store(true, Ordering::Relaxed);
        match Facts::of(job) {
            Some(facts) => {
                let reader = self.name;
                world.history.note(self.key, What::Ended { reader, facts });
            }
            None => world
                .history
                .wrong(self.key, format!("an end that is not final: {job}")),
        }
    }

    /// Enters what came behind the last word, if it is about this subscription.
    pub fn behind(&self, world: &World, subscription: &Value, frame: &Frame) {
        let about_us = match frame {
            Frame::Json(value) => value["params"]["subscription"] == *subscription,
            Frame::Binary(frame) => Some(u64::from(frame.subscription)) == subscription.as_u64(),
            _ => false,
        };
        if about_us {
            let what = format!("{frame:.300?}");
            world.history.note(
                self.key,
                What::Behind {
                    reader: self.name,
                    what,
                },
            );
        }
    }

    /// Every offset that was ever shown is accepted.
    pub fn refused(&mut self, world: &World, error: &Value) {
        self.words_left = 0;
        if error["code"] == NOT_FOUND && self.job.deleting.load(Ordering::Relaxed) {
            return;
        }
        let from = self.next_offset;
        world.history.wrong(
            self.key,
            format!("reading from {from}, which was shown: {error}"),
        );
    }

    /// Whether it is to read no further.
    pub fn has_enough(&self, world: &World) -> bool {
        self.ended || self.words_left == 0 || self.silences_left == 0 || world.is_over()
    }
}
