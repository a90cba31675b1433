//! A policy and its rules, as they were read and checked.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    bounds::BoundsMax,
    example::Example,
    names::NameSet,
    subject::{LocatedProgram, Subject},
    urls::UrlSet,
    words::ArgsPattern,
};
use crate::job::Requester;

/// What a rule decides about the jobs that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleEffect {
    /// The job is taken, unless another rule denies it.
    Allow,
    /// The job is refused.
    Deny,
}

impl RuleEffect {
    /// As a file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A policy: rules, and what becomes of jobs that none matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// In the order of the file.
    pub rules: Vec<PolicyRule>,
    /// What becomes of a job that no rule matches.
    pub default: RuleEffect,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
}

impl Policy {
    /// The name of the decision where no rule matches; no rule can have it.
    pub const DEFAULT_RULE: &'static str = "default";
}

/// One rule. A predicate that is missing is met by every job.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRule {
    /// Its name, unique in the policy.
    pub id: String,
    /// The line of the file at which it begins.
    pub line: usize,
    /// What it decides.
    pub effect: RuleEffect,
    /// Who asks.
    pub who: Option<Vec<Who>>,
    /// What is executed.
    pub what: What,
    /// The directories at or below which it runs.
    pub cwd: Option<Vec<DirPattern>>,
    /// Names of variables. Of an allow rule these are all that a job may set; a deny rule matches a job
    /// that sets one of them.
    pub env: Option<NameSet>,
    /// Names of secrets. Of an allow rule these are all that a job may refer to; a deny rule matches a job
    /// that refers to one of them.
    pub secrets: Option<Vec<String>>,
    /// URLs of notices. Of an allow rule these are all to which a job's notices may be sent; a deny rule
    /// matches a job whose notices are sent to one of them.
    pub notify_urls: Option<UrlSet>,
    /// The most that the job may ask for.
    pub bounds: BoundsMax,
    /// Whether a script is executed by its path.
    pub by_path: bool,
    /// What it must match.
    pub matches: Vec<Example>,
    /// What it must not match.
    pub not_matches: Vec<Example>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A requester of this name.
    Name(String),
    /// A user on the Unix socket.
    Uid(u32),
}

impl Who {
    /// Whether it is this requester.
    pub fn is(&self, requester: &Requester) -> bool {
        match self {
            Self::Name(name) => *name == requester.name,
            Self::Uid(uid) => Some(*uid) == requester.uid,
        }
    }

    /// As a file has it.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => format!("{name:?}"),
            Self::Uid(uid) => format!("\"uid:{uid}\""),
        }
    }
}

/// What is executed.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Anything; only a deny rule can say that.
    Anything,
    /// One of these programs with these words.
    Programs {
        /// The programs; `None`: any.
        programs: Option<Vec<ProgramPattern>>,
        /// The digest of the program's file.
        sha256: Option<String>,
        /// The words after the program.
        args: ArgsPattern,
    },
    /// Shell text.
    Shell(ShellTexts),
}

/// Which shell text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellTexts {
    /// Every text.
    Any,
    /// A text with one of these digests.
    Digests(Vec<String>),
}

impl ShellTexts {
    /// Whether this text is one of them.
    pub fn has(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Digests(digests) => digests.contains(&sha256_hex(text.as_bytes())),
        }
    }
}

/// A program of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramPattern {
    /// The path as it is written, absolute.
    pub written: PathBuf,
    /// Where it led when the policy was loaded; the same path where there was no such file.
    pub real: PathBuf,
}

impl ProgramPattern {
    /// Whether an allow rule for this program allows a program that is found at this path: the path as it
    /// is written, or where it led, if the file has the same name there. A program may take its behaviour
    /// from the name and the place it is called by.
    pub fn is_called(&self, found: &Path) -> bool {
        // Compared as text: components would make `/usr/bin/./git` the same.
        let is = |path: &Path| path.as_os_str() == found.as_os_str();
        is(&self.written) || (is(&self.real) && self.real.file_name() == self.written.file_name())
    }

    /// Whether a deny rule for this program denies it: by any path that leads to the file, and by any other
    /// name of the file.
    pub fn touches(&self, located: &LocatedProgram) -> bool {
        let paths = [&located.found, &located.real].into_iter().flatten();
        let mut paths = paths.chain(&located.same_as);
        paths.any(|path| *path == self.written || *path == self.real)
    }
}

/// A directory of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirPattern {
    /// The path as it is written, absolute.
    pub written: PathBuf,
    /// Where it led when the policy was loaded.
    pub real: PathBuf,
}

impl DirPattern {
    /// Whether an allow rule for it allows a job there: links are followed first.
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        let real = subject.real_cwd.as_deref();
        real.is_some_and(|real| real.starts_with(&self.real))
    }

    /// Whether a deny rule for it denies a job there.
    pub fn touches(&self, subject: &Subject<'_>) -> bool {
        self.holds(subject) || subject.cwd().starts_with(&self.written)
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_own_name_alone() {
        let busybox = ProgramPattern {
            written: "/bin/ls".into(),
            real: "/bin/busybox".into(),
        };
        assert!(busybox.is_called(Path::new("/bin/ls")));
        for other in [
            "/bin/busybox",
            "/bin/sh",
            "ls",
            "/bin/./ls",
            "/bin//ls",
            "/bin/ls/",
            "/bin/../bin/ls",
        ] {
            assert!(!busybox.is_called(Path::new(other)), "{other}");
        }
        let merged = ProgramPattern {
            written: "/bin/git".into(),
            real: "/usr/bin/git".into(),
        };
        assert!(merged.is_called(Path::new("/usr/bin/git")));
    }

    #[test]
    fn a_denied_program_is_denied_by_every_name() {
        let shell = ProgramPattern {
            written: "/bin/sh".into(),
            real: "/usr/bin/dash".into(),
        };
        let located = |found: Option<&str>, real: Option<&str>, same_as: &[&str]| LocatedProgram {
            word: String::new(),
            found: found.map(PathBuf::from),
            real: real.map(PathBuf::from),
            is_relative: false,
            same_as: same_as.iter().map(PathBuf::from).collect(),
        };
        for (found, real) in [
            ("/bin/sh", "/usr/bin/dash"),
            ("/tmp/x", "/usr/bin/dash"),
            ("/usr/bin/dash", "/usr/bin/dash"),
            ("/bin/../bin/sh", "/usr/bin/dash"),
        ] {
            assert!(
                shell.touches(&located(Some(found), Some(real), &[])),
                "{found}"
            );
        }
        let ls = Some("/bin/ls");
        assert!(!shell.touches(&located(ls, ls, &[])));
        assert!(!shell.touches(&located(None, None, &[])));
        assert!(shell.touches(&located(ls, ls, &["/usr/bin/dash"])));
    }
}
