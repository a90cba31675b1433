//! An attempt whose first segment cannot be created at the moment: no file descriptor, no inode, a
//! disk that fails. Nothing was started and nothing is stored, so what is asked of it is remembered,
//! and an end is told over the socket alone. Once the segment exists, all is `attempt`'s.

use std::{io, time::Instant};

use nix::errno::Errno;

use super::{
    Attempt,
    backoff::Backoff,
    feed::Feed,
    phase::Later,
    stop::{SIGNALS_MAX, StopProgress},
};
use crate::{
    job::{Dropped, Exit, ExitFacts, Input, InputAnswer, JobNumber, Offset, StopRequest, Usage},
    shim::{context::ShimContext, log::AttemptLog, process::spawn, timestamps},
    spool::{AttemptRef, FromShim, RunSpec, ShimState, ToShim},
};

/// An attempt that waits for its first segment, or has ended without one.
pub struct Pending {
    spec: RunSpec,
    stdin: Feed,
    later: Later,
    armed: Option<Offset>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// Why it waits, once that was told.
    told_waiting: Option<String>,
    /// It has ended: somebody wanted that before it began.
    facts: Option<Box<ExitFacts>>,
}

impl Pending {
    /// One for which nothing was tried yet.
    pub fn new(mut spec: RunSpec) -> Self {
        Self {
            stdin: Feed::of(&mut spec),
            later: Later::default(),
            armed: None,
            backoff: Backoff::default(),
            retry_at: None,
            told_waiting: None,
            facts: None,
            spec,
        }
    }

    /// Takes the right to start the attempt. `AlreadyExists` where somebody else has it; after any
    /// other error nobody has, and it can be tried again.
    pub fn claim(&self, kit: &mut ShimContext) -> io::Result<AttemptLog> {
        kit.ticket += 1;
        kit.frame.clear();
        let (spool, ballast) = (kit.spool.clone(), kit.ballast.clone());
        AttemptLog::create(spool, ballast, &self.spec, kit.ticket)
    }

    /// The attempt begins, with everything that was asked of it meanwhile.
    pub fn begin(self, log: AttemptLog, kit: &mut ShimContext, now: Instant) -> Attempt {
        if self.told_waiting.is_some() {
            self.tell_waiting(false, "it goes on".to_owned(), kit);
        }
        let mut attempt = Attempt::begin(self.spec, self.stdin, self.later, log, kit, now);
        if let Some(offset) = self.armed {
            attempt.arm(offset, kit);
        }
        attempt
    }

    /// The segment could not be created: waits, and says so once.
    pub fn wait(&mut self, error: &io::Error, kit: &mut ShimContext, now: Instant) {
        self.retry_at = Some(now + self.backoff.pause());
        if let Some(wish) = self.spec.stop.take() {
            return self.end(wish, kit);
        }
        let why = format!("its first segment cannot be created: {error}");
        if self.told_waiting.as_ref() != Some(&why) {
            self.tell_waiting(true, why.clone(), kit);
            self.told_waiting = Some(why);
        }
    }

    /// When the segment is to be tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.facts.is_none())
    }

    /// Does what the server wants, as far as that needs no process.
    pub fn obey(&mut self, message: ToShim, kit: &mut ShimContext) {
        match message {
            _ if self.facts.is_some() => {}
            ToShim::Arm { offset, .. } => {
                self.armed = Some(self.armed.map_or(offset, |armed| armed.min(offset)));
            }
            ToShim::Pause { .. } => self.later.pause = true,
            ToShim::Resume { .. } => self.later.pause = false,
            ToShim::Signal { signal, .. } if self.later.signals.len() < SIGNALS_MAX => {
                self.later.signals.push(signal);
            }
            ToShim::Stop { wish, .. } => self.end(wish, kit),
            _ => {}
        }
    }

    /// Takes an input for its stdin.
    pub fn input(&mut self, input: Input) -> InputAnswer {
        self.stdin.take(input)
    }

    /// It ends without having begun. There is no record of it: should this shim be gone before the
    /// end is committed, the missing segment proves that nothing was started, and the wish stands
    /// in the ledger.
    fn end(&mut self, wish: StopRequest, kit: &mut ShimContext) {
        let about = self.about();
        self.stdin.close();
        self.facts = Some(Box::new(ExitFacts {
            exit: Exit::SpawnFailed(spawn::failed(Errno::ECANCELED, "start")),
            started_at_us: None,
            ended_at_us: timestamps::wall_us(),
            stop: Some(StopProgress::new(wish.clone()).facts),
            leaked: 0,
            survivors: Vec::new(),
            usage: Usage::default(),
            end_offset: self.spec.start_offset,
            dropped: Dropped::default(),
        }));
        kit.said.push(FromShim::Stopping { about, wish });
        if self.told_waiting.take().is_some() {
            self.tell_waiting(false, "it ends".to_owned(), kit);
        }
        if let Some(facts) = self.facts.clone() {
            kit.said.push(FromShim::Exited {
                job: self.spec.job,
                attempt: self.spec.attempt,
                facts,
                synced: false,
                reusable: true,
            });
        }
    }

    /// What a server that connects now has to know.
    pub fn state(&self) -> ShimState {
        let (job, attempt) = (self.spec.job, self.spec.attempt);
        match &self.facts {
            Some(facts) => ShimState::Exited {
                job,
                attempt,
                facts: facts.clone(),
                synced: false,
                reusable: Some(true),
            },
            None => ShimState::Running {
                job,
                attempt,
                paused: false,
                started_at_us: 0,
                stop: None,
            },
        }
    }

    /// A new server listens: what it is not told by [`Self::state`].
    pub fn on_hello(&mut self, kit: &mut ShimContext) {
        self.armed = None;
        if let Some(why) = self.told_waiting.clone() {
            self.tell_waiting(true, why, kit);
        }
    }

    fn tell_waiting(&self, waiting: bool, why: String, kit: &mut ShimContext) {
        let about = self.about();
        kit.said.push(FromShim::Waiting {
            about,
            waiting,
            why,
        });
    }

    /// Its job and its number.
    pub fn key(&self) -> (JobNumber, u32) {
        (self.spec.job, self.spec.attempt)
    }

    fn about(&self) -> AttemptRef {
        AttemptRef::attempt(self.spec.job, self.spec.attempt)
    }

    /// Whether this is the attempt.
    pub fn is(&self, job: JobNumber, attempt: u32) -> bool {
        (self.spec.job, self.spec.attempt) == (job, attempt)
    }

    /// Whether it has ended without having begun.
    pub fn has_ended(&self) -> bool {
        self.facts.is_some()
    }
}
