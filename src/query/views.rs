//! The views as a query's connection has them: under names that nobody can know, and over those the
//! names that everybody knows.
//!
//! SQLite tells the rules on whose behalf a table is read, and does so by a name. A CTE of a user's that
//! is called like a view would be told as that view.

use rusqlite::{Connection, Error, Result};

use super::rules::{Behalf, VIEWS};

/// Length of the random part of a name, bytes.
const NAME_BYTES: usize = 16;

/// The view that a virtual table stands for here (`output_table`).
const OUTPUT: &str = "history_output";

/// Shadows the views of the file by TEMP ones; the names that may read tables from now on.
pub fn shadow(conn: &Connection) -> Result<Behalf> {
    let secret = random()?;
    let mut names = Vec::new();
    for view in VIEWS.into_iter().filter(|view| *view != OUTPUT) {
        let text: String = conn.query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = ?1",
            [view],
            |row| row.get(0),
        )?;
        let select = select_of(&text).ok_or(Error::InvalidQuery)?;
        let name = format!("{view}-{secret}");
        conn.execute_batch(&format!(
            "CREATE TEMP VIEW \"{name}\" AS {select};
             CREATE TEMP VIEW {view} AS SELECT * FROM \"{name}\";"
        ))?;
        names.push(name);
    }
    Ok(Behalf(names))
}

/// What stands behind `CREATE VIEW name AS`, as our own migrations write it.
fn select_of(text: &str) -> Option<&str> {
    text.find("SELECT").map(|at| &text[at..])
}

fn random() -> Result<String> {
    let mut bytes = [0; NAME_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| Error::InvalidQuery)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_what_stands_behind_its_name() {
        let text = "CREATE VIEW history_events AS\nSELECT v.id AS id FROM events v";
        assert_eq!(select_of(text), Some("SELECT v.id AS id FROM events v"));
        assert_eq!(select_of("CREATE VIEW x"), None);
    }
}
