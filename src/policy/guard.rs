//! The policy in force: loads its file, judges with it, and puts another one in its place while the
//! server runs. A file that is wrong changes nothing.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde::Serialize;

use super::{
    judge::Verdict,
    locate::look_up,
    read::{POLICY_BYTES_MAX, PolicyError},
    rule::{Policy, RuleEffect},
    subject::{Judged, Subject},
};

/// A decision, with what it was made about.
#[derive(Debug, Clone)]
pub struct Judgement<'a> {
    /// The decision.
    pub verdict: Verdict,
    /// The digest of the policy.
    pub digest: String,
    /// The job, as it was found.
    pub subject: Subject<'a>,
}

impl Judgement<'_> {
    /// Whether the job is refused, as a sentence for people.
    pub fn refusal(&self) -> Option<String> {
        (self.verdict.effect == RuleEffect::Deny)
            .then(|| format!("the policy does not allow it: {}", self.verdict.why))
    }
}

/// What is in force, as `server.info` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// The file; `None`: there is none, and every job is taken.
    pub file: Option<String>,
    /// SHA-256 of the file that is in force.
    pub digest: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// What becomes of a job that no rule matches.
    pub default: &'static str,
    /// Whether what it allows can get around it.
    pub advisory: bool,
    /// Why, if so.
    pub advisory_reason: Option<&'static str>,
    /// Why the last file was not taken, if it was not.
    pub last_error: Option<String>,
}

/// Why no policy of this version is more than advice.
const ADVISORY: &str = "jobs run as the server's user without a sandbox: a program that is allowed can change the \
                        policy's file, or ask the server as its own user";

impl PolicyStatus {
    /// That of a server without a policy.
    pub fn none() -> Self {
        Self {
            file: None,
            digest: None,
            rules: 0,
            default: RuleEffect::Allow.name(),
            advisory: true,
            advisory_reason: Some("there is no policy: every job is allowed"),
            last_error: None,
        }
    }
}

/// The policy in force. Cheap to share.
#[derive(Debug)]
pub struct PolicyGuard {
    file: PathBuf,
    current: RwLock<Arc<Policy>>,
    last_error: Mutex<Option<String>>,
}

impl PolicyGuard {
    /// Loads this file.
    ///
    /// # Errors
    ///
    /// It cannot be read or trusted, or is wrong.
    pub fn load(file: &Path) -> Result<Self, PolicyError> {
        let policy = read_file(file)?;
        Ok(Self {
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            current: RwLock::new(Arc::new(policy)),
            last_error: Mutex::default(),
        })
    }

    /// Loads the file once more and puts it in force.
    ///
    /// # Errors
    ///
    /// As of [`Self::load`]; then the policy before stays in force.
    pub fn reload(&self) -> Result<PolicyStatus, PolicyError> {
        let read = read_file(&self.file);
        let error = read.as_ref().err().map(ToString::to_string);
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
        let policy = Arc::new(read?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(self.status())
    }

    /// What is in force.
    pub fn status(&self) -> PolicyStatus {
        let policy = self.current();
        let last_error = self.last_error.lock();
        PolicyStatus {
            file: Some(self.file.display().to_string()),
            digest: Some(policy.digest.clone()),
            rules: policy.rules.len(),
            default: policy.default.name(),
            advisory: true,
            advisory_reason: Some(ADVISORY),
            last_error: last_error.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Decides about a job with the policy and the files of this moment.
    pub fn judge<'a>(&self, job: &'a Judged) -> Judgement<'a> {
        let policy = self.current();
        let subject = look_up(&policy, job);
        Judgement {
            verdict: policy.judge(&subject),
            digest: policy.digest.clone(),
            subject,
        }
    }

    fn current(&self) -> Arc<Policy> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

/// Reads a policy's file.
///
/// # Errors
///
/// It cannot be read, another user could change it, or it is wrong.
pub fn read_file(file: &Path) -> Result<Policy, PolicyError> {
    let path = || file.to_owned();
    let read = |source| PolicyError::Read {
        path: path(),
        source,
    };
    let opened = File::open(file).map_err(read)?;
    let found = opened.metadata().map_err(read)?;
    let untrusted = |why: String| PolicyError::Untrusted { path: path(), why };
    if !found.is_file() {
        return Err(untrusted("it is no regular file".to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if ![own, 0].contains(&found.uid()) {
        return Err(untrusted(format!(
            "it belongs to the user {}; it must belong to root or to the server's user ({own})",
            found.uid()
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(untrusted("other users can write it; chmod go-w".to_owned()));
    }
    let mut text = String::new();
    let mut bounded = opened.take(POLICY_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > POLICY_BYTES_MAX {
        return Err(untrusted(format!(
            "it is longer than {POLICY_BYTES_MAX} bytes"
        )));
    }
    let resolve = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    Policy::read(&text, &resolve).map_err(|mistake| PolicyError::Wrong {
        path: path(),
        mistake,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::policy::testing::judged;

    const ECHO: &str = r#"
[[rule]]
id = "echo"
decision = "allow"
program = "/bin/echo"
args = [{ rest = "any" }]
"#;

    #[test]
    fn a_broken_file_keeps_the_policy_before_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("policy.toml");
        let write = |text: &str| {
            fs::write(&file, text).expect("write");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        };
        assert!(matches!(
            PolicyGuard::load(&file),
            Err(PolicyError::Read { .. })
        ));
        write("default = 3");
        assert!(PolicyGuard::load(&file).is_err());
        write(ECHO);
        let guard = PolicyGuard::load(&file).expect("a policy");
        let before = guard.status();
        let echo = judged(&["/bin/echo", "a"]);
        assert_eq!(guard.judge(&echo).refusal(), None);
        write("[[rule]]\nid = \"x\"\n");
        let error = guard.reload().expect_err("wrong").to_string();
        assert!(
            error.contains("policy.toml:1: rule \"x\": ") || error.contains(":1: "),
            "{error}"
        );
        assert_eq!(guard.status().digest, before.digest);
        assert_eq!(guard.status().last_error, Some(error));
        assert_eq!(guard.judge(&echo).refusal(), None);
        write("");
        let after = guard.reload().expect("an empty policy denies everything");
        assert_eq!((after.rules, after.last_error.clone()), (0, None));
        assert_ne!(after.digest, before.digest);
        assert!(guard.judge(&echo).refusal().is_some());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("chmod");
        assert!(matches!(guard.reload(), Err(PolicyError::Untrusted { .. })));
    }
}
