//! The result of a query: columns, rows and values as the wire has them. `table`, `csv` and `json`
//! print them.

use serde::Deserialize;
use serde_json::Value;

/// The result of `history.query`.
#[derive(Debug, Clone, Deserialize)]
pub struct QueryResult {
    /// The columns' names, in order; a name may occur twice.
    pub columns: Vec<String>,
    /// The rows, each with one value per column.
    pub rows: Vec<Vec<Value>>,
    /// Whether the query has more rows than these.
    #[serde(default)]
    pub truncated: bool,
    /// How long the query ran, milliseconds.
    #[serde(default)]
    pub elapsed_ms: f64,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// NULL; also a real that JSON does not have (infinity).
    Null,
    /// An integer or a real, as JSON writes it.
    Number(&'a Value),
    /// Text.
    Text(&'a str),
    /// Bytes, in base64.
    Blob(&'a str),
}

impl<'a> Cell<'a> {
    /// Parses a value; one that the contract does not have counts as NULL.
    pub fn of(value: &'a Value) -> Self {
        match value {
            Value::Number(_) | Value::Bool(_) => Self::Number(value),
            Value::String(text) => Self::Text(text),
            Value::Object(blob) => match blob.get("base64").and_then(Value::as_str) {
                Some(base64) => Self::Blob(base64),
                None => Self::Null,
            },
            Value::Null | Value::Array(_) => Self::Null,
        }
    }
}

impl QueryResult {
    /// Parses a result.
    pub fn read(result: Value) -> anyhow::Result<Self> {
        let result: Self = serde_json::from_value(result)?;
        let fits = |row: &Vec<Value>| row.len() == result.columns.len();
        anyhow::ensure!(
            result.rows.iter().all(fits),
            "the server sent a row that has not one value per column"
        );
        Ok(result)
    }

    /// A line that there are more rows, and how to get them.
    pub fn truncation_note(&self) -> String {
        format!(
            "only the first {} are shown: a result has at most 1 MiB and --max-rows (up to {}); \
             LIMIT with OFFSET, or fewer and shorter columns, show others",
            rows(self.rows.len()),
            super::query::ROWS_MAX
        )
    }

    /// The line below a table at the prompt.
    pub fn footer(&self, timing: bool) -> String {
        let more = if self.truncated { " and more" } else { "" };
        let time = match timing {
            true => format!(", {} ms", self.elapsed_ms),
            false => String::new(),
        };
        format!("({}{more}{time})", rows(self.rows.len()))
    }
}

fn rows(count: usize) -> String {
    match count {
        1 => "1 row".to_owned(),
        count => format!("{count} rows"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_the_wire_has_them() {
        let blob = json!({"base64": "AA=="});
        assert_eq!(Cell::of(&blob), Cell::Blob("AA=="));
        assert_eq!(Cell::of(&json!("x")), Cell::Text("x"));
        assert_eq!(Cell::of(&Value::Null), Cell::Null);
        assert_eq!(Cell::of(&json!(1.5)), Cell::Number(&json!(1.5)));
    }

    #[test]
    fn rows_fit_their_columns() {
        let result = |rows: Value| {
            QueryResult::read(json!({"columns": ["a"], "rows": rows, "truncated": true,
                "elapsed_ms": 1.25}))
        };
        let one = result(json!([[1]])).expect("valid");
        assert_eq!(one.footer(false), "(1 row and more)");
        assert_eq!(one.footer(true), "(1 row and more, 1.25 ms)");
        assert!(
            one.truncation_note().contains("1 row "),
            "{}",
            one.truncation_note()
        );
        assert!(result(json!([[1, 2]])).is_err());
        assert!(QueryResult::read(json!({})).is_err());
    }
}
