//! What a job may ask for: its queue, its priority, how long it runs, how much it writes.

use crate::job::{JobSpec, Seconds};

/// What a job asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct JobBounds {
    /// The queue it waits in.
    pub queue: String,
    /// The higher one starts first.
    pub priority: i64,
    /// Limit of the run time; `None`: no limit.
    pub timeout_s: Option<f64>,
    /// Limit of its output, bytes; `None`: no limit.
    pub output_bytes: Option<u64>,
}

impl JobBounds {
    /// What this job asks for.
    pub fn of(job: &JobSpec) -> Self {
        Self {
            queue: job.queue.clone(),
            priority: job.priority,
            timeout_s: job.timeout_s.map(|Seconds(seconds)| seconds),
            output_bytes: job.output.max_bytes,
        }
    }

    /// What a command of a notice of a job in this queue asks for: the server itself bounds its time and
    /// its output, below every bound of a rule.
    pub fn of_notice(queue: String) -> Self {
        Self {
            queue,
            priority: i64::MIN,
            timeout_s: Some(0.0),
            output_bytes: Some(0),
        }
    }
}

/// The most that a rule allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BoundsMax {
    /// The queues; `None`: any.
    pub queues: Option<Vec<String>>,
    /// The highest priority; `None`: any.
    pub priority: Option<i64>,
    /// The longest timeout; `None`: any, or none.
    pub timeout_s: Option<f64>,
    /// The largest output, bytes; `None`: any, or unbounded.
    pub output_bytes: Option<u64>,
}

impl BoundsMax {
    /// Why the queue does not fit.
    pub fn queue_failure(&self, queue: &str) -> Option<String> {
        let queues = self.queues.as_ref()?;
        let fits = queues.iter().any(|known| known == queue);
        (!fits).then(|| format!("the queue is {queue:?}; it must be one of {queues:?}"))
    }

    /// Why the priority does not fit.
    pub fn priority_failure(&self, priority: i64) -> Option<String> {
        let max = self.priority?;
        (priority > max).then(|| format!("the priority is {priority}; it may be up to {max}"))
    }

    /// Why the timeout does not fit.
    pub fn timeout_failure(&self, timeout_s: Option<f64>) -> Option<String> {
        let max = self.timeout_s?;
        match timeout_s {
            Some(timeout_s) if timeout_s <= max => None,
            Some(timeout_s) => Some(format!("timeout_s is {timeout_s}; it may be up to {max}")),
            None => Some(format!(
                "timeout_s is missing; the job must have one of up to {max}"
            )),
        }
    }

    /// Why the bound of the output does not fit.
    pub fn output_failure(&self, output_bytes: Option<u64>) -> Option<String> {
        let max = self.output_bytes?;
        match output_bytes {
            Some(bytes) if bytes <= max => None,
            Some(bytes) => Some(format!(
                "output.max_bytes is {bytes}; it may be up to {max}"
            )),
            None => Some(format!(
                "output.max_bytes is missing; the job must have one of up to {max}"
            )),
        }
    }
}
