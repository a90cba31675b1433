//! `schedule.delete`: deletes a schedule; its jobs stay.

use serde_json::{Map, Value, json, value::RawValue};

use super::schedule_set::name;
use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let name = name(&Params::new(&params, &["name"])?)?;
    caller.executor().delete_schedule(&name).await?;
    Ok(to_raw(&json!({})))
}
