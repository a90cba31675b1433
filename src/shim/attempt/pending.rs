//! An attempt whose first segment cannot be created at the moment: no file descriptor, no inode, a
//! disk error. Nothing was started and nothing is stored, so requests are remembered in memory, and
//! an end is reported over the socket alone. Once the segment exists, it becomes an [`Attempt`].

use std::{io, time::Instant};

use nix::errno::Errno;

use super::{
    Attempt,
    backoff::Backoff,
    feed::Feed,
    phase::Deferred,
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
    deferred: Deferred,
    armed: Option<Offset>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    /// Why it waits, once the server has been told.
    reported_waiting: Option<String>,
    /// How it ended: a stop was requested before it began.
    facts: Option<Box<ExitFacts>>,
}

impl Pending {
    /// An attempt for which nothing was tried yet.
    pub fn new(mut spec: RunSpec) -> Self {
        Self {
            stdin: Feed::of(&mut spec),
            deferred: Deferred {
                pause: spec.paused,
                ..Deferred::default()
            },
            armed: None,
            backoff: Backoff::default(),
            retry_at: None,
            reported_waiting: None,
            facts: None,
            spec,
        }
    }

    /// Takes the right to start the attempt by creating its first segment. `AlreadyExists` where
    /// another process has that right; after any other error none has, and it can be tried again.
    pub fn claim(&self, context: &mut ShimContext) -> io::Result<AttemptLog> {
        context.ticket += 1;
        context.frame.clear();
        let (spool, reserve) = (context.spool.clone(), context.reserve.clone());
        AttemptLog::create(spool, reserve, &self.spec, context.ticket)
    }

    /// Begins the attempt, with everything that was requested of it meanwhile.
    pub fn begin(self, log: AttemptLog, context: &mut ShimContext, now: Instant) -> Attempt {
        if self.reported_waiting.is_some() {
            self.emit_waiting(false, "it goes on".to_owned(), context);
        }
        let mut attempt = Attempt::begin(self.spec, self.stdin, self.deferred, log, context, now);
        if let Some(offset) = self.armed {
            attempt.arm(offset, context);
        }
        attempt
    }

    /// The segment could not be created: waits, and reports that once.
    pub fn wait(&mut self, error: &io::Error, context: &mut ShimContext, now: Instant) {
        self.retry_at = Some(now + self.backoff.pause());
        if let Some(request) = self.spec.stop.take() {
            return self.end(request, context);
        }
        let why = format!("its first segment cannot be created: {error}");
        if self.reported_waiting.as_ref() != Some(&why) {
            self.emit_waiting(true, why.clone(), context);
            self.reported_waiting = Some(why);
        }
    }

    /// When to try again to create the segment; `None` after its end.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.facts.is_none())
    }

    /// Does what a message asks, as far as that needs no process.
    pub fn on_message(&mut self, message: ToShim, context: &mut ShimContext) {
        match message {
            _ if self.facts.is_some() => {}
            ToShim::Arm { offset, .. } => {
                self.armed = Some(self.armed.map_or(offset, |armed| armed.min(offset)));
            }
            ToShim::AskLastSign { about } => {
                let boottime_us = None;
                context
                    .outgoing
                    .push(FromShim::LastSign { about, boottime_us });
            }
            ToShim::Pause { .. } => self.deferred.pause = true,
            ToShim::Resume { .. } => self.deferred.pause = false,
            ToShim::Signal { signal, .. } if self.deferred.signals.len() < SIGNALS_MAX => {
                self.deferred.signals.push(signal);
            }
            ToShim::Stop { request, .. } => self.end(request, context),
            _ => {}
        }
    }

    /// Takes an input for its stdin, or returns why not.
    pub fn input(&mut self, input: Input) -> InputAnswer {
        self.stdin.take(input)
    }

    /// Ends it before it has begun. There is no record of it: should this shim be gone before the
    /// end is committed, the missing segment proves that nothing was started, and the stop request
    /// is in the database.
    fn end(&mut self, request: StopRequest, context: &mut ShimContext) {
        let about = self.about();
        self.stdin.close();
        self.facts = Some(Box::new(ExitFacts {
            exit: Exit::SpawnFailed(spawn::failed(Errno::ECANCELED, "start")),
            started_at_us: None,
            ended_at_us: timestamps::wall_us(),
            stop: Some(StopProgress::new(request.clone()).facts),
            leaked: 0,
            survivors: Vec::new(),
            usage: Usage::default(),
            end_offset: self.spec.start_offset,
            dropped: Dropped::default(),
        }));
        context.outgoing.push(FromShim::Stopping { about, request });
        if self.reported_waiting.take().is_some() {
            self.emit_waiting(false, "it ends".to_owned(), context);
        }
        if let Some(facts) = self.facts.clone() {
            context.outgoing.push(FromShim::Exited {
                job: self.spec.job,
                attempt: self.spec.attempt,
                facts,
                synced: false,
                reusable: true,
            });
        }
    }

    /// The state for the `welcome` message.
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

    /// A server has connected: sends what [`Self::state`] does not contain.
    pub fn on_hello(&mut self, context: &mut ShimContext) {
        self.armed = None;
        if let Some(why) = self.reported_waiting.clone() {
            self.emit_waiting(true, why, context);
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

    /// Its job number and attempt number.
    pub fn attempt_id(&self) -> (JobNumber, u32) {
        (self.spec.job, self.spec.attempt)
    }

    fn about(&self) -> AttemptRef {
        AttemptRef::attempt(self.spec.job, self.spec.attempt)
    }

    /// Whether it is this attempt.
    pub fn is(&self, job: JobNumber, attempt: u32) -> bool {
        (self.spec.job, self.spec.attempt) == (job, attempt)
    }

    /// Whether it has ended before it began.
    pub fn has_ended(&self) -> bool {
        self.facts.is_some()
    }
}
