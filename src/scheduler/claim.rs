//! Gives queued jobs to free shims, and keeps as many shims as that takes.
//!
//! One task decides; what waits for the database runs in tasks of its own and reports back. `end`
//! commits how an attempt ended.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{end, expect, rescue::Rescuer, wakeup::Wakeup};
use crate::{
    store::{Claimed, ShimOffer, StoreError},
    supervisor::{AttemptId, Finalized, ShimEvent, Supervisor},
    sys::vital::Vital,
};

/// How often the queues are looked at without a wake-up, as a safety net.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The result of a claim, on its way back to the deciding task.
#[derive(Debug)]
struct Report {
    offers: Vec<ShimOffer>,
    /// `None`: no claim was made, these shims have just become free.
    claimed: Option<Result<Claimed, StoreError>>,
    origin: ReportOrigin,
}

/// What the shims of a report did before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportOrigin {
    /// They were idle, and all of them were offered in one claim; there is one such claim at a time.
    Idle,
    /// An attempt of theirs never ran, and was rescued.
    Rescued,
    /// An attempt of theirs ended.
    Ended,
}

/// The one task that decides.
#[derive(Debug)]
pub struct Scheduler {
    supervisor: Supervisor,
    rescuer: Rescuer,
    wakeup: Wakeup,
    events: mpsc::UnboundedReceiver<ShimEvent>,
    reports: mpsc::UnboundedSender<Report>,
    reported: mpsc::UnboundedReceiver<Report>,
    /// Shims that have nothing to do, the one that has been idle longest last.
    idle: VecDeque<ShimOffer>,
    /// Shims that have been started and have not reported.
    starting: BTreeSet<String>,
    warm_shims: u32,
    /// How many shims had nothing to do and wait for the result of a claim or a rescue.
    awaiting_claim: usize,
    /// How many shims wait for the commit of an end. Most of them get a job of the queue whose slot
    /// they free, so they are no help to a job that waits for a shim now.
    ending: usize,
    /// The fewest shims that were idle at any time since the last tick.
    least_idle: usize,
    /// Whether the queues must be looked at.
    dirty: bool,
    /// Whether a claim over the idle shims is on its way.
    claiming: bool,
    /// When a queue that has used up its starts in a minute may start its next job.
    look_at: Option<Instant>,
}

impl Scheduler {
    /// A scheduler over the supervisor's shims; `events` come from the supervisor.
    pub fn new(
        supervisor: Supervisor,
        rescuer: Rescuer,
        wakeup: Wakeup,
        events: mpsc::UnboundedReceiver<ShimEvent>,
        warm_shims: u32,
    ) -> Self {
        let (reports, reported) = mpsc::unbounded_channel();
        Self {
            supervisor,
            rescuer,
            wakeup,
            events,
            reports,
            reported,
            idle: VecDeque::new(),
            starting: BTreeSet::new(),
            warm_shims,
            awaiting_claim: 0,
            ending: 0,
            least_idle: 0,
            dirty: true,
            claiming: false,
            look_at: None,
        }
    }

