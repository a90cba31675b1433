//! Decides whether a process belongs to a job, by what it has inherited: two variables of its
//! environment, and a number among its limits that stays if it changes those. If the kernel shows
//! neither, other facts about the process decide.

use super::{
    super::{
        looked::Looked,
        process::{self, Environment},
        spec::{INSTANCE_VARIABLE, JOB_ID_VARIABLE},
    },
    Leader,
};
use crate::{job::JobId, spool::mark, sys::proc::Stat};

/// What the processes of a job carry.
#[derive(Debug, Clone)]
pub struct Mark {
    job: String,
    instance: String,
    number: u64,
    /// Whether all of them were given the number: a process without it is not one of them.
    is_numbered: bool,
}

/// To whom a process belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    /// It has the job's variable and none for the data directory: a version that had only half of
    /// the mark has started it.
    Unsaid,
    Others,
    /// It is unknown; a sentence why.
    Unknown(String),
}

/// What a process shows of itself.
#[derive(Debug)]
pub(super) struct SeenProcess {
    pub pid: i32,
    pub stat: Stat,
    /// Its command name.
    pub comm: String,
    environment: Looked<Environment>,
    number: Looked<Option<u64>>,
}

impl SeenProcess {
    /// Looks at a process. One that is dead is gone.
    pub fn look(pid: i32) -> Looked<Self> {
        let (stat, comm) = match process::named_stat(pid) {
            Looked::There((stat, _)) if stat.is_dead() => return Looked::Gone,
            Looked::There(found) => found,
            Looked::Gone => return Looked::Gone,
            Looked::Unknown(why) => return Looked::Unknown(why),
        };
        Looked::There(Self {
            environment: marks_of(process::environment(pid, &stat)),
            number: process::realtime_limit(pid),
            pid,
            comm,
            stat,
        })
    }
}

/// Only the variables that can be a mark: they are compared with the marks of many jobs.
fn marks_of(environment: Looked<Environment>) -> Looked<Environment> {
    let Looked::There(Environment::Is(env)) = environment else {
        return environment;
    };
    let is_mark = |variable: &&[u8]| {
        [JOB_ID_VARIABLE, INSTANCE_VARIABLE]
            .iter()
            .any(|name| variable.starts_with(name.as_bytes()))
    };
    let marks: Vec<&[u8]> = variables(&env).filter(is_mark).collect();
    Looked::There(Environment::Is(marks.join(&0)))
}

fn variables(env: &[u8]) -> impl Iterator<Item = &[u8]> {
    env.split(|byte| *byte == 0)
}

impl Mark {
    /// The mark of a job's processes in the data directory of that instance. `given` is the number
    /// that they were started with, if they were.
    pub fn new(job: JobId, instance: &str, given: Option<u64>) -> Self {
        let number = mark::number(job, instance);
        Self {
            job: format!("{JOB_ID_VARIABLE}={job}"),
            instance: format!("{INSTANCE_VARIABLE}={instance}"),
            number,
            is_numbered: given == Some(number),
        }
    }

    /// Whether a process has the number. Only a process that was given it has it.
    pub(super) fn is_number_of(&self, seen: &SeenProcess) -> bool {
        seen.number == Looked::There(Some(self.number))
    }

    /// Whether a process belongs to the job, whose first process was `leader`.
    pub(super) fn whose(&self, seen: &SeenProcess, leader: Option<Leader>) -> Whose {
        if self.is_number_of(seen) {
            return Whose::Ours;
        }
        let is_ruled_out = self.is_numbered && matches!(seen.number, Looked::There(_));
        match &seen.environment {
            Looked::There(Environment::Is(env)) => self.whose_by_environment(env),
            Looked::Gone => Whose::Others,
            _ if is_ruled_out => Whose::Others,
            Looked::There(Environment::Hidden) => self.whose_is_hidden(seen, leader),
            Looked::Unknown(why) => Whose::Unknown(why.clone()),
        }
    }

