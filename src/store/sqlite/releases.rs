//! Which final jobs others still wait for. `dependencies` lets those follow.

use std::collections::VecDeque;

use sqlx::SqliteConnection;

use crate::job::JobNumber;

/// Final jobs whose dependants have to follow, in the order of their ends.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Releases(VecDeque<JobNumber>);

impl Releases {
    /// Those that a kill has left.
    pub async fn load(conn: &mut SqliteConnection) -> sqlx::Result<Self> {
        let left = sqlx::query_scalar!(
            // Blocked jobs are few beside the final ones.
            r#"SELECT DISTINCT d.on_job AS "job!: i64" FROM jobs AS b INDEXED BY jobs_state
               CROSS JOIN dependencies AS d ON d.job = b.number AND d.waiting = 1
               CROSS JOIN jobs AS j ON j.number = d.on_job
               WHERE b.state = 'blocked' AND j.state IN ('succeeded', 'failed', 'cancelled')
               ORDER BY d.on_job"#
        )
        .fetch_all(conn)
        .await?;
        Ok(Self(left.into()))
    }

    /// A job has become final.
    pub fn add(&mut self, job: JobNumber) {
        self.0.push_back(job);
    }

    /// Up to so many of them, the first ones.
    pub fn first(&self, most: usize) -> Vec<JobNumber> {
        self.0.iter().copied().take(most).collect()
    }

    /// All who waited for the first `count` have followed.
    pub fn drop_first(&mut self, count: usize) {
        self.0.drain(..count);
    }

    /// Whether nobody has to follow.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
