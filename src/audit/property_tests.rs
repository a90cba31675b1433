//! Whatever somebody without keys does to a trail, its export and its checkpoints: what the verification then calls intact and
//! confirmed is the trail that the server has written.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    AuditEntry, ChainHead, Checkpoint, ExportedEntry, KeyLink, NoteSigner, TrailEvidence,
    TrailFileCheck, VerifierKey,
    chain::hex,
    evidence::{TrailReport, TrailStart, TrailVerdict},
    exported::{ExportedLine, PastKey, TrailBegin},
    trail::{KEY_ACTION, PRUNE_ACTION},
};
use crate::{access::ClientOrigin, job::Micros};

/// The seed of the first key that a forger makes.
const FORGER: u8 = 200;

fn signer(byte: u8) -> NoteSigner {
    NoteSigner::of_seed("cc-executor.audit/ab", [byte; 32]).expect("a key")
}

fn link(before: u8, key: u8) -> KeyLink {
    KeyLink {
        before: signer(before).key().clone(),
        key: signer(key).key().clone(),
        signature: signer(before).sign_next(signer(key).key()),
    }
}

/// What a server does.
#[derive(Debug, Clone)]
enum ServerStep {
    Entry,
    Rotate,
    Checkpoint,
    Prune(prop::sample::Index),
}

/// An export in pieces.
#[derive(Debug, Clone)]
struct ExportPieces {
    begin: TrailBegin,
    past: Vec<PastKey>,
    rows: Vec<ExportedEntry>,
}

impl ExportPieces {
    fn lines(&self) -> Vec<String> {
        let head = self.rows.last().map(|row| ChainHead {
            seq: self.begin.after.seq + self.rows.len() as u64,
            hash: row.hash,
        });
        let begin = [ExportedLine::Begin(self.begin.clone())];
        let past = self.past.iter().cloned().map(ExportedLine::Key);
        let rows = self.rows.iter().cloned().map(ExportedLine::Entry);
        let end = [ExportedLine::End(head.unwrap_or(self.begin.after))];
        let lines = begin.into_iter().chain(past).chain(rows).chain(end);
        lines.map(|line| line.text() + "\n").collect()
    }

    /// Removes entries from the beginning, and makes the first line as an export would.
    fn drop_prefix(&mut self, at: &prop::sample::Index, part: bool, written: &ServerTrail) {
        let keep = self.rows.split_off(at.index(self.rows.len() + 1));
        let dropped = std::mem::replace(&mut self.rows, keep);
        if let Some(last) = dropped.last() {
            self.begin.after.seq += dropped.len() as u64;
            self.begin.after.hash = last.hash;
        }
        let known = usize::try_from(self.begin.after.seq).unwrap_or(usize::MAX);
        if known <= written.rows.len() {
            self.begin.key = written.begin(known, part).key;
            self.past = written.export(known, part).past;
        }
        self.begin.is_part = part;
    }

    /// Puts in an entry that says that what is before the first line was pruned.
    fn forge_prune(&mut self, at: &prop::sample::Index) {
        let TrailBegin { after, key, .. } = self.begin.clone();
        let result = json!({"through": after.seq, "hash": hex(&after.hash), "key": key});
        let at = at.index(self.rows.len() + 1);
        self.rows
            .insert(at, entry_after(after, PRUNE_ACTION, result));
        self.begin.is_part = false;
        self.chain_from(at);
    }

    /// Invents everything.
    fn fabricate(&mut self, after: u64, part: bool) {
        self.begin.after.seq = after;
        self.begin.after.hash = if after == 0 { [0; 32] } else { [7; 32] };
        self.begin.is_part = part;
        let mut head = self.begin.after;
        self.rows.clear();
        for nth in 0..5 {
            let row = entry_after(head, "job.submit", json!({"invented": nth}));
            head = head.after(&row.entry);
            self.rows.push(row);
        }
    }

