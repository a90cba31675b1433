//! Waits for one or many jobs. Each job is watched by itself and woken by the hub, never by a
//! timer; this file decides when all or any of them have met the condition.
//!
//! `until` has the conditions.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    Error, Executor, SessionTurns,
    until::{Until, WaitState, WaitedFacts, WaitedJob},
};
use crate::{
    job::{Chunk, Job, JobNumber, JobRef, Offset},
    store::Include,
};

/// How much of the output a wait returns, up to, bytes.
const LAST_OUTPUT_BYTES_MAX: u64 = 4 << 10;

/// No more jobs are returned once those before take this much, bytes: a message holds no more.
const JOBS_BYTES_MAX: usize = 1 << 20;

/// Longest wait: a year, so that every deadline can be represented.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// How long after the timeout jobs are still looked at that were not looked at before.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);

/// A wait over jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitOptions {
    /// The jobs to wait for; at least one.
    pub jobs: Vec<JobRef>,
    /// True to wait for all of them, false for any.
    pub all: bool,
    /// The condition to wait for.
    pub until: Until,
    /// The longest wait; `None`: a year. Every job is looked at once in any case, unless that takes
    /// more than two seconds after the timeout.
    pub timeout: Option<Duration>,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Waited {
    /// False after a timeout, or if the condition can no longer come true.
    pub met: bool,
    /// The job that decided it.
    pub job: Option<Job>,
    /// The jobs as they are now, in the order of the request.
    pub jobs: Vec<Job>,
    /// Whether the last jobs are missing, because all would not fit into a message.
    pub truncated: bool,
    /// The offset at which the match in `job` ends.
    pub offset: Option<Offset>,
    /// The last output of `job`, up to 4 KiB.
    pub last_output: Option<Chunk>,
}

/// A wait that is over; its jobs are not read yet for the answer.
#[derive(Debug)]
pub struct Decision {
    watched: Vec<WaitedJob>,
    decided: Option<Decided>,
    offset: Option<Offset>,
}

/// The decision: the index of the job that decided, and whether the condition was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decided {
    by: usize,
    met: bool,
}

impl Executor {
    /// Waits until any or all jobs have met the condition, or no longer can, or the time is over.
    /// [`Self::waited`] then reads the answer. Outputs are searched in turn with other sessions.
    pub async fn wait(
        &self,
        turns: &SessionTurns,
        options: WaitOptions,
    ) -> Result<Decision, Error> {
        let timeout = options.timeout.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let deadline = Instant::now() + timeout;
        let turn = Arc::new(Semaphore::new(1));
        let mut watched = Vec::with_capacity(options.jobs.len());
        for job in &options.jobs {
            watched.push(self.watch_job(*job, &options.until, &turn, turns).await?);
        }
        let state = |one: &WaitedJob| options.until.state(&one.job);
        let mut states: Vec<WaitState> = watched.iter().map(state).collect();
        let decided = match self.decide_now(&watched, &states, options.all).await? {
            Some(decided) => Some(decided),
            None => {
                let looks = TaskTracker::new();
                looks.close();
                tokio::select! {
                    // First, so that every job has its first look counted before `over` waits for
                    // them.
                    biased;
                    decided = self.decide(&mut watched, &mut states, &options, &looks) => Some(decided?),
                    () = time_over(deadline, &looks) => None,
                }
            }
        };
        let offset = decided.and_then(|decided| match states[decided.by] {
            WaitState::Met(offset) => offset,
            _ => None,
        });
        Ok(Decision {
            watched,
            decided,
            offset,
        })
    }

    async fn watch_job(
        &self,
        job: JobRef,
        until: &Until,
        turn: &Arc<Semaphore>,
        turns: &SessionTurns,
    ) -> Result<WaitedJob, Error> {
        let number = self.number(job).await?;
        // The watch first, then the read: a change between them is not missed.
        let watch = self.inner.hub.watch(number);
        let job = match until {
            Until::Match { from, .. } if *from > 0 => self.job_reaching(number, *from).await?,
            _ => {
                let row = self.inner.store.job(job, Include::default()).await?;
                row.ok_or_else(|| Error::no_such_job(job))?
            }
        };
        Ok(WaitedJob {
            job: WaitedFacts::of(&job),
            watch,
            turn: turn.clone(),
            turns: turns.clone(),
        })
    }

    /// A job whose output reaches this offset.
    async fn job_reaching(&self, number: JobNumber, offset: Offset) -> Result<Job, Error> {
        let job = self.snapshot(number).await?;
        match offset > job.output_bytes {
            true => Err(Error::beyond_end(job.output_bytes)),
            false => Ok(job),
        }
    }

