//! The keys that a trail names, and since which entry each has been in force.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    exported::PastKey,
    signer::{KeyLink, VerifierKey},
    trusted_keys::TrustedKeys,
};

/// The keys of a trail.
#[derive(Debug, Default)]
pub struct TrailKeys {
    /// Keys by the entry that put them in force; the one in force before the first entry by the entry before.
    in_force: BTreeMap<u64, VerifierKey>,
    links: BTreeSet<KeyLink>,
    /// The last of the keys from before the first entry.
    past: Option<(u64, VerifierKey)>,
    /// The first key from which signatures lead to `past`.
    first_past: Option<VerifierKey>,
}

impl TrailKeys {
    /// Takes the key in force after the entry `seq`.
    pub fn put(&mut self, seq: u64, key: VerifierKey) {
        self.in_force.insert(seq, key);
    }

    /// Takes a key that an entry puts in force; whether the key before has signed it, where there is one.
    pub fn follow(&mut self, seq: u64, key: VerifierKey, signature: Option<&str>) -> Option<bool> {
        let before = self.in_force.values().next_back().cloned();
        self.put(seq, key.clone());
        let link = KeyLink {
            before: before?,
            key,
            signature: signature.unwrap_or_default().to_owned(),
        };
        let is_right = link.is_right();
        self.links.insert(link);
        Some(is_right)
    }

    /// Takes a key from before the first entry, oldest first; whether it comes in order.
    pub fn add_past(&mut self, past: PastKey) -> bool {
        let PastKey {
            seq,
            key,
            signature,
        } = past;
        let before = self.past.replace((seq, key.clone()));
        let is_in_order = before.as_ref().is_none_or(|(before, _)| *before < seq);
        let link = before
            .zip(signature)
            .map(|((_, before), signature)| KeyLink {
                before,
                key: key.clone(),
                signature,
            });
        match link.filter(KeyLink::is_right) {
            Some(link) => drop(self.links.insert(link)),
            None => self.first_past = Some(key),
        }
        is_in_order
    }

    /// Takes what a checkpoint says of keys.
    pub fn add_link(&mut self, link: KeyLink) {
        self.links.insert(link);
    }

    /// Whether the keys from before the first entry, if any were told, lead to this one.
    pub fn past_leads_to(&self, key: Option<&VerifierKey>) -> bool {
        let past = self.past.as_ref();
        past.is_none_or(|(_, past)| Some(past) == key)
    }

    /// The first key that leads to all others.
    pub fn first(&self) -> Option<&VerifierKey> {
        self.first_past.as_ref().or(self.first_in_force())
    }

    /// The first key that can have signed a checkpoint of the trail.
    pub fn first_in_force(&self) -> Option<&VerifierKey> {
        self.in_force.values().next()
    }

    /// The key in force at an entry.
    pub fn at(&self, seq: u64) -> Option<&VerifierKey> {
        let key = self.in_force.range(..=seq).next_back();
        key.map(|(_, key)| key)
    }

    /// The keys that `trusted` lead to; where there are none, those that the first key leads to.
    pub fn led_to_by(&self, trusted: &[VerifierKey]) -> TrustedKeys {
        let first = self.first().filter(|_| trusted.is_empty());
        let roots = trusted.iter().chain(first).cloned();
        TrustedKeys::reached_from(roots, &self.links)
    }
}
