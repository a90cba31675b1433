//! The counts agree with the database after whatever is written, refused or undone; and a claim reads
//! no more for all the queues and jobs that it does not claim.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _};

use super::*;
use crate::{
    job::{
        Command, Dependency, DependencyCondition, DependencyTarget, Dropped, Exit, ExitFacts,
        JobChange, JobId, JobNumber, JobRef, JobSpec, Micros, OnLost, QueueChange, Reason,
        StopCause, StopRequest, Usage,
    },
    store::{
        Claimed, Finish, OutputPlacement, ShimOffer, Submission, Updated,
        sqlite::{jobs, view, writer::Writer},
        write::{ClaimRequest, PauseReport, VoidReport, Write, WriteResult},
    },
};

fn submit(jobs: Vec<JobSpec>) -> Write {
    let submission = |job| Submission {
        retry_of: None,
        id: JobId(uuid::Uuid::now_v7()),
        job,
        fingerprint: [0; 32],
        actor: "test".into(),
        token: None,
        policy: None,
        at: Micros(0),
    };
    Write::Submit(jobs.into_iter().map(submission).collect())
}

fn job_in(queue: &str, priority: i64) -> JobSpec {
    JobSpec {
        queue: queue.into(),
        priority,
        ..JobSpec::new(Command::Shell(":".into()))
    }
}

fn set_queue(name: &str, concurrency: u32, paused: bool, weight: u32) -> Write {
    Write::SetQueue(QueueChange {
        name: name.into(),
        concurrency: Some(concurrency),
        paused: Some(paused),
        weight: Some(weight),
        ..QueueChange::default()
    })
}

fn claim(shims: impl IntoIterator<Item = String>) -> Write {
    let offer = |shim| ShimOffer {
        shim,
        version: "0".into(),
    };
    Write::Claim(ClaimRequest {
        offers: shims.into_iter().map(offer).collect(),
        boot_id: "boot".into(),
        instance: "instance".into(),
    })
}

/// An attempt that is lost: the job fails, or is queued again.
fn lost(number: JobNumber, attempt: u32) -> Finish {
    Finish {
        number,
        attempt,
        state: JobState::Failed,
        reason: Some(Reason::Lost),
        facts: None,
        survivors: Vec::new(),
        survivors_unknown: None,
        unmet_expectations: Vec::new(),
        end_offset: 0,
        dropped: Dropped::default(),
        kept: OutputPlacement::Rows {
            chunks: Vec::new(),
            gaps: Vec::new(),
        },
        output_sha256: None,
        hash_state: None,
        actor: "rescue".into(),
        at: Micros(0),
    }
}

/// An attempt that ends with this exit code.
fn ended(number: JobNumber, attempt: u32, code: i32) -> Finish {
    let facts = ExitFacts {
        exit: Exit::Code(code),
        started_at_us: Some(0),
        ended_at_us: 0,
        stop: None,
        leaked: 0,
        survivors: Vec::new(),
        usage: Usage::default(),
        end_offset: 0,
        dropped: Dropped::default(),
    };
    let (state, reason) = facts.outcome();
    Finish {
        state,
        reason,
        facts: Some(facts),
        ..lost(number, attempt)
    }
}

fn claimed(result: &Result<WriteResult, crate::store::StoreError>) -> &Claimed {
    match result {
        Ok(WriteResult::Claimed(claimed)) => claimed,
        other => panic!("no claim: {other:?}"),
    }
}

/// All queues with what is known of them, by name, without their place in the order.
fn known(tally: &Tally) -> Vec<(QueueName, SharingSettings, QueueCounts)> {
    let queues = tally.queues.iter();
    let mut known: Vec<_> = queues
        .map(|(name, queue)| (name.clone(), queue.settings, queue.counts))
        .collect();
    known.sort_by(|a, b| a.0.cmp(&b.0));
    known
}

