//! Jobs on their way in: batches of submissions, each stored whole or not at all, each job once per
//! idempotency key.
//!
//! What becomes of them afterwards stands in the files named after what happens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use sqlx::Sqlite;

use super::{
    columns::{hex, int, json, malformed},
    events,
    job_snapshot::WriteBatch,
    keys::DigestKey,
    view,
};
use crate::{
    job::{
        Command, Job, JobId, JobNumber, JobState, Limits, Usage,
        state::{Event, next},
    },
    store::types::{BatchRefused, Submission, SubmitError, SubmitOutcome},
};

/// Rows are inserted in statements of about this much JSON, so that a large batch is not held a
/// second time, bytes.
const STATEMENT_BYTES: usize = 1 << 20;

/// Which job a submission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubmissionTarget {
    /// One that was there already, under the same key.
    Known(SubmitOutcome),
    /// The so manieth new one of this transaction.
    New(usize),
    /// The same as that new one, which came before it under the same key.
    Again(usize),
}

/// Who has an idempotency key.
#[derive(Debug)]
struct Holder {
    /// Made with the key.
    fingerprint: [u8; 32],
    place: SubmissionTarget,
}

/// Stores batches as if they had come one behind the other. The inner error is a caller's (nothing
/// of that batch was written), the outer one the database's.
pub(super) async fn submit(
    batch: &mut WriteBatch<'_>,
    asks: &[&[Submission]],
) -> sqlx::Result<Vec<Result<Vec<SubmitOutcome>, BatchRefused>>> {
    let (queues, last_number) = queues(batch, asks).await?;
    let key = batch.key;
    let mut sorter = Sorter {
        key,
        queues,
        keys: keys(batch, asks).await?,
        last_number,
        new: Vec::new(),
    };
    let sorted: Vec<_> = asks.iter().map(|ask| sorter.sort(ask)).collect();
    let Sorter { new, .. } = sorter;
    if !new.is_empty() {
        store(batch, &new, last_number).await?;
    }
    let taken = |place: SubmissionTarget| place.taken(&new, last_number);
    let answer = |places: Vec<SubmissionTarget>| places.into_iter().map(taken).collect();
    Ok(sorted
        .into_iter()
        .map(|places| places.map(answer))
        .collect())
}

/// Writes the new ones down.
async fn store(
    batch: &mut WriteBatch<'_>,
    new: &[&Submission],
    last_number: JobNumber,
) -> sqlx::Result<()> {
    let environments = insert_environments(batch, new).await?;
    insert(batch, new, &environments, last_number).await?;
    for (nth, submission) in new.iter().enumerate() {
        batch.events.push(submitted(submission, last_number, nth));
    }
    Ok(())
}

/// Of the queues that are named, those that exist; and the last number that a job was given.
async fn queues(
    batch: &mut WriteBatch<'_>,
    asks: &[&[Submission]],
) -> sqlx::Result<(HashSet<String>, JobNumber)> {
    let named = asks.iter().flat_map(|ask| ask.iter());
    let named: BTreeSet<&str> = named.map(|one| one.job.queue.as_str()).collect();
    let named = json(&named)?;
    let rows = sqlx::query!(
        r#"SELECT name AS "name!: String",
               (SELECT max(seq) FROM sqlite_sequence WHERE name = 'jobs') AS "last: i64"
           FROM queues WHERE name IN (SELECT value FROM json_each(?1))"#,
        named
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    // Before the first job there is no row about the sequence.
    let last = rows.first().and_then(|row| row.last).unwrap_or(0);
    Ok((rows.into_iter().map(|row| row.name).collect(), last))
}

/// Of the keys that are named, those that are taken.
async fn keys(
    batch: &mut WriteBatch<'_>,
    asks: &[&[Submission]],
) -> sqlx::Result<HashMap<String, Holder>> {
    let named = asks.iter().flat_map(|ask| ask.iter());
    let named: Vec<&str> = named
        .filter_map(|one| one.job.idempotency_key.as_deref())
        .collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let named = json(&named)?;
    sqlx::query!(
        r#"SELECT idempotency_key AS "key!: String", number AS "number!: i64", id AS "id!: String",
               state AS "state!: String", fingerprint AS "fingerprint!: Vec<u8>"
           FROM jobs WHERE idempotency_key IN (SELECT value FROM json_each(?1))"#,
        named
    )
    .fetch_all(&mut *batch.conn)
    .await?
    .into_iter()
    .map(|row| {
        let fingerprint = row.fingerprint.try_into();
        let holder = Holder {
            fingerprint: fingerprint.map_err(|_| malformed("a fingerprint has 32 bytes"))?,
            place: SubmissionTarget::Known(SubmitOutcome {
                id: view::job_id(&row.id)?,
                number: row.number,
                state: events::state(&row.state)?,
                created: false,
            }),
        };
        Ok((row.key, holder))
    })
    .collect()
}

/// Finds out which submissions are new. Pure.
struct Sorter<'a> {
    key: &'a DigestKey,
    queues: HashSet<String>,
    keys: HashMap<String, Holder>,
    last_number: JobNumber,
    new: Vec<&'a Submission>,
}

