//! The messages between server and shim: JSON behind a length of four bytes (little-endian).
//!
//! A message that is not complete never happened. Unknown fields are ignored and unknown messages
//! are skipped, so that binaries of neighbouring versions can talk to each other.

use serde::{Deserialize, Serialize};

use super::{AttemptRef, ShimKey};
use crate::job::{
    ExitFacts, Input, InputAnswer, JobId, JobNumber, Leftover, Limits, Offset, StopRequest,
    Survivor, WhenFull,
};

/// Version of this protocol; a shim tells it in its `welcome`.
pub const PROTOCOL: u32 = 1;

/// The oldest version of it that this binary still speaks: shims live as long as their jobs, through
/// any number of upgrades.
pub const PROTOCOL_OLDEST: u32 = 1;

/// The highest epoch that there can be: the ledger's integers have a sign.
pub const EPOCH_MAX: u64 = i64::MAX as u64;

/// Longest message, bytes. A NewJob has at most 1 MiB, and JSON escapes can make six bytes of one.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What a shim needs to run one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The job's number.
    pub job: JobNumber,
    /// The job's UUID.
    pub job_id: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The offset at which this attempt's output begins.
    pub start_offset: Offset,
    /// The words to execute; the first one is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// File mode creation mask.
    pub umask: u32,
    /// What the kernel bounds for the process.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Written to stdin first; `None` and not interactive: `/dev/null`.
    pub stdin: Option<String>,
    /// Whether stdin stays open for inputs.
    #[serde(default)]
    pub interactive: bool,
    /// The inputs that were kept before the start, in order.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Run time without pauses, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Time without output, milliseconds.
    pub stall_timeout_ms: Option<u64>,
    /// From TERM to KILL when a limit stops the attempt, milliseconds.
    pub grace_ms: u64,
    /// What happens to processes that outlive the leader.
    pub leftover: Leftover,
    /// Bound of the job's output over all attempts, as an offset: gaps before `start_offset` do not
    /// count, so they are added. With `drop_oldest` it is the bound of this attempt, bytes.
    pub output_bytes_max: Option<u64>,
    /// How many lines (bytes 0x0A, of all streams) this attempt may write; what earlier ones have
    /// written is taken off. Shims of versions before this field know no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_lines_max: Option<u64>,
    /// What happens at the bound that is met first.
    #[serde(default)]
    pub when_full: WhenFull,
    /// Segments are sealed when their file has reached this size, bytes.
    pub segment_bytes: u64,
    /// Output up to this size goes into rows when the job is final, so that the shim need not
    /// sync it before it tells of the exit, bytes.
    pub inline_bytes_max: u64,
    /// Bound of all segments together, bytes; at it the process waits.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the file system, bytes; at it the process waits.
    pub free_bytes_min: u64,
    /// A wish that was committed before the attempt began.
    pub stop: Option<StopRequest>,
}

/// A program that a shim shall start beside itself. Words are bytes: paths need not be UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// Its absolute path; empty: nothing is started, it is only asked whether it would be.
    pub program: Vec<u8>,
    /// Its words, without its name.
    pub args: Vec<Vec<u8>>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Its working directory; where that is gone it is `/`.
    pub cwd: Vec<u8>,
}

