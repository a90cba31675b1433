//! Fires schedules as their times come: one task, which waits for the earliest time of all of them on
//! the wall clock, for a change, and for the end of runs that others wait for.
//!
//! Everything it decides is stored before it happens, so a kill at any moment neither loses a time nor
//! repeats one (docs/design/schedules.md).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Actor, Error, Executor};
use crate::{
    job::{JobNumber, JobRef, Micros, Schedule, SkippedRun, Timetable},
    store::{Firing, FiringCause, Include, RunRefused},
    sys::{alarm::Alarm, clock, retry},
};

/// How many schedules are fired in one commit.
const FIRED_TOGETHER: u32 = 64;

/// A clock that is set back further than this is corrected, µs: schedules whose runs lie in its future
/// then go by the new time at once. Otherwise they wait until the clock has passed their last run.
/// Three hours, as in other crons.
const SET_BACK_MAX_US: i64 = 3 * 3600 * 1_000_000;

/// What there is to wait for after a look.
#[derive(Debug, Default)]
struct Outlook {
    /// The earliest time.
    next: Option<Micros>,
    /// The jobs whose end lets a waiting run start.
    awaited: BTreeSet<JobNumber>,
}

impl Executor {
    /// Fires schedules until `stopping` is cancelled, or until [`Self::stop_schedules`].
    pub(super) async fn keep_time(self, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.fire_in_time()).await;
    }

    /// No schedule fires from now on: the server takes no new jobs.
    pub fn stop_schedules(&self) {
        self.inner.schedules_stopped.cancel();
    }

    /// Whether a schedule will fire, so that the server has a reason to stay.
    pub async fn expects_schedules(&self) -> bool {
        !matches!(self.inner.store.next_schedule_at().await, Ok(None))
    }

    async fn fire_in_time(&self) {
        let alarm = retry::until_some(|| async {
            Alarm::new()
                .inspect_err(|error| tracing::warn!(%error, "schedules cannot wait for their time"))
                .ok()
        })
        .await;
        // Tasks, because they read the database: a future that is not polled while this task reads, too,
        // would keep the connection that it was given.
        let mut ends = JoinSet::new();
        let mut watched = BTreeSet::new();
        let stopped = &self.inner.schedules_stopped;
        // What a firing has committed is also done, so that only the wait is interrupted.
        while !stopped.is_cancelled() {
            let outlook = self.fire_all_due().await;
            for job in outlook.awaited {
                if watched.insert(job) {
                    let executor = self.clone();
                    ends.spawn(async move { executor.end_of(job).await });
                }
            }
            tokio::select! {
                () = stopped.cancelled() => {}
                () = self.inner.schedules.changed.notified() => {}
                Some(ended) = ends.join_next() => match ended {
                    Ok(job) => {
                        watched.remove(&job);
                    }
                    // One of those that are given up below.
                    Err(error) if error.is_cancelled() => {}
                    // Which one it was is not known: all are watched anew.
                    Err(error) => {
                        tracing::error!(%error, "a watch over the run of a schedule panicked");
                        ends.abort_all();
                        watched.clear();
                    }
                },
                () = until_shown(&alarm, outlook.next) => {}
            }
        }
    }

    /// Fires until nothing is due; tries again every second where that fails, as on a full disk.
    async fn fire_all_due(&self) -> Outlook {
        let mut complained = false;
        retry::until_some(|| {
            let first = !std::mem::replace(&mut complained, true);
            async move {
                let looked = self.look().await;
                if let (Err(error), true) = (&looked, first) {
                    tracing::warn!(%error, "schedules could not be fired; trying again");
                }
                let gives_up = self.inner.schedules_stopped.is_cancelled();
                looked.ok().or_else(|| gives_up.then(Outlook::default))
            }
        })
        .await
    }

    async fn look(&self) -> Result<Outlook, Error> {
        let store = &self.inner.store;
        loop {
            let now = clock::now();
            self.correct_times(now).await?;
            let due = store.due_schedules(now, FIRED_TOGETHER).await?;
            if due.is_empty() {
                return Ok(Outlook {
                    next: store.next_schedule_at().await?,
                    awaited: store.awaited_runs().await?.into_iter().collect(),
                });
            }
            self.refuse_without_disk_space()?;
            let firings = due.into_iter().map(|schedule| self.firing(schedule, now));
            let fired = join_all(firings.map(|firing| async { self.fire(firing.await).await }));
            fired.await.into_iter().collect::<Result<(), _>>()?;
        }
    }

    /// Fires what is due of a schedule that is about to be changed: the definition that held until now
    /// decides about it. Where the disk is full it is skipped, and counted.
    pub(super) async fn fire_before_change(&self, name: &str, now: Micros) -> Result<(), Error> {
        while let Some(schedule) = self.inner.store.schedule(name).await? {
            if schedule.paused || schedule.next_at.is_none_or(|next| next > now) {
                break;
            }
            let mut firing = self.firing(schedule, now).await;
            if let Err(full) = self.refuse_without_disk_space() {
                for run in &mut firing.runs {
                    run.submission = Err(RunRefused {
                        reason: full.to_string(),
                        by: None,
                    });
                }
            }
            self.fire(firing).await?;
        }
        Ok(())
    }

    async fn fire(&self, firing: Firing) -> Result<(), Error> {
        let name = firing.name.clone();
        let fired = self.inner.store.fire(firing).await?;
        let fired = self.finish_firing(fired);
        for run in &fired.submitted {
            tracing::info!(schedule = name, job = run.outcome.number, at = %run.at.to_rfc3339(), "a schedule has fired");
        }
        if let Some(skip) = fired.skipped.last() {
            tracing::warn!(
                schedule = name,
                at = %skip.at.to_rfc3339(),
                count = fired.skipped.len(),
                reason = skip.reason,
                "a schedule has skipped a run"
            );
        }
        Ok(())
    }

    /// Decides what a schedule that is due fires.
    async fn firing(&self, schedule: Schedule, now: Micros) -> Firing {
        let (cause, times, missed) = due_of(&schedule, now);
        let actor = Actor::schedule(&schedule);
        let runs = times.iter().map(|at| self.run_plan(&schedule, *at, &actor));
        Firing {
            runs: join_all(runs).await,
            name: schedule.name,
            revision: schedule.revision,
            cause,
            missed,
            at: now,
        }
    }

    /// After a clock was far ahead: schedules go by the new time, instead of waiting for the wrong one.
    async fn correct_times(&self, now: Micros) -> Result<(), Error> {
        let ahead = Micros(now.0.saturating_add(SET_BACK_MAX_US));
        for schedule in self.inner.store.schedules_ahead_of(ahead).await? {
            let timetable = Timetable::read(&schedule.cron, &schedule.timezone, now);
            let to = timetable.ok().and_then(|timetable| timetable.after(now));
            let Some(from) = schedule
                .next_at
                .filter(|next| to.is_some_and(|to| to < *next))
            else {
                continue;
            };
            let firing = Firing {
                name: schedule.name,
                revision: schedule.revision,
                cause: FiringCause::Clock { from, to },
                runs: Vec::new(),
                missed: None,
                at: now,
            };
            self.inner.store.fire(firing).await?;
        }
        Ok(())
    }

    /// Returns the job when it is final or gone.
    async fn end_of(&self, job: JobNumber) -> JobNumber {
        let mut watch = self.inner.hub.watch(job);
        loop {
            watch.look();
            let found = retry::until_some(|| async {
                let found = self
                    .inner
                    .store
                    .job(JobRef::Number(job), Include::default());
                found.await.ok()
            });
            let is_live = found.await.is_some_and(|job| !job.state.is_final());
            if !is_live || watch.changed().await.is_err() {
                return job;
            }
        }
    }
}

