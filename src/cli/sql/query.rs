//! The parameters of `history.query`, and reading a query from stdin. Does not parse SQL.

use std::io::Read;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{cli::connect::wire, sys::waiting_io::WaitingIo};

/// Most rows that one query returns; the server's setting may be lower.
pub const ROWS_MAX: i64 = 10_000;

/// The method that runs a query.
pub const METHOD: &str = "history.query";

/// The parameters of the request.
pub fn params(sql: &str, params: Option<Value>, max_rows: Option<i64>) -> Value {
    let mut request = json!({"sql": sql});
    if let Some(params) = params {
        request["params"] = params;
    }
    if let Some(max_rows) = max_rows {
        request["max_rows"] = json!(max_rows);
    }
    request
}

/// The query on stdin, up to its end.
pub fn from_stdin() -> anyhow::Result<String> {
    read(WaitingIo(std::io::stdin()))
}

fn read(from: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(wire::MESSAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .context("the query cannot be read from stdin")?;
    if bytes.len() > wire::MESSAGE_BYTES_MAX {
        bail!(
            "the query on stdin is longer than a message may be ({} bytes)",
            wire::MESSAGE_BYTES_MAX
        );
    }
    let sql = String::from_utf8(bytes).context("the query on stdin is not UTF-8")?;
    if sql.trim().is_empty() {
        bail!("there is no query; give it after `sql`, or on stdin");
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_asked() {
        assert_eq!(params("q", None, None), json!({"sql": "q"}));
        assert_eq!(
            params("q", Some(json!([1])), Some(5)),
            json!({"sql": "q", "params": [1], "max_rows": 5})
        );
    }

    #[test]
    fn stdin_holds_a_query_or_says_what_is_wrong() {
        assert_eq!(read(&b"x\n"[..]).expect("a query"), "x\n");
        for wrong in [
            Vec::new(),
            b" \n\t".to_vec(),
            vec![0xff],
            vec![b'x'; wire::MESSAGE_BYTES_MAX + 1],
        ] {
            assert!(read(&wrong[..]).is_err());
        }
    }
}
