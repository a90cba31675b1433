//! Decides about an attempt whose shim is gone, at the start of a server and whenever a shim dies.
//! One function (`decide`) decides, the rest acts.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use tokio::sync::Semaphore;

use super::{end, expect, wakeup::Wakeup};
use crate::{
    job::{ExitFacts, Stream},
    output::files::durable::is_sync_failure,
    spool::{
        Position, RecordHeader, RecordKind, SegmentName, SegmentReader, dropped_range,
        read_beginning,
        reader::{NextRecord, is_no_segment},
        record::{self, StartPayload},
        safe_file,
        segment::Intent,
    },
    store::{OpenAttempt, StoreError},
    supervisor::{
        AttemptEnding, AttemptId, AttemptWatch, Finalized, Leader, Mark, OrphanTree, SearchGuard,
        Supervisor, finalize, first_segment,
    },
    sys::{clock, retry, threads::blocking, vital::Vital},
};

/// What an attempt left in the spool.
#[derive(Debug, Clone, PartialEq)]
pub enum Traces {
    /// No segment: the right to start was never taken.
    None,
    /// An earlier rescue took the right, so that no shim can start it any more.
    Fenced,
    /// The right was taken; there is no exit record.
    Begun {
        /// The process that was started, if one is known.
        start: Option<StartPayload>,
        /// The number that its processes carry; `None` if they were given none.
        mark: Option<u64>,
        /// The directory of its control group; `None` if it was to have none.
        cgroup: Option<String>,
    },
    /// The shim recorded how it ended.
    Ended(Box<ExitFacts>),
}

/// What to do about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum RescueDecision {
    /// It ended, as recorded.
    Finish(Box<ExitFacts>),
    /// It is proven never to have started: the job waits again.
    Void,
    /// How it ended is unknown.
    Lost,
}

/// The decision. `same_machine`: same boot and same data directory as at the claim.
pub fn decide(traces: Traces, same_machine: bool) -> RescueDecision {
    match traces {
        Traces::Ended(facts) => RescueDecision::Finish(facts),
        Traces::Fenced => RescueDecision::Void,
        Traces::None if same_machine => RescueDecision::Void,
        Traces::None | Traces::Begun { .. } => RescueDecision::Lost,
    }
}

/// Acts on the decision. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rescuer {
    supervisor: Supervisor,
    wakeup: Wakeup,
    /// Bounds how many rescues read the spool at a time.
    readers: Arc<Semaphore>,
}

/// Why a rescue has to be tried again.
#[derive(Debug, thiserror::Error)]
enum RescueError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading the spool: {0}")]
    Spool(#[from] io::Error),
}

/// The name under which a rescue takes the right to start.
const RESCUE: &str = "rescue";

/// How many rescues read the spool at a time. After a restart of the machine all shims are dead,
/// and their rescues must leave threads for other work.
const READERS_MAX: usize = 8;

/// Most bytes that a rescue may have to write.
const RESCUE_BYTES: u64 = 1 << 20;

