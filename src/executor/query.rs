//! Asking the history: one statement, by a process of its own.
//!
//! What a statement may do is the business of `query`.

use super::{Error, Executor};
use crate::query::{QueryAnswer, QueryParams};

impl Executor {
    /// The rows of one statement of a user over the views of the history: at most `rows_max`, or as
    /// the setting says, and of at most `bytes_max` bytes as JSON. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// The statement is wrong or not allowed, or takes more than queries may have.
    pub async fn query(
        &self,
        sql: String,
        params: QueryParams,
        rows_max: Option<u64>,
        bytes_max: u64,
    ) -> Result<QueryAnswer, Error> {
        let queries = &self.inner.queries;
        Ok(queries.run(sql, params, rows_max, bytes_max).await?)
    }
}
