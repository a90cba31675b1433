//! The search for one tree: ends every process that belongs to it, until no new one has appeared
//! for a while.
//!
//! A process is ended through a pidfd that was opened before the check, so that a recycled process
//! id is never hit. A chain of processes that fork and exit can be missed between two looks: one
//! empty look proves nothing. `process_scan` looks at all processes.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::{
    Leader, OrphanTree,
    kill::{HeldLeader, kill_process},
    mark::{Mark, SeenProcess, Whose},
    search_progress::{ScanResult, SearchProgress, SearchStep},
};
use crate::{
    job::Survivor,
    supervisor::{looked::Looked, process},
};

/// Most survivors that are named.
const NAMED_MAX: usize = 1000;

/// One tree that is searched for.
pub(super) struct TreeSearch {
    mark: Mark,
    leader: Option<Leader>,
    /// The leader, if it lives.
    living: Looked<HeldLeader>,
    /// The processes that were met: process id and start time.
    met: HashSet<(i32, u64)>,
    round: Round,
    progress: SearchProgress,
}

/// What one look at all processes has found.
#[derive(Default)]
struct Round {
    /// The job's processes. Each was killed, and may still be there.
    found: Vec<Survivor>,
    /// Perhaps the job's; not signalled.
    suspects: Vec<Survivor>,
    /// Why a process could not be looked at.
    unknown: Option<String>,
    /// A process was met for the first time.
    has_news: bool,
    /// Another process has the leader's process id, so what is in its session is not the job's.
    is_number_taken: bool,
}

impl TreeSearch {
    /// Begins to search for what carries the mark. A living leader is stopped, so that it starts
    /// nothing more, and is killed last: as long as it is there, no other session can have its id.
    pub fn begin(mark: Mark, leader: Option<Leader>, now: Instant) -> Self {
        Self {
            living: leader.map_or(Looked::Gone, HeldLeader::stop),
            mark,
            leader,
            met: HashSet::new(),
            round: Round::default(),
            progress: SearchProgress::new(now),
        }
    }

    /// Before a look: tries again to find a leader that could not be looked at.
    pub fn prepare(&mut self) {
        if let (Looked::Unknown(_), Some(leader)) = (&self.living, self.leader) {
            self.living = HeldLeader::stop(leader);
        }
    }

    /// Takes one process of a look, and ends it if it is the job's.
    pub fn meet(&mut self, seen: &Looked<SeenProcess>) {
        match seen {
            Looked::There(seen) if !self.leads(seen.pid) => self.judge(seen),
            Looked::There(_) | Looked::Gone => {}
            Looked::Unknown(why) => self.round.unknown = Some(why.clone()),
        }
    }

    fn leads(&self, pid: i32) -> bool {
        matches!(&self.living, Looked::There(living) if living.leader.pid == pid)
    }

    fn judge(&mut self, seen: &SeenProcess) {
        match self.whose(seen) {
            Whose::Ours => self.end(seen),
            Whose::Unsaid => self.round.suspects.push(named(seen)),
            Whose::Others => self.suspect(seen),
            Whose::Unknown(why) => self.round.unknown = Some(why),
        }
    }

    /// The job's are the processes in the session of the living leader, and those with the mark.
    fn whose(&self, seen: &SeenProcess) -> Whose {
        let led = match &self.living {
            // The session was read before this check: the leader was there then.
            Looked::There(living) if living.leader.pid == seen.stat.session => living.is_there(),
            _ => Looked::Gone,
        };
        match (led, self.mark.whose(seen, self.leader)) {
            (Looked::There(()), _) | (_, Whose::Ours) => Whose::Ours,
            (Looked::Unknown(why), _) => Whose::Unknown(why),
            (Looked::Gone, whose) => whose,
        }
    }

    /// A process in the session of a leader that is gone is most likely the job's, but the id may
    /// have been used again for a session of another job or user.
    fn suspect(&mut self, seen: &SeenProcess) {
        let Some(Leader { pid, start_ticks }) = self.leader else {
            return;
        };
        if seen.pid == pid && seen.stat.start_ticks != start_ticks {
            self.round.is_number_taken = true;
        } else if seen.stat.session == pid && seen.stat.start_ticks >= start_ticks {
            self.round.suspects.push(named(seen));
        }
    }

    fn end(&mut self, seen: &SeenProcess) {
        let identity = (seen.pid, seen.stat.start_ticks);
        self.round.has_news |= self.met.insert(identity);
        // The descriptor first, the check second: what it names cannot change any more.
        let process = match process::open(seen.pid) {
            Looked::There(process) => process,
            Looked::Gone => return,
            Looked::Unknown(why) => {
                self.round.unknown = Some(why);
                return;
            }
        };
        match SeenProcess::look(seen.pid) {
            Looked::There(again) if again.stat.start_ticks == identity.1 => {
                if self.whose(&again) == Whose::Ours {
                    let group = self.may_end_group(&again).then_some(again.stat.group);
                    kill_process(&process, &again, group);
                    self.round.found.push(named(&again));
                }
            }
            Looked::There(_) | Looked::Gone => {}
            Looked::Unknown(why) => self.round.unknown = Some(why),
        }
    }

    /// Whether a process's group belongs to the job as a whole. A group is part of a session, and
    /// all processes of a session come from its leader: so it does if that leader is the job's. If
    /// that leader is gone, a variable proves nothing about the others, because it may have been
    /// copied; the number does. The group of the job's living leader is not signalled: the leader
    /// goes last.
    fn may_end_group(&self, seen: &SeenProcess) -> bool {
        if self.leads(seen.stat.group) {
            return false;
        }
        match SeenProcess::look(seen.stat.session) {
            Looked::There(head) => self.whose(&head) == Whose::Ours,
            Looked::Gone => self.mark.is_number_of(seen),
            Looked::Unknown(_) => false,
        }
    }

    /// How long the next look may wait.
    pub fn pause(&self) -> Duration {
        self.progress.pause()
    }

    /// After a look at all processes: what is left, if the search is over. `has_missed`: a new
    /// process was gone before it could be looked at.
    pub fn conclude(&mut self, has_missed: bool, now: Instant) -> Option<OrphanTree> {
        let mut round = std::mem::take(&mut self.round);
        if let Looked::Unknown(why) = &self.living {
            round.unknown.get_or_insert_with(|| why.clone());
        }
        let step = self.progress.judge(round.result(has_missed), now);
        if step == SearchStep::Again {
            return None;
        }
        if let Looked::There(living) = std::mem::replace(&mut self.living, Looked::Gone) {
            living.kill();
            if step == SearchStep::Gone {
                // The next looks search for it like for the others.
                self.progress.note_news(now);
                return None;
            }
        }
        if step == SearchStep::Moving {
            let moving = || {
                "processes start and end faster than they can be looked at; some may be its own"
                    .to_owned()
            };
            round.unknown.get_or_insert_with(moving);
        }
        Some(round.into_remains())
    }
}

impl Round {
    fn result(&self, has_missed: bool) -> ScanResult {
        ScanResult {
            has_missed,
            has_news: self.has_news,
            is_found: !self.found.is_empty(),
            is_blind: self.unknown.is_some(),
        }
    }

    fn into_remains(self) -> OrphanTree {
        let mut survivors = self.found;
        if !self.is_number_taken {
            survivors.extend(self.suspects);
        }
        survivors.truncate(NAMED_MAX);
        OrphanTree {
            survivors,
            unknown: self.unknown,
        }
    }
}

fn named(seen: &SeenProcess) -> Survivor {
    Survivor {
        pid: seen.pid,
        comm: seen.comm.clone(),
    }
}
