//! `job.delete`: deletes a final job.

use serde_json::{Map, Value, json, value::RawValue};

use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let job = Params::new(&params, &["job"])?.job()?;
    caller.executor().delete(job).await?;
    Ok(to_raw(&json!({})))
}
