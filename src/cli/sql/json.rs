//! Rows as one JSON array of objects, a row per line, keys in the order of the columns.
//!
//! The second column of the same name gets the key `NAME:2`, so that no value is lost.

use std::collections::HashSet;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::result::QueryResult;
use crate::escape;

/// The rows as text.
pub fn text(result: &QueryResult) -> String {
    let keys = keys(&result.columns);
    let rows: Vec<String> = result.rows.iter().map(|row| object(&keys, row)).collect();
    format!("[{}]\n", escape::visible_json(&rows.join(",\n")))
}

fn object(keys: &[String], row: &[Value]) -> String {
    serde_json::to_string(&JsonRow(keys, row)).expect("keys and JSON values are JSON")
}

/// Serializes a row with its keys in the order of the columns; a JSON map would sort them.
struct JsonRow<'a>(&'a [String], &'a [Value]);

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A unique key for each column. The first column of a name keeps the name.
fn keys(columns: &[String]) -> Vec<String> {
    let mut taken: HashSet<String> = columns.iter().cloned().collect();
    let mut seen = HashSet::new();
    columns
        .iter()
        .map(|name| {
            if seen.insert(name.clone()) {
                return name.clone();
            }
            let free = (2..).map(|n: u32| format!("{name}:{n}"));
            let key = free
                .into_iter()
                .find(|key| taken.insert(key.clone()))
                .expect("numbers do not end");
            seen.insert(key.clone());
            key
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(columns: Value, rows: Value) -> QueryResult {
        QueryResult::read(json!({"columns": columns, "rows": rows})).expect("a result")
    }

    #[test]
    fn rows_are_objects_in_the_order_of_the_columns() {
        let result = result(
            json!(["z", "a"]),
            json!([[1, "x\u{9b}\n"], [null, {"base64": "AA=="}]]),
        );
        let expected =
            "[{\"z\":1,\"a\":\"x\\u009b\\n\"},\n{\"z\":null,\"a\":{\"base64\":\"AA==\"}}]\n";
        assert_eq!(text(&result), expected);
    }

    #[test]
    fn no_rows_are_an_empty_array() {
        assert_eq!(text(&result(json!(["a"]), json!([]))), "[]\n");
    }

    #[test]
    fn columns_of_one_name_lose_no_value() {
        let columns = ["n", "n:2", "n", "n", "m"].map(str::to_owned);
        assert_eq!(keys(&columns), ["n", "n:2", "n:3", "n:4", "m"]);
        let result = result(json!(["a", "a"]), json!([[1, 2]]));
        assert_eq!(text(&result), "[{\"a\":1,\"a:2\":2}]\n");
    }
}
