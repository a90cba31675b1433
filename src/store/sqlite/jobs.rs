//! Stores new jobs: batches of submissions, each whole or not at all, each job once per idempotency
//! key.
//!
//! Later changes are in the files named after them (`claim`, `finish`, …).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use sqlx::Sqlite;

use super::{
    columns::{hex, json, malformed},
    dependencies::{self, DependencyRow},
    events,
    job_snapshot::WriteBatch,
    keys::DigestKey,
    tally::CountedAs,
    view::{self, policy_text},
};
use crate::{
    job::{
        Dependency, DependencyCondition, DependencyTarget, Job, JobId, JobNumber, JobSpec,
        JobState, Micros, NotifyEntry,
        state::{Event, WaitsFor, next},
    },
    store::types::{BatchRefused, Submission, SubmitError, SubmitOutcome},
};

/// Rows are inserted in statements of about this much JSON, so that a large batch is not held in
/// memory a second time, bytes.
const STATEMENT_BYTES: usize = 1 << 20;

/// The job that a submission leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubmissionTarget {
    /// A stored one with the same key.
    Known(SubmitOutcome),
    /// A new one: its index among the new ones of this transaction.
    New(usize),
    /// The new one with this index, which came before under the same key.
    Repeated(usize),
}

/// The job that has an idempotency key.
#[derive(Debug)]
struct KeyOwner {
    /// Made with the data directory's secret key.
    fingerprint: [u8; 32],
    target: SubmissionTarget,
}

/// Stores batches as if they had come one after the other. The inner error is a caller's (nothing
/// of that batch was written), the outer one the database's.
pub(super) async fn submit(
    batch: &mut WriteBatch<'_>,
    batches: &[&[Submission]],
) -> sqlx::Result<Vec<Result<Vec<SubmitOutcome>, BatchRefused>>> {
    let (queues, last_number) = queues(batch, batches).await?;
    let key = batch.key;
    let mut classifier = Classifier {
        key,
        queues,
        keys: keys(batch, batches).await?,
        dependencies: dependencies::known(batch, &named_jobs(batches)).await?,
        last_number,
        new: Vec::new(),
    };
    let classified: Vec<_> = batches
        .iter()
        .map(|one_batch| classifier.classify(one_batch))
        .collect();
    let Classifier { new, .. } = classifier;
    if !new.is_empty() {
        store(batch, &new, last_number).await?;
    }
    let outcome = |target: SubmissionTarget| target.outcome(&new, last_number);
    let outcomes = |targets: Vec<SubmissionTarget>| targets.into_iter().map(outcome).collect();
    Ok(classified
        .into_iter()
        .map(|targets| targets.map(outcomes))
        .collect())
}

/// Inserts the new jobs and their events.
async fn store(
    batch: &mut WriteBatch<'_>,
    new: &[NewSubmission<'_>],
    last_number: JobNumber,
) -> sqlx::Result<()> {
    let environments = insert_environments(batch, new).await?;
    insert(batch, new, &environments, last_number).await?;
    let mut waits = Vec::new();
    for (nth, one) in new.iter().enumerate() {
        let number = number(last_number, nth);
        batch.events.push(submitted(one, number));
        let job = &one.submission.job;
        let counted = CountedAs {
            state: one.state,
            waits_for_key: job.exclusive.is_some(),
        };
        batch.tally.moved(&job.queue, None, Some(counted));
        batch.touched_keys.extend(job.exclusive.clone());
        for wait in &one.waits {
            waits.push(wait.row(number, last_number));
            if let DependencyJob::Stored(on_job, true) = wait.on {
                batch.releases.add(on_job);
            }
        }
    }
    dependencies::insert(batch, &waits).await
}

/// All jobs that submissions are to wait for.
fn named_jobs(batches: &[&[Submission]]) -> BTreeSet<JobId> {
    let all = batches.iter().flat_map(|one_batch| one_batch.iter());
    let after = all.flat_map(|submission| &submission.job.after);
    let id = |dependency: &Dependency| match dependency.job {
        DependencyTarget::Id(id) => Some(id),
        DependencyTarget::Number(_) | DependencyTarget::Entry(_) => None,
    };
    after.filter_map(id).collect()
}

/// Those of the named queues that exist, with whether they drain; and the last number that a job was
/// given.
async fn queues(
    batch: &mut WriteBatch<'_>,
    batches: &[&[Submission]],
) -> sqlx::Result<(HashMap<String, bool>, JobNumber)> {
    let named = batches.iter().flat_map(|one_batch| one_batch.iter());
    let named: BTreeSet<&str> = named.map(|one| one.job.queue.as_str()).collect();
    let named = json(&named)?;
    let rows = sqlx::query!(
        r#"SELECT name AS "name!: String", drain AS "drain!: bool",
               (SELECT max(seq) FROM sqlite_sequence WHERE name = 'jobs') AS "last: i64"
           FROM queues WHERE name IN (SELECT value FROM json_each(?1))"#,
        named
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    // Before the first job the sequence has no row.
    let last = rows.first().and_then(|row| row.last).unwrap_or(0);
    let queues = rows.into_iter().map(|row| (row.name, row.drain));
    Ok((queues.collect(), last))
}

/// Those of the named keys that are in use.
async fn keys(
    batch: &mut WriteBatch<'_>,
    batches: &[&[Submission]],
) -> sqlx::Result<HashMap<String, KeyOwner>> {
    let named = batches.iter().flat_map(|one_batch| one_batch.iter());
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
        let owner = KeyOwner {
            fingerprint: fingerprint.map_err(|_| malformed("a fingerprint has 32 bytes"))?,
            target: SubmissionTarget::Known(SubmitOutcome {
                id: view::job_id(&row.id)?,
                number: row.number,
                state: events::state(&row.state)?,
                created: false,
            }),
        };
        Ok((row.key, owner))
    })
    .collect()
}

