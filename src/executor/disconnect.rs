//! Jobs that are cancelled after the loss of the connection that submitted them, unless another
//! connection asks for them in time.
//!
//! Ties are not stored: a restart of the server does not count as a loss, and the next server has
//! no ties. The protocol reports which connections there are and when they are lost.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Action, Error, Executor};
use crate::{
    job::{Job, JobNumber, JobRef, JobSpec, OnDisconnect, Seconds},
    output::Watch,
    sys::lock,
};

/// Most jobs that are tied to connections at once, over all of them.
pub const TIED_JOBS_MAX: usize = 100_000;

/// From this many ties on, those of ended jobs are removed from time to time.
const TIDY_FROM: usize = 256;

/// How many jobs are cancelled at once: their requests share commits.
const CANCELS_TOGETHER: usize = 64;

/// The actor that is recorded for these cancels.
const ACTOR: &str = "disconnect";

/// A job that is tied to its connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tie {
    /// The job's number.
    pub job: JobNumber,
    /// The time from the loss of the connection to the cancel.
    pub delay: Seconds,
}

impl Tie {
    /// How a job is tied, if its `on_disconnect` asks for it.
    pub fn of(job: &Job) -> Option<Self> {
        (job.spec.on_disconnect == OnDisconnect::Cancel).then_some(Self {
            job: job.number,
            delay: job.spec.disconnect_delay_s,
        })
    }

    /// The delay with which a job will be tied, if its `on_disconnect` asks for it.
    pub fn delay(job: &JobSpec) -> Option<Seconds> {
        (job.on_disconnect == OnDisconnect::Cancel).then_some(job.disconnect_delay_s)
    }
}

/// The ties between connections and jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Ties {
    tied: Arc<Mutex<Tied>>,
    lost: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Tied {
    jobs: HashMap<JobNumber, Owned>,
    /// What each connection owns.
    sessions: HashMap<String, HashSet<JobNumber>>,
    /// Jobs whose connection is lost, by the moment of their cancel.
    due: BTreeSet<(Instant, JobNumber)>,
    /// At this many ties, those of ended jobs are removed.
    tidy_at: usize,
}

#[derive(Debug)]
struct Owned {
    session: String,
    delay: Duration,
    /// Tells whether the job has ended, without reading the database.
    watch: Watch,
    /// When another connection last asked for it.
    asked_at: Option<Instant>,
    /// The time of the cancel; set once the connection is lost.
    due: Option<Instant>,
}

impl Tied {
    /// Ties the job to this owner and no other; beyond the bound, to none.
    fn tie(&mut self, job: JobNumber, owned: Owned) {
        self.untie(job);
        if self.jobs.len() >= self.tidy_at.clamp(TIDY_FROM, TIED_JOBS_MAX) {
            self.tidy();
        }
        if self.jobs.len() >= TIED_JOBS_MAX {
            tracing::warn!(
                job,
                "too many jobs are tied to their connections; this one is not"
            );
            return;
        }
        let owns = self.sessions.entry(owned.session.clone()).or_default();
        owns.insert(job);
        self.jobs.insert(job, owned);
    }

    fn untie(&mut self, job: JobNumber) {
        let Some(owned) = self.jobs.remove(&job) else {
            return;
        };
        if let Some(due) = owned.due {
            self.due.remove(&(due, job));
        }
        if let Some(owns) = self.sessions.get_mut(&owned.session) {
            owns.remove(&job);
            if owns.is_empty() {
                self.sessions.remove(&owned.session);
            }
        }
    }

    /// Removes the ties of jobs that have ended.
    fn tidy(&mut self) {
        let ended = |(job, owned): (&JobNumber, &Owned)| owned.watch.has_ended().then_some(*job);
        for job in self.jobs.iter().filter_map(ended).collect::<Vec<_>>() {
            self.untie(job);
        }
        self.tidy_at = self.jobs.len() * 2;
    }

    /// The connection is lost. A request for a job counts as made after the loss if it came after
    /// the last sign of life of the connection, even if the loss was noticed later. Without a delay
    /// there is no time for such a request.
    fn lose(&mut self, session: &str, last_heard_at: Instant, now: Instant) {
        for job in self.sessions.remove(session).unwrap_or_default() {
            let Some(owned) = self.jobs.get_mut(&job) else {
                continue;
            };
            let asked = owned
                .asked_at
                .is_some_and(|asked_at| asked_at > last_heard_at);
            if asked && !owned.delay.is_zero() {
                self.untie(job);
            } else {
                let due = now + owned.delay;
                owned.due = Some(due);
                self.due.insert((due, job));
            }
        }
    }

