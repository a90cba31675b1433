//! Messages of an attempt to the server, and which of them are not repeated.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use super::{
    Attempt, Blocked,
    phase::{EndStep, Ended, Phase},
};
use crate::{
    job::Offset,
    shim::{context::ShimContext, log::Obstacle},
    spool::{FromShim, ShimState},
};

/// How long after a failed write a full disk or spool is tried again.
const RETRY: Duration = Duration::from_millis(250);

impl Attempt {
    /// The output cannot be written: reports it once, and holds the stopwatch of silence.
    pub(super) fn block(&mut self, why: Obstacle, context: &mut ShimContext, now: Instant) {
        match &why {
            Obstacle::Full(text) | Obstacle::NotStarted(text, _) => {
                self.report_waiting(text.clone(), context);
            }
            Obstacle::Broken(text) => {
                self.report_trouble(format!("store its output: {text}"), context)
            }
            // The server knows why; whether that is over is unknown before the result.
            Obstacle::Unsynced if self.log.tries_again() => {}
            Obstacle::Unsynced => self.emit_flowing(context),
        }
        let retry_at = match &why {
            Obstacle::Unsynced => None,
            Obstacle::NotStarted(_, pause) => Some(now + *pause),
            Obstacle::Full(_) | Obstacle::Broken(_) => Some(now + RETRY),
        };
        self.blocked = Some(Blocked { retry_at });
        self.run_clocks(now);
    }

    pub(super) fn unblock(&mut self, context: &mut ShimContext, now: Instant) {
        if self.blocked.take().is_none() {
            return;
        }
        self.run_clocks(now);
        // Whether its process reaches its exec is not known yet.
        if self.phase.forked().is_none() {
            self.emit_flowing(context);
        }
    }

    fn report_waiting(&mut self, why: String, context: &mut ShimContext) {
        if !self.is_reported() && self.reported_waiting.is_none() {
            self.reported_waiting = Some(why.clone());
            self.emit_waiting(true, why, context);
        }
    }

    pub(super) fn emit_flowing(&mut self, context: &mut ShimContext) {
        if self.reported_waiting.take().is_some() {
            self.emit_waiting(false, "it goes on".to_owned(), context);
        }
    }

    fn emit_waiting(&self, waiting: bool, why: String, context: &mut ShimContext) {
        let about = self.about();
        context.outgoing.push(FromShim::Waiting {
            about,
            waiting,
            why,
        });
    }

    /// Reports a problem for the operator; the same one only once.
    pub(super) fn report_trouble(&mut self, what: String, context: &mut ShimContext) {
        if self.reported_trouble.as_ref() == Some(&what) {
            return;
        }
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        let message = format!("job {job} attempt {attempt}: failed to {what}");
        // No server may be connected, and a full disk may not take this line either: errors are
        // ignored.
        let _ = writeln!(
            std::io::stderr(),
            "cc-executor shim {}: {message}",
            context.shim
        );
        context.outgoing.push(FromShim::Trouble { message });
        self.reported_trouble = Some(what);
    }

    /// The state for the `welcome` message.
    pub fn state(&self) -> ShimState {
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        match &self.phase {
            Phase::Ended(Ended {
                facts,
                step: EndStep::Reported(reported),
                ..
            }) => match reported.acknowledged {
                true => ShimState::Retired,
                false => ShimState::Exited {
                    job,
                    attempt,
                    facts: facts.clone(),
                    synced: self.is_durable(),
                    reusable: Some(reported.reusable),
                },
            },
            phase => ShimState::Running {
                job,
                attempt,
                paused: self.is_paused(),
                started_at_us: phase.started_at_us().unwrap_or_default(),
                stop: self.stop.as_ref().map(|stop| stop.request.clone()),
            },
        }
    }

    /// A server has connected: sends what [`Self::state`] does not contain.
    pub fn on_hello(&mut self, context: &mut ShimContext) {
        self.armed = None;
        // The server before may have died before it committed the start.
        self.emit_started(context);
        if let Some(why) = self.reported_waiting.clone() {
            self.emit_waiting(true, why, context);
        }
        let refused = self.stop.as_ref().map(|stop| stop.facts.refused.clone());
        let refused = refused.filter(|refused| !refused.is_empty() && !self.phase.has_ended());
        if let Some(refused) = refused {
            let about = self.about();
            context
                .outgoing
                .push(FromShim::StopRefused { about, refused });
        }
    }

    /// Sends `started`, once a process runs, and until the facts are complete.
    pub(super) fn emit_started(&self, context: &mut ShimContext) {
        if let Some((process, started_at_us)) = self.phase.started() {
            context.outgoing.push(FromShim::Started {
                job: self.spec.job,
                attempt: self.spec.attempt,
                pid: process.pid,
                start_ticks: process.start_ticks,
                started_at_us,
            });
        }
    }

    /// Arms one `grew`: it is sent as soon as there is output after `offset`, or after the smallest
    /// offset that is armed already. One reader waits for the next byte, another for the millionth.
    pub fn arm(&mut self, offset: Offset, context: &mut ShimContext) {
        self.armed = Some(self.armed.map_or(offset, |armed| armed.min(offset)));
        self.emit_growth(context);
    }

    /// Says when the process last gave a sign of life.
    pub fn emit_last_sign(&self, context: &mut ShimContext) {
        let about = self.about();
        let boottime_us = self.last_sign_us;
        context
            .outgoing
            .push(FromShim::LastSign { about, boottime_us });
    }

    pub(super) fn emit_growth(&mut self, context: &mut ShimContext) {
        let offset = self.log.final_end();
        if self.armed.is_some_and(|armed| offset > armed) {
            self.armed = None;
            let about = self.about();
            context.outgoing.push(FromShim::Grew { about, offset });
        }
        if let Some(next_offset) = self.log.take_sealed() {
            let about = self.about();
            context
                .outgoing
                .push(FromShim::Sealed { about, next_offset });
        }
    }
}
