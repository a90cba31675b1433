//! Reads random jobs from random offsets, by `job.tail` in either encoding or by `job.read`, hangs
//! up at random and goes on at its own next offset. What it is shown is `reading`'s business.

use std::{sync::atomic::Ordering, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::Frame,
    history::How,
    link::{Link, Reply, UNAVAILABLE},
    reading::Reading,
    world::World,
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
        let stream = match link.random.below(10) {
            stream @ 0..2 => Some(stream as u8),
            _ => None,
        };
        let mut reading = Reading::new(&job, from, stream, words);
        match link.random.percent(70) {
            true => tail(&mut link, &mut reading),
            false => read(&mut link, &mut reading),
        }
        thread::sleep(link.random.millis(1, 30));
    }
}

/// Follows by `job.tail` until it has enough.
fn tail(link: &mut Link, reading: &mut Reading) {
    while !reading.has_enough(link.world) {
        let encoding = match link.random.percent(50) {
            true => "binary",
            false => "text",
        };
        let params = json!({"job": reading.job.id, "from": reading.next_offset,
                            "streams": reading.streams(), "encoding": encoding});
        let note = format!("from {}", reading.next_offset);
        match link.call(reading.key, "job.tail", &note, params) {
            Reply::Done(_, reply) => {
                reading.begin(link.world, How::Tail);
                let whole = follow(link, reading, &reply["subscription"]);
                reading.flush(link.world);
                if whole {
                    leave(link, reading, &reply["subscription"]);
                }
            }
            Reply::Refused(UNAVAILABLE, _) | Reply::Broken => {}
            Reply::Refused(_, error) => return reading.refused(link.world, &error),
        }
    }
}

/// Takes notifications; returns whether the connection is still there.
fn follow(link: &mut Link, reading: &mut Reading, subscription: &Value) -> bool {
    while !reading.has_enough(link.world) {
        match link.frame(PATIENCE) {
            None => reading.silences_left = reading.silences_left.saturating_sub(1),
            Some(Frame::Closed(_)) => return false,
            Some(frame) => reading.take(link.world, subscription, frame),
        }
        if link.random.below(400) == 0 {
            // A slow reader.
            thread::sleep(link.random.millis(50, 400));
        }
    }
    true
}

/// Ends a tail in one of three ways: hangs up, or says so and listens for what must not come.
fn leave(link: &mut Link, reading: &mut Reading, subscription: &Value) {
    if link.random.percent(50) {
        return link.hang_up();
    }
    let params = json!({"subscription": subscription});
    let reply = link.call(reading.key, "job.untail", "", params);
    // What came before the reply is kept in front of what comes behind it.
    while let Some(frame) = link.frame(Duration::ZERO) {
        if matches!(frame, Frame::Closed(_)) {
            return;
        }
        if reading.ended {
            reading.behind(link.world, subscription, &frame);
        }
    }
    if let (Reply::Done(..), Some(frame)) = (reply, link.frame(Duration::from_millis(2))) {
        reading.behind(link.world, subscription, &frame);
    }
}

/// Reads by `job.read` until it has enough.
fn read(link: &mut Link, reading: &mut Reading) {
    reading.begin(link.world, How::Read);
    while !reading.has_enough(link.world) {
        let max_bytes = match link.random.percent(50) {
            true => 524_288,
            false => link.random.within(1, 70_000),
        };
        let wait_ms = link.random.below(300);
        let params = json!({"job": reading.job.id, "from": reading.next_offset,
                            "streams": reading.streams(), "max_bytes": max_bytes, "wait_ms": wait_ms});
        let note = format!("from {}", reading.next_offset);
        let wait = Duration::from_millis(wait_ms);
        match link.call_within(wait, reading.key, "job.read", &note, params) {
            Reply::Done(_, reply) => reading.take_reply(link.world, &reply),
            Reply::Refused(UNAVAILABLE, _) | Reply::Broken => {}
            Reply::Refused(_, error) => return reading.refused(link.world, &error),
        }
    }
    reading.flush(link.world);
}