impl<'a> Sorter<'a> {
    /// The place of each; of a batch with one that is refused nothing stays.
    fn sort(
        &mut self,
        submissions: &'a [Submission],
    ) -> Result<Vec<SubmissionTarget>, BatchRefused> {
        let before = self.new.len();
        let mut places = Vec::with_capacity(submissions.len());
        for (index, submission) in submissions.iter().enumerate() {
            match self.place(submission, &places) {
                Ok(place) => places.push(place),
                Err(error) => {
                    self.forget(before);
                    return Err(BatchRefused {
                        index: Some(index),
                        error,
                    });
                }
            }
        }
        Ok(places)
    }

    /// Where a submission belongs; `earlier` are those of the same batch.
    fn place(
        &mut self,
        submission: &'a Submission,
        earlier: &[SubmissionTarget],
    ) -> Result<SubmissionTarget, SubmitError> {
        let key = submission.job.idempotency_key.as_ref();
        if let Some(holder) = key.and_then(|key| self.keys.get(key)) {
            if holder.fingerprint == self.key.digest(&submission.fingerprint) {
                return Ok(holder.place.again());
            }
            let same_batch = earlier.iter().position(|place| *place == holder.place);
            return Err(match (holder.place, same_batch) {
                (SubmissionTarget::Known(taken), _) => SubmitError::KeyConflict(taken.number),
                (_, Some(index)) => SubmitError::KeyConflictWithin(index),
                (SubmissionTarget::New(nth) | SubmissionTarget::Again(nth), None) => {
                    SubmitError::KeyConflict(number(self.last_number, nth))
                }
            });
        }
        if !self.queues.contains(&submission.job.queue) {
            return Err(SubmitError::UnknownQueue(submission.job.queue.clone()));
        }
        let place = SubmissionTarget::New(self.new.len());
        self.new.push(submission);
        if let Some(key) = key {
            let fingerprint = self.key.digest(&submission.fingerprint);
            self.keys.insert(key.clone(), Holder { fingerprint, place });
        }
        Ok(place)
    }

    /// Takes back all new ones from `before` on.
    fn forget(&mut self, before: usize) {
        self.new.truncate(before);
        self.keys.retain(
            |_, holder| !matches!(holder.place, SubmissionTarget::New(nth) if nth >= before),
        );
    }
}

impl SubmissionTarget {
    /// The place of one that comes again under the same key.
    fn again(self) -> Self {
        match self {
            Self::New(nth) => Self::Again(nth),
            known => known,
        }
    }

    fn taken(self, new: &[&Submission], last_number: JobNumber) -> SubmitOutcome {
        match self {
            Self::Known(taken) => taken,
            Self::New(nth) | Self::Again(nth) => SubmitOutcome {
                id: new[nth].id,
                number: number(last_number, nth),
                state: first_state(),
                created: matches!(self, Self::New(_)),
            },
        }
    }
}

/// The number of the `nth` new job: ascending in the order of submission.
fn number(last_number: JobNumber, nth: usize) -> JobNumber {
    last_number + 1 + nth as JobNumber
}

/// Stores environments, once per content; the names of all, as hex.
async fn insert_environments(
    batch: &mut WriteBatch<'_>,
    new: &[&Submission],
) -> sqlx::Result<Vec<String>> {
    #[derive(Serialize)]
    struct SubmissionRow {
        hash: String,
        names: String,
        env: String,
    }
    let mut hashes = Vec::with_capacity(new.len());
    let mut rows = BTreeMap::new();
    for submission in new {
        let env = json(&submission.job.env)?;
        let hash = hex(&batch.key.digest_of(&env));
        hashes.push(hash.clone());
        if !rows.contains_key(&hash) {
            let names = json(&submission.job.env.keys().collect::<Vec<_>>())?;
            rows.insert(hash.clone(), SubmissionRow { hash, names, env });
        }
    }
    let rows = json(&rows.into_values().collect::<Vec<_>>())?;
    sqlx::query!(
        "INSERT INTO environments (hash, names, env)
         SELECT unhex(value ->> 'hash'), value ->> 'names', value ->> 'env'
         FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(hashes)
}

/// The columns of a row. BLOBs travel as hex, for JSON's sake; a command that is none has no key.
#[derive(Serialize)]
struct SubmissionRow<'a> {
    number: JobNumber,
    id: JobId,
    state: JobState,
    queue: &'a str,
    priority: i64,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<&'a [String]>,
    shell: Option<&'a str>,
    cwd: &'a str,
    environment: &'a str,
    umask: u32,
    #[serde(skip_serializing_if = "Limits::is_none")]
    limits: &'a Limits,
    stdin: Option<&'a str>,
    interactive: bool,
    timeout_s: Option<f64>,
    stall_timeout_s: Option<f64>,
    grace_s: f64,
    leftover: crate::job::Leftover,
    on_lost: &'static str,
    on_disconnect: &'static str,
    disconnect_delay_s: f64,
    output_bytes_max: Option<i64>,
    when_full: &'static str,
    idempotency_key: Option<&'a str>,
    fingerprint: String,
    retry_of: Option<JobId>,
    submitted_at: i64,
}

