//! Verifies a job: reads everything that is stored of it, hashes it again and compares it with the
//! record, in turns with other sessions and within a time limit. `output::verify` reads and judges
//! the output.

use std::time::Duration;

use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Error, Executor, SessionTurns,
    admission::{Admission, Admitted},
    turns::acquire,
    until::READ_BYTES,
};
use crate::{
    job::{Fault, JobNumber, JobRef, Verification, VerificationProblem, chain::Chain},
    output::{
        Assertion, Assertions, Audit, OutputWalk,
        search::Progress,
        verify::{audit::LISTED_MAX, walk::PIECE_BYTES},
    },
    store::{AttemptRecord, JobRecord},
};

/// The time limit is extended once for each output of this size, bytes.
const TIMEOUT_BYTES: u64 = 4 << 30;

/// With more texts than this, the output is searched in smaller pieces, so that a turn stays short.
const TEXTS_FEW: usize = 4;

/// The bounds of verifications. Each is a setting of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifySettings {
    /// How long one may take, seconds, and as much again for each 4 GiB of the output.
    pub timeout_s: u64,
    /// How many verifications run at the same time.
    pub verifies_max: u64,
    /// How many more may wait to run.
    pub waiting_max: u64,
}

impl VerifySettings {
    /// The time limit for an output of this size.
    fn time(&self, output_bytes: u64) -> Duration {
        let times = 1 + output_bytes / TIMEOUT_BYTES;
        Duration::from_secs(self.timeout_s.saturating_mul(times))
    }
}

/// Bounds the verifications that wait and run.
#[derive(Debug)]
pub(super) struct Verifies {
    settings: VerifySettings,
    admission: Admission,
}

impl Verifies {
    pub(super) fn new(settings: VerifySettings) -> Self {
        let VerifySettings {
            verifies_max,
            waiting_max,
            ..
        } = settings;
        let limit = "verifies_waiting_max";
        Self {
            settings,
            admission: Admission::new("verifications", limit, verifies_max, waiting_max),
        }
    }

    fn too_slow(&self, time: Duration) -> Error {
        Error::Limit {
            limit: "verify_timeout_s".into(),
            message: format!(
                "the verification took longer than {} s and was given up: claim fewer or simpler \
                 patterns (short repetitions), or raise verify_timeout_s",
                time.as_secs()
            ),
        }
    }
}

/// How many times a job is verified that changes its state while it is verified.
const ROUNDS_MAX: u32 = 5;

/// Events that are read at once.
const EVENTS_PAGE: u32 = 1000;

/// The right to verify; dropping it ends it.
#[derive(Debug)]
pub struct VerifyTurn {
    turns: SessionTurns,
    _own: OwnedSemaphorePermit,
    _admitted: Admitted,
}

impl Executor {
    /// Waits for a turn to verify: a session has one at a time.
    ///
    /// # Errors
    ///
    /// Too many sessions wait.
    pub async fn turn_to_verify(&self, turns: &SessionTurns) -> Result<VerifyTurn, Error> {
        Ok(VerifyTurn {
            turns: turns.clone(),
            _own: acquire(&turns.verifying).await?,
            _admitted: self.inner.verifies.admission.enter().await?,
        })
    }

    /// Verifies a job and checks assertions about its output. A job that is not final is verified
    /// up to the end of its output at the beginning. Takes as long as reading and hashing the
    /// output takes, in turn with others. It can be dropped at any time, and then ends within a
    /// fraction of a second.
    ///
    /// # Errors
    ///
    /// `Limit` if it takes longer than allowed; `Conflict` if the job keeps changing its state.
    pub async fn verify(
        &self,
        turn: &VerifyTurn,
        job: JobRef,
        assertions: Vec<Assertion>,
    ) -> Result<Verification, Error> {
        let number = self.number(job).await?;
        let output_bytes = self.record(number).await?.output_bytes;
        let verifies = &self.inner.verifies;
        let time = verifies.settings.time(output_bytes);
        let verification = timeout(time, self.verify_number(number, &turn.turns, assertions)).await;
        verification.unwrap_or_else(|_| Err(verifies.too_slow(time)))
    }

