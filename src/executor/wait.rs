//! Waits for jobs: woken by the hub, never by a tick.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, timeout_at};

use super::{Error, Executor};
use crate::{
    job::{Chunk, Job, JobRef},
    output::{Watch, hub::Closed},
    store::Include,
};

/// How much of the output a wait returns at most, bytes.
const LAST_OUTPUT_BYTES_MAX: u64 = 4 << 10;

/// Longest wait: a year, so that every deadline can be represented.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The job is final.
    Final,
    /// A process of it has started.
    Running,
}

/// A wait over jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitOptions {
    /// Which; at least one.
    pub jobs: Vec<JobRef>,
    /// All of them, or any.
    pub all: bool,
    /// For what.
    pub until: Until,
    /// How long at most.
    pub timeout: Option<Duration>,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Waited {
    /// False after a timeout, or where the condition can no longer come true.
    pub met: bool,
    /// The job that decided it.
    pub job: Option<Job>,
    /// All jobs, in the order asked.
    pub jobs: Vec<Job>,
    /// The last 4 KiB of `job`.
    pub last_output: Option<Chunk>,
}

/// How a job stands to what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Met,
    Open,
    Impossible,
}

impl Until {
    /// Whether it is worth looking at a job whose row has changed.
    fn may_be_met(self, watch: &Watch) -> bool {
        match self {
            Self::Final => watch.has_ended(),
            Self::Running => true,
        }
    }

    fn standing(self, job: &Job) -> Standing {
        match self {
            Self::Final if job.state.is_final() => Standing::Met,
            Self::Running if job.started_at.is_some() => Standing::Met,
            Self::Running if job.state.is_final() => Standing::Impossible,
            Self::Final | Self::Running => Standing::Open,
        }
    }
}

/// One of the jobs that are waited for.
struct Watched {
    job: Job,
    watch: Watch,
    standing: Standing,
}

impl Executor {
    /// Waits until any or all jobs are as wished, or can no longer become so, or time is over.
    pub async fn wait(&self, options: WaitOptions) -> Result<Waited, Error> {
        let timeout = options.timeout.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let deadline = Instant::now() + timeout;
        let mut watched = Vec::with_capacity(options.jobs.len());
        for job in &options.jobs {
            watched.push(self.watched(*job, options.until).await?);
        }
        loop {
            if let Some((decider, met)) = decide(&watched, options.all) {
                return self.waited(watched, Some(decider), met).await;
            }
            let Ok(woken) = timeout_at(deadline, first_woken(&mut watched)).await else {
                return self.waited(watched, None, false).await;
            };
            let index = woken.map_err(|_| Error::stopping())?;
            let one = &mut watched[index];
            if one.watch.look() && options.until.may_be_met(&one.watch) {
                one.job = self.row(JobRef::Number(one.job.number)).await?;
                one.standing = options.until.standing(&one.job);
            }
        }
    }

    /// A job as its row stands, without a look at its output.
    async fn row(&self, job: JobRef) -> Result<Job, Error> {
        let row = self.inner.store.job(job, Include::default()).await?;
        row.ok_or_else(|| Error::no_such_job(job))
    }

    async fn watched(&self, job: JobRef, until: Until) -> Result<Watched, Error> {
        let number = self.number(job).await?;
        // Interest first, then the look that counts.
        let watch = self.inner.hub.watch(number);
        let job = self.row(job).await?;
        let standing = until.standing(&job);
        Ok(Watched {
            job,
            watch,
            standing,
        })
    }

    async fn waited(
        &self,
        watched: Vec<Watched>,
        decider: Option<usize>,
        met: bool,
    ) -> Result<Waited, Error> {
        let mut jobs = Vec::with_capacity(watched.len());
        for Watched { job, .. } in watched {
            jobs.push(match job.state.is_active() {
                true => self.snapshot(job.number).await?,
                false => job,
            });
        }
        let job = decider.map(|index| jobs[index].clone());
        let last_output = match &job {
            Some(job) => self.last_output(job, LAST_OUTPUT_BYTES_MAX).await?,
            None => None,
        };
        Ok(Waited {
            met,
            job,
            jobs,
            last_output,
        })
    }
}

/// The first job whose row has changed, of those that are not decided yet (there is one).
async fn first_woken(watched: &mut [Watched]) -> Result<usize, Closed> {
    let open = watched
        .iter_mut()
        .enumerate()
        .filter(|(_, one)| one.standing == Standing::Open);
    let waits =
        open.map(|(index, one)| Box::pin(async move { one.watch.changed().await.map(|()| index) }));
    select_all(waits).await.0
}

/// Which job decides the wait, and whether it is met; `None`: go on waiting.
fn decide(watched: &[Watched], all: bool) -> Option<(usize, bool)> {
    let standings: Vec<Standing> = watched.iter().map(|one| one.standing).collect();
    let first = |wanted| standings.iter().position(|standing| *standing == wanted);
    if all {
        // One that cannot come true decides it; else the last one that did.
        first(Standing::Impossible)
            .map(|index| (index, false))
            .or_else(|| {
                first(Standing::Open)
                    .is_none()
                    .then(|| (last_met(watched), true))
            })
    } else {
        first(Standing::Met).map(|index| (index, true)).or_else(|| {
            first(Standing::Open)
                .is_none()
                .then(|| (watched.len() - 1, false))
        })
    }
}

/// Of jobs that all met it, the one that did so last.
fn last_met(watched: &[Watched]) -> usize {
    let moment = |one: &Watched| one.job.finished_at.or(one.job.started_at);
    (0..watched.len())
        .max_by_key(|index| moment(&watched[*index]))
        .unwrap_or_default()
}
