//! Which keys can be trusted: those that an operator names, and those that they lead to. Each key signs the one that follows
//! it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checkpoint::Checkpoint,
    signer::{KEY_ID_BYTES, KeyLink, VerifierKey},
};

/// Keys that are trusted.
#[derive(Debug, Default)]
pub struct TrustedKeys {
    by_id: BTreeMap<[u8; KEY_ID_BYTES], Vec<VerifierKey>>,
}

impl TrustedKeys {
    /// The keys `roots`, and those that right links lead to from them.
    pub fn reached_from(
        roots: impl IntoIterator<Item = VerifierKey>,
        links: &BTreeSet<KeyLink>,
    ) -> Self {
        let mut by_before: BTreeMap<&VerifierKey, Vec<&KeyLink>> = BTreeMap::new();
        for link in links {
            by_before.entry(&link.before).or_default().push(link);
        }
        let mut reached = Self::default();
        let mut open: Vec<VerifierKey> = roots.into_iter().collect();
        while let Some(key) = open.pop() {
            if reached.contains(&key) {
                continue;
            }
            let links = by_before.get(&key).into_iter().flatten();
            let right = links.filter(|link| !reached.contains(&link.key) && link.is_right());
            open.extend(right.map(|link| link.key.clone()));
            reached.by_id.entry(key.id()).or_default().push(key);
        }
        reached
    }

    /// Whether this key is trusted.
    pub fn contains(&self, key: &VerifierKey) -> bool {
        let same_id = self.by_id.get(&key.id());
        same_id.is_some_and(|keys| keys.contains(key))
    }

    /// The trusted key that has signed a checkpoint.
    pub fn signer_of(&self, checkpoint: &Checkpoint) -> Option<&VerifierKey> {
        let ids = checkpoint.key_ids();
        ids.filter_map(|id| self.by_id.get(&id))
            .flatten()
            .find(|key| checkpoint.is_signed_by(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::NoteSigner;

    fn signer(byte: u8) -> NoteSigner {
        NoteSigner::of_seed("example.com/x", [byte; 32]).expect("a key")
    }

    fn link(before: u8, key: u8) -> KeyLink {
        KeyLink {
            before: signer(before).key().clone(),
            key: signer(key).key().clone(),
            signature: signer(before).sign_next(signer(key).key()),
        }
    }

    #[test]
    fn only_right_links_lead_to_a_key() {
        let mut forged = link(3, 9);
        forged.before = signer(2).key().clone();
        let links = BTreeSet::from([link(1, 2), link(2, 3), link(3, 1), forged, link(7, 8)]);
        let reached = TrustedKeys::reached_from([signer(1).key().clone()], &links);
        let reached: Vec<u8> = (1..10)
            .filter(|byte| reached.contains(signer(*byte).key()))
            .collect();
        assert_eq!(reached, [1, 2, 3]);
    }
}
