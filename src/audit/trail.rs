//! Verifies a trail entry by entry: the chain, the succession of keys, what was pruned, and whether checkpoints lie on it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    canonical::canonical,
    chain::{ChainHash, ChainHead, SEQ_MAX, link, unhex},
    checkpoint::Checkpoint,
    evidence::{Confirmation, TrailEvidence, TrailReport, TrailStart},
    exported::{PastKey, TrailBegin},
    findings::TrailFinding,
    signer::VerifierKey,
    trail_keys::TrailKeys,
    trusted_keys::TrustedKeys,
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

/// A verification in progress.
#[derive(Debug)]
pub struct TrailCheck {
    begin: TrailBegin,
    begin_key: Option<VerifierKey>,
    head: ChainHead,
    /// Checkpoints of entries before the first one.
    early: Vec<Checkpoint>,
    /// Those whose entry has not come.
    waiting: BTreeMap<u64, Vec<Checkpoint>>,
    /// Those whose entry has come, with whether its hash is theirs.
    met: Vec<(Checkpoint, bool)>,
    given: usize,
    trusted: Vec<VerifierKey>,
    accepts_part: bool,
    keys: TrailKeys,
    /// What the entries of prunings say, by their numbers.
    prunes: Vec<(u64, Value)>,
    findings: Vec<TrailFinding>,
    more: u64,
}

impl TrailCheck {
    /// A verification of the trail that begins like this.
    pub fn new(begin: TrailBegin, evidence: TrailEvidence) -> Self {
        let TrailEvidence {
            checkpoints,
            keys: trusted,
            part: accepts_part,
        } = evidence;
        let head = begin.after;
        let mut check = Self {
            begin_key: None,
            head,
            early: Vec::new(),
            waiting: BTreeMap::new(),
            met: Vec::new(),
            given: checkpoints.len(),
            trusted,
            accepts_part,
            keys: TrailKeys::default(),
            prunes: Vec::new(),
            findings: Vec::new(),
            more: 0,
            begin,
        };
        for checkpoint in checkpoints {
            if let Some(link) = &checkpoint.link {
                check.keys.add_link(link.clone());
            }
            match checkpoint.head.seq < head.seq {
                true => check.early.push(checkpoint),
                false => {
                    let of = check.waiting.entry(checkpoint.head.seq).or_default();
                    of.push(checkpoint);
                }
            }
        }
        check.meet_checkpoints();
        match check.begin.key.as_deref().map(str::parse::<VerifierKey>) {
            None => {}
            Some(Ok(key)) => {
                check.keys.put(head.seq, key.clone());
                check.begin_key = Some(key);
            }
            Some(Err(wrong)) => check.find(TrailFinding::general(format!(
                "the key of its begin {wrong}"
            ))),
        }
        check
    }

    /// Takes a key from before the first entry, oldest first.
    pub fn add_past_key(&mut self, past: PastKey) {
        let seq = past.seq;
        if !self.keys.add_past(past) || seq > self.begin.after.seq {
            let what = "the keys from before its begin are not in order: they were changed";
            self.find(TrailFinding::general(what));
        }
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
        let seq = row.seq.or(named).filter(|seq| *seq <= SEQ_MAX);
        let seq = seq.unwrap_or(due);
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
        for checkpoint in self.waiting.remove(&seq).unwrap_or_default() {
            let is_on_trail = checkpoint.head.hash == hash;
            self.met.push((checkpoint, is_on_trail));
        }
    }

