//! Verifies a trail entry by entry: the chain, the succession of keys, what was pruned, and whether checkpoints lie on it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    canonical::canonical,
    chain::{ChainHash, ChainHead, link, unhex},
    checkpoint::Checkpoint,
    exported::TrailBegin,
    findings::TrailFinding,
    signer::VerifierKey,
};

/// The action of an entry that puts a key in force.
pub const KEY_ACTION: &str = "audit.key";
/// The action of an entry that says which entries were pruned.
pub const PRUNE_ACTION: &str = "audit.prune";
/// Findings that are kept; the others are counted.
const FINDINGS_MAX: usize = 100;

/// An entry to be verified.
#[derive(Debug, Clone, Copy)]
pub struct TrailRow<'a> {
    /// Its number, where it has one beside the entry.
    pub seq: Option<u64>,
    /// Its text.
    pub entry: &'a str,
    /// Its hash.
    pub hash: ChainHash,
    /// The hash of the entry before, where it has that beside it.
    pub prev: Option<ChainHash>,
}

/// What a verification has found.
#[derive(Debug)]
pub struct TrailReport {
    /// The entry before the first one.
    pub begin: ChainHead,
    /// The last one.
    pub head: ChainHead,
    /// The first key of the trail.
    pub first_key: Option<VerifierKey>,
    /// How many checkpoints lie on the trail.
    pub confirmed: usize,
    /// The last of them.
    pub last_confirmed: Option<Checkpoint>,
    /// How many checkpoints are of entries before the first one.
    pub not_covered: usize,
    /// What is wrong.
    pub findings: Vec<TrailFinding>,
    /// How many more findings there are.
    pub more: u64,
}

/// A verification in progress.
#[derive(Debug)]
pub struct TrailCheck {
    begin: TrailBegin,
    head: ChainHead,
    checkpoints: BTreeMap<u64, Vec<Checkpoint>>,
    /// Those whose entry has come, with whether its hash is theirs.
    met: Vec<(Checkpoint, bool)>,
    not_covered: usize,
    trusted: Vec<VerifierKey>,
    /// Keys by the entry that put them in force.
    keys: BTreeMap<u64, VerifierKey>,
    prunes: Vec<Value>,
    findings: Vec<TrailFinding>,
    more: u64,
}

impl TrailCheck {
    /// A verification of the trail that begins like this, against these checkpoints. Only keys that one of `trusted`
    /// leads to are accepted; where there are none, the first key is.
    pub fn new(begin: TrailBegin, checkpoints: Vec<Checkpoint>, trusted: Vec<VerifierKey>) -> Self {
        let head = begin.after;
        let mut check = Self {
            head,
            checkpoints: BTreeMap::new(),
            met: Vec::new(),
            not_covered: 0,
            trusted,
            keys: BTreeMap::new(),
            prunes: Vec::new(),
            findings: Vec::new(),
            more: 0,
            begin,
        };
        for checkpoint in checkpoints {
            let of = check.checkpoints.entry(checkpoint.head.seq).or_default();
            of.push(checkpoint);
        }
        let before = check
            .checkpoints
            .range(..head.seq)
            .map(|(_, all)| all.len());
        check.not_covered = before.sum();
        check.checkpoints = check.checkpoints.split_off(&head.seq);
        check.meet_checkpoints();
        match check.begin.key.as_deref().map(str::parse::<VerifierKey>) {
            None => {}
            Some(Ok(key)) => check.take_first_key(head.seq, key),
            Some(Err(wrong)) => check.find(TrailFinding::general(format!(
                "the key of its begin {wrong}"
            ))),
        }
        check
    }

    /// Adds a finding of the caller's.
    pub fn find(&mut self, finding: TrailFinding) {
        match self.findings.len() < FINDINGS_MAX {
            true => self.findings.push(finding),
            false => self.more += 1,
        }
    }

    /// Verifies the next entry; returns what it says, unless it is no entry.
    pub fn add(&mut self, row: TrailRow<'_>) -> Option<Value> {
        let due = self.head.seq + 1;
        let value: Option<Value> = serde_json::from_str(row.entry).ok();
        let value = value.filter(|value| value.is_object() && canonical(value) == row.entry);
        let named = value.as_ref().and_then(|value| value["seq"].as_u64());
        let seq = row.seq.or(named).unwrap_or(due);
        if value.is_none() {
            self.find(TrailFinding::at(
                seq,
                "it is not canonical JSON: it was changed",
            ));
        } else if named != Some(seq) {
            let named = named.map_or("none".to_owned(), |named| named.to_string());
            let what = format!("it names the number {named}: it was moved or changed");
            self.find(TrailFinding::at(seq, what));
        }
        if seq < due {
            let what = format!(
                "it comes after entry {}: it was inserted, repeated or moved",
                self.head.seq
            );
            self.find(TrailFinding::at(seq, what));
            return value;
        }
        self.check_link(seq, row);
        self.head = ChainHead {
            seq,
            hash: row.hash,
        };
        self.meet_checkpoints();
        if let Some(value) = &value {
            self.note(seq, value);
        }
        value
    }

