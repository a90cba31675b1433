//! Schedules: setting, listing and deleting them, and a run at once. `timekeeper` fires them in time.

use serde_json::{Map, Value};
use tokio::sync::{Mutex, Notify};

use super::{Actor, Error, Executor};
use crate::{
    access::ClientOrigin,
    job::{
        Job, JobRef, JobSpec, Micros, NewJobRefusal, PolicyDecision, Schedule, ScheduleChange,
        Timetable,
    },
    store::{Fired, Firing, FiringCause, Include, RunPlan, RunRefused, ScheduleSet, Submission},
    sys::clock,
};

/// What the API and the timekeeper share.
#[derive(Debug, Default)]
pub(super) struct ScheduleChanges {
    /// Wakes the timekeeper: a time may have changed.
    pub(super) changed: Notify,
    /// Held from the read of a schedule to the commit of its change.
    changing: Mutex<()>,
}

/// A schedule with its next times.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleView {
    /// As it is stored.
    pub schedule: Schedule,
    /// The next times: in the zone of the schedule, and in UTC.
    pub next: Vec<(String, Micros)>,
}

/// Why a schedule is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleError {
    /// A value is wrong.
    Refused(NewJobRefusal),
    /// The executor refuses it.
    Other(Error),
}

impl From<NewJobRefusal> for ScheduleError {
    fn from(refusal: NewJobRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<Error>> From<E> for ScheduleError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Executor {
    /// The job of a schedule, read as a submit would read it now.
    ///
    /// # Errors
    ///
    /// A key or a value is wrong, or makes no sense for a schedule.
    pub fn read_scheduled_job(&self, job: &Map<String, Value>) -> Result<JobSpec, NewJobRefusal> {
        Schedule::check_job(job)?;
        let spec = self.read_new_job(job);
        spec.map_err(|refusal| refusal.within("job"))
    }

    /// Creates a schedule or changes it; values that `change` does not name stay. With `dry_run`
    /// nothing is stored.
    ///
    /// # Errors
    ///
    /// A value is wrong, the queue of the job does not exist, or there are too many schedules; then
    /// nothing is stored.
    pub async fn set_schedule(
        &self,
        change: ScheduleChange,
        dry_run: bool,
        actor: &Actor,
    ) -> Result<ScheduleView, ScheduleError> {
        let (store, changes) = (&self.inner.store, &self.inner.schedules);
        let _alone = changes.changing.lock().await;
        let before = store.schedule(&change.name).await?;
        let now = clock::now();
        let mut schedule = merged(change, before.as_ref())?;
        let stays = |before: &Schedule| before.cron == schedule.cron;
        let read = match before.as_ref().is_some_and(stays) {
            true => Timetable::read,
            false => Timetable::read_new,
        };
        let timetable = read(&schedule.cron, &schedule.timezone, now)?;
        schedule.requester = Some(actor.requester());
        let job = self.read_scheduled_job(&schedule.job)?;
        self.check_secrets(&job, actor)
            .map_err(|refusal| refusal.within("job"))?;
        self.judge_new_job(&job, actor).await?;
        let checked = self.check_expectations(&job.expect).await;
        checked.map_err(|refusal| refusal.within("job"))?;
        self.check_queue(schedule.queue()).await?;
        let keeps_next = before.as_ref().is_some_and(|before| {
            (&before.cron, &before.timezone) == (&schedule.cron, &schedule.timezone)
                && !before.paused
                && before.next_at.is_some()
        });
        if !keeps_next {
            schedule.next_at = timetable.after(now);
        }
        if dry_run {
            return Ok(view(schedule, now));
        }
        self.fire_before_change(&schedule.name, now).await?;
        let stored = match self.ledger().set_schedule(schedule, keeps_next).await? {
            ScheduleSet::Done(stored) => *stored,
            ScheduleSet::TooMany => return Err(too_many().into()),
        };
        changes.changed.notify_one();
        Ok(view(stored, now))
    }

    async fn check_queue(&self, queue: &str) -> Result<(), Error> {
        let queues = self.queues().await?;
        match queues.iter().any(|known| known.name == queue) {
            true => Ok(()),
            false => Err(Error::no_such_queue(queue)),
        }
    }

    /// All schedules, by name, with their next times.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, Error> {
        let now = clock::now();
        let schedules = self.inner.store.schedules().await?.into_iter();
        Ok(schedules.map(|schedule| view(schedule, now)).collect())
    }

    /// Deletes a schedule, with the runs of it that wait; its jobs stay.
    pub async fn delete_schedule(&self, name: &str) -> Result<(), Error> {
        let _alone = self.inner.schedules.changing.lock().await;
        match self.ledger().delete_schedule(name.to_owned()).await? {
            true => Ok(()),
            false => Err(no_such_schedule(name)),
        }
    }

    /// Submits a run now, whatever its timetable says. A repeated request with the same key returns
    /// the first job.
    ///
    /// # Errors
    ///
    /// `Conflict` where the run before it is not final and the schedule does not replace it, or the
    /// queue takes no jobs.
    pub async fn run_schedule(
        &self,
        name: &str,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(Job, bool), Error> {
        let schedule = self.inner.store.schedule(name).await?;
        let schedule = schedule.ok_or_else(|| no_such_schedule(name))?;
        self.refuse_without_disk_space()?;
        // Refused as a submit would be; a value that is wrong now is told of by the run.
        if let Ok(job) = self.read_filled_in(&schedule.job) {
            self.judge_new_job(&job, actor).await?;
        }
        let at = clock::now();
        let mut run = self.run_plan(&schedule, at, &actor.for_run()).await;
        if let (Some(key), Ok(Submission { job, .. })) = (key, &mut run.submission) {
            job.idempotency_key = Some(format!("{}:{key}", Schedule::actor(name)));
        }
        let ledger = self.ledger();
        let fired = ledger.fire(Firing {
            name: schedule.name,
            revision: schedule.revision,
            cause: FiringCause::Request,
            runs: vec![run],
            missed: None,
            at,
        });
        let fired = self.finish_firing(fired.await?);
        if let Some(run) = fired.submitted.first() {
            let job = JobRef::Id(run.outcome.id);
            let job = self.get(job, Include::default()).await?;
            return Ok((job, run.outcome.created));
        }
        if let Some(refused) = fired.refused {
            return Err(refused.into());
        }
        let reason = fired.skipped.into_iter().next().map(|skip| skip.reason);
        let reason = reason.unwrap_or_else(|| "it was changed meanwhile; try again".to_owned());
        Err(Error::Conflict(format!(
            "the schedule {name:?} was not run: {reason}"
        )))
    }

    /// A run of a schedule for this time: its job with the defaults that its queue has now, or why there is
    /// none. Defaults may have changed since the schedule was set; that its retries can take place was
    /// checked then.
    pub(super) async fn run_plan(&self, schedule: &Schedule, at: Micros, actor: &Actor) -> RunPlan {
        let submission = match self.read_filled_in(&schedule.job) {
            Ok(job) => {
                let submission = self.submission(job, actor).await;
                submission.map_err(|error| self.run_refused(&error))
            }
            Err(refusal) => Err(RunRefused {
                reason: refusal.within("job").to_string(),
                by: None,
            }),
        };
        RunPlan { at, submission }
    }

    /// Why a run is refused. A refusal of the policy counts for the audit trail as any other one.
    fn run_refused(&self, error: &Error) -> RunRefused {
        let by = match error {
            Error::Policy { rule, digest, .. } => Some(PolicyDecision {
                rule: rule.clone(),
                digest: digest.clone(),
            }),
            _ => None,
        };
        if let (Some(by), None) = (&by, &self.origin) {
            let origin = ClientOrigin::within("schedule", "server");
            self.count_refusal(origin, "schedule.fire", &by.rule);
        }
        RunRefused {
            reason: error.to_string(),
            by,
        }
    }

    /// Does what follows the commit of a firing: sends requests to stop, and wakes the scheduler.
    pub(super) fn finish_firing(&self, mut fired: Fired) -> Fired {
        for stop in std::mem::take(&mut fired.stops) {
            // The job was read in the same transaction.
            let _ = self.deliver_stop(stop, JobRef::Number(0));
        }
        if !fired.submitted.is_empty() {
            self.inner.wakeup.wake();
        }
        fired
    }
}

/// The schedule after a change.
fn merged(change: ScheduleChange, before: Option<&Schedule>) -> Result<Schedule, NewJobRefusal> {
    let missing = |key: &str| {
        let message = "missing; a new schedule needs it";
        NewJobRefusal::invalid(key, message)
    };
    let cron = change.cron.or_else(|| before.map(|b| b.cron.clone()));
    let timezone = change
        .timezone
        .or_else(|| before.map(|b| b.timezone.clone()));
    let job = change.job.or_else(|| before.map(|b| b.job.clone()));
    let new = Schedule {
        name: change.name,
        cron: cron.ok_or_else(|| missing("cron"))?,
        timezone: timezone.unwrap_or_else(|| Timetable::ZONE.to_owned()),
        overlap: change
            .overlap
            .or(before.map(|b| b.overlap))
            .unwrap_or_default(),
        catch_up: change
            .catch_up
            .or(before.map(|b| b.catch_up))
            .unwrap_or_default(),
        paused: change.paused.or(before.map(|b| b.paused)).unwrap_or(false),
        job: job.ok_or_else(|| missing("job"))?,
        requester: None,
        revision: 0,
        next_at: before.and_then(|b| b.next_at),
        waiting: before.map(|b| b.waiting.clone()).unwrap_or_default(),
        last: before.and_then(|b| b.last),
        runs: before.map_or(0, |b| b.runs),
        skipped: before.map_or(0, |b| b.skipped),
        last_skip: before.and_then(|b| b.last_skip.clone()),
    };
    Ok(new)
}

fn view(schedule: Schedule, now: Micros) -> ScheduleView {
    let next = match Timetable::read(&schedule.cron, &schedule.timezone, now) {
        Ok(timetable) => {
            let before_next = schedule.next_at.filter(|_| !schedule.paused);
            // From the stored time on, as the timekeeper will do it.
            let from = before_next.map_or(now, |next| Micros(next.0 - 1));
            let times = timetable.following(from, Schedule::NEXT_SHOWN).into_iter();
            times.map(|time| (timetable.show(time), time)).collect()
        }
        Err(_) => Vec::new(),
    };
    ScheduleView { schedule, next }
}

fn no_such_schedule(name: &str) -> Error {
    Error::NotFound(format!(
        "there is no schedule {name:?}; a list of the schedules shows which there are"
    ))
}

fn too_many() -> Error {
    let max = Schedule::COUNT_MAX;
    Error::Limit {
        limit: "schedules_max".into(),
        message: format!("there are {max} schedules, and no more will do; delete one first"),
    }
}
