//! `history.query`: one statement over the views of the history. It runs beside the session's other
//! requests.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::{QueryAnswer, QueryParams},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::job_bytes_max,
    },
};

const KEYS: [&str; 3] = ["sql", "params", "max_rows"];

fn options(params: &Map<String, Value>) -> Result<(String, QueryParams, Option<u64>), Refusal> {
    let params = Params::new(params, &KEYS)?;
    let sql = params
        .text("sql")?
        .ok_or_else(|| params.wrong("sql", "missing"))?;
    let values = match params.get("params") {
        None | Some(Value::Null) => QueryParams::Listed(Vec::new()),
        Some(Value::Array(values)) => QueryParams::Listed(values.clone()),
        Some(Value::Object(values)) => QueryParams::Named(values.clone()),
        Some(_) => return Err(params.wrong("params", "must be a list or an object")),
    };
    let max_rows = params.number("max_rows", 1, crate::protocol::jsonrpc::params::OFFSET_MAX)?;
    Ok((sql.to_owned(), values, max_rows))
}

#[derive(Serialize)]
struct QueryView<'a> {
    columns: &'a [String],
    rows: &'a RawValue,
    truncated: bool,
    elapsed_ms: u64,
}

/// Runs the query. Its answer may be as long as a message.
pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let (sql, values, max_rows) = options(&params)?;
    drop(params);
    let server = &caller.server;
    let bytes_max = job_bytes_max(&server.settings) as u64;
    let asked = server.executor.query(sql, values, max_rows, bytes_max);
    let QueryAnswer { rows, elapsed } = asked.await?;
    Ok(to_raw(&QueryView {
        columns: &rows.columns,
        rows: &rows.rows,
        truncated: rows.truncated,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<(String, QueryParams, Option<u64>), Refusal> {
        options(value.as_object().expect("an object"))
    }

    #[test]
    fn parameters_come_as_a_list_or_by_name() {
        let (sql, values, rows) = parse(json!({"sql": "some question"})).expect("valid");
        assert_eq!((sql.as_str(), rows), ("some question", None));
        assert_eq!(values, QueryParams::Listed(Vec::new()));
        let (_, values, rows) =
            parse(json!({"sql": "", "params": [1, "x"], "max_rows": 5})).expect("valid");
        assert_eq!(rows, Some(5));
        assert_eq!(values, QueryParams::Listed(vec![json!(1), json!("x")]));
        let (_, values, _) = parse(json!({"sql": "", "params": {"a": 1}})).expect("valid");
        assert!(matches!(values, QueryParams::Named(map) if map["a"] == 1));
        for wrong in [
            json!({}),
            json!({"sql": 1}),
            json!({"sql": "", "params": 1}),
            json!({"sql": "", "max_rows": 0}),
            json!({"sql": "", "rows": 1}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