    /// What the first look decides, and by which job: by the first one in the order of the request
    /// that decides it, or, if all had to meet the condition and have, by the one that changed
    /// last.
    async fn decide_now(
        &self,
        watched: &[WaitedJob],
        states: &[WaitState],
        all: bool,
    ) -> Result<Option<Decided>, Error> {
        let Some(met) = combined(states, all) else {
            return Ok(None);
        };
        let first = |is: fn(&WaitState) -> bool| states.iter().position(is);
        let by = match (all, met) {
            (true, true) => Some(self.last_changed(watched).await?),
            (true, false) => first(|state| *state == WaitState::Impossible),
            (false, true) => first(|state| matches!(state, WaitState::Met(_))),
            (false, false) => Some(watched.len() - 1),
        };
        Ok(by.map(|by| Decided { by, met }))
    }

    /// The index of the job that changed its state last, by the order of events: clocks can be set.
    async fn last_changed(&self, watched: &[WaitedJob]) -> Result<usize, Error> {
        let mut last = (0, 0);
        for (index, one) in watched.iter().enumerate() {
            let event = self.inner.store.newest_change(one.job.number).await?;
            last = last.max((event, index));
        }
        Ok(last.1)
    }

    /// Watches all open jobs until the wait is decided.
    async fn decide(
        &self,
        watched: &mut [WaitedJob],
        states: &mut [WaitState],
        options: &WaitOptions,
        looks: &TaskTracker,
    ) -> Result<Decided, Error> {
        let mut open: FuturesUnordered<_> = watched
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| states[*at] == WaitState::Open)
            .map(|(at, one)| {
                let look = Some(looks.token());
                async move { (at, self.wait_for_one(one, &options.until, look).await) }
            })
            .collect();
        while let Some((by, state)) = open.next().await {
            states[by] = state?;
            if let Some(met) = combined(states, options.all) {
                return Ok(Decided { by, met });
            }
        }
        Err(Error::Internal("a wait ended undecided".to_owned()))
    }

    /// The answer to a decided wait, with its jobs as they are now.
    pub async fn waited(&self, decision: Decision) -> Result<Waited, Error> {
        let Decision {
            mut watched,
            decided,
            offset,
        } = decision;
        let job = match decided {
            Some(decided) => Some(self.latest(&mut watched[decided.by]).await?),
            None => None,
        };
        let last_output = match &job {
            Some(job) => self.last_output(job, LAST_OUTPUT_BYTES_MAX).await,
            None => None,
        };
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        for one in watched.iter_mut() {
            if bytes >= JOBS_BYTES_MAX {
                break;
            }
            let job = self.latest(one).await?;
            bytes += job.text_bytes();
            jobs.push(job);
        }
        Ok(Waited {
            met: decided.is_some_and(|decided| decided.met),
            job,
            truncated: jobs.len() < watched.len(),
            jobs,
            offset,
            last_output,
        })
    }

    /// The job now; a deleted one as it last was.
    async fn latest(&self, one: &mut WaitedJob) -> Result<Job, Error> {
        match self.snapshot(one.job.number).await {
            Err(Error::NotFound(_)) => {
                let job = one.watch.deleted().await;
                job.map(|job| Job::clone(&job))
                    .map_err(|_| Error::stopping())
            }
            now => now,
        }
    }
}

/// Resolves after the deadline, when every job was looked at once or that takes too long.
async fn time_over(deadline: Instant, looks: &TaskTracker) {
    sleep_until(deadline).await;
    let _ = timeout(FIRST_LOOK_MAX, looks.wait()).await;
}

/// Whether the jobs have met the condition together; `Some(false)`: they never will; `None`:
/// undecided.
fn combined(states: &[WaitState], all: bool) -> Option<bool> {
    let met = |state: &WaitState| matches!(state, WaitState::Met(_));
    let any = |wanted| states.contains(&wanted);
    match all {
        true if any(WaitState::Impossible) => Some(false),
        false if states.iter().any(met) => Some(true),
        _ if any(WaitState::Open) => None,
        all => Some(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jobs_are_together_follows_from_how_each_stands() {
        use WaitState::{Impossible, Met, Open};
        let met = Met(None);
        for (states, any, all) in [
            (vec![Open], None, None),
            (vec![met, Open], Some(true), None),
            (vec![met, met], Some(true), Some(true)),
            (vec![Impossible, Open], None, Some(false)),
            (vec![Impossible, met], Some(true), Some(false)),
            (vec![Impossible, Impossible], Some(false), Some(false)),
        ] {
            assert_eq!(combined(&states, false), any, "any of {states:?}");
            assert_eq!(combined(&states, true), all, "all of {states:?}");
        }
    }
}
