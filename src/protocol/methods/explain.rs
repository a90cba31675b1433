//! `job.explain`: why a job is where it is.

use serde_json::{Map, Value, value::RawValue};

use crate::protocol::{
    caller::Caller,
    jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let job = Params::new(&params, &["job"])?.job()?;
    let principal = caller.principal();
    let explained = caller.server.executor.explain(job, &principal);
    Ok(to_raw(&explained.await?))
}
