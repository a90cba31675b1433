//! What the tests of this directory share: a real store, a real spool, and segments as a shim
//! would write them.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use tokio::sync::mpsc;

use super::{ArmRequest, Hub, Log, OutputTail, TailEvent, TailOptions};
use crate::{
    job::{
        Chunk, Command, Dropped, Exit, ExitFacts, JobId, JobNumber, JobRef, JobSpec, JobState,
        Micros, Offset, Stream, Usage,
    },
    spool::{RecordHeader, RecordKind, SegmentName, record},
    store::{
        ClaimedJob, Fenced, Finish, OutputPlacement, SegmentRow, ShimOffer, Store, Submission,
    },
};

/// A store and a spool; both are deleted on drop.
pub struct Fixture {
    pub store: Store,
    pub log: Log,
    pub hub: Hub,
    pub armed: mpsc::UnboundedReceiver<ArmRequest>,
    directory: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&directory.path().join("db")).await;
        let store = store.expect("a store");
        let (arms, armed) = mpsc::unbounded_channel();
        Self {
            log: Log::new(store.clone(), directory.path().to_owned()),
            hub: Hub::new(arms),
            store,
            armed,
            directory,
        }
    }

    pub fn spool(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub async fn queued(&self) -> JobNumber {
        let submission = Submission {
            retry_of: None,
            id: JobId(uuid::Uuid::now_v7()),
            job: JobSpec::new(Command::Argv(vec!["true".to_owned()])),
            fingerprint: [0; 32],
            actor: "test".to_owned(),
            token: None,
            policy: None,
            at: Micros(1),
        };
        let submitted = self.store.submit(submission).await.expect("stored");
        submitted.job.number
    }

    /// Gives the first queued job to a shim of this name.
    pub async fn claim(&self, shim: &str) -> ClaimedJob {
        let offer = ShimOffer {
            shim: shim.to_owned(),
            version: String::new(),
        };
        let claimed = self
            .store
            .claim(vec![offer], "b".to_owned(), "i".to_owned());
        let claim = claimed.await.expect("claimed").claims.remove(0);
        self.hub.changed(claim.number);
        claim
    }

    pub async fn running(&self) -> JobNumber {
        self.queued().await;
        self.claim("shim").await.number
    }

    /// Creates a segment with its file header.
    pub fn segment(&self, job: JobNumber, attempt: u32, first_offset: Offset) -> Segment {
        let name = SegmentName {
            job,
            attempt,
            first_offset,
        };
        let path = self.spool().join(name.to_string());
        std::fs::write(&path, name.file_header()).expect("a segment");
        Segment {
            name,
            path,
            end: first_offset,
        }
    }

    /// Enters a sealed segment as the hasher does.
    pub async fn enter(&self, segment: &Segment) {
        let row = segment.row();
        let entered = self.store.segment_read(row).await.expect("entered");
        assert_eq!(entered, Fenced::Applied);
    }

    /// Makes the job's attempt final.
    pub async fn finish(
        &self,
        job: JobNumber,
        attempt: u32,
        kept: OutputPlacement,
        end_offset: Offset,
    ) {
        let finish = Finish {
            unmet_expectations: Vec::new(),
            number: job,
            attempt,
            state: JobState::Succeeded,
            reason: None,
            facts: Some(facts(end_offset)),
            survivors: Vec::new(),
            survivors_unknown: None,
            end_offset,
            dropped: Dropped::default(),
            kept,
            output_sha256: None,
            hash_state: None,
            actor: "shim".to_owned(),
            at: Micros(9),
        };
        let finished = self.store.finish(finish).await.expect("finished");
        assert_eq!(finished, Fenced::Applied);
        self.hub.changed(job);
    }

    pub async fn tail(&self, job: JobNumber, options: TailOptions) -> OutputTail {
        let tail = OutputTail::begin(
            &self.store,
            &self.log,
            &self.hub,
            JobRef::Number(job),
            options,
        );
        tail.await.expect("a tail").0
    }
}

fn facts(end_offset: Offset) -> ExitFacts {
    ExitFacts {
        exit: Exit::Code(0),
        started_at_us: Some(3),
        ended_at_us: 9,
        stop: None,
        leaked: 0,
        survivors: Vec::new(),
        usage: Usage::default(),
        end_offset,
        dropped: Dropped::default(),
    }
}

/// A segment that is being written.
pub struct Segment {
    pub name: SegmentName,
    pub path: PathBuf,
    pub end: Offset,
}

impl Segment {
    fn append(&self, kind: RecordKind, stream: Stream, payload: &[u8]) {
        let header = RecordHeader {
            kind,
            stream,
            offset: self.end,
            wall_us: 5,
            boottime_us: 0,
        };
        let mut file = OpenOptions::new().append(true).open(&self.path);
        let file = file.as_mut().expect("the segment");
        file.write_all(&record::encode(&header, payload))
            .expect("a record");
    }

    pub fn write(&mut self, stream: Stream, data: &[u8]) -> Chunk {
        self.append(RecordKind::Output, stream, data);
        let offset = self.end;
        self.end += data.len() as u64;
        Chunk {
            offset,
            stream,
            attempt: self.name.attempt,
            at: Micros(5),
            data: data.to_vec(),
        }
    }

    pub fn out(&mut self, data: &str) -> Chunk {
        self.write(Stream::Stdout, data.as_bytes())
    }

    pub fn seal(&self) {
        self.append(RecordKind::Seal, Stream::Stdout, &[]);
    }

    pub fn exit(&self) {
        let facts = serde_json::to_vec(&facts(self.end)).expect("facts");
        self.append(RecordKind::Exit, Stream::Stdout, &facts);
    }

    pub fn row(&self) -> SegmentRow {
        SegmentRow {
            number: self.name.job,
            attempt: self.name.attempt,
            first_offset: self.name.first_offset,
            end_offset: self.end,
            file_bytes: std::fs::metadata(&self.path).expect("the segment").len(),
            hash_state: vec![1],
            counts: None,
        }
    }
}

/// The bytes of an event, or its kind in angle brackets.
pub fn describe(event: TailEvent) -> String {
    match event {
        TailEvent::Output(chunk) => String::from_utf8_lossy(&chunk.data).into_owned(),
        TailEvent::Gap(gap) => format!("gap {}-{}", gap.from, gap.to),
        TailEvent::State { state, .. } => format!("<{}>", state.name()),
        TailEvent::CaughtUp { next_offset } => format!("<caught up {next_offset}>"),
        TailEvent::End(job) => format!("<end {}>", job.state.name()),
    }
}