/// Finds out which submissions are new. Pure.
struct Classifier<'a> {
    key: &'a DigestKey,
    /// Whether they drain.
    queues: HashMap<String, bool>,
    keys: HashMap<String, KeyOwner>,
    /// The stored jobs that are named in `after`.
    dependencies: HashMap<JobId, (JobNumber, JobState)>,
    last_number: JobNumber,
    new: Vec<NewSubmission<'a>>,
}

/// A submission that becomes a job.
struct NewSubmission<'a> {
    submission: &'a Submission,
    /// Its `after` with ids alone.
    after: Vec<Dependency>,
    /// What of it is not met yet.
    waits: Vec<Wait>,
    /// The state in which it begins.
    state: JobState,
    ready_at: Option<Micros>,
}

/// Something that a new job waits for.
struct Wait {
    on: DependencyJob,
    condition: DependencyCondition,
}

/// A job that another one is to wait for.
#[derive(Clone, Copy)]
enum DependencyJob {
    /// A stored one, and whether it is final.
    Stored(JobNumber, bool),
    /// A new one, by its index.
    New(usize),
}

impl Wait {
    fn row(&self, job: JobNumber, last_number: JobNumber) -> DependencyRow {
        DependencyRow {
            job,
            on_job: match self.on {
                DependencyJob::Stored(on_job, _) => on_job,
                DependencyJob::New(nth) => number(last_number, nth),
            },
            condition: self.condition,
        }
    }
}

impl<'a> Classifier<'a> {
    /// The target of each; a batch with a refused submission leaves nothing.
    fn classify(
        &mut self,
        submissions: &'a [Submission],
    ) -> Result<Vec<SubmissionTarget>, BatchRefused> {
        let before = self.new.len();
        let mut targets = Vec::with_capacity(submissions.len());
        for (index, submission) in submissions.iter().enumerate() {
            match self.target(submission, &targets) {
                Ok(target) => targets.push(target),
                Err(error) => {
                    self.roll_back(before);
                    return Err(BatchRefused {
                        index: Some(index),
                        error,
                    });
                }
            }
        }
        Ok(targets)
    }

    /// The target of one submission; `earlier` are those of the same batch.
    fn target(
        &mut self,
        submission: &'a Submission,
        earlier: &[SubmissionTarget],
    ) -> Result<SubmissionTarget, SubmitError> {
        let key = submission.job.idempotency_key.as_ref();
        if let Some(owner) = key.and_then(|key| self.keys.get(key)) {
            if owner.fingerprint == self.key.digest(&submission.fingerprint) {
                return Ok(owner.target.repeated());
            }
            let same_batch = earlier.iter().position(|target| *target == owner.target);
            return Err(match (owner.target, same_batch) {
                (SubmissionTarget::Known(outcome), _) => SubmitError::KeyConflict(outcome.number),
                (_, Some(index)) => SubmitError::KeyConflictWithin(index),
                (SubmissionTarget::New(nth) | SubmissionTarget::Repeated(nth), None) => {
                    SubmitError::KeyConflict(number(self.last_number, nth))
                }
            });
        }
        let queue = &submission.job.queue;
        match self.queues.get(queue) {
            None => return Err(SubmitError::UnknownQueue(queue.clone())),
            Some(true) => return Err(SubmitError::QueueDrains(queue.clone())),
            Some(false) => {}
        }
        let new = self.new_submission(submission, earlier)?;
        let target = SubmissionTarget::New(self.new.len());
        self.new.push(new);
        if let Some(key) = key {
            let fingerprint = self.key.digest(&submission.fingerprint);
            self.keys.insert(
                key.clone(),
                KeyOwner {
                    fingerprint,
                    target,
                },
            );
        }
        Ok(target)
    }

