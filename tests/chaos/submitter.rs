//! Submits jobs under keys, again and again until each is acknowledged: one by one, in batches,
//! from several connections at once, and long after it was acknowledged.

use std::{sync::atomic::Ordering, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    history::What,
    link::{Link, NOT_FOUND},
    plan::Plan,
    waiting::{After, Target},
    world::World,
};

/// Jobs that are not final, at which nobody makes more.
const UNFINISHED_MAX: usize = 60;

/// What the server calls a job: id and number.
type Name = (String, u64);

/// Makes jobs until the world closes.
pub fn work(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_closing() {
        if world.live().len() >= UNFINISHED_MAX {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        match link.random.below(10) {
            0..2 => batch(&mut link),
            2 => in_parallel(&mut link),
            3 => repeat(&mut link),
            _ => {
                let plan = world.plan();
                submit(&mut link, plan);
            }
        }
        thread::sleep(link.random.millis(20, 220));
    }
}

fn submit(link: &mut Link, plan: Plan) {
    if let Some(name) = acknowledged(link, &plan) {
        link.world.add(plan, name);
    }
}

/// Submits until there is an id; `None` also where a job was deleted that this one waits for.
fn acknowledged(link: &mut Link, plan: &Plan) -> Option<Name> {
    let params = plan.new_job(
        &link.world.ledger,
        &link.world.env,
        &link.world.receiver.url,
    );
    let answer = link.insist(Some(plan.key), "job.submit", "", &params)?;
    match answer {
        Ok((call, result)) => enter(link.world, plan, call, &result["job"], &result),
        Err((NOT_FOUND, _)) if link.world.may_lack_dependency(plan) => None,
        Err((_, error)) => {
            link.world
                .history
                .wrong(Some(plan.key), format!("submit: {error}"));
            None
        }
    }
}

/// Enters an acknowledgement.
fn enter(world: &World, plan: &Plan, call: u32, job: &Value, reply: &Value) -> Option<Name> {
    let (id, number) = (job["id"].as_str()?.to_owned(), job["number"].as_u64()?);
    let created = reply["created"] == true;
    let what = What::Acknowledged {
        call,
        id: id.clone(),
        number,
        created,
    };
    world.history.note(Some(plan.key), what);
    Some((id, number))
}

/// The same submit from several connections at once.
fn in_parallel(link: &mut Link) {
    let (world, plan) = (link.world, link.world.plan());
    let salts: Vec<u64> = (0..link.random.within(2, 5))
        .map(|_| link.random.number())
        .collect();
    let plan = &plan;
    let names: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = salts
            .into_iter()
            .map(|salt| scope.spawn(move || acknowledged(&mut Link::new(world, salt), plan)))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().expect("a submitter"))
            .collect()
    });
    if let Some(name) = names.into_iter().next() {
        world.add(plan.clone(), name);
    }
}

/// Submits a job that was acknowledged before, whatever has become of it.
fn repeat(link: &mut Link) {
    // The key of a deleted job is free again.
    if let Some(known) = link.world.some(&mut link.random)
        && !known.plan.delete
        && known.plan.waiting.stands_alone()
    {
        acknowledged(link, &known.plan);
    }
}

/// Plans of which some wait for others.
fn graph(link: &mut Link) -> Vec<Plan> {
    let count = link.random.within(2, 6) as usize;
    let mut plans: Vec<Plan> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut plan = link.world.plan();
        if !plans.is_empty() && link.random.percent(50) {
            let entry = link.random.below(plans.len() as u64) as usize;
            plan.waiting.after.push(After {
                key: plans[entry].key,
                target: Target::Entry(entry),
                on_success: link.random.percent(60),
            });
        }
        plans.push(plan);
    }
    plans
}

/// Several jobs in one commit.
fn batch(link: &mut Link) {
    let (world, plans) = (link.world, graph(link));
    let jobs = plans
        .iter()
        .map(|plan| plan.new_job(&world.ledger, &world.env, &world.receiver.url));
    let params = json!({"jobs": jobs.collect::<Vec<_>>()});
    let note = format!("keys {}..={}", plans[0].key, plans[plans.len() - 1].key);
    let Some(answer) = link.insist(Some(plans[0].key), "job.submit_many", &note, &params) else {
        return;
    };
    match answer {
        Ok((call, result)) => {
            let jobs = result["jobs"].as_array().cloned().unwrap_or_default();
            if jobs.len() != plans.len() {
                world.history.wrong(None, format!("submit_many: {result}"));
            }
            for (plan, job) in plans.into_iter().zip(jobs) {
                if let Some(name) = enter(world, &plan, call, &job, &job) {
                    world.add(plan, name);
                }
            }
        }
        Err((NOT_FOUND, _)) if plans.iter().any(|plan| world.may_lack_dependency(plan)) => {}
        Err((_, error)) => world.history.wrong(None, format!("submit_many: {error}")),
    }
}

/// Notices which jobs are final: those that are in no list of live ones any more.
pub fn watch(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    while !world.is_over() {
        let waiting = world.live();
        let states = json!(["queued", "running", "paused", "scheduled", "blocked"]);
        let params = json!({"state": states, "limit": 1000});
        if let Some(Ok((_, page))) = link.insist(None, "job.list", "", &params) {
            let live: Vec<&str> = page["jobs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|job| job["id"].as_str())
                .collect();
            for job in waiting
                .iter()
                .filter(|job| !live.contains(&job.id.as_str()))
            {
                job.done.store(true, Ordering::Relaxed);
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
}
