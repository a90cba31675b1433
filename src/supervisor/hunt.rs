//! Finds and ends what is left of a process tree whose shim is dead.
//!
//! A process is ours if its environment carries the job's mark, or if its session is the leader's
//! and the leader is there and is the process that the ledger names (same start time, same boot). It
//! is ended through a pidfd that was opened before the check, so that no recycled number is ever hit.
//! What carries the mark of another data directory with the same job, such as the one that this is a
//! backup of, is none of our business. Where a look fails, nobody can know what is left, and that is
//! what is told.

use std::os::fd::OwnedFd;

use rustix::process::{Signal, pidfd_send_signal};

use super::{
    looked::Looked,
    process::{self, Environment, Stat},
    spec::{INSTANCE_VARIABLE, JOB_ID_VARIABLE},
};
use crate::job::{JobId, Survivor};

/// How many rounds are made: each ends everything that is found, and one that forks in a loop can
/// be ahead by one generation a round.
const ROUNDS_MAX: u32 = 200;

/// How many rounds of one call find nobody and cannot look everywhere: about a second's worth.
const BLIND_ROUNDS_MAX: u32 = 40;

/// Between two rounds, so that the kernel can take the dead away.
const ROUND_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

/// What the environment of a job's processes carries.
#[derive(Debug, Clone)]
pub struct Mark {
    job: String,
    instance: String,
}

/// Whose a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Ours,
    /// The job's, of a data directory that it does not name: a version that had only half of the
    /// mark has started it.
    Unsaid,
    Others,
    /// Nobody can say; why.
    Unknown(String),
}

impl Mark {
    /// The mark of a job's processes in the data directory of that instance.
    pub fn new(job: JobId, instance: &str) -> Self {
        Self {
            job: format!("{JOB_ID_VARIABLE}={job}"),
            instance: format!("{INSTANCE_VARIABLE}={instance}"),
        }
    }

    fn whose(&self, env: &[u8]) -> Whose {
        let mut variables = env.split(|byte| *byte == 0);
        let has = |whole: &str| env.split(|byte| *byte == 0).any(|v| v == whole.as_bytes());
        if !has(&self.job) {
            Whose::Others
        } else if has(&self.instance) {
            Whose::Ours
        } else if variables.any(|v| v.starts_with(INSTANCE_VARIABLE.as_bytes())) {
            Whose::Others
        } else {
            Whose::Unsaid
        }
    }
}

/// The leader as the ledger names it.
#[derive(Debug, Clone, Copy)]
pub struct Leader {
    /// Its process id, also its session.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// A leader that is still there, and with it the proof whose session it leads: no other process can
/// get its number before it is gone. So it goes last.
struct Living {
    leader: Leader,
    process: OwnedFd,
}

impl Living {
    fn find(leader: Leader) -> Looked<Self> {
        // The descriptor first, the check second: what it names cannot change any more.
        let process = match process::open(leader.pid) {
            Looked::There(process) => process,
            Looked::Gone => return Looked::Gone,
            Looked::Unknown(why) => return Looked::Unknown(why),
        };
        match is_there(leader) {
            Looked::There(()) => Looked::There(Self { leader, process }),
            Looked::Gone => Looked::Gone,
            Looked::Unknown(why) => Looked::Unknown(why),
        }
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: it is gone. Whatever else is seen by the next round, which finds it again.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

/// Whether the process with the leader's number is the leader.
fn is_there(leader: Leader) -> Looked {
    match Stat::read(leader.pid) {
        Looked::There(stat) if stat.start_ticks == leader.start_ticks => Looked::There(()),
        Looked::There(_) | Looked::Gone => Looked::Gone,
        Looked::Unknown(why) => Looked::Unknown(why),
    }
}

/// What is left of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Processes that could not be proven gone.
    pub survivors: Vec<Survivor>,
    /// Why there may be others, where somebody could not be looked at.
    pub unknown: Option<String>,
}

impl Remains {
    /// Takes over what a look has found, or why it could not.
    fn add(&mut self, found: Looked<Survivor>) {
        match found {
            Looked::There(survivor) => self.survivors.push(survivor),
            Looked::Gone => {}
            Looked::Unknown(why) => self.unknown = Some(why),
        }
    }

