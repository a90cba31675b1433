//! The claim: which queued jobs get a slot and a shim, and the attempts that this begins.
//!
//! Queues move independently, each in the order of priority and number; between queues the one
//! with the fewest running jobs for its weight comes first. Nothing here talks to a shim.

use serde::Serialize;

use super::{
    columns::{from_json, int, json, malformed},
    inputs,
    job_snapshot::{Transition, WriteBatch, all_moved},
    view,
};
use crate::store::write::ClaimRequest;
use crate::{
    job::{JobNumber, JobState, NewJob, Seconds, state},
    store::types::{Claimed, ClaimedJob},
};

/// Actor of the state change.
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

/// Answers several claims as if they had come one behind the other. The first offers get the
/// first jobs; `wanting` is what is left over behind all of them.
pub(super) async fn claim(
    batch: &mut WriteBatch<'_>,
    asks: &[&ClaimRequest],
) -> sqlx::Result<Vec<Claimed>> {
    let offers = asks.iter().map(|ask| ask.offers.len()).sum();
    let (candidates, ready) = candidates(batch, offers).await?;
    let mut candidates = candidates.into_iter();
    let mut claimed = Vec::with_capacity(asks.len());
    let mut taken = 0;
    for ask in asks {
        let jobs: Vec<_> = candidates.by_ref().take(ask.offers.len()).collect();
        taken += jobs.len();
        claimed.push(begin(batch, ask, jobs).await?);
    }
    let wanting = (ready - taken) as u32;
    claimed
        .iter_mut()
        .for_each(|answer| answer.wanting = wanting);
    Ok(claimed)
}

/// Moves the jobs, writes their attempts and gives them to the ask's shims, in order.
async fn begin(
    batch: &mut WriteBatch<'_>,
    ask: &ClaimRequest,
    jobs: Vec<ClaimCandidate>,
) -> sqlx::Result<Claimed> {
    let mut claims = Vec::with_capacity(jobs.len());
    let mut steps = Vec::with_capacity(jobs.len());
    for (ClaimCandidate { step, mut claim }, offer) in jobs.into_iter().zip(&ask.offers) {
        claim.shim.clone_from(&offer.shim);
        claims.push(claim);
        steps.push(step);
    }
    if !claims.is_empty() {
        add_inputs(batch, &mut claims).await?;
        update_jobs(batch, &steps).await?;
        insert_attempts(batch, ask, &claims).await?;
    }
    for step in steps {
        batch.record(step, None, ACTOR, ask.at);
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
    ask: &ClaimRequest,
    claims: &[ClaimedJob],
) -> sqlx::Result<()> {
    let begun = claims.iter().zip(&ask.offers).map(|(claim, offer)| Begun {
        number: claim.number,
        attempt: claim.attempt,
        shim: &offer.shim,
        version: &offer.version,
        boot_id: &ask.boot_id,
        instance: &ask.instance,
        start_offset: int(claim.start_offset),
        at: ask.at.0,
    });
    let rows = json(&begun.collect::<Vec<_>>())?;
    sqlx::query!(
        "INSERT INTO attempts (job, attempt, state, shim, shim_version, boot_id, instance,
             start_offset, claimed_at)
         SELECT value ->> 'number', value ->> 'attempt', 'claimed', value ->> 'shim',
                value ->> 'version', value ->> 'boot_id', value ->> 'instance',
                value ->> 'start_offset', value ->> 'at'
         FROM json_each(?1)",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// The most free slots that any one queue has.
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

/// The first `wanted` jobs that may run now, and how many there are in all. Looks at no more
/// rows than there are free slots, however long the queues are.
async fn candidates(
    batch: &mut WriteBatch<'_>,
    wanted: usize,
) -> sqlx::Result<(Vec<ClaimCandidate>, usize)> {
    let free = free_slots(batch).await?;
    if free <= 0 {
        return Ok((Vec::new(), 0));
    }
    // One row at least, because each tells how many there are.
    let limit = wanted.max(1) as i64;
    let rows = sqlx::query!(
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
               j.argv AS "argv: String", j.shell AS "shell: String", j.cwd AS "cwd!: String",
               e.env AS "env!: String", j.umask AS "umask!: u32", j.limits AS "limits: String",
               j.stdin AS "stdin: String",
               j.interactive AS "interactive!: bool",
               j.timeout_s AS "timeout_s: f64", j.stall_timeout_s AS "stall_timeout_s: f64",
               j.grace_s AS "grace_s!: f64", j.leftover AS "leftover!: String",
               j.on_lost AS "on_lost!: String", j.on_disconnect AS "on_disconnect!: String",
               j.disconnect_delay_s AS "disconnect_delay_s!: f64",
               j.output_bytes_max AS "output_bytes_max: i64", j.when_full AS "when_full!: String",
               j.idempotency_key AS "idempotency_key: String",
               CASE WHEN j.output_bytes = 0 THEN 0 ELSE
                   (SELECT coalesce(sum(length), 0) FROM output_chunks AS c
                    WHERE c.job = j.number AND c.gap IS NOT NULL) END AS "missing_bytes!: i64",
               (SELECT a.hash_state FROM attempts AS a
                WHERE a.job = j.number AND a.end_offset = j.output_bytes
                ORDER BY a.attempt DESC LIMIT 1) AS "hash_state: Vec<u8>"
           FROM first JOIN jobs AS j ON j.number = first.number
           JOIN environments AS e ON e.hash = j.environment
           ORDER BY first.share, first.priority DESC, first.number"#,
        free,
        limit
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let ready = rows.first().map_or(0, |row| row.ready as usize);
    let candidates = rows.into_iter().take(wanted).map(|row| {
        let job = NewJob {
            command: view::command(row.argv.as_deref(), row.shell)?,
            cwd: Some(row.cwd.clone()),
            env: from_json(&row.env)?,
            umask: row.umask,
            limits: view::limits(row.limits.as_deref())?,
            stdin: row.stdin,
            interactive: row.interactive,
            name: row.name,
            labels: from_json(&row.labels)?,
            queue: row.queue,
            priority: row.priority,
            timeout_s: row.timeout_s.map(Seconds),
            stall_timeout_s: row.stall_timeout_s.map(Seconds),
            grace_s: Seconds(row.grace_s),
            leftover: view::leftover(&row.leftover)?,
            on_lost: view::on_lost(&row.on_lost)?,
            on_disconnect: view::on_disconnect(&row.on_disconnect)?,
            disconnect_delay_s: Seconds(row.disconnect_delay_s),
            output: view::output_policy(row.output_bytes_max, &row.when_full)?,
            idempotency_key: row.idempotency_key,
        };
        let claim = ClaimedJob {
            shim: String::new(),
            number: row.number,
            id: view::job_id(&row.id)?,
            attempt: row.attempt + 1,
            start_offset: row.output_bytes as u64,
            missing_bytes: row.missing_bytes as u64,
            hash_state: row.hash_state,
            job,
            inputs: Vec::new(),
            cwd: row.cwd,
        };
        let step = claimed_step(claim.number, claim.attempt)?;
        Ok(ClaimCandidate { step, claim })
    });
    Ok((candidates.collect::<sqlx::Result<_>>()?, ready))
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