/// The writer's counts and what it has published, against a fresh count through another connection.
async fn assert_true(writer: &Writer, path: &Path, after: &str) {
    let published = PublishedCounts::default();
    let mut conn = other_connection(path).await;
    let fresh = Tally::load(&mut conn, &published).await.expect("counts");
    assert_eq!(writer.tally.states, fresh.states, "{after}");
    assert_eq!(known(&writer.tally), known(&fresh), "{after}");
    assert_eq!(writer.tally.ready(), fresh.ready(), "{after}");
    assert_eq!(writer.counts.states(), published.states(), "{after}");
    assert_eq!(writer.counts.queues(), published.queues(), "{after}");
    assert!(writer.releases.is_empty(), "{after}");
    for (wrong, found) in NEVER {
        let found = sqlx::query(found).fetch_optional(&mut conn).await;
        assert!(found.expect("reads").is_none(), "{wrong}: {after}");
    }
}

/// A time that does not come.
const IN_2096: Micros = Micros(4_000_000_000_000_000);

/// What is true of jobs that wait, whatever has been written.
const NEVER: [(&str, &str); 6] = [
    (
        "two active jobs have one key",
        "SELECT 1 FROM jobs WHERE exclusive IS NOT NULL AND state IN ('running', 'paused')
         GROUP BY exclusive HAVING count(*) > 1",
    ),
    (
        "a job may be claimed although its key is taken, or another one comes first",
        "SELECT 1 FROM jobs j WHERE exclusive IS NOT NULL AND state = 'queued'
           AND waits_for_key <> EXISTS (SELECT 1 FROM jobs o WHERE o.exclusive = j.exclusive
               AND (o.state IN ('running', 'paused') OR (o.state = 'queued' AND o.queue = j.queue
                   AND (o.priority, -o.number) > (j.priority, -j.number))))",
    ),
    (
        "a job without a key waits for one",
        "SELECT 1 FROM jobs WHERE exclusive IS NULL AND waits_for_key",
    ),
    (
        "a blocked job waits for nothing",
        "SELECT 1 FROM jobs WHERE state = 'blocked' AND number NOT IN
             (SELECT job FROM dependencies WHERE waiting)",
    ),
    (
        "a job is waited for that has ended, or by one that is not blocked",
        "SELECT 1 FROM dependencies d LEFT JOIN jobs j ON j.number = d.job
             LEFT JOIN jobs o ON o.number = d.on_job
         WHERE d.waiting AND (j.state IS NOT 'blocked' OR o.finished_at IS NOT NULL
             OR o.number IS NULL)",
    ),
    (
        "a scheduled job has no time, or a failed one no cause",
        "SELECT 1 FROM jobs WHERE (state = 'scheduled' AND ready_at IS NULL)
             OR ((reason IS 'dependency') <> (failed_dependency IS NOT NULL))",
    ),
];

async fn other_connection(path: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    SqliteConnection::connect_with(&options)
        .await
        .expect("opens")
}