    /// Remembers what later checks need of an entry.
    fn note(&mut self, seq: u64, entry: &Value) {
        match entry["action"].as_str() {
            Some(PRUNE_ACTION) => self.prunes.push((seq, entry["result"].clone())),
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
        let is_signed = self.keys.follow(seq, key.clone(), signature);
        if is_signed == Some(false) && !self.trusted.contains(&key) {
            let what = format!(
                "its key {key} is not signed by the key before it: the key was lost, or another server wrote \
                 this; if the key is yours, name it with --key"
            );
            self.find(TrailFinding::at(seq, what));
        }
    }

    /// Ends the verification; `end` is where the trail says that it ends, if it does.
    pub fn finish(mut self, end: Option<ChainHead>) -> TrailReport {
        if end.is_some_and(|end| end != self.head) {
            let what = "its last line names another last entry: the end was cut off or changed";
            self.find(TrailFinding::general(what));
        }
        let known = self.keys.led_to_by(&self.trusted);
        self.check_keys(&known);
        let confirmation = self.confirm(&known);
        let (start, uncovered) = self.check_begin(&confirmation);
        // What refutes the trail says more than that nothing confirms it.
        let unconfirmed = uncovered.or_else(|| self.unconfirmed(&confirmation));
        let unconfirmed = unconfirmed.filter(|_| self.findings.is_empty());
        TrailReport {
            begin: self.begin.after,
            start,
            head: self.head,
            first_key: self.keys.first().cloned(),
            is_key_named: !self.trusted.is_empty(),
            confirmation,
            unconfirmed,
            findings: self.findings,
            more: self.more,
        }
    }

    /// The keys that the trail begins with must follow from those that are trusted.
    fn check_keys(&mut self, known: &TrustedKeys) {
        if !self.keys.past_leads_to(self.begin_key.as_ref()) {
            let what =
                "the keys from before its begin do not lead to the key that was in force there";
            self.find(TrailFinding::general(what));
        }
        if self.trusted.is_empty() {
            return;
        }
        let what = match self.keys.first_in_force() {
            Some(key) if known.contains(key) => return,
            Some(key) if self.begin.after.seq == 0 => {
                format!("the first key of the trail is {key}, which --key does not name")
            }
            Some(key) => format!(
                "the key in force before its first entry is {key}, and nothing shows that the keys that --key \
                 names lead to it"
            ),
            None => "it names no key, and so none that --key names".to_owned(),
        };
        self.find(TrailFinding::general(what));
    }

    /// Holds the checkpoints against the trail. Those that no trusted key has signed say nothing: anybody can make them.
    fn confirm(&mut self, known: &TrustedKeys) -> Confirmation {
        let mut confirmation = Confirmation {
            given: self.given,
            ..Confirmation::default()
        };
        for checkpoint in std::mem::take(&mut self.early) {
            match known.signer_of(&checkpoint) {
                Some(_) => confirmation.before += 1,
                None => confirmation.count_foreign(&checkpoint),
            }
        }
        let (mut on_trail, mut off) = (Vec::new(), Vec::new());
        for (checkpoint, is_on_trail) in std::mem::take(&mut self.met) {
            match (known.signer_of(&checkpoint), is_on_trail) {
                (None, _) => confirmation.count_foreign(&checkpoint),
                (Some(_), false) => off.push(checkpoint),
                (Some(key), true) if self.keys.at(checkpoint.head.seq) == Some(key) => {
                    on_trail.push(checkpoint);
                }
                (Some(_), true) => {
                    let what = format!(
                        "the checkpoint of {} is not signed by the key that was in force",
                        checkpoint.at
                    );
                    self.find(TrailFinding::at(checkpoint.head.seq, what));
                }
            }
        }
        self.check_rest(known, &mut confirmation);
        self.check_fork(&off, &on_trail);
        confirmation.confirming = on_trail.len();
        confirmation.last = on_trail.pop();
        confirmation
    }

    /// Says how the trail begins. If it does not begin with its first entry, it must say that the others were pruned, in
    /// an entry that a checkpoint covers, or the caller must have asked for a part. Also returns why the checkpoints do
    /// not confirm that.
    fn check_begin(&mut self, confirmation: &Confirmation) -> (TrailStart, Option<String>) {
        let TrailBegin {
            after,
            key,
            is_part,
        } = &self.begin;
        if after.seq == 0 {
            if after.hash != ChainHash::default() || key.is_some() {
                let what = "it does not begin with an empty trail";
                self.find(TrailFinding::general(what));
            }
            return (TrailStart::Whole, None);
        }
        let missing = format!("the entries 1 to {} are missing", after.seq);
        if *is_part {
            if !self.accepts_part {
                let what = format!(
                    "{missing}: the file says that it is a part; if you have exported a part (--since), verify it with \
                     --part"
                );
                self.find(TrailFinding::general(what));
            }
            return (TrailStart::Part, None);
        }
        let says = |prune: &Value| {
            prune["through"].as_u64() == Some(after.seq)
                && prune["hash"].as_str().and_then(unhex) == Some(after.hash)
                && prune["key"].as_str() == key.as_deref()
        };
        let Some((by, _)) = self.prunes.iter().find(|(_, prune)| says(prune)) else {
            let what = format!("{missing}, and no entry says that they were pruned");
            self.find(TrailFinding::general(what));
            return (TrailStart::Missing, None);
        };
        let is_covered = confirmation.given == 0 || confirmation.through() >= Some(*by);
        let why = format!(
            "{missing}, and no checkpoint covers entry {by}, which says that they were pruned; if that was just now, \
             verify again after the next checkpoint"
        );
        (TrailStart::Pruned { by: *by }, (!is_covered).then_some(why))
    }

    /// Why the checkpoints that were given do not confirm the trail.
    fn unconfirmed(&self, confirmation: &Confirmation) -> Option<String> {
        let Confirmation { given, before, .. } = confirmation;
        // A checkpoint of the entry before the first one says nothing of those after it.
        let is_empty = self.head.seq == self.begin.after.seq;
        let is_confirmed = confirmation
            .through()
            .is_some_and(|through| through > self.begin.after.seq || is_empty);
        if *given == 0 || is_confirmed {
            return None;
        }
        let foreign = given - before - confirmation.confirming;
        Some(format!(
            "none of the {given} checkpoints confirms an entry of it: {} are of entries before it, {foreign} are not signed by \
             a key of it",
            before + confirmation.confirming
        ))
    }

    /// Checkpoints whose entries have not come.
    fn check_rest(&mut self, known: &TrustedKeys, confirmation: &mut Confirmation) {
        let (mut beyond, mut last) = (0, None);
        for checkpoint in std::mem::take(&mut self.waiting).into_values().flatten() {
            if known.signer_of(&checkpoint).is_none() {
                confirmation.count_foreign(&checkpoint);
            } else if checkpoint.head.seq < self.head.seq {
                let what = "a checkpoint was made of it, and it is missing";
                self.find(TrailFinding::at(checkpoint.head.seq, what));
            } else {
                beyond += 1;
                last = Some(checkpoint);
            }
        }
        if let Some(last) = last {
            let what = format!(
                "the trail ends at entry {}, and {beyond} checkpoints say that it was longer (the last one, of \
                 {}, has {} entries): its end was cut off, or an older copy was put back",
                self.head.seq, last.at, last.head.seq
            );
            self.find(TrailFinding::general(what));
        }
    }

    /// The first checkpoint that does not lie on the trail says where another one begins.
    fn check_fork(&mut self, off: &[Checkpoint], on_trail: &[Checkpoint]) {
        let Some(first) = off.first() else { return };
        let before = on_trail.iter().map(|checkpoint| checkpoint.head.seq);
        let from = before.filter(|seq| *seq < first.head.seq).max();
        let from = from.unwrap_or(self.begin.after.seq) + 1;
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
        audit::{
            AuditEntry, KeyLink, NoteSigner, chain::hex, evidence::TrailVerdict,
            exported::ExportedEntry,
        },
        job::Micros,
    };

    const NAME: &str = "cc-executor.audit/ab";

    /// A trail as a server writes it.
    #[derive(Clone, Default)]
    struct Written {
        head: ChainHead,
        rows: Vec<ExportedEntry>,
        checkpoints: Vec<Checkpoint>,
        links: BTreeMap<u8, KeyLink>,
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
            if let Some((old, signature)) = old.zip(signature) {
                let before = signer(old).key().clone();
                let link = KeyLink {
                    before,
                    key,
                    signature,
                };
                self.links.insert(new, link);
            }
        }

        fn checkpoint(&mut self, key: u8) {
            let link = self.links.get(&key);
            let made = Checkpoint::sign("ab", self.head, Micros(0), &signer(key), link);
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
            report(whole(), &self.rows, checkpoints)
        }
    }