    /// Compares an entry with the one before it.
    fn check_link(&mut self, seq: u64, row: TrailRow<'_>) {
        let due = self.head.seq + 1;
        if seq > due {
            let what = match seq - 1 {
                last if last == due => format!("entry {due} is missing"),
                last => format!("the entries {due} to {last} are missing"),
            };
            self.find(TrailFinding::general(what));
        } else if row.prev.is_some_and(|prev| prev != self.head.hash) {
            let what =
                "it does not follow the entry before it: one of the two was changed or put in";
            self.find(TrailFinding::at(seq, what));
        }
        // After a gap the hash of the entry before is known only if it is told.
        let prev = row.prev.or((seq == due).then_some(self.head.hash));
        if prev.is_some_and(|prev| link(&prev, row.entry) != row.hash) {
            let what = match row.prev {
                Some(_) => "its hash does not belong to its content: it was changed",
                None => {
                    "its hash does not belong to its content and the entry before: it was changed, put in \
                     or moved"
                }
            };
            self.find(TrailFinding::at(seq, what));
        }
    }

    /// Compares the checkpoints of the entry that has just come.
    fn meet_checkpoints(&mut self) {
        let ChainHead { seq, hash } = self.head;
        for checkpoint in self.checkpoints.remove(&seq).unwrap_or_default() {
            let is_on_trail = checkpoint.head.hash == hash;
            self.met.push((checkpoint, is_on_trail));
        }
    }

    /// Remembers what later checks need of an entry.
    fn note(&mut self, seq: u64, entry: &Value) {
        match entry["action"].as_str() {
            Some(PRUNE_ACTION) => self.prunes.push(entry["result"].clone()),
            Some(KEY_ACTION) => {
                let key = entry["result"]["key"].as_str().unwrap_or_default();
                match key.parse() {
                    Ok(key) => self.take_key(seq, key, entry["result"]["signature"].as_str()),
                    Err(wrong) => self.find(TrailFinding::at(seq, format!("its key {wrong}"))),
                }
            }
            _ => {}
        }
    }

    fn take_key(&mut self, seq: u64, key: VerifierKey, signature: Option<&str>) {
        let Some(before) = self.keys.values().next_back() else {
            return self.take_first_key(seq, key);
        };
        let is_signed = signature.is_some_and(|signature| before.has_signed(&key, signature));
        if !is_signed && !self.trusted.contains(&key) {
            let what = format!(
                "its key {key} is not signed by the key before it: the key was lost, or another server wrote \
                 this; if the key is yours, name it with --key"
            );
            self.find(TrailFinding::at(seq, what));
        }
        self.keys.insert(seq, key);
    }

    fn take_first_key(&mut self, seq: u64, key: VerifierKey) {
        if !self.trusted.is_empty() && !self.trusted.contains(&key) {
            let what = format!("the first key of the trail is {key}, which --key does not name");
            self.find(TrailFinding::at(seq, what));
        }
        self.keys.insert(seq, key);
    }

    /// Ends the verification; `end` is where the trail says that it ends, if it does.
    pub fn finish(mut self, end: Option<ChainHead>) -> TrailReport {
        if end.is_some_and(|end| end != self.head) {
            let what = "its last line names another last entry: the end was cut off or changed";
            self.find(TrailFinding::general(what));
        }
        self.check_begin();
        self.check_rest();
        let met = std::mem::take(&mut self.met);
        self.check_fork(&met);
        let mut on_trail: Vec<Checkpoint> = Vec::new();
        for (checkpoint, _) in met.into_iter().filter(|(_, is_on_trail)| *is_on_trail) {
            let seq = checkpoint.head.seq;
            let key = self.keys.range(..=seq).next_back();
            match key.is_some_and(|(_, key)| checkpoint.is_signed_by(key)) {
                true => on_trail.push(checkpoint),
                false => {
                    let what = format!(
                        "the checkpoint of {} is not signed by the key that was in force",
                        checkpoint.at
                    );
                    self.find(TrailFinding::at(seq, what));
                }
            }
        }
        TrailReport {
            begin: self.begin.after,
            head: self.head,
            first_key: self.keys.into_values().next(),
            confirmed: on_trail.len(),
            last_confirmed: on_trail.into_iter().next_back(),
            not_covered: self.not_covered,
            findings: self.findings,
            more: self.more,
        }
    }