impl<'a> SubmissionRow<'a> {
    fn of(
        submission: &'a Submission,
        environment: &'a str,
        number: JobNumber,
        key: &DigestKey,
    ) -> Self {
        let job = &submission.job;
        let (argv, shell) = match &job.command {
            Command::Argv(argv) => (Some(argv.as_slice()), None),
            Command::Shell(line) => (None, Some(line.as_str())),
        };
        Self {
            number,
            id: submission.id,
            state: first_state(),
            queue: &job.queue,
            priority: job.priority,
            name: job.name.as_deref(),
            labels: &job.labels,
            argv,
            shell,
            cwd: &submission.cwd,
            environment,
            umask: job.umask,
            limits: &job.limits,
            stdin: job.stdin.as_deref(),
            interactive: job.interactive,
            timeout_s: job.timeout_s.map(|s| s.0),
            stall_timeout_s: job.stall_timeout_s.map(|s| s.0),
            grace_s: job.grace_s.0,
            leftover: job.leftover,
            on_lost: job.on_lost.name(),
            on_disconnect: job.on_disconnect.name(),
            disconnect_delay_s: job.disconnect_delay_s.0,
            output_bytes_max: job.output.max_bytes.map(int),
            when_full: job.output.when_full.name(),
            idempotency_key: job.idempotency_key.as_deref(),
            fingerprint: hex(&key.digest(&submission.fingerprint)),
            retry_of: submission.retry_of,
            submitted_at: submission.at.0,
        }
    }
}

/// Inserts rows, in order.
async fn insert(
    batch: &mut WriteBatch<'_>,
    new: &[&Submission],
    environments: &[String],
    last_number: JobNumber,
) -> sqlx::Result<()> {
    let mut rows = String::new();
    for (nth, (submission, environment)) in new.iter().zip(environments).enumerate() {
        let row = SubmissionRow::of(submission, environment, number(last_number, nth), batch.key);
        rows.push(if rows.is_empty() { '[' } else { ',' });
        rows.push_str(&json(&row)?);
        if rows.len() >= STATEMENT_BYTES || nth + 1 == new.len() {
            rows.push(']');
            insert_rows(batch, std::mem::take(&mut rows)).await?;
        }
    }
    Ok(())
}

async fn insert_rows(batch: &mut WriteBatch<'_>, rows: String) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO jobs (number, id, state, queue, priority, name, labels, argv, shell, cwd,
             environment, umask, stdin, interactive, timeout_s, stall_timeout_s, grace_s, leftover,
             on_lost, on_disconnect, disconnect_delay_s, output_bytes_max, when_full, idempotency_key,
             fingerprint, retry_of, submitted_at, limits)
         SELECT value ->> 'number', value ->> 'id', value ->> 'state', value ->> 'queue',
             value ->> 'priority', value ->> 'name', value -> 'labels', value -> 'argv',
             value ->> 'shell', value ->> 'cwd', unhex(value ->> 'environment'),
             value ->> 'umask', value ->> 'stdin', value ->> 'interactive', value ->> 'timeout_s',
             value ->> 'stall_timeout_s', value ->> 'grace_s', value ->> 'leftover',
             value ->> 'on_lost', value ->> 'on_disconnect', value ->> 'disconnect_delay_s',
             value ->> 'output_bytes_max', value ->> 'when_full', value ->> 'idempotency_key',
             unhex(value ->> 'fingerprint'), value ->> 'retry_of', value ->> 'submitted_at',
             value -> 'limits'
         FROM json_each(?1)",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// The state in which the table lets a job begin.
fn first_state() -> JobState {
    next(None, Event::Submitted).expect("the table of transitions begins with Submitted")
}

fn submitted(submission: &Submission, last_number: JobNumber, nth: usize) -> events::NewEvent {
    events::NewEvent {
        job: number(last_number, nth),
        attempt: None,
        from: None,
        to: first_state(),
        reason: None,
        actor: submission.actor.clone(),
        at: submission.at.0,
    }
}

/// The job as a read would show it now.
pub(in crate::store) fn as_submitted(submission: &Submission, number: JobNumber) -> Job {
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
        limits: job.limits,
        name: job.name,
        labels: job.labels,
        queue: job.queue,
        priority: job.priority,
        timeout_s: job.timeout_s,
        stall_timeout_s: job.stall_timeout_s,
        grace_s: job.grace_s,
        leftover: job.leftover,
        on_lost: job.on_lost,
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
        survivors_unknown: None,
        usage: Usage::default(),
    }
}

/// The highest number that a job has had; 0 before the first one.
pub(in crate::store) async fn last_number(
    conn: impl sqlx::Executor<'_, Database = Sqlite>,
) -> sqlx::Result<JobNumber> {
    // Not checked at compile time: the check crashes the compiler on SQLite's own tables.
    let last = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'");
    Ok(last.fetch_optional(conn).await?.unwrap_or(0))
}
