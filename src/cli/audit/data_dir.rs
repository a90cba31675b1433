//! The server's side of `audit verify`: reads a data directory without its server, and compares jobs and their stored
//! output with what the trail says of their ends. It changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use anyhow::Context;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    audit::{
        ChainHead, TrailCheck, TrailEvidence, TrailFinding,
        chain::hex,
        evidence::TrailReport,
        exported::{PastKey, TrailBegin},
        trail::TrailRow,
    },
    job::JobNumber,
    output::{Item, Log, OutputWalk, WalkEvent},
    spool::Layout,
    store::{EndedRow, FIRED_VERSION, Include, Store, StoreError, commands_digest},
};

/// Entries and jobs that are read at once.
const PAGE: u32 = 1000;
/// How much of an output is read at once, bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Jobs that were submitted together.
struct SubmittedJobs {
    /// The entry that says so.
    seq: u64,
    /// Runs of numbers that follow each other.
    jobs: Vec<RangeInclusive<JobNumber>>,
    /// The digest of their commands, where there is one.
    digest: Option<String>,
}

impl SubmittedJobs {
    fn numbers(&self) -> impl Iterator<Item = JobNumber> {
        self.jobs.iter().cloned().flatten()
    }
}

/// The data directory, and what the trail says of its jobs.
pub struct DataDirTrail {
    store: Store,
    log: Log,
    /// What the trail says of the end of each job, with the entry's number.
    ends: BTreeMap<JobNumber, (u64, Value)>,
    /// Jobs that were submitted and whose end has no entry.
    open: BTreeSet<JobNumber>,
    /// What was submitted together.
    submitted: Vec<SubmittedJobs>,
    /// Whether the trail begins with the first start on the directory: then no job is older than it.
    is_from_first_start: bool,
    removed: BTreeSet<JobNumber>,
    /// Jobs whose output was removed.
    trimmed: BTreeSet<JobNumber>,
}

impl DataDirTrail {
    /// Opens the database for reading.
    pub async fn open(layout: &Layout) -> anyhow::Result<Self> {
        let store = Store::open_to_read(&layout.database()).await?;
        Ok(Self {
            log: Log::new(store.clone(), layout.spool()),
            store,
            ends: BTreeMap::new(),
            open: BTreeSet::new(),
            submitted: Vec::new(),
            is_from_first_start: false,
            removed: BTreeSet::new(),
            trimmed: BTreeSet::new(),
        })
    }

    /// Remembers what an entry says of jobs.
    pub fn collect(&mut self, entry: &Value) {
        let (target, result) = (&entry["target"], &entry["result"]);
        let job = target["job"].as_i64();
        match (entry["action"].as_str().unwrap_or_default(), job) {
            _ if entry["decision"] != "allowed" => {}
            ("job.end", Some(job)) => {
                let seq = entry["seq"].as_u64().unwrap_or_default();
                self.ends.insert(job, (seq, result.clone()));
                self.open.remove(&job);
            }
            ("job.submit" | "job.retry", job) => {
                let number = |key: &str| job.or_else(|| target["jobs"][key].as_i64());
                if let (Some(first), Some(last)) = (number("first"), number("last")) {
                    self.submit(entry, vec![first..=last], true);
                }
            }
            ("schedule.fire" | "schedule.run", _) => {
                let jobs = numbers(&result["jobs"]).into_iter().map(|job| job..=job);
                let is_of_jobs = result["v"] == FIRED_VERSION || result["skipped"] == 0;
                self.submit(entry, jobs.collect(), is_of_jobs);
            }
            ("server.start", _) if entry["seq"] == 1 => {
                self.is_from_first_start = result["epoch"] == 1;
            }
            ("job.delete", Some(job)) => drop(self.removed.insert(job)),
            ("job.remove", _) if result["scope"] == "jobs" => {
                self.removed.extend(numbers(&target["jobs"]));
                self.trimmed.extend(numbers(&target["begun"]));
            }
            ("job.remove", _) => {
                self.trimmed.extend(numbers(&target["jobs"]));
                self.trimmed.extend(numbers(&target["begun"]));
            }
            _ => {}
        }
    }