    fn whole() -> TrailBegin {
        TrailBegin {
            after: ChainHead::default(),
            key: None,
            is_part: false,
        }
    }

    fn checked(begin: TrailBegin, rows: &[ExportedEntry], evidence: TrailEvidence) -> TrailReport {
        let mut check = TrailCheck::new(begin, evidence);
        for row in rows {
            check.add(TrailRow {
                seq: None,
                entry: &row.entry,
                hash: row.hash,
                prev: Some(row.prev),
            });
        }
        check.finish(None)
    }

    /// Against these checkpoints, and no keys.
    fn against(checkpoints: &[Checkpoint]) -> TrailEvidence {
        TrailEvidence {
            checkpoints: checkpoints.to_vec(),
            ..TrailEvidence::default()
        }
    }

    fn report(
        begin: TrailBegin,
        rows: &[ExportedEntry],
        checkpoints: &[Checkpoint],
    ) -> Vec<String> {
        let report = checked(begin, rows, against(checkpoints));
        let findings = report.findings.iter().map(ToString::to_string);
        findings.chain(report.unconfirmed).collect()
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
        trail.checkpoints[0] = Checkpoint::sign("ab", head, Micros(0), &signer(2), None);
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
        let evidence = TrailEvidence {
            keys: [1, 3].map(|key| signer(key).key().clone()).to_vec(),
            ..against(&trail.checkpoints)
        };
        let report = checked(whole(), &trail.rows, evidence);
        assert_eq!(
            (report.findings, report.confirmation.confirming),
            (Vec::new(), 5)
        );
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
        // Without a checkpoint, whoever has dropped the beginning can have added it.
        let found = rest(&trail);
        assert!(
            found[0].contains("no checkpoint covers entry 11, which says that they were pruned"),
            "{found:?}"
        );
        trail.checkpoint(2);
        assert_eq!(rest(&trail), Vec::<String>::new());
        let alone = checked(begin.clone(), &trail.rows[6..], TrailEvidence::default());
        assert_eq!(alone.verdict(), TrailVerdict::Intact);
        assert_eq!(alone.start, TrailStart::Pruned { by: 11 });
    }

