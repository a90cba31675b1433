//! The shim's event loop: waits for the socket, the processes, the pipes, the clock and the sync
//! thread, and handles them in an order that is part of the promise: a leader's exit before the
//! messages that arrived with it, and those before the output.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::{poll::PollTimeout, sys::signalfd::SignalFd};

use super::{
    attempt::{Attempt, Wants, pending::Pending},
    context::ShimContext,
    current::Current,
    poll::{Sources, Woken},
    process::spawn,
    server::{
        connection::ControlConnection,
        socket::{Call, ControlSocket},
    },
};
use crate::{
    job::{InputAnswer, JobNumber},
    spool::{AttemptRef, FromShim, LaunchRequest, RunSpec, ToShim, message::PROTOCOL},
};

/// How long a shim that holds nothing waits for a server before it leaves.
const SERVER_WAIT: Duration = Duration::from_secs(10);

/// The shim, with its loop.
pub struct EventLoop {
    context: ShimContext,
    socket: ControlSocket,
    children: SignalFd,
    current: Current,
    /// The server has told it to leave.
    leaving: bool,
    /// Since when no server has been connected; `None` while one is.
    no_server_since: Option<Instant>,
}

impl EventLoop {
    /// A shim without an attempt. `children` becomes readable at SIGCHLD.
    pub fn new(context: ShimContext, socket: ControlSocket, children: SignalFd) -> Self {
        Self {
            context,
            socket,
            children,
            current: Current::Nothing,
            leaving: false,
            no_server_since: Some(Instant::now()),
        }
    }