/// From the server to a shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToShim {
    /// First message of every connection; a server sends it as [`Greeting`]. On the same or a higher epoch than the highest seen,
    /// the shim closes every older connection, discards what it had not read from it, and answers
    /// `welcome`; a lower one is answered with `stale` and closed.
    Hello {
        /// The server's epoch.
        epoch: u64,
        /// The data directory's instance.
        instance: String,
    },
    /// Run an attempt. Only to an idle shim, or to one whose exit has been told: it acknowledges
    /// the final commit of the attempt before. For the attempt that the shim has it means nothing.
    Run(Box<RunSpec>),
    /// The final commit of this attempt is durable; the shim may forget it and take work again.
    Release {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
    },
    /// Say `grew` once as soon as there are bytes behind `offset`.
    Arm {
        /// Which attempt; a shim ignores it for another one than the one that it has.
        #[serde(flatten)]
        about: AttemptRef,
        /// What the server has already read.
        offset: Offset,
    },
    /// Stop the attempt (level: repeating it changes nothing, a kill after a cancel hastens it).
    Stop {
        /// Which attempt; a shim ignores it for another one than the one that it has.
        #[serde(flatten)]
        about: AttemptRef,
        /// Who wants it, and how.
        #[serde(flatten)]
        wish: StopRequest,
    },
    /// SIGSTOP to the whole tree (level).
    Pause {
        /// Which attempt; a shim ignores it for another one than the one that it has.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// SIGCONT to the whole tree (level).
    Resume {
        /// Which attempt; a shim ignores it for another one than the one that it has.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// One signal to the leader's process group, at most once per message.
    Signal {
        /// Which attempt; a shim ignores it for another one than the one that it has.
        #[serde(flatten)]
        about: AttemptRef,
        /// Its number, 1 to 64.
        signal: i32,
    },
    /// Bytes for the stdin of an interactive attempt. Answered at once.
    Input {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// Names the answer.
        request: u64,
        /// The bytes.
        input: Input,
    },
    /// No more work for this shim: an idle one leaves.
    Leave,
    /// Start a program as a sibling of the shim, outside of the job's tree: a command line inside the
    /// job needs a server, which must not end with the job. The one message that is heard without a
    /// hello before it, from processes of the shim's own user; answered with `launched`.
    Launch(Box<LaunchRequest>),
}

/// A `hello` with what proves that whoever says it knows the shim's key. A shim that has a key hears no
/// other; those of versions before it pass over the field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "hello")]
pub struct Greeting {
    epoch: u64,
    instance: String,
    proof: String,
}

impl Greeting {
    /// The greeting of a server that knows the key.
    pub fn new(key: &ShimKey, epoch: u64, instance: &str) -> Self {
        Self {
            epoch,
            instance: instance.to_owned(),
            proof: key.proof(epoch, instance),
        }
    }

    /// What proves a hello, if anything does.
    pub fn proof_of(json: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Proof {
            proof: Option<String>,
        }
        serde_json::from_slice::<Proof>(json).ok()?.proof
    }
}

/// What a shim is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ShimState {
    /// Nothing; it may be given work.
    Idle,
    /// An attempt's leader has not exited, or its tree is not yet gone.
    Running {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// Whether the tree is stopped by a pause.
        paused: bool,
        /// When the process was started, µs since 1970; 0 where it is not yet.
        started_at_us: i64,
        /// The stop that has been begun.
        stop: Option<StopRequest>,
    },
    /// An attempt has ended and its final commit has not been acknowledged.
    Exited {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        facts: Box<ExitFacts>,
        /// Whether all segments, exit record included, are on disk.
        synced: bool,
        /// Whether the shim takes work again after the acknowledgement. Versions before this field
        /// do not say: then it does if nothing survived.
        #[serde(default)]
        reusable: Option<bool>,
    },
    /// It takes no more work: it only stays as the parent of survivors.
    Retired,
}