    fn ask(&mut self, session: &str, job: JobNumber, now: Instant) {
        match self.jobs.get_mut(&job) {
            Some(owned) if owned.due.is_some() => self.untie(job),
            Some(owned) if owned.session != session => owned.asked_at = Some(now),
            _ => {}
        }
    }

    /// Removes the jobs whose time has come, and returns those that have not ended: they are to be cancelled.
    fn take_due(&mut self, now: Instant) -> Vec<JobNumber> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        let due: Vec<JobNumber> = due.map(|(_, job)| *job).collect();
        let has_ended = |job: &JobNumber| {
            self.jobs
                .get(job)
                .is_some_and(|owned| owned.watch.has_ended())
        };
        let (ended, live): (Vec<_>, Vec<_>) = due.into_iter().partition(has_ended);
        ended.iter().chain(&live).for_each(|job| self.untie(*job));
        live
    }
}

impl Ties {
    /// Cancels jobs as their time comes, until the server stops.
    pub(super) async fn watch(self, executor: Executor, stopping: CancellationToken) {
        loop {
            let next = self.tied().due.first().map(|(due, _)| *due);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.lost.notified() => continue,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let due = self.tied().take_due(Instant::now());
            stream::iter(due)
                .for_each_concurrent(CANCELS_TOGETHER, |job| executor.cancel_lost(job))
                .await;
        }
    }

    fn tied(&self) -> MutexGuard<'_, Tied> {
        // A panic can at worst leave a tie that cancels nothing.
        lock(&self.tied)
    }
}

impl Executor {
    /// Refuses jobs that cannot be tied, before they are submitted.
    ///
    /// # Errors
    ///
    /// `Limit` where [`TIED_JOBS_MAX`] would be exceeded.
    pub fn check_ties(&self, jobs: &[JobSpec]) -> Result<(), Error> {
        let more = jobs.iter().filter_map(Tie::delay).count();
        let mut tied = self.inner.ties.tied();
        let fits = |tied: &Tied| more == 0 || tied.jobs.len() + more <= TIED_JOBS_MAX;
        if !fits(&tied) {
            tied.tidy();
        }
        if fits(&tied) {
            return Ok(());
        }
        Err(Error::Limit {
            limit: "tied_jobs_max".into(),
            message: format!(
                "{} jobs would be cancelled if their connections were lost, and {TIED_JOBS_MAX} \
                 are the most; submit without on_disconnect, or wait for some of them",
                tied.jobs.len()
            ),
        })
    }

    /// Ties jobs to the connection that submitted them, and to no other. To be called after every
    /// successful submit, also if an idempotency key named an earlier job: the connection that
    /// submitted it last counts.
    pub async fn tie(&self, session: &str, ties: &[Tie]) {
        if ties.is_empty() {
            return;
        }
        let owned = |tie: &Tie| Owned {
            session: session.to_owned(),
            delay: Duration::from_millis(tie.delay.to_ms()),
            watch: self.inner.hub.watch(tie.job),
            asked_at: None,
            due: None,
        };
        for tie in ties {
            let owned = owned(tie);
            self.inner.ties.tied().tie(tie.job, owned);
        }
        // Jobs may have ended before they were watched.
        let jobs = ties.iter().map(|tie| tie.job).collect();
        match self.inner.store.final_among(jobs).await {
            Ok(ended) => {
                let mut tied = self.inner.ties.tied();
                ended.into_iter().for_each(|job| tied.untie(job));
            }
            // Their ties stay until their connection ends; cancelling an ended job changes nothing.
            Err(error) => tracing::debug!(%error, "it is unknown which tied jobs have ended"),
        }
    }

    /// A connection asks for a job (`job.get`, `job.tail`). If the connection that the job was tied
    /// to is lost, the job is not cancelled any more.
    pub fn asked_for(&self, session: &str, job: JobNumber) {
        self.inner.ties.tied().ask(session, job, Instant::now());
    }

    /// A connection is lost, and not because the server stops. All its requests have taken effect;
    /// `last_heard_at` is the time of its last sign of life.
    pub fn disconnected(&self, session: &str, last_heard_at: Instant) {
        let ties = &self.inner.ties;
        ties.tied().lose(session, last_heard_at, Instant::now());
        ties.lost.notify_one();
    }

    async fn cancel_lost(&self, job: JobNumber) {
        let cancelled = self.control(JobRef::Number(job), Action::Cancel, ACTOR);
        match cancelled.await {
            // It has ended at this moment, in another way.
            Ok(done) if done.state.is_final() && !is_stopped_by_us(&done) => {}
            Ok(_) => tracing::info!(job, "cancelled: its connection is lost"),
            Err(error) => {
                tracing::warn!(job, %error, "a job whose connection is lost could not be cancelled");
            }
        }
    }
}

