//! Finds and ends what is left of a process tree whose shim is dead.
//!
//! A process is ours if its environment carries the job's mark, or if its session is the leader's
//! and the leader is there and is the process that the ledger names (same start time, same boot). It
//! is ended through a pidfd that was opened before the check, so that no recycled number is ever hit.
//! What carries the mark of another data directory with the same job, such as the one that this is a
//! backup of, is none of our business.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::spec::{INSTANCE_VARIABLE, JOB_ID_VARIABLE};
use crate::job::{JobId, Survivor};

/// How many rounds are made: each ends everything that is found, and one that forks in a loop can
/// be ahead by one generation a round.
const ROUNDS_MAX: u32 = 200;

/// Between two rounds, so that the kernel can take the dead away.
const ROUND_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

/// What the environment of a job's processes carries.
#[derive(Debug, Clone)]
pub struct Mark {
    job: String,
    instance: String,
}

/// Whose a process is by its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// The job's, of a data directory that it does not name: a version that had only half of the
    /// mark has started it.
    Unsaid,
    Others,
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

    fn whose_is(&self, pid: i32) -> Whose {
        match fs::read(format!("/proc/{pid}/environ")) {
            Ok(env) => self.whose(&env),
            Err(_) => Whose::Others,
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
    fn find(leader: Leader) -> Option<Self> {
        // The descriptor first, the check second: what it names cannot change any more.
        let process = pidfd_open(Pid::from_raw(leader.pid)?, PidfdFlags::empty()).ok()?;
        let living = Self { leader, process };
        living.is_there().then_some(living)
    }

    fn is_there(&self) -> bool {
        start_ticks(self.leader.pid) == Some(self.leader.start_ticks)
    }

    /// Whether a process with this `stat`, which was read before, is in the leader's session.
    fn leads(&self, stat: &Stat) -> bool {
        stat.session == self.leader.pid && self.is_there()
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: it is gone.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

/// Ends every process of the job that can be found; those that could not be proven gone are
/// returned. Blocking.
pub fn end_remains(mark: &Mark, leader: Option<Leader>) -> Vec<Survivor> {
    let mut living = leader.and_then(Living::find);
    if let Some(living) = &living {
        // It is to start nothing more while the others go.
        living.signal(Signal::STOP);
    }
    let mut left = Vec::new();
    for _ in 0..ROUNDS_MAX {
        left = kill_all(mark, living.as_ref());
        if left.is_empty() {
            match living.take() {
                Some(living) => living.signal(Signal::KILL),
                None => break,
            }
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nobody tells when a stranger's process is gone"
        )]
        std::thread::sleep(ROUND_EVERY);
    }
    if let Some(living) = living {
        living.signal(Signal::KILL);
    }
    left.extend(leader.into_iter().flat_map(suspects));
    let named: Vec<i32> = left.iter().map(|survivor| survivor.pid).collect();
    left.extend(half_marked(mark).filter(|survivor| !named.contains(&survivor.pid)));
    left
}

/// Processes of the job that may be another data directory's: named, and not touched.
fn half_marked(mark: &Mark) -> impl Iterator<Item = Survivor> {
    let unsaid = |pid: &i32| mark.whose_is(*pid) == Whose::Unsaid;
    pids().filter(unsaid).filter_map(|pid| {
        let stat = Stat::read(pid).filter(|stat| !stat.is_dead)?;
        let comm = stat.comm;
        Some(Survivor { pid, comm })
    })
}

/// Processes in a session with the leader's number whose leader is gone: most likely ours, but a
/// stranger can have come by that number, so they are named and not touched. Where somebody else
/// has the number, they are his.
fn suspects(leader: Leader) -> Vec<Survivor> {
    let since = leader.start_ticks;
    if start_ticks(leader.pid).is_some_and(|ticks| ticks != since) {
        return Vec::new();
    }
    let member = |(pid, stat): (i32, Stat)| {
        let suspect = stat.session == leader.pid && stat.start_ticks >= since && !stat.is_dead;
        suspect.then_some(Survivor {
            pid,
            comm: stat.comm,
        })
    };
    pids()
        .filter_map(|pid| member((pid, Stat::read(pid)?)))
        .collect()
}

/// One round: kills what is found, but for the leader, and returns it.
fn kill_all(mark: &Mark, living: Option<&Living>) -> Vec<Survivor> {
    let leader = living.map(|living| living.leader.pid);
    pids()
        .filter(|pid| Some(*pid) != leader)
        .filter_map(|pid| kill_if_ours(pid, mark, living))
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn kill_if_ours(pid: i32, mark: &Mark, living: Option<&Living>) -> Option<Survivor> {
    // Here as well the descriptor comes first.
    let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let stat = Stat::read(pid)?;
    let ours =
        mark.whose_is(pid) == Whose::Ours || living.is_some_and(|living| living.leads(&stat));
    if !ours || stat.is_dead {
        return None;
    }
    let _ = pidfd_send_signal(&fd, Signal::KILL);
    Some(Survivor {
        pid,
        comm: stat.comm,
    })
}

/// What is needed of `/proc/PID/stat` (proc_pid_stat(5)).
struct Stat {
    comm: String,
    is_dead: bool,
    session: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// The name stands in parentheses and may contain any byte, also parentheses.
    fn parse(text: &str) -> Option<Self> {
        let open = text.find('(')?;
        let close = text.rfind(')')?;
        let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
        Some(Self {
            comm: text.get(open + 1..close)?.to_owned(),
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    Some(Stat::read(pid)?.start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 0 0";
        let stat = Stat::parse(text).expect("valid");
        assert_eq!(stat.comm, "a) b (c");
        assert_eq!(
            (stat.session, stat.start_ticks, stat.is_dead),
            (7, 4711, false)
        );
    }

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
        let left = end_remains(&Mark::new(id, "here"), None);
        assert!(!reaper.join().expect("join").success());
        let named: Vec<i32> = left.iter().map(|survivor| survivor.pid).collect();
        assert_eq!(named, [unsaid.id() as i32]);
        for mut other in others.into_iter().chain([unsaid]) {
            assert!(other.try_wait().expect("wait").is_none());
            other.kill().expect("kill");
            other.wait().expect("wait");
        }
    }
}
