//! The task that delivers: it reads what is due, begins as many deliveries as may run, and stores
//! what became of each. What is under way is known here alone: after a kill it is due again.

use std::{collections::HashMap, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    backoff,
    sender::NoticeSender,
    types::{DeliveryFailure, NoticeSettings},
};
use crate::{
    job::{JobNumber, Micros, Requester},
    policy::PolicyGuard,
    spool::PinnedRun,
    store::{DeliveryOutcome, NoticeTried, Store, StoreError, WaitingNotice},
    supervisor::{JudgedReceiver, PolicyRefusal},
    sys::{alarm::Alarm, clock, retry::until_some},
};

/// How long a stop waits for deliveries that have begun.
pub const FINISH_WITHIN: Duration = Duration::from_millis(500);
/// The part of all deliveries, as a divisor, that may be to the same destination: one that does not
/// answer leaves room for the others.
const DESTINATION_DIVISOR: u64 = 4;
/// Notices that were delivered or given up are forgotten, down to a bound, after this many deliveries.
const FORGET_EVERY: u32 = 100;
/// The pause after the database could not be read.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What all deliveries share.
#[derive(Debug)]
pub struct DeliveryContext {
    /// The bounds.
    pub settings: NoticeSettings,
    /// Makes the attempts.
    pub sender: NoticeSender,
    /// Judges commands before each attempt.
    pub policy: Option<Arc<PolicyGuard>>,
    /// No delivery begins any more.
    pub stopping: CancellationToken,
    /// Those that have begun are interrupted.
    pub interrupted: CancellationToken,
}

/// What is under way.
#[derive(Debug)]
struct Ongoing {
    job: JobNumber,
    entry: u32,
    destination: String,
}

/// The task's state.
pub struct Deliverer {
    context: Arc<DeliveryContext>,
    store: Store,
    alarm: Alarm,
    ongoing: HashMap<i64, Ongoing>,
    tasks: JoinSet<i64>,
    /// Deliveries since old notices were last forgotten.
    ended: u32,
}

impl Deliverer {
    /// Nothing is delivered before [`Self::run`].
    ///
    /// # Errors
    ///
    /// There is no descriptor or no memory for a timer.
    pub fn new(context: Arc<DeliveryContext>, store: Store) -> io::Result<Self> {
        Ok(Self {
            context,
            store,
            alarm: Alarm::new()?,
            ongoing: HashMap::new(),
            tasks: JoinSet::new(),
            ended: 0,
        })
    }

    /// Delivers until the server stops.
    pub async fn run(mut self) {
        let stopping = self.context.stopping.clone();
        while !stopping.is_cancelled() {
            let next = match self.begin_due().await {
                Ok(next) => next,
                Err(StoreError::Stopping) => break,
                Err(error) => {
                    tracing::warn!(%error, "the notices that are due could not be read");
                    Some(after(READ_AGAIN_AFTER))
                }
            };
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.store.notice_due() => {}
                Some(ended) = self.tasks.join_next() => self.ended(ended).await,
                () = wait_until(&self.alarm, next) => {}
            }
        }
        self.finish().await;
    }

    /// Begins what is due and may run; returns when the next one is due.
    async fn begin_due(&mut self) -> Result<Option<Micros>, StoreError> {
        loop {
            let free = self.running_max().saturating_sub(self.ongoing.len());
            // The end of one of them continues here.
            let Some(limit) = u32::try_from(free).ok().filter(|limit| *limit > 0) else {
                return Ok(None);
            };
            let now = clock::now();
            let due = self.read_due(now, limit).await?;
            let (found, begun) = (due.len(), due.into_iter().filter_map(|n| self.begin(n)));
            let begun = begun.count();
            // Where some were passed over there may be others behind them.
            if begun == 0 || begun == found {
                let numbers: Vec<i64> = self.ongoing.keys().copied().collect();
                return self.store.next_notice_due(now, &numbers).await;
            }
        }
    }

    /// Up to `limit` notices that are due. One that is due later than the longest pause allows was
    /// stored before the clock was set back, and is due as well.
    async fn read_due(&self, now: Micros, limit: u32) -> Result<Vec<WaitingNotice>, StoreError> {
        let numbers: Vec<i64> = self.ongoing.keys().copied().collect();
        let busy: Vec<String> = self.busy_destinations();
        let until_now = (Micros(i64::MIN), now);
        let read = self
            .store
            .waiting_notices(until_now, &numbers, &busy, limit);
        let mut due = read.await?;
        if due.len() < limit as usize {
            let beyond = (after(2 * backoff::PAUSE_MAX), Micros(i64::MAX));
            let limit = limit - due.len() as u32;
            let read = self.store.waiting_notices(beyond, &numbers, &busy, limit);
            due.extend(read.await?);
        }
        Ok(due)
    }

    /// Begins a delivery, unless its destination is busy, or an earlier notice of the same job is on
    /// its way to the same receiver.
    fn begin(&mut self, notice: WaitingNotice) -> Option<()> {
        let is_earlier = |one: &Ongoing| (one.job, one.entry) == (notice.job, notice.entry);
        let is_busy = self.count(&notice.destination) >= self.destination_max();
        if is_busy || self.ongoing.values().any(is_earlier) {
            return None;
        }
        self.ongoing.insert(
            notice.number,
            Ongoing {
                job: notice.job,
                entry: notice.entry,
                destination: notice.destination.clone(),
            },
        );
        let (context, store) = (self.context.clone(), self.store.clone());
        self.tasks.spawn(async move {
            let number = notice.number;
            let interrupted = context.interrupted.clone();
            tokio::select! {
                () = deliver(&context, &store, notice) => {}
                () = interrupted.cancelled() => {}
            }
            number
        });
        Some(())
    }

    async fn ended(&mut self, ended: Result<i64, tokio::task::JoinError>) {
        match ended {
            Ok(number) => drop(self.ongoing.remove(&number)),
            Err(error) => tracing::error!(%error, "a delivery of a notice ended without a result"),
        }
        self.ended += 1;
        if self.ended >= FORGET_EVERY {
            self.ended = 0;
            if let Err(error) = self.store.forget_old_notices().await {
                tracing::debug!(%error, "old notices are forgotten later");
            }
        }
    }

    /// Waits a moment for what is under way, and interrupts the rest.
    async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_WITHIN, all).await.is_err() {
            self.context.interrupted.cancel();
            while self.tasks.join_next().await.is_some() {}
        }
        self.context.interrupted.cancel();
    }

    fn running_max(&self) -> usize {
        usize::try_from(self.context.settings.running_max).unwrap_or(usize::MAX)
    }

    fn destination_max(&self) -> usize {
        let max = self.context.settings.running_max / DESTINATION_DIVISOR;
        usize::try_from(max).unwrap_or(usize::MAX).max(1)
    }

    fn count(&self, destination: &str) -> usize {
        let ongoing = self.ongoing.values();
        ongoing.filter(|one| one.destination == destination).count()
    }

    fn busy_destinations(&self) -> Vec<String> {
        let mut busy: Vec<String> = self
            .ongoing
            .values()
            .map(|one| one.destination.clone())
            .filter(|destination| self.count(destination) >= self.destination_max())
            .collect();
        busy.sort();
        busy.dedup();
        busy
    }
}