    /// Decides until the supervisor's context is cancelled.
    pub async fn run(mut self) {
        let stopping = self.supervisor.context().stopping.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.keep_warm();
            self.claim_idle();

            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.wakeup.wait() => self.dirty = true,
                () = sleep_until(self.look_at.unwrap_or_else(Instant::now)),
                    if self.look_at.is_some() => {
                    self.look_at = None;
                    self.dirty = true;
                }
                _ = look.tick() => {
                    self.dirty = true;
                    self.dismiss_surplus();
                }
                Some(event) = self.events.recv() => self.on_event(event),
                Some(report) = self.reported.recv() => self.on_report(report),
            }
        }
    }

    fn on_event(&mut self, event: ShimEvent) {
        match event {
            ShimEvent::Idle(offer) => {
                self.starting.remove(&offer.shim);
                // A shim is reported again after a reconnect.
                self.forget_idle(&offer.shim);
                self.idle.push_front(offer);
                self.dirty = true;
            }
            ShimEvent::Ended {
                finalized,
                shim,
                offer,
            } => self.commit_end(*finalized, shim, offer),
            ShimEvent::NeverRan { key, offer, pause } => self.rescue_and_free(key, offer, pause),
            ShimEvent::Dead { shim, attempt } => {
                self.starting.remove(&shim);
                self.forget_idle(&shim);
                if let Some(key) = attempt {
                    self.rescuer.rescue_later(key);
                }
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        self.claiming &= report.origin != ReportOrigin::Idle;
        match report.origin {
            ReportOrigin::Idle | ReportOrigin::Rescued => {
                self.awaiting_claim -= report.offers.len();
            }
            ReportOrigin::Ended => self.ending -= report.offers.len(),
        }
        self.dirty |= report.claimed.is_none();
        let claimed = match report.claimed {
            Some(Ok(claimed)) => claimed,
            Some(Err(error)) => {
                if error != StoreError::Stopping {
                    // The next tick tries again.
                    tracing::warn!(%error, "nothing could be claimed");
                }
                Claimed::default()
            }
            None => Claimed::default(),
        };
        self.claimed(report.offers, claimed);
    }

    /// Rescues an attempt that a shim never ran, and frees the shim after that: until the rescue is
    /// committed, the database names the shim for the attempt. The shim gets no work before the
    /// pause is over either. Meanwhile it counts as one that waits for a claim, so that no other
    /// shim is started in its place.
    fn rescue_and_free(&mut self, key: AttemptId, offer: Option<ShimOffer>, pause: Duration) {
        let offers: Vec<ShimOffer> = offer.into_iter().collect();
        self.awaiting_claim += offers.len();
        let (rescuer, reports) = (self.rescuer.clone(), self.reports.clone());
        self.vital()
            .spawn("rescuing what a shim never ran", async move {
                #[expect(clippy::disallowed_methods, reason = "it is the pause itself")]
                let pause = tokio::time::sleep(pause);
                tokio::join!(rescuer.rescue(key), pause);
                let _ = reports.send(Report {
                    offers,
                    claimed: None,
                    origin: ReportOrigin::Rescued,
                });
            });
    }

    /// Looks at the queues for the idle shims, if there is a reason to.
    fn claim_idle(&mut self) {
        if !self.dirty || self.claiming {
            return;
        }
        self.dirty = false;
        self.claiming = true;
        let offers: Vec<ShimOffer> = self.idle.drain(..).collect();
        self.awaiting_claim += offers.len();
        let (claim, reports) = (self.claim(offers.clone()), self.reports.clone());
        self.vital().spawn("claiming for idle shims", async move {
            let claimed = claim.await;
            let _ = reports.send(Report {
                offers,
                claimed: Some(claimed),
                origin: ReportOrigin::Idle,
            });
        });
    }

    fn claim(
        &self,
        offers: Vec<ShimOffer>,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send + 'static {
        let ctx = self.supervisor.context();
        let (store, boot_id, instance) =
            (ctx.store.clone(), ctx.boot_id.clone(), ctx.instance.clone());
        async move { store.claim(offers, boot_id, instance).await }
    }

    /// Sends claimed jobs to their shims; the shims that got nothing are idle, unless they died
    /// meanwhile.
    fn claimed(&mut self, offers: Vec<ShimOffer>, claimed: Claimed) {
        for offer in offers {
            self.forget_idle(&offer.shim);
            let got = claimed.claims.iter().any(|claim| claim.shim == offer.shim);
            if !got && self.supervisor.has_handle(&offer.shim) {
                self.idle.push_back(offer);
            }
        }
        for claim in claimed.claims {
            tracing::debug!(
                job = claim.number,
                attempt = claim.attempt,
                shim = claim.shim,
                "claimed"
            );
            self.supervisor.run(claim);
        }
        if let Some(wait) = claimed.next_start_in {
            let at = Instant::now() + wait;
            self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
        }
        self.least_idle = self.least_idle.min(self.idle.len());
        self.start_missing_shims(claimed.wanting);
    }

    /// Starts shims for `wanting` jobs that lack only a shim. Those that are idle, starting or
    /// waiting for a claim count; those that are ending do not, or a job would wait as long as other
    /// jobs end one after the other. So there are no more shims than slots in use and jobs that could
    /// use one, the warm ones aside.
    fn start_missing_shims(&mut self, wanting: u32) {
        self.dirty |= wanting > 0 && !self.idle.is_empty();
        let coming = self.idle.len() + self.starting.len() + self.awaiting_claim;
        self.start_shims(wanting.saturating_sub(coming as u32));
    }

    /// Commits an end, and gives the shim its next job in the same transaction.
    fn commit_end(&mut self, finalized: Finalized, shim: String, offer: Option<ShimOffer>) {
        let offers: Vec<ShimOffer> = offer.into_iter().collect();
        self.ending += offers.len();
        let claim = self.claim(offers.clone());
        let supervisor = self.supervisor.clone();
        let (reports, wakeup) = (self.reports.clone(), self.wakeup.clone());
        self.vital().spawn("committing an end", async move {
            // The server stops; the shim keeps the end for the next server.
            let Some(finalized) = expect::checked(&supervisor, finalized).await else {
                return;
            };
            let Some((fenced, claimed)) = end::commit(&supervisor, &finalized, claim).await else {
                // The server stops; the shim keeps the end for the next server.
                return;
            };
            let refused = claimed.is_err();
            let got = claimed.as_ref().is_ok_and(|c| !c.claims.is_empty());
            if !got {
                supervisor.release(&shim);
            }
            let _ = reports.send(Report {
                offers,
                claimed: Some(claimed),
                origin: ReportOrigin::Ended,
            });
            // A claim that failed with the end has not used the slot that the end freed.
            if refused {
                wakeup.wake();
            }
            end::unlink(&supervisor, &finalized, fenced).await;
        });
    }

    fn vital(&self) -> Vital {
        self.supervisor.context().vital.clone()
    }

    fn forget_idle(&mut self, shim: &str) {
        self.idle.retain(|offer| offer.shim != shim);
    }

    fn keep_warm(&mut self) {
        if self.claiming {
            return;
        }
        let ready = self.idle.len() + self.starting.len() + self.awaiting_claim + self.ending;
        self.start_shims(self.warm_shims.saturating_sub(ready as u32));
    }

    /// Makes shims exit that were idle between two ticks and are not kept warm. Not sooner: between
    /// the end of one job and the next claim a busy shim is idle, too.
    fn dismiss_surplus(&mut self) {
        let unused = std::mem::replace(&mut self.least_idle, self.idle.len());
        let surplus = unused.saturating_sub(self.warm_shims as usize);
        for _ in 0..surplus {
            if let Some(offer) = self.idle.pop_back() {
                self.supervisor.leave(&offer.shim);
            }
        }
    }

    fn start_shims(&mut self, count: u32) {
        for _ in 0..count {
            self.starting.insert(self.supervisor.spawn_shim());
        }
    }
}
