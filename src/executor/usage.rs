//! What the data directory takes on the disk: by kind of file, and the stored outputs by job, queue
//! and label.

use std::{
    cmp::Reverse, collections::BTreeMap, fs, io, os::unix::fs::MetadataExt, path::Path,
    sync::Mutex as PlainMutex, time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{Error, Executor};
use crate::{
    job::JobNumber,
    spool::Layout,
    store::{LabelCursor, StoredJob, StoredSum},
    sys::{lock, threads::blocking},
};

/// How old totals may be that are answered without a look at the disk.
const TOTALS_KEPT_FOR: Duration = Duration::from_secs(10);
/// How many numbers of jobs one statement covers.
const STEP_NUMBERS: JobNumber = 4096;
/// Length of a block as `stat` counts them, bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// What the files of the data directory take on the disk, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskTotals {
    /// The database.
    pub database_bytes: u64,
    /// Its write-ahead log.
    pub log_bytes: u64,
    /// Segments: the outputs that are not in the database.
    pub spool_bytes: u64,
    /// Everything else: the disk reserve, logs, small files.
    pub other_bytes: u64,
}

impl DiskTotals {
    /// All of it.
    pub fn all(&self) -> u64 {
        self.database_bytes + self.log_bytes + self.spool_bytes + self.other_bytes
    }
}

/// What takes the space.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskUsage {
    /// By kind of file.
    pub totals: DiskTotals,
    /// What of the database's file holds nothing, bytes.
    pub free_bytes: u64,
    /// Whether that can be returned to the file system.
    pub can_shrink: bool,
    /// The jobs with the most stored output.
    pub jobs: Vec<StoredJob>,
    /// The queues with the most.
    pub queues: Vec<(String, StoredSum)>,
    /// How many other queues have jobs.
    pub more_queues: u64,
    /// The labels with the most, key and value.
    pub labels: Vec<((String, String), StoredSum)>,
    /// How many other labels jobs have.
    pub more_labels: u64,
}

/// The totals of a moment ago, and the turn to compute more.
#[derive(Debug, Default)]
pub(super) struct UsageCache {
    totals: PlainMutex<Option<(Instant, DiskTotals)>>,
    turn: Mutex<()>,
}

/// Keeps the entries with the most bytes.
#[derive(Debug)]
struct Largest<T> {
    max: usize,
    entries: Vec<(T, StoredSum)>,
    others: u64,
}

impl<T: Ord> Largest<T> {
    fn new(max: usize) -> Self {
        Self {
            max,
            entries: Vec::new(),
            others: 0,
        }
    }

    fn add(&mut self, entry: T, sum: StoredSum) {
        self.entries.push((entry, sum));
        if self.entries.len() > self.max * 2 + 100 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.entries.sort_by(|a, b| {
            Reverse(a.1.bytes)
                .cmp(&Reverse(b.1.bytes))
                .then(a.0.cmp(&b.0))
        });
        self.others += self.entries.len().saturating_sub(self.max) as u64;
        self.entries.truncate(self.max);
    }

    /// The largest, and how many there are besides.
    fn finish(mut self) -> (Vec<(T, StoredSum)>, u64) {
        self.cut();
        (self.entries, self.others)
    }
}

impl Executor {
    /// What the files take; up to ten seconds old.
    pub async fn disk_totals(&self) -> Result<DiskTotals, Error> {
        let kept = *lock(&self.inner.usage.totals);
        match kept {
            Some((at, totals)) if at.elapsed() < TOTALS_KEPT_FOR => Ok(totals),
            _ => self.disk_totals_now().await,
        }
    }

    async fn disk_totals_now(&self) -> Result<DiskTotals, Error> {
        let layout = self.inner.supervisor.context().layout.clone();
        let totals = blocking(move || measure(&layout)).await;
        let totals = totals.map_err(|error| {
            tracing::warn!(%error, "the data directory could not be measured");
            Error::Unavailable("the data directory could not be measured; try again".to_owned())
        })?;
        *lock(&self.inner.usage.totals) = Some((Instant::now(), totals));
        Ok(totals)
    }

    /// What takes the space, with the `top` largest jobs, queues and labels. It looks at every job,
    /// in steps; one is computed at a time.
    pub async fn disk_usage(&self, top: usize) -> Result<DiskUsage, Error> {
        let _turn = self.inner.usage.turn.lock().await;
        let pages = self.inner.store.free_pages().await?;
        let (jobs, queues) = self.usage_of_jobs(top).await?;
        let (queues, more_queues) = queues.finish();
        let (labels, more_labels) = self.usage_of_labels(top).await?.finish();
        Ok(DiskUsage {
            totals: self.disk_totals_now().await?,
            free_bytes: pages.free * pages.page_bytes,
            can_shrink: pages.can_shrink,
            jobs,
            queues,
            more_queues,
            labels,
            more_labels,
        })
    }

