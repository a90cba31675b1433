//! The claim: which queued jobs get a slot and a shim, and the attempts that this begins.
//!
//! `tally` says which queues get the next slots; here the first jobs of these queues are read, by
//! priority and number. What a claim costs depends on the jobs that it claims alone. The caller sends
//! them to the shims.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;

use super::{
    columns::{from_json, from_json_opt, int, json, malformed},
    exclusive,
    fair_queues::QueueName,
    inputs,
    job_snapshot::{Transition, WriteBatch, all_moved},
    view::{self, SpecRow},
};
use crate::store::write::ClaimRequest;
use crate::{
    job::{JobNumber, JobSpec, JobState, Micros, NotifyEntry, state},
    store::types::{Claimed, ClaimedJob},
    sys::clock,
};

/// Actor of the state change to `running`.
const ACTOR: &str = "scheduler";

/// A job that may run now.
struct ClaimCandidate {
    step: Transition,
    claim: ClaimedJob,
}

/// An attempt that begins.
#[derive(Serialize)]
struct Begun<'a> {
    number: JobNumber,
    attempt: u32,
    shim: &'a str,
    version: &'a str,
    boot_id: &'a str,
    instance: &'a str,
    start_offset: i64,
    at: i64,
}

/// Executes several claims as if they had come one after the other. The first offers get the first
/// jobs; `wanting` is what is left over after all of them.
pub(super) async fn claim(
    batch: &mut WriteBatch<'_>,
    requests: &[&ClaimRequest],
) -> sqlx::Result<Vec<Claimed>> {
    let offers = requests.iter().map(|request| request.offers.len()).sum();
    let started = batch.tally.start(offers);
    let candidates = candidates(batch, &started).await?;
    let mut candidates = one_of_each_key(batch, candidates).into_iter();
    let mut claimed = Vec::with_capacity(requests.len());
    for request in requests {
        let jobs: Vec<_> = candidates.by_ref().take(request.offers.len()).collect();
        claimed.push(begin(batch, request, jobs).await?);
    }
    // Jobs with the keys that are taken now want no shim.
    exclusive::assign_turns(batch).await?;
    let wanting = u32::try_from(batch.tally.ready()).unwrap_or(u32::MAX);
    let next_start_in = batch.tally.next_start_in();
    for claimed in &mut claimed {
        claimed.wanting = wanting;
        claimed.next_start_in = next_start_in;
    }
    Ok(claimed)
}

/// Leaves out jobs whose exclusive key an earlier one has: they came from different queues.
fn one_of_each_key(
    batch: &mut WriteBatch<'_>,
    mut candidates: Vec<ClaimCandidate>,
) -> Vec<ClaimCandidate> {
    candidates.retain(|candidate| {
        let job = &candidate.claim.job;
        let Some(key) = &job.exclusive else {
            return true;
        };
        let is_first = batch.touched_keys.insert(key.clone());
        if !is_first {
            batch.tally.unstart(&job.queue);
        }
        is_first
    });
    candidates
}

/// Changes the jobs' state, writes their attempts and assigns them to the offered shims, in order.
async fn begin(
    batch: &mut WriteBatch<'_>,
    request: &ClaimRequest,
    jobs: Vec<ClaimCandidate>,
) -> sqlx::Result<Claimed> {
    // Not the moment of the request: it may have waited here while its job became queued.
    let at = clock::now();
    let mut claims = Vec::with_capacity(jobs.len());
    let mut steps = Vec::with_capacity(jobs.len());
    for (ClaimCandidate { step, mut claim }, offer) in jobs.into_iter().zip(&request.offers) {
        claim.shim.clone_from(&offer.shim);
        claims.push(claim);
        steps.push(step);
    }
    if !claims.is_empty() {
        add_inputs(batch, &mut claims).await?;
        update_jobs(batch, &steps).await?;
        insert_attempts(batch, request, &claims, at).await?;
    }
    for step in steps {
        batch.add_event(step, None, ACTOR, at);
    }
    Ok(Claimed {
        claims,
        ..Claimed::default()
    })
}

