//! Gives a query's connection the views under random names, and over those, views with the documented
//! names.
//!
//! SQLite tells the authorizer only by name which view reads a table. A user's CTE with the name of a
//! view would look like that view, so only views with names that no user can guess are trusted.

use rusqlite::{Connection, Error, Result};

use super::rules::{TrustedViews, VIEWS};

/// Length of the random part of a name, bytes.
const NAME_BYTES: usize = 16;

/// The view that a virtual table replaces (`output_table`).
const OUTPUT: &str = "history_output";

/// Shadows the views of the database file by TEMP ones, and returns the names of those that may read
/// tables.
pub fn shadow(conn: &Connection) -> Result<TrustedViews> {
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
    Ok(TrustedViews(names))
}

/// The text after `CREATE VIEW name AS`, as the migrations write it.
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
    fn a_view_is_the_text_after_its_name() {
        let text = "CREATE VIEW history_events AS\nSELECT v.id AS id FROM events v";
        assert_eq!(select_of(text), Some("SELECT v.id AS id FROM events v"));
        assert_eq!(select_of("CREATE VIEW x"), None);
    }
}
