//! Kills and stops the server and shims, alone and together, as the seed says, and starts the
//! server again. Time itself is its subject.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal as NixSignal, kill},
    unistd::Pid,
};
use rustix::process::Signal;

use crate::{
    harness::Server,
    history::{Target, What},
    kills::{Kind, Tally},
    random::Random,
    victims::{self, Shim},
    world::World,
};

/// Runs that are at least so long have servers that are away for long.
const AWAY_IN_RUNS_OF: Duration = Duration::from_secs(120);

/// The one killer of a run.
pub struct Killer<'w> {
    world: &'w World,
    server: &'w mut Server,
    random: Random,
    tally: Tally,
}

/// It cannot go on: the history says why.
#[derive(Debug)]
pub struct GivesUp;

impl<'w> Killer<'w> {
    /// A killer whose decisions follow from the run's seed.
    pub fn new(world: &'w World, server: &'w mut Server) -> Self {
        Self {
            world,
            server,
            random: Random::new(world.settings.seed, 0xdead),
            tally: Tally::default(),
        }
    }

    /// Kills until the time is over or something was wrong. A server is ready in the end, unless
    /// the history says why there is none.
    pub fn work(mut self, length: Duration) -> Tally {
        let began = Instant::now();
        while began.elapsed() < length && !self.world.history.is_wrong() {
            self.pause(60, 420);
            if self.blow().is_err() {
                break;
            }
        }
        self.tally
    }

    fn blow(&mut self) -> Result<(), GivesUp> {
        if let Some(status) = self.server.has_ended() {
            return self.give_up(format!("the server ended by itself: {status}"));
        }
        let kind = Kind::draw(&mut self.random);
        *self.tally.by_kind.entry(kind).or_default() += 1;
        match kind {
            Kind::ServerKill => self.kill_server(),
            Kind::ServerKillStarting => {
                self.kill_server();
                self.launch();
                self.pause(0, 100);
                self.kill_server();
            }
            Kind::ServerStopKill => {
                self.stop_server();
                self.pause(0, 250);
                self.kill_server();
            }
            Kind::ServerStopCont => {
                self.stop_server();
                self.pause(10, 700);
                self.signal_server(NixSignal::SIGCONT, "SIGCONT");
                return Ok(());
            }
            Kind::ServerTerm => self.term_server()?,
            Kind::ServerAway => {
                self.kill_server();
                // Times of schedules are missed by then. A short run has no time for that.
                if self.world.settings.length >= AWAY_IN_RUNS_OF {
                    self.pause(11_000, 16_000);
                }
            }
            Kind::BothKill => self.kill_both(),
            Kind::BothStopKill => {
                let shim = self.shim();
                self.stop(&shim);
                self.stop_server();
                self.pause(0, 250);
                self.kill_server();
                self.kill(&shim);
            }
            Kind::ShimKillServerDown => {
                let shim = self.shim();
                self.kill_server();
                self.pause(0, 40);
                self.kill(&shim);
            }
            _ => return self.blow_at_shim(kind),
        }
        self.down_time();
        self.start()
    }

    fn blow_at_shim(&mut self, kind: Kind) -> Result<(), GivesUp> {
        let shim = self.shim();
        let over_restart = [
            Kind::ShimStoppedOverRestart,
            Kind::ShimStoppedOverRestartKill,
        ];
        if kind != Kind::ShimKill {
            self.stop(&shim);
        }
        if over_restart.contains(&kind) {
            self.pause(0, 50);
            self.kill_server();
            self.down_time();
            self.start()?;
            self.pause(0, 300);
        } else if kind != Kind::ShimKill {
            self.pause(5, 600);
        }
        match kind {
            Kind::ShimStopCont | Kind::ShimStoppedOverRestart => self.go_on(&shim),
            _ => self.kill(&shim),
        }
        Ok(())
    }

    fn kill_both(&mut self) {
        let shim = self.shim();
        if self.random.percent(50) {
            self.kill(&shim);
            self.kill_server();
        } else {
            self.kill_server();
            self.kill(&shim);
        }
    }

    /// A planned stop, which must succeed.
    fn term_server(&mut self) -> Result<(), GivesUp> {
        self.note(Target::Server, "SIGTERM");
        let (status, took) = self.server.stop();
        if !status.success() || took > Duration::from_secs(5) {
            return self.give_up(format!("a planned stop: {status} after {took:?}"));
        }
        Ok(())
    }

    fn launch(&mut self) {
        self.world.launched();
        self.server.launch();
    }

    fn start(&mut self) -> Result<(), GivesUp> {
        let launched = Instant::now();
        self.launch();
        if let Err(why) = self.server.readied() {
            let said = self.server.said_last();
            return self.give_up(format!("a server did not start: {why}\n{said}"));
        }
        let after_us = launched.elapsed().as_micros() as u64;
        self.world.history.note(None, What::Ready { after_us });
        self.world.moved(self.server);
        Ok(())
    }

    fn give_up(&self, why: String) -> Result<(), GivesUp> {
        self.world.history.wrong(None, why);
        self.world.end();
        Err(GivesUp)
    }

    fn kill_server(&mut self) {
        self.note(Target::Server, "SIGKILL");
        self.server.kill_9();
        self.tally.servers += 1;
    }

    fn stop_server(&self) {
        self.signal_server(NixSignal::SIGSTOP, "SIGSTOP");
    }

    fn signal_server(&self, signal: NixSignal, name: &'static str) {
        self.note(Target::Server, name);
        // It is our child and not waited for, so the number is its own.
        if let Err(error) = kill(Pid::from_raw(self.server.pid()), signal) {
            self.world
                .history
                .wrong(None, format!("{name} to the server: {error}"));
        }
    }

    /// A living shim, mostly one with a job.
    fn shim(&mut self) -> Option<Shim> {
        let all = victims::shims(&self.server.data_dir());
        let busy: Vec<Shim> = all.iter().filter(|shim| shim.busy).cloned().collect();
        let some = match busy.is_empty() || self.random.percent(20) {
            true => &all,
            false => &busy,
        };
        self.random.one_of(some).cloned()
    }

    fn kill(&mut self, shim: &Option<Shim>) {
        if self.hit(shim, Signal::KILL, "SIGKILL") {
            self.tally.shims += 1;
            self.tally.busy_shims += u32::from(shim.as_ref().is_some_and(|shim| shim.busy));
        }
    }

    fn stop(&self, shim: &Option<Shim>) {
        self.hit(shim, Signal::STOP, "SIGSTOP");
    }

    fn go_on(&self, shim: &Option<Shim>) {
        self.hit(shim, Signal::CONT, "SIGCONT");
    }

    /// Noted before it falls: whatever it does, it does later.
    fn hit(&self, shim: &Option<Shim>, signal: Signal, name: &'static str) -> bool {
        let Some(shim) = shim else { return false };
        self.note(Target::Shim(shim.id.clone()), name);
        victims::signal(&self.server.data_dir(), shim, signal)
    }

    fn note(&self, target: Target, signal: &'static str) {
        self.world.history.note(None, What::Blow { target, signal });
    }

    /// Sometimes nobody is there for a while.
    fn down_time(&mut self) {
        if self.random.percent(30) {
            self.pause(0, 300);
        }
    }

    fn pause(&mut self, low_ms: u64, high_ms: u64) {
        thread::sleep(self.random.millis(low_ms, high_ms));
    }
}
