//! `job.get`: one job. Values of its environment and stdin are shown only if `include` asks for them.

use serde_json::{Map, Value, value::RawValue};

use crate::{
    access::Scope,
    executor::Include,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

fn include(params: &Params<'_>) -> Result<Include, Refusal> {
    let mut include = Include::default();
    for name in params.texts("include")?.unwrap_or_default() {
        match name {
            "env" => include.env = true,
            "stdin" => include.stdin = true,
            _ => return Err(params.wrong("include", "must be a list of \"env\", \"stdin\"")),
        }
    }
    Ok(include)
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["job", "include"])?;
    let job = params.job()?;
    let include = include(&params)?;
    if include.env || include.stdin {
        caller.require(&[Scope::ReadSecrets])?;
    }
    let executor = &caller.server.executor;
    let job = executor.get(job, include).await?;
    executor.asked_for(&caller.id, job.number);
    Ok(to_raw(&job))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Option<Include> {
        let map = json!({ "include": value });
        let params = Params::new(map.as_object()?, &["include"]).ok()?;
        include(&params).ok()
    }

    #[test]
    fn only_the_two_secrets_can_be_included() {
        assert_eq!(read(json!(null)), Some(Include::default()));
        assert_eq!(
            read(json!(["stdin", "env"])),
            Some(Include {
                env: true,
                stdin: true,
                ..Include::default()
            })
        );
        assert_eq!((read(json!(["argv"])), read(json!("env"))), (None, None));
    }
}