/// What a schedule fires now: why, for which times, and how many times were missed.
fn due_of(
    schedule: &Schedule,
    now: Micros,
) -> (FiringCause, Vec<Micros>, Option<(u64, SkippedRun)>) {
    let from = match schedule.next_at {
        Some(next) if next <= now && !schedule.paused => next,
        _ => {
            let first = schedule.waiting.first().copied();
            return (FiringCause::Waiting, first.into_iter().collect(), None);
        }
    };
    let timetable = match Timetable::read(&schedule.cron, &schedule.timezone, now) {
        Ok(timetable) => timetable,
        // It was valid once: another version knows other zones, or no time is left.
        Err(refusal) => {
            let reason = refusal.to_string();
            let skip = Some((1, SkippedRun { at: from, reason }));
            return (FiringCause::Clock { from, to: None }, Vec::new(), skip);
        }
    };
    let due = timetable.due(from, now, schedule.catch_up);
    let missed = due.newest_missed.map(|at| {
        let reason = "no server looked at the clock at that time".to_owned();
        (due.missed, SkippedRun { at, reason })
    });
    let cause = FiringCause::Clock { from, to: due.next };
    (cause, due.runs, missed)
}

/// Returns when the clock shows this moment or was set; without a moment it does not return.
async fn until_shown(alarm: &Alarm, at: Option<Micros>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    retry::until_some(|| async {
        alarm
            .wait_until(at)
            .await
            .inspect_err(|error| tracing::warn!(%error, "schedules cannot wait for their time"))
            .ok()
    })
    .await;
}
