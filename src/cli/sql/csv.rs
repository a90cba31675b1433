//! Rows as comma-separated values: RFC 4180, but with LF, as Unix tools read it. A NULL is an empty
//! field, an empty text is `""`, a BLOB is base64.

use serde_json::Value;

use super::result::{Cell, QueryResult};
use crate::escape::visible;

/// The headline and the rows. For a terminal, control characters are escaped; otherwise values are
/// exact.
pub fn text(result: &QueryResult, on_terminal: bool) -> String {
    let field = |text: &str| match on_terminal {
        true => quoted(&visible(text)),
        false => quoted(text),
    };
    let mut lines = vec![line(result.columns.iter().map(|name| field(name)))];
    for row in &result.rows {
        lines.push(line(row.iter().map(|value| of(value, &field))));
    }
    lines.concat()
}

fn line(fields: impl Iterator<Item = String>) -> String {
    let mut line = fields.collect::<Vec<_>>().join(",");
    line.push('\n');
    line
}

fn of(value: &Value, field: &impl Fn(&str) -> String) -> String {
    match Cell::of(value) {
        Cell::Null => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => field(text),
        Cell::Blob(base64) => field(base64),
    }
}

/// In quotes if a reader would split it, trim it, or take it for a NULL.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.trim() == text && !text.contains(['"', ',', '\n', '\r']);
    if plain {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> QueryResult {
        QueryResult::read(json!({"columns": ["a", "b,c"], "rows": [
            [1, "plain"], [null, ""], [0.5, "q\"u,o\nte\r"], [-1, " x"], [2, {"base64": "AP8="}],
            ["\u{1b}[2J", "größe"],
        ]}))
        .expect("a result")
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let expected = "a,\"b,c\"\n1,plain\n,\"\"\n0.5,\"q\"\"u,o\nte\r\"\n-1,\" x\"\n2,AP8=\n\u{1b}[2J,größe\n";
        assert_eq!(text(&result(), false), expected);
    }

    #[test]
    fn a_terminal_gets_nothing_that_it_acts_on() {
        let text = text(&result(), true);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert!(text.contains("q\"\"u,o\\nte\\r"), "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}
