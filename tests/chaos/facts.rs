//! What is said of a job that is final. Two who ask must hear the same, now and for ever.

use serde_json::Value;

/// The part of a final Job that never changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub state: String,
    pub reason: Option<String>,
    pub exit_code: Option<i64>,
    pub signal: Option<String>,
    pub attempts: u64,
    pub output_bytes: u64,
    pub output_sha256: Option<String>,
    pub stop_cause: Option<String>,
    pub survivors: usize,
    /// Because of which other job it failed, as JSON.
    pub failed_dependency: Option<String>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

impl Facts {
    /// Reads a Job; `None` if it is not final.
    pub fn of(job: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let state = text(&job["state"])?;
        ["succeeded", "failed", "cancelled"]
            .contains(&state.as_str())
            .then(|| Self {
                state,
                reason: text(&job["reason"]),
                exit_code: job["exit_code"].as_i64(),
                signal: text(&job["signal"]),
                attempts: job["attempts"].as_u64().unwrap_or(u64::MAX),
                output_bytes: job["output_bytes"].as_u64().unwrap_or(u64::MAX),
                output_sha256: text(&job["output_sha256"]),
                stop_cause: text(&job["stop"]["cause"]),
                survivors: job["survivors"].as_array().map_or(0, Vec::len),
                failed_dependency: Some(&job["failed_dependency"])
                    .filter(|other| !other.is_null())
                    .map(Value::to_string),
                started_at: text(&job["started_at"]),
                finished_at: text(&job["finished_at"]),
            })
    }

    /// State and reason, as one word for tables.
    pub fn word(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.clone(),
        }
    }

    /// Whether nobody can know how it ended.
    pub fn is_lost(&self) -> bool {
        self.reason.as_deref() == Some("lost")
    }
}
