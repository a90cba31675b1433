//! `server.disk_usage`: what the data directory takes on the disk, and which jobs, queues and labels
//! take most of it. It looks at every job, and runs beside the session's other requests.

use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    config::Settings,
    executor::{DiskTotals, DiskUsage},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

/// Entries of each list if `limit` is not given.
const LIMIT_DEFAULT: u64 = 10;
/// Most entries of each list.
pub const LIMIT_MAX: u64 = 100;

/// The totals as every interface shows them.
pub fn totals(totals: &DiskTotals, settings: &Settings) -> Value {
    json!({
        "bytes": totals.all(),
        "database_bytes": totals.database_bytes,
        "log_bytes": totals.log_bytes,
        "spool_bytes": totals.spool_bytes,
        "other_bytes": totals.other_bytes,
        "warn_bytes": settings.disk_warn_bytes,
    })
}

fn view(usage: &DiskUsage, settings: &Settings) -> Value {
    let jobs = usage.jobs.iter().map(|job| {
        json!({"number": job.number, "name": job.name, "queue": job.queue,
            "state": job.state.name(), "bytes": job.bytes})
    });
    let queues = usage.queues.iter();
    let queues =
        queues.map(|(queue, sum)| json!({"queue": queue, "jobs": sum.jobs, "bytes": sum.bytes}));
    let labels = usage.labels.iter().map(|((key, value), sum)| {
        json!({"key": key, "value": value, "jobs": sum.jobs, "bytes": sum.bytes})
    });
    let mut view = totals(&usage.totals, settings);
    view["free_bytes"] = json!(usage.free_bytes);
    view["can_shrink"] = json!(usage.can_shrink);
    view["jobs"] = jobs.collect();
    view["queues"] = queues.collect();
    view["more_queues"] = json!(usage.more_queues);
    view["labels"] = labels.collect();
    view["more_labels"] = json!(usage.more_labels);
    view
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["limit"])?;
    let limit = params.number("limit", 1, LIMIT_MAX)?;
    let limit = usize::try_from(limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(usize::MAX);
    let usage = caller.server.executor.disk_usage(limit).await?;
    Ok(to_raw(&view(&usage, &caller.server.settings)))
}