/// Numbers that look random and are the same in every run (a 64-bit LCG, Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn queue(&mut self) -> &'static str {
        ["default", "interactive", "a", "b", "c"][self.below(5) as usize]
    }

    /// Number and attempt of a job in one of these states.
    async fn job(&mut self, writer: &mut Writer, states: &str) -> (JobNumber, u32) {
        let jobs = format!("SELECT number, attempt FROM jobs WHERE state IN ({states})");
        let jobs: Vec<(JobNumber, u32)> = sqlx::query_as(AssertSqlSafe(jobs))
            .fetch_all(&mut writer.conn)
            .await
            .expect("reads");
        // Where there is none, a number that no job has.
        match jobs.len() as u64 {
            0 => (1 << 40, 1),
            count => jobs[self.below(count) as usize],
        }
    }

    /// The id of any job.
    async fn id(&mut self, writer: &mut Writer) -> JobId {
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM jobs")
            .fetch_all(&mut writer.conn)
            .await
            .expect("reads");
        match ids.len() as u64 {
            0 => JobId(uuid::Uuid::nil()),
            count => view::job_id(&ids[self.below(count) as usize]).expect("an id"),
        }
    }

    /// A job with any of the things that a job can wait for.
    async fn new_job(&mut self, writer: &mut Writer, nth: u64) -> JobSpec {
        let mut job = job_in(self.queue(), self.below(3) as i64 - 1);
        if self.below(2) == 0 {
            job.on_lost = OnLost::Retry;
        }
        if self.below(3) == 0 {
            job.retry.max_attempts = 3;
        }
        if self.below(3) == 0 {
            job.exclusive = Some(["one", "two"][self.below(2) as usize].to_owned());
        }
        if self.below(2) == 0 {
            let soon = self.below(100) as i64;
            job.run_at = Some(Micros(if self.below(2) == 0 { soon } else { IN_2096.0 }));
        }
        for _ in 0..self.below(6).saturating_sub(3) {
            let entry = nth > 0 && self.below(2) == 0;
            job.after.push(Dependency {
                job: match entry {
                    true => DependencyTarget::Entry(self.below(nth) as usize),
                    false => DependencyTarget::Id(self.id(writer).await),
                },
                on: DependencyCondition::ALL[self.below(2) as usize],
            });
        }
        job
    }

    async fn write(&mut self, writer: &mut Writer, nth: u64) -> Write {
        match self.below(16) {
            0..=2 => {
                let mut jobs = Vec::new();
                for nth in 0..1 + self.below(6) {
                    jobs.push(self.new_job(writer, nth).await);
                }
                submit(jobs)
            }
            3 | 4 => {
                let shims = self.below(4);
                claim((0..shims).map(|shim| format!("{nth}-{shim}")))
            }
            5 | 6 => {
                let (number, attempt) = self.job(writer, "'running', 'paused'").await;
                Write::Finish(Box::new(lost(number, attempt)))
            }
            7 => {
                // A CHECK refuses it.
                let (number, attempt) = self.job(writer, "'running'").await;
                let state = JobState::Succeeded;
                Write::Finish(Box::new(Finish {
                    state,
                    ..lost(number, attempt)
                }))
            }
            8 => {
                let (number, attempt) = self.job(writer, "'running', 'paused'").await;
                Write::Paused(PauseReport {
                    number,
                    attempt,
                    paused: self.below(2) == 0,
                    actor: "shim".into(),
                    at: Micros(0),
                })
            }
            14 => {
                let (number, attempt) = self.job(writer, "'running', 'paused'").await;
                Write::Finish(Box::new(ended(number, attempt, self.below(2) as i32)))
            }
            15 => Write::Due(Micros(self.below(10_000_000) as i64)),
            other => self.rare_write(writer, other).await,
        }
    }

    async fn rare_write(&mut self, writer: &mut Writer, kind: u64) -> Write {
        match kind {
            9 => {
                let (number, attempt) = self.job(writer, "'running', 'paused'").await;
                let at = Micros(0);
                Write::Void(VoidReport {
                    number,
                    attempt,
                    at,
                })
            }
            10 => {
                let states = "'queued', 'running', 'blocked', 'scheduled'";
                let (number, _) = self.job(writer, states).await;
                let request = StopRequest {
                    by: "test".into(),
                    cause: StopCause::Cancel,
                    asked_at_us: 0,
                    grace_ms: 0,
                };
                Write::RequestStop(JobRef::Number(number), request)
            }
            11 => {
                let states = ["'queued'", "'queued', 'blocked', 'scheduled'"];
                let states = states[self.below(2) as usize];
                let (number, _) = self.job(writer, states).await;
                let any = |dice: &mut Self| dice.below(2) == 0;
                let change = JobChange {
                    queue: any(self).then(|| self.queue().into()),
                    priority: any(self).then(|| self.below(3) as i64),
                    run_at: any(self).then(|| any(self).then_some(IN_2096)),
                    ..JobChange::default()
                };
                Write::Update(JobRef::Number(number), Box::new(change), "dice".into())
            }
            12 => {
                let (number, _) = self.job(writer, "'failed', 'cancelled'").await;
                Write::Delete(JobRef::Number(number))
            }
            _ if self.below(3) == 0 => {
                Write::DeleteQueue(["a", "b", "c"][self.below(3) as usize].into())
            }
            _ => set_queue(
                self.queue(),
                1 + self.below(4) as u32,
                self.below(4) == 0,
                1 + self.below(1000) as u32,
            ),
        }
    }
}