async fn add_inputs(batch: &mut WriteBatch<'_>, claims: &mut [ClaimedJob]) -> sqlx::Result<()> {
    let interactive = claims.iter().filter(|claim| claim.job.interactive);
    let numbers: Vec<_> = interactive.map(|claim| claim.number).collect();
    let mut kept = inputs::kept(batch, &numbers).await?;
    for claim in claims {
        claim.inputs = kept.remove(&claim.number).unwrap_or_default();
    }
    Ok(())
}

async fn update_jobs(batch: &mut WriteBatch<'_>, steps: &[Transition]) -> sqlx::Result<()> {
    let rows = json(&steps)?;
    let done = sqlx::query!(
        "UPDATE jobs SET state = c.value ->> 'to', attempt = c.value ->> 'attempt',
             attempts = attempts + 1, waits_for_key = exclusive IS NOT NULL
         FROM json_each(?1) AS c
         WHERE number = c.value ->> 'number' AND +state = 'queued' AND waits_for_key = 0",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), steps.len())
}

async fn insert_attempts(
    batch: &mut WriteBatch<'_>,
    request: &ClaimRequest,
    claims: &[ClaimedJob],
    at: Micros,
) -> sqlx::Result<()> {
    let begun = claims
        .iter()
        .zip(&request.offers)
        .map(|(claim, offer)| Begun {
            number: claim.number,
            attempt: claim.attempt,
            shim: &offer.shim,
            version: &offer.version,
            boot_id: &request.boot_id,
            instance: &request.instance,
            start_offset: int(claim.start_offset),
            at: at.0,
        });
    let rows = json(&begun.collect::<Vec<_>>())?;
    sqlx::query!(
        // A requested pause outlives an attempt that was lost or never ran.
        "INSERT INTO attempts (job, attempt, state, shim, shim_version, boot_id, instance,
             start_offset, claimed_at, pause, pause_by, pause_at)
         SELECT c.value ->> 'number', c.value ->> 'attempt', 'claimed', c.value ->> 'shim',
                c.value ->> 'version', c.value ->> 'boot_id', c.value ->> 'instance',
                c.value ->> 'start_offset', c.value ->> 'at',
                coalesce(p.pause, 0), p.pause_by, p.pause_at
         FROM json_each(?1) AS c LEFT JOIN attempts AS p
             ON p.job = c.value ->> 'number' AND p.attempt = (c.value ->> 'attempt') - 1
                AND p.pause = 1",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// The jobs that `started` names the queues of: of each queue the first ones.
async fn candidates(
    batch: &mut WriteBatch<'_>,
    started: &[QueueName],
) -> sqlx::Result<Vec<ClaimCandidate>> {
    let mut found: HashMap<String, VecDeque<ClaimCandidate>> = HashMap::new();
    for (jobs, queues) in by_number_of_jobs(started) {
        for row in first_jobs(batch, &queues, jobs).await? {
            let of_queue = found.entry(row.queue.clone()).or_default();
            of_queue.push_back(row.into_candidate()?);
        }
    }
    let next = |queue: &QueueName| found.get_mut(&**queue)?.pop_front();
    let candidates: Vec<_> = started.iter().filter_map(next).collect();
    if candidates.len() < started.len() {
        batch.tally.distrust();
    }
    Ok(candidates)
}

/// The queues, by how often each is named: one statement serves all that need the same number of
/// jobs. `n` names have less than the square root of 2n + 1 such numbers.
fn by_number_of_jobs(started: &[QueueName]) -> BTreeMap<i64, Vec<&str>> {
    let mut jobs: BTreeMap<&str, i64> = BTreeMap::new();
    for queue in started {
        *jobs.entry(queue).or_default() += 1;
    }
    let mut queues: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (queue, jobs) in jobs {
        queues.entry(jobs).or_default().push(queue);
    }
    queues
}

/// The first `jobs` queued jobs of each of these queues, in the order of each queue.
async fn first_jobs(
    batch: &mut WriteBatch<'_>,
    queues: &[&str],
    jobs: i64,
) -> sqlx::Result<Vec<ReadyRow>> {
    let queues = json(&queues)?;
    sqlx::query_as!(
        ReadyRow,
        r#"SELECT j.number AS "number!: i64", j.id AS "id!: String",
               j.attempt AS "attempt!: u32", j.output_bytes AS "output_bytes!: i64",
               j.queue AS "queue!: String", j.priority AS "priority!: i64",
               j.name AS "name: String", j.labels AS "labels!: String",
               j.interactive AS "interactive!: bool", j.on_lost AS "on_lost!: String",
               j.idempotency_key AS "idempotency_key: String", j.exclusive AS "exclusive: String",
               j.spec AS "spec!: String", j.notify AS "notify: String",
               e.env AS "env!: String", j.stdin AS "stdin: String", j.policy AS "policy: String",
               CASE WHEN j.output_bytes = 0 THEN 0 ELSE
                   (SELECT coalesce(sum(length), 0) FROM output_chunks AS c
                    WHERE c.job = j.number AND c.gap IS NOT NULL) END AS "missing_bytes!: i64",
               (SELECT a.hash_state FROM attempts AS a
                WHERE a.job = j.number AND a.end_offset = j.output_bytes
                ORDER BY a.attempt DESC LIMIT 1) AS "hash_state: Vec<u8>",
               CASE WHEN j.attempt = 0 THEN 0 ELSE
                   (SELECT p.pause FROM attempts AS p
                    WHERE p.job = j.number AND p.attempt = j.attempt) END AS "paused!: bool"
           FROM json_each(?1) AS picked
           JOIN jobs AS j ON j.number IN (
               SELECT number FROM jobs
               WHERE queue = picked.value AND state = 'queued' AND waits_for_key = 0
               ORDER BY priority DESC, number LIMIT ?2)
           JOIN environments AS e ON e.hash = j.environment
           ORDER BY j.priority DESC, j.number"#,
        queues,
        jobs
    )
    .fetch_all(&mut *batch.conn)
    .await
}

/// A job that may run now, as the statement returns it.
struct ReadyRow {
    number: JobNumber,
    id: String,
    attempt: u32,
    output_bytes: i64,
    queue: String,
    priority: i64,
    name: Option<String>,
    labels: String,
    interactive: bool,
    on_lost: String,
    idempotency_key: Option<String>,
    exclusive: Option<String>,
    spec: String,
    notify: Option<String>,
    env: String,
    stdin: Option<String>,
    policy: Option<String>,
    missing_bytes: i64,
    hash_state: Option<Vec<u8>>,
    paused: bool,
}

impl ReadyRow {
    fn into_candidate(self) -> sqlx::Result<ClaimCandidate> {
        let spec = SpecRow {
            spec: self.spec,
            queue: self.queue,
            priority: self.priority,
            name: self.name,
            labels: self.labels,
            interactive: self.interactive,
            on_lost: self.on_lost,
            idempotency_key: self.idempotency_key,
            exclusive: self.exclusive,
            notify: self.notify,
        };
        let job = JobSpec {
            env: from_json(&self.env)?,
            stdin: self.stdin,
            ..spec.into_spec()?
        };
        let claim = ClaimedJob {
            shim: String::new(),
            number: self.number,
            id: view::job_id(&self.id)?,
            attempt: self.attempt + 1,
            start_offset: self.output_bytes as u64,
            missing_bytes: self.missing_bytes as u64,
            hash_state: self.hash_state,
            job,
            inputs: Vec::new(),
            paused: self.paused,
            policy: from_json_opt(self.policy.as_deref())?,
        };
        let step = claimed_step(&claim)?;
        Ok(ClaimCandidate { step, claim })
    }
}

fn claimed_step(claim: &ClaimedJob) -> sqlx::Result<Transition> {
    let from = JobState::Queued;
    let to = state::next(Some(from), state::Event::Claimed)
        .ok_or_else(|| malformed("the table of transitions knows no claim"))?;
    Ok(Transition {
        number: claim.number,
        attempt: claim.attempt,
        from,
        to,
        notify: NotifyEntry::states(&claim.job.notify).contains(to),
    })
}