    /// Makes numbers and hashes right from a row on, as somebody can who has no key.
    fn chain_from(&mut self, from: usize) {
        let mut head = self.begin.after;
        for (at, row) in self.rows.iter_mut().enumerate() {
            let seq = head.seq + 1;
            if at >= from {
                let mut entry: Value = serde_json::from_str(&row.entry).expect("JSON");
                entry["seq"] = seq.into();
                row.entry = super::canonical::canonical(&entry);
                row.prev = head.hash;
                row.hash = head.after(&row.entry).hash;
            }
            head = ChainHead {
                seq,
                hash: row.hash,
            };
        }
    }
}

/// What a server has written.
#[derive(Debug, Clone)]
struct ServerTrail {
    /// All entries, also those that were pruned.
    rows: Vec<ExportedEntry>,
    /// The key in force by the entry that put it there.
    keys: BTreeMap<u64, u8>,
    checkpoints: Vec<Checkpoint>,
    /// The numbers of pruning entries, with the last entry that each has removed.
    prunes: BTreeMap<u64, u64>,
}

impl ServerTrail {
    fn of(steps: &[ServerStep]) -> Self {
        let mut trail = Self {
            rows: Vec::new(),
            keys: BTreeMap::new(),
            checkpoints: Vec::new(),
            prunes: BTreeMap::new(),
        };
        trail.add("server.start", json!({"epoch": 1}));
        trail.rotate();
        for step in steps {
            trail.step(step);
        }
        // A rotation is followed by a checkpoint.
        trail.step(&ServerStep::Checkpoint);
        trail
    }

    fn step(&mut self, step: &ServerStep) {
        match step {
            ServerStep::Entry => self.add("job.submit", json!({"nth": self.rows.len()})),
            ServerStep::Rotate => {
                self.step(&ServerStep::Checkpoint);
                self.rotate();
            }
            ServerStep::Checkpoint => {
                let key = *self.keys.values().next_back().expect("a key");
                let link = (key > 1).then(|| link(key - 1, key));
                let head = self.head(self.rows.len());
                let signer = signer(key);
                let made = Checkpoint::sign("ab", head, Micros(0), &signer, link.as_ref());
                self.checkpoints.push(made);
            }
            ServerStep::Prune(index) => {
                let (base, last) = (self.base() as usize, self.rows.len());
                let through = base + 1 + index.index(last - base);
                let begin = self.begin(through, false);
                let result = json!({
                    "through": through, "hash": hex(&begin.after.hash), "key": begin.key,
                });
                self.add(PRUNE_ACTION, result);
                self.prunes.insert(self.rows.len() as u64, through as u64);
            }
        }
    }

    fn add(&mut self, action: &'static str, result: Value) {
        let before = self.head(self.rows.len());
        let row = entry_after(before, action, result);
        self.rows.push(row);
    }

    fn rotate(&mut self) {
        let new = self.keys.len() as u8 + 1;
        let key = signer(new).key().clone();
        let signature = (new > 1).then(|| signer(new - 1).sign_next(&key));
        let result = json!({"key": key.to_string(), "signature": signature});
        self.add(KEY_ACTION, result);
        self.keys.insert(self.rows.len() as u64, new);
    }

    fn head(&self, seq: usize) -> ChainHead {
        let hash = seq.checked_sub(1).map(|at| self.rows[at].hash);
        ChainHead {
            seq: seq as u64,
            hash: hash.unwrap_or_default(),
        }
    }

    /// The last entry that was pruned.
    fn base(&self) -> u64 {
        self.prunes.values().copied().max().unwrap_or(0)
    }

    fn begin(&self, after: usize, is_part: bool) -> TrailBegin {
        let key = self.keys.range(..=after as u64).next_back();
        TrailBegin {
            after: self.head(after),
            key: key.map(|(_, key)| signer(*key).key().to_string()),
            is_part,
        }
    }