/// From a shim to the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromShim {
    /// Answers `hello`.
    Welcome {
        /// [`PROTOCOL`] of the shim.
        protocol: u32,
        /// The shim's program version.
        version: String,
        /// Its process id.
        pid: i32,
        /// What it is doing.
        state: ShimState,
    },
    /// Answers a `hello` with too low an epoch; the connection is closed behind it.
    Stale {
        /// The highest epoch that the shim has seen.
        epoch: u64,
    },
    /// The process runs: exec has succeeded. Told again behind every `welcome` while it runs.
    Started {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// The leader's process id.
        pid: i32,
        /// Its start time in clock ticks since boot.
        start_ticks: u64,
        /// µs since 1970.
        started_at_us: i64,
    },
    /// `run` was refused: the right to start is taken (the first segment exists), or the shim is
    /// busy or leaving. Nothing was started. What only keeps it from starting now is no refusal:
    /// the attempt waits in its shim.
    Refused {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// Why, for the log.
        why: String,
    },
    /// There are bytes behind the armed offset, or there were: they may have come behind a bound.
    Grew {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// The end of the output now, with what was dropped there.
        offset: Offset,
    },
    /// A segment was sealed; the next one begins here.
    Sealed {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// First offset of the next segment.
        next_offset: Offset,
    },
    /// The tree was stopped by a pause.
    Paused {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// The tree goes on.
    Resumed {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// The tree goes on, because some of its processes cannot be stopped: the pause is refused.
    PauseRefused {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// Why, for people.
        why: String,
    },
    /// The kernel does not let the shim signal these processes for the stop that has begun.
    StopRefused {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// Who.
        refused: Vec<Survivor>,
    },
    /// A stop was begun before the leader had exited.
    Stopping {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// As it was asked.
        #[serde(flatten)]
        wish: StopRequest,
    },
    /// The process waits (`true`) or goes on (`false`): the spool or the disk is full, or the
    /// process cannot be started yet.
    Waiting {
        /// Which attempt.
        #[serde(flatten)]
        about: AttemptRef,
        /// Whether it waits.
        waiting: bool,
        /// Why, for people.
        why: String,
    },
    /// Answers an input. One for an attempt that is over is answered as closed.
    Input {
        /// The number that came with it.
        request: u64,
        /// What became of it.
        answer: InputAnswer,
    },
    /// The attempt has ended: its output is complete and its tree is gone (survivors aside).
    Exited {
        /// The job's number.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        facts: Box<ExitFacts>,
        /// Whether all segments, exit record included, are on disk.
        synced: bool,
        /// Whether the shim takes work again after the acknowledgement.
        reusable: bool,
    },
    /// Answers `launch`. The server is told, too: the process can be its child, and leaves at once.
    Launched {
        /// Its process id; 0 where nothing was started.
        pid: i32,
        /// Why it was not started.
        error: Option<String>,
    },
    /// Something went wrong that the operator should know.
    Trouble {
        /// A sentence for the log.
        message: String,
    },
}

impl ToShim {
    /// The attempt that an order to a running attempt is about.
    pub fn about(&self) -> Option<AttemptRef> {
        match self {
            Self::Arm { about, .. }
            | Self::Stop { about, .. }
            | Self::Pause { about }
            | Self::Resume { about }
            | Self::Signal { about, .. } => Some(*about),
            _ => None,
        }
    }
}

impl FromShim {
    /// The attempt that something told of an attempt is about.
    pub fn about(&self) -> Option<AttemptRef> {
        match self {
            Self::Grew { about, .. }
            | Self::Sealed { about, .. }
            | Self::Paused { about }
            | Self::Resumed { about }
            | Self::PauseRefused { about, .. }
            | Self::StopRefused { about, .. }
            | Self::Stopping { about, .. }
            | Self::Waiting { about, .. } => Some(*about),
            Self::Exited { job, attempt, .. } => Some(AttemptRef::attempt(*job, *attempt)),
            _ => None,
        }
    }
}

/// What the `welcome` of every version tells, whatever else it has become.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnyWelcome {
    /// The version of the protocol.
    pub protocol: u32,
    /// The shim's program version.
    pub version: String,
}

