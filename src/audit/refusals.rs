//! Counts refusals, so that a client that is refused all the time becomes one entry a minute and not one a request.
//!
//! The first refusal of a kind becomes an entry soon, those that follow it one entry each minute.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{AuditDecision, AuditEntry};
use crate::{access::ClientOrigin, job::Micros};

/// How long after the first refusal of a kind its entry is due: others of a flood belong into it.
pub const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How long after an entry the next one of the same kind is due.
const NEXT_AFTER: Duration = Duration::from_secs(60);

/// A refusal: refusals of one kind are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalKind {
    /// Who was refused.
    pub origin: ClientOrigin,
    /// What the client asked for: a method or a tool.
    pub action: String,
    /// The rule that refused it.
    pub rule: String,
}

/// Refusals that are counted and not written yet.
#[derive(Debug)]
pub struct RefusalTally {
    kinds_max: usize,
    kinds: BTreeMap<RefusalKind, CountedRefusals>,
}

#[derive(Debug)]
struct CountedRefusals {
    due: Instant,
    count: u64,
    first: Micros,
    last: Micros,
}

impl RefusalTally {
    /// One that counts up to so many kinds apart; further ones count together by their rule.
    pub fn new(kinds_max: usize) -> Self {
        Self {
            kinds_max,
            kinds: BTreeMap::new(),
        }
    }

    /// Counts one.
    pub fn count(&mut self, mut kind: RefusalKind, at: Micros, now: Instant) {
        // A client that connects for each request is one client.
        (kind.origin.session, kind.origin.pid) = (None, None);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= self.kinds_max {
            kind = RefusalKind {
                origin: ClientOrigin::within("several", "others"),
                action: "several".to_owned(),
                // The names of rules are the policy's, and so bounded by it.
                rule: kind.rule,
            };
        }
        let counted = self.kinds.entry(kind).or_insert(CountedRefusals {
            due: now + FIRST_AFTER,
            count: 0,
            first: at,
            last: at,
        });
        if counted.count == 0 {
            counted.first = at;
        }
        counted.count += 1;
        counted.last = at;
    }

    /// The entries that are due. A kind without refusals since its last entry is forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<AuditEntry> {
        let mut entries = Vec::new();
        self.kinds.retain(|kind, counted| {
            if now < counted.due {
                return true;
            }
            let is_new = counted.count > 0;
            if is_new {
                entries.push(entry(kind, counted));
                counted.count = 0;
                counted.due = now + NEXT_AFTER;
            }
            is_new
        });
        entries
    }

    /// All entries, whether they are due or not.
    pub fn rest(&mut self) -> Vec<AuditEntry> {
        let kinds = std::mem::take(&mut self.kinds).into_iter();
        let counted = kinds.filter(|(_, counted)| counted.count > 0);
        counted
            .map(|(kind, counted)| entry(&kind, &counted))
            .collect()
    }
}

fn entry(kind: &RefusalKind, counted: &CountedRefusals) -> AuditEntry {
    AuditEntry {
        action: kind.action.clone().into(),
        origin: Arc::new(kind.origin.clone()),
        target: Value::Object(serde_json::Map::new()),
        decision: AuditDecision::Refused,
        result: json!({
            "rule": kind.rule,
            "count": counted.count,
            "first": counted.first.0,
            "last": counted.last.0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(peer: &str, rule: &str) -> RefusalKind {
        RefusalKind {
            origin: ClientOrigin {
                peer: Some(peer.to_owned()),
                ..ClientOrigin::within("tcp", "ci")
            },
            action: "job.submit".to_owned(),
            rule: rule.to_owned(),
        }
    }

    fn counts(entries: &[AuditEntry]) -> Vec<u64> {
        let counts = entries.iter().map(|entry| entry.result["count"].as_u64());
        counts.map(|count| count.expect("a count")).collect()
    }

    #[test]
    fn a_flood_is_one_entry_at_once_and_one_each_minute() {
        let (mut tally, begun) = (RefusalTally::new(10), Instant::now());
        let mut entries = Vec::new();
        for second in 0..180 {
            let now = begun + Duration::from_secs(second);
            for _ in 0..1000 {
                tally.count(kind("10.0.0.1", "r"), Micros(second as i64), now);
            }
            entries.extend(tally.due(now));
        }
        assert_eq!(counts(&entries), [2_000, 60_000, 60_000]);
        entries.extend(tally.rest());
        assert_eq!(counts(&entries).iter().sum::<u64>(), 180_000);
        assert_eq!(entries[1].result["first"], 2);
        assert_eq!(entries[1].result["last"], 61);
    }

    #[test]
    fn kinds_are_told_apart_up_to_a_bound() {
        let (mut tally, now) = (RefusalTally::new(3), Instant::now());
        for peer in 0..1000 {
            tally.count(kind(&peer.to_string(), "r"), Micros(0), now);
        }
        assert_eq!(tally.kinds.len(), 4);
        let entries = tally.due(now + FIRST_AFTER);
        assert_eq!(counts(&entries).iter().sum::<u64>(), 1000);
        assert!(entries.iter().any(|entry| entry.origin.name == "others"));
        assert!(tally.due(now + FIRST_AFTER + NEXT_AFTER).is_empty());
        assert!(tally.kinds.is_empty());
    }
}
