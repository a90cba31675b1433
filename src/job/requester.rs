//! On whose behalf something is done, and the decision of a policy that a job is stored with.

use serde::{Deserialize, Serialize, Serializer};

/// On whose behalf something is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Its name: that of a token, or [`Requester::ADMIN`].
    pub name: String,
    /// The user at the other end of a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl Requester {
    /// The name of the one who may do everything.
    pub const ADMIN: &'static str = "admin";

    /// Who counts as the requester of a job of which none is stored: the admin, as the server's user.
    pub fn default_one() -> Self {
        Self::admin(Some(rustix::process::geteuid().as_raw()))
    }

    /// The admin, by whichever interface.
    pub fn admin(uid: Option<u32>) -> Self {
        Self {
            name: Self::ADMIN.to_owned(),
            uid,
        }
    }
}

/// The decision of a policy to take a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDecision {
    /// The rule that allowed it, or `default`.
    pub rule: String,
    /// SHA-256 of the policy's file, in hexadecimal.
    pub digest: String,
}

/// By which decision of a policy a job was taken, and for whom. Serialises as `policy` of `Job`, which is
/// the decision; [`PolicyRecord::stored`] has the requester, too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicyRecord {
    /// The decision; `None` where there was no policy.
    #[serde(flatten)]
    pub decision: Option<PolicyDecision>,
    /// Who asked for the job.
    pub requester: Requester,
}

impl PolicyRecord {
    /// Whether there is nothing to show.
    pub fn has_no_decision(record: &Option<Self>) -> bool {
        record
            .as_ref()
            .is_none_or(|record| record.decision.is_none())
    }

    /// As the database has it.
    ///
    /// # Errors
    ///
    /// Never, in practice: all of it is text.
    pub fn stored(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct StoredPolicy<'a> {
            #[serde(flatten)]
            decision: Option<&'a PolicyDecision>,
            requester: &'a Requester,
        }
        serde_json::to_string(&StoredPolicy {
            decision: self.decision.as_ref(),
            requester: &self.requester,
        })
    }
}

impl Serialize for PolicyRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.decision.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_stored_with_its_requester_and_shown_without() {
        let mut record = PolicyRecord {
            decision: Some(PolicyDecision {
                rule: "git".to_owned(),
                digest: "ab".to_owned(),
            }),
            requester: Requester::admin(Some(7)),
        };
        let read = |stored: &str| serde_json::from_str::<PolicyRecord>(stored).expect("JSON");
        assert_eq!(read(&record.stored().expect("text")), record);
        let shown = serde_json::to_value(&record).expect("JSON");
        assert_eq!(shown, serde_json::json!({"rule": "git", "digest": "ab"}));
        record.decision = None;
        assert_eq!(read(&record.stored().expect("text")), record);
        let shown = serde_json::to_value(&record).expect("JSON");
        assert_eq!(shown, serde_json::Value::Null);
    }
}
