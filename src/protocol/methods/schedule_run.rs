//! `schedule.run`: submits a run of a schedule now.

use serde_json::{Map, Value, json, value::RawValue};

use super::{schedule_set::name, submit::check_not_draining};
use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

/// The longest key of a request, bytes; the job's idempotency key has the schedule's name before it.
const KEY_BYTES_MAX: usize = 128;

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["name", "key"])?;
    let (name, key) = (name(&params)?, params.text("key")?);
    if key.is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        let message = format!("must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(params.wrong("key", &message));
    }
    check_not_draining(caller)?;
    let executor = &caller.executor();
    let (job, created) = executor.run_schedule(&name, key, &caller.actor()).await?;
    Ok(to_raw(&json!({"job": job, "created": created})))
}
