//! Verifies a job: everything that is stored of it is read, hashed anew and compared with what the
//! record says.
//!
//! How the output is walked through and judged is `output`'s business.

use tokio::sync::SemaphorePermit;

use super::{Error, Executor, until::READ_BYTES};
use crate::{
    job::{Fault, JobNumber, JobRef, Problem, Verdict, chain::Chain},
    output::{Audit, Claim, Claims, Walk, audit::LISTED_MAX, walk::PIECE_BYTES},
    store::{AttemptRecord, JobRecord},
};

/// Verifications at a time; the others wait.
pub(super) const VERIFIES_MAX: usize = 2;

/// How often a job is looked at again that has moved on while it was looked at.
const ROUNDS_MAX: u32 = 5;

/// Events that are read at once.
const EVENTS_PAGE: u32 = 1000;

/// A turn to verify; it is over when this is dropped.
#[derive(Debug)]
pub struct VerifyTurn<'a>(#[expect(dead_code, reason = "held")] SemaphorePermit<'a>);

impl Executor {
    /// Waits for a turn to verify.
    pub async fn turn_to_verify(&self) -> Result<VerifyTurn<'_>, Error> {
        let place = self.inner.verify_places.acquire().await;
        place.map(VerifyTurn).map_err(|_| Error::stopping())
    }

    /// Looks through a job and answers claims about its output. One that is not final is looked
    /// through as far as its output reaches when this begins. Takes as long as reading and hashing
    /// its output takes; can be dropped at any time.
    pub async fn verify(
        &self,
        _turn: &VerifyTurn<'_>,
        job: JobRef,
        claims: Vec<Claim>,
    ) -> Result<Verdict, Error> {
        let number = self.number(job).await?;
        for _ in 0..ROUNDS_MAX {
            let before = self.record(number).await?;
            let verdict = self
                .look_through(&before, Claims::new(claims.clone()))
                .await?;
            // What was read from two sides of a change need not fit together.
            let now = self.record(number).await?;
            if verdict.intact || now.newest_event == before.newest_event {
                return Ok(verdict);
            }
        }
        Err(Error::Conflict(format!(
            "job {number} changes its state faster than it can be verified; wait for its end"
        )))
    }

    async fn record(&self, number: JobNumber) -> Result<JobRecord, Error> {
        let record = self.inner.store.job_record(number).await?;
        record.ok_or_else(|| Error::no_such_job(JobRef::Number(number)))
    }

    async fn look_through(&self, job: &JobRecord, claims: Claims) -> Result<Verdict, Error> {
        let is_final = job.state.is_final();
        let end = match is_final {
            true => job.output_bytes,
            false => self.snapshot(job.number).await?.output_bytes,
        };
        let attempts = self.inner.store.attempt_records(job.number).await?;
        let mut problems = wrong_attempts(job, &attempts);
        problems.extend(self.wrong_events(job).await?);
        let mut audit = Audit::new(attempts);
        problems.into_iter().for_each(|problem| audit.add(problem));
        // A pattern gets no more at once than one that is waited for.
        let piece_bytes = match claims.patterns() {
            0 => PIECE_BYTES,
            _ => READ_BYTES,
        };
        let walk = Walk::new(job.number, end, is_final, piece_bytes);
        let (audit, claims) = self.walk(walk, audit, claims).await?;
        let audited = audit.finish(is_final.then_some(job));
        Ok(Verdict {
            job: job.number,
            state: job.state,
            intact: audited.problems.first.is_empty(),
            output_bytes: audited.output_bytes,
            claims: claims.finish(audited.output_sha256.as_deref()),
            output_sha256: audited.output_sha256,
            problems: audited.problems.first,
            more_problems: audited.problems.more,
            gaps: audited.gaps.first,
            more_gaps: audited.gaps.more,
        })
    }

    /// Piece by piece, and each pattern by itself, in turn with those who wait for something in an
    /// output.
    async fn walk(
        &self,
        mut walk: Walk,
        mut audit: Audit,
        mut claims: Claims,
    ) -> Result<(Audit, Claims), Error> {
        while !walk.is_over() {
            let met = {
                let _place = self.place_to_read().await?;
                walk.step(&self.inner.log).await?
            };
            let mut items;
            (audit, claims, items) = self
                .work(move || {
                    let items = audit.take(met);
                    claims.feed_texts(&items);
                    (audit, claims, items)
                })
                .await?;
            for nth in (0..claims.patterns()).rev() {
                (claims, items) = self
                    .work(move || {
                        claims.feed_pattern(nth, &items);
                        (claims, items)
                    })
                    .await?;
            }
        }
        Ok((audit, claims))
    }

    /// Does what keeps a processor busy where nobody waits for the thread.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.inner.search_places.acquire().await;
        let _turn = turn.map_err(|_| Error::stopping())?;
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Error::Internal(format!("a verification failed: {error}")))
    }

    async fn wrong_events(&self, job: &JobRecord) -> Result<Vec<Problem>, Error> {
        let (mut chain, mut after) = (Chain::default(), 0);
        let mut problems = Vec::new();
        loop {
            let events = self.inner.store.recorded(job.number, after, EVENTS_PAGE);
            let events = events.await?;
            let Some(last) = events.last() else { break };
            after = last.event;
            // More than are listed say no more.
            for event in events {
                let problem = chain.add(event);
                problems.extend(problem.filter(|_| problems.len() < LISTED_MAX));
            }
        }
        problems.extend(chain.end(job.state, job.reason, job.attempt));
        Ok(problems)
    }
}

/// Each attempt begins where the one before it ended, and the last one ends where the job does.
fn wrong_attempts(job: &JobRecord, attempts: &[AttemptRecord]) -> Vec<Problem> {
    let wrong = |attempt, message| Problem {
        attempt: Some(attempt),
        ..Problem::new(Fault::Attempts, message)
    };
    let (mut problems, mut end) = (Vec::new(), 0);
    for (due, attempt) in (1..).zip(attempts) {
        let is = attempt.attempt;
        if is != due {
            problems.push(wrong(due, format!("attempt {due} has no row")));
            return problems;
        }
        let start = attempt.start_offset;
        if start != end {
            let message =
                format!("attempt {is} begins at {start}, and the one before it ends at {end}");
            problems.push(wrong(is, message));
        }
        end = attempt.end_offset.unwrap_or(start);
    }
    let (last, said) = (attempts.last().map_or(0, |last| last.attempt), job.attempt);
    if last != said {
        let message = format!("the last attempt with a row is {last}, and the job is at {said}");
        problems.push(wrong(said, message));
    } else if job.state.is_final() && end != job.output_bytes {
        let said = job.output_bytes;
        let message = format!("the last attempt ends at {end}, and the job's output at {said}");
        problems.push(wrong(last, message));
    }
    problems
}