#[tokio::test]
async fn the_counts_agree_with_the_database_after_any_mix_of_writes() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let path = directory.path().join("db");
    let mut writer = Writer::of(&path).await;
    let mut dice = Dice(20_261_130);
    let (mut done, mut refused) = (0, 0);
    for nth in 0..600 {
        match dice.below(12) {
            // A disk that is full now and then, and has room again.
            0 => {
                let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
                    .fetch_one(&mut writer.conn)
                    .await
                    .expect("counts");
                writer.allow_pages(pages).await;
            }
            1..=3 => writer.allow_pages(1 << 20).await,
            4 => {
                // As a person with `sqlite3` may do it.
                let sql = "UPDATE queues SET concurrency = 1 + (concurrency + 1) % 5";
                let mut other = other_connection(&path).await;
                sqlx::query(sql).execute(&mut other).await.expect("written");
                // Noticed with the next write.
                writer.write(vec![claim([])]).await;
            }
            _ => {}
        }
        let mut writes = Vec::new();
        for place in 0..1 + dice.below(4) {
            writes.push(dice.write(&mut writer, 10 * nth + place).await);
        }
        let text = format!("{writes:?}");
        for result in writer.write(writes).await {
            *(if result.is_ok() {
                &mut done
            } else {
                &mut refused
            }) += 1;
        }
        assert_true(&writer, &path, &format!("{nth}: {text}")).await;
    }
    assert!(done > 500 && refused > 50, "{done} done, {refused} refused");
    // The dice rarely meet a queued job here.
    writer.allow_pages(1 << 20).await;
    writer.write(vec![submit(vec![job_in("default", 0)])]).await;
    let newest = jobs::last_number(&mut writer.conn).await.expect("reads");
    let change = JobChange {
        run_at: Some(Some(IN_2096)),
        ..JobChange::default()
    };
    let results = writer
        .write(vec![Write::Update(
            JobRef::Number(newest),
            Box::new(change),
            "dice".into(),
        )])
        .await;
    assert!(
        matches!(&results[0], Ok(WriteResult::Updated(updated)) if matches!(**updated, Updated::Done(_))),
        "{results:?}"
    );
    assert_true(&writer, &path, "a queued job has got a time").await;
    every_step_came_about(&mut writer).await;
    drop(writer);
    assert_true(&Writer::of(&path).await, &path, "opened again").await;
}

/// The dice have thrown each of these transitions.
async fn every_step_came_about(writer: &mut Writer) {
    let steps: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT from_state, to_state FROM events WHERE from_state NOT NULL",
    )
    .fetch_all(&mut writer.conn)
    .await
    .expect("reads");
    for step in [
        ("blocked", "queued"),
        ("blocked", "scheduled"),
        ("blocked", "failed"),
        ("blocked", "cancelled"),
        ("scheduled", "queued"),
        ("queued", "scheduled"),
        ("running", "scheduled"),
        ("paused", "queued"),
    ] {
        let step = (step.0.to_owned(), step.1.to_owned());
        assert!(steps.contains(&step), "{step:?} did not come about");
    }
}

