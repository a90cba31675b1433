//! Queries over the history: one statement, in a process of its own. `query` decides what a
//! statement may do.

use super::{Error, Executor};
use crate::query::{QueryAnswer, QueryParams};

impl Executor {
    /// The rows of a user's statement over the views of the history: up to `rows_max`, or the
    /// setting's bound, and up to `bytes_max` bytes as JSON. Dropping the future stops the
    /// statement.
    ///
    /// # Errors
    ///
    /// The statement is wrong or not allowed, or exceeds a bound of queries.
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
