//! The views of the history and their columns, for completion and `\d`. The names of the views are
//! part of the contract; the columns come from the server, because one of another version may have
//! more.

use serde_json::Value;

use super::query;
use crate::cli::connect::link::Link;

/// The views of the contract.
const VIEWS: [&str; 4] = [
    "history_jobs",
    "history_attempts",
    "history_events",
    "history_output",
];

/// A view and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewColumns {
    /// The view's name.
    pub name: String,
    /// The columns' names, in order; empty if the server did not answer.
    pub columns: Vec<String>,
}

/// The names that a query can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryNames {
    /// The views, in the order of the contract.
    pub views: Vec<ViewColumns>,
}

impl Default for QueryNames {
    /// The views without their columns.
    fn default() -> Self {
        let view = |name: &str| ViewColumns {
            name: name.to_owned(),
            columns: Vec::new(),
        };
        Self {
            views: VIEWS.map(view).into(),
        }
    }
}

impl QueryNames {
    /// Asks the server for the columns. After an error they stay empty: the user's first query will
    /// show the error.
    pub async fn fetch(link: &mut Link) -> Self {
        let mut names = Self::default();
        for view in &mut names.views {
            let sql = format!("SELECT * FROM {} LIMIT 0", view.name);
            let params = query::params(&sql, None, None);
            let Ok(result) = link.request(query::METHOD, &params).await else {
                break;
            };
            let columns = result["columns"].as_array().into_iter().flatten();
            view.columns = columns.filter_map(Value::as_str).map(Into::into).collect();
        }
        names
    }

    /// The view of this name, in any case of letters.
    pub fn view(&self, name: &str) -> Option<&ViewColumns> {
        let mut views = self.views.iter();
        views.find(|view| view.name.eq_ignore_ascii_case(name))
    }
}
