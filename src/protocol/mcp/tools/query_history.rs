//! `query_history`: SQL over all jobs; rows as a table of text.

use serde_json::{Value, json};

use super::{
    super::reply::{self, NextCall, Reply, body_chars},
    arguments,
    call::{ToolCall, object},
};
use crate::{
    executor::QueryParams,
    protocol::{
        jsonrpc::{error::Refusal, params::OFFSET_MAX},
        methods::job_bytes_max,
    },
};

const KEYS: [&str; 4] = ["sql", "params", "max_rows", "max_chars"];
/// Longest value in a row, characters.
const VALUE_CHARS_MAX: usize = 300;

/// The arguments.
pub fn schema() -> Value {
    object(
        &["sql"],
        json!({
            "sql": {"type": "string", "description": "one SELECT"},
            "params": {"description": "list or object of bound values"},
            "max_rows": {"type": "integer"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let chars = arguments::max_chars(&params)?;
    let sql = params
        .text("sql")?
        .ok_or_else(|| params.wrong("sql", "missing"))?;
    let values = match params.get("params") {
        None => QueryParams::Listed(Vec::new()),
        Some(Value::Array(values)) => QueryParams::Listed(values.clone()),
        Some(Value::Object(values)) => QueryParams::Named(values.clone()),
        Some(_) => return Err(params.wrong("params", "must be a list or an object")),
    };
    let rows_max = params.number("max_rows", 1, OFFSET_MAX)?;
    let server = &call.caller.server;
    let bytes_max = job_bytes_max(&server.settings) as u64;
    let asked = server
        .executor
        .query(sql.to_owned(), values, rows_max, bytes_max);
    let answer = asked.await?;
    let rows: Vec<Vec<Value>> = serde_json::from_str(answer.rows.rows.get())
        .map_err(|error| Refusal::new(crate::protocol::ErrorKind::Internal, error.to_string()))?;
    let next = next(&answer.rows.columns, &rows);
    let (body, shown) = table(
        &answer.rows.columns,
        &rows,
        body_chars(&" ".repeat(80), &next, chars),
    );
    let status = match (shown == rows.len(), answer.rows.truncated) {
        (true, false) => format!("{} rows", rows.len()),
        (true, true) => format!("{} rows; there are more, use LIMIT and OFFSET", rows.len()),
        (false, _) => format!(
            "{shown} of {} rows shown; select fewer columns or rows",
            rows.len()
        ),
    };
    Ok(Reply::text(reply::compose(&status, &body, &next, chars)))
}

/// The log of the first row's job, if the rows tell a job.
fn next(columns: &[String], rows: &[Vec<Value>]) -> NextCall {
    let at = columns
        .iter()
        .position(|name| name == "number" || name == "job");
    let job = at.and_then(|at| rows.first()?.get(at)?.as_i64());
    match job {
        Some(job) => NextCall::new("read_output", json!({"job": job})),
        None => NextCall::new("list_jobs", json!({"limit": 10})),
    }
}

/// The rows that fit, fields separated by ` | `, and how many they are.
fn table(columns: &[String], rows: &[Vec<Value>], chars_max: usize) -> (String, usize) {
    let mut text = columns.join(" | ");
    text.push('\n');
    let mut used = text.chars().count();
    for (shown, row) in rows.iter().enumerate() {
        let fields: Vec<String> = row.iter().map(field).collect();
        let line = fields.join(" | ");
        used += line.chars().count() + 1;
        if used > chars_max {
            return (text, shown);
        }
        text.push_str(&line);
        text.push('\n');
    }
    (text, rows.len())
}

fn field(value: &Value) -> String {
    let text = match value {
        Value::String(text) => crate::escape::visible(text).to_string(),
        Value::Null => "NULL".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_rows_are_shown() {
        let columns = ["a".to_owned(), "b".to_owned()];
        let rows = vec![vec![json!(1), json!("x\ny")], vec![json!(null), json!("z")]];
        let (text, shown) = table(&columns, &rows, 1_000);
        assert_eq!((text.as_str(), shown), ("a | b\n1 | x\\ny\nNULL | z\n", 2));
        let (text, shown) = table(&columns, &rows, 18);
        assert_eq!((text.as_str(), shown), ("a | b\n1 | x\\ny\n", 1));
    }
}
