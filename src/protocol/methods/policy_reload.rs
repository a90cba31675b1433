//! `policy.reload`: loads the policy's file once more. A file that is wrong changes nothing.

use serde_json::{Map, Value, value::RawValue};

use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    Params::new(&params, &[])?;
    Ok(to_raw(&caller.executor().reload_policy().await?))
}
