//! Lists: whatever is asked for, the pages together are what a look at every job finds.

use std::collections::BTreeMap;

use cc_executor::{
    job::{Job, JobChange, JobNumber, JobRef, JobSpec, JobState, Micros, StopCause},
    store::{ListFilter, Submission, SubmitOutcome},
};
use proptest::{
    prelude::RngExt,
    test_runner::{RngAlgorithm, TestRng},
};

use crate::ledger::*;

/// More than the candidates of one step.
const JOBS: usize = 6000;
const FILTERS: usize = 100;
/// The most pages that are read of one filter.
const PAGES_MAX: usize = 6;

fn word(chance: &mut TestRng, words: &[&str]) -> String {
    words[chance.random_range(0..words.len())].to_owned()
}

/// A job with one of a few names and labels, and a few with a rare one.
fn random_job(chance: &mut TestRng) -> Submission {
    let mut labels = BTreeMap::new();
    if chance.random_bool(0.7) {
        labels.insert("team".to_owned(), word(chance, &["a", "b", "it's \"c\""]));
    }
    if chance.random_bool(0.01) {
        labels.insert("rare".to_owned(), word(chance, &["x", ""]));
    }
    let names: &[&str] = if chance.random_bool(0.01) {
        &["seldom"]
    } else {
        &["nightly", "build"]
    };
    let job = JobSpec {
        name: chance.random_bool(0.8).then(|| word(chance, names)),
        queue: word(chance, &["default", "interactive"]),
        labels,
        ..true_job()
    };
    Submission {
        // Clocks jump.
        at: Micros(chance.random_range(0..JOBS as i64 * 10)),
        ..submission(job)
    }
}

fn random_filter(chance: &mut TestRng) -> ListFilter {
    let mut filter = ListFilter {
        limit: [1, 7, 50, 1000][chance.random_range(0..4)],
        ..ListFilter::default()
    };
    if chance.random_bool(0.4) {
        let all = [JobState::Queued, JobState::Running, JobState::Cancelled];
        let states = all.into_iter().filter(|_| chance.random_bool(0.5));
        filter.states = states.collect();
    }
    if chance.random_bool(0.3) {
        filter.queue = Some(word(chance, &["default", "interactive", "nothing"]));
    }
    if chance.random_bool(0.3) {
        filter.name = Some(word(chance, &["nightly", "build", "seldom", "nobody"]));
    }
    if chance.random_bool(0.3) {
        filter.labels.insert(
            "team".to_owned(),
            word(chance, &["a", "b", "it's \"c\"", "A"]),
        );
    }
    if chance.random_bool(0.2) {
        filter
            .labels
            .insert("rare".to_owned(), word(chance, &["x", ""]));
    }
    if chance.random_bool(0.4) {
        let since = chance.random_range(0..JOBS as i64 * 11);
        filter.since = Some(Micros(since));
    }
    filter
}

fn matches(job: &Job, filter: &ListFilter) -> bool {
    let spec = &job.spec;
    let of = |wanted: &Option<String>, has: Option<&String>| {
        wanted.as_ref().is_none_or(|wanted| has == Some(wanted))
    };
    (filter.states.is_empty() || filter.states.contains(&job.state))
        && of(&filter.queue, Some(&spec.queue))
        && of(&filter.name, spec.name.as_ref())
        && filter.since.is_none_or(|since| job.submitted_at >= since)
        && filter
            .labels
            .iter()
            .all(|(key, value)| spec.labels.get(key) == Some(value))
}

/// The numbers on the first pages, and whether these are all pages.
async fn first_pages(
    ledger: &Ledger,
    filter: &ListFilter,
    pages_max: usize,
) -> (Vec<JobNumber>, bool) {
    let mut numbers = Vec::new();
    let mut below = None;
    for _ in 0..pages_max {
        let page = ListFilter {
            below,
            ..filter.clone()
        };
        let page = ledger.store.list(page).await.unwrap();
        assert!(page.jobs.len() <= filter.limit as usize);
        numbers.extend(page.jobs.iter().map(|job| job.number));
        match page.next {
            Some(next) => below = Some(next),
            None => return (numbers, true),
        }
    }
    (numbers, false)
}

/// Cancels some jobs, deletes some of these, and gives others new labels.
async fn change_some(ledger: &Ledger, chance: &mut TestRng, stored: &[SubmitOutcome]) {
    for (nth, taken) in stored.iter().enumerate() {
        let job = JobRef::Number(taken.number);
        if nth % 11 == 0 {
            let stop = ledger.store.request_stop(job, wish(StopCause::Cancel));
            stop.await.unwrap();
        }
        if nth % 33 == 0 {
            ledger.store.delete(job).await.unwrap();
        }
        if nth % 11 == 1 {
            let change = JobChange {
                labels: Some(random_job(chance).job.labels),
                ..JobChange::default()
            };
            ledger.store.update(job, change, "test").await.unwrap();
        }
    }
}

#[tokio::test]
async fn any_filter_finds_what_a_look_at_every_job_finds() {
    let seed = std::env::var("CC_LIST_SEED").ok();
    let seed = seed.map_or_else(uuid::Uuid::now_v7, |seed| seed.parse().unwrap());
    let chance = &mut TestRng::from_seed(RngAlgorithm::XorShift, seed.as_bytes());
    let ledger = Ledger::new().await;
    let batch = (0..JOBS).map(|_| random_job(chance)).collect();
    let stored = ledger.store.submit_many(batch).await.unwrap();
    change_some(&ledger, chance, &stored).await;
    for shim in 0..50 {
        ledger.claim(&[&format!("shim-{shim}")]).await;
    }
    let everything = ListFilter {
        limit: 1000,
        ..ListFilter::default()
    };
    let mut jobs = Vec::new();
    for number in first_pages(&ledger, &everything, JOBS).await.0 {
        jobs.push(ledger.get(number).await);
    }
    assert_eq!(jobs.len(), JOBS - JOBS.div_ceil(33));
    for _ in 0..FILTERS {
        let filter = random_filter(chance);
        let expected = jobs.iter().filter(|job| matches(job, &filter));
        let expected: Vec<_> = expected.map(|job| job.number).collect();
        let (found, all) = first_pages(&ledger, &filter, PAGES_MAX).await;
        let expected = match all {
            true => &expected[..],
            false => &expected[..found.len()],
        };
        assert_eq!(found, expected, "{filter:?} with CC_LIST_SEED={seed}");
    }
}
