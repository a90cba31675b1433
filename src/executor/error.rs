//! Why the executor refuses or fails a request, with the messages that users read.

use std::{borrow::Cow, io};

use crate::{
    job::{Job, JobRef, Offset},
    output::{ReadError, TailError},
    query::QueryRefusal,
    store::{BatchRefused, StoreError, SubmitError},
};

/// Why the executor refuses or fails a request. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such job or queue.
    #[error("{0}")]
    NotFound(String),
    /// A value is wrong. `output_bytes` is set if an offset lies beyond the end.
    #[error("{message}")]
    Invalid {
        /// What is wrong, and what would be right.
        message: String,
        /// The end of the output, bytes.
        output_bytes: Option<Offset>,
    },
    /// The same about one key of a NewJob.
    #[error("{key}: {error}")]
    About {
        /// The key, dotted where nested.
        key: String,
        /// What is wrong with its value.
        error: Box<Error>,
    },
    /// No user may do that.
    #[error("{message}")]
    Forbidden {
        /// The rule that forbids it.
        rule: String,
        /// What was asked for, and what is allowed.
        message: String,
    },
    /// The policy does not allow it.
    #[error("{message}")]
    Policy {
        /// The rule that decided, or `default`.
        rule: String,
        /// The digest of the policy.
        digest: String,
        /// What was asked for, and what is allowed.
        message: String,
    },
    /// The state of the job or queue does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// A bound is reached.
    #[error("{message}")]
    Limit {
        /// The name of the bound, as in the protocol.
        limit: Cow<'static, str>,
        /// The bound's value, and what to do.
        message: String,
    },
    /// The disk is full, or another resource is short. Trying again later may help.
    #[error("{0}")]
    Unavailable(String),
    /// The server is stopping. The next one may do it.
    #[error("the server is stopping; reconnect and try again")]
    Stopping,
    /// The server's own failure; its log has the cause.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// No job has this number or id.
    pub(super) fn no_such_job(job: JobRef) -> Self {
        Self::NotFound(format!(
            "there is no job {job}; a list of the jobs shows which there are"
        ))
    }

    /// A wrong value.
    pub(super) fn invalid(message: String) -> Self {
        Self::Invalid {
            message,
            output_bytes: None,
        }
    }

    /// The same about a key of a NewJob.
    pub(super) fn about(self, key: impl Into<String>) -> Self {
        Self::About {
            key: key.into(),
            error: Box::new(self),
        }
    }

    /// The same about a key inside the object `outer`.
    pub(super) fn within(mut self, outer: &str) -> Self {
        if let Self::About { key, .. } = &mut self {
            *key = format!("{outer}.{key}");
        }
        self
    }

    /// The request needs a final job.
    pub(super) fn not_final(job: &Job, what: &str) -> Self {
        Self::Conflict(format!(
            "job {} is {}; only a final job can be {what}: cancel it first, or wait for its end",
            job.number,
            job.state.name()
        ))
    }

    /// The queue was never made, or was deleted.
    pub(super) fn no_such_queue(queue: &str) -> Self {
        Self::NotFound(format!(
            "there is no queue {queue:?}; make it first, or take one that a list of the queues shows"
        ))
    }

    /// The queue takes no new jobs.
    pub(super) fn queue_drains(queue: &str) -> Self {
        Self::Conflict(format!(
            "the queue {queue:?} drains: it takes no new jobs; take another queue, or set its drain to \
             false"
        ))
    }

    /// The server is stopping.
    pub(super) fn stopping() -> Self {
        Self::Stopping
    }

    /// A reader begins beyond the end.
    pub(super) fn beyond_end(output_bytes: Offset) -> Self {
        Self::Invalid {
            message: format!(
                "from lies beyond the end of the output, which has {output_bytes} bytes"
            ),
            output_bytes: Some(output_bytes),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => Self::Unavailable(
                "the disk is full; make room in the data directory and try again".to_owned(),
            ),
            StoreError::Stopping => Self::stopping(),
            StoreError::Unavailable(cause) => cannot_be_used(&cause.to_string()),
            StoreError::Untrusted => {
                cannot_be_used("its file cannot be trusted any more; the server ends")
            }
            StoreError::Database(cause) => has_refused(&cause.to_string()),
            StoreError::WrongAnswer => has_refused("it answered another request (a bug)"),
        }
    }
}

fn cannot_be_used(cause: &str) -> Error {
    tracing::warn!(cause, "the ledger cannot be used now");
    Error::Unavailable(
        "the database cannot be used now; try again (the server's log says why)".to_owned(),
    )
}

fn has_refused(cause: &str) -> Error {
    tracing::error!(cause, "the ledger refused");
    Error::Internal("the database failed; the server's log says how".to_owned())
}

impl From<QueryRefusal> for Error {
    fn from(refusal: QueryRefusal) -> Self {
        match refusal {
            QueryRefusal::Invalid(message) => Self::invalid(message),
            QueryRefusal::Forbidden { rule, message } => Self::Forbidden { rule, message },
            QueryRefusal::Limit { limit, message } => Self::Limit {
                limit: limit.into(),
                message,
            },
            QueryRefusal::Unavailable(message) => Self::Unavailable(message),
            QueryRefusal::Internal(message) => Self::Internal(message),
        }
    }
}

impl From<SubmitError> for Error {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::UnknownQueue(queue) => Self::no_such_queue(&queue),
            SubmitError::UnknownDependency(job) => Self::NotFound(format!(
                "there is no job {job} to wait for; a list of the jobs shows which there are"
            ))
            .about("after"),
            error @ SubmitError::NotAnEarlierEntry(_) => {
                Self::invalid(error.to_string()).about("after")
            }
            SubmitError::QueueDrains(queue) => Self::queue_drains(&queue),
            SubmitError::KeyConflict(number) => Self::Conflict(format!(
                "the idempotency key belongs to job {number}, which was submitted differently; \
                 use another key or the same job"
            )),
            SubmitError::KeyConflictWithin(index) => Self::Conflict(format!(
                "the idempotency key belongs to jobs[{index}], which is a different job; \
                 use another key or the same job"
            )),
            SubmitError::Store(error) => error.into(),
        }
    }
}

/// Why a batch of jobs is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError {
    /// The index of the first entry that was refused; `None` if no single entry is the cause.
    pub index: Option<usize>,
    /// Why it is refused.
    pub error: Error,
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self { index: None, error }
    }
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<BatchRefused> for BatchError {
    fn from(refused: BatchRefused) -> Self {
        Self {
            index: refused.index,
            error: refused.error.into(),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            // A reader that panicked has the kind `Other`; an error of the kernel never has.
            ReadError::Segment(cause) if cause.kind() != io::ErrorKind::Other => {
                tracing::warn!(%cause, "a segment cannot be read now");
                Self::Unavailable(format!("the output cannot be read now: {cause}; try again"))
            }
            error => {
                tracing::error!(%error, "output could not be read");
                Self::Internal(format!("the output cannot be read: {error}"))
            }
        }
    }
}

impl From<TailError> for Error {
    fn from(error: TailError) -> Self {
        match error {
            TailError::NotFound => Self::NotFound(
                "there is no such job; a list of the jobs shows which there are".to_owned(),
            ),
            TailError::BeyondEnd(output_bytes) => Self::beyond_end(output_bytes),
            TailError::Stopping => Self::stopping(),
            TailError::Read(error) => error.into(),
        }
    }
}
