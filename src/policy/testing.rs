//! What tests of policies share: policies and jobs on a file system that exists only here.

use std::path::{Path, PathBuf};

use super::{
    bounds::JobBounds,
    digests::FileDigest,
    locate::BASE_PATH,
    rule::Policy,
    subject::{Judged, LocatedProgram, Subject},
};
use crate::job::{Command, JobSpec, Requester};

/// Links of that file system, and where they lead.
const LINKS: &[(&str, &str)] = &[
    ("/bin", "/usr/bin"),
    ("/sbin", "/usr/sbin"),
    ("/usr/bin/sh", "/usr/bin/dash"),
    ("/usr/bin/awk", "/usr/bin/mawk"),
    ("/usr/bin/python3", "/usr/bin/python3.12"),
    ("/usr/bin/python", "/usr/bin/python3.12"),
    ("/usr/bin/vi", "/usr/bin/vim.basic"),
    ("/usr/bin/ping6", "/usr/bin/ping"),
    ("/tmp/git", "/usr/bin/git"),
    ("/tmp/bin", "/usr/bin"),
    ("/tmp/evil/echo", "/usr/bin/bash"),
    ("/srv/ci/link", "/etc"),
    ("/usr/bin/vdir", "/usr/bin/coreutils"),
];

/// Where a path leads there.
pub fn resolve(path: &Path) -> PathBuf {
    let mut real = PathBuf::from("/");
    for part in path.components().skip(1) {
        match part.as_os_str().to_str() {
            Some("..") => {
                real.pop();
            }
            Some(".") => {}
            _ => real.push(part),
        }
        while let Some((_, to)) = LINKS.iter().find(|(from, _)| Path::new(from) == real) {
            real = PathBuf::from(to);
        }
    }
    real
}

/// Reads a policy there.
pub fn policy(text: &str) -> Policy {
    Policy::read(text, &resolve).unwrap_or_else(|mistake| panic!("{mistake}"))
}

/// Why a text is no policy there.
pub fn mistake(text: &str) -> String {
    match Policy::read(text, &resolve) {
        Ok(_) => "no mistake".to_owned(),
        Err(mistake) => mistake.to_string(),
    }
}

/// A job of the admin with these words, in `/srv/ci`.
pub fn judged(argv: &[&str]) -> Judged {
    Judged {
        requester: Requester::admin(None),
        command: Command::Argv(argv.iter().map(|&word| word.to_owned()).collect()),
        cwd: "/srv/ci".to_owned(),
        path: None,
        names: Vec::new(),
        secrets: Vec::new(),
        urls: Vec::new(),
        bounds: JobBounds {
            queue: JobSpec::QUEUE.to_owned(),
            priority: 0,
            timeout_s: None,
            output_bytes: None,
        },
    }
}

/// A job as it is found there: every path that is no directory is a program.
pub fn found(job: &Judged) -> Subject<'_> {
    let word = match &job.command {
        Command::Argv(argv) => argv.first().map_or("", String::as_str),
        Command::Shell(_) => "/bin/sh",
    };
    let path = job.path.as_deref().unwrap_or(BASE_PATH);
    let entries = path.split(':').map(Path::new);
    let is_known = |entry: &&Path| {
        let known = ["/usr/bin", "/bin", "/tmp/evil", "/tmp/bin"];
        entry.is_relative() || known.iter().any(|known| Path::new(known) == *entry)
    };
    let candidate = match word {
        "" => None,
        word if word.contains('/') => Some(PathBuf::from(word)),
        word => entries
            .filter(is_known)
            .map(|entry| entry.join(word))
            .next(),
    };
    let is_relative = candidate.as_deref().is_some_and(Path::is_relative);
    let at = candidate.map(|candidate| Path::new(&job.cwd).join(candidate));
    Subject {
        program: LocatedProgram {
            word: word.to_owned(),
            real: at.as_deref().map(resolve),
            found: at,
            is_relative,
            same_as: Vec::new(),
        },
        sha256: FileDigest::NotYet,
        real_cwd: Some(resolve(Path::new(&job.cwd))),
        job,
    }
}
