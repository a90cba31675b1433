//! The rules of retention, and the jobs whose removal has begun.

use sqlx::{SqliteConnection, SqlitePool};

use crate::{
    job::{JobNumber, RetentionRule, RetentionScope},
    store::sqlite::columns::{from_json, json, malformed},
};

/// Stores a rule, or replaces the one with its name; false where there are too many.
pub(super) async fn set(conn: &mut SqliteConnection, rule: &RetentionRule) -> sqlx::Result<bool> {
    let text = json(rule)?;
    let done = sqlx::query!(
        "INSERT INTO retention_rules (name, rule)
         SELECT ?1, ?2
         WHERE (SELECT count(*) FROM retention_rules) < ?3
            OR EXISTS (SELECT 1 FROM retention_rules WHERE name = ?1)
         ON CONFLICT (name) DO UPDATE SET rule = excluded.rule",
        rule.name,
        text,
        RetentionRule::COUNT_MAX
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a rule; whether there was one.
pub(super) async fn delete(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM retention_rules WHERE name = ?1", name)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// All rules, by name.
pub(in crate::store) async fn all(readers: &SqlitePool) -> sqlx::Result<Vec<RetentionRule>> {
    let rows =
        sqlx::query_scalar!(r#"SELECT rule AS "rule!: String" FROM retention_rules ORDER BY name"#)
            .fetch_all(readers)
            .await?;
    rows.iter().map(|rule| from_json(rule)).collect()
}

/// The jobs whose removal has begun and is not complete.
pub(in crate::store) async fn begun(
    readers: &SqlitePool,
) -> sqlx::Result<Vec<(JobNumber, RetentionScope)>> {
    let rows = sqlx::query!(
        r#"SELECT job AS "job!: i64", scope AS "scope!: String" FROM removals ORDER BY job"#
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().map(|row| match row.scope.as_str() {
        "jobs" => Ok((row.job, RetentionScope::Jobs)),
        "outputs" => Ok((row.job, RetentionScope::Outputs)),
        other => Err(malformed(format!("no removal has the scope {other}"))),
    });
    rows.collect()
}