    /// Remembers jobs that an entry says were submitted; whether its digest is of their commands and of nothing else.
    fn submit(&mut self, entry: &Value, jobs: Vec<RangeInclusive<JobNumber>>, has_digest: bool) {
        let digest = entry["result"]["commands_sha256"].as_str();
        let submitted = SubmittedJobs {
            seq: entry["seq"].as_u64().unwrap_or_default(),
            digest: digest.filter(|_| has_digest).map(str::to_owned),
            jobs,
        };
        self.open.extend(submitted.numbers());
        self.submitted.push(submitted);
    }

    /// Verifies the trail in the database, and compares the jobs with it.
    pub async fn verify(&mut self, evidence: TrailEvidence) -> anyhow::Result<TrailReport> {
        let first = self.store.audit_page(0, 1).await?;
        let begin = TrailBegin {
            after: first.after,
            key: first.key,
            is_part: false,
        };
        let mut at = begin.after.seq;
        let mut check = TrailCheck::new(begin, evidence);
        self.read_past_keys(&mut check, at).await;
        self.read_on(&mut check, &mut at).await?;
        let (mut differing, missing) = self.compare_rows().await?;
        differing.extend(self.compare_commands().await?);
        let early: Vec<JobNumber> = self.open.iter().copied().collect();
        let early = self.rows(&early).await?.0;
        let known = self.job_numbers().await?;
        // A server that runs may have written more meanwhile.
        self.read_on(&mut check, &mut at).await?;
        for finding in differing {
            check.find(finding);
        }
        for job in missing
            .into_iter()
            .filter(|job| !self.removed.contains(job))
        {
            let (seq, _) = self.ends[&job];
            let what = format!(
                "job {job}, whose end this is, is gone, and no entry says that it was removed"
            );
            check.find(TrailFinding::at(seq, what));
        }
        for row in early.iter().filter(|row| self.open.contains(&row.number)) {
            let what = format!(
                "job {} is final, and no entry says how it ended",
                row.number
            );
            check.find(TrailFinding::general(what));
        }
        for job in self.unsubmitted(&known) {
            let what = format!("job {job} has a row, and no entry says that it was submitted");
            check.find(TrailFinding::general(what));
        }
        Ok(check.finish(None))
    }

    /// Takes the keys from before the first entry: they lead to the one in force there.
    async fn read_past_keys(&self, check: &mut TrailCheck, through: u64) {
        let mut after = 0;
        while after < through {
            // A directory that an earlier version has written, and no server since, has no signatures of keys.
            let Ok(rows) = self.store.audit_keys(after, through, PAGE).await else {
                break;
            };
            let Some(last) = rows.last() else { break };
            after = last.seq;
            for row in rows {
                match row.key.parse() {
                    Ok(key) => check.add_past_key(PastKey {
                        seq: row.seq,
                        key,
                        signature: row.signature,
                    }),
                    Err(wrong) => {
                        check.find(TrailFinding::at(row.seq, format!("its key {wrong}")));
                    }
                }
            }
        }
    }

