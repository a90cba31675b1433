//! The shim's loop: waits for the socket, the processes, the pipes, the clock and the sync
//! thread, and lets each of them be heard in an order that is part of the promise: a leader's
//! exit before the messages that arrived with it, those before the output.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::{poll::PollTimeout, sys::signalfd::SignalFd};

use super::{
    attempt::{Attempt, pending::Pending},
    context::ShimContext,
    poll::{Sources, Woken},
    process::spawn,
    server::{
        connection::ControlConnection,
        socket::{Call, ControlSocket},
    },
};
use crate::{
    job::{InputAnswer, JobNumber},
    spool::{AttemptRef, FromShim, LaunchRequest, RunSpec, ShimState, ToShim, message::PROTOCOL},
};

/// How long a shim that holds nothing waits for a server.
const LONELY: Duration = Duration::from_secs(10);

/// A shim at work.
pub struct EventLoop {
    kit: ShimContext,
    door: ControlSocket,
    children: SignalFd,
    /// Never beside an attempt.
    pending: Option<Box<Pending>>,
    attempt: Option<Box<Attempt>>,
    /// The server wants it to go.
    leaving: bool,
    /// Since when there has been no server.
    alone_since: Option<Instant>,
}

impl EventLoop {
    /// A shim that does nothing yet. `children` becomes readable at SIGCHLD.
    pub fn new(kit: ShimContext, door: ControlSocket, children: SignalFd) -> Self {
        Self {
            kit,
            door,
            children,
            pending: None,
            attempt: None,
            leaving: false,
            alone_since: Some(Instant::now()),
        }
    }

    /// Works until nobody needs it any more.
    pub fn run(mut self) {
        while !self.is_done(Instant::now()) {
            let woken = self.wait();
            let now = Instant::now();
            self.on_processes(&woken, now);
            self.on_calls(&woken, now);
            self.on_output(&woken, now);
            self.on_clock(now);
            self.report(now);
        }
        self.door.close();
    }

    fn on_processes(&mut self, woken: &Woken, now: Instant) {
        if woken.children {
            // One read takes it: a standard signal is pending once, however many children exit.
            let _ = self.children.read_signal();
        }
        if woken.synced {
            while let Some(synced) = self.kit.syncer.next_result() {
                if let Some(attempt) = &mut self.attempt {
                    attempt.on_synced(synced, &mut self.kit);
                }
            }
        }
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if woken.report {
            attempt.read_report(&mut self.kit, now);
        }
        if woken.children {
            attempt.on_children(&mut self.kit, now);
        }
    }

    fn on_calls(&mut self, woken: &Woken, now: Instant) {
        if !woken.door && self.door.deaf_until().is_none_or(|until| now < until) {
            return;
        }
        self.door.attend(&self.kit.tree, now);
        // What has been said until now was for the server until now.
        self.speak();
        while let Some(call) = self.door.next_call() {
            match call {
                Call::Hello { instance } => self.welcome(instance),
                Call::Message(message) => self.obey(message, now),
                Call::Launch(launch, asker) => self.launch(&launch, asker),
            }
            self.speak();
        }
    }

    /// Starts a program beside us. The server hears of it, because it is our parent where it lives.
    fn launch(&mut self, launch: &LaunchRequest, mut asker: ControlConnection) {
        let (pid, error) = match launch.program.is_empty() {
            true => (0, None),
            false => match spawn::launch(launch, &self.kit.null) {
                Ok(pid) => (pid, None),
                Err(error) => (0, Some(error.to_string())),
            },
        };
        let told = FromShim::Launched { pid, error };
        asker.send(&told);
        if pid != 0 {
            self.kit.said.push(told);
        }
    }

