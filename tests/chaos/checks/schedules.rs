//! Each time of each schedule is one job or is counted, as the policies say that hold then: no time has
//! two jobs, none is forgotten, no job has a time that is none, and each runs once, what it was to run.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::{
    course::{Course, courses},
    evidence::Evidence,
    lives::{CLOCKS_DIFFER_US, Life, Presence, lives},
    rows::RunRow,
};

const NAME: &str = "schedules";
/// A time that is looked at so soon is on time, microseconds; the promise is 10 s.
const ON_TIME_US: u64 = 9_000_000;

/// Judges every schedule.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let (lives, presence) = (lives(evidence), Presence::of(evidence));
    let (courses, hit) = (courses(&evidence.rows), evidence.hit());
    let mut found: Vec<String> = twice(&evidence.rows.runs);
    let mut told = 0;
    for (name, lives) in &lives {
        for life in lives {
            let runs = evidence.rows.runs.iter();
            let runs: Vec<&RunRow> = runs
                .filter(|run| run.schedule == *name && life.covers(run.submitted_at))
                .collect();
            told += runs.len();
            let mut wrong = times(life, &runs, &presence);
            wrong.extend(requests(life, &runs));
            for (nth, run) in runs.iter().enumerate() {
                let before = nth.checked_sub(1).map(|before| runs[before]);
                wrong.extend(meets(life, run, before, &courses));
                let is_hit = hit.contains(&run.number);
                wrong.extend(ran(evidence, life, run, &runs[nth + 1..], is_hit));
            }
            found.extend(wrong.into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    if told != evidence.rows.runs.len() {
        let all = evidence.rows.runs.len();
        found.push(format!("{all} runs, of which {told} belong to a schedule"));
    }
    let violations = found.into_iter();
    violations
        .map(|what| Violation::general(NAME, what))
        .collect()
}

/// Times and requests that have two jobs.
fn twice(runs: &[RunRow]) -> Vec<String> {
    let mut times = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut found = Vec::new();
    for run in runs {
        let is_new_time = times.insert((&run.schedule, run.at));
        let is_new_key = run
            .request()
            .is_none_or(|key| keys.insert((&run.schedule, key)));
        if !is_new_time || !is_new_key {
            found.push(format!("twice: {run:?}"));
        }
    }
    found
}

/// What is wrong with the times that have a job, and with those that have none.
fn times(life: &Life, runs: &[&RunRow], presence: &Presence) -> Vec<String> {
    let mut found = Vec::new();
    let by_clock = runs.iter().filter(|run| run.request().is_none());
    let fired: BTreeMap<u64, &RunRow> = by_clock.map(|run| (run.at, *run)).collect();
    for (at, run) in &fired {
        let held = life.held(*at, *at);
        if !held.iter().flatten().any(|it| it.has(*at)) {
            found.push(format!("is none of its times: {run:?}"));
        }
        if run.submitted_at + CLOCKS_DIFFER_US < *at {
            found.push(format!("before its time: {run:?}"));
        }
    }
    let none = Vec::new();
    let waiting = life.account.as_ref().map_or(&none, |it| &it.waiting);
    // Of the waiting ones, those that went with their schedule.
    let dropped = waiting.iter().filter(|at| !fired.contains_key(at)).count();
    if dropped > 0 && !life.is_over() {
        found.push(format!("{dropped} runs wait for ever"));
    }
    let (mut must, mut may) = (0, 0);
    for at in life.seconds() {
        let held = life.held(at, at);
        may += u64::from(held.iter().flatten().any(|it| it.has(at)));
        if !held.iter().all(|it| it.is_some_and(|it| it.has(at))) {
            continue;
        }
        must += 1;
        if !fired.contains_key(&at) && !waiting.contains(&at) && must_run(life, at, presence) {
            found.push(format!("{at} was forgotten"));
        }
    }
    let Some(account) = &life.account else {
        found.push("has told nothing of itself".to_owned());
        return found;
    };
    let told = fired.len() as u64 + account.skipped + dropped as u64;
    if !(must..=may).contains(&told) {
        let fired = fired.len();
        found.push(format!(
            "{must} to {may} times, of which {fired} have a job: {account:?}"
        ));
    }
    let count = runs.len() as u64;
    if !(count.saturating_sub(waiting.len() as u64)..=count).contains(&account.runs) {
        found.push(format!("{count} runs: {account:?}"));
    }
    found
}

/// Whether a time is one that must run, and not only be counted.
fn must_run(life: &Life, at: u64, presence: &Presence) -> bool {
    let held = life.held(at, at);
    let mut held = held.iter().flatten();
    let looked = presence.looks_after(at);
    held.all(|it| {
        let next = at + it.step_s * 1_000_000;
        let is_on_time = looked <= at + ON_TIME_US;
        let caught_up = match it.catch_up {
            "all" => true,
            // The newest one is not missed.
            "last" => looked < next,
            _ => false,
        };
        it.overlap != "skip" && (is_on_time || caught_up)
    })
}

/// Every run that was promised is there, and no refused one.
fn requests(life: &Life, runs: &[&RunRow]) -> Vec<String> {
    let mut found = Vec::new();
    let of_key = |key: &str| runs.iter().find(|run| run.request() == Some(key));
    for (key, job) in &life.requests {
        let run = of_key(key);
        if run.map(|run| &run.id) != job.as_ref() {
            found.push(format!("{key} was answered with {job:?}, is {run:?}"));
        }
    }
    for run in runs.iter().filter(|run| run.request().is_some()) {
        let mut keys = life.requests.iter().map(|(key, _)| key.as_str());
        if !keys.any(|key| run.request() == Some(key)) {
            found.push(format!("nobody asked for {run:?}"));
        }
    }
    found
}

/// A run begins when the one before it is final, unless it replaces that.
fn meets(
    life: &Life,
    run: &RunRow,
    before: Option<&RunRow>,
    courses: &BTreeMap<u64, Course<'_>>,
) -> Option<String> {
    let before = before?;
    let held = life.held(run.at.min(run.submitted_at), run.submitted_at);
    if held.iter().flatten().any(|it| it.overlap == "replace") {
        return None;
    }
    let begun = courses.get(&run.number)?.events.first()?.0;
    let ended = courses.get(&before.number).and_then(Course::end);
    let is_right = ended.is_some_and(|(ended, _)| ended < begun);
    (!is_right).then(|| format!("{run:?} beside {before:?}"))
}

/// What is wrong with what a run did.
fn ran(
    evidence: &Evidence,
    life: &Life,
    run: &RunRow,
    later: &[&RunRow],
    is_hit: bool,
) -> Option<String> {
    let lines = || evidence.lines.iter().filter(|line| line.job_id == run.id);
    let starts = lines().filter(|line| line.is_start).count();
    let ends = lines().count() - starts;
    let held = life.held(run.at.min(run.submitted_at), run.submitted_at);
    let is_its_own = |seed: u64| held.iter().flatten().any(|it| it.seed == seed);
    let replaced = || {
        let next = later.first().map(|next| next.submitted_at);
        next.is_some_and(|at| {
            let held = life.held(run.submitted_at, at);
            held.iter().flatten().any(|it| it.overlap == "replace")
        })
    };
    let is_right = match (run.state.as_str(), run.reason.as_str()) {
        ("succeeded", _) => starts == 1 && ends == 1,
        ("cancelled", _) => starts <= 1 && replaced(),
        ("failed", "lost") => starts <= 1 && is_hit,
        _ => false,
    };
    let is_right = is_right && lines().all(|line| is_its_own(line.seed));
    (!is_right).then(|| format!("{starts} starts, {ends} ends: {run:?}"))
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::{
        evidence::Line,
        history::{Entry, Target, What},
        rows::EventRow,
        schedules::{Account, Definition},
    };

    const SECOND: u64 = 1_000_000;

    fn note(evidence: &mut Evidence, at_us: u64, what: What) {
        let job = None;
        evidence.entries.push(Entry { at_us, job, what });
    }

    fn set(evidence: &mut Evidence, at_us: u64, definition: Option<Definition>) {
        let what = What::Scheduled {
            name: "tick".to_owned(),
            asked_us: at_us - 100_000,
            definition,
        };
        note(evidence, at_us, what);
    }

    fn honest(overlap: &'static str, catch_up: &'static str) -> Evidence {
        honest_with(Definition::plain(overlap, catch_up))
    }

    /// Set after 11 s, paused before 21 s; then it tells of itself, and is deleted.
    fn honest_with(definition: Definition) -> Evidence {
        let mut evidence = scene::honest();
        set(&mut evidence, 11 * SECOND, Some(definition.clone()));
        let times = (12..=20).filter(|second| second % definition.step_s == 0);
        let runs = times.clone().count() as u64;
        for second in times {
            add_run(&mut evidence, second * SECOND);
        }
        let paused = true;
        let definition = Definition {
            paused,
            ..definition
        };
        set(&mut evidence, 21 * SECOND, Some(definition));
        let name = "tick".to_owned();
        let account = Account {
            runs,
            ..Account::default()
        };
        let what = What::Accounted { name, account };
        note(&mut evidence, 22 * SECOND, what);
        set(&mut evidence, 23 * SECOND, None);
        evidence
    }

    fn add_run(evidence: &mut Evidence, at: u64) {
        let number = 100 + at / SECOND;
        let id = format!("run-{number}");
        evidence.rows.runs.push(RunRow {
            number,
            id: id.clone(),
            schedule: "tick".to_owned(),
            at,
            state: "succeeded".to_owned(),
            submitted_at: at + 1000,
            ..RunRow::default()
        });
        let steps = [
            (None, "queued"),
            (Some("queued"), "running"),
            (Some("running"), "succeeded"),
        ];
        for (from, to) in steps {
            let id = evidence.rows.events.len() as u64 + 1;
            evidence.rows.events.push(EventRow {
                id,
                job: number,
                from: from.map(str::to_owned),
                to: to.to_owned(),
                at: at + 1000,
                ..EventRow::default()
            });
        }
        evidence.lines.extend([true, false].map(|is_start| Line {
            is_start,
            seed: 77,
            job_id: id.clone(),
            attempt: 1,
        }));
    }

    fn account(evidence: &mut Evidence) -> &mut Account {
        let told = evidence
            .entries
            .iter_mut()
            .find_map(|it| match &mut it.what {
                What::Accounted { account, .. } => Some(account),
                _ => None,
            });
        told.expect("an account")
    }

    /// The run at this time is not there.
    fn forget(evidence: &mut Evidence, at: u64) {
        evidence.rows.runs.retain(|run| run.at != at);
        account(evidence).runs -= 1;
    }

    /// No server is there from the tenth second to this one.
    fn away(evidence: &mut Evidence, to: u64) {
        let target = Target::Server;
        let signal = "SIGKILL";
        note(evidence, 10 * SECOND, What::Blow { target, signal });
        note(evidence, to * SECOND, What::Ready { after_us: 1 });
    }

    #[test]
    fn honest_runs_pass() {
        assert_eq!(check(&scene::honest()), []);
        for overlap in ["queue", "skip", "replace"] {
            assert_eq!(check(&honest(overlap, "all")), [], "{overlap}");
        }
    }

    #[test]
    fn a_time_that_is_forgotten_is_found() {
        let mut evidence = honest("queue", "all");
        forget(&mut evidence, 14 * SECOND);
        assert_eq!(check(&evidence).len(), 2, "and it is not counted");
        account(&mut evidence).skipped = 1;
        assert_eq!(check(&evidence).len(), 1, "it was to run");
        let mut evidence = honest("skip", "all");
        forget(&mut evidence, 14 * SECOND);
        assert_eq!(check(&evidence).len(), 1, "it is not counted");
        account(&mut evidence).skipped = 1;
        assert_eq!(check(&evidence), []);
        let mut evidence = honest("queue", "all");
        forget(&mut evidence, 20 * SECOND);
        account(&mut evidence).waiting = vec![20 * SECOND];
        assert_eq!(check(&evidence), [], "it went with its schedule");
    }

    #[test]
    fn what_may_be_missed_goes_by_the_policy() {
        // The server is there again after 25 s: the time after 12 s is missed, that after 18 s is not.
        for (catch_up, second, violations) in [
            ("none", 12, 0),
            ("last", 12, 0),
            ("all", 12, 1),
            ("none", 18, 1),
        ] {
            let mut evidence = honest("queue", catch_up);
            away(&mut evidence, 25);
            forget(&mut evidence, second * SECOND);
            account(&mut evidence).skipped = 1;
            assert_eq!(check(&evidence).len(), violations, "{catch_up} {second}");
        }
        // After 31 s the one after 20 s is missed, and the newest.
        for (catch_up, violations) in [("none", 0), ("last", 1)] {
            let step_s = 20;
            let plain = Definition::plain("queue", catch_up);
            let mut evidence = honest_with(Definition { step_s, ..plain });
            away(&mut evidence, 31);
            forget(&mut evidence, 20 * SECOND);
            account(&mut evidence).skipped = 1;
            assert_eq!(check(&evidence).len(), violations, "{catch_up}");
        }
    }

    #[test]
    fn a_time_that_is_none_or_has_two_jobs_is_found() {
        let mut evidence = honest("queue", "all");
        add_run(&mut evidence, 15 * SECOND);
        account(&mut evidence).runs += 1;
        assert_eq!(check(&evidence).len(), 2, "and there are too many");
        let mut evidence = honest("queue", "all");
        add_run(&mut evidence, 22 * SECOND);
        account(&mut evidence).runs += 1;
        assert_eq!(check(&evidence).len(), 2, "it was paused");
        let mut evidence = honest("queue", "all");
        let mut again = evidence.rows.runs[1].clone();
        again.idempotency_key = "schedule:tick:k".to_owned();
        evidence.rows.runs.push(again);
        assert!(!check(&evidence).is_empty());
    }

    #[test]
    fn a_request_without_its_run_and_a_run_without_its_request_are_found() {
        let mut evidence = honest("queue", "all");
        let (name, key) = ("tick".to_owned(), "k".to_owned());
        let job = Some("run-115".to_owned());
        let what = What::RunAtOnce { name, key, job };
        evidence.entries.insert(
            evidence.entries.len() - 3,
            Entry {
                at_us: 15 * SECOND,
                job: None,
                what,
            },
        );
        assert_eq!(check(&evidence).len(), 1, "there is no run");
        add_run(&mut evidence, 15 * SECOND);
        account(&mut evidence).runs += 1;
        let last = evidence.rows.runs.len() - 1;
        evidence.rows.runs[last].idempotency_key = "schedule:tick:k".to_owned();
        evidence.rows.runs.sort_by_key(|run| run.number);
        let by_time = |event: &EventRow| event.at;
        evidence.rows.events.sort_by_key(by_time);
        assert_eq!(check(&evidence), []);
        evidence
            .entries
            .retain(|entry| !matches!(entry.what, What::RunAtOnce { .. }));
        assert_eq!(check(&evidence).len(), 1, "nobody asked");
    }

    #[test]
    fn runs_that_overlap_start_twice_or_are_another_job_are_found() {
        let swap = |overlap| {
            let mut evidence = honest(overlap, "all");
            let count = evidence.rows.events.len();
            // The last one is submitted before the end of the one before it.
            evidence.rows.events.swap(count - 4, count - 3);
            check(&evidence).len()
        };
        assert_eq!((swap("queue"), swap("replace")), (1, 0));
        let mut evidence = honest("queue", "all");
        let line = evidence.lines[8].clone();
        evidence.lines.push(line);
        assert_eq!(check(&evidence).len(), 1);
        let mut evidence = honest("queue", "all");
        evidence.lines[8].seed = 78;
        assert_eq!(check(&evidence).len(), 1);
        let mut evidence = honest("queue", "all");
        evidence.rows.runs[1].state = "cancelled".to_owned();
        assert_eq!(check(&evidence).len(), 1, "nothing replaces it");
        let mut evidence = honest("replace", "all");
        evidence.rows.runs[1].state = "cancelled".to_owned();
        evidence
            .lines
            .retain(|line| line.is_start || line.job_id != "run-114");
        assert_eq!(check(&evidence), []);
    }
}
