//! Those who pause, resume, signal and cancel jobs, wait for them, and talk to them. They record
//! what they asked and were told and judge nothing.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    facts::Facts,
    history::What,
    link::{CONFLICT, LIMIT_EXCEEDED, Link, NOT_FOUND, Reply},
    plan::Kind,
    world::{Known, World},
};

/// Pauses, resumes, signals and cancels those jobs that may be meddled with.
pub fn control(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_closing() {
        thread::sleep(link.random.millis(20, 200));
        let mut live = world.live();
        live.retain(|job| job.plan.meddle);
        let Some(job) = link.random.one_of(&live).cloned() else {
            continue;
        };
        match link.random.below(20) {
            0..10 => pause(&mut link, &job),
            10..15 => act(&mut link, &job, "cancel"),
            15..18 => act(&mut link, &job, "kill"),
            _ => signal(&mut link, &job),
        }
    }
}

fn pause(link: &mut Link, job: &Known) {
    act(link, job, "pause");
    thread::sleep(link.random.millis(0, 1500));
    act(link, job, "resume");
}

/// Asks until it is done or refused for good.
fn act(link: &mut Link, job: &Known, action: &'static str) {
    let params = json!({"job": job.id, "action": action});
    let answer = link.insist(Some(job.plan.key), "job.control", action, &params);
    if let Some(Ok((_, reply))) = answer {
        told(link.world, job, &reply);
    }
}

/// A signal is an event: it is asked for once, whatever comes of it.
fn signal(link: &mut Link, job: &Known) {
    let params = json!({"job": job.id, "action": "signal", "signal": "SIGUSR2"});
    link.call(Some(job.plan.key), "job.control", "signal", params);
}

/// Enters a job that a call told, if it is final.
fn told(world: &World, job: &Known, reply: &Value) {
    if let Some(facts) = Facts::of(reply) {
        world
            .history
            .note(Some(job.plan.key), What::Final { facts });
    }
}

/// Waits for some jobs at a time.
pub fn wait(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        let count = link.random.within(1, 4);
        let jobs: Vec<Arc<Known>> = (0..count)
            .filter_map(|_| world.some(&mut link.random))
            .collect();
        if jobs.is_empty() {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let until = match link.random.below(4) {
            0 => json!("running"),
            1 => json!({"bytes": link.random.below(3000)}),
            _ => json!("final"),
        };
        let mode = if link.random.percent(50) {
            "any"
        } else {
            "all"
        };
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let timeout_s = link.random.within(0, 2000) as f64 / 1000.0;
        let params = json!({"jobs": ids, "mode": mode, "until": until, "timeout_s": timeout_s});
        let key = Some(jobs[0].plan.key);
        thread::sleep(link.random.millis(1, 50));
        match link.call(key, "job.wait", &until.to_string(), params) {
            Reply::Done(_, reply) => {
                let told_jobs = reply["jobs"].as_array().cloned().unwrap_or_default();
                if told_jobs.len() != jobs.len() {
                    world.history.wrong(key, format!("job.wait: {reply:.300}"));
                }
                for (job, value) in jobs.iter().zip(&told_jobs) {
                    told(world, job, value);
                }
            }
            Reply::Refused(crate::link::UNAVAILABLE, _) | Reply::Broken => {}
            Reply::Refused(NOT_FOUND, _) if jobs.iter().any(|job| is_deleting(job)) => {}
            Reply::Refused(_, error) => world.history.wrong(key, format!("job.wait: {error}")),
        }
    }
}

/// Sends each job that echoes what it is to echo, piece by piece; each piece until it is taken.
pub fn talk(world: &World, salt: u64) {
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

/// Deletes those final jobs that are to be deleted.
pub fn sweep(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        thread::sleep(link.random.millis(10, 150));
        match world.next_doomed() {
            Some(job) if job.done.load(Ordering::Relaxed) => delete(&mut link, &job),
            Some(job) => world.doom(job),
            None => {}
        }
    }
}

fn delete(link: &mut Link, job: &Known) {
    job.deleting.store(true, Ordering::Relaxed);
    let (key, history) = (Some(job.plan.key), &link.world.history);
    match link.insist(key, "job.delete", "", &json!({"job": job.id})) {
        // Not found: the reply to an earlier try was lost.
        Some(Ok(_) | Err((NOT_FOUND, _))) => history.note(key, What::Deleted),
        Some(Err((_, error))) => history.wrong(key, format!("job.delete: {error}")),
        None => {}
    }
}

fn is_deleting(job: &Known) -> bool {
    job.deleting.load(Ordering::Relaxed)
}

/// After the load: whatever is paused goes on, whatever is endless is cancelled.
pub fn wind_down(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    for job in world.live() {
        if job.plan.kind == Kind::Endless {
            act(&mut link, &job, "cancel");
        }
        if job.plan.meddle {
            act(&mut link, &job, "resume");
        }
    }
}