    /// Runs until the shim may leave, and removes its socket and lock file.
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
        self.socket.close();
    }

    fn on_processes(&mut self, woken: &Woken, now: Instant) {
        if woken.children {
            // One read is enough: a standard signal is pending once, however many children exit.
            let _ = self.children.read_signal();
        }
        if woken.synced {
            while let Some(synced) = self.context.syncer.next_result() {
                if let Some(attempt) = self.current.attempt_mut() {
                    attempt.on_synced(synced, &mut self.context);
                }
            }
        }
        let Some(attempt) = self.current.attempt_mut() else {
            return;
        };
        if woken.report {
            attempt.read_report(&mut self.context, now);
        }
        if woken.children {
            attempt.on_children(&mut self.context, now);
        }
    }

    fn on_calls(&mut self, woken: &Woken, now: Instant) {
        if !woken.socket
            && self
                .socket
                .accept_again_at()
                .is_none_or(|until| now < until)
        {
            return;
        }
        self.socket.receive_all(&self.context.tree, now);
        // Messages that are queued now are for the server that is connected now. They go first: a
        // hello among the calls may replace that server.
        self.send_outgoing();
        while let Some(call) = self.socket.next_call() {
            match call {
                Call::Hello { instance } => self.welcome(instance),
                Call::Message(message) => self.on_message(message, now),
                Call::Launch(launch, client) => self.launch(&launch, client),
            }
            self.send_outgoing();
        }
    }

    /// Starts a program as a sibling of the shim. The server is told too: where it is our parent,
    /// it is also the parent of that program and must reap it.
    fn launch(&mut self, launch: &LaunchRequest, mut client: ControlConnection) {
        let (pid, error) = match launch.program.is_empty() {
            true => (0, None),
            false => match spawn::launch(launch, &self.context.null) {
                Ok(pid) => (pid, None),
                Err(error) => (0, Some(error.to_string())),
            },
        };
        let launched = FromShim::Launched { pid, error };
        client.send(&launched);
        if pid != 0 {
            self.context.outgoing.push(launched);
        }
    }

    fn on_output(&mut self, woken: &Woken, now: Instant) {
        let Some(attempt) = self.current.attempt_mut() else {
            return;
        };
        if woken.stdin_unread {
            attempt.stop_feeding();
        } else if woken.stdin {
            attempt.feed();
        }
        if !woken.streams.is_empty() {
            attempt.read_ready(&woken.streams, &mut self.context, now);
        }
    }

    fn on_clock(&mut self, now: Instant) {
        if self.current.retry_at().is_some_and(|at| at <= now) {
            self.begin_pending(now);
        }
        if let Some(attempt) = self.current.attempt_mut() {
            attempt.on_time(&mut self.context, now);
            attempt.advance(&mut self.context, now);
        }
    }

    /// Sends what waits for the server; without a server, syncs the end of the attempt.
    fn report(&mut self, now: Instant) {
        self.send_outgoing();
        if self.socket.has_server() {
            self.no_server_since = None;
        } else {
            self.no_server_since.get_or_insert(now);
            if let Some(attempt) = self.current.attempt_mut().filter(|a| a.is_reported()) {
                attempt.sync_end(&mut self.context);
            }
        }
        self.drop_finished_attempt();
    }

    fn send_outgoing(&mut self) {
        for message in self.context.outgoing.drain(..) {
            self.socket.send(&message);
        }
    }

    fn drop_finished_attempt(&mut self) {
        if let Some(attempt) = self.current.attempt().filter(|a| a.is_over()) {
            // The exit message has said that this shim takes no more work, so the server will not
            // give it any.
            self.leaving |= attempt.retires_shim();
            self.current = Current::Nothing;
        }
    }

    fn welcome(&mut self, instance: String) {
        self.context.instance = instance;
        self.context.outgoing.push(FromShim::Welcome {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id() as i32,
            state: self.current.state(),
            takes_secrets: true,
            tells_last_sign: true,
        });
        match &mut self.current {
            Current::Nothing => {}
            Current::Pending(pending) => pending.on_hello(&mut self.context),
            Current::Attempt(attempt) => attempt.on_hello(&mut self.context),
        }
    }

    /// Whether a message is about the current attempt. A late one must not reach the next attempt.
    fn is_current(&self, about: AttemptRef) -> bool {
        self.current
            .attempt_id()
            .is_some_and(|(job, attempt)| about.is(job, attempt))
    }

    fn on_message(&mut self, message: ToShim, now: Instant) {
        if message.about().is_some_and(|about| !self.is_current(about)) {
            return;
        }
        let Some(message) = self.on_pending_message(message) else {
            return;
        };
        let context = &mut self.context;
        match (message, self.current.attempt_mut()) {
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
                let attempt = attempt.filter(|attempt| attempt.is(job, number));
                let answer = attempt.map_or(InputAnswer::Closed, |a| a.input(input));
                context.outgoing.push(FromShim::Input { request, answer });
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
                self.drop_finished_attempt();
            }
            (ToShim::Arm { offset, .. }, Some(attempt)) => attempt.arm(offset, context),
            (ToShim::AskLastSign { .. }, Some(attempt)) => attempt.emit_last_sign(context),
            (ToShim::Stop { request, .. }, Some(attempt)) => attempt.stop(request, context, now),
            (ToShim::Pause { .. }, Some(attempt)) => attempt.pause(context, now),
            (ToShim::Resume { .. }, Some(attempt)) => attempt.resume(context, now),
            (ToShim::Signal { signal, .. }, Some(attempt)) => attempt.signal(signal, context),
            // `ControlSocket` handles hello and launch; everything else is about an attempt that is
            // no longer here.
            (_, None) | (ToShim::Hello { .. } | ToShim::Launch(_), _) => {}
        }
    }

    /// Handles a message while the attempt has no segment yet; returns one that is not for it.
    fn on_pending_message(&mut self, message: ToShim) -> Option<ToShim> {
        let Current::Pending(pending) = &mut self.current else {
            return Some(message);
        };
        let context = &mut self.context;
        match message {
            // The final commit is durable, or the server would not have sent another run.
            ToShim::Release { job, attempt } if pending.is(job, attempt) && pending.has_ended() => {
                self.current = Current::Nothing;
            }
            ToShim::Run(spec) if pending.has_ended() && !pending.is(spec.job, spec.attempt) => {
                self.current = Current::Nothing;
                return Some(ToShim::Run(spec));
            }
            // The shim has accepted it already, so it must not be refused.
            ToShim::Run(spec) if pending.is(spec.job, spec.attempt) => {}
            ToShim::Input {
                job,
                attempt,
                request,
                input,
            } if pending.is(job, attempt) => {
                let answer = pending.input(input);
                context.outgoing.push(FromShim::Input { request, answer });
            }
            other if other.about().is_some() => pending.on_message(other, context),
            other => return Some(other),
        }
        None
    }

    /// Tries to begin the attempt that waits for its first segment.
    fn begin_pending(&mut self, now: Instant) {
        self.current = match std::mem::take(&mut self.current) {
            Current::Pending(pending) => self.begun(pending, now),
            other => other,
        };
    }

    /// Tries to create the first segment of a pending attempt, and returns the state after that.
    fn begun(&mut self, mut pending: Box<Pending>, now: Instant) -> Current {
        match pending.claim(&mut self.context) {
            Ok(log) => Current::Attempt(Box::new(pending.begin(log, &mut self.context, now))),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("failed to create the first segment: {e}");
                self.refuse(pending.attempt_id(), why);
                Current::Nothing
            }
            Err(e) => {
                pending.wait(&e, &mut self.context, now);
                Current::Pending(pending)
            }
        }
    }

    fn refuse(&mut self, (job, attempt): (JobNumber, u32), why: String) {
        self.context
            .outgoing
            .push(FromShim::Refused { job, attempt, why });
    }

    /// Begins a new attempt. A run also acknowledges the end of the attempt before.
    fn run_attempt(&mut self, spec: RunSpec, now: Instant) {
        if let Some(attempt) = self.current.attempt_mut() {
            if attempt.is(spec.job, spec.attempt) {
                // It has been started already, so it must not be refused.
                return;
            }
            attempt.acknowledge();
        }
        self.drop_finished_attempt();
        if !matches!(self.current, Current::Nothing) || self.leaving {
            let why = "the shim is busy or leaving".to_owned();
            return self.refuse((spec.job, spec.attempt), why);
        }
        self.current = Current::Pending(Box::new(Pending::new(spec)));
        self.begin_pending(now);
    }

    /// Whether the shim may leave: it holds nothing that would be lost, and it was told to leave or
    /// no server has been connected for a while.
    fn is_done(&self, now: Instant) -> bool {
        let asked = self.leaving;
        let without_server = self
            .no_server_since
            .is_some_and(|since| now >= since + SERVER_WAIT);
        match &self.current {
            Current::Nothing => asked || without_server,
            Current::Attempt(attempt) => attempt.is_safe() && without_server,
            Current::Pending(pending) => pending.has_ended() && without_server,
        }
    }

    fn wait(&self) -> Woken {
        let sources = Sources {
            children: &self.children,
            syncer: &self.context.syncer,
            socket: &self.socket,
            wants: (self.current.attempt()).map_or_else(Wants::default, Attempt::wants),
        };
        sources.wait(self.timeout(Instant::now()))
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let attempt = self.current.attempt().and_then(Attempt::next_deadline);
        let without_server = self
            .no_server_since
            .map(|since| since + SERVER_WAIT)
            .filter(|at| *at > now);
        let pending = self.current.retry_at();
        let socket = self.socket.accept_again_at();
        let all = attempt
            .into_iter()
            .chain(without_server)
            .chain(pending)
            .chain(socket);
        let Some(next) = all.min() else {
            return PollTimeout::NONE;
        };
        // Rounded up: an early wake-up would find nothing due and wait again.
        let ms = next
            .saturating_duration_since(now)
            .as_micros()
            .div_ceil(1000);
        PollTimeout::try_from(ms.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
    }
}