/// Whether the stop of a job was asked for because its connection was lost.
fn is_stopped_by_us(job: &Job) -> bool {
    job.stop.as_ref().is_some_and(|stop| stop.by() == ACTOR)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::output::Hub;

    struct Fixture {
        hub: Hub,
        tied: Tied,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let (arms, _) = mpsc::unbounded_channel();
            Self {
                hub: Hub::new(arms),
                tied: Tied::default(),
                now: Instant::now(),
            }
        }

        fn tie(&mut self, session: &str, job: JobNumber, delay: u64) {
            let owned = Owned {
                session: session.to_owned(),
                delay: Duration::from_secs(delay),
                watch: self.hub.watch(job),
                asked_at: None,
                due: None,
            };
            self.tied.tie(job, owned);
        }

        fn lose(&mut self, session: &str) {
            self.tied.lose(session, self.now, self.now);
        }

        fn due_after(&mut self, seconds: u64) -> Vec<JobNumber> {
            self.tied.take_due(self.now + Duration::from_secs(seconds))
        }

        fn is_empty(&self) -> bool {
            let Tied {
                jobs,
                sessions,
                due,
                ..
            } = &self.tied;
            jobs.is_empty() && sessions.is_empty() && due.is_empty()
        }
    }

    #[test]
    fn a_lost_connection_cancels_what_it_owns_each_in_its_time() {
        let mut fixture = Fixture::new();
        fixture.tie("a", 1, 10);
        fixture.tie("a", 2, 0);
        fixture.tie("b", 3, 0);
        assert!(fixture.due_after(99).is_empty(), "no connection is lost");
        fixture.lose("a");
        assert_eq!(fixture.due_after(0), [2]);
        assert!(fixture.due_after(9).is_empty());
        assert_eq!(fixture.due_after(10), [1]);
        fixture.lose("b");
        assert_eq!(fixture.due_after(0), [3]);
        assert!(fixture.is_empty());
    }

    #[test]
    fn the_last_connection_that_submitted_it_owns_a_job() {
        let mut fixture = Fixture::new();
        fixture.tie("a", 1, 5);
        fixture.tie("b", 1, 5);
        fixture.lose("a");
        assert!(fixture.due_after(5).is_empty());
        fixture.lose("b");
        fixture.tie("c", 1, 5);
        assert!(fixture.due_after(5).is_empty(), "a new owner came in time");
        fixture.lose("c");
        assert_eq!(fixture.due_after(5), [1]);
        assert!(fixture.is_empty());
    }

    #[test]
    fn asking_behind_a_loss_calls_it_off_and_asking_before_does_not() {
        let mut fixture = Fixture::new();
        let before = fixture.now - Duration::from_secs(1);
        fixture.tie("a", 1, 5);
        fixture.tie("a", 2, 5);
        fixture.tied.ask("b", 2, before);
        fixture.lose("a");
        fixture.tied.ask("b", 1, fixture.now);
        assert_eq!(fixture.due_after(5), [2]);
        assert!(fixture.is_empty());
    }

    #[test]
    fn a_loss_that_is_noticed_late_was_one_before() {
        let mut fixture = Fixture::new();
        let later = fixture.now + Duration::from_secs(1);
        fixture.tie("a", 1, 5);
        fixture.tie("a", 2, 5);
        fixture.tie("a", 3, 0);
        fixture.tied.ask("b", 1, later);
        fixture.tied.ask("a", 2, later);
        fixture.tied.ask("b", 3, later);
        fixture.lose("a");
        assert_eq!(
            fixture.due_after(0),
            [3],
            "without a delay no request is in time"
        );
        assert_eq!(
            fixture.due_after(5),
            [2],
            "only what others asked for goes on"
        );
        assert!(fixture.is_empty());
    }

    #[test]
    fn what_has_ended_in_the_meantime_is_not_cancelled() {
        let mut fixture = Fixture::new();
        fixture.tie("a", 1, 5);
        fixture.tie("a", 2, 5);
        fixture.lose("a");
        fixture.hub.ended(1);
        assert_eq!(fixture.due_after(5), [2]);
        assert!(fixture.is_empty());
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut fixture = Fixture::new();
        let many = 10 * TIDY_FROM as JobNumber;
        for job in 1..=many {
            fixture.tie("a", job, 5);
            if job % 2 == 0 {
                fixture.hub.ended(job);
            }
        }
        assert!(fixture.tied.jobs.len() < many as usize);
        fixture.tied.tidy();
        assert_eq!(fixture.tied.jobs.len(), many as usize / 2);
        assert_eq!(fixture.tied.sessions["a"].len(), many as usize / 2);
    }
}
