//! How a method is held to the jobs that a narrowed token reaches.

use serde_json::{Map, Value};

use super::{
    ErrorKind,
    caller::Caller,
    jsonrpc::{error::Refusal, params::job_ref},
};

/// How a method is held to the jobs that a token reaches, if the token is narrowed by `own`, queues or labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowing {
    /// Each job that is named under `job` or `jobs` must be reached.
    Jobs,
    /// It shows only what is reached, or what it submits is judged by the executor.
    Filtered,
    /// The queue that is named under `queue` must be one of the token's, and the token narrowed by nothing else.
    Queue,
    /// It is about the whole server, so it is refused.
    Whole,
    /// It tells nothing about jobs.
    Free,
}

impl Narrowing {
    /// Its name in the documentation.
    #[cfg(test)]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Filtered => "filtered",
            Self::Queue => "queue",
            Self::Whole => "whole",
            Self::Free => "free",
        }
    }

    /// Refuses a request that goes beyond the reach of its client's token.
    pub async fn check(self, caller: &Caller, params: &Map<String, Value>) -> Result<(), Refusal> {
        let principal = caller.principal();
        let reach = &principal.grant.reach;
        if reach.is_all() {
            return Ok(());
        }
        let name = &*principal.name;
        match self {
            Self::Filtered | Self::Free => Ok(()),
            Self::Jobs => {
                let several = params.get("jobs").and_then(Value::as_array);
                let one = params.get("job").into_iter();
                // What names no job is refused by the method itself.
                for job in one.chain(several.into_iter().flatten()).filter_map(job_ref) {
                    caller.check_reach(job).await?;
                }
                Ok(())
            }
            Self::Queue if reach.own.is_some() || !reach.labels.is_empty() => Err(whole(name)),
            Self::Queue => match params.get("queue").and_then(Value::as_str) {
                Some(queue) if !reach.has_queue(queue) => {
                    let message =
                        format!("queue: the token {name:?} is not for the queue {queue:?}");
                    Err(Refusal::new(ErrorKind::Forbidden, message).with("rule", "token.queues"))
                }
                _ => Ok(()),
            },
            Self::Whole => Err(whole(name)),
        }
    }
}

fn whole(name: &str) -> Refusal {
    let message = format!(
        "this is about all jobs of the server, and the token {name:?} is narrowed to some; use a token that is not"
    );
    Refusal::new(ErrorKind::Forbidden, message).with("rule", "token.narrowed")
}
