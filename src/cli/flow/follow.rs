//! Waits until all jobs of a flow have ended, and cancels a flow. Its jobs may become more meanwhile.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{
    labels::StepPart,
    state::{self, FlowState},
};
use crate::cli::connect::link::Link;

/// The most jobs that one request waits for.
const WAITED_MAX: usize = 100;
/// How long the server's reply may come after the timeout.
const REPLY_LATE_MAX: Duration = Duration::from_secs(3);
/// The shortest timeout that is sent.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Waits until the flow has ended; `seen` gets it each time that it is looked at. `None` after the deadline.
pub async fn to_end(
    link: &mut Link,
    id: &str,
    deadline: Option<Instant>,
    mut seen: impl FnMut(&FlowState) -> anyhow::Result<()>,
) -> anyhow::Result<Option<FlowState>> {
    loop {
        let flow = state::load(link, id).await?;
        seen(&flow)?;
        if flow.is_final() {
            return Ok(Some(flow));
        }
        let mut params = json!({"jobs": waited(&flow), "mode": "any"});
        let Some(deadline) = deadline else {
            link.try_request("job.wait", &params).await?;
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        params["timeout_s"] = json!(left.max(TIMEOUT_MIN).as_secs_f64());
        let asked = link.try_request("job.wait", &params);
        match timeout_at(deadline + REPLY_LATE_MAX, asked).await {
            Ok(reply) => drop(reply?),
            Err(_) => {
                link.mark_lost();
                return Ok(None);
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Jobs of which one ends next: what is blocked waits for one of the others.
fn waited(flow: &FlowState) -> Vec<&str> {
    let live = flow.jobs.iter().filter(|job| !job.shown.is_final());
    let (blocked, moving): (Vec<_>, Vec<_>) = live.partition(|job| job.shown.state == "blocked");
    let jobs = moving.into_iter().chain(blocked);
    jobs.take(WAITED_MAX)
        .map(|job| job.shown.id.as_str())
        .collect()
}

/// Cancels all jobs of a flow; returns how many were asked to end.
pub async fn cancel(link: &mut Link, id: &str) -> anyhow::Result<usize> {
    let mut asked = BTreeSet::new();
    loop {
        let flow = state::load(link, id).await?;
        let live = flow.jobs.iter().filter(|job| !job.shown.is_final());
        let mut left: Vec<_> = live
            .filter(|job| !asked.contains(&job.shown.number))
            .collect();
        if left.is_empty() {
            return Ok(asked.len());
        }
        // A review first, because it submits jobs; then backwards, so that nothing starts meanwhile.
        left.sort_by_key(|job| {
            (
                job.part != StepPart::Review,
                std::cmp::Reverse(job.shown.number),
            )
        });
        for job in left {
            let params = json!({"job": job.shown.id, "action": "cancel", "actor": "cli"});
            link.request("job.control", &params).await?;
            asked.insert(job.shown.number);
        }
    }
}