    async fn usage_of_jobs(&self, top: usize) -> Result<(Vec<StoredJob>, Largest<String>), Error> {
        let store = &self.inner.store;
        let last = store.last_number().await?;
        let limit = u32::try_from(top).unwrap_or(u32::MAX);
        let mut jobs: Vec<StoredJob> = Vec::new();
        let mut queues: BTreeMap<String, StoredSum> = BTreeMap::new();
        let mut after = 0;
        while after < last {
            let to = after.saturating_add(STEP_NUMBERS);
            let step = store.usage_of_jobs(after, to, limit).await?;
            for (queue, sum) in step.queues {
                let all = queues.entry(queue).or_default();
                all.jobs += sum.jobs;
                all.bytes += sum.bytes;
            }
            jobs.extend(step.jobs);
            jobs.sort_by_key(|job| (Reverse(job.bytes), job.number));
            jobs.truncate(top);
            after = to;
        }
        let mut largest = Largest::new(top);
        for (queue, sum) in queues {
            largest.add(queue, sum);
        }
        Ok((jobs, largest))
    }

    async fn usage_of_labels(&self, top: usize) -> Result<Largest<(String, String)>, Error> {
        let mut largest = Largest::new(top);
        // The last label of a step may go on in the next one.
        let mut open: Option<((String, String), StoredSum)> = None;
        let mut next = Some(LabelCursor::default());
        while let Some(after) = next {
            let step = self.inner.store.usage_of_labels(&after).await?;
            for (key, value, sum) in step.labels {
                let label = (key, value);
                match &mut open {
                    Some((current, all)) if *current == label => {
                        all.jobs += sum.jobs;
                        all.bytes += sum.bytes;
                    }
                    _ => {
                        if let Some((label, sum)) = open.replace((label, sum)) {
                            largest.add(label, sum);
                        }
                    }
                }
            }
            next = step.next;
        }
        if let Some((label, sum)) = open {
            largest.add(label, sum);
        }
        Ok(largest)
    }
}

/// Adds up what the files take. Blocking.
fn measure(layout: &Layout) -> io::Result<DiskTotals> {
    let database = layout.database();
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        taken(Path::new(&name))
    };
    let mut totals = DiskTotals {
        database_bytes: taken(&database)?,
        log_bytes: beside("-wal")? + beside("-shm")?,
        spool_bytes: files_of(&layout.spool())?,
        other_bytes: 0,
    };
    let files = files_of(layout.root())?;
    totals.other_bytes = files.saturating_sub(totals.database_bytes + totals.log_bytes);
    Ok(totals)
}

/// What the files of a directory take; directories in it do not count.
fn files_of(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Ok(meta) if !meta.is_file() => 0,
            meta => meta?.blocks() * STAT_BLOCK_BYTES,
        };
    }
    Ok(sum)
}

/// What a file takes; a missing one takes nothing.
fn taken(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        meta => Ok(meta?.blocks() * STAT_BLOCK_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay_and_the_others_are_counted() {
        let mut largest = Largest::new(3);
        for number in 0..1000_u64 {
            let sum = StoredSum {
                jobs: 1,
                bytes: number * 7 % 1000,
            };
            largest.add(number, sum);
        }
        let (kept, others) = largest.finish();
        let bytes: Vec<u64> = kept.iter().map(|(_, sum)| sum.bytes).collect();
        assert_eq!((bytes, others), (vec![999, 998, 997], 997));
    }

    #[test]
    fn files_are_added_up_by_kind() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(root.path());
        fs::create_dir(layout.spool()).expect("a directory");
        fs::write(layout.database(), [1; 4096]).expect("written");
        fs::write(layout.spool().join("1.1.0.seg"), [1; 8192]).expect("written");
        fs::write(layout.root().join("token"), "x").expect("written");
        let totals = measure(&layout).expect("measured");
        assert!(totals.database_bytes >= 4096 && totals.spool_bytes >= 8192);
        assert_eq!(totals.log_bytes, 0);
        assert_eq!(
            totals.all(),
            totals.database_bytes + totals.spool_bytes + totals.other_bytes
        );
    }
}
