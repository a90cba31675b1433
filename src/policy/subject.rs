//! What is judged: a job as the kernel will be given it, and who asked for it.

use std::path::{Path, PathBuf};

use super::{bounds::JobBounds, digests::FileDigest, words::shown};
use crate::job::{
    Command, EnvValue, JobSpec, NotifyEntry, NotifyTarget, Requester, secret::references,
};

/// A job before it is located: what a policy needs to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Who asked for it.
    pub requester: Requester,
    /// What is executed.
    pub command: Command,
    /// The directory, absolute.
    pub cwd: String,
    /// The PATH of the job, where it sets one.
    pub path: Option<String>,
    /// The names of the variables that it sets to something else than the clean base environment has.
    pub names: Vec<String>,
    /// The names of the secrets that it refers to.
    pub secrets: Vec<String>,
    /// The URLs to which notices of it are sent.
    pub urls: Vec<String>,
    /// What it asks for.
    pub bounds: JobBounds,
}

impl Judged {
    /// A job of this requester; `base` is the clean base environment, and `home` the directory of a job
    /// that names none.
    pub fn of(job: &JobSpec, requester: &Requester, base: &[(String, String)], home: &str) -> Self {
        // A secret is a change, whatever its value is.
        let is_base = |name: &String, value: &EnvValue| {
            base.iter()
                .any(|(known, same)| known == name && value.text() == Some(same))
        };
        let changed = job.env.iter().filter(|(name, value)| !is_base(name, value));
        Self {
            requester: requester.clone(),
            command: job.command.clone(),
            cwd: job.cwd.clone().unwrap_or_else(|| home.to_owned()),
            path: job
                .env
                .get("PATH")
                .and_then(EnvValue::text)
                .map(str::to_owned),
            names: changed.map(|(name, _)| name.clone()).collect(),
            secrets: references(&job.env)
                .map(|(_, name)| name.to_string())
                .collect(),
            urls: job.notify.iter().filter_map(url_of).collect(),
            bounds: JobBounds::of(job),
        }
    }

    /// A command that the server itself runs to tell of a job in this queue: in the home directory, with
    /// the base environment.
    pub fn notice(argv: &[String], queue: &str, requester: &Requester, home: &str) -> Self {
        Self {
            requester: requester.clone(),
            command: Command::Argv(argv.to_owned()),
            cwd: home.to_owned(),
            path: None,
            names: Vec::new(),
            secrets: Vec::new(),
            urls: Vec::new(),
            bounds: JobBounds::of_notice(queue.to_owned()),
        }
    }
}

fn url_of(entry: &NotifyEntry) -> Option<String> {
    match &entry.target {
        NotifyTarget::Url(url) => Some(url.clone()),
        NotifyTarget::Argv(_) => None,
    }
}

/// What the first word of a job leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedProgram {
    /// The word.
    pub word: String,
    /// The path that it names, or at which it is found by PATH; `None`: it is not found.
    pub found: Option<PathBuf>,
    /// The file to which that leads, without links.
    pub real: Option<PathBuf>,
    /// Whether the word, or the entry of PATH, is relative to the job's directory.
    pub is_relative: bool,
    /// Programs of deny rules that are the same file under another path: hard links, and mounts.
    pub same_as: Vec<PathBuf>,
}

impl LocatedProgram {
    /// What it is, for messages.
    pub fn text(&self) -> String {
        let word = shown(&self.word);
        match (&self.found, &self.real) {
            (Some(found), Some(real)) if found == real => found.display().to_string(),
            (Some(found), Some(real)) => {
                format!("{}, which leads to {}", found.display(), real.display())
            }
            _ => format!("{word}, which was not found"),
        }
    }
}

/// What is judged, with what the file system says about it.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The job.
    pub job: &'a Judged,
    /// What its first word leads to.
    pub program: LocatedProgram,
    /// The digest of that file, where a rule asks for it.
    pub sha256: FileDigest,
    /// The directory without links; `None` where there is none.
    pub real_cwd: Option<PathBuf>,
}

impl Subject<'_> {
    /// The words after the program; none for shell text, which has no words.
    pub fn args(&self) -> &[String] {
        match &self.job.command {
            Command::Argv(argv) => argv.get(1..).unwrap_or_default(),
            Command::Shell(_) => &[],
        }
    }

    /// The shell text.
    pub fn shell(&self) -> Option<&str> {
        match &self.job.command {
            Command::Argv(_) => None,
            Command::Shell(text) => Some(text),
        }
    }

    /// The directory as the job names it.
    pub fn cwd(&self) -> &Path {
        Path::new(&self.job.cwd)
    }
}
