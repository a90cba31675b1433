//! Gathers the evidence when the load is over, lets the checkers judge it, and compares every byte
//! with what a server says that knows nothing of the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    checks::{self, Violation, leftovers::Remains},
    evidence::{Evidence, Line},
    facts::Facts,
    harness::Server,
    history::{Entry, Span, What},
    kills::Tally,
    link::Link,
    plan::Key,
    report::{self, Figures},
    rows::{JobRow, Rows},
    truth::Truth,
    world::World,
};

/// Downloads at a time.
const DOWNLOADERS: u64 = 2;

/// Judges a run whose load is over.
pub fn judge(
    world: World,
    server: &mut Server,
    tally: Tally,
) -> (Evidence, Figures, Vec<Violation>) {
    let remains = remains(server);
    let rows = Rows::read(&server.data_dir());
    let trail = server.cli("audit").args(["verify"]).run();
    let fresh = World::new(world.settings.clone(), {
        server.restart();
        server
    });
    let evidence = gather(world, rows);
    let touched = evidence.touched();
    let mut violations = checks::answers::check(&evidence);
    violations.extend(checks::presence::check(&evidence));
    violations.extend(checks::starts::check(&evidence, &touched));
    violations.extend(checks::transitions::check(&evidence));
    violations.extend(checks::dependencies::check(&evidence));
    violations.extend(checks::times::check(&evidence));
    violations.extend(checks::retries::check(&evidence, &touched));
    violations.extend(checks::exclusive::check(&evidence));
    violations.extend(checks::notices::check(&evidence));
    violations.extend(checks::schedules::check(&evidence));
    violations.extend(checks::readers::check(&evidence));
    violations.extend(checks::audit::check(trail.code(), &trail.out()));
    let launched_us = evidence.last_launch_us();
    violations.extend(checks::leftovers::check(
        &remains,
        &evidence.rows,
        launched_us,
    ));
    let compared = compare(&fresh, &evidence);
    violations.extend(compared.violations);
    violations.extend(checks::ends::check(&evidence, &touched, &compared.last));
    let figures = Figures {
        tally,
        ends: report::ends(&compared.last),
        bytes_of_outputs: compared.bytes_of_outputs,
        bytes_shown: compared.bytes_shown,
        untouched: touched
            .values()
            .filter(|touched| touched.is_untouched())
            .count(),
        deleted: evidence.deleted().len(),
        voids: evidence
            .rows
            .attempts
            .iter()
            .filter(|row| row.state == "void")
            .count(),
        waits: report::waits(&evidence),
        violations: violations.len(),
    };
    (evidence, figures, violations)
}

/// Looks at the idle server, stops it, and looks again.
fn remains(server: &mut Server) -> Remains {
    if server.has_ended().is_some() {
        server.kill_9();
        server.restart();
    }
    let mut remains = Remains::of_idle(server);
    server.stop();
    remains.add_stopped(&server.data_dir());
    remains
}

fn gather(world: World, rows: Rows) -> Evidence {
    let text = fs::read_to_string(&world.ledger).unwrap_or_default();
    let mut lines = Vec::new();
    for line in text.lines() {
        match Line::parse(line) {
            Some(line) => lines.push(line),
            None => world
                .history
                .wrong(None, format!("a line in the ledger: {line:?}")),
        }
    }
    let deliveries = world.receiver.deliveries();
    let plans = world
        .known()
        .iter()
        .map(|job| (job.plan.key, job.plan.clone()))
        .collect();
    Evidence {
        plans,
        entries: world.history.into_entries(),
        rows,
        lines,
        deliveries,
    }
}

/// What came of comparing all bytes.
#[derive(Debug, Default)]
struct Compared {
    violations: Vec<Violation>,
    last: BTreeMap<Key, Facts>,
    bytes_of_outputs: u64,
    bytes_shown: u64,
}

/// Downloads every job and compares it with its plan and with all that was shown of it.
fn compare(world: &World, evidence: &Evidence) -> Compared {
    let (shown, whole) = (shown(evidence), evidence.whole_attempts());
    let readers = readers(evidence);
    let ids: BTreeMap<Key, &str> = evidence
        .keys_by_id()
        .into_iter()
        .map(|(id, key)| (key, id))
        .collect();
    // Of deleted jobs there is nothing to compare.
    let there: BTreeSet<Key> = evidence.rows.jobs.iter().filter_map(JobRow::key).collect();
    let deleted = evidence.deleted();
    let is_there = |key: &&Key| there.contains(key) || !deleted.contains(key);
    let keys: Vec<Key> = evidence.plans.keys().filter(is_there).copied().collect();
    let (next, compared) = (AtomicUsize::new(0), Mutex::new(Compared::default()));
    thread::scope(|scope| {
        for salt in 0..DOWNLOADERS {
            let (next, keys, ids, compared) = (&next, &keys, &ids, &compared);
            let (shown, whole, none) = (&shown, &whole, BTreeSet::new());
            let readers = &readers;
            scope.spawn(move || {
                let mut link = Link::new(world, salt);
                while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let truth = Truth::download(&mut link, *key, ids.get(key).unwrap_or(&"gone"));
                    let verdict = verify(&mut link, *key, ids.get(key).unwrap_or(&"gone"));
                    let shown = shown.get(key).map_or(&[][..], Vec::as_slice);
                    let whole = whole.get(key).unwrap_or(&none);
                    let found = checks::bytes::check(&evidence.plans[key], &truth, shown, whole);
                    let mut compared = compared.lock().expect("what was compared");
                    compared.violations.extend(found);
                    let readers = readers.get(key).map_or(&[][..], Vec::as_slice);
                    let found = checks::streams::check(*key, &truth, readers);
                    compared.violations.extend(found);
                    let broken = checks::intact::check(*key, &verdict);
                    compared.violations.extend(broken);
                    compared.bytes_of_outputs += truth.next_offset;
                    compared.bytes_shown += shown.iter().map(|span| span.length).sum::<u64>();
                    compared.last.extend(truth.facts.map(|facts| (*key, facts)));
                }
            });
        }
    });
    compared.into_inner().expect("what was compared")
}

/// What the server says when it looks a job through.
fn verify(link: &mut Link, key: Key, id: &str) -> Value {
    let params = json!({ "job": id });
    match link.insist(Some(key), "transcript.verify", "", &params) {
        Some(Ok((_, verdict))) => verdict,
        Some(Err((_, error))) => error,
        None => Value::Null,
    }
}

/// What each reader of each job was told.
fn readers(evidence: &Evidence) -> BTreeMap<Key, Vec<Vec<&Entry>>> {
    let mut readers: BTreeMap<Key, Vec<Vec<&Entry>>> = BTreeMap::new();
    for entries in evidence.readers().into_values() {
        if let Some(key) = entries[0].job {
            readers.entry(key).or_default().push(entries);
        }
    }
    readers
}

/// What was shown of each job, by anybody.
fn shown(evidence: &Evidence) -> BTreeMap<Key, Vec<Span>> {
    let mut shown: BTreeMap<Key, Vec<Span>> = BTreeMap::new();
    for entry in &evidence.entries {
        if let (Some(key), What::Shown { span, .. }) = (entry.job, &entry.what) {
            shown.entry(key).or_default().push(*span);
        }
    }
    shown
}
