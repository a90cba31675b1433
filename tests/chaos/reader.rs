//! Reads random jobs from random offsets, by `job.tail` in either encoding or by `job.read`, hangs
//! up at random and goes on at its own next offset. It records what it is shown and judges nothing.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    facts::Facts,
    harness::Frame,
    history::{How, Span, What},
    link::{Link, NOT_FOUND, Reply},
    plan::Key,
    world::{Known, World},
};

/// How long a reader waits for a word before it looks whether the run is over.
const PATIENCE: Duration = Duration::from_millis(300);

/// Reads until the run is over.
pub fn work(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        let Some(job) = world.some(&mut link.random) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let shown_to = job.shown_to.load(Ordering::Relaxed);
        let from = match link.random.below(10) {
            0..5 => 0,
            5 => shown_to,
            _ => link.random.below(shown_to + 1),
        };
        // A few words, or until the end; never so long that no other job is read.
        let words = match link.random.percent(40) {
            true => link.random.below(12),
            false => 4000,
        };
        let mut reading = Reading::new(&job, from, words);
        match link.random.percent(70) {
            true => reading.tail(&mut link),
            false => reading.read(&mut link),
        }
        thread::sleep(link.random.millis(1, 30));
    }
}

/// One reader of one job, over any number of connections.
struct Reading<'j> {
    job: &'j Arc<Known>,
    key: Option<Key>,
    /// Its name in the history; another one for each connection.
    name: u32,
    next_offset: u64,
    span: Option<Span>,
    words_left: u64,
    silences_left: u32,
    ended: bool,
}

impl<'j> Reading<'j> {
    fn new(job: &'j Arc<Known>, from: u64, words: u64) -> Self {
        Self {
            job,
            key: Some(job.plan.key),
            name: 0,
            next_offset: from,
            span: None,
            words_left: words,
            silences_left: 8,
            ended: false,
        }
    }

    /// Follows by `job.tail` until it has enough.
    fn tail(&mut self, link: &mut Link) {
        while !self.has_enough(link.world) {
            let encoding = match link.random.percent(50) {
                true => "binary",
                false => "text",
            };
            let params =
                json!({"job": self.job.id, "from": self.next_offset, "encoding": encoding});
            let note = format!("from {}", self.next_offset);
            match link.call(self.key, "job.tail", &note, params) {
                Reply::Done(_, reply) => {
                    self.begin(link.world, How::Tail);
                    let whole = self.follow(link, &reply["subscription"]);
                    self.close(link.world);
                    if whole {
                        self.leave(link, &reply["subscription"]);
                    }
                }
                Reply::Refused(crate::link::UNAVAILABLE, _) | Reply::Broken => {}
                Reply::Refused(_, error) => return self.refused(link.world, &error),
            }
        }
    }

    /// Takes notifications; returns whether the connection is still there.
    fn follow(&mut self, link: &mut Link, subscription: &Value) -> bool {
        while !self.has_enough(link.world) {
            match link.frame(PATIENCE) {
                None => self.silences_left = self.silences_left.saturating_sub(1),
                Some(Frame::Closed(_)) => return false,
                Some(frame) => self.take(link.world, subscription, frame),
            }
            if link.random.below(400) == 0 {
                // A slow reader.
                thread::sleep(link.random.millis(50, 400));
            }
        }
        true
    }

    /// Ends a tail in one of three ways: hangs up, or says so and listens for what must not come.
    fn leave(&mut self, link: &mut Link, subscription: &Value) {
        if link.random.percent(50) {
            return link.hang_up();
        }
        let params = json!({"subscription": subscription});
        let reply = link.call(self.key, "job.untail", "", params);
        // What came before the reply is kept in front of what comes behind it.
        while let Some(frame) = link.frame(Duration::ZERO) {
            if matches!(frame, Frame::Closed(_)) {
                return;
            }
            if self.ended {
                self.behind(link.world, subscription, &frame);
            }
        }
        if let (Reply::Done(..), Some(frame)) = (reply, link.frame(Duration::from_millis(2))) {
            self.behind(link.world, subscription, &frame);
        }
    }

    fn behind(&self, world: &World, subscription: &Value, frame: &Frame) {
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

    /// Reads by `job.read` until it has enough.
    fn read(&mut self, link: &mut Link) {
        self.begin(link.world, How::Read);
        while !self.has_enough(link.world) {
            let max_bytes = match link.random.percent(50) {
                true => 524_288,
                false => link.random.within(1, 70_000),
            };
            let wait_ms = link.random.below(300);
            let params = json!({"job": self.job.id, "from": self.next_offset,
                                "max_bytes": max_bytes, "wait_ms": wait_ms});
            let note = format!("from {}", self.next_offset);
            match link.call(self.key, "job.read", &note, params) {
                Reply::Done(_, reply) => self.take_reply(link.world, &reply),
                Reply::Refused(crate::link::UNAVAILABLE, _) | Reply::Broken => {}
                Reply::Refused(_, error) => return self.refused(link.world, &error),
            }
        }
        self.close(link.world);
    }

    fn take_reply(&mut self, world: &World, reply: &Value) {
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
        if reply["next_offset"] != self.next_offset {
            let (next, told) = (self.next_offset, &reply["next_offset"]);
            world.history.wrong(
                self.key,
                format!("next_offset {told}, chunks end at {next}"),
            );
        }
        if let Some(end) = reply.get("end").filter(|end| !end.is_null()) {
            self.end(world, end);
        }
    }

    fn take(&mut self, world: &World, subscription: &Value, frame: Frame) {
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

    fn begin(&mut self, world: &World, how: How) {
        self.name = world.history.name();
        let (reader, from) = (self.name, self.next_offset);
        world
            .history
            .note(self.key, What::Began { reader, from, how });
    }

    fn close(&mut self, world: &World) {
        self.flush(world);
    }

    fn flush(&mut self, world: &World) {
        if let Some(span) = self.span.take() {
            let reader = self.name;
            world.history.note(self.key, What::Shown { reader, span });
        }
    }

    /// Every offset that was ever shown is accepted.
    fn refused(&mut self, world: &World, error: &Value) {
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

    fn has_enough(&self, world: &World) -> bool {
        self.ended || self.words_left == 0 || self.silences_left == 0 || world.is_over()
    }
}