    /// A trail that does not begin with its first entry must say that the others were pruned.
    fn check_begin(&mut self) {
        let TrailBegin {
            after,
            key,
            is_part,
        } = &self.begin;
        if after.seq == 0 && after.hash != ChainHash::default() {
            self.find(TrailFinding::general(
                "it does not begin with an empty trail",
            ));
            return;
        }
        let says = |prune: &Value| {
            prune["through"].as_u64() == Some(after.seq)
                && prune["hash"].as_str().and_then(unhex) == Some(after.hash)
                && prune["key"].as_str() == key.as_deref()
        };
        if after.seq > 0 && !is_part && !self.prunes.iter().any(says) {
            let what = format!(
                "the entries 1 to {} are missing, and no entry says that they were pruned",
                after.seq
            );
            self.find(TrailFinding::general(what));
        }
    }

    /// Checkpoints whose entries have not come.
    fn check_rest(&mut self) {
        let rest = std::mem::take(&mut self.checkpoints);
        let beyond = rest.range(self.head.seq + 1..);
        let (beyond, within): (usize, Vec<u64>) = (
            beyond.map(|(_, all)| all.len()).sum(),
            rest.range(..self.head.seq).map(|(seq, _)| *seq).collect(),
        );
        for seq in within {
            let what = "a checkpoint was made of it, and it is missing";
            self.find(TrailFinding::at(seq, what));
        }
        let last = rest.last_key_value().and_then(|(_, all)| all.first());
        if let (1.., Some(last)) = (beyond, last) {
            let what = format!(
                "the trail ends at entry {}, and {beyond} checkpoints say that it was longer (the last one, of \
                 {}, has {} entries): its end was cut off, or an older copy was put back",
                self.head.seq, last.at, last.head.seq
            );
            self.find(TrailFinding::general(what));
        }
    }

    /// The first checkpoint that does not lie on the trail says where another one begins.
    fn check_fork(&mut self, met: &[(Checkpoint, bool)]) {
        let off: Vec<&Checkpoint> = met
            .iter()
            .filter(|(_, is_on_trail)| !is_on_trail)
            .map(|(checkpoint, _)| checkpoint)
            .collect();
        let Some(first) = off.first() else { return };
        let before = met.iter().filter(|(checkpoint, is_on_trail)| {
            *is_on_trail && checkpoint.head.seq < first.head.seq
        });
        let from = before.map(|(checkpoint, _)| checkpoint.head.seq + 1).max();
        let from = from.unwrap_or(self.begin.after.seq + 1);
        let what = format!(
            "the checkpoint of {} (instance {}) has another hash, and so have {} more: the trail was written anew \
             from an entry between {from} and {} on, or it and the checkpoints are of two copies of a data \
             directory",
            first.at,
            first.instance,
            off.len() - 1,
            first.head.seq
        );
        self.find(TrailFinding::at(first.head.seq, what));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        access::ClientOrigin,
        audit::{AuditEntry, NoteSigner, chain::hex, exported::ExportedEntry},
        job::Micros,
    };

    const NAME: &str = "cc-executor.audit/ab";

    /// A trail as a server writes it.
    #[derive(Clone, Default)]
    struct Written {
        head: ChainHead,
        rows: Vec<ExportedEntry>,
        checkpoints: Vec<Checkpoint>,
    }

    fn signer(byte: u8) -> NoteSigner {
        NoteSigner::of_seed(NAME, [byte; 32]).expect("a key")
    }

    impl Written {
        fn add(&mut self, action: &'static str, result: Value) {
            let origin = Arc::new(ClientOrigin::server());
            let entry = AuditEntry::allowed(action, origin, json!({}), result);
            let entry = entry.text(self.head.seq + 1, Micros(0));
            let prev = self.head.hash;
            self.head = self.head.after(&entry);
            let hash = self.head.hash;
            self.rows.push(ExportedEntry { entry, hash, prev });
        }

        fn key(&mut self, new: u8, old: Option<u8>) {
            let key = signer(new).key().clone();
            let signature = old.map(|old| signer(old).sign_next(&key));
            let result = json!({"key": key.to_string(), "signature": signature});
            self.add(KEY_ACTION, result);
        }

        fn checkpoint(&mut self, key: u8) {
            let made = Checkpoint::sign("ab", self.head, Micros(0), &signer(key));
            self.checkpoints.push(made);
        }

        /// Ten entries, two keys and four checkpoints.
        fn some() -> Self {
            let mut trail = Self::default();
            trail.add("server.start", json!({"epoch": 1}));
            trail.key(1, None);
            trail.checkpoint(1);
            for nth in 0..3 {
                trail.add("job.submit", json!({"nth": nth}));
            }
            trail.checkpoint(1);
            trail.key(2, Some(1));
            trail.checkpoint(2);
            for nth in 0..4 {
                trail.add("job.end", json!({"nth": nth}));
            }
            trail.checkpoint(2);
            trail
        }

