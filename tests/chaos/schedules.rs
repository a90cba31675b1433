//! Planners: they create schedules, change, pause and delete them, run them at once, and record what
//! was answered. They judge nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::emit,
    history::What,
    link::{CONFLICT, Link, NOT_FOUND},
    random::Random,
    world::World,
};

/// Schedules of one planner.
const EACH: u64 = 3;
/// How long the last runs may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// The queue of their jobs.
pub const QUEUE: &str = "schedules";
/// A step so long that a schedule has no time; what waits still runs.
const NO_TIME_S: u64 = 1 << 40;
/// Bytes that a run writes in a millisecond.
const BYTES_PER_MS: u64 = 10;

/// What a schedule is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its times are the multiples of this, which divides a minute.
    pub step_s: u64,
    pub overlap: &'static str,
    pub catch_up: &'static str,
    pub paused: bool,
    /// The seed of what its runs write.
    pub seed: u64,
    /// How long its runs take.
    pub length_ms: u64,
}

/// What a schedule tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub runs: u64,
    pub skipped: u64,
    /// Times whose runs wait, microseconds.
    pub waiting: Vec<u64>,
}

impl Definition {
    fn draw(random: &mut Random) -> Self {
        let step_s = random.weighted(&[(4, 1), (3, 2), (2, 5), (2, 20), (1, 30), (1, 60)]);
        // Most are over before the next one; otherwise more and more would wait.
        let overlaps = random.percent(20) && step_s > 1;
        Self {
            step_s,
            overlap: random.weighted(&[(4, "queue"), (3, "replace"), (3, "skip")]),
            catch_up: random.weighted(&[(5, "all"), (3, "last"), (3, "none")]),
            paused: false,
            seed: random.number() >> 11,
            length_ms: match overlaps {
                true => random.within(800, 1500 * step_s).min(6000),
                false => random.within(0, 300),
            },
        }
    }

    /// One without anything special.
    #[cfg(test)]
    pub fn plain(overlap: &'static str, catch_up: &'static str) -> Self {
        Self {
            step_s: 2,
            overlap,
            catch_up,
            paused: false,
            seed: 77,
            length_ms: 0,
        }
    }

    /// Another one with some of its values.
    fn changed(&self, random: &mut Random) -> Self {
        let other = Self::draw(random);
        let mut changed = self.clone();
        if random.percent(40) {
            (changed.step_s, changed.length_ms) = (other.step_s, other.length_ms);
        }
        if random.percent(40) {
            changed.overlap = other.overlap;
        }
        if random.percent(40) {
            changed.catch_up = other.catch_up;
        }
        changed.seed = other.seed;
        changed
    }

    fn params(&self, name: &str, world: &World) -> Value {
        let ledger = world.ledger.to_str().expect("a UTF-8 path");
        let bytes = (self.length_ms * BYTES_PER_MS).to_string();
        let mut argv = vec![emit(), "--ledger", ledger, "--bytes", &bytes];
        let seed = self.seed.to_string();
        argv.extend(["--seed", &seed, "--chunk", "100:100", "--pause-us", "10000"]);
        json!({
            "name": name,
            "cron": match self.step_s {
                60 => "* * * * *".to_owned(),
                NO_TIME_S => "0 0 29 2 *".to_owned(),
                step => format!("*/{step} * * * * *"),
            },
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "paused": self.paused,
            "job": {"argv": argv, "env": world.env, "grace_s": 0.3, "queue": QUEUE},
        })
    }
}

/// Plans until the world closes; then lets its schedules have no more times, and waits for their runs.
pub fn work(world: &World, salt: u64) {
    let mut link = Link::new(world, salt);
    let names: Vec<String> = (0..EACH).map(|nth| format!("tick-{salt}-{nth}")).collect();
    let mut plans: Vec<Option<Definition>> = vec![None; names.len()];
    while !world.is_closing() {
        thread::sleep(link.random.millis(150, 1500));
        let nth = link.random.below(EACH) as usize;
        plans[nth] = meddle(&mut link, &names[nth], plans[nth].take());
    }
    for (name, plan) in names.iter().zip(plans) {
        if let Some(plan) = plan {
            // A paused one would keep what waits.
            let (step_s, paused) = (NO_TIME_S, false);
            let rest = Definition {
                step_s,
                paused,
                ..plan
            };
            set(&mut link, name, rest);
            let account = settled(&mut link, name);
            note_account(world, name, account);
        }
    }
}

