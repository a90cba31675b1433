//! The prompt of `sql`, the formats of a result (tables, CSV, JSON), and the queries of other verbs.

pub(super) mod command;
pub(super) mod complete;
pub(super) mod csv;
mod editor;
pub(super) mod flows;
pub(super) mod format;
pub(super) mod history;
pub(super) mod json;
pub(super) mod names;
pub(super) mod pager;
pub(super) mod params;
pub(super) mod prompt;
pub(super) mod query;
pub(super) mod result;
pub(super) mod screen;
pub(super) mod statement;
pub(super) mod table;
pub(super) mod words;
