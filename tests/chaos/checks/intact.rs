//! What the server itself says when it is asked to verify a job: that it is intact.
//! Does not ask.

use serde_json::Value;

use super::Violation;
use crate::plan::Key;

const NAME: &str = "intact";

/// A verdict that names a problem.
pub fn check(job: Key, verdict: &Value) -> Option<Violation> {
    let intact = verdict["intact"] == true;
    (!intact).then(|| Violation::of(NAME, job, verdict.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_intact_job_passes() {
        assert_eq!(check(0, &json!({"intact": true, "problems": []})), None);
        for wrong in [json!({"intact": false}), json!({}), json!(null)] {
            assert!(check(0, &wrong).is_some(), "{wrong}");
        }
    }
}
