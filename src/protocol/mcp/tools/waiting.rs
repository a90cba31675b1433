//! Waits for jobs while the client is told about progress; ends early when the client no longer wants the
//! answer, or the server stops.

use std::time::Duration;

use rmcp::model::ProgressNotificationParam;
use tokio::time::{MissedTickBehavior, interval_at};

use super::{call::ToolCall, last_line};
use crate::{
    executor::{Until, WaitOptions, Waited},
    job::JobRef,
    protocol::jsonrpc::error::Refusal,
};

/// How often a call with a progress token is told that its command still runs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// How a wait ended.
pub enum Ending {
    /// The condition was met, can no longer be met, or the time is over.
    Over(Box<Waited>),
    /// The client has cancelled the call, or has left.
    Unwanted,
    /// The server stops.
    Stopping,
}

/// Waits until one of the jobs has met the condition or never will, at most `longest`.
pub async fn wait(
    call: &ToolCall<'_>,
    jobs: Vec<JobRef>,
    until: Until,
    longest: Duration,
) -> Result<Ending, Refusal> {
    let (executor, first) = (&call.caller.server.executor, jobs[0]);
    let options = WaitOptions {
        jobs,
        all: false,
        until,
        timeout: Some(longest),
    };
    let waited = async {
        let decision = executor.wait(&call.caller.turns, options).await?;
        executor.waited(decision).await
    };
    tokio::select! {
        biased;
        waited = waited => Ok(Ending::Over(Box::new(waited?))),
        () = call.unwanted() => Ok(Ending::Unwanted),
        () = call.caller.server.stopping.cancelled() => Ok(Ending::Stopping),
        () = tell_progress(call, first) => Ok(Ending::Unwanted),
    }
}

/// Tells the client at intervals that the job runs, with the last line of its output. Ends only if the
/// client cannot be told any more.
async fn tell_progress(call: &ToolCall<'_>, job: JobRef) {
    let Some(token) = call.context.meta.get_progress_token() else {
        return std::future::pending().await;
    };
    let start = tokio::time::Instant::now();
    let mut ticks = interval_at(start + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let message = last_line::progress(call.caller, job).await;
        let progress = ProgressNotificationParam::new(token.clone(), start.elapsed().as_secs_f64())
            .with_message(message);
        if call.context.peer.notify_progress(progress).await.is_err() {
            return;
        }
    }
}
