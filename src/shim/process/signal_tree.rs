//! Signals to every process below the shim: TERM, KILL until no new process is found, a pause and
//! its end. `attempt::stop` and `attempt::pause` decide when each is sent.

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

/// How long one call repeats its scan, not counting the last scan that it has begun; the caller
/// calls again.
const LOOKS_FOR: Duration = Duration::from_millis(20);

/// How long after its begin a pause waits for processes in an uninterruptible wait. Most wait for a lock
/// within a fork, which took up to 0.8 s where hundreds forked at once on two busy processors. A disk or
/// a vfork may take for ever, and the job counts as paused meanwhile: a child that appears later is
/// stopped when it is found.
pub const WAITS_END_WITHIN: Duration = Duration::from_secs(3);

/// Result of a signal to every process.
#[derive(Debug, Default)]
pub struct SignalOutcome {
    /// Processes that the kernel did not let us signal (EPERM): they have become another user's.
    pub refused: Vec<Descendant>,
    /// Whether the leader is one of them; `None` where the leader is not known to live.
    pub leader_refused: Option<bool>,
    /// Whether a living process was signalled.
    pub is_delivered: bool,
    /// Whether a process was stopped by a signal before.
    pub any_stopped: bool,
    /// Whether a process could not be looked at or signalled, the refused ones not counted.
    is_incomplete: bool,
    /// Whether two scans in a row have found no new process.
    is_quiet: bool,
    /// Whether a process has not stopped yet after the SIGSTOP that it was sent.
    any_runs: bool,
}

impl SignalOutcome {
    /// Whether every process was looked at and signalled, the refused ones not counted.
    pub fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    /// These processes were killed with their control group, whoever they belong to.
    pub fn has_reached(&mut self, members: &HashSet<i32>, leader: Option<i32>) {
        if members.is_empty() {
            return;
        }
        self.is_delivered = true;
        self.refused
            .retain(|process| !members.contains(&process.pid));
        if leader.is_some_and(|leader| members.contains(&leader)) {
            self.leader_refused = Some(false);
        }
    }

    /// Whether no new process was found in the end: otherwise the caller must call again at once.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether every process has stopped after its SIGSTOP.
    pub fn is_at_rest(&self) -> bool {
        !self.any_runs
    }

    /// Records the result of a signal to one process; returns whether the kernel has answered for
    /// it.
    fn record_result(&mut self, process: &Descendant, sent: Result<(), Errno>) -> bool {
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

    /// Signals the leader's group; returns whether a process has received the signal.
    fn signal_group(&mut self, leader: Option<i32>, signal: i32) -> bool {
        let Some(leader) = leader else { return false };
        let is_refused = is_refused(leader);
        self.leader_refused = Some(is_refused);
        // kill(2) succeeds for a group of zombies, too: only the leader is known to live.
        let is_taken = signal_group(Some(leader), signal).is_ok();
        self.is_delivered |= is_taken && !is_refused;
        is_taken
    }

    /// A leader that was refused at first may have changed its user since, and have received one of
    /// the signals: then it counts as reached, and so do those of the others that are not refused any
    /// more. Those that still are, are named; so is a leader that has exited since it was refused.
    fn recheck_leader(&mut self, leader: Option<i32>) {
        let (Some(leader), Some(true)) = (leader, self.leader_refused) else {
            return;
        };
        if !is_refused(leader) {
            self.leader_refused = Some(false);
            self.is_delivered = true;
            self.refused.retain(|process| is_refused(process.pid));
        } else if self.refused.iter().all(|process| process.pid != leader)
            && let Ok(Some(exited)) = inspect::process(leader)
        {
            self.refused.insert(0, exited);
        }
    }
}

/// Whether the kernel does not let us signal a process; a child that has exited keeps its user.
fn is_refused(process: i32) -> bool {
    fork::kill(process, 0) == Err(Errno::EPERM)
}

/// Sends a signal to the group of a leader that has not been reaped.
pub fn signal_group(leader: Option<i32>, signal: i32) -> Result<(), Errno> {
    // ESRCH: the child has not begun its session yet, or all of them are gone.
    leader.map_or(Err(Errno::ESRCH), |leader| fork::kill(-leader, signal))
}

impl Tree {
    /// TERM to every process: to the leader's group at once, to the others one by one. `leader`
    /// lives and has not been reaped.
    pub fn terminate(&self, leader: Option<i32>) -> SignalOutcome {
        let mut outcome = SignalOutcome::default();
        let is_taken = outcome.signal_group(leader, libc::SIGTERM);
        let scan = self.visit_all(&mut Known::default(), |process, handle| {
            let has_got_it = is_taken && Some(process.stat.group) == leader;
            let sent = handle.send(if has_got_it { 0 } else { libc::SIGTERM });
            outcome.any_stopped |= process.is_stopped();
            outcome.record_result(process, sent);
        });
        outcome.is_incomplete |= !scan.is_complete();
        outcome.recheck_leader(leader);
        outcome
    }