impl Rescuer {
    /// A rescuer over the supervisor's data directory.
    pub fn new(supervisor: Supervisor, wakeup: Wakeup) -> Self {
        Self {
            supervisor,
            wakeup,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }

    /// Rescues in the background.
    pub fn rescue_later(&self, key: AttemptId) {
        let rescuer = self.clone();
        self.vital().spawn(
            "rescuing an attempt",
            async move { rescuer.rescue(key).await },
        );
    }

    /// Runs tasks whose panic ends the server.
    pub fn vital(&self) -> &Vital {
        &self.supervisor.context().vital
    }

    /// Tries once, and returns whether the rescue is committed: a disk that is full or broken must
    /// not keep a server from starting. Drops `held` when it only waits for the end of a process
    /// tree.
    pub async fn try_once(&self, key: AttemptId, held: SearchGuard) -> bool {
        match self.try_rescue(key, Some(held)).await {
            Ok(()) => {
                self.wakeup.wake();
                true
            }
            Err(error) => {
                self.on_disk_error(&error);
                tracing::error!(job = key.job, attempt = key.attempt, %error, "a rescue failed; it is tried again later");
                false
            }
        }
    }

    /// Rescues an attempt whose shim is dead or knows nothing of it; returns when that is
    /// committed or the server stops. An attempt that is final already is left alone.
    pub async fn rescue(&self, key: AttemptId) {
        let is_rescued = retry::until_some(|| async {
            match self.try_rescue(key, None).await {
                Ok(()) => Some(true),
                Err(RescueError::Store(StoreError::Stopping)) => Some(false),
                Err(error) => {
                    tracing::error!(job = key.job, attempt = key.attempt, %error, "a rescue failed; trying again");
                    self.on_disk_error(&error);
                    None
                }
            }
        });
        if is_rescued.await {
            self.wakeup.wake();
        }
    }

    /// Gives the disk reserve up if the disk is full, because it is kept for ends. After a failed
    /// sync the database must not acknowledge anything more.
    fn on_disk_error(&self, error: &RescueError) {
        let store = &self.supervisor.context().store;
        match error {
            RescueError::Spool(e) if e.kind() == io::ErrorKind::StorageFull => {
                // Kept if enough is free: then only this file was too large, or the shortage has
                // passed.
                store.disk_reserve().release_below(RESCUE_BYTES);
            }
            RescueError::Spool(e) if is_sync_failure(e) => store.distrust(e),
            _ => {}
        }
    }

    async fn try_rescue(
        &self,
        key: AttemptId,
        held: Option<SearchGuard>,
    ) -> Result<(), RescueError> {
        let ctx = self.supervisor.context();
        let Some(open) = ctx.store.open_attempt(key.job, key.attempt).await? else {
            return Ok(());
        };
        let (spool, attempt) = (ctx.layout.spool(), open.clone());
        let traces = self.read(move || traces(&spool, &attempt)).await?;
        let same_machine = open.boot_id == ctx.boot_id && open.instance == ctx.instance;
        let decision = decide(traces.clone(), same_machine);
        tracing::warn!(
            job = key.job,
            attempt = key.attempt,
            ?decision,
            "rescued an attempt whose shim is gone"
        );
        match decision {
            RescueDecision::Finish(facts) => {
                let synced = false;
                self.finish(open, AttemptEnding::Known { facts, synced })
                    .await
            }
            RescueDecision::Void => self.void(open, traces).await,
            RescueDecision::Lost if same_machine => {
                let remains = self.search(&open, traces, held).await?;
                self.lost(open, remains, 0).await
            }
            // The tree is gone with the machine's restart, or it belongs to the original of this
            // copy.
            RescueDecision::Lost => {
                let unsynced = self.unsynced_bytes_max(&open).await?;
                self.lost(open, OrphanTree::default(), unsynced).await
            }
        }
    }

    /// Does blocking work on the spool, with up to `READERS_MAX` at a time.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        // The semaphore is never closed.
        let _permit = self.readers.acquire().await.map_err(io::Error::other)?;
        blocking(work).await
    }

    /// Takes the right to start itself, so that a late shim fails, and sends the job back.
    async fn void(&self, open: OpenAttempt, traces: Traces) -> Result<(), RescueError> {
        let ctx = self.supervisor.context();
        let (spool, intent) = (
            ctx.layout.spool(),
            Intent {
                job: open.id,
                shim: RESCUE.to_owned(),
                boot_id: ctx.boot_id.clone(),
                instance: ctx.instance.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                segment_bytes: None,
                mark: None,
                cgroup: None,
            },
        );
        let name = first_segment(&open);
        if traces == Traces::None {
            // If the shim was faster this fails, and the next try finds its segment.
            blocking(move || take_start_right(&spool, name, &intent)).await?;
        }
        ctx.store
            .void(open.number, open.attempt, clock::now())
            .await?;
        Ok(())
    }

    /// Ends what is left of the tree.
    async fn search(
        &self,
        open: &OpenAttempt,
        traces: Traces,
        held: Option<SearchGuard>,
    ) -> io::Result<OrphanTree> {
        let ctx = self.supervisor.context();
        let (start, number, cgroup) = match traces {
            Traces::Begun {
                start,
                mark,
                cgroup,
            } => (start, mark, cgroup),
            Traces::None | Traces::Fenced | Traces::Ended(_) => (None, None, None),
        };
        if let Some(path) = cgroup {
            ctx.isolation.end(path.into()).await;
        }
        let leader = start.map(|StartPayload { pid, start_ticks }| Leader { pid, start_ticks });
        let mark = Mark::new(open.id, &ctx.instance, number);
        let remains = ctx.orphans.search(&ctx.vital, mark, leader, held).await?;
        if let Some(why) = &remains.unknown {
            let (job, attempt) = (open.number, open.attempt);
            tracing::warn!(
                job,
                attempt,
                why,
                "it is unknown which processes are left of a lost attempt"
            );
        }
        Ok(remains)
    }