    /// Takes over all that was found by looking at each process.
    fn add_all(&mut self, look: impl Fn(i32) -> Looked<Survivor>) {
        match process::pids() {
            Ok(pids) => pids.into_iter().for_each(|pid| self.add(look(pid))),
            Err(error) => self.unknown = Some(format!("/proc cannot be read: {error}")),
        }
    }

    fn names(&self, pid: i32) -> bool {
        self.survivors.iter().any(|survivor| survivor.pid == pid)
    }
}

/// Ends every process of the job that can be found; those that could not be proven gone are
/// returned. Where something could not be looked at the leader is only stopped, so that another try
/// still has the proof that it is; unless this is the `last` one. Blocking.
pub fn end_remains(mark: &Mark, leader: Option<Leader>, last: bool) -> Remains {
    let (mut living, unseen) = match leader.map(Living::find) {
        Some(Looked::There(living)) => (Some(living), None),
        Some(Looked::Unknown(why)) => (None, Some(why)),
        Some(Looked::Gone) | None => (None, None),
    };
    if let Some(living) = &living {
        // It is to start nothing more while the others go.
        living.signal(Signal::STOP);
    }
    let mut left = Remains::default();
    let mut blind = 0;
    for _ in 0..ROUNDS_MAX {
        left = kill_all(mark, leader, living.as_ref());
        if left.survivors.is_empty() {
            if left.unknown.is_some() {
                blind += 1;
                // The caller tries again later, when a shortage may be over.
                if blind == BLIND_ROUNDS_MAX {
                    break;
                }
                pause();
                continue;
            }
            match living.take() {
                Some(living) => living.signal(Signal::KILL),
                None => break,
            }
        }
        pause();
    }
    if let Some(living) = living
        && (last || left.unknown.is_none())
    {
        living.signal(Signal::KILL);
    }
    left.unknown = left.unknown.or(unseen);
    left.add_suspects(leader);
    left.add_half_marked(mark, leader);
    left
}

fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "nobody tells when a stranger's process is gone"
    )]
    std::thread::sleep(ROUND_EVERY);
}

impl Remains {
    /// Names processes of the job that may be another data directory's; they are not touched.
    fn add_half_marked(&mut self, mark: &Mark, leader: Option<Leader>) {
        let mut others = Self::default();
        others.add_all(|pid| match Stat::read(pid) {
            Looked::There(stat) if stat.is_dead => Looked::Gone,
            Looked::There(stat) => match whose(pid, &stat, mark, leader) {
                Whose::Unsaid => survivor(pid, stat),
                Whose::Ours | Whose::Others => Looked::Gone,
                Whose::Unknown(why) => Looked::Unknown(why),
            },
            Looked::Gone => Looked::Gone,
            Looked::Unknown(why) => Looked::Unknown(why),
        });
        self.merge(others);
    }

    /// Names processes in a session with the leader's number whose leader is gone: most likely ours,
    /// but a stranger can have come by that number, so they are not touched. Where somebody else has
    /// the number, they are his.
    fn add_suspects(&mut self, leader: Option<Leader>) {
        let Some(leader) = leader else {
            return;
        };
        let since = leader.start_ticks;
        if let Looked::There(stat) = Stat::read(leader.pid)
            && stat.start_ticks != since
        {
            return;
        }
        let mut others = Self::default();
        others.add_all(|pid| match Stat::read(pid) {
            Looked::There(stat) => {
                match stat.session == leader.pid && stat.start_ticks >= since && !stat.is_dead {
                    true => survivor(pid, stat),
                    false => Looked::Gone,
                }
            }
            Looked::Gone => Looked::Gone,
            Looked::Unknown(why) => Looked::Unknown(why),
        });
        self.merge(others);
    }

    fn merge(&mut self, others: Self) {
        for survivor in others.survivors {
            if !self.names(survivor.pid) {
                self.survivors.push(survivor);
            }
        }
        self.unknown = self.unknown.take().or(others.unknown);
    }
}

fn survivor(pid: i32, stat: Stat) -> Looked<Survivor> {
    let comm = stat.comm;
    Looked::There(Survivor { pid, comm })
}

/// One round: kills what is found, but for the leader, and returns it.
fn kill_all(mark: &Mark, leader: Option<Leader>, living: Option<&Living>) -> Remains {
    let last = living.map(|living| living.leader.pid);
    let mut left = Remains::default();
    left.add_all(|pid| match Some(pid) == last {
        true => Looked::Gone,
        false => kill_if_ours(pid, mark, leader, living),
    });
    left
}