    fn on_output(&mut self, woken: &Woken, now: Instant) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if woken.stdin_unread {
            attempt.stop_feeding();
        } else if woken.stdin {
            attempt.feed();
        }
        if !woken.streams.is_empty() {
            attempt.pump(&woken.streams, &mut self.kit, now);
        }
    }

    fn on_clock(&mut self, now: Instant) {
        let retry_at = self.pending.as_ref().and_then(|p| p.retry_at());
        if retry_at.is_some_and(|at| at <= now) {
            self.begin_pending(now);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.on_time(&mut self.kit, now);
            attempt.advance(&mut self.kit, now);
        }
    }

    /// Tells the server what there is to tell; without one, makes the end safe.
    fn report(&mut self, now: Instant) {
        self.speak();
        if self.door.has_server() {
            self.alone_since = None;
        } else {
            self.alone_since.get_or_insert(now);
            if let Some(attempt) = self.attempt.as_mut().filter(|a| a.is_told()) {
                attempt.secure(&mut self.kit);
            }
        }
        self.forget_what_is_over();
    }

    fn speak(&mut self) {
        for message in self.kit.said.drain(..) {
            self.door.send(&message);
        }
    }

    fn forget_what_is_over(&mut self) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.is_over()) {
            // It has said that it takes no more work: nobody will come back to it.
            self.leaving |= attempt.retires_shim();
        }
    }

    fn welcome(&mut self, instance: String) {
        self.kit.instance = instance;
        let pending = self.pending.as_ref().map(|pending| pending.state());
        let state = self.attempt.as_ref().map(|attempt| attempt.state());
        let state = state.or(pending).unwrap_or(ShimState::Idle);
        self.kit.said.push(FromShim::Welcome {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id() as i32,
            state,
        });
        if let Some(attempt) = &mut self.attempt {
            attempt.on_hello(&mut self.kit);
        }
        if let Some(pending) = &mut self.pending {
            pending.on_hello(&mut self.kit);
        }
    }

    /// Whether an order is about the attempt that is here. One that is late must not reach the next.
    fn is_current(&self, about: AttemptRef) -> bool {
        let pending = self.pending.as_ref().map(|pending| pending.key());
        let here = self.attempt.as_ref().map(|attempt| attempt.key());
        here.or(pending)
            .is_some_and(|(job, attempt)| about.is(job, attempt))
    }

    fn obey(&mut self, message: ToShim, now: Instant) {
        if message.about().is_some_and(|about| !self.is_current(about)) {
            return;
        }
        let message = match self.pending.take() {
            Some(pending) => match self.obey_pending(pending, message) {
                Some(message) => message,
                None => return,
            },
            None => message,
        };
        let kit = &mut self.kit;
        match (message, &mut self.attempt) {
            (ToShim::Run(spec), _) => self.run_attempt(*spec, now),
            (
                ToShim::Input {
                    job,
                    attempt: number,
                    request,
                    input,
                },
                attempt,
            ) => {
                let attempt = attempt.as_mut().filter(|attempt| attempt.is(job, number));
                let answer = attempt.map_or(InputAnswer::Closed, |a| a.input(input));
                kit.said.push(FromShim::Input { request, answer });
            }
            (ToShim::Leave, _) => self.leaving = true,
            (
                ToShim::Release {
                    job,
                    attempt: number,
                },
                Some(attempt),
            ) => {
                if attempt.is(job, number) {
                    attempt.acknowledge();
                }
                self.forget_what_is_over();
            }
            (ToShim::Arm { offset, .. }, Some(attempt)) => attempt.arm(offset, kit),
            (ToShim::Stop { wish, .. }, Some(attempt)) => attempt.stop(wish, kit, now),
            (ToShim::Pause { .. }, Some(attempt)) => attempt.pause(kit, now),
            (ToShim::Resume { .. }, Some(attempt)) => attempt.resume(kit, now),
            (ToShim::Signal { signal, .. }, Some(attempt)) => attempt.signal(signal, kit),
            // A hello and a launch are the door's; everything else is about an attempt that has been
            // forgotten.
            (_, None) | (ToShim::Hello { .. } | ToShim::Launch(_), _) => {}
        }
    }

    /// What an attempt without a segment makes of a message; one that is not for it is returned.
    fn obey_pending(&mut self, mut pending: Box<Pending>, message: ToShim) -> Option<ToShim> {
        let kit = &mut self.kit;
        let mut rest = None;
        match message {
            // The final commit is durable, or nobody could have sent another run.
            ToShim::Release { job, attempt } if pending.is(job, attempt) && pending.has_ended() => {
                return None;
            }
            ToShim::Run(spec) if pending.has_ended() && !pending.is(spec.job, spec.attempt) => {
                return Some(ToShim::Run(spec));
            }
            // It has been taken, so that it may not be refused.
            ToShim::Run(spec) if pending.is(spec.job, spec.attempt) => {}
            ToShim::Input {
                job,
                attempt,
                request,
                input,
            } if pending.is(job, attempt) => {
                let answer = pending.input(input);
                kit.said.push(FromShim::Input { request, answer });
            }
            other if other.about().is_some() => pending.obey(other, kit),
            other => rest = Some(other),
        }
        self.pending = Some(pending);
        rest
    }

    /// Tries to begin the attempt that waits for its first segment.
    fn begin_pending(&mut self, now: Instant) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        match pending.claim(&mut self.kit) {
            Ok(log) => {
                let attempt = pending.begin(log, &mut self.kit, now);
                self.attempt = Some(Box::new(attempt));
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("failed to create the first segment: {e}");
                self.refuse(pending.key(), why);
            }
            Err(e) => {
                pending.wait(&e, &mut self.kit, now);
                self.pending = Some(pending);
            }
        }
    }

    fn refuse(&mut self, (job, attempt): (JobNumber, u32), why: String) {
        self.kit.said.push(FromShim::Refused { job, attempt, why });
    }

    /// A run acknowledges the end of the attempt before.
    fn run_attempt(&mut self, spec: RunSpec, now: Instant) {
        if let Some(attempt) = &mut self.attempt {
            if attempt.is(spec.job, spec.attempt) {
                // It has been started, so that it may not be refused.
                return;
            }
            attempt.acknowledge();
        }
        self.forget_what_is_over();
        if self.attempt.is_some() || self.pending.is_some() || self.leaving {
            let why = "the shim is busy or leaving".to_owned();
            return self.refuse((spec.job, spec.attempt), why);
        }
        self.pending = Some(Box::new(Pending::new(spec)));
        self.begin_pending(now);
    }

    /// Whether the shim may leave: it holds nothing that would be lost, and it was told to, or
    /// nobody has asked for it for a while.
    fn is_done(&self, now: Instant) -> bool {
        let asked = self.leaving;
        let lonely = self.alone_since.is_some_and(|since| now >= since + LONELY);
        match (&self.attempt, &self.pending) {
            (None, None) => asked || lonely,
            (Some(attempt), _) => attempt.is_safe() && lonely,
            (None, Some(pending)) => pending.has_ended() && lonely,
        }
    }

    fn wait(&self) -> Woken {
        let sources = Sources {
            children: &self.children,
            syncer: &self.kit.syncer,
            door: &self.door,
            wants: self.attempt.as_ref().map(|a| a.wants()).unwrap_or_default(),
        };
        sources.wait(self.timeout(Instant::now()))
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let attempt = self.attempt.as_ref().and_then(|a| a.next_deadline());
        let lonely = self
            .alone_since
            .map(|since| since + LONELY)
            .filter(|at| *at > now);
        let pending = self.pending.as_ref().and_then(|p| p.retry_at());
        let door = self.door.deaf_until();
        let all = attempt.into_iter().chain(lonely).chain(pending).chain(door);
        let Some(next) = all.min() else {
            return PollTimeout::NONE;
        };
        // Rounded up: waking a moment too early would be waking twice.
        let ms = next
            .saturating_duration_since(now)
            .as_micros()
            .div_ceil(1000);
        PollTimeout::try_from(ms.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
    }
}