impl AnyWelcome {
    /// Who says this, if it is the `welcome` of a shim whose protocol we do not speak.
    pub fn foreign(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct WelcomeFields {
            r#type: String,
            #[serde(flatten)]
            speaker: AnyWelcome,
        }
        let said: WelcomeFields = serde_json::from_slice(json).ok()?;
        let spoken = PROTOCOL_OLDEST..=PROTOCOL;
        (said.r#type == "welcome" && !spoken.contains(&said.speaker.protocol))
            .then_some(said.speaker)
    }
}

/// A message as bytes, length first.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    // Our own types: no map with non-string keys, no failing serializer.
    #[allow(clippy::expect_used)]
    serde_json::to_writer(&mut bytes, message).expect("a message serialises");
    let length = (bytes.len() - 4) as u32;
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// What an empty buffer keeps for the next message, bytes.
const KEPT_BYTES: usize = 64 << 10;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The length is beyond [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes")]
    TooLong(usize),
}

/// Collects bytes from a socket and cuts them into messages.
#[derive(Debug, Default)]
pub struct MessageBuffer {
    bytes: Vec<u8>,
    read: usize,
}

impl MessageBuffer {
    /// Adds bytes that have arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
            // One long message must not hold its memory for the life of a connection.
            self.bytes.shrink_to(KEPT_BYTES);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message's JSON, or `None` until more has arrived.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, DecodeError> {
        let rest = &self.bytes[self.read..];
        let Some(head) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLong(length));
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        let start = self.read + 4;
        self.read = start + length;
        Ok(Some(&self.bytes[start..start + length]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_welcome_in_another_protocol_is_told_from_ours() {
        let said = |protocol: u32, state: &str| {
            format!(
                r#"{{"type":"welcome","protocol":{protocol},"version":"9.9.9","state":{state}}}"#
            )
        };
        let foreign = AnyWelcome::foreign(said(2, r#"{"state":"dreaming"}"#).as_bytes());
        let (protocol, version) = (2, "9.9.9".to_owned());
        assert_eq!(foreign, Some(AnyWelcome { protocol, version }));
        assert_eq!(
            AnyWelcome::foreign(said(1, r#"{"state":"idle"}"#).as_bytes()),
            None
        );
        assert_eq!(AnyWelcome::foreign(br#"{"type":"stale","epoch":3}"#), None);
    }

    #[test]
    fn messages_survive_any_cut() {
        let sent = [
            ToShim::Pause {
                about: AttemptRef::attempt(3, 1),
            },
            ToShim::Hello {
                epoch: 7,
                instance: "i".into(),
            },
            ToShim::Signal {
                about: AttemptRef::default(),
                signal: 9,
            },
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
        for cut in 0..bytes.len() {
            let mut buffer = MessageBuffer::default();
            let mut got: Vec<ToShim> = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend(part);
                while let Some(json) = buffer.next_message().expect("short") {
                    got.push(serde_json::from_slice(json).expect("valid"));
                }
            }
            assert_eq!(got, sent, "cut at {cut}");
        }
    }

    #[test]
    fn a_run_of_an_earlier_version_takes_no_input() {
        let run = r#"{"type":"run","job":1,"job_id":"00000000-0000-0000-0000-000000000007",
            "attempt":1,"start_offset":0,"argv":["true"],"cwd":"/","env":[],"umask":63,
            "stdin":null,"timeout_ms":null,"stall_timeout_ms":null,"grace_ms":0,
            "leftover":"kill","output_bytes_max":null,"segment_bytes":1,"inline_bytes_max":1,
            "spool_bytes_max":null,"free_bytes_min":0,"stop":null}"#;
        match serde_json::from_str(run).expect("a message") {
            ToShim::Run(spec) => assert!(!spec.interactive && spec.inputs.is_empty()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused() {
        let mut buffer = MessageBuffer::default();
        buffer.extend(&u32::MAX.to_le_bytes());
        assert!(buffer.next_message().is_err());
    }

    /// All messages that a buffer cuts out of these parts; `None` where it refuses them.
    fn cut(parts: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        let (mut buffer, mut got) = (MessageBuffer::default(), Vec::new());
        for part in parts {
            buffer.extend(part);
            while let Some(json) = buffer.next_message().ok()? {
                got.push(json.to_vec());
            }
        }
        Some(got)
    }

    proptest! {
        /// Any bytes come to the same messages, wherever they are cut.
        #[test]
        fn fuzz_message_buffer(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
            at in any::<proptest::sample::Index>(),
        ) {
            let framed = messages.iter().flat_map(|message| {
                [&(message.len() as u32).to_le_bytes()[..], message].concat()
            });
            let bytes: Vec<u8> = framed.chain(rest).collect();
            let whole = cut(&[&bytes]);
            let (head, tail) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(&cut(&[head, tail]), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&cut(&single), &whole);
            if let Some(got) = whole {
                prop_assert_eq!(&got[..messages.len()], &messages[..]);
            }
        }

        /// Messages that are no JSON of ours are an error, never a panic.
        #[test]
        fn fuzz_messages(json in prop_oneof![
            any::<String>(),
            r#"\{"type":"(hello|run|stop|arm|signal|pause)"(,"[a-z]{1,8}":(-?[0-9]{1,20}|"x"|null|\{\}))*\}"#,
        ]) {
            let _ = serde_json::from_str::<ToShim>(&json);
            let _ = serde_json::from_str::<FromShim>(&json);
        }
    }
}
