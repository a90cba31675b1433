//! Writes the segments of an attempt as a shim would have, up to any point.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use cc_executor::{
    job::{Dropped, Exit, ExitFacts, Gap, GapReason, Stream, Usage},
    output::Digest,
    spool::{
        DroppedRange, RecordHeader, RecordKind, SegmentName, SegmentWriter,
        record::{self, StartPayload},
        segment::Intent,
    },
    store::{ClaimedJob, Fenced},
};

use crate::scene::Scene;

/// When everything on paper happened, µs since 1970.
pub const AT_US: i64 = 1_700_000_000_000_000;

/// The segments of one attempt, and where the output ends.
pub struct Paper {
    spool: PathBuf,
    writer: SegmentWriter,
    end: u64,
    /// What the exit record says of it.
    pub dropped: Dropped,
}

impl Paper {
    /// The first segment, with nothing in it.
    pub fn create(scene: &Scene, claim: &ClaimedJob) -> Self {
        let name = SegmentName {
            job: claim.number,
            attempt: claim.attempt,
            first_offset: claim.start_offset,
        };
        let spool = scene.layout.spool();
        let directory = File::open(&spool).expect("the spool");
        Self {
            writer: SegmentWriter::create(&directory, name).expect("a segment"),
            end: name.first_offset,
            dropped: Dropped::default(),
            spool,
        }
    }

    /// The first segment with the intent of `shim`.
    pub fn intended(scene: &Scene, claim: &ClaimedJob, shim: &str) -> Self {
        let mut paper = Self::create(scene, claim);
        let intent = Intent {
            job: claim.id,
            shim: shim.to_owned(),
            boot_id: scene.boot_id.clone(),
            instance: scene.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            segment_bytes: None,
            mark: None,
            cgroup: None,
        };
        let payload = serde_json::to_vec(&intent).expect("JSON");
        let frame = paper.frame(RecordKind::Intent, Stream::Stdout, &payload);
        paper.writer.begin(&frame).expect("begin");
        paper
    }

    /// Intent and start of a process that is gone.
    pub fn started(scene: &Scene, claim: &ClaimedJob) -> Self {
        let mut paper = Self::intended(scene, claim, &claim.shim);
        let start = StartPayload {
            pid: i32::MAX,
            start_ticks: 1,
        };
        paper.append(RecordKind::Start, Stream::Stdout, &start.to_bytes());
        paper
    }

    /// Output of one stream.
    pub fn output(&mut self, stream: Stream, data: &[u8]) -> &mut Self {
        self.append(RecordKind::Output, stream, data);
        self.end += data.len() as u64;
        self
    }

    /// The record of what came behind the bound.
    pub fn forgotten(&mut self, bytes: u64, lines: u64) {
        let gap = Gap {
            from: self.end,
            to: self.end + bytes,
            reason: GapReason::DropNewest,
        };
        let payload = serde_json::to_vec(&DroppedRange { gap, lines }).expect("JSON");
        self.append(RecordKind::Gap, Stream::Stdout, &payload);
        self.end += bytes;
    }

    /// Seals the segment; its successor exists.
    pub fn roll(&mut self) -> &mut Self {
        let name = SegmentName {
            first_offset: self.end,
            ..self.writer.name()
        };
        let directory = File::open(&self.spool).expect("the spool");
        let mut next = SegmentWriter::create(&directory, name).expect("a segment");
        next.begin(&[]).expect("begin");
        self.append(RecordKind::Seal, Stream::Stdout, &[]);
        self.writer = next;
        self
    }

    /// The exit record.
    pub fn exit(&mut self, exit: Exit) {
        let facts = ExitFacts {
            exit,
            started_at_us: Some(AT_US),
            ended_at_us: AT_US + 1,
            stop: None,
            leaked: 0,
            survivors: Vec::new(),
            usage: Usage::default(),
            end_offset: self.end,
            dropped: self.dropped,
        };
        let payload = serde_json::to_vec(&facts).expect("JSON");
        self.append(RecordKind::Exit, Stream::Stdout, &payload);
    }

    /// The path of the current segment.
    pub fn path(&self) -> PathBuf {
        self.spool.join(self.writer.name().to_string())
    }

    fn append(&mut self, kind: RecordKind, stream: Stream, payload: &[u8]) {
        let frame = self.frame(kind, stream, payload);
        self.writer.append(&frame).expect("append");
    }

    fn frame(&self, kind: RecordKind, stream: Stream, payload: &[u8]) -> Vec<u8> {
        frame(kind, stream, self.end, payload)
    }
}

/// A whole record.
pub fn frame(kind: RecordKind, stream: Stream, offset: u64, payload: &[u8]) -> Vec<u8> {
    let header = RecordHeader {
        kind,
        stream,
        offset,
        wall_us: AT_US,
        boottime_us: 1,
    };
    record::encode(&header, payload)
}

/// Appends bytes that are no whole record.
pub fn tear(path: &PathBuf, bytes: &[u8]) {
    let mut whole = fs::read(path).expect("a segment");
    whole.extend_from_slice(bytes);
    fs::write(path, whole).expect("a segment");
}

/// Gives the first `count` sealed segments of an attempt their rows, as the old server's hasher
/// did.
pub fn enter_segments(scene: &Scene, claim: &ClaimedJob, count: usize) {
    let mut digest = Digest::resume(claim.start_offset, None);
    for _ in 0..count {
        let row = digest.sealed_segment(&scene.layout.spool(), claim.number, claim.attempt);
        let row = row.expect("readable").expect("sealed");
        let entered = scene.wait(scene.store().segment_read(row));
        assert_eq!(entered, Ok(Fenced::Applied));
    }
}