    /// What a new job waits for, and so the state in which it begins.
    fn new_submission(
        &self,
        submission: &'a Submission,
        earlier: &[SubmissionTarget],
    ) -> Result<NewSubmission<'a>, SubmitError> {
        let job = &submission.job;
        let (mut after, mut waits) = (Vec::new(), Vec::new());
        for dependency in &job.after {
            let condition = dependency.on;
            let (id, wait) = self.dependency(dependency, earlier)?;
            after.push(Dependency {
                job: DependencyTarget::Id(id),
                on: condition,
            });
            waits.extend(wait.map(|on| Wait { on, condition }));
        }
        let ready_at = job.earliest_start(submission.at);
        let wait = match ready_at {
            _ if !waits.is_empty() => WaitsFor::Jobs,
            Some(ready_at) if ready_at > submission.at => WaitsFor::Time,
            _ => WaitsFor::Slot,
        };
        let state = next(None, Event::Submitted(wait));
        Ok(NewSubmission {
            submission,
            after,
            waits,
            state: state.expect("the table of transitions begins with Submitted"),
            ready_at,
        })
    }

    /// The id of a job to wait for; and the job itself, unless it has ended as required.
    fn dependency(
        &self,
        dependency: &Dependency,
        earlier: &[SubmissionTarget],
    ) -> Result<(JobId, Option<DependencyJob>), SubmitError> {
        let stored = |id: JobId, number: JobNumber, state: JobState| {
            let met = dependency.on.is_met_by(state);
            (
                id,
                (!met).then_some(DependencyJob::Stored(number, state.is_final())),
            )
        };
        match dependency.job {
            DependencyTarget::Id(id) => {
                let known = self.dependencies.get(&id);
                let known = known.map(|(number, state)| stored(id, *number, *state));
                known.ok_or(SubmitError::UnknownDependency(id.into()))
            }
            DependencyTarget::Number(number) => Err(SubmitError::UnknownDependency(number.into())),
            DependencyTarget::Entry(index) => match earlier.get(index) {
                Some(SubmissionTarget::Known(known)) => {
                    Ok(stored(known.id, known.number, known.state))
                }
                Some(SubmissionTarget::New(nth) | SubmissionTarget::Repeated(nth)) => {
                    let id = self.new[*nth].submission.id;
                    Ok((id, Some(DependencyJob::New(*nth))))
                }
                None => Err(SubmitError::NotAnEarlierEntry(index)),
            },
        }
    }

    /// Removes all new ones from `before` on.
    fn roll_back(&mut self, before: usize) {
        self.new.truncate(before);
        self.keys.retain(
            |_, owner| !matches!(owner.target, SubmissionTarget::New(nth) if nth >= before),
        );
    }
}

impl SubmissionTarget {
    /// The target of a submission that comes again under the same key.
    fn repeated(self) -> Self {
        match self {
            Self::New(nth) => Self::Repeated(nth),
            known => known,
        }
    }

