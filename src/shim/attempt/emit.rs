//! What an attempt tells the server, and what it stops telling twice. Who listens is not known
//! here.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use super::{Attempt, Blocked, Phase};
use crate::{
    job::Offset,
    shim::{context::ShimContext, log::Obstacle},
    spool::{FromShim, ShimState},
};

/// How often a full disk or a bound of the spool is looked at again.
const RETRY: Duration = Duration::from_millis(250);

impl Attempt {
    /// The output cannot flow: says so once, and holds the stall clock.
    pub(super) fn block(&mut self, why: Obstacle, kit: &mut ShimContext, now: Instant) {
        match &why {
            Obstacle::Full(text) | Obstacle::NotStarted(text) => {
                self.tell_waiting(text.clone(), kit);
            }
            Obstacle::Broken(text) => self.trouble(format!("store its output: {text}"), kit),
            // It has been told why; whether that is over is not known before the answer.
            Obstacle::Unsynced if self.log.tries_again() => {}
            Obstacle::Unsynced => self.tell_flowing(kit),
        }
        let retry_at = match &why {
            Obstacle::Unsynced => None,
            Obstacle::NotStarted(_) => Some(now + self.backoff.pause()),
            Obstacle::Full(_) | Obstacle::Broken(_) => Some(now + RETRY),
        };
        self.blocked = Some(Blocked { retry_at });
        self.silence.run(false, now);
    }

    pub(super) fn unblock(&mut self, kit: &mut ShimContext, now: Instant) {
        if self.blocked.take().is_none() {
            return;
        }
        self.silence.run(!self.paused, now);
        // Whether its process comes to its exec is not known yet.
        if !matches!(self.phase, Phase::Starting { .. }) {
            self.tell_flowing(kit);
        }
    }

    fn tell_waiting(&mut self, why: String, kit: &mut ShimContext) {
        if !self.is_told() && self.told_waiting.is_none() {
            self.told_waiting = Some(why.clone());
            self.tell_wait(true, why, kit);
        }
    }

    pub(super) fn tell_flowing(&mut self, kit: &mut ShimContext) {
        if self.told_waiting.take().is_some() {
            self.tell_wait(false, "it goes on".to_owned(), kit);
        }
    }

    fn tell_wait(&self, waiting: bool, why: String, kit: &mut ShimContext) {
        let about = self.about();
        kit.said.push(FromShim::Waiting {
            about,
            waiting,
            why,
        });
    }

    /// Tells of something that the operator should know; the same thing only once.
    pub(super) fn trouble(&mut self, what: String, kit: &mut ShimContext) {
        if self.told_trouble.as_ref() == Some(&what) {
            return;
        }
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        let message = format!("job {job} attempt {attempt}: failed to {what}");
        // The server may not be there to hear it, and a full disk may not take it either.
        let _ = writeln!(
            std::io::stderr(),
            "cc-executor shim {}: {message}",
            kit.shim
        );
        kit.said.push(FromShim::Trouble { message });
        self.told_trouble = Some(what);
    }

    /// What a server that connects now has to know.
    pub fn state(&self) -> ShimState {
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        match (&self.facts, &self.phase) {
            _ if self.acknowledged => ShimState::Retired,
            (Some(facts), Phase::Told) => ShimState::Exited {
                job,
                attempt,
                facts: facts.clone(),
                synced: self.is_durable(),
                reusable: self.reusable,
            },
            _ => ShimState::Running {
                job,
                attempt,
                paused: self.paused,
                started_at_us: self.started_at_us.unwrap_or_default(),
                stop: self.stop.as_ref().map(|stop| stop.wish.clone()),
            },
        }
    }

    /// A new server listens: what it is not told by [`Self::state`].
    pub fn on_hello(&mut self, kit: &mut ShimContext) {
        self.armed = None;
        if self.facts.is_none() {
            // The server before may have died before it could enter the start.
            self.tell_start(kit);
        }
        if let Some(why) = self.told_waiting.clone() {
            self.tell_wait(true, why, kit);
        }
        let refused = self.stop.as_ref().map(|stop| stop.facts.refused.clone());
        if let Some(refused) = refused.filter(|refused| !refused.is_empty() && self.facts.is_none())
        {
            let about = self.about();
            kit.said.push(FromShim::StopRefused { about, refused });
        }
    }

    /// Says which process runs, once there is one.
    pub(super) fn tell_start(&self, kit: &mut ShimContext) {
        if let (Some(start), Some(started_at_us)) = (self.start, self.started_at_us) {
            kit.said.push(FromShim::Started {
                job: self.spec.job,
                attempt: self.spec.attempt,
                pid: start.pid,
                start_ticks: start.start_ticks,
                started_at_us,
            });
        }
    }

    /// Says `grew` as soon as there is more than `offset`, or than the least that was asked for
    /// before and not told yet: one reader waits for the next byte, another for the millionth.
    pub fn arm(&mut self, offset: Offset, kit: &mut ShimContext) {
        self.armed = Some(self.armed.map_or(offset, |armed| armed.min(offset)));
        self.tell_growth(kit);
    }

    pub(super) fn tell_growth(&mut self, kit: &mut ShimContext) {
        let offset = self.log.final_end();
        if self.armed.is_some_and(|armed| offset > armed) {
            self.armed = None;
            let about = self.about();
            kit.said.push(FromShim::Grew { about, offset });
        }
        if let Some(next_offset) = self.log.take_sealed() {
            let about = self.about();
            kit.said.push(FromShim::Sealed { about, next_offset });
        }
    }
}
