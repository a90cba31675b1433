//! The predicates of a rule.

/// A predicate that a job does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateFailure {
    /// The predicate.
    pub predicate: Predicate,
    /// What the job has, and what the rule asks for.
    pub message: String,
}

/// The predicates, in the order in which they are examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Predicate {
    /// Who asks.
    Who,
    /// Whether it is shell text, and which.
    Shell,
    /// The program.
    Program,
    /// The words after it.
    Args,
    /// The directory.
    Cwd,
    /// The variables.
    Env,
    /// The secrets.
    Secrets,
    /// The URLs of notices.
    NotifyUrls,
    /// The queue.
    Queue,
    /// The priority.
    Priority,
    /// The limit of the run time.
    TimeoutS,
    /// The limit of the output.
    OutputBytes,
    /// The digest of the program's file: it is read only where all else fits.
    Sha256,
}

impl Predicate {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Who,
        Self::Shell,
        Self::Program,
        Self::Args,
        Self::Cwd,
        Self::Env,
        Self::Secrets,
        Self::NotifyUrls,
        Self::Queue,
        Self::Priority,
        Self::TimeoutS,
        Self::OutputBytes,
        Self::Sha256,
    ];

    /// The key of a rule.
    pub fn name(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::Shell => "shell",
            Self::Program => "program",
            Self::Sha256 => "sha256",
            Self::Args => "args",
            Self::Cwd => "cwd",
            Self::Env => "env",
            Self::Secrets => "secrets",
            Self::NotifyUrls => "notify_urls",
            Self::Queue => "queue",
            Self::Priority => "priority",
            Self::TimeoutS => "timeout_s",
            Self::OutputBytes => "output_bytes",
        }
    }
}
