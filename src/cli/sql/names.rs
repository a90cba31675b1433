//! The views that can be params, and their columns as the server tells them.
//!
//! The names of the views are part of the contract; their columns are params for, because a server
//! of another version may have more.

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

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewColumns {
    /// Its name.
    pub name: String,
    /// Its columns, in order; empty where the server did not tell.
    pub columns: Vec<String>,
}

/// What can be named in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryNames {
    /// The views.
    pub views: Vec<ViewColumns>,
}

impl Default for QueryNames {
    /// The views alone.
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
    /// Asks the server for the columns. Whatever goes wrong leaves them out: the first query of the
    /// person will say what it is.
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

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<&ViewColumns> {
        let mut views = self.views.iter();
        views.find(|view| view.name.eq_ignore_ascii_case(name))
    }
}