    /// Most bytes that a power loss can have cost.
    async fn unsynced_bytes_max(&self, open: &OpenAttempt) -> io::Result<u64> {
        let ctx = self.supervisor.context();
        let (spool, first) = (ctx.layout.spool(), first_segment(open));
        let now = ctx.bounds.segment_bytes;
        self.read(move || unsynced_bytes_max(&spool, first, now))
            .await
    }

    async fn lost(
        &self,
        open: OpenAttempt,
        remains: OrphanTree,
        unsynced_bytes_max: u64,
    ) -> Result<(), RescueError> {
        let ending = AttemptEnding::Lost {
            survivors: remains.survivors,
            survivors_unknown: remains.unknown,
            unsynced_bytes_max,
        };
        self.finish(open, ending).await
    }

    async fn finish(&self, open: OpenAttempt, ending: AttemptEnding) -> Result<(), RescueError> {
        let ctx = self.supervisor.context();
        let watch = AttemptWatch::of_open(&open);
        let (spool, inline) = (ctx.layout.spool(), ctx.inline_bytes_max_now());
        let finalized: Finalized = self
            .read(move || finalize(&spool, inline, watch, ending))
            .await?;
        let checked = expect::checked(&self.supervisor, finalized).await;
        let finalized = checked.ok_or(StoreError::Stopping)?;
        let fenced = ctx.store.finish(finalized.finish.clone()).await?;
        end::unlink(&self.supervisor, &finalized, fenced).await;
        Ok(())
    }
}

/// Creates the first segment, whole or not at all: a link fails where the name exists.
fn take_start_right(spool: &Path, name: SegmentName, intent: &Intent) -> io::Result<()> {
    let header = RecordHeader {
        kind: RecordKind::Intent,
        stream: Stream::Stdout,
        offset: name.first_offset,
        wall_us: clock::now().0,
        boottime_us: 0,
    };
    let mut bytes = name.file_header().to_vec();
    bytes.extend(record::encode(&header, &serde_json::to_vec(intent)?));
    let draft = spool.join(format!("{name}.{RESCUE}"));
    safe_file::create_anew(&draft)?.write_all(&bytes)?;
    let linked = std::fs::hard_link(&draft, spool.join(name.to_string()));
    std::fs::remove_file(&draft)?;
    linked
}

/// Reads what an attempt left. Blocking.
fn traces(spool: &Path, open: &OpenAttempt) -> io::Result<Traces> {
    let first = first_segment(open);
    let begun = |start: Option<StartPayload>, intent: Option<Intent>| Traces::Begun {
        start: start.or(known_leader(open)),
        mark: intent.as_ref().and_then(|intent| intent.mark),
        cgroup: intent.and_then(|intent| intent.cgroup),
    };
    let beginning = match read_beginning(spool, first) {
        // The database knows its start: that the file is missing does not undo it.
        Err(error) if is_no_segment(&error) && open.started_at.is_some() => {
            return Ok(begun(None, None));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Traces::None),
        // The file was created, and the power failed before its content was on disk.
        Err(error) if is_no_segment(&error) => {
            return Ok(Traces::Begun {
                start: None,
                mark: None,
                cgroup: None,
            });
        }
        beginning => beginning?,
    };
    let intent = beginning.intent;
    if intent.as_ref().is_some_and(|intent| intent.shim == RESCUE) {
        return Ok(Traces::Fenced);
    }
    // Segments that have rows were read before.
    let name = SegmentName {
        first_offset: open.hashed_to,
        ..first
    };
    Ok(match read_exit(spool, name) {
        Ok(Some(facts)) => Traces::Ended(Box::new(facts)),
        Ok(None) => begun(beginning.start, intent),
        Err(error) if is_no_segment(&error) => begun(beginning.start, intent),
        Err(error) => return Err(error),
    })
}

/// Most bytes that a power loss can have cost an attempt whose first segment is `first`: two sealed
/// segments and the last one may not have been on disk. The attempt may have had another segment
/// size than the present setting `now`. Blocking.
fn unsynced_bytes_max(spool: &Path, first: SegmentName, now: u64) -> io::Result<u64> {
    let intent = match read_beginning(spool, first) {
        Ok(beginning) => beginning.intent,
        // The power loss took the record of the size, too.
        Err(error) if is_no_segment(&error) => None,
        Err(error) => return Err(error),
    };
    let segment_bytes = match intent.and_then(|intent| intent.segment_bytes) {
        Some(bytes) => bytes,
        None => largest_segment(spool, first)?.max(now),
    };
    Ok(segment_bytes
        .saturating_mul(3)
        .saturating_add(record::PAYLOAD_BYTES_MAX as u64))
}