    async fn verify_number(
        &self,
        number: JobNumber,
        turns: &SessionTurns,
        assertions: Vec<Assertion>,
    ) -> Result<Verification, Error> {
        for _ in 0..ROUNDS_MAX {
            let before = self.record(number).await?;
            let verification = self
                .verify_once(&before, turns, Assertions::new(assertions.clone()))
                .await?;
            // What was read before and after a change need not fit together.
            let now = self.record(number).await?;
            if verification.intact || now.newest_event == before.newest_event {
                return Ok(verification);
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

    async fn verify_once(
        &self,
        job: &JobRecord,
        turns: &SessionTurns,
        assertions: Assertions,
    ) -> Result<Verification, Error> {
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
        // With patterns a piece is as small as for a wait.
        let piece_bytes = match (assertions.patterns(), assertions.texts()) {
            (0, 0..=TEXTS_FEW) => PIECE_BYTES,
            _ => READ_BYTES,
        };
        let walk = OutputWalk::new(job.number, end, is_final, piece_bytes);
        let (audit, assertions) = self.walk(walk, turns, audit, assertions).await?;
        let audited = audit.finish(is_final.then_some(job));
        Ok(Verification {
            job: job.number,
            state: job.state,
            intact: audited.problems.first.is_empty(),
            output_bytes: audited.output_bytes,
            assertions: assertions.finish(audited.output_sha256.as_deref()),
            output_sha256: audited.output_sha256,
            problems: audited.problems.first,
            more_problems: audited.problems.more,
            gaps: audited.gaps.first,
            more_gaps: audited.gaps.more,
        })
    }

    /// Works piece by piece, and on each pattern by itself, in turn with the searches of waits.
    async fn walk(
        &self,
        mut walk: OutputWalk,
        turns: &SessionTurns,
        mut audit: Audit,
        mut assertions: Assertions,
    ) -> Result<(Audit, Assertions), Error> {
        while !walk.is_over() {
            let _piece = turns.piece().await?;
            let met = {
                let _slot = self.read_slot().await?;
                walk.step(&self.inner.log).await?
            };
            let mut items;
            (audit, assertions, items) = self
                .in_turn(move || {
                    let items = audit.take(met);
                    assertions.feed_texts(&items);
                    (audit, assertions, items)
                })
                .await?;
            for nth in (0..assertions.patterns()).rev() {
                let mut at = Progress::default();
                while !at.is_through() {
                    (assertions, items, at) = self
                        .in_turn(move || {
                            assertions.feed_pattern(nth, &items, &mut at);
                            (assertions, items, at)
                        })
                        .await?;
                }
            }
        }
        Ok((audit, assertions))
    }

    async fn wrong_events(&self, job: &JobRecord) -> Result<Vec<VerificationProblem>, Error> {
        let (mut chain, mut after) = (Chain::default(), 0);
        let mut problems = Vec::new();
        loop {
            let events = self.inner.store.recorded(job.number, after, EVENTS_PAGE);
            let events = events.await?;
            let Some(last) = events.last() else { break };
            after = last.event;
            // Only the problems that are listed are kept.
            for event in events {
                let problem = chain.add(event);
                problems.extend(problem.filter(|_| problems.len() < LISTED_MAX));
            }
        }
        problems.extend(chain.end(job.state, job.reason, job.attempt));
        Ok(problems)
    }
}

/// Checks that each attempt begins where the one before it ended, and the last one ends where the
/// job does.
fn wrong_attempts(job: &JobRecord, attempts: &[AttemptRecord]) -> Vec<VerificationProblem> {
    let wrong = |attempt, message| VerificationProblem {
        attempt: Some(attempt),
        ..VerificationProblem::new(Fault::Attempts, message)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_has_more_time() {
        let settings = VerifySettings {
            timeout_s: 60,
            verifies_max: 8,
            waiting_max: 64,
        };
        let seconds = |bytes| settings.time(bytes).as_secs();
        assert_eq!(
            [seconds(0), seconds(4 << 30), seconds(100 << 30)],
            [60, 120, 1560]
        );
    }
}
