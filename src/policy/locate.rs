//! Asks the file system what the first word of a job leads to, as execvp(3) would find it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::{
    digests::{FileDigest, digest_now},
    rule::{Policy, RuleEffect, What},
    subject::{Judged, LocatedProgram, Subject},
};
use crate::job::Command;

/// PATH of a job that sets none.
pub const BASE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program that runs shell text.
const SHELL: &str = "/bin/sh";

/// Looks for the program of a job: a word with a slash is a path, any other is looked for in PATH, where
/// an empty entry is the job's directory.
pub fn locate(job: &Judged) -> LocatedProgram {
    let word = match &job.command {
        Command::Argv(argv) => argv.first().map_or("", String::as_str),
        Command::Shell(_) => SHELL,
    };
    let path = job.path.as_deref().unwrap_or(BASE_PATH);
    let candidates: Vec<PathBuf> = match word {
        "" => Vec::new(),
        word if word.contains('/') => vec![PathBuf::from(word)],
        word => path
            .split(':')
            .map(|entry| Path::new(entry).join(word))
            .collect(),
    };
    let cwd = Path::new(&job.cwd);
    let found = candidates.into_iter().find_map(|candidate| {
        // A path that is absolute stays as it is.
        let at = cwd.join(&candidate);
        let real = fs::canonicalize(&at)
            .ok()
            .filter(|real| is_executable(real))?;
        Some((at, real, candidate.is_relative()))
    });
    let is_relative = found
        .as_ref()
        .is_some_and(|(_, _, is_relative)| *is_relative);
    let (found, real) = found.map(|(found, real, _)| (found, real)).unzip();
    LocatedProgram {
        word: word.to_owned(),
        found,
        real,
        is_relative,
        same_as: Vec::new(),
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file()) && access(path, Access::EXEC_OK).is_ok()
}

/// A job with what the file system says about it, as far as the policy asks; without the digest of its
/// program.
pub fn look_up<'a>(policy: &Policy, job: &'a Judged) -> Subject<'a> {
    let mut program = locate(job);
    if let Some(real) = &program.real {
        program.same_as = policy.denied_programs_like(real);
    }
    let real_cwd = fs::canonicalize(&job.cwd).ok();
    Subject {
        job,
        program,
        sha256: FileDigest::NotYet,
        real_cwd: real_cwd.filter(|real| real.is_dir()),
    }
}

/// The same with the digest, where the decision depends on it.
pub fn look_up_with_digest<'a>(policy: &Policy, job: &'a Judged) -> Subject<'a> {
    let mut subject = look_up(policy, job);
    if let (Some(real), true) = (&subject.program.real, policy.wants_digest(&subject)) {
        subject.sha256 = digest_now(real);
    }
    subject
}

impl Policy {
    /// The programs of deny rules that are this file under another path.
    fn denied_programs_like(&self, real: &Path) -> Vec<PathBuf> {
        let denying = self
            .rules
            .iter()
            .filter(|rule| rule.effect == RuleEffect::Deny);
        let programs = denying.flat_map(|rule| match &rule.what {
            What::Programs {
                programs: Some(programs),
                ..
            } => programs.as_slice(),
            _ => &[],
        });
        let id = |path: &Path| {
            fs::metadata(path)
                .ok()
                .map(|found| (found.dev(), found.ino()))
        };
        let mut programs = programs.map(|program| &program.written).peekable();
        // Most policies have none.
        let Some(own) = programs.peek().is_some().then(|| id(real)).flatten() else {
            return Vec::new();
        };
        let same = programs.filter(|written| id(written) == Some(own));
        same.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::policy::testing::judged;

    fn program(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").expect("write");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_program_is_found_as_execvp_finds_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(directory.path()).expect("a path");
        for name in ["a", "b"] {
            fs::create_dir(root.join(name)).expect("mkdir");
        }
        program(&root.join("a/tool"), 0o644);
        program(&root.join("b/tool"), 0o755);
        symlink("b/tool", root.join("link")).expect("a link");
        let mut job = judged(&["tool"]);
        job.cwd = root.join("b").display().to_string();
        job.path = Some(format!("{0}/a:{0}/b", root.display()));
        let located = locate(&job);
        assert_eq!(located.found, Some(root.join("b/tool")));
        assert!(!located.is_relative);
        // The directory of the job.
        job.path = Some(String::new());
        assert!(locate(&job).is_relative);
        job.path = Some("/nowhere".to_owned());
        assert_eq!((locate(&job).found, locate(&job).real), (None, None));
        job.command = Command::Argv(vec!["./tool".into()]);
        assert!(locate(&job).is_relative);
        job.command = Command::Argv(vec![root.join("link").display().to_string()]);
        let located = locate(&job);
        assert_eq!(located.found, Some(root.join("link")));
        assert_eq!(located.real, Some(root.join("b/tool")));
    }
}
