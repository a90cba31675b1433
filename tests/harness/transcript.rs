//! Puts the notifications of one tail together again and holds them to the contract: dense
//! offsets, one `job.caught_up` before `job.end`, nothing behind the end.
//! Does not know the connection, so one transcript can go on over several.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{BinaryFrame, sha256};

/// What a tail has told so far.
#[derive(Debug, Default, Clone)]
pub struct Transcript {
    /// All bytes, in offset order.
    pub bytes: Vec<u8>,
    /// Bytes of stdout and of stderr.
    pub streams: [Vec<u8>; 2],
    /// Where to resume.
    pub next_offset: u64,
    /// Sizes of the chunks.
    pub chunks: Vec<usize>,
    /// How many chunks came as base64.
    pub base64_chunks: usize,
    /// States told, in order.
    pub states: Vec<String>,
    /// Parameters of the gaps told, in order.
    pub gaps: Vec<Value>,
    /// `next_offset` of `job.caught_up`; once per subscription.
    pub caught_up: Option<u64>,
    /// The job of `job.end`.
    pub end: Option<Value>,
    /// Whether jumps in the offset are allowed, as with `streams`.
    pub jumps: bool,
}

impl Transcript {
    /// One that begins at an offset.
    pub fn from(offset: u64) -> Self {
        Self {
            next_offset: offset,
            ..Self::default()
        }
    }

    /// The same transcript on a new subscription, which catches up by itself.
    pub fn resume(&mut self) {
        self.caught_up = None;
    }

    /// Takes one notification.
    #[track_caller]
    pub fn take(&mut self, notification: &Value) {
        assert!(self.end.is_none(), "behind the end: {notification}");
        let params = &notification["params"];
        match notification["method"].as_str() {
            Some("job.output") => self.output(params),
            Some("job.gap") => self.gap(params),
            Some("job.caught_up") => self.take_caught_up(params),
            Some("job.state") => self.state(params),
            Some("job.end") => self.take_end(params),
            _ => panic!("unexpected: {notification}"),
        }
    }

    #[track_caller]
    fn output(&mut self, params: &Value) {
        let data = match (&params["data"], &params["data_base64"]) {
            (Value::String(text), Value::Null) => text.clone().into_bytes(),
            (Value::Null, Value::String(text)) => {
                self.base64_chunks += 1;
                STANDARD.decode(text).expect("base64")
            }
            _ => panic!("data or data_base64: {params}"),
        };
        let offset = params["offset"].as_u64().expect("offset");
        let next = params["next_offset"].as_u64().expect("next_offset");
        assert_eq!(next, offset + data.len() as u64, "{params}");
        assert!(params["attempt"].as_u64().is_some_and(|a| a >= 1));
        assert!(params["at"].as_str().is_some_and(|at| at.ends_with('Z')));
        self.append(offset, params["stream"].as_str().expect("stream"), &data);
    }

    #[track_caller]
    fn gap(&mut self, params: &Value) {
        assert_eq!(params["from"], self.next_offset, "{params}");
        self.next_offset = params["to"].as_u64().expect("to");
        assert!(params["from"].as_u64() < Some(self.next_offset), "{params}");
        self.gaps.push(params.clone());
    }

    /// Takes one binary frame.
    #[track_caller]
    pub fn take_binary(&mut self, frame: &BinaryFrame) {
        assert!(self.end.is_none(), "behind the end: {frame:?}");
        self.append(frame.offset, frame.stream_name(), &frame.data);
    }

    #[track_caller]
    fn append(&mut self, offset: u64, stream: &str, data: &[u8]) {
        assert!(!data.is_empty(), "an empty chunk");
        match self.jumps {
            true => assert!(offset >= self.next_offset, "back to {offset}"),
            false => assert_eq!(offset, self.next_offset, "offsets are dense"),
        }
        self.next_offset = offset + data.len() as u64;
        self.bytes.extend_from_slice(data);
        self.chunks.push(data.len());
        match stream {
            "stdout" => self.streams[0].extend_from_slice(data),
            "stderr" => self.streams[1].extend_from_slice(data),
            other => panic!("stream {other}"),
        }
    }

    #[track_caller]
    fn take_caught_up(&mut self, params: &Value) {
        assert_eq!(self.caught_up, None, "caught up twice");
        let next = params["next_offset"].as_u64().expect("next_offset");
        if !self.jumps {
            assert_eq!(next, self.next_offset, "the first byte not yet sent");
        }
        self.caught_up = Some(next);
    }

    #[track_caller]
    fn state(&mut self, params: &Value) {
        let state = params["state"].as_str().expect("state");
        assert!(
            !["succeeded", "failed", "cancelled"].contains(&state),
            "the final state is told by job.end alone"
        );
        self.states.push(state.to_owned());
    }

    #[track_caller]
    fn take_end(&mut self, params: &Value) {
        assert!(self.caught_up.is_some(), "job.end before job.caught_up");
        let job = &params["job"];
        if !self.jumps {
            assert_eq!(job["output_bytes"], self.next_offset, "{job}");
        }
        self.end = Some(job.clone());
    }

    /// The job of `job.end`, after comparing its digest with the bytes of a whole transcript.
    #[track_caller]
    pub fn verified(&self) -> &Value {
        let job = self.end.as_ref().expect("the tail has ended");
        assert_eq!(job["output_sha256"], sha256(&self.bytes), "digest of {job}");
        job
    }
}