    fn export(&self, after: usize, is_part: bool) -> ExportPieces {
        let past = self.keys.range(..=after as u64).map(|(seq, key)| PastKey {
            seq: *seq,
            key: signer(*key).key().clone(),
            signature: (*key > 1).then(|| link(key - 1, *key).signature),
        });
        ExportPieces {
            begin: self.begin(after, is_part),
            past: past.collect(),
            rows: self.rows[after..].to_vec(),
        }
    }
}

fn entry_after(before: ChainHead, action: &'static str, result: Value) -> ExportedEntry {
    let origin = Arc::new(ClientOrigin::server());
    let entry = AuditEntry::allowed(action, origin, json!({}), result);
    let entry = entry.text(before.seq + 1, Micros(0));
    ExportedEntry {
        hash: before.after(&entry).hash,
        prev: before.hash,
        entry,
    }
}

/// What somebody without keys does. He may make keys of his own.
#[derive(Debug, Clone)]
enum ForgerEdit {
    DropPrefix(prop::sample::Index, bool),
    DropSuffix(prop::sample::Index),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index),
    Change(prop::sample::Index),
    ForgePrune(prop::sample::Index),
    ForgeKey(prop::sample::Index),
    ForgeBegin(u64, [u8; 32], bool, bool),
    BeginKey(u8),
    DropPast(prop::sample::Index),
    ForgePast(u8),
    Fabricate(u64, bool),
    /// All numbers and hashes are made right.
    Chain,
    DropCheckpoint(prop::sample::Index),
    ForgeCheckpoint(u64, bool),
    Line(prop::sample::Index, u8),
}

fn edits() -> impl Strategy<Value = ForgerEdit> {
    let index = any::<prop::sample::Index>;
    let near = prop_oneof![0..40_u64, Just(1000), Just(super::chain::SEQ_MAX)];
    prop_oneof![
        (index(), any::<bool>()).prop_map(|(at, part)| ForgerEdit::DropPrefix(at, part)),
        index().prop_map(ForgerEdit::DropSuffix),
        index().prop_map(ForgerEdit::Remove),
        (index(), index()).prop_map(|(a, b)| ForgerEdit::Swap(a, b)),
        index().prop_map(ForgerEdit::Insert),
        index().prop_map(ForgerEdit::Change),
        index().prop_map(ForgerEdit::ForgePrune),
        index().prop_map(ForgerEdit::ForgeKey),
        (
            near.clone(),
            any::<[u8; 32]>(),
            any::<bool>(),
            any::<bool>()
        )
            .prop_map(|(seq, hash, part, chain)| ForgerEdit::ForgeBegin(seq, hash, part, chain)),
        (0..6_u8).prop_map(ForgerEdit::BeginKey),
        index().prop_map(ForgerEdit::DropPast),
        (0..6_u8).prop_map(ForgerEdit::ForgePast),
        (near.clone(), any::<bool>()).prop_map(|(after, part)| ForgerEdit::Fabricate(after, part)),
        Just(ForgerEdit::Chain),
        index().prop_map(ForgerEdit::DropCheckpoint),
        (near, any::<bool>()).prop_map(|(seq, own)| ForgerEdit::ForgeCheckpoint(seq, own)),
        (index(), any::<u8>()).prop_map(|(at, how)| ForgerEdit::Line(at, how)),
    ]
}

/// An export and its checkpoints, which somebody edits.
#[derive(Debug, Clone)]
struct ForgedExport {
    file: ExportPieces,
    checkpoints: Vec<Checkpoint>,
    /// Changes of single lines, made last.
    lines: Vec<(prop::sample::Index, u8)>,
}