    fn whose_by_environment(&self, env: &[u8]) -> Whose {
        let has = |whole: &str| variables(env).any(|variable| variable == whole.as_bytes());
        if !has(&self.job) {
            Whose::Others
        } else if has(&self.instance) {
            Whose::Ours
        } else if variables(env).any(|variable| variable.starts_with(INSTANCE_VARIABLE.as_bytes()))
        {
            Whose::Others
        } else {
            Whose::Unsaid
        }
    }

    /// A process that hides its environment and whose number tells nothing. Most are other users';
    /// one of the job can only be among them if it has changed its user or made itself unreadable.
    /// It is not the job's if it is older than the leader; if none of its user ids is ours; or if
    /// its parent was started after the leader and is not the job's: orphans get a parent that is
    /// older than the shim. Without a leader no process of the job has executed a program, so none
    /// can hide: a child records that it is the leader before it executes one.
    fn whose_is_hidden(&self, seen: &SeenProcess, leader: Option<Leader>) -> Whose {
        let Some(Leader { start_ticks, .. }) = leader else {
            return Whose::Others;
        };
        let SeenProcess {
            pid, stat, comm, ..
        } = seen;
        if stat.start_ticks < start_ticks {
            return Whose::Others;
        }
        match process::is_of_our_user(*pid) {
            Looked::There(true) => {}
            Looked::There(false) | Looked::Gone => return Whose::Others,
            Looked::Unknown(why) => return Whose::Unknown(why),
        }
        if let Looked::There(parent) = process::stat(stat.parent)
            && parent.start_ticks > start_ticks
            && let Looked::There(Environment::Is(env)) = process::environment(stat.parent, &parent)
            && self.whose_by_environment(&env) == Whose::Others
        {
            return Whose::Others;
        }
        Whose::Unknown(format!("process {pid} ({comm}) hides its environment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(given: bool, environment: Looked<Environment>, number: Looked<Option<u64>>) -> Whose {
        let id = JobId(uuid::Uuid::from_u128(7));
        let given = given.then(|| mark::number(id, "here"));
        let pid = std::process::id() as i32;
        let Looked::There(seen) = SeenProcess::look(pid) else {
            panic!("our own process");
        };
        let seen = SeenProcess {
            environment,
            number,
            ..seen
        };
        // As old as we are: neither we nor our parent are ruled out by our age.
        let leader = Leader {
            pid,
            start_ticks: seen.stat.start_ticks,
        };
        Mark::new(id, "here", given).whose(&seen, Some(leader))
    }

    fn environment(text: &str) -> Looked<Environment> {
        Looked::There(Environment::Is(text.replace(' ', "\0").into_bytes()))
    }

    #[test]
    fn a_number_says_whose_a_process_is_that_has_another_environment() {
        let ours = mark::number(JobId(uuid::Uuid::from_u128(7)), "here");
        let unknown = || Looked::Unknown("no descriptor".to_owned());
        let hidden = || Looked::There(Environment::Hidden);
        for given in [true, false] {
            for environment in [environment(""), hidden(), unknown()] {
                let number = Looked::There(Some(ours));
                assert_eq!(whose(given, environment, number), Whose::Ours);
            }
        }
        for number in [None, Some(ours ^ 1)] {
            assert_eq!(whose(true, hidden(), Looked::There(number)), Whose::Others);
            let unknown_owner = whose(false, hidden(), Looked::There(number));
            assert!(matches!(unknown_owner, Whose::Unknown(_)));
        }
        let unknown_owner = whose(true, hidden(), Looked::Unknown("hidden".to_owned()));
        assert!(matches!(unknown_owner, Whose::Unknown(_)));
    }

    #[test]
    fn half_a_mark_is_another_versions_and_that_of_another_directory_is_others() {
        let job = format!("{JOB_ID_VARIABLE}={}", uuid::Uuid::from_u128(7));
        let by = |text: &str| whose(true, environment(text), Looked::There(None));
        assert_eq!(by(&format!("A=b {job}")), Whose::Unsaid);
        let of = |instance: &str| by(&format!("{job} {INSTANCE_VARIABLE}={instance}"));
        assert_eq!((of("here"), of("elsewhere")), (Whose::Ours, Whose::Others));
        assert_eq!(by("A=b"), Whose::Others);
    }
}
