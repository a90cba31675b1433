//! Jobs on their way in: one submission, stored once per idempotency key.
//!
//! What becomes of them afterwards stands in the files named after what happens.

use sha2::{Digest, Sha256};
use sqlx::Sqlite;

use super::{
    Submission, SubmitError, Submitted,
    columns::{int, json},
    events,
    standing::Batch,
    view,
};
use crate::job::{
    Command, Job, JobId, JobNumber, Leftover, NewJob, Usage,
    state::{Event, next},
};

/// Stores a job, unless its key names one that is there already. The inner error is the caller's
/// (nothing was written), the outer one the database's.
pub(super) async fn submit(
    batch: &mut Batch<'_>,
    submission: &Submission,
) -> sqlx::Result<Result<Submitted, SubmitError>> {
    if let Some(key) = &submission.job.idempotency_key
        && let Some((number, fingerprint)) = by_key(batch, key).await?
    {
        if fingerprint != submission.fingerprint {
            return Ok(Err(SubmitError::KeyConflict(number)));
        }
        let job = view::known(batch.conn, number).await?;
        return Ok(Ok(Submitted {
            job,
            created: false,
        }));
    }
    let environment = insert_environment(batch, &submission.job).await?;
    let Some(number) = insert(batch, submission, &environment).await? else {
        let queue = submission.job.queue.clone();
        return Ok(Err(SubmitError::UnknownQueue(queue)));
    };
    let job = as_submitted(submission, number);
    batch.events.push(events::Event {
        job: number,
        attempt: None,
        from: None,
        to: job.state,
        reason: None,
        actor: submission.actor.clone(),
        at: submission.at.0,
    });
    Ok(Ok(Submitted { job, created: true }))
}

async fn by_key(batch: &mut Batch<'_>, key: &str) -> sqlx::Result<Option<(JobNumber, Vec<u8>)>> {
    let row = sqlx::query!(
        r#"SELECT number AS "number!: i64", fingerprint AS "fingerprint!: Vec<u8>"
           FROM jobs WHERE idempotency_key = ?1"#,
        key
    )
    .fetch_optional(&mut *batch.conn)
    .await?;
    Ok(row.map(|row| (row.number, row.fingerprint)))
}

/// Stores an environment once per content, and not for a job that will be refused; its hash.
async fn insert_environment(batch: &mut Batch<'_>, job: &NewJob) -> sqlx::Result<Vec<u8>> {
    let env = json(&job.env)?;
    let names = json(&job.env.keys().collect::<Vec<_>>())?;
    let hash = Sha256::digest(env.as_bytes()).to_vec();
    sqlx::query!(
        "INSERT INTO environments (hash, names, env)
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM queues WHERE name = ?4)
         ON CONFLICT DO NOTHING",
        hash,
        names,
        env,
        job.queue
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(hash)
}

/// Inserts the row; its number, or `None` where the queue does not exist.
async fn insert(
    batch: &mut Batch<'_>,
    submission: &Submission,
    environment: &[u8],
) -> sqlx::Result<Option<JobNumber>> {
    let job = &submission.job;
    let (argv, shell) = match &job.command {
        Command::Argv(argv) => (Some(json(argv)?), None),
        Command::Shell(line) => (None, Some(line)),
    };
    let id = submission.id.to_string();
    let state = first_state().name();
    let labels = json(&job.labels)?;
    let fingerprint = submission.fingerprint.as_slice();
    let (timeout_s, stall_timeout_s) =
        (job.timeout_s.map(|s| s.0), job.stall_timeout_s.map(|s| s.0));
    let grace_s = job.grace_s.0;
    let leftover = leftover_name(job.leftover);
    let (on_disconnect, disconnect_delay_s) = (job.on_disconnect.name(), job.disconnect_delay_s.0);
    let when_full = job.output.when_full.name();
    let retry_of = submission.retry_of.map(|id| id.to_string());
    let bytes_max = job.output.max_bytes.map(int);
    let at = submission.at.0;
    let done = sqlx::query!(
        "INSERT INTO jobs (id, state, queue, priority, name, labels, argv, shell, cwd, environment,
             umask, stdin, interactive, timeout_s, stall_timeout_s, grace_s, leftover,
             on_disconnect, disconnect_delay_s, output_bytes_max, when_full, idempotency_key,
             fingerprint, retry_of, submitted_at)
         SELECT ?1, ?2, name, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
             ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25
         FROM queues WHERE name = ?3",
        id,
        state,
        job.queue,
        job.priority,
        job.name,
        labels,
        argv,
        shell,
        submission.cwd,
        environment,
        job.umask,
        job.stdin,
        job.interactive,
        timeout_s,
        stall_timeout_s,
        grace_s,
        leftover,
        on_disconnect,
        disconnect_delay_s,
        bytes_max,
        when_full,
        job.idempotency_key,
        fingerprint,
        retry_of,
        at,
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok((done.rows_affected() == 1).then(|| done.last_insert_rowid()))
}

/// The state in which the table lets a job begin.
fn first_state() -> crate::job::JobState {
    next(None, Event::Submitted).expect("the table of transitions begins with Submitted")
}

fn leftover_name(leftover: Leftover) -> &'static str {
    match leftover {
        Leftover::Kill => "kill",
        Leftover::Keep => "keep",
    }
}

/// The job as a read would show it now.
fn as_submitted(submission: &Submission, number: JobNumber) -> Job {
    let job = submission.job.clone();
    Job {
        id: submission.id,
        number,
        state: first_state(),
        reason: None,
        exit_code: None,
        signal: None,
        command: job.command,
        cwd: submission.cwd.clone(),
        env_names: job.env.into_keys().collect(),
        stdin_bytes: job.stdin.map(|stdin| stdin.len() as u64),
        env: None,
        stdin: None,
        interactive: job.interactive,
        umask: job.umask,
        name: job.name,
        labels: job.labels,
        queue: job.queue,
        priority: job.priority,
        timeout_s: job.timeout_s,
        stall_timeout_s: job.stall_timeout_s,
        grace_s: job.grace_s,
        leftover: job.leftover,
        on_disconnect: job.on_disconnect,
        disconnect_delay_s: job.disconnect_delay_s,
        output: job.output,
        idempotency_key: job.idempotency_key,
        retry_of: submission.retry_of,
        attempts: 0,
        submitted_at: submission.at,
        started_at: None,
        finished_at: None,
        output_bytes: 0,
        dropped_bytes: 0,
        dropped_lines: 0,
        output_sha256: None,
        spawn_error: None,
        stop: None,
        leaked: 0,
        survivors: Vec::new(),
        usage: Usage::default(),
    }
}

/// The number of the job with this id.
pub(super) async fn number<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    id: JobId,
) -> sqlx::Result<Option<JobNumber>> {
    let id = id.to_string();
    sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE id = ?1"#,
        id
    )
    .fetch_optional(conn)
    .await
}