    /// The numbers of all jobs, in order.
    async fn job_numbers(&self) -> anyhow::Result<Vec<JobNumber>> {
        let mut all: Vec<JobNumber> = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(0);
            let more = self.store.job_numbers(after, PAGE).await?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// Those of these jobs that nobody has submitted. Where the trail does not begin with the first start, jobs from before
    /// its first submission are older than it.
    fn unsubmitted(&self, jobs: &[JobNumber]) -> Vec<JobNumber> {
        let ranges = self.submitted.iter().flat_map(|one| &one.jobs);
        let mut ranges: Vec<&RangeInclusive<JobNumber>> = ranges.collect();
        ranges.sort_by_key(|range| *range.start());
        let (mut ranges, mut found) = (ranges.into_iter().peekable(), Vec::new());
        let first = match (self.is_from_first_start, ranges.peek()) {
            (true, _) => 0,
            (false, Some(range)) => *range.start(),
            (false, None) => return found,
        };
        for job in jobs.iter().filter(|job| **job >= first) {
            while ranges.next_if(|range| range.end() < job).is_some() {}
            if ranges.peek().is_none_or(|range| !range.contains(job)) {
                found.push(*job);
            }
        }
        found
    }

    /// Verifies the entries after the entry `at`.
    async fn read_on(&mut self, check: &mut TrailCheck, at: &mut u64) -> anyhow::Result<()> {
        loop {
            let page = self.store.audit_page(*at, PAGE).await?;
            let Some(last) = page.rows.last() else {
                return Ok(());
            };
            *at = last.seq;
            for row in &page.rows {
                let entry = check.add(TrailRow {
                    seq: Some(row.seq),
                    entry: &row.entry,
                    hash: row.hash,
                    prev: None,
                });
                if let Some(entry) = entry {
                    self.collect(&entry);
                }
            }
        }
    }

    /// Compares the data directory with a file that was exported from it, which ends at `head`.
    pub async fn compare_with_file(
        &mut self,
        head: ChainHead,
    ) -> anyhow::Result<Vec<TrailFinding>> {
        let page = self.store.audit_page(head.seq.saturating_sub(1), 1).await?;
        let mut findings = Vec::new();
        let here = page.rows.first().filter(|row| row.seq == head.seq);
        if page.head.seq < head.seq {
            let what = format!(
                "the trail in the data directory ends at entry {}, and that of the file at {}: its end was cut \
                 off, or an older copy was put back",
                page.head.seq, head.seq
            );
            findings.push(TrailFinding::general(what));
        } else if here.is_some_and(|here| here.hash != head.hash) {
            let what =
                "the data directory has another entry: it was written anew, or it is another copy";
            findings.push(TrailFinding::at(head.seq, what));
        }
        // What was removed since the export is not known here.
        let (differing, _) = self.compare_rows().await?;
        findings.extend(differing);
        findings.extend(self.compare_commands().await?);
        Ok(findings)
    }

    /// Compares every job whose end the trail has; also returns those that are not there.
    async fn compare_rows(&self) -> anyhow::Result<(Vec<TrailFinding>, Vec<JobNumber>)> {
        let (mut findings, mut missing) = (Vec::new(), Vec::new());
        let jobs: Vec<JobNumber> = self.ends.keys().copied().collect();
        for jobs in jobs.chunks(PAGE as usize) {
            let (rows, unreadable) = self.rows(jobs).await?;
            let rows: BTreeMap<JobNumber, EndedRow> =
                rows.into_iter().map(|row| (row.number, row)).collect();
            for job in jobs {
                match (rows.get(job), unreadable.get(job)) {
                    (Some(row), _) => findings.extend(self.compare(row).await?),
                    (None, Some(error)) => {
                        let what = unreadable_row(*job, error);
                        findings.push(TrailFinding::at(self.ends[job].0, what));
                    }
                    (None, None) => missing.push(*job),
                }
            }
        }
        Ok((findings, missing))
    }

    /// Compares what the jobs run with what was submitted, where all that were submitted together are still there.
    async fn compare_commands(&self) -> anyhow::Result<Vec<TrailFinding>> {
        let mut findings = Vec::new();
        for submitted in &self.submitted {
            let Some(said) = &submitted.digest else {
                continue;
            };
            let (mut specs, mut count) = (Vec::new(), 0);
            for job in submitted.numbers() {
                count += 1;
                match self.store.job(job.into(), Include::default()).await {
                    Ok(found) => specs.extend(found.map(|job| job.spec)),
                    Err(error) => {
                        let what = unreadable_row(job, &error);
                        findings.push(TrailFinding::at(submitted.seq, what));
                    }
                }
            }
            if specs.len() == count && commands_digest(specs.iter()) != *said {
                let (first, last) = (submitted.numbers().next(), submitted.numbers().last());
                let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
                let what = match first == last {
                    true => {
                        format!("job {first} has another command or directory than was submitted")
                    }
                    false => format!(
                        "one of the jobs {first} to {last} has another command or directory than was submitted"
                    ),
                };
                findings.push(TrailFinding::at(submitted.seq, what));
            }
        }
        Ok(findings)
    }

    /// The rows of those of these jobs that are final, and why others cannot be read.
    async fn rows(
        &self,
        jobs: &[JobNumber],
    ) -> anyhow::Result<(Vec<EndedRow>, BTreeMap<JobNumber, StoreError>)> {
        let mut unreadable = BTreeMap::new();
        if let Ok(rows) = self.store.ended_rows(jobs).await {
            return Ok((rows, unreadable));
        }
        // One by one: a row that was changed by hand spoils the answer of all.
        let mut rows = Vec::new();
        for job in jobs {
            match self.store.ended_rows(&[*job]).await {
                Ok(row) => rows.extend(row),
                Err(error) => drop(unreadable.insert(*job, error)),
            }
        }
        Ok((rows, unreadable))
    }

    /// Compares a job's row, and then its stored output, with the entry of its end.
    async fn compare(&self, row: &EndedRow) -> anyhow::Result<Option<TrailFinding>> {
        let job = row.number;
        let (seq, end) = &self.ends[&job];
        let is_trimmed = self.trimmed.contains(&job) || self.removed.contains(&job);
        let of_output = |key: &str| key.starts_with("output") || key.starts_with("dropped");
        let keys: BTreeSet<&String> = [end, &row.end]
            .into_iter()
            .filter_map(Value::as_object)
            .flat_map(|one| one.keys())
            .filter(|key| !is_trimmed || !of_output(key))
            .collect();
        let differs = |key: &&&String| end.get(key.as_str()) != row.end.get(key.as_str());
        let differing: Vec<String> = keys
            .iter()
            .filter(differs)
            .map(|key| {
                format!(
                    "{key} is {}, and the entry says {}",
                    row.end[*key], end[*key]
                )
            })
            .collect();
        if !differing.is_empty() {
            let what = format!("the row of job {job} was changed: {}", differing.join("; "));
            return Ok(Some(TrailFinding::at(*seq, what)));
        }
        let Some(said) = end["output_sha256"].as_str().filter(|_| !is_trimmed) else {
            return Ok(None);
        };
        let stored = self.hash(row).await?;
        let is_same = stored.as_deref() == Ok(said);
        Ok((!is_same).then(|| {
            let found = stored.map_or_else(|why| why, |stored| format!("its SHA-256 is {stored}"));
            let what = format!(
                "the stored output of job {job} was changed: {found}, and the entry says {said}"
            );
            TrailFinding::at(*seq, what)
        }))
    }

    /// SHA-256 of a job's stored output, or why it has none.
    async fn hash(&self, row: &EndedRow) -> anyhow::Result<Result<String, String>> {
        let mut walk = OutputWalk::new(row.number, row.output_bytes, true, PIECE_BYTES);
        let mut hasher = Sha256::new();
        while !walk.is_over() {
            let step = walk.step(&self.log).await;
            for event in step.context("the stored output cannot be read")? {
                match event {
                    WalkEvent::Item(Item::Chunk(chunk)) => hasher.update(&chunk.data),
                    WalkEvent::Item(Item::Gap(gap)) => {
                        return Ok(Err(format!("it has a gap at {}", gap.from)));
                    }
                    WalkEvent::Problem(problem) => return Ok(Err(problem.message)),
                    WalkEvent::Lost(offset) => {
                        return Ok(Err(format!("bytes before {offset} are missing")));
                    }
                    WalkEvent::SegmentEnd(_) => {}
                }
            }
        }
        Ok(Ok(hex(&hasher.finalize())))
    }
}

fn unreadable_row(job: JobNumber, error: &StoreError) -> String {
    format!("the row of job {job} was changed: it cannot be read: {error}")
}

/// The numbers of a list.
fn numbers(list: &Value) -> Vec<JobNumber> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_i64).collect()
}
