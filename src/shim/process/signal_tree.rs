//! Signals to everybody below the shim: a TERM, a KILL until nobody new is found, a pause and its end.
//! When which is sent is the attempt's business.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    fork,
    inspect::{self, Descendant, Identity},
    tree::{Known, Tree, TreeScan},
};
use crate::shim::attempt::halt::Halt;

/// How long one call looks for others at most, beyond the look that it has begun; the caller comes
/// again.
const LOOKS_FOR: Duration = Duration::from_millis(20);

/// What came of a signal to everybody.
#[derive(Debug, Default)]
pub struct SignalOutcome {
    /// Those that the kernel did not let us signal (EPERM): they have become another user's.
    pub refused: Vec<Descendant>,
    /// Whether the leader is one of them; `None` where it is not known to live.
    pub leader_refused: Option<bool>,
    /// Whether somebody alive was signalled.
    pub is_delivered: bool,
    /// Whether somebody was stopped by a signal before.
    pub any_stopped: bool,
    /// Whether some process could not be looked at or signalled, those that refused aside.
    is_incomplete: bool,
    /// Whether two looks in a row have found nobody new.
    is_quiet: bool,
    /// Whether somebody has not come to the stop that it was sent yet.
    any_runs: bool,
}

impl SignalOutcome {
    /// Whether everybody was looked at and signalled, those that refused aside.
    pub fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    /// Whether nobody new was found in the end: else it is to be called again at once.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether everybody has come to the stop that they were sent.
    pub fn is_at_rest(&self) -> bool {
        !self.any_runs
    }

    /// Takes over what became of a signal to one process; whether that is an answer.
    fn note(&mut self, process: &Descendant, sent: Result<(), Errno>) -> bool {
        match sent {
            Ok(()) => self.is_delivered = true,
            Err(Errno::EPERM) => self.refused.push(*process),
            Err(Errno::ESRCH) => return false,
            Err(_) => {
                self.is_incomplete = true;
                return false;
            }
        }
        true
    }

    /// Signals the leader's group; whether anybody has taken it.
    fn signal_group(&mut self, leader: Option<i32>, signal: i32) -> bool {
        let Some(leader) = leader else { return false };
        let is_refused = is_refused(leader);
        self.leader_refused = Some(is_refused);
        // A zombie takes it, too: only of the leader is it known to live.
        let is_taken = signal_group(Some(leader), signal).is_ok();
        self.is_delivered |= is_taken && !is_refused;
        is_taken
    }

    /// A leader that was refused at first may have changed its user meanwhile, and have got one of the
    /// signals: then it counts as reached.
    fn ask_leader_again(&mut self, leader: Option<i32>) {
        if let (Some(leader), Some(true)) = (leader, self.leader_refused)
            && !is_refused(leader)
        {
            self.leader_refused = Some(false);
            self.is_delivered = true;
        }
    }
}

/// Whether the kernel does not let us signal a child; one that has exited keeps its user.
fn is_refused(child: i32) -> bool {
    fork::kill(child, 0) == Err(Errno::EPERM)
}

/// Sends a signal to the group of a leader that has not been reaped.
pub fn signal_group(leader: Option<i32>, signal: i32) -> Result<(), Errno> {
    // ESRCH: the child has not begun its session yet, or all of them are gone.
    leader.map_or(Err(Errno::ESRCH), |leader| fork::kill(-leader, signal))
}

impl Tree {
    /// TERM to everybody: to the leader's group at once, to everybody else one by one. `leader` lives
    /// and has not been reaped.
    pub fn terminate(&self, leader: Option<i32>) -> SignalOutcome {
        let mut outcome = SignalOutcome::default();
        let is_taken = outcome.signal_group(leader, libc::SIGTERM);
        let scan = self.visit_all(&mut Known::default(), |process, handle| {
            let has_got_it = is_taken && Some(process.stat.group) == leader;
            let sent = handle.send(if has_got_it { 0 } else { libc::SIGTERM });
            outcome.any_stopped |= process.is_stopped();
            outcome.note(process, sent);
        });
        outcome.is_incomplete |= !scan.is_complete();
        outcome.ask_leader_again(leader);
        outcome
    }

    /// CONT to everybody.
    pub fn send_continue(&self, leader: Option<i32>) {
        // Whoever cannot be reached is killed in the end.
        let _ = signal_group(leader, libc::SIGCONT);
        self.visit_all(&mut Known::default(), |process, handle| {
            if Some(process.stat.group) != leader {
                let _ = handle.send(libc::SIGCONT);
            }
        });
    }

    /// KILL to everybody, again and again until nobody new is found. `lives` tells whether the leader
    /// of the `group` does: one that has exited is there as well, until it is reaped.
    pub fn kill(&self, group: Option<i32>, lives: bool) -> SignalOutcome {
        let mut outcome = SignalOutcome::default();
        let mut met = HashSet::new();
        outcome.signal_group(group.filter(|_| lives), libc::SIGKILL);
        let known = &mut Known::default();
        let mut outcome =
            self.until_quiet(outcome, known, libc::SIGKILL, |tree, known, outcome| {
                let before = met.len();
                let scan = tree.visit_all(known, |process, handle| {
                    let is_new = !met.contains(&process.identity());
                    if is_new && outcome.note(process, handle.send(libc::SIGKILL)) {
                        met.insert(process.identity());
                    }
                });
                // A process that forks is hit together with its children.
                let _ = signal_group(group, libc::SIGKILL);
                (scan, met.len() > before)
            });
        outcome.ask_leader_again(group);
        outcome
    }