    fn outcome(self, new: &[NewSubmission<'_>], last_number: JobNumber) -> SubmitOutcome {
        match self {
            Self::Known(outcome) => outcome,
            Self::New(nth) | Self::Repeated(nth) => SubmitOutcome {
                id: new[nth].submission.id,
                number: number(last_number, nth),
                state: new[nth].state,
                created: matches!(self, Self::New(_)),
            },
        }
    }
}

/// The number of the `nth` new job: ascending in the order of submission.
fn number(last_number: JobNumber, nth: usize) -> JobNumber {
    last_number + 1 + nth as JobNumber
}

/// Stores environments, once per content; returns the hashes of all, as hex.
async fn insert_environments(
    batch: &mut WriteBatch<'_>,
    new: &[NewSubmission<'_>],
) -> sqlx::Result<Vec<String>> {
    #[derive(Serialize)]
    struct EnvironmentRow {
        hash: String,
        names: String,
        env: String,
    }
    let mut hashes = Vec::with_capacity(new.len());
    let mut rows = BTreeMap::new();
    for NewSubmission { submission, .. } in new {
        let env = json(&submission.job.env)?;
        let hash = hex(&batch.key.digest_of(&env));
        hashes.push(hash.clone());
        if !rows.contains_key(&hash) {
            let names = json(&submission.job.env.keys().collect::<Vec<_>>())?;
            rows.insert(hash.clone(), EnvironmentRow { hash, names, env });
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

/// The columns of a row. BLOBs are hex inside of JSON.
#[derive(Serialize)]
struct SubmissionRow<'a> {
    number: JobNumber,
    id: JobId,
    state: JobState,
    spec: &'a JobSpec,
    after: &'a [Dependency],
    environment: &'a str,
    stdin: Option<&'a str>,
    notify: Option<String>,
    fingerprint: String,
    retry_of: Option<JobId>,
    submitted_at: i64,
    ready_at: Option<i64>,
    token: Option<i64>,
    policy: Option<String>,
}

impl<'a> SubmissionRow<'a> {
    fn of(
        new: &'a NewSubmission<'_>,
        environment: &'a str,
        number: JobNumber,
        key: &DigestKey,
    ) -> sqlx::Result<Self> {
        let submission = new.submission;
        let notify = submission.job.notify.as_slice();
        let notify: Vec<_> = notify.iter().map(NotifyEntry::with_secret).collect();
        Ok(Self {
            number,
            id: submission.id,
            state: new.state,
            spec: &submission.job,
            after: &new.after,
            ready_at: new.ready_at.map(|at| at.0),
            environment,
            stdin: submission.job.stdin.as_deref(),
            notify: (!notify.is_empty()).then(|| json(&notify)).transpose()?,
            fingerprint: hex(&key.digest(&submission.fingerprint)),
            retry_of: submission.retry_of,
            submitted_at: submission.at.0,
            token: submission.token,
            policy: policy_text(submission.policy.as_ref())?,
        })
    }
}

/// Inserts rows, in order.
async fn insert(
    batch: &mut WriteBatch<'_>,
    new: &[NewSubmission<'_>],
    environments: &[String],
    last_number: JobNumber,
) -> sqlx::Result<()> {
    let mut rows = String::new();
    for (nth, (one, environment)) in new.iter().zip(environments).enumerate() {
        let row = SubmissionRow::of(one, environment, number(last_number, nth), batch.key)?;
        rows.push(if rows.is_empty() { '[' } else { ',' });
        rows.push_str(&json(&row)?);
        if rows.len() >= STATEMENT_BYTES || nth + 1 == new.len() {
            rows.push(']');
            insert_rows(batch, std::mem::take(&mut rows)).await?;
        }
    }
    Ok(())
}

/// Keys that SQL needs have columns of their own, and are removed from `spec`.
async fn insert_rows(batch: &mut WriteBatch<'_>, rows: String) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO jobs (number, id, state, queue, priority, name, labels, interactive, on_lost,
             idempotency_key, exclusive, waits_for_key, spec, notify, environment, stdin,
             fingerprint, retry_of, submitted_at, ready_at, token, policy)
         SELECT value ->> 'number', value ->> 'id', value ->> 'state', value ->> '$.spec.queue',
             value ->> '$.spec.priority', value ->> '$.spec.name', value -> '$.spec.labels',
             value ->> '$.spec.interactive', value ->> '$.spec.on_lost',
             value ->> '$.spec.idempotency_key', value ->> '$.spec.exclusive',
             (value ->> '$.spec.exclusive') IS NOT NULL,
             json_remove(
                 CASE WHEN json_array_length(value, '$.after') = 0 THEN value -> 'spec'
                     ELSE json_set(value -> 'spec', '$.after', value -> 'after') END,
                 '$.queue', '$.priority', '$.name', '$.labels', '$.interactive', '$.on_lost',
                 '$.idempotency_key', '$.exclusive', '$.notify'),
             value ->> 'notify',
             unhex(value ->> 'environment'), value ->> 'stdin', unhex(value ->> 'fingerprint'),
             value ->> 'retry_of', value ->> 'submitted_at', value ->> 'ready_at',
             value ->> 'token', value ->> 'policy'
         FROM json_each(?1)",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

fn submitted(new: &NewSubmission<'_>, number: JobNumber) -> events::NewEvent {
    events::NewEvent {
        job: number,
        attempt: None,
        from: None,
        to: new.state,
        reason: None,
        actor: new.submission.actor.clone(),
        at: new.submission.at.0,
        notify: NotifyEntry::states(&new.submission.job.notify).contains(new.state),
    }
}

/// The job as a read returns it now; not for one that waits for others, which may have failed already.
pub(in crate::store) fn as_submitted(submission: &Submission, outcome: SubmitOutcome) -> Job {
    let waits_until = submission.job.earliest_start(submission.at);
    Job {
        waits_until: waits_until.filter(|_| outcome.state == JobState::Scheduled),
        policy: submission.policy.clone(),
        ..Job::submitted(
            (submission.id, outcome.number),
            outcome.state,
            submission.job.clone(),
            submission.retry_of,
            submission.at,
        )
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