impl ForgedExport {
    fn edit(&mut self, edit: &ForgerEdit, written: &ServerTrail) {
        let file = &mut self.file;
        let rows = file.rows.len();
        match edit {
            ForgerEdit::DropPrefix(at, part) => file.drop_prefix(at, *part, written),
            ForgerEdit::DropSuffix(at) => file.rows.truncate(at.index(rows + 1)),
            ForgerEdit::Remove(at) if rows > 0 => drop(file.rows.remove(at.index(rows))),
            ForgerEdit::Swap(a, b) if rows > 0 => file.rows.swap(a.index(rows), b.index(rows)),
            ForgerEdit::Insert(at) => {
                let before = file.begin.after;
                let row = entry_after(before, "job.submit", json!({"forged": true}));
                file.rows.insert(at.index(rows + 1), row);
            }
            ForgerEdit::Change(at) if rows > 0 => {
                let row = &mut file.rows[at.index(rows)];
                row.entry = row.entry.replacen("server", "Server", 1);
            }
            ForgerEdit::ForgePrune(at) => file.forge_prune(at),
            ForgerEdit::ForgeKey(at) => {
                let result = json!({"key": signer(FORGER).key().to_string(), "signature": null});
                let row = entry_after(file.begin.after, KEY_ACTION, result);
                file.rows.insert(at.index(rows + 1), row);
            }
            ForgerEdit::ForgeBegin(seq, hash, part, chain) => {
                file.begin.after = ChainHead {
                    seq: *seq,
                    hash: *hash,
                };
                file.begin.is_part = *part;
                if *chain && *seq < 1_000_000 {
                    file.chain_from(0);
                }
            }
            ForgerEdit::BeginKey(key) => {
                file.begin.key = (*key > 0).then(|| signer(*key).key().to_string());
            }
            ForgerEdit::DropPast(at) if !file.past.is_empty() => {
                let at = at.index(file.past.len());
                file.past.remove(at);
            }
            ForgerEdit::ForgePast(key) => file.past.push(PastKey {
                seq: file.begin.after.seq,
                key: signer(FORGER + key).key().clone(),
                signature: Some(signer(FORGER).sign_next(signer(FORGER + key).key())),
            }),
            ForgerEdit::Fabricate(after, part) if *after < 1_000_000 => {
                file.fabricate(*after, *part);
            }
            ForgerEdit::Chain if file.begin.after.seq < 1_000_000 => file.chain_from(0),
            ForgerEdit::DropCheckpoint(at) if !self.checkpoints.is_empty() => {
                let at = at.index(self.checkpoints.len());
                self.checkpoints.remove(at);
            }
            ForgerEdit::ForgeCheckpoint(seq, own) => self.forge_checkpoint(*seq, *own),
            ForgerEdit::Line(at, how) => self.lines.push((*at, *how)),
            _ => {}
        }
    }

    /// A checkpoint of the edited trail, or of nothing, by a key that claims to follow the first one.
    fn forge_checkpoint(&mut self, seq: u64, is_own: bool) {
        let at = seq.checked_sub(self.file.begin.after.seq + 1);
        let row = at.and_then(|at| self.file.rows.get(usize::try_from(at).ok()?));
        let hash = row.filter(|_| is_own).map_or([3; 32], |row| row.hash);
        let mut claimed = link(FORGER, FORGER + 1);
        claimed.before = signer(1).key().clone();
        let head = ChainHead { seq, hash };
        let signer = signer(FORGER + 1);
        let made = Checkpoint::sign("ab", head, Micros(0), &signer, Some(&claimed));
        self.checkpoints.push(made);
    }

    fn verify(&self, key: &VerifierKey, part: bool) -> Option<TrailReport> {
        let mut lines = self.file.lines();
        for (at, how) in &self.lines {
            let at = at.index(lines.len());
            match how % 5 {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => lines[at] = lines[at].replace('\n', "\r\n"),
                3 => {
                    let place = usize::from(*how) % lines[at].len();
                    lines[at].insert(place, ' ');
                }
                _ => {
                    let half = lines[at].len() / 2;
                    lines[at].truncate(half);
                }
            }
            if lines.is_empty() {
                return None;
            }
        }
        let evidence = TrailEvidence {
            checkpoints: self.checkpoints.clone(),
            keys: vec![key.clone()],
            part,
        };
        let text = lines.concat();
        let mut lines = text.split_inclusive('\n').map(str::as_bytes);
        let mut check = TrailFileCheck::begin(lines.next()?, evidence)?;
        for line in lines {
            check.add(line);
        }
        Some(check.finish())
    }
}