    #[test]
    fn a_part_must_be_asked_for_and_confirmed() {
        let trail = Written::some();
        let part = |after: usize| TrailBegin {
            after: ChainHead {
                seq: after as u64,
                hash: trail.rows[after - 1].hash,
            },
            key: Some(signer(2).key().to_string()),
            is_part: true,
        };
        let evidence = |part: bool| TrailEvidence {
            part,
            ..against(&trail.checkpoints)
        };
        let report = checked(part(7), &trail.rows[7..], evidence(true));
        assert_eq!(report.verdict(), TrailVerdict::Intact, "{report:?}");
        assert_eq!(report.start, TrailStart::Part);
        assert_eq!(report.confirmation.through(), Some(10));
        let report = checked(part(7), &trail.rows[7..], evidence(false));
        assert!(
            report.findings[0]
                .to_string()
                .contains("verify it with --part"),
            "{report:?}"
        );
        // The checkpoint of the entry before says nothing of entries after it.
        let mut forged = trail.clone();
        forged.add("job.submit", json!({"forged": true}));
        let report = checked(part(10), &forged.rows[10..], evidence(true));
        assert_eq!(report.verdict(), TrailVerdict::Unconfirmed, "{report:?}");
    }

    #[test]
    fn a_trail_that_no_checkpoint_confirms_is_not_intact() {
        let trail = Written::some();
        let mut invented = Written {
            head: ChainHead {
                seq: 1000,
                hash: [7; 32],
            },
            ..Written::default()
        };
        invented.add("server.start", json!({"epoch": 9}));
        let key = signer(1).key().clone();
        let begin = |is_part| TrailBegin {
            after: ChainHead {
                seq: 1000,
                hash: [7; 32],
            },
            key: Some(key.to_string()),
            is_part,
        };
        let evidence = TrailEvidence {
            keys: vec![key.clone()],
            part: true,
            ..against(&trail.checkpoints)
        };
        let report = checked(begin(true), &invented.rows, evidence.clone());
        assert_eq!(report.verdict(), TrailVerdict::Unconfirmed, "{report:?}");
        assert_eq!(report.confirmation.before, 4);
        let prune = json!({"through": 1000, "hash": "07".repeat(32), "key": key.to_string()});
        invented.add(PRUNE_ACTION, prune);
        let report = checked(begin(false), &invented.rows, evidence);
        assert_eq!(report.verdict(), TrailVerdict::Unconfirmed, "{report:?}");
    }

