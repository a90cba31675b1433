//! Counts refusals, so that a client that is refused all the time becomes one entry a minute and not one a request.
//!
//! The first refusal of a kind becomes an entry soon, those that follow it one entry each minute. How many kinds are counted
//! apart is bounded, for each client by itself: no client can hide another one among its own refusals.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{AuditDecision, AuditEntry};
use crate::{
    access::{ClientOrigin, Principal, TokenNumber},
    job::Micros,
};

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

/// The action of refusals that count together.
const SUMMED: &str = "several";
/// The part of all kinds that one client can have, and clients that have shown no token all together.
const OF_ONE_CLIENT: usize = 16;

/// Refusals that are counted and not written yet.
#[derive(Debug)]
pub struct RefusalTally {
    kinds_max: usize,
    kinds: BTreeMap<RefusalKind, CountedRefusals>,
    /// How many kinds each client has.
    clients: BTreeMap<RefusedClient, usize>,
}

/// A client by its token or user. All that have shown neither are one, whatever their addresses: those cost an attacker
/// nothing.
type RefusedClient = Option<(String, Option<TokenNumber>, Option<u32>)>;

/// Whose refusal it is.
fn client_of(origin: &ClientOrigin) -> RefusedClient {
    let is_known = origin.name != Principal::NOBODY;
    is_known.then(|| (origin.name.clone(), origin.token, origin.uid))
}

#[derive(Debug)]
struct CountedRefusals {
    due: Instant,
    count: u64,
    first: Micros,
    last: Micros,
}

impl RefusalTally {
    /// One that counts up to so many kinds apart, of which each client can have a part. Further ones of a client count
    /// together by their rule; those of clients that have shown no token do so without their addresses.
    pub fn new(kinds_max: usize) -> Self {
        Self {
            kinds_max,
            kinds: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    /// Counts one.
    pub fn count(&mut self, mut kind: RefusalKind, at: Micros, now: Instant) {
        // A client that connects for each request is one client.
        (kind.origin.session, kind.origin.pid) = (None, None);
        let client = client_of(&kind.origin);
        if !self.kinds.contains_key(&kind) {
            let of_client = self.clients.get(&client).copied().unwrap_or(0);
            let of_one_max = (self.kinds_max / OF_ONE_CLIENT).max(1);
            match of_client < of_one_max && self.kinds.len() < self.kinds_max {
                true => *self.clients.entry(client).or_default() += 1,
                false => kind = summed(kind),
            }
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
        self.clients.clear();
        for kind in self.kinds.keys().filter(|kind| kind.action != SUMMED) {
            *self.clients.entry(client_of(&kind.origin)).or_default() += 1;
        }
        entries
    }

    /// All entries, whether they are due or not.
    pub fn rest(&mut self) -> Vec<AuditEntry> {
        self.clients.clear();
        let kinds = std::mem::take(&mut self.kinds).into_iter();
        let counted = kinds.filter(|(_, counted)| counted.count > 0);
        counted
            .map(|(kind, counted)| entry(&kind, &counted))
            .collect()
    }
}

/// The kind under which refusals of a client count together. A client with a token or a user keeps its name; there are no
/// more of those than an administrator has made. The names of rules are the policy's, and so bounded by it.
fn summed(kind: RefusalKind) -> RefusalKind {
    let origin = match client_of(&kind.origin) {
        Some(_) => ClientOrigin {
            peer: None,
            door: "several",
            ..kind.origin
        },
        None => ClientOrigin::within("several", "others"),
    };
    RefusalKind {
        origin,
        action: SUMMED.to_owned(),
        rule: kind.rule,
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

    fn of(name: &str, token: Option<TokenNumber>, peer: usize) -> RefusalKind {
        let mut kind = kind(&format!("10.0.{}.{}", peer / 256, peer % 256), "r");
        kind.origin.name = name.to_owned();
        kind.origin.token = token;
        kind
    }

    #[test]
    fn kinds_are_told_apart_up_to_a_bound() {
        let (mut tally, now) = (RefusalTally::new(64), Instant::now());
        for peer in 0..1000 {
            tally.count(of("nobody", None, peer), Micros(0), now);
        }
        assert_eq!(tally.kinds.len(), 5);
        let entries = tally.due(now + FIRST_AFTER);
        assert_eq!(counts(&entries).iter().sum::<u64>(), 1000);
        assert!(entries.iter().any(|entry| entry.origin.name == "others"));
        assert!(tally.due(now + FIRST_AFTER + NEXT_AFTER).is_empty());
        assert!(tally.kinds.is_empty());
    }

    #[test]
    fn no_client_hides_another_one() {
        let (mut tally, now) = (RefusalTally::new(64), Instant::now());
        // As many kinds as there can be, of clients without a token and of one with a token.
        for peer in 0..1000 {
            tally.count(of("nobody", None, peer), Micros(0), now);
            tally.count(of("noisy", Some(1), peer), Micros(0), now);
        }
        for token in 2..200 {
            tally.count(of("quiet", Some(token), 7), Micros(0), now);
        }
        let entries = tally.due(now + FIRST_AFTER);
        assert_eq!(counts(&entries).iter().sum::<u64>(), 2198);
        let named = |name: &str, token: Option<TokenNumber>| {
            let of = entries
                .iter()
                .filter(|entry| entry.origin.name == name && entry.origin.token == token);
            of.map(|entry| entry.result["count"].as_u64().expect("a count"))
                .collect::<Vec<_>>()
        };
        for token in 2..200 {
            assert_eq!(named("quiet", Some(token)), [1], "{token}");
        }
        assert_eq!(named("noisy", Some(1)).iter().sum::<u64>(), 1000);
        assert_eq!(named("noisy", Some(1)).len(), 5);
        assert_eq!(named("nobody", None).len(), 4);
        assert_eq!(named("others", None), [996]);
        // The bound holds in the minutes after that, too.
        for peer in 1000..2000 {
            tally.count(of("nobody", None, peer), Micros(0), now + FIRST_AFTER);
        }
        assert!(tally.kinds.len() <= 64 + 200);
    }
}
