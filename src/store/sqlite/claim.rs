//! The claim: which queued jobs get a slot and a shim, and the attempts that this begins.
//!
//! Each queue has its own order, by priority and number; between queues the one with the fewest
//! running jobs for its weight comes first. The caller sends the jobs to the shims.

use serde::Serialize;

use super::{
    columns::{from_json, int, json, malformed},
    inputs,
    job_snapshot::{Transition, WriteBatch, all_moved},
    view::{self, SpecRow},
};
use crate::store::write::ClaimRequest;
use crate::{
    job::{JobNumber, JobSpec, JobState, state},
    store::types::{Claimed, ClaimedJob},
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
    let (candidates, ready) = candidates(batch, offers).await?;
    let mut candidates = candidates.into_iter();
    let mut claimed = Vec::with_capacity(requests.len());
    let mut taken = 0;
    for request in requests {
        let jobs: Vec<_> = candidates.by_ref().take(request.offers.len()).collect();
        taken += jobs.len();
        claimed.push(begin(batch, request, jobs).await?);
    }
    let wanting = (ready - taken) as u32;
    claimed
        .iter_mut()
        .for_each(|claimed| claimed.wanting = wanting);
    Ok(claimed)
}

/// Changes the jobs' state, writes their attempts and assigns them to the offered shims, in order.
async fn begin(
    batch: &mut WriteBatch<'_>,
    request: &ClaimRequest,
    jobs: Vec<ClaimCandidate>,
) -> sqlx::Result<Claimed> {
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
        insert_attempts(batch, request, &claims).await?;
    }
    for step in steps {
        batch.record(step, None, ACTOR, request.at);
    }
    Ok(Claimed { claims, wanting: 0 })
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
             attempts = attempts + 1
         FROM json_each(?1) AS c
         WHERE number = c.value ->> 'number' AND +state = 'queued'",
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
            at: request.at.0,
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

/// The largest number of free slots of any one queue.
async fn free_slots(batch: &mut WriteBatch<'_>) -> sqlx::Result<i64> {
    let free = sqlx::query_scalar!(
        r#"SELECT max(concurrency - (SELECT count(*) FROM jobs
               WHERE queue = queues.name AND state IN ('running', 'paused'))) AS "free: i64"
           FROM queues WHERE paused = 0"#
    )
    .fetch_one(&mut *batch.conn)
    .await?;
    Ok(free.unwrap_or(0))
}

/// The first `wanted` jobs that may run now, and how many there are in all. Per queue it reads no
/// more rows than there are free slots, however long the queues are.
async fn candidates(
    batch: &mut WriteBatch<'_>,
    wanted: usize,
) -> sqlx::Result<(Vec<ClaimCandidate>, usize)> {
    let free = free_slots(batch).await?;
    if free <= 0 {
        return Ok((Vec::new(), 0));
    }
    // At least one row, because each has the total in it.
    let limit = wanted.max(1) as i64;
    let rows = sqlx::query_as!(
        ReadyRow,
        r#"WITH open AS (
               SELECT name, weight, concurrency, (SELECT count(*) FROM jobs
                   WHERE queue = queues.name AND state IN ('running', 'paused')) AS active
               FROM queues WHERE paused = 0
           ), waiting AS (
               SELECT c.number, c.priority, open.weight, open.concurrency, open.active,
                   row_number() OVER (PARTITION BY open.name ORDER BY c.priority DESC, c.number)
                       AS place
               FROM open JOIN jobs AS c ON c.number IN (
                   SELECT number FROM jobs WHERE queue = open.name AND state = 'queued'
                   ORDER BY priority DESC, number LIMIT ?1)
           ), ready AS (
               SELECT number, priority, (active + place) * 1.0 / weight AS share
               FROM waiting WHERE active + place <= concurrency
           ), first AS (
               SELECT number, priority, share, count(*) OVER () AS ready
               FROM ready ORDER BY share, priority DESC, number LIMIT ?2
           )
           SELECT first.ready AS "ready!: i64", j.number AS "number!: i64", j.id AS "id!: String",
               j.attempt AS "attempt!: u32", j.output_bytes AS "output_bytes!: i64",
               j.queue AS "queue!: String", j.priority AS "priority!: i64",
               j.name AS "name: String", j.labels AS "labels!: String",
               j.interactive AS "interactive!: bool", j.on_lost AS "on_lost!: String",
               j.idempotency_key AS "idempotency_key: String", j.spec AS "spec!: String",
               e.env AS "env!: String", j.stdin AS "stdin: String",
               CASE WHEN j.output_bytes = 0 THEN 0 ELSE
                   (SELECT coalesce(sum(length), 0) FROM output_chunks AS c
                    WHERE c.job = j.number AND c.gap IS NOT NULL) END AS "missing_bytes!: i64",
               (SELECT a.hash_state FROM attempts AS a
                WHERE a.job = j.number AND a.end_offset = j.output_bytes
                ORDER BY a.attempt DESC LIMIT 1) AS "hash_state: Vec<u8>",
               CASE WHEN j.attempt = 0 THEN 0 ELSE
                   (SELECT p.pause FROM attempts AS p
                    WHERE p.job = j.number AND p.attempt = j.attempt) END AS "paused!: bool"
           FROM first JOIN jobs AS j ON j.number = first.number
           JOIN environments AS e ON e.hash = j.environment
           ORDER BY first.share, first.priority DESC, first.number"#,
        free,
        limit
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let ready = rows.first().map_or(0, |row| row.ready as usize);
    let candidates = rows.into_iter().take(wanted).map(ReadyRow::into_candidate);
    Ok((candidates.collect::<sqlx::Result<_>>()?, ready))
}

/// A job that may run now, as the statement returns it.
struct ReadyRow {
    /// The total of such jobs.
    ready: i64,
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
    spec: String,
    env: String,
    stdin: Option<String>,
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
        };
        let step = claimed_step(claim.number, claim.attempt)?;
        Ok(ClaimCandidate { step, claim })
    }
}

fn claimed_step(number: JobNumber, attempt: u32) -> sqlx::Result<Transition> {
    let from = JobState::Queued;
    let to = state::next(Some(from), state::Event::Claimed)
        .ok_or_else(|| malformed("the table of transitions knows no claim"))?;
    Ok(Transition {
        number,
        attempt,
        from,
        to,
    })
}