    #[test]
    fn foreign_checkpoints_say_nothing() {
        let mut trail = Written::some();
        let other = |instance: &str, seq: u64, key: u8| {
            let head = ChainHead { seq, hash: [9; 32] };
            Checkpoint::sign(instance, head, Micros(0), &signer(key), None)
        };
        // Of another server, and forged ones of this one: within it, beyond its end, and at an entry with a checkpoint.
        for (seq, key) in [(3, 8), (999, 9), (5, 9)] {
            trail.checkpoints.push(other("ab", seq, key));
        }
        trail.checkpoints.push(other("cd", 5, 7));
        let report = checked(whole(), &trail.rows, against(&trail.checkpoints));
        assert_eq!(report.verdict(), TrailVerdict::Intact, "{report:?}");
        let foreign = BTreeMap::from([("ab".to_owned(), 3), ("cd".to_owned(), 1)]);
        assert_eq!(report.confirmation.foreign, foreign);
        assert_eq!(report.confirmation.confirming, 4);
        // Alone they confirm nothing.
        let report = checked(whole(), &trail.rows, against(&trail.checkpoints[4..]));
        assert_eq!(report.verdict(), TrailVerdict::Unconfirmed, "{report:?}");
    }

    #[test]
    fn an_end_that_was_cut_off_with_its_key_is_found_by_the_checkpoints_of_that_key() {
        let mut trail = Written::some();
        trail.rows.truncate(5);
        let found = trail.findings();
        assert!(
            found[0].contains("ends at entry 5, and 2 checkpoints"),
            "{found:?}"
        );
    }

    #[test]
    fn keys_from_before_the_first_entry_lead_to_it() {
        let mut trail = Written::some();
        trail.key(3, Some(2));
        let after = ChainHead {
            seq: 7,
            hash: trail.rows[6].hash,
        };
        let begin = TrailBegin {
            after,
            key: Some(signer(2).key().to_string()),
            is_part: true,
        };
        let past = |with: &[PastKey]| {
            let evidence = TrailEvidence {
                keys: vec![signer(1).key().clone()],
                part: true,
                ..TrailEvidence::default()
            };
            let mut check = TrailCheck::new(begin.clone(), evidence);
            with.iter()
                .for_each(|past| check.add_past_key(past.clone()));
            for row in &trail.rows[7..] {
                check.add(TrailRow {
                    seq: None,
                    entry: &row.entry,
                    hash: row.hash,
                    prev: Some(row.prev),
                });
            }
            check.finish(None)
        };
        let first = PastKey {
            seq: 2,
            key: signer(1).key().clone(),
            signature: None,
        };
        let second = PastKey {
            seq: 6,
            key: signer(2).key().clone(),
            signature: Some(signer(1).sign_next(signer(2).key())),
        };
        let report = past(&[first.clone(), second.clone()]);
        assert_eq!(report.findings, Vec::new());
        assert_eq!(report.first_key.as_ref(), Some(signer(1).key()));
        let unsigned = PastKey {
            signature: None,
            ..second.clone()
        };
        for wrong in [vec![], vec![first.clone()], vec![first, unsigned]] {
            assert!(!past(&wrong).findings.is_empty(), "{wrong:?}");
        }
    }
}
