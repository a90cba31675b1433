//! Talks to the jobs that echo: each piece of what they are to echo is sent until it is taken, some
//! twice. Does not read what they answer.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    link::{CONFLICT, LIMIT_EXCEEDED, Link, NOT_FOUND},
    meddlers::is_deleting,
    world::{Known, World},
};

/// Sends each job that echoes what it is to echo, piece by piece; each piece until it is taken.
pub fn work(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        match world.next_talk() {
            Some(job) => say_all(&mut link, &job),
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn say_all(link: &mut Link, job: &Known) {
    let plan = &job.plan;
    let (mut at, mut piece) = (0, 0);
    while at < plan.stdout_bytes {
        let to = plan.stdout_bytes.min(at + link.random.within(1, 4000));
        let eof = to == plan.stdout_bytes;
        let params = json!({"job": job.id, "data_base64": plan.input(at, to), "eof": eof,
                            "write_id": format!("piece-{piece}")});
        if !say(link, job, &params) || link.random.percent(20) && !eof && !say(link, job, &params) {
            return;
        }
        (at, piece) = (to, piece + 1);
        thread::sleep(link.random.millis(0, 60));
    }
}

/// Returns whether the input was taken.
fn say(link: &mut Link, job: &Known, params: &Value) -> bool {
    let note = params["write_id"].as_str().unwrap_or_default().to_owned();
    loop {
        match link.insist(Some(job.plan.key), "job.input", &note, params) {
            Some(Ok(_)) => return true,
            Some(Err((LIMIT_EXCEEDED, _))) => thread::sleep(Duration::from_millis(10)),
            // It has ended, or the end of its input was taken and only the reply was lost.
            Some(Err((CONFLICT, _))) | None => return false,
            Some(Err((NOT_FOUND, _))) if is_deleting(job) => return false,
            Some(Err((_, error))) => {
                link.world
                    .history
                    .wrong(Some(job.plan.key), format!("job.input: {error}"));
                return false;
            }
        }
    }
}
