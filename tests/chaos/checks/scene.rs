//! A small honest run, made by hand: what the tests of the checkers plant their violations in.

use std::collections::BTreeMap;

use crate::{
    evidence::{Evidence, Line},
    facts::Facts,
    harness::sha256,
    history::{Entry, How, Span, Target, What},
    oracle,
    plan::{End, Key, Kind, Plan},
    rows::{AttemptRow, EventRow, JobRow, Rows},
    truth::Truth,
    waiting::{Retry, Waiting},
};

/// Jobs of the scene.
const JOBS: Key = 3;

/// When the first job was submitted. Each job has a tenth of a second; they come one after the other.
pub const SUBMITTED_US: u64 = 1_000_000;

/// When a job is claimed after its submission.
const CLAIMED_AFTER_US: u64 = 10;

/// A job that writes to both streams and ends with 0, the first of its sort that a seed yields.
pub fn writer() -> Plan {
    nth_writer(0)
}

fn nth_writer(n: Key) -> Plan {
    let is_it = |plan: &Plan| {
        plan.kind == Kind::Writes
            && plan.end == End::Code(0)
            && plan.stdout_bytes > 100
            && plan.stderr_bytes > 100
    };
    let mut plans = (0..).map(|key| Plan::new(1, key, true)).filter(is_it);
    let mut plan = plans.nth(n as usize).expect("there are some");
    (plan.key, plan.again, plan.retry) = (n, false, None);
    plan.notify.clear();
    plan.waiting = Waiting::default();
    plan
}

/// What stands there when it has written everything.
pub fn truth(plan: &Plan) -> Truth {
    let mut truth = Truth::default();
    for (stream, length) in [(0, plan.stdout_bytes), (1, plan.stderr_bytes)] {
        let bytes = oracle::bytes(plan.seed, u64::from(stream), length, plan.raw);
        truth.add(stream, 1, &bytes);
    }
    let all: Vec<u8> = truth
        .runs
        .iter()
        .flat_map(|run| run.bytes.clone())
        .collect();
    truth.facts = Some(Facts {
        state: "succeeded".to_owned(),
        reason: None,
        exit_code: Some(0),
        signal: None,
        attempts: 1,
        output_bytes: truth.next_offset,
        output_sha256: Some(sha256(&all)),
        stop_cause: None,
        survivors: 0,
        failed_dependency: None,
        started_at: None,
        finished_at: None,
    });
    truth
}

/// Jobs that were submitted, read and ended as planned.
pub fn honest() -> Evidence {
    let plans: Vec<Plan> = (0..JOBS).map(nth_writer).collect();
    let mut evidence = Evidence {
        rows: Rows {
            integrity: "ok".to_owned(),
            ..Rows::default()
        },
        ..Evidence::default()
    };
    for plan in plans {
        let number = u64::from(plan.key) + 1;
        add_rows(&mut evidence.rows, number, plan.key);
        evidence.lines.extend([true, false].map(|is_start| Line {
            is_start,
            seed: plan.seed,
            job_id: format!("id-{}", plan.key),
            attempt: 1,
        }));
        add_history(&mut evidence, &plan);
        evidence.plans.insert(plan.key, plan);
    }
    evidence
}

fn add_rows(rows: &mut Rows, number: u64, key: Key) {
    rows.jobs.push(JobRow {
        number,
        id: format!("id-{key}"),
        idempotency_key: format!("chaos-{key}"),
        state: "succeeded".to_owned(),
        attempts: 1,
        ..JobRow::default()
    });
    let submitted = submitted_us(key);
    let claimed = submitted + CLAIMED_AFTER_US;
    rows.attempts.push(AttemptRow {
        job: number,
        attempt: 1,
        state: "ended".to_owned(),
        shim: format!("shim-{key}"),
        claimed_at: claimed,
        started_at: Some(claimed),
        ended_at: Some(claimed + 100),
    });
    let mut step = |from: Option<&str>, to: &str, attempt, at| {
        rows.events.push(EventRow {
            id: rows.events.len() as u64 + 1,
            job: number,
            attempt,
            from: from.map(str::to_owned),
            to: to.to_owned(),
            reason: String::new(),
            at,
        })
    };
    step(None, "queued", 0, submitted);
    step(Some("queued"), "running", 1, claimed);
    step(Some("running"), "succeeded", 1, claimed + 100);
}

fn submitted_us(key: Key) -> u64 {
    SUBMITTED_US + 100_000 * u64::from(key)
}

fn number(key: Key) -> u64 {
    u64::from(key) + 1
}

/// Has a job end in another state.
pub fn ends_as(evidence: &mut Evidence, key: Key, state: &str, reason: &str) {
    let row = &mut evidence.rows.jobs[key as usize];
    (row.state, row.reason) = (state.to_owned(), reason.to_owned());
    let mut events = evidence.rows.events.iter_mut().rev();
    let last = events
        .find(|event| event.job == number(key))
        .expect("events");
    (last.to, last.reason) = (state.to_owned(), reason.to_owned());
}