/// Makes one attempt and stores what became of it.
async fn deliver(context: &DeliveryContext, store: &Store, notice: WaitingNotice) {
    let sent = AssertUnwindSafe(async {
        let pinned = check_policy(context, &notice).await?;
        context.sender.send(&notice.delivery, pinned.as_ref()).await
    });
    // A notice whose delivery panics (a bug) must not stop the server again and again.
    let sent = sent.catch_unwind().await.unwrap_or_else(|_| {
        let error = "the delivery panicked (a bug; the server's log says more)";
        Err(DeliveryFailure::new(error))
    });
    let now = clock::now();
    let outcome = match sent {
        Ok(()) => DeliveryOutcome::Delivered,
        Err(failure) => {
            let settings = &context.settings;
            backoff::after_failure(&notice, failure, settings, now, random())
        }
    };
    log(&notice, &outcome);
    let tried = NoticeTried {
        number: notice.number,
        at: now,
        outcome,
    };
    until_some(|| async {
        match store.notice_tried(tried.clone()).await {
            // A server that stops forgets what became of it, and the next one tries again.
            Ok(()) | Err(StoreError::Stopping) => Some(()),
            Err(error) => {
                tracing::warn!(%error, notice = tried.number, "what became of a notice could not be \
                    stored; trying again");
                None
            }
        }
    })
    .await;
}

/// Refuses a receiver that the policy does not allow any more; of a command it returns what may be run. The rule
/// may change again: the notice is tried again as after any failure.
async fn check_policy(
    context: &DeliveryContext,
    notice: &WaitingNotice,
) -> Result<Option<PinnedRun>, DeliveryFailure> {
    let Some(guard) = &context.policy else {
        return Ok(None);
    };
    let requester = notice.requester.clone();
    let requester = requester.unwrap_or_else(Requester::default_one);
    let target = &notice.delivery.target;
    let receiver = JudgedReceiver::of(target, &notice.queue, &requester);
    match guard.judged(move |policy| receiver.judge(policy)).await {
        Ok(Ok(pinned)) => Ok(pinned),
        Ok(Err(PolicyRefusal {
            rule,
            digest,
            message,
        })) => Err(DeliveryFailure::new(format!(
            "not sent: {message} (rule {rule:?}, policy {digest})"
        ))),
        Err(error) => Err(DeliveryFailure::new(format!("not sent: {error}"))),
    }
}

fn log(notice: &WaitingNotice, outcome: &DeliveryOutcome) {
    let (number, job, attempt) = (notice.number, notice.job, notice.attempts + 1);
    match outcome {
        DeliveryOutcome::Delivered => {
            tracing::debug!(notice = number, job, attempt, "a notice was delivered");
        }
        DeliveryOutcome::Retry { error, .. } => {
            tracing::debug!(
                notice = number,
                job,
                attempt,
                error,
                "a notice was not delivered"
            );
        }
        DeliveryOutcome::GivenUp { error } => tracing::warn!(
            notice = number,
            job,
            attempt,
            error,
            "a notice is given up; `cc-executor notify retry` tries it again"
        ),
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}

fn after(time: Duration) -> Micros {
    let us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    Micros(clock::now().0.saturating_add(us))
}

/// Without a moment there is nothing to wait for but an event.
async fn wait_until(alarm: &Alarm, at: Option<Micros>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    if let Err(error) = alarm.wait_until(at).await {
        tracing::warn!(%error, "the timer of notices could not be set; they wait for the next event");
        std::future::pending::<()>().await;
    }
}
