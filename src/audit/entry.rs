//! An entry of the trail: who did what to what, whether it was allowed, and what came of it.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value, json};

use super::canonical::canonical;
use crate::{access::ClientOrigin, job::Micros};

/// The version of the entries' form.
const VERSION: u32 = 1;

/// Whether something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditDecision {
    /// It was, and `result` says what came of it.
    Allowed,
    /// It was refused; `result` says by which rule and how often.
    Refused,
}

impl AuditDecision {
    /// As entries have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// An entry that has no place in the chain yet. It must hold no values of environments, inputs or stdin, and no
/// secrets.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// What was done, such as `job.submit`.
    pub action: Cow<'static, str>,
    /// Who has asked for it.
    pub origin: Arc<ClientOrigin>,
    /// What it was done to.
    pub target: Value,
    /// Whether it was done.
    pub decision: AuditDecision,
    /// What came of it.
    pub result: Value,
}

impl AuditEntry {
    /// Something that was done.
    pub fn allowed(
        action: impl Into<Cow<'static, str>>,
        origin: Arc<ClientOrigin>,
        target: Value,
        result: Value,
    ) -> Self {
        Self {
            action: action.into(),
            origin,
            target,
            decision: AuditDecision::Allowed,
            result,
        }
    }

    /// The text that is stored and hashed, as the entry number `seq`.
    pub fn text(&self, seq: u64, at: Micros) -> String {
        let ClientOrigin {
            name,
            token,
            uid,
            pid,
            door,
            peer,
            session,
        } = &*self.origin;
        let mut actor = Map::new();
        actor.insert("name".to_owned(), name.as_str().into());
        let numbers = [
            ("token", *token),
            ("uid", uid.map(i64::from)),
            ("pid", pid.map(i64::from)),
        ];
        for (key, number) in numbers {
            actor.extend(number.map(|number| (key.to_owned(), number.into())));
        }
        let mut entry = json!({
            "v": VERSION,
            "seq": seq,
            "at": at.0,
            "action": self.action,
            "actor": actor,
            "door": door,
            "target": self.target,
            "decision": self.decision.name(),
            "result": self.result,
        });
        for (key, value) in [("peer", peer), ("session", session)] {
            if let Some(value) = value {
                entry[key] = value.as_str().into();
            }
        }
        canonical(&entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_canonical_text() {
        let origin = ClientOrigin {
            token: Some(3),
            uid: Some(1000),
            pid: Some(7),
            ..ClientOrigin::within("unix", "ci")
        };
        let entry = AuditEntry::allowed(
            "job.cancel",
            Arc::new(origin),
            json!({"job": 17}),
            json!({}),
        );
        assert_eq!(
            entry.text(9, Micros(5)),
            "{\"action\":\"job.cancel\",\"actor\":{\"name\":\"ci\",\"pid\":7,\"token\":3,\"uid\":1000},\
             \"at\":5,\"decision\":\"allowed\",\"door\":\"unix\",\"result\":{},\"seq\":9,\
             \"target\":{\"job\":17},\"v\":1}"
        );
    }
}
