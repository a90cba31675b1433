//! `schedule.list`: all schedules, by name, with their next times.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::schedule_set::ScheduleJson;
use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    methods::{fitting, job_bytes_max},
};

const KEYS: [&str; 1] = ["cursor"];

#[derive(Debug, Serialize)]
struct ScheduleListView {
    schedules: Vec<Box<RawValue>>,
    /// Present if not all schedules fit into one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let cursor = params.text("cursor")?.unwrap_or_default();
    let schedules = caller.server.executor.schedules().await?;
    let begin = schedules.partition_point(|view| view.schedule.name.as_str() <= cursor);
    let rest = &schedules[begin..];
    let bytes_max = job_bytes_max(&caller.server.settings);
    let (shown, all) = fitting(rest.iter().map(ScheduleJson::of), bytes_max);
    let last = shown.len().checked_sub(1);
    let last = last.map(|last| rest[last].schedule.name.clone());
    Ok(to_raw(&ScheduleListView {
        schedules: shown,
        next_cursor: last.filter(|_| !all),
    }))
}
