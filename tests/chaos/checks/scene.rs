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
};

/// Jobs of the scene.
const JOBS: Key = 3;

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
    (plan.key, plan.again) = (n, false);
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
        reason: String::new(),
        attempts: 1,
    });
    rows.attempts.push(AttemptRow {
        job: number,
        attempt: 1,
        state: "ended".to_owned(),
        shim: format!("shim-{key}"),
        claimed_at: 100,
        ended_at: Some(200),
    });
    let steps = [None, Some("queued"), Some("running"), Some("succeeded")];
    rows.events.extend(steps.windows(2).map(|step| EventRow {
        job: number,
        from: step[0].map(str::to_owned),
        to: step[1].expect("a state").to_owned(),
    }));
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
        at_us: 150,
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
