//! What retention finds and removes, and that no transaction of it is long.

use std::{collections::BTreeMap, fs};

use cc_executor::{
    job::{
        Chunk, GapReason, Job, JobNumber, JobSpec, JobState, Micros, RetentionBounds,
        RetentionFilter, RetentionRule, RetentionScope, Stream,
    },
    store::{
        EndedCursor, Finish, OutputPlacement, RemovableFilter, Removed, SegmentRow, Stored,
        StoredItem,
    },
};
use sqlx::Connection;

use crate::ledger::*;

/// A final job of this queue whose output is in rows of this length.
async fn ended(ledger: &Ledger, job: JobSpec, at: i64, rows: &[&[u8]]) -> JobNumber {
    let number = ledger.submit(job).await.number;
    let claim = ledger.claim(&["shim"]).await.claims.remove(0);
    assert_eq!(claim.number, number);
    let mut chunks = Vec::new();
    let mut offset = 0;
    for data in rows {
        chunks.push(Chunk {
            offset,
            stream: Stream::Stdout,
            attempt: 1,
            at: Micros(1),
            data: data.to_vec(),
        });
        offset += data.len() as u64;
    }
    let finish = Finish {
        kept: OutputPlacement::Rows {
            chunks,
            gaps: Vec::new(),
        },
        end_offset: offset,
        at: Micros(at),
        ..success(number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    number
}

fn of_queue(queue: &str) -> JobSpec {
    JobSpec {
        queue: queue.into(),
        ..true_job()
    }
}

fn any(scope: RetentionScope) -> RemovableFilter {
    RemovableFilter {
        scope,
        states: vec![JobState::Succeeded, JobState::Failed, JobState::Cancelled],
        queue: None,
        labels: BTreeMap::new(),
        name: None,
        since: None,
        ended_before: None,
    }
}

async fn newest_first(ledger: &Ledger, filter: &RemovableFilter) -> Vec<JobNumber> {
    let (mut found, mut below) = (Vec::new(), None);
    loop {
        let page = ledger.store.removable_newest_first(filter, below).await;
        let page = page.unwrap();
        found.extend(page.jobs.iter().map(|job| job.number));
        below = page.reached;
        if page.is_last {
            return found;
        }
    }
}

async fn oldest_first(ledger: &Ledger, filter: &RemovableFilter) -> Vec<JobNumber> {
    let after = EndedCursor::default();
    let page = ledger.store.removable_oldest_first(filter, &after).await;
    let page = page.unwrap();
    assert!(page.is_last);
    page.jobs.iter().map(|job| job.number).collect()
}

/// One job after another until all are removed; how many transactions that took.
async fn remove(ledger: &Ledger, scope: RetentionScope, numbers: &[JobNumber]) -> Vec<Removed> {
    let (mut left, mut steps) = (numbers.to_vec(), Vec::new());
    while !left.is_empty() {
        let step = ledger.store.remove(scope, left).await.unwrap();
        left = step.left.clone();
        steps.push(step);
        assert!(steps.len() < 1000, "no progress");
    }
    steps
}

async fn rows(ledger: &Ledger, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap()
}

async fn items(ledger: &Ledger, number: JobNumber, offset: u64) -> Vec<StoredItem> {
    match ledger.store.stored(number, offset, 1).await.unwrap() {
        Stored::Rows(items) => items,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_orders_find_the_same_final_jobs() {
    let ledger = Ledger::new().await;
    let first = ended(&ledger, true_job(), 30, &[b"a"]).await;
    let second = ended(&ledger, of_queue("interactive"), 10, &[]).await;
    let labelled = JobSpec {
        name: Some("n".into()),
        labels: [("k".into(), "v".into())].into(),
        ..true_job()
    };
    let third = ended(&ledger, labelled, 20, &[b"bc"]).await;
    let live = ledger.running("other").await.number;
    let all = any(RetentionScope::Jobs);
    assert_eq!(newest_first(&ledger, &all).await, [third, second, first]);
    assert_eq!(oldest_first(&ledger, &all).await, [second, third, first]);
    let outputs = any(RetentionScope::Outputs);
    assert_eq!(newest_first(&ledger, &outputs).await, [third, first]);
    assert_eq!(oldest_first(&ledger, &outputs).await, [third, first]);
    for (filter, expected) in [
        (
            RemovableFilter {
                ended_before: Some(Micros(20)),
                ..all.clone()
            },
            vec![second],
        ),
        (
            RemovableFilter {
                queue: Some("default".into()),
                ended_before: Some(Micros(30)),
                ..all.clone()
            },
            vec![third],
        ),
        (
            RemovableFilter {
                labels: [("k".into(), "v".into())].into(),
                name: Some("n".into()),
                ..all.clone()
            },
            vec![third],
        ),
        (
            RemovableFilter {
                states: vec![JobState::Failed],
                ..all.clone()
            },
            vec![],
        ),
    ] {
        assert_eq!(newest_first(&ledger, &filter).await, expected, "{filter:?}");
        assert_eq!(oldest_first(&ledger, &filter).await, expected, "{filter:?}");
    }
    // Asked for by mistake, it stays.
    let steps = remove(&ledger, RetentionScope::Jobs, &[live, 77]).await;
    assert_eq!(steps, [Removed::default()]);
    assert_eq!(ledger.get(live).await.state, JobState::Running);
}

/// A thousand rows of a job, and more bytes than a transaction may remove, go in several; a kill
/// between two of them leaves a job whose removal goes on.
#[tokio::test]
async fn a_long_job_goes_in_several_steps_and_across_a_kill() {
    let ledger = Ledger::new().await;
    let small: Vec<&[u8]> = vec![b"xy"; 1000];
    let many = ended(&ledger, true_job(), 5, &small).await;
    let block = vec![7_u8; 60_000];
    let large = ended(&ledger, true_job(), 5, &[block.as_slice(); 20]).await;
    let before = ledger.get(many).await;

    let step = ledger.store.remove(RetentionScope::Jobs, vec![many, large]);
    let step = step.await.unwrap();
    assert_eq!((&step.jobs, &step.left), (&vec![], &vec![many, large]));
    let cut = match &items(&ledger, many, 0).await[0] {
        StoredItem::Gap(gap) => {
            assert_eq!((gap.from, gap.reason), (0, GapReason::Retention));
            gap.to
        }
        other => panic!("{other:?}"),
    };
    assert!((1..2000).contains(&cut), "{cut}");
    assert!(matches!(&items(&ledger, many, cut).await[0], StoredItem::Chunk(c) if c.offset == cut));
    let now = ledger.get(many).await;
    assert_eq!(now.output_bytes, before.output_bytes, "offsets stay");
    assert_eq!(now.output_sha256, None, "there are gaps");

    let ledger = ledger.reopen().await;
    let begun = ledger.store.begun_removals().await.unwrap();
    assert_eq!(begun, [(many, RetentionScope::Jobs)]);
    let steps = remove(&ledger, RetentionScope::Jobs, &[many]).await;
    assert!(steps.len() > 1, "{steps:?}");
    let steps = remove(&ledger, RetentionScope::Outputs, &[large]).await;
    assert!(steps.len() > 2, "{steps:?}");
    let gap = &items(&ledger, large, 900_000).await[0];
    assert!(matches!(gap, StoredItem::Gap(gap) if (gap.from, gap.to) == (0, 1_200_000)));
    assert_eq!(rows(&ledger, "output_chunks").await, 1);
    assert_eq!(rows(&ledger, "removals").await, 0);
    let counts = ledger.store.counts().await.unwrap();
    assert_eq!(counts.get(&JobState::Succeeded), Some(&1));
}

#[tokio::test]
async fn an_output_is_removed_and_the_job_stays() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    let row = SegmentRow {
        number: claim.number,
        attempt: 1,
        first_offset: 0,
        end_offset: 5,
        file_bytes: 100,
        hash_state: vec![1],
        counts: None,
    };
    let finish = Finish {
        kept: OutputPlacement::Segments {
            rows: vec![row],
            gaps: Vec::new(),
        },
        end_offset: 5,
        hash_state: Some(vec![1]),
        ..success(claim.number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    let before = ledger.get(claim.number).await;
    let steps = remove(&ledger, RetentionScope::Outputs, &[claim.number]).await;
    assert_eq!(steps[0].segments[&claim.number], [(1, 0)]);
    let expected = Job {
        output_sha256: None,
        ..before
    };
    assert_eq!(ledger.get(claim.number).await, expected);
    let attempts = ledger.store.attempt_records(claim.number).await.unwrap();
    assert_eq!(attempts[0].hash_state, None, "nothing tells what it was");
    assert_eq!(rows(&ledger, "segments").await, 0);
    let outputs = any(RetentionScope::Outputs);
    assert_eq!(newest_first(&ledger, &outputs).await, [0; 0], "once");
}

/// Several thousand jobs go in short transactions; then the file is shorter, and nothing of them is
/// left in any file.
#[tokio::test]
async fn what_was_removed_is_in_no_file_and_its_space_is_returned() {
    let ledger = Ledger::new().await;
    let secret = |number: i64| format!("planted-{number:05}-value");
    let jobs: Vec<_> = (0..3000)
        .map(|number| {
            submission(JobSpec {
                env: [("SECRET".into(), secret(number / 100).into())].into(),
                stdin: Some(format!("{}{}", secret(number), "x".repeat(600))),
                labels: [("k".into(), secret(number))].into(),
                ..true_job()
            })
        })
        .collect();
    ledger.store.submit_many(jobs).await.unwrap();
    let kept = ended(&ledger, of_queue("interactive"), 5, &[b"kept"]).await;
    let mut raw = ledger.raw().await;
    sqlx::query("UPDATE jobs SET state = 'cancelled', finished_at = 5 WHERE state = 'queued'")
        .execute(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    assert!(ledger.store.empty_log().await.unwrap());
    let length = || fs::metadata(ledger.path()).unwrap().len();
    let before = length();
    let mut numbers = newest_first(&ledger, &any(RetentionScope::Jobs)).await;
    numbers.retain(|number| *number != kept);
    assert_eq!(numbers.len(), 3000);
    let steps = remove(&ledger, RetentionScope::Jobs, &numbers).await;
    assert!(steps.iter().all(|step| step.jobs.len() <= 100));
    assert_eq!(rows(&ledger, "jobs").await, 1);
    assert_eq!(rows(&ledger, "environments").await, 1);
    assert_eq!(rows(&ledger, "job_labels").await, 0);
    let mut free = ledger.store.free_pages().await.unwrap();
    assert!(free.can_shrink && free.free > 100, "{free:?}");
    while free.free > 0 {
        free = ledger.store.reclaim(64).await.unwrap();
    }
    assert!(ledger.store.empty_log().await.unwrap());
    assert!(length() < before / 2, "{} of {before}", length());
    let directory = ledger.path().parent().unwrap().to_owned();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(8).filter(|part| part == b"planted-");
        assert_eq!(found.count(), 0, "{}", path.display());
    }
    assert_eq!(ledger.get(kept).await.output_bytes, 4);
}

#[tokio::test]
async fn a_file_of_an_earlier_version_can_shrink_after_the_next_start() {
    let ledger = Ledger::new().await;
    let number = ended(&ledger, true_job(), 5, &[b"text"]).await;
    ledger.store.close().await;
    let mut raw = ledger.raw().await;
    for statement in ["PRAGMA auto_vacuum = NONE", "VACUUM"] {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(mode, 0);
    raw.close().await.unwrap();
    let ledger = ledger.reopen().await;
    assert!(ledger.store.free_pages().await.unwrap().can_shrink);
    assert_eq!(ledger.get(number).await.output_bytes, 4);
}

#[tokio::test]
async fn rules_are_stored_by_name() {
    let ledger = Ledger::new().await;
    let rule = |name: &str, days: u64| RetentionRule {
        name: name.into(),
        scope: RetentionScope::Outputs,
        filter: RetentionFilter {
            states: vec![JobState::Failed],
            ..RetentionFilter::default()
        },
        bounds: RetentionBounds {
            older_than_s: Some(days * 86_400),
            ..RetentionBounds::default()
        },
    };
    let set = |rule| ledger.store.set_retention_rule(rule);
    assert_eq!(set(rule("b", 1)).await, Ok(true));
    assert_eq!(set(rule("a", 2)).await, Ok(true));
    assert_eq!(set(rule("b", 3)).await, Ok(true), "replaced");
    let stored = ledger.store.retention_rules().await.unwrap();
    assert_eq!(stored, [rule("a", 2), rule("b", 3)]);
    for number in 2..RetentionRule::COUNT_MAX {
        assert_eq!(set(rule(&format!("r{number}"), 1)).await, Ok(true));
    }
    assert_eq!(set(rule("one more", 1)).await, Ok(false));
    assert_eq!(set(rule("a", 9)).await, Ok(true));
    let delete = |name: &str| ledger.store.delete_retention_rule(name.to_owned());
    assert_eq!(delete("a").await, Ok(true));
    assert_eq!(delete("a").await, Ok(false));
}

#[tokio::test]
async fn stored_output_is_added_up_by_job_queue_and_label() {
    let ledger = Ledger::new().await;
    let labelled = |value: &str| JobSpec {
        labels: [("k".into(), value.into())].into(),
        ..true_job()
    };
    let first = ended(&ledger, labelled("a"), 5, &[b"12345"]).await;
    let second = ended(&ledger, labelled("b"), 5, &[b"123"]).await;
    let third = ended(&ledger, of_queue("interactive"), 5, &[b"12"]).await;
    remove(&ledger, RetentionScope::Outputs, &[second]).await;
    let step = ledger.store.usage_of_jobs(0, third, 10).await.unwrap();
    let largest: Vec<_> = step
        .jobs
        .iter()
        .map(|job| (job.number, job.bytes))
        .collect();
    assert_eq!(largest, [(first, 5), (third, 2)]);
    let mut queues: Vec<_> = step
        .queues
        .iter()
        .map(|(queue, sum)| (queue.as_str(), sum.jobs, sum.bytes))
        .collect();
    queues.sort();
    assert_eq!(queues, [("default", 2, 5), ("interactive", 1, 2)]);
    let labels = ledger.store.usage_of_labels(&Default::default()).await;
    let labels = labels.unwrap();
    assert_eq!(labels.next, None);
    let sums: Vec<_> = labels
        .labels
        .iter()
        .map(|(_, value, sum)| (value.as_str(), sum.jobs, sum.bytes))
        .collect();
    assert_eq!(sums, [("a", 1, 5), ("b", 1, 0)]);
}