#[tokio::test]
async fn wrong_counts_are_taken_anew_with_the_next_transaction() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let path = directory.path().join("db");
    let mut writer = Writer::of(&path).await;
    writer.write(vec![submit(vec![job_in("default", 0)])]).await;
    let queued = Some(JobState::Queued.into());
    writer.tally.moved("default", None, queued);
    writer.tally.moved("interactive", None, queued);
    let results = writer
        .write(vec![claim(["a", "b"].map(String::from))])
        .await;
    assert_eq!(claimed(&results[0]).claims.len(), 1);
    writer.write(vec![claim([])]).await;
    assert_true(&writer, &path, "more than there were").await;

    writer
        .tally
        .moved("default", Some(JobState::Running.into()), None);
    writer
        .tally
        .moved("default", Some(JobState::Running.into()), None);
    writer.write(vec![claim([])]).await;
    assert_true(&writer, &path, "fewer than none").await;
}

/// How many steps of SQLite's machine the writer's connection takes for these writes.
async fn steps(writer: &mut Writer, writes: Vec<Write>) -> (usize, Vec<Claimed>) {
    let steps = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&steps);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        true
    };
    let mut handle = writer.conn.lock_handle().await.expect("locks");
    handle.set_progress_handler(1, count);
    drop(handle);
    let results = writer.write(writes).await;
    let mut handle = writer.conn.lock_handle().await.expect("locks");
    handle.remove_progress_handler();
    drop(handle);
    let claims = results.iter().filter_map(|result| match result {
        Ok(WriteResult::Claimed(claimed)) => Some(claimed.clone()),
        Ok(_) => None,
        Err(error) => panic!("refused: {error}"),
    });
    (steps.load(Ordering::Relaxed), claims.collect())
}

/// Steps of an end of a job with an exclusive key and the claim of the next one, with so many others in
/// the queues: some without a key, some with the same one.
async fn steps_of_a_key(others: usize) -> usize {
    let directory = tempfile::tempdir().expect("makes a directory");
    let mut writer = Writer::of(&directory.path().join("db")).await;
    let with_key = |queue: &str| JobSpec {
        exclusive: Some("k".into()),
        ..job_in(queue, 0)
    };
    let jobs = ["q", "r"].map(with_key).into_iter();
    let backlog = (0..others).flat_map(|_| [job_in("default", 0), with_key("q")]);
    writer.write(vec![set_queue("q", 1, false, 1)]).await;
    writer.write(vec![set_queue("r", 1, false, 1)]).await;
    writer.write(vec![set_queue("default", 1, true, 1)]).await;
    let results = writer
        .write(vec![submit(jobs.chain(backlog).collect())])
        .await;
    assert!(results[0].is_ok(), "{results:?}");
    let shim = |name: &str| claim([name.to_owned()]);
    let (_, first) = steps(&mut writer, vec![shim("x")]).await;
    let end = Write::Finish(Box::new(lost(first[0].claims[0].number, 1)));
    let (steps, next) = steps(&mut writer, vec![end, shim("x")]).await;
    assert_eq!(next[0].claims.len(), 1);
    steps
}

#[tokio::test]
async fn whose_turn_it_is_costs_nothing_for_other_jobs() {
    let (alone, crowded) = (steps_of_a_key(2).await, steps_of_a_key(2000).await);
    assert!(
        crowded <= alone + alone / 10,
        "{crowded} steps, {alone} without the others"
    );
}

