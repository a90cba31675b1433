//! `retention.delete`: deletes a rule.

use serde_json::{Map, Value, json, value::RawValue};

use super::retention_set::name;
use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let name = name(&Params::new(&params, &["rule"])?)?;
    caller.executor().delete_retention_rule(&name).await?;
    Ok(to_raw(&json!({})))
}
