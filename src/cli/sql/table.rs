//! Rows as columns below a headline, one line each. Control characters are escaped.
//!
//! On a terminal the widest values are cut, so that lines fit if they can; otherwise values are
//! whole.

use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::{CellAlignment, Row, Table};
use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    result::{Cell, QueryResult},
    screen::Screen,
};
use crate::escape::visible;

/// Least width of a column, columns, so that times are whole; if the columns do not fit then, lines
/// are longer than the screen.
const COLUMN_MIN: usize = 27;
/// Number of blanks between two columns.
const BETWEEN: usize = 2;
/// Marks a value that was cut.
const CUT: &str = "…";

/// The table, each line with its newline.
pub fn text(result: &QueryResult, screen: Option<Screen>) -> String {
    let head: Vec<String> = result.columns.iter().map(|name| visible(name)).collect();
    let mut rows: Vec<Vec<String>> = result
        .rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    if let Some(screen) = screen {
        let widest = widest(&head, &rows);
        let most = limit(&widest, screen.width);
        for value in rows.iter_mut().flatten() {
            cut(value, most);
        }
    }
    lay_out(result, head, rows)
}

fn lay_out(result: &QueryResult, head: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(head);
    table.add_rows(rows.into_iter().map(Row::from));
    for column in table.column_iter_mut() {
        column.set_padding((0, BETWEEN as u16));
        if is_numeric(result, column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Whether a column has numbers, and otherwise only NULL.
fn is_numeric(result: &QueryResult, column: usize) -> bool {
    let mut numbers = 0;
    let fits = result.rows.iter().all(|row| match Cell::of(&row[column]) {
        Cell::Null => true,
        Cell::Number(_) => {
            numbers += 1;
            true
        }
        Cell::Text(_) | Cell::Blob(_) => false,
    });
    fits && numbers > 0
}

/// A value as one line with escapes. The text NULL is in quotes, to differ from a NULL.
fn cell(value: &Value) -> String {
    match Cell::of(value) {
        Cell::Null => "NULL".to_owned(),
        Cell::Number(number) => number.to_string(),
        Cell::Text("NULL") => "'NULL'".to_owned(),
        Cell::Text(text) => visible(text),
        Cell::Blob(base64) => blob(base64),
    }
}

/// A BLOB as an SQL literal.
fn blob(base64: &str) -> String {
    let bytes = BASE64_STANDARD.decode(base64).unwrap_or_default();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{hex}'")
}

/// The full width of each column, columns.
fn widest(head: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let of = |column: usize| rows.iter().map(move |row| row[column].width()).max();
    head.iter()
        .enumerate()
        .map(|(column, name)| name.width().max(of(column).unwrap_or(0)))
        .collect()
}

/// The greatest width of a value with which the lines fit: only the widest columns are cut.
fn limit(widest: &[usize], screen: usize) -> usize {
    let room = screen.saturating_sub(BETWEEN * widest.len().saturating_sub(1));
    let fits = |most: usize| widest.iter().map(|width| (*width).min(most)).sum::<usize>() <= room;
    let mut sorted = widest.to_vec();
    sorted.sort_unstable();
    if fits(usize::MAX) {
        return usize::MAX;
    }
    // From the narrowest column up: those below an equal share of what is left keep their width.
    let mut left = room;
    for (place, width) in sorted.iter().enumerate() {
        let share = left / (sorted.len() - place);
        if *width > share {
            return share.max(COLUMN_MIN);
        }
        left -= width;
    }
    usize::MAX
}

/// Cuts a value that is wider than `most`.
fn cut(value: &mut String, most: usize) {
    if value.len() <= most || value.width() <= most {
        return;
    }
    let mut width = CUT.width();
    let end = value.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or(0);
        width > most
    });
    if let Some((at, _)) = end {
        value.truncate(at);
        value.push_str(CUT);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(columns: Value, rows: Value) -> QueryResult {
        QueryResult::read(json!({"columns": columns, "rows": rows})).expect("a result")
    }

    #[test]
    fn each_row_is_a_line_and_harmless() {
        let result = result(
            json!(["n", "te\u{1b}xt"]),
            json!([[1, "a\nb\u{1b}[2J"], [20, null], [null, "NULL"], [3, {"base64": "AP8="}]]),
        );
        let expected =
            "   n  te\\x1bxt\n   1  a\\nb\\x1b[2J\n  20  NULL\nNULL  'NULL'\n   3  x'00ff'\n";
        assert_eq!(text(&result, None), expected);
    }

    #[test]
    fn no_rows_leave_the_headline() {
        let result = result(json!(["a", "b"]), json!([]));
        assert_eq!(text(&result, Some(Screen { width: 80 })), "a  b\n");
    }

    #[test]
    fn values_are_whole_where_no_terminal_is() {
        let long = "x".repeat(500);
        let result = result(json!(["a"]), json!([[long]]));
        assert!(text(&result, None).contains(&long));
    }

    #[test]
    fn on_a_terminal_the_widest_values_give_way() {
        let result = result(
            json!(["n", "name", "text", "more"]),
            json!([[1, "build", "x".repeat(500), "größe 漢字 ".repeat(9)]]),
        );
        let text = text(&result, Some(Screen { width: 80 }));
        for line in text.lines() {
            assert!(line.width() <= 80, "{} {line}", line.width());
        }
        let row = text.lines().nth(1).expect("a row");
        assert!(row.contains("1  build  xxxx"), "{row}");
        assert_eq!(row.matches(CUT).count(), 2, "{row}");
        assert!(row.width() > 70, "the room is used: {row}");
    }

    #[test]
    fn room_is_shared_by_those_that_need_it() {
        assert_eq!(limit(&[10, 10], 80), usize::MAX);
        assert_eq!(limit(&[10, 100], 52), 40);
        assert_eq!(limit(&[100, 100, 4], 88), 40);
        assert_eq!(limit(&[100; 20], 80), COLUMN_MIN);
        assert_eq!(limit(&[], 80), usize::MAX);
    }

    #[test]
    fn a_cut_falls_between_characters() {
        for (text, most, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("漢字漢字", 6, "漢字…"),
            ("ööööööö", 6, "ööööö…"),
        ] {
            let mut value = text.to_owned();
            cut(&mut value, most);
            assert_eq!(value, expected);
        }
    }
}