fn kill_if_ours(
    pid: i32,
    mark: &Mark,
    leader: Option<Leader>,
    living: Option<&Living>,
) -> Looked<Survivor> {
    // Here as well the descriptor comes first.
    let fd = match process::open(pid) {
        Looked::There(fd) => fd,
        Looked::Gone => return Looked::Gone,
        Looked::Unknown(why) => return Looked::Unknown(why),
    };
    let stat = match Stat::read(pid) {
        Looked::There(stat) if stat.is_dead => return Looked::Gone,
        Looked::There(stat) => stat,
        Looked::Gone => return Looked::Gone,
        Looked::Unknown(why) => return Looked::Unknown(why),
    };
    let ours = match living.filter(|living| living.leader.pid == stat.session) {
        // Its session was read before.
        Some(living) => is_there(living.leader),
        None => Looked::Gone,
    };
    match (ours, whose(pid, &stat, mark, leader)) {
        (Looked::There(()), _) | (_, Whose::Ours) => {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
            survivor(pid, stat)
        }
        (Looked::Unknown(why), _) | (_, Whose::Unknown(why)) => Looked::Unknown(why),
        (Looked::Gone, Whose::Unsaid | Whose::Others) => Looked::Gone,
    }
}

/// Whose a process is by its environment; where that is hidden, by what else is known of it.
fn whose(pid: i32, stat: &Stat, mark: &Mark, leader: Option<Leader>) -> Whose {
    match process::environment(pid) {
        Looked::There(Environment::Is(env)) => mark.whose(&env),
        Looked::There(Environment::Hidden) => whose_is_hidden(pid, stat, mark, leader),
        Looked::Gone => Whose::Others,
        Looked::Unknown(why) => Whose::Unknown(why),
    }
}

/// A process that hides its environment from us: most are other users', and the job's can only be
/// among them where it has changed its user or made itself unreadable. It is not ours if it was
/// there before the leader; if no user id of it is ours; or if its parent was started after the
/// leader and is not ours: orphans are given to processes that were there before the shim. Without a
/// leader nothing of the job was ever executed that could hide: a child writes down that it is the
/// leader before it executes anything.
fn whose_is_hidden(pid: i32, stat: &Stat, mark: &Mark, leader: Option<Leader>) -> Whose {
    let Some(Leader { start_ticks, .. }) = leader else {
        return Whose::Others;
    };
    if stat.start_ticks < start_ticks {
        return Whose::Others;
    }
    match process::is_of_our_user(pid) {
        Looked::There(true) => {}
        Looked::There(false) | Looked::Gone => return Whose::Others,
        Looked::Unknown(why) => return Whose::Unknown(why),
    }
    if let Looked::There(parent) = Stat::read(stat.parent)
        && parent.start_ticks > start_ticks
        && let Looked::There(Environment::Is(env)) = process::environment(stat.parent)
        && mark.whose(&env) == Whose::Others
    {
        return Whose::Others;
    }
    let comm = &stat.comm;
    Whose::Unknown(format!("process {pid} ({comm}) hides its environment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_process_is_ended_and_no_other() {
        let id = JobId(uuid::Uuid::now_v7());
        let sleep = |job: &str, instance: Option<&str>| {
            let mut sleep = std::process::Command::new("sleep");
            sleep.arg("1000").env(JOB_ID_VARIABLE, job);
            if let Some(instance) = instance {
                sleep.env(INSTANCE_VARIABLE, instance);
            }
            sleep.spawn().expect("sleep")
        };
        let job = id.to_string();
        let mut ours = sleep(&job, Some("here"));
        let unsaid = sleep(&job, None);
        let others = [sleep("0", Some("here")), sleep(&job, Some("elsewhere"))];
        // Reaped at once, as its shim's parent would.
        let reaper = std::thread::spawn(move || ours.wait().expect("wait"));
        let left = end_remains(&Mark::new(id, "here"), None, true);
        assert!(!reaper.join().expect("join").success());
        assert_eq!(left.unknown, None);
        let named: Vec<i32> = left.survivors.iter().map(|survivor| survivor.pid).collect();
        assert_eq!(named, [unsaid.id() as i32]);
        for mut other in others.into_iter().chain([unsaid]) {
            assert!(other.try_wait().expect("wait").is_none());
            other.kill().expect("kill");
            other.wait().expect("wait");
        }
    }
}