/// Steps of an end with the claim of its shim, and of a claim of three jobs, in a ledger where queue
/// `q` has free slots and jobs, and `others` has written what else is there.
async fn steps_beside(others: Vec<Write>) -> [usize; 3] {
    let directory = tempfile::tempdir().expect("makes a directory");
    let mut writer = Writer::of(&directory.path().join("db")).await;
    let shims = |names: &[&str]| claim(names.iter().map(ToString::to_string));
    writer.write(vec![set_queue("q", 4, false, 1)]).await;
    for write in others {
        let results = writer.write(vec![write]).await;
        assert!(results[0].is_ok(), "{results:?}");
    }
    let jobs = (0..20).map(|_| job_in("q", 0)).collect();
    writer.write(vec![submit(jobs)]).await;
    let (nothing, none) = steps(&mut writer, vec![claim([])]).await;
    assert_eq!((none[0].claims.len(), none[0].wanting), (0, 4));
    let (three, claims) = steps(&mut writer, vec![shims(&["x", "y", "z"])]).await;
    let claims = &claims[0].claims;
    assert!(claims.len() == 3 && claims.iter().all(|c| c.job.queue == "q"));
    let end = Write::Finish(Box::new(lost(claims[0].number, 1)));
    let (end, next) = steps(&mut writer, vec![end, shims(&["x"])]).await;
    assert_eq!((next[0].claims.len(), next[0].wanting), (1, 1));
    [nothing, three, end]
}

#[tokio::test]
async fn a_claim_reads_nothing_of_other_queues_of_the_history_or_of_the_backlog() {
    let alone = steps_beside(Vec::new()).await;
    let mut others = Vec::new();
    // A history of the same queue, a backlog behind its jobs, and one that cannot start.
    let history = (0..300).map(|_| job_in("q", 9)).collect();
    others.push(submit(history));
    for round in 0..75 {
        others.push(claim((0..4).map(|shim| format!("{round}-{shim}"))));
        for number in 4 * round + 1..4 * round + 5 {
            others.push(Write::Finish(Box::new(lost(number, 1))));
        }
    }
    others.push(set_queue("default", 1, true, 1));
    let backlog = (0..2000).flat_map(|_| [job_in("q", -1), job_in("default", 9)]);
    let backlog = backlog.collect();
    others.push(set_queue("q", 4, true, 1));
    others.push(submit(backlog));
    // Queues that are full, with more waiting; and one with many free slots and no job.
    for nth in 0..990 {
        others.push(set_queue(&format!("full-{nth}"), 1, false, 1000));
    }
    let full =
        (0..990).flat_map(|nth| [9, 9].map(|priority| job_in(&format!("full-{nth}"), priority)));
    others.push(submit(full.collect()));
    others.push(claim((0..990).map(|nth| format!("full-{nth}"))));
    others.push(set_queue("idle", 1024, false, 1000));
    others.push(set_queue("q", 4, false, 1));
    let crowded = steps_beside(others).await;
    for (what, (crowded, alone)) in ["nothing", "three", "an end"]
        .iter()
        .zip(crowded.into_iter().zip(alone))
    {
        assert!(
            alone > 0 && crowded <= alone + alone / 10,
            "{what}: {crowded} steps, {alone} without the others"
        );
    }
}

#[tokio::test]
async fn an_exclusive_key_reads_nothing_of_the_other_queued_jobs() {
    async fn steps_beside(others: usize) -> [usize; 2] {
        let directory = tempfile::tempdir().expect("makes a directory");
        let mut writer = Writer::of(&directory.path().join("db")).await;
        writer.write(vec![set_queue("q", 4, false, 1)]).await;
        writer.write(vec![set_queue("default", 1, true, 1)]).await;
        let others = (0..others).map(|_| job_in("default", 0)).collect();
        writer.write(vec![submit(others)]).await;
        let mut keyed = job_in("q", 0);
        keyed.exclusive = Some("k".into());
        let (submitted, _) = steps(&mut writer, vec![submit(vec![keyed])]).await;
        let (claimed, claims) = steps(&mut writer, vec![claim(["x".to_owned()])]).await;
        assert_eq!(claims[0].claims.len(), 1);
        [submitted, claimed]
    }
    let (few, many) = (steps_beside(10).await, steps_beside(3000).await);
    for (few, many) in few.into_iter().zip(many) {
        assert!(
            many <= few + few / 10,
            "{many} steps beside 3000 jobs, {few} beside 10"
        );
    }
}
