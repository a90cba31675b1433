//! On whose behalf something is done, and the decision of a policy that a job is stored with.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

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

    /// The admin, by whichever interface.
    pub fn admin(uid: Option<u32>) -> Self {
        Self {
            name: Self::ADMIN.to_owned(),
            uid,
        }
    }
}

/// By which decision of a policy a job was taken. Serialises as `policy` of `Job`, without the
/// requester; [`PolicyRecord::stored`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicyRecord {
    /// The rule that allowed it, or `default`.
    pub rule: String,
    /// SHA-256 of the policy's file, in hexadecimal.
    pub digest: String,
    /// Who asked for the job.
    pub requester: Requester,
}

impl PolicyRecord {
    /// As the database has it.
    ///
    /// # Errors
    ///
    /// Never, in practice: all of it is text.
    pub fn stored(&self) -> serde_json::Result<String> {
        let Self {
            rule,
            digest,
            requester,
        } = self;
        let stored = serde_json::json!({"rule": rule, "digest": digest, "requester": requester});
        serde_json::to_string(&stored)
    }
}

impl Serialize for PolicyRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("rule", &self.rule)?;
        map.serialize_entry("digest", &self.digest)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_stored_with_its_principal_and_shown_without() {
        let record = PolicyRecord {
            rule: "git".to_owned(),
            digest: "ab".to_owned(),
            requester: Requester::admin(Some(7)),
        };
        let stored = record.stored().expect("text");
        assert_eq!(
            serde_json::from_str::<PolicyRecord>(&stored).expect("JSON"),
            record
        );
        let shown = serde_json::to_value(&record).expect("JSON");
        assert_eq!(shown, serde_json::json!({"rule": "git", "digest": "ab"}));
    }
}
