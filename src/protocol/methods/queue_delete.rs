//! `queue.delete`: deletes a queue.

use serde_json::{Map, Value, json, value::RawValue};

use super::queue_set::name;
use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let name = name(&Params::new(&params, &["queue"])?)?;
    caller.executor().delete_queue(&name).await?;
    Ok(to_raw(&json!({})))
}
