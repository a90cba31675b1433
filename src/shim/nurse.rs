//! The shim's loop: waits for the socket, the processes, the pipes, the clock and the sync
//! thread, and lets each of them be heard in an order that is part of the promise: a leader's
//! exit before the messages that arrived with it, those before the output.

use std::time::{Duration, Instant};

use nix::{poll::PollTimeout, sys::signalfd::SignalFd};

use super::{
    attempt::Attempt,
    connection::Connection,
    door::{Call, Door},
    kit::Kit,
    spawn,
    wait::{Sources, Woken},
};
use crate::{
    job::InputAnswer,
    spool::{FromShim, Launch, RunSpec, ShimState, ToShim, message::PROTOCOL},
};

/// How long a shim that holds nothing waits for a server.
const LONELY: Duration = Duration::from_secs(10);

/// A shim at work.
pub struct Nurse {
    kit: Kit,
    door: Door,
    children: SignalFd,
    attempt: Option<Box<Attempt>>,
    /// The server wants it to go.
    leaving: bool,
    /// Since when there has been no server.
    alone_since: Option<Instant>,
}

impl Nurse {
    /// A shim that does nothing yet. `children` becomes readable at SIGCHLD.
    pub fn new(kit: Kit, door: Door, children: SignalFd) -> Self {
        Self {
            kit,
            door,
            children,
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
        if !woken.door {
            return;
        }
        self.door.attend();
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
    fn launch(&mut self, launch: &Launch, mut asker: Connection) {
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
            self.leaving |= attempt.has_survivors();
        }
    }

    fn welcome(&mut self, instance: String) {
        self.kit.instance = instance;
        let state = self.attempt.as_ref().map_or(ShimState::Idle, |a| a.state());
        self.kit.said.push(FromShim::Welcome {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id() as i32,
            state,
        });
        if let Some(attempt) = &mut self.attempt {
            attempt.on_hello(&mut self.kit);
        }
    }

    fn obey(&mut self, message: ToShim, now: Instant) {
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
            (ToShim::Arm { offset }, Some(attempt)) => attempt.arm(offset, kit),
            (ToShim::Stop(wish), Some(attempt)) => attempt.stop(wish, kit, now),
            (ToShim::Pause, Some(attempt)) => attempt.pause(kit, now),
            (ToShim::Resume, Some(attempt)) => attempt.resume(kit, now),
            (ToShim::Signal { signal }, Some(attempt)) => attempt.signal(signal, kit),
            // A hello and a launch are the door's; everything else is about an attempt that has been
            // forgotten.
            (_, None) | (ToShim::Hello { .. } | ToShim::Launch(_), _) => {}
        }
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
        let (job, number) = (spec.job, spec.attempt);
        let why = if self.attempt.is_some() || self.leaving {
            "the shim is busy or leaving".to_owned()
        } else {
            match Attempt::begin(spec, &mut self.kit, now) {
                Ok(attempt) => {
                    self.attempt = Some(Box::new(attempt));
                    return;
                }
                Err(e) => format!("failed to create the first segment: {e}"),
            }
        };
        self.kit.said.push(FromShim::Refused {
            job,
            attempt: number,
            why,
        });
    }

    /// Whether the shim may leave: it holds nothing that would be lost, and it was told to, or
    /// nobody has asked for it for a while.
    fn is_done(&self, now: Instant) -> bool {
        let asked = self.leaving;
        let lonely = self.alone_since.is_some_and(|since| now >= since + LONELY);
        match &self.attempt {
            None => asked || lonely,
            Some(attempt) => attempt.is_safe() && lonely,
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
        let Some(next) = attempt.into_iter().chain(lonely).min() else {
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
