//! The policy in force: loads its file, judges with it, and puts another one in its place while the
//! server runs. A file that is wrong changes nothing.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::fs::OFlags;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    digests::{KnownDigests, RequestDigests, WantedDigest},
    judge::Verdict,
    locate::look_up,
    read::{POLICY_BYTES_MAX, PolicyError},
    rule::{Policy, RuleEffect},
    subject::{Judged, Subject},
    urls::JudgedUrl,
};
use crate::sys::threads::blocking;

/// How long the judgements of one request may take: they look for files, which may be on a file system that
/// does not answer, and read programs for their digests.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);
/// How many requests look for files at a time.
const LOOKUPS_MAX: usize = 16;
/// How many large files are read for their digests at a time.
const LARGE_DIGESTS_MAX: usize = 1;
/// How many other files, which do not wait for the large ones.
const SMALL_DIGESTS_MAX: usize = 4;
/// Up to this size a file is small, bytes.
const SMALL_BYTES_MAX: u64 = 32 << 20;
/// How often the judgements of a request are made anew with the digests that they wanted.
const PASSES_MAX: usize = 3;

/// Judgements that were not made; the message says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy could not be asked: {0}; try again")]
pub struct NotJudged(String);

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
        self.verdict.refusal()
    }
}

impl Verdict {
    /// Whether something is refused, as a sentence for people.
    pub fn refusal(&self) -> Option<String> {
        (self.effect == RuleEffect::Deny)
            .then(|| format!("the policy does not allow it: {}", self.why))
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

/// The policy of one request, with the digests that it has asked for: all of it is judged alike.
#[derive(Debug)]
pub struct PolicyView {
    policy: Arc<Policy>,
    remembered: Arc<KnownDigests>,
    digests: RequestDigests,
}

impl PolicyView {
    /// Decides about a job with the files of this moment. It looks for files, which may take long.
    pub fn judge<'a>(&self, job: &'a Judged) -> Judgement<'a> {
        let mut subject = look_up(&self.policy, job);
        if let (Some(real), true) = (&subject.program.real, self.policy.wants_digest(&subject)) {
            subject.sha256 = self.digests.digest(real, &self.remembered);
        }
        Judgement {
            verdict: self.policy.judge(&subject),
            digest: self.policy.digest.clone(),
            subject,
        }
    }
}

impl PolicyView {
    /// Decides about a notice by itself; the digest of the policy is the second value.
    pub fn judge_url(&self, judged: &JudgedUrl) -> (Verdict, String) {
        (self.policy.judge_url(judged), self.policy.digest.clone())
    }
}

/// The policy in force. Cheap to share.
#[derive(Debug)]
pub struct PolicyGuard {
    file: PathBuf,
    current: RwLock<Arc<Policy>>,
    last_error: Mutex<Option<String>>,
    remembered: Arc<KnownDigests>,
    lookups: Arc<Semaphore>,
    large: Arc<Semaphore>,
    small: Arc<Semaphore>,
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
            remembered: Arc::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            large: Arc::new(Semaphore::new(LARGE_DIGESTS_MAX)),
            small: Arc::new(Semaphore::new(SMALL_DIGESTS_MAX)),
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

    /// Makes the judgements of one request with the policy of this moment, where they block no other work.
    /// `judge` may be called more than once, and its last result counts: a digest that it wants is computed
    /// before it is called again.
    ///
    /// # Errors
    ///
    /// They take too long.
    pub async fn judged<T: Send + 'static>(
        &self,
        judge: impl Fn(&PolicyView) -> T + Send + Sync + 'static,
    ) -> Result<T, NotJudged> {
        let view = Arc::new(self.view());
        match timeout(JUDGED_WITHIN, self.judged_with(view, Arc::new(judge))).await {
            Ok(judged) => judged.map_err(|error| NotJudged(error.to_string())),
            Err(_) => {
                let seconds = JUDGED_WITHIN.as_secs();
                Err(NotJudged(format!(
                    "it took longer than {seconds} s to look for the program and the directory, or to read programs \
                     for rules with sha256"
                )))
            }
        }
    }

    async fn judged_with<T: Send + 'static>(
        &self,
        view: Arc<PolicyView>,
        judge: Arc<impl Fn(&PolicyView) -> T + Send + Sync + 'static>,
    ) -> io::Result<T> {
        for pass in 1.. {
            if pass == PASSES_MAX {
                view.digests.end();
            }
            let looking = permit(&self.lookups).await?;
            let (judge, asked) = (Arc::clone(&judge), Arc::clone(&view));
            let judged = blocking(move || {
                let _looking = looking;
                Ok(judge(&asked))
            });
            let judged = judged.await?;
            let wanted = view.digests.take_wanted();
            if wanted.is_empty() {
                return Ok(judged);
            }
            for file in wanted {
                self.compute(&view, file).await?;
            }
        }
        Err(io::Error::other("it was given up"))
    }

    /// Computes a digest; dropping the future ends that.
    async fn compute(&self, view: &Arc<PolicyView>, file: WantedDigest) -> io::Result<()> {
        let reading = match file.bytes <= SMALL_BYTES_MAX {
            true => permit(&self.small).await?,
            false => permit(&self.large).await?,
        };
        let stop = StopOnDrop::default();
        let (view, stopped) = (Arc::clone(view), Arc::clone(&stop.0));
        blocking(move || {
            let _reading = reading;
            view.digests.compute(&file.path, &view.remembered, &stopped);
            Ok(())
        })
        .await
    }

    fn view(&self) -> PolicyView {
        PolicyView {
            policy: self.current(),
            remembered: self.remembered.clone(),
            digests: RequestDigests::default(),
        }
    }

    fn current(&self) -> Arc<Policy> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

async fn permit(of: &Arc<Semaphore>) -> io::Result<OwnedSemaphorePermit> {
    of.clone().acquire_owned().await.map_err(io::Error::other)
}

/// Sets its flag when it is dropped.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
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
    let mut options = fs::OpenOptions::new();
    // A FIFO must not be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = options.read(true).custom_flags(flags).open(file);
    let opened = opened.map_err(read)?;
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
        assert_eq!(guard.view().judge(&echo).refusal(), None);
        write("[[rule]]\nid = \"x\"\n");
        let error = guard.reload().expect_err("wrong").to_string();
        assert!(
            error.contains("policy.toml:1: rule \"x\": ") || error.contains(":1: "),
            "{error}"
        );
        assert_eq!(guard.status().digest, before.digest);
        assert_eq!(guard.status().last_error, Some(error));
        assert_eq!(guard.view().judge(&echo).refusal(), None);
        write("");
        let after = guard.reload().expect("an empty policy denies everything");
        assert_eq!((after.rules, after.last_error.clone()), (0, None));
        assert_ne!(after.digest, before.digest);
        assert!(guard.view().judge(&echo).refusal().is_some());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("chmod");
        assert!(matches!(guard.reload(), Err(PolicyError::Untrusted { .. })));
        // A FIFO is no file, and nobody writes into it.
        fs::remove_file(&file).expect("removed");
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).expect("made");
        assert!(matches!(guard.reload(), Err(PolicyError::Untrusted { .. })));
    }
}
