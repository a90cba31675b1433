//! Reads each acknowledged job to its end, at its own offset over any number of connections.

use std::sync::{Mutex, mpsc::Receiver};

use serde_json::{Value, json};

use crate::{
    Acknowledged, Door,
    harness::{Client, Frame, Transcript},
};

/// Takes jobs until there are no more; returns those that it has read and found right.
pub(crate) fn work(door: &Door, jobs: &Mutex<Receiver<Acknowledged>>) -> Vec<Acknowledged> {
    let mut read = Vec::new();
    let mut client = door.connect();
    loop {
        let next = jobs.lock().expect("the receiver").recv();
        let Ok(job) = next else {
            return read;
        };
        let transcript = follow(door, &mut client, &job.id);
        job.plan.check(&transcript);
        read.push(job);
    }
}

fn follow(door: &Door, client: &mut Client, id: &Value) -> Transcript {
    let mut transcript = Transcript::default();
    loop {
        transcript.resume();
        let params = json!({"job": id, "from": transcript.next_offset});
        match client.try_call("job.tail", params) {
            Ok(Ok(_)) => take(client, &mut transcript),
            Ok(Err(error)) => panic!("{id} was acknowledged: {error}"),
            Err(_broken) => {}
        }
        if transcript.end.is_some() {
            return transcript;
        }
        *client = door.connect();
    }
}

/// Takes notifications until the end or until the connection breaks.
fn take(client: &mut Client, transcript: &mut Transcript) {
    while transcript.end.is_none() {
        match client.frame_or_closed() {
            Frame::Json(value) => transcript.take(&value),
            Frame::Closed(_) => return,
            other => panic!("{other:?}"),
        }
    }
}