        fn findings(&self) -> Vec<String> {
            self.findings_against(&self.checkpoints)
        }

        fn findings_against(&self, checkpoints: &[Checkpoint]) -> Vec<String> {
            let begin = TrailBegin {
                after: ChainHead::default(),
                key: None,
                is_part: false,
            };
            report(begin, &self.rows, checkpoints)
        }
    }

    fn report(
        begin: TrailBegin,
        rows: &[ExportedEntry],
        checkpoints: &[Checkpoint],
    ) -> Vec<String> {
        let mut check = TrailCheck::new(begin, checkpoints.to_vec(), Vec::new());
        for row in rows {
            check.add(TrailRow {
                seq: None,
                entry: &row.entry,
                hash: row.hash,
                prev: Some(row.prev),
            });
        }
        let report = check.finish(None);
        report.findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_trail_as_it_was_written_has_no_findings() {
        assert_eq!(Written::some().findings(), Vec::<String>::new());
    }

    #[test]
    fn every_single_change_of_an_entry_is_found() {
        let trail = Written::some();
        for at in 0..trail.rows.len() {
            let mut flipped = trail.clone();
            flipped.rows[at].entry = flipped.rows[at].entry.replacen("server", "Server", 1);
            assert!(!flipped.findings().is_empty(), "flip {at}");
            let mut deleted = trail.clone();
            deleted.rows.remove(at);
            assert!(!deleted.findings().is_empty(), "deletion {at}");
            let mut doubled = trail.clone();
            doubled.rows.insert(at, trail.rows[at].clone());
            assert!(!doubled.findings().is_empty(), "insertion {at}");
            let mut swapped = trail.clone();
            swapped.rows.swap(at, (at + 1) % trail.rows.len());
            assert!(!swapped.findings().is_empty(), "swap {at}");
        }
    }

    #[test]
    fn a_trail_that_was_written_anew_is_found_by_its_checkpoints() {
        let trail = Written::some();
        let mut anew = Written::default();
        anew.add("server.start", json!({"epoch": 1}));
        anew.key(1, None);
        for nth in 0..8 {
            anew.add("job.submit", json!({"other": nth}));
        }
        let found = anew.findings_against(&trail.checkpoints);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("entry 5: the checkpoint of"),
            "{found:?}"
        );
        assert!(found[0].contains("between 3 and 5"), "{found:?}");
        assert!(found[0].contains("2 more"), "{found:?}");
    }

    #[test]
    fn a_cut_end_is_found_by_its_checkpoints() {
        let mut trail = Written::some();
        trail.rows.truncate(7);
        let found = trail.findings();
        assert!(
            found[0].contains("ends at entry 7, and 1 checkpoints"),
            "{found:?}"
        );
    }

    #[test]
    fn a_checkpoint_of_yesterday_needs_the_key_of_yesterday() {
        let mut trail = Written::some();
        let head = trail.checkpoints[0].head;
        // Whoever has today's key only.
        trail.checkpoints[0] = Checkpoint::sign("ab", head, Micros(0), &signer(2));
        let found = trail.findings();
        assert!(
            found[0].contains("is not signed by the key that was in force"),
            "{found:?}"
        );
    }

    #[test]
    fn a_key_that_nobody_signed_is_found_unless_it_is_named() {
        let mut trail = Written::some();
        trail.key(3, None);
        trail.checkpoint(3);
        let found = trail.findings();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("is not signed by the key before it"),
            "{found:?}"
        );
        let begin = TrailBegin {
            after: ChainHead::default(),
            key: None,
            is_part: false,
        };
        let trusted = [1, 3].map(|key| signer(key).key().clone()).to_vec();
        let mut check = TrailCheck::new(begin, trail.checkpoints.clone(), trusted);
        for row in &trail.rows {
            check.add(TrailRow {
                seq: None,
                entry: &row.entry,
                hash: row.hash,
                prev: Some(row.prev),
            });
        }
        let report = check.finish(Some(trail.head));
        assert_eq!((report.findings, report.confirmed), (Vec::new(), 5));
    }

    #[test]
    fn a_missing_begin_must_have_been_pruned() {
        let mut trail = Written::some();
        let after = ChainHead {
            seq: 6,
            hash: trail.rows[5].hash,
        };
        let key = signer(2).key().to_string();
        let prune = json!({"through": 6, "hash": hex(&after.hash), "key": key});
        let begin = TrailBegin {
            after,
            key: Some(key),
            is_part: false,
        };
        let rest = |trail: &Written| report(begin.clone(), &trail.rows[6..], &trail.checkpoints);
        assert!(rest(&trail)[0].contains("no entry says that they were pruned"));
        trail.add(PRUNE_ACTION, prune);
        assert_eq!(rest(&trail), Vec::<String>::new());
    }
}