/// The length of the attempt's largest segment, bytes.
fn largest_segment(spool: &Path, first: SegmentName) -> io::Result<u64> {
    let mut largest = 0;
    for name in dropped_range::segments(spool, first.job, first.attempt)? {
        largest = largest.max(spool.join(name.to_string()).metadata()?.len());
    }
    Ok(largest)
}

/// The process that the database names.
fn known_leader(open: &OpenAttempt) -> Option<StartPayload> {
    Some(StartPayload {
        pid: open.pid.filter(|pid| *pid > 0)?,
        start_ticks: open.start_ticks?,
    })
}

/// Follows the seals from segment to segment to the exit record, if whole records lead there. It
/// skips a range that was dropped.
fn read_exit(spool: &Path, from: SegmentName) -> io::Result<Option<ExitFacts>> {
    let dropped_range = dropped_range::read(spool, from.job, from.attempt)?;
    let mut name = from;
    loop {
        name.first_offset = dropped_range.map_or(name.first_offset, |range| {
            range.skip_past(name.first_offset)
        });
        let mut reader = match SegmentReader::open(spool, Position::first(name)) {
            Err(error) if is_no_segment(&error) => return Ok(None),
            reader => reader?,
        };
        let sealed = loop {
            match reader.next_record()? {
                NextRecord::Record(header, payload) => match header.kind {
                    RecordKind::Exit => return Ok(serde_json::from_slice(payload).ok()),
                    RecordKind::Seal => break header.offset,
                    _ => {}
                },
                NextRecord::End | NextRecord::Damaged => return Ok(None),
            }
        };
        name.first_offset = sealed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Dropped, Exit, Usage};

    #[test]
    fn a_power_loss_costs_what_the_segments_of_the_attempt_held() {
        let spool = tempfile::tempdir().expect("a directory");
        let first = SegmentName {
            job: 3,
            attempt: 1,
            first_offset: 0,
        };
        let bound = |now| unsynced_bytes_max(spool.path(), first, now).expect("the spool");
        let rest = record::PAYLOAD_BYTES_MAX as u64;
        assert_eq!(bound(1000), 3000 + rest, "nothing is left");
        let intent = |segment_bytes| Intent {
            job: crate::job::JobId(uuid::Uuid::nil()),
            shim: "s".into(),
            boot_id: "b".into(),
            instance: "i".into(),
            version: "v".into(),
            segment_bytes,
            mark: None,
            cgroup: None,
        };
        take_start_right(spool.path(), first, &intent(Some(70_000))).expect("a segment");
        for now in [1000, 1_000_000] {
            assert_eq!(bound(now), 210_000 + rest);
        }
        // A version that did not write it down: what there is says how large they were at least.
        std::fs::remove_file(spool.path().join(first.to_string())).expect("a segment");
        take_start_right(spool.path(), first, &intent(None)).expect("a segment");
        let second = SegmentName {
            first_offset: 50,
            ..first
        };
        let path = spool.path().join(second.to_string());
        std::fs::write(path, vec![0; 5000]).expect("a segment");
        assert_eq!(bound(1000), 15_000 + rest);
        assert_eq!(bound(9000), 27_000 + rest);
    }

    #[test]
    fn the_whole_decision() {
        let facts = Box::new(ExitFacts {
            exit: Exit::Code(0),
            started_at_us: Some(1),
            ended_at_us: 2,
            stop: None,
            leaked: 0,
            survivors: Vec::new(),
            usage: Usage::default(),
            end_offset: 0,
            dropped: Dropped::default(),
        });
        let ended = Traces::Ended(facts.clone());
        let finish = RescueDecision::Finish(facts);
        let start = StartPayload {
            pid: 1,
            start_ticks: 1,
        };
        let begun = |start| Traces::Begun {
            start,
            mark: None,
            cgroup: None,
        };
        for (traces, same_machine, decision) in [
            (ended.clone(), true, finish.clone()),
            (ended, false, finish),
            (Traces::Fenced, true, RescueDecision::Void),
            (Traces::Fenced, false, RescueDecision::Void),
            (Traces::None, true, RescueDecision::Void),
            (Traces::None, false, RescueDecision::Lost),
            (begun(None), true, RescueDecision::Lost),
            (begun(None), false, RescueDecision::Lost),
            (begun(Some(start)), true, RescueDecision::Lost),
            (begun(Some(start)), false, RescueDecision::Lost),
        ] {
            assert_eq!(decide(traces, same_machine), decision);
        }
    }
}
