//! Those who pause, resume, signal, cancel and delete jobs. They record what they asked and were
//! told and judge nothing.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    facts::Facts,
    history::What,
    link::{Link, NOT_FOUND},
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
pub fn told(world: &World, job: &Known, reply: &Value) {
    if let Some(facts) = Facts::of(reply) {
        world
            .history
            .note(Some(job.plan.key), What::Final { facts });
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

/// After the load: waits until no notice waits for its delivery.
pub fn await_notices(world: &World, limit: Duration) {
    let mut link = Link::new(world, 0x4071);
    let began = Instant::now();
    while began.elapsed() < limit && !world.is_over() {
        if let Some(Ok((_, info))) = link.insist(None, "server.info", "", &json!({}))
            && info["notices"]["waiting"] == 0
        {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    world
        .history
        .wrong(None, "notices wait long after the load");
}

/// Whether nobody can rely on the job's being there.
pub fn is_deleting(job: &Known) -> bool {
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