    /// Stops everybody who does not stand still, again and again until nobody new is found.
    pub fn halt(&self, leader: Option<i32>, halt: &mut Halt) -> SignalOutcome {
        if !halt.has_begun() {
            self.begin_halt(leader, halt);
        }
        let mut refused: HashSet<Identity> = HashSet::new();
        let (mut known, outcome) = (halt.take_known(), SignalOutcome::default());
        let outcome = self.until_quiet(
            outcome,
            &mut known,
            libc::SIGSTOP,
            |tree, known, outcome| {
                outcome.any_runs = false;
                let scan = tree.visit_all(known, |process, handle| {
                    outcome.any_runs |= !inspect::has_come_to_rest(process);
                    let runs = halt.observe(process, process.is_stopped());
                    if !runs || refused.contains(&process.identity()) {
                        return;
                    }
                    let sent = handle.send(libc::SIGSTOP);
                    if outcome.note(process, sent) {
                        match sent {
                            Ok(()) => halt.has_stopped(process),
                            Err(_) => _ = refused.insert(process.identity()),
                        }
                    }
                });
                if outcome.is_incomplete || !scan.is_complete() {
                    halt.has_stopped_blindly();
                }
                let any_new = halt.update_seen(&scan.found) || scan.any_gone;
                // Whoever runs may be in the middle of a fork: who is new is known after that.
                let is_loud = any_new || outcome.any_runs;
                (scan, is_loud)
            },
        );
        halt.put_known(known);
        outcome
    }

    /// Whoever stands still already is remembered; then the leader's group is stopped, all of it in
    /// one moment.
    fn begin_halt(&self, leader: Option<i32>, halt: &mut Halt) {
        for process in self.scan().found {
            if process.is_alive() && process.is_stopped() {
                halt.observe(&process, true);
            }
        }
        let stopped = signal_group(leader, libc::SIGSTOP);
        halt.begin(leader.filter(|_| stopped.is_ok()));
    }

    /// Lets those go on that a pause has stopped, children before their parents: a parent that looks
    /// after its children sees none of them stopped. Whether all of them were reached.
    pub fn continue_stopped(&self, halt: &mut Halt) -> bool {
        let mut known = halt.take_known();
        let scan = self.visit_all(&mut known, |_, _| {});
        for process in scan.found.iter().rev() {
            if !process.is_alive() || !halt.must_continue(process) {
                continue;
            }
            if let Ok(Some((now, handle))) = self.visit(process.pid, false, &mut known)
                && now.identity() == process.identity()
                && matches!(handle.send(libc::SIGCONT), Ok(()) | Err(Errno::EPERM))
            {
                halt.has_continued(process);
            }
        }
        halt.put_known(known);
        halt.forget_unless(is_alive);
        scan.is_complete() && !halt.has_stopped_processes()
    }

    /// Looks again and again until two looks in a row find nobody new: the kernel's list of children
    /// may miss one while another exits. A look tells what it has seen, and whether anybody was new.
    fn until_quiet(
        &self,
        mut outcome: SignalOutcome,
        known: &mut Known,
        signal: i32,
        mut inspect: impl FnMut(&Self, &mut Known, &mut SignalOutcome) -> (TreeScan, bool),
    ) -> SignalOutcome {
        let (begun, mut quiet_looks) = (Instant::now(), 0);
        // Where one look takes that long already, the second one after a quiet one is taken all the same.
        while quiet_looks < 2 && (quiet_looks == 1 || begun.elapsed() < LOOKS_FOR) {
            outcome.is_incomplete = false;
            let (scan, any_new) = inspect(self, known, &mut outcome);
            outcome.is_incomplete |= !scan.is_complete();
            if outcome.is_incomplete {
                self.signal_children(signal);
            }
            quiet_looks = if any_new { 0 } else { quiet_looks + 1 };
        }
        outcome.is_quiet = quiet_looks == 2;
        outcome
    }

    /// Where there is no descriptor to look at anybody, direct children can be signalled by number:
    /// it stays theirs until we reap them. What a killed one leaves is given to us, so that the next
    /// look finds it here.
    fn signal_children(&self, signal: i32) {
        for pid in self.children().unwrap_or_default() {
            // A zombie does not mind, and whoever may not be signalled is met by the next look.
            let _ = fork::kill(pid, signal);
        }
    }
}

/// Whether a process that was seen is still there. One that cannot be looked at may be.
fn is_alive((pid, start_ticks): Identity) -> bool {
    match inspect::process(pid) {
        Ok(Some(now)) => now.stat.start_ticks == start_ticks && now.is_alive(),
        Ok(None) => false,
        Err(_) => true,
    }
}