/// Has a job end from `blocked`.
pub fn never_runs(evidence: &mut Evidence, key: Key) {
    let rows = &mut evidence.rows;
    rows.attempts.retain(|row| row.job != number(key));
    rows.events
        .retain(|event| event.job != number(key) || event.to != "running");
    for event in rows.events.iter_mut().filter(|it| it.job == number(key)) {
        match &mut event.from {
            None => event.to = "blocked".to_owned(),
            Some(from) => *from = "blocked".to_owned(),
        }
        event.attempt = 0;
    }
    rows.jobs[key as usize].attempts = 0;
    let id = format!("id-{key}");
    evidence.lines.retain(|line| line.job_id != id);
}

/// Has a job wait for so long after its submission, and no longer.
pub fn delayed(evidence: &mut Evidence, key: Key, delay_ms: u64) {
    evidence
        .plans
        .get_mut(&key)
        .expect("a plan")
        .waiting
        .delay_ms = delay_ms;
    let rows = &mut evidence.rows;
    let first = rows.events.iter().position(|it| it.job == number(key));
    let first = first.expect("an event");
    let mut queued = rows.events[first].clone();
    (queued.from, queued.at) = (Some("scheduled".to_owned()), queued.at + delay_ms * 1000);
    rows.events[first].to = "scheduled".to_owned();
    rows.events.insert(first + 1, queued);
    for event in &mut rows.events[first + 2..first + 4] {
        event.at += delay_ms * 1000;
    }
    let attempts = rows.attempts.iter_mut();
    for row in attempts.filter(|row| row.job == number(key)) {
        row.started_at = row.started_at.map(|at| at + delay_ms * 1000);
    }
}

/// Has a job fail with 7 at first, wait for the shortest pause of this policy, and succeed then.
pub fn tried_again(evidence: &mut Evidence, key: Key, retry: Retry) {
    let pause = retry.pause_us(1);
    let plan = evidence.plans.get_mut(&key).expect("a plan");
    (plan.retry, plan.end) = (Some(retry), End::Code(7));
    let rows = &mut evidence.rows;
    let at = rows.events.iter().position(|it| it.job == number(key));
    let end = at.expect("an event") + 2;
    let mut again = rows.events[end - 2..=end].to_vec();
    let (to, reason) = ("scheduled".to_owned(), "exit_code".to_owned());
    (rows.events[end].to, rows.events[end].reason) = (to, reason);
    again[0].from = Some("scheduled".to_owned());
    let later = rows.events[end].at + pause - again[0].at;
    for event in &mut again {
        event.at += later;
    }
    (again[1].attempt, again[2].attempt) = (2, 2);
    rows.events.splice(end + 1..end + 1, again);
    let mut second = rows.attempts[key as usize].clone();
    second.attempt = 2;
    second.started_at = second.started_at.map(|at| at + later);
    rows.attempts.insert(key as usize + 1, second);
    rows.jobs[key as usize].attempts = 2;
    let id = format!("id-{key}");
    let lines = evidence.lines.iter().filter(|line| line.job_id == id);
    let lines: Vec<_> = lines
        .map(|line| Line {
            attempt: 2,
            ..line.clone()
        })
        .collect();
    let behind = evidence.lines.iter().rposition(|line| line.job_id == id);
    let behind = behind.expect("a line") + 1;
    evidence.lines.splice(behind..behind, lines);
}

/// Somebody asks for something.
pub fn ask(evidence: &mut Evidence, key: Key, action: &str) {
    let note = action.to_owned();
    self::note(
        evidence,
        key,
        What::Asked {
            call: 77,
            method: "job.control",
            note,
        },
    );
}

fn add_history(evidence: &mut Evidence, plan: &Plan) {
    let (truth, reader) = (truth(plan), plan.key + 1);
    note(
        evidence,
        plan.key,
        What::Acknowledged {
            call: 0,
            id: format!("id-{}", plan.key),
            number: u64::from(plan.key) + 1,
            created: true,
        },
    );
    note(
        evidence,
        plan.key,
        What::Began {
            reader,
            from: 0,
            how: How::Tail,
            stream: None,
        },
    );
    for run in &truth.runs {
        let span = Span {
            offset: run.offset,
            length: run.bytes.len() as u64,
            stream: run.stream,
            attempt: run.attempt,
            crc32c: crc32c::crc32c(&run.bytes),
        };
        note(evidence, plan.key, What::Shown { reader, span });
    }
    note(
        evidence,
        plan.key,
        What::CaughtUp {
            reader,
            next_offset: truth.next_offset,
        },
    );
    let facts = truth.facts.expect("an end");
    note(evidence, plan.key, What::Ended { reader, facts });
}

/// Adds an entry about a job.
pub fn note(evidence: &mut Evidence, key: Key, what: What) {
    evidence.entries.push(Entry {
        at_us: submitted_us(key) + CLAIMED_AFTER_US + 50,
        job: Some(key),
        what,
    });
}

/// Kills the shim of a job while it runs.
pub fn kill_shim(evidence: &mut Evidence, key: Key) {
    let target = Target::Shim(format!("shim-{key}"));
    note(
        evidence,
        key,
        What::Blow {
            target,
            signal: "SIGKILL",
        },
    );
}

/// What each job's end says.
pub fn ends(evidence: &Evidence) -> BTreeMap<Key, Facts> {
    let plans = evidence.plans.iter();
    plans
        .map(|(key, plan)| (*key, truth(plan).facts.expect("an end")))
        .collect()
}