/// Does something to a schedule; returns what it is then.
fn meddle(link: &mut Link, name: &str, plan: Option<Definition>) -> Option<Definition> {
    let Some(plan) = plan else {
        let plan = Definition::draw(&mut link.random);
        return set(link, name, plan);
    };
    match link.random.below(20) {
        0..7 => {
            let plan = plan.changed(&mut link.random);
            set(link, name, plan)
        }
        7..11 => {
            let paused = !plan.paused;
            set(link, name, Definition { paused, ..plan })
        }
        11..17 => {
            run_at_once(link, name);
            Some(plan)
        }
        _ => {
            pause(link, name, plan);
            let account = listed(link, name).map(|it| account(&it));
            note_account(link.world, name, account);
            delete(link, name);
            None
        }
    }
}

fn set(link: &mut Link, name: &str, plan: Definition) -> Option<Definition> {
    let asked_us = link.world.history.now_us();
    ask(link, "schedule.set", &plan.params(name, link.world));
    note(link.world, name, asked_us, Some(plan.clone()));
    Some(plan)
}

fn pause(link: &mut Link, name: &str, plan: Definition) {
    let paused = true;
    set(link, name, Definition { paused, ..plan });
}

fn delete(link: &mut Link, name: &str) {
    let asked_us = link.world.history.now_us();
    match link.insist(None, "schedule.delete", name, &json!({ "name": name })) {
        // Not found: the reply to an earlier try was lost.
        Some(Ok(_) | Err((NOT_FOUND, _))) => note(link.world, name, asked_us, None),
        Some(Err((_, error))) => wrong(link.world, "schedule.delete", &error),
        None => {}
    }
}

fn run_at_once(link: &mut Link, name: &str) {
    let (name, key) = (name.to_owned(), link.random.number().to_string());
    let params = json!({"name": name, "key": key});
    let job = match link.insist(None, "schedule.run", &name, &params) {
        Some(Ok((_, reply))) => reply["job"]["id"].as_str().map(str::to_owned),
        Some(Err((CONFLICT, _))) => None,
        Some(Err((_, error))) => return wrong(link.world, "schedule.run", &error),
        None => return,
    };
    let history = &link.world.history;
    history.note(None, What::RunAtOnce { name, key, job });
}

/// Waits until no run waits and none is live; what the schedule tells then.
fn settled(link: &mut Link, name: &str) -> Option<Account> {
    let began = Instant::now();
    while began.elapsed() < ENDS_WITHIN && !link.world.is_over() {
        let listed = listed(link, name)?;
        let live = json!({"state": ["queued", "running"], "queue": QUEUE, "limit": 1});
        let live = ask(link, "job.list", &live)?;
        if account(&listed).waiting.is_empty() && live["jobs"] == json!([]) {
            return Some(account(&listed));
        }
        thread::sleep(Duration::from_millis(200));
    }
    let what = format!("runs of {name} wait for ever");
    link.world.history.wrong(None, what);
    None
}

fn listed(link: &mut Link, name: &str) -> Option<Value> {
    let listed = ask(link, "schedule.list", &json!({}))?;
    let mut schedules = listed["schedules"].as_array()?.iter();
    schedules.find(|it| it["name"] == name).cloned()
}

fn account(schedule: &Value) -> Account {
    let waiting = schedule["waiting"].as_array().into_iter().flatten();
    let waiting = waiting.filter_map(|at| micros(at.as_str()?));
    Account {
        runs: schedule["runs"].as_u64().unwrap_or(u64::MAX),
        skipped: schedule["skipped"].as_u64().unwrap_or(u64::MAX),
        waiting: waiting.collect(),
    }
}

/// RFC 3339 as microseconds since 1970.
fn micros(text: &str) -> Option<u64> {
    let moment = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(moment.timestamp_micros()).ok()
}

fn note(world: &World, name: &str, asked_us: u64, definition: Option<Definition>) {
    let name = name.to_owned();
    let what = What::Scheduled {
        name,
        asked_us,
        definition,
    };
    world.history.note(None, what);
}

fn note_account(world: &World, name: &str, account: Option<Account>) {
    if let Some(account) = account {
        let name = name.to_owned();
        world.history.note(None, What::Accounted { name, account });
    }
}

fn ask(link: &mut Link, method: &'static str, params: &Value) -> Option<Value> {
    match link.insist(None, method, "", params)? {
        Ok((_, reply)) => Some(reply),
        Err((_, error)) => {
            wrong(link.world, method, &error);
            None
        }
    }
}

fn wrong(world: &World, method: &str, error: &Value) {
    world.history.wrong(None, format!("{method}: {error}"));
}