fn steps() -> impl Strategy<Value = Vec<ServerStep>> {
    let step = prop_oneof![
        6 => Just(ServerStep::Entry),
        1 => Just(ServerStep::Rotate),
        2 => Just(ServerStep::Checkpoint),
        1 => any::<prop::sample::Index>().prop_map(ServerStep::Prune),
    ];
    prop::collection::vec(step, 0..24)
}

/// Checks that what a report calls intact and confirmed is what the server has written.
fn judge(
    report: &TrailReport,
    edited: &ForgedExport,
    written: &ServerTrail,
    part: bool,
) -> Result<(), TestCaseError> {
    let confirmed = report.confirmation.through();
    if report.verdict() != TrailVerdict::Intact || edited.checkpoints.is_empty() {
        return Ok(());
    }
    prop_assert!(confirmed.is_some(), "{report:?}");
    let through = confirmed.unwrap_or(0);
    // None of the server's checkpoints says that there was more.
    let honest = edited.checkpoints.iter();
    let honest = honest.filter(|one| written.checkpoints.contains(one));
    let longest = honest.map(|one| one.head.seq).max();
    prop_assert!(longest == Some(through), "{longest:?} {report:?}");
    let begin = edited.file.begin.after.seq;
    prop_assert_eq!(begin, report.begin.seq);
    for (at, row) in edited.file.rows.iter().enumerate() {
        let seq = usize::try_from(begin).unwrap_or(0) + at + 1;
        if seq as u64 <= through {
            prop_assert_eq!(&row.entry, &written.rows[seq - 1].entry);
        }
    }
    prop_assert!(begin + edited.file.rows.len() as u64 >= through);
    match report.start {
        TrailStart::Whole => prop_assert_eq!(begin, 0),
        TrailStart::Part => prop_assert!(part && edited.file.begin.is_part),
        TrailStart::Pruned { by } => {
            prop_assert!(by <= through);
            prop_assert_eq!(written.prunes.get(&by), Some(&begin));
        }
        TrailStart::Missing => prop_assert!(false, "{:?}", report),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_by_somebody_without_keys_is_called_intact(
        steps in steps(),
        part in prop::option::of(any::<prop::sample::Index>()),
        edits in prop::collection::vec(edits(), 0..5),
    ) {
        let written = ServerTrail::of(&steps);
        let base = usize::try_from(written.base()).expect("small");
        // Every entry of a part can be after the last checkpoint; then nothing confirms it.
        let last = usize::try_from(written.checkpoints[written.checkpoints.len() - 1].head.seq);
        let last = last.expect("small");
        let after = part.map_or(base, |at| base.min(last - 1) + at.index(last - base.min(last - 1)));
        let after = after.max(base);
        let is_part = part.is_some() && after > base;
        let original = ForgedExport {
            file: written.export(after, is_part),
            checkpoints: written.checkpoints.clone(),
            lines: Vec::new(),
        };
        let first = signer(1).key().clone();
        let report = original.verify(&first, is_part).expect("an export");
        prop_assert_eq!(report.verdict(), TrailVerdict::Intact, "{:?}", report);
        judge(&report, &original, &written, is_part)?;
        let mut edited = original.clone();
        for edit in &edits {
            edited.edit(edit, &written);
        }
        for part in [false, true] {
            if let Some(report) = edited.verify(&first, part) {
                judge(&report, &edited, &written, part)?;
            }
        }
    }
}