    /// CONT to every process.
    pub fn send_continue(&self, leader: Option<i32>) {
        // A process that cannot be reached is killed in the end.
        let _ = signal_group(leader, libc::SIGCONT);
        self.visit_all(&mut Known::default(), |process, handle| {
            if Some(process.stat.group) != leader {
                let _ = handle.send(libc::SIGCONT);
            }
        });
    }

    /// KILL to every process, repeated until no new process is found. `lives` says whether the
    /// leader of the `group` does: after its exit its id stays valid until it is reaped.
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
                    if is_new && outcome.record_result(process, handle.send(libc::SIGKILL)) {
                        met.insert(process.identity());
                    }
                });
                // The group signal reaches a process that forks together with its children.
                let _ = signal_group(group, libc::SIGKILL);
                (scan, met.len() > before)
            });
        outcome.recheck_leader(group);
        outcome
    }

    /// Stops every process that is not stopped, repeated until no new process is found; the `frozen` ones are left as
    /// they are.
    pub fn halt(
        &self,
        leader: Option<i32>,
        frozen: &HashSet<i32>,
        halt: &mut Halt,
    ) -> SignalOutcome {
        if !halt.has_begun() {
            self.begin_halt(leader.filter(|leader| !frozen.contains(leader)), halt);
        }
        let mut refused: HashSet<Identity> = HashSet::new();
        let (mut known, outcome) = (halt.take_known(), SignalOutcome::default());
        let outcome = self.until_quiet(
            outcome,
            &mut known,
            libc::SIGSTOP,
            |tree, known, outcome| {
                outcome.any_runs = false;
                let waits_count = halt.age() >= WAITS_END_WITHIN;
                let scan = tree.visit_all(known, |process, handle| {
                    if frozen.contains(&process.pid) {
                        return;
                    }
                    outcome.any_runs |= !inspect::has_come_to_rest(process, waits_count);
                    let runs = halt.observe(process, process.is_stopped());
                    if !runs || refused.contains(&process.identity()) {
                        return;
                    }
                    let sent = handle.send(libc::SIGSTOP);
                    if outcome.record_result(process, sent) {
                        match sent {
                            Ok(()) => halt.has_stopped(process),
                            Err(_) => _ = refused.insert(process.identity()),
                        }
                    }
                });
                if outcome.is_incomplete || !scan.is_complete() {
                    halt.has_stopped_unseen();
                }
                let any_new = halt.update_seen(&scan.found) || scan.any_gone;
                // A running process may be in the middle of a fork: only a scan after it has
                // stopped shows its child.
                let is_loud = any_new || outcome.any_runs;
                (scan, is_loud)
            },
        );
        halt.put_known(known);
        outcome
    }

    /// Remembers which processes are stopped already; then stops the leader's group, all of it in
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

    /// Continues the processes that a pause has stopped, children before their parents: a parent
    /// that watches its children sees none of them stopped. Returns whether all of them were
    /// reached.
    pub fn continue_stopped(&self, halt: &mut Halt) -> bool {
        let mut known = halt.take_known();
        // A fork that ended since the last scan has left a child that stands still by the group's signal.
        let scan = self.visit_all(&mut known, |process, _| {
            halt.observe(process, process.is_stopped());
        });
        halt.end_group();
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

    /// Repeats `look` until two scans in a row find no new process: the kernel's list of children
    /// may miss one while another exits. `look` returns its scan, and whether it found a new
    /// process.
    fn until_quiet(
        &self,
        mut outcome: SignalOutcome,
        known: &mut Known,
        signal: i32,
        mut inspect: impl FnMut(&Self, &mut Known, &mut SignalOutcome) -> (TreeScan, bool),
    ) -> SignalOutcome {
        let (begun, mut quiet_looks) = (Instant::now(), 0);
        // Where one scan takes that long already, the second scan after a quiet one is made all the
        // same.
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

    /// Where no descriptor is left to look at processes, direct children can still be signalled by
    /// number: it stays theirs until we reap them. The children of a killed one become ours, so
    /// that the next scan finds them here.
    fn signal_children(&self, signal: i32) {
        for pid in self.children().unwrap_or_default() {
            // A zombie ignores it, and a process that may not be signalled is reported by the next
            // scan.
            let _ = fork::kill(pid, signal);
        }
    }
}

/// Whether a process that was seen still exists. One that cannot be looked at may exist.
fn is_alive((pid, start_ticks): Identity) -> bool {
    match inspect::process(pid) {
        Ok(Some(now)) => now.stat.start_ticks == start_ticks && now.is_alive(),
        Ok(None) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_is_not_refused_any_more_is_not_named_once_the_leader_is_reached() {
        let mut leader = Command::new("sleep").arg("1000").spawn().expect("spawned");
        let pid = leader.id() as i32;
        let mut outcome = SignalOutcome {
            refused: vec![Descendant::sample(pid, pid)],
            leader_refused: Some(true),
            ..SignalOutcome::default()
        };
        outcome.recheck_leader(Some(pid));
        assert_eq!(outcome.leader_refused, Some(false));
        assert!(
            outcome.is_delivered && outcome.refused.is_empty(),
            "{outcome:?}"
        );
        leader.kill().expect("killed");
        leader.wait().expect("reaped");
    }
}
