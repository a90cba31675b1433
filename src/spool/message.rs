//! The messages between server and shim: a length of four bytes (little-endian), then JSON.
//!
//! An incomplete message has no effect. Unknown fields are ignored and unknown messages are
//! skipped, so that binaries of neighbouring versions understand each other.

use serde::{Deserialize, Serialize};

use super::{AttemptRef, ShimKey};
use crate::job::{
    ExitFacts, Input, InputAnswer, JobId, JobNumber, Leftover, Limits, Offset, SecretVariable,
    SpawnError, StopRequest, Survivor, WhenFull,
};

/// Version of this protocol; a shim sends it in its `welcome`.
pub const PROTOCOL: u32 = 1;

/// The oldest version of the protocol that this binary supports: shims live as long as their jobs,
/// through any number of upgrades.
pub const PROTOCOL_OLDEST: u32 = 1;

/// The highest possible epoch: integers in the database are signed.
pub const EPOCH_MAX: u64 = i64::MAX as u64;

/// Longest message, bytes. A job has up to 1 MiB, and JSON escapes can make six bytes of one.
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
    /// The program and its arguments; the program is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The working directory, an absolute path.
    pub cwd: String,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// Variables that are secrets. They go through this message alone, and are in no file. Only for a shim
    /// that has said in its `welcome` that it knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<SecretVariable>,
    /// Whether the values of `secret_env` are masked in the output.
    #[serde(default = "redacts", skip_serializing_if = "is_set")]
    pub redact: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits that the kernel enforces on the process.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The first bytes of stdin; `None` and not interactive: `/dev/null`.
    pub stdin: Option<String>,
    /// Whether stdin stays open for inputs.
    #[serde(default)]
    pub interactive: bool,
    /// The inputs that were accepted before the start, in order.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Limit of the run time, pauses not counted, milliseconds; `None`: no limit.
    pub timeout_ms: Option<u64>,
    /// Limit of the time without output, milliseconds; `None`: no limit.
    pub stall_timeout_ms: Option<u64>,
    /// From TERM to KILL when a limit stops the attempt, milliseconds.
    pub grace_ms: u64,
    /// What happens to processes that outlive the leader.
    pub leftover: Leftover,
    /// Bound of the job's output over all attempts, as an offset: gaps before `start_offset` do not
    /// count, so they are added. With `drop_oldest` it is the bound of this attempt, bytes. `None`:
    /// no bound.
    pub output_bytes_max: Option<u64>,
    /// How many lines (bytes 0x0A, of all streams) this attempt may write; lines of earlier
    /// attempts are already subtracted. Shims of versions before this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_lines_max: Option<u64>,
    /// What happens at the first bound that is reached.
    #[serde(default)]
    pub when_full: WhenFull,
    /// A segment is sealed when its file has reached this size, bytes.
    pub segment_bytes: u64,
    /// Output up to this size goes into the database when the job is final, so that the shim need
    /// not sync it before it reports the exit, bytes.
    pub inline_bytes_max: u64,
    /// Limit of all segments together, bytes; when it is reached the process waits. `None`: no
    /// limit.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the file system, bytes; when less is free the process waits.
    pub free_bytes_min: u64,
    /// A stop request that was committed before the attempt began.
    pub stop: Option<StopRequest>,
    /// Whether the attempt is paused as soon as its program runs: a pause was requested of the
    /// attempt before, which was lost. Shims of versions before this field ignore it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The control group of the attempt. Shims of versions before this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupSpec>,
    /// What a policy has judged; nothing else is run. Shims of versions before this field ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedRun>,
    /// Why the attempt ends before it starts. Shims of versions before this field ignore it, so the
    /// arguments are then `/bin/false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<SpawnError>,
}

/// The value of `redact` where it is left out.
fn redacts() -> bool {
    true
}

fn is_set(flag: &bool) -> bool {
    *flag
}

/// The control group of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Its directory, absolute; the shim creates it.
    pub path: String,
    /// Whether the attempt ends before its start where the group cannot be had.
    pub required: bool,
}

/// What a policy has judged of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedRun {
    /// The program's file, absolute and without links; `None`: it was not found.
    pub program: Option<String>,
    /// The digest that the file must have, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether a script is executed by its path, so that it sees it.
    #[serde(default)]
    pub by_path: bool,
    /// The working directory, absolute and without links.
    pub cwd: String,
}

/// A program that a shim starts as its sibling. Strings are bytes: paths need not be UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// Its absolute path; empty: nothing is started, the request only asks whether the shim would.
    pub program: Vec<u8>,
    /// Its arguments, without its name.
    pub args: Vec<Vec<u8>>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Its working directory; `/` where that no longer exists.
    pub cwd: Vec<u8>,
}

/// From the server to a shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToShim {
    /// First message of every connection; a server sends it as [`Greeting`]. If its epoch is the
    /// highest that the shim has seen, or equal to it, the shim closes every older connection,
    /// discards what it has not read from it, and answers `welcome`. A lower epoch is answered with
    /// `stale`, and the connection is closed.
    Hello {
        /// The server's epoch.
        epoch: u64,
        /// The data directory's instance.
        instance: String,
    },
    /// Run an attempt. Sent only to an idle shim, or to one that has reported an exit: it
    /// acknowledges the final commit of that attempt. Ignored for the attempt that the shim already
    /// has.
    Run(Box<RunSpec>),
    /// The final commit of this attempt is durable; the shim may forget it and accept work again.
    Release {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
    },
    /// Send `grew` once as soon as there is output after `offset`.
    Arm {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
        /// What the server has already read.
        offset: Offset,
    },
    /// Stop the attempt (level-triggered: a repetition changes nothing, a kill after a cancel
    /// shortens the grace).
    Stop {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
        /// By which client, why, and with which grace.
        #[serde(flatten)]
        request: StopRequest,
    },
    /// SIGSTOP to the whole tree (level-triggered).
    Pause {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// SIGCONT to the whole tree (level-triggered).
    Resume {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// One signal to the leader's process group, sent at most once per message.
    Signal {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
        /// Its number, 1 to 64.
        signal: i32,
    },
    /// Bytes for the stdin of an interactive attempt. Answered at once with `input`.
    Input {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// Number that the answer repeats.
        request: u64,
        /// The bytes.
        input: Input,
    },
    /// Asks when the process last gave a sign of life. Only for a shim that has said in its `welcome` that
    /// it tells; answered at once with `last_sign`.
    AskLastSign {
        /// The attempt; a shim that has another one ignores the message.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// The server has no more work for this shim: an idle one leaves.
    Leave,
    /// Start a program as a sibling of the shim, outside of the job's tree: a command line inside
    /// the job needs a server, which must not end with the job. The only message that is accepted
    /// without a hello, from processes of the shim's own user; answered with `launched`.
    Launch(Box<LaunchRequest>),
}

/// A `hello` with the proof that its sender knows the shim's key. A shim that has a key accepts no
/// other; shims of versions before it ignore the field.
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

    /// The proof in the JSON of a hello, if there is one.
    pub fn proof_of(json: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Proof {
            proof: Option<String>,
        }
        serde_json::from_slice::<Proof>(json).ok()?.proof
    }
}

/// The state of a shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ShimState {
    /// It has no attempt and accepts work.
    Idle,
    /// An attempt's leader has not exited, or its tree may still have processes.
    Running {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// Whether the tree is stopped by a pause.
        paused: bool,
        /// When the process was started, µs since 1970; 0 before that.
        started_at_us: i64,
        /// The stop that has begun; `None` while there is none.
        stop: Option<StopRequest>,
    },
    /// An attempt has ended and the server has not acknowledged its final commit.
    Exited {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// How it ended, with usage and output end.
        facts: Box<ExitFacts>,
        /// Whether all segments, exit record included, are on disk.
        synced: bool,
        /// Whether the shim accepts work again after the acknowledgement. Versions before this
        /// field do not send it: those accept work if no process survived.
        #[serde(default)]
        reusable: Option<bool>,
    },
    /// It accepts no more work, and only stays as the parent of survivors.
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
        /// Its state.
        state: ShimState,
        /// Whether it takes secrets and masks them. Versions before this field do not.
        #[serde(default)]
        takes_secrets: bool,
        /// Whether it answers `ask_last_sign`. Versions before this field do not.
        #[serde(default)]
        tells_last_sign: bool,
    },
    /// Answers a `hello` with too low an epoch; the connection is closed after it.
    Stale {
        /// The highest epoch that the shim has seen.
        epoch: u64,
    },
    /// The process runs: exec has succeeded. Sent again after every `welcome` while it runs.
    Started {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// The leader's process id.
        pid: i32,
        /// Its start time in clock ticks since boot.
        start_ticks: u64,
        /// µs since 1970.
        started_at_us: i64,
    },
    /// `run` was refused: the right to start is taken (the first segment exists), or the shim is
    /// busy or leaving. Nothing was started. A passing shortage is no reason to refuse: the attempt
    /// then waits in its shim.
    Refused {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// Why, for the log.
        why: String,
    },
    /// There is output after the armed offset. It may not be stored, where it came after a bound.
    Grew {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// The end of the output now, including what was dropped there.
        offset: Offset,
    },
    /// Answers `ask_last_sign`.
    LastSign {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// When it last wrote output, stored or dropped, took an input, started or went on after a pause:
        /// CLOCK_BOOTTIME, µs. `None`: it has not started.
        boottime_us: Option<u64>,
    },
    /// A segment was sealed, and the next one begins.
    Sealed {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// First offset of the next segment.
        next_offset: Offset,
    },
    /// A pause has stopped the tree.
    Paused {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// The tree continues after a pause.
    Resumed {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
    },
    /// The pause is refused and the tree continues, because some of its processes cannot be
    /// stopped.
    PauseRefused {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// Why, for people.
        why: String,
    },
    /// The kernel does not let the shim signal these processes for the stop that has begun.
    StopRefused {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// The processes, by id and name.
        refused: Vec<Survivor>,
    },
    /// A stop has begun before the leader had exited.
    Stopping {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// The first stop request.
        #[serde(flatten)]
        request: StopRequest,
    },
    /// The process waits (`true`) or continues (`false`): the spool or the disk is full, or the
    /// process cannot be started yet.
    Waiting {
        /// The attempt that sends this.
        #[serde(flatten)]
        about: AttemptRef,
        /// Whether it waits.
        waiting: bool,
        /// Why, for people.
        why: String,
    },
    /// Answers an input. An input for an attempt that is over is answered as closed.
    Input {
        /// The number that came with the input.
        request: u64,
        /// Whether it was accepted, or why not.
        answer: InputAnswer,
    },
    /// The attempt has ended: its output is complete and its tree is gone (survivors not counted).
    Exited {
        /// The job's number.
        job: JobNumber,
        /// The attempt's number, from 1.
        attempt: u32,
        /// How it ended, with usage and output end.
        facts: Box<ExitFacts>,
        /// Whether all segments, exit record included, are on disk.
        synced: bool,
        /// Whether the shim takes work again after the acknowledgement.
        reusable: bool,
    },
    /// Answers `launch`. Also sent to the server, because the program can be its child and exits at
    /// once.
    Launched {
        /// Its process id; 0 where nothing was started.
        pid: i32,
        /// Why it was not started; `None` where it was, or was not to be.
        error: Option<String>,
    },
    /// A problem that the operator should know.
    Trouble {
        /// A sentence for the log.
        message: String,
    },
}

impl ToShim {
    /// The attempt that a message to a running attempt is about; `None` for other messages.
    pub fn about(&self) -> Option<AttemptRef> {
        match self {
            Self::Arm { about, .. }
            | Self::AskLastSign { about }
            | Self::Stop { about, .. }
            | Self::Pause { about }
            | Self::Resume { about }
            | Self::Signal { about, .. } => Some(*about),
            _ => None,
        }
    }
}

impl FromShim {
    /// The attempt that this message is about; `None` for messages about none.
    pub fn about(&self) -> Option<AttemptRef> {
        match self {
            Self::Grew { about, .. }
            | Self::LastSign { about, .. }
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

/// The fields that the `welcome` of every version has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnyWelcome {
    /// The version of the protocol.
    pub protocol: u32,
    /// The shim's program version.
    pub version: String,
}

impl AnyWelcome {
    /// The sender's versions, if this is the `welcome` of a shim whose protocol this binary does
    /// not support.
    pub fn foreign(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct WelcomeFields {
            r#type: String,
            #[serde(flatten)]
            welcome: AnyWelcome,
        }
        let fields: WelcomeFields = serde_json::from_slice(json).ok()?;
        let supported = PROTOCOL_OLDEST..=PROTOCOL;
        (fields.r#type == "welcome" && !supported.contains(&fields.welcome.protocol))
            .then_some(fields.welcome)
    }
}

/// A message as bytes: the length, then the JSON.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    // Our own types have no map with non-string keys and no failing serializer.
    #[allow(clippy::expect_used)]
    serde_json::to_writer(&mut bytes, message).expect("a message serialises");
    let length = (bytes.len() - 4) as u32;
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// How many bytes of capacity an empty buffer keeps for the next message.
const KEPT_BYTES: usize = 64 << 10;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The length is above [`MESSAGE_BYTES_MAX`].
    #[error("a message has {0} bytes, above the limit")]
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

    /// The JSON of the next whole message, or `None` until more bytes have arrived.
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
        let welcome = |protocol: u32, state: &str| {
            format!(
                r#"{{"type":"welcome","protocol":{protocol},"version":"9.9.9","state":{state}}}"#
            )
        };
        let foreign = AnyWelcome::foreign(welcome(2, r#"{"state":"dreaming"}"#).as_bytes());
        let (protocol, version) = (2, "9.9.9".to_owned());
        assert_eq!(foreign, Some(AnyWelcome { protocol, version }));
        assert_eq!(
            AnyWelcome::foreign(welcome(1, r#"{"state":"idle"}"#).as_bytes()),
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
            ToShim::Run(spec) => {
                assert!(!spec.interactive && spec.inputs.is_empty());
                assert!(spec.redact && spec.secret_env.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_hands_secrets_over_and_does_not_show_them() {
        let run = r#"{"type":"run","job":1,"job_id":"00000000-0000-0000-0000-000000000007",
            "attempt":1,"start_offset":0,"argv":["true"],"cwd":"/","env":[],"umask":63,
            "secret_env":[{"name":"T","value":"s3cret"}],"redact":false,
            "stdin":null,"timeout_ms":null,"stall_timeout_ms":null,"grace_ms":0,
            "leftover":"kill","output_bytes_max":null,"segment_bytes":1,"inline_bytes_max":1,
            "spool_bytes_max":null,"free_bytes_min":0,"stop":null}"#;
        let run: ToShim = serde_json::from_str(run).expect("a message");
        let again: ToShim = serde_json::from_slice(&encode(&run)[4..]).expect("a message");
        assert_eq!(again, run);
        let shown = format!("{again:?}");
        assert!(
            !shown.contains("s3cret") && shown.contains("redact: false"),
            "{shown}"
        );
        let ToShim::Run(spec) = again else {
            panic!("{shown}")
        };
        assert_eq!(spec.secret_env[0].value.expose(), "s3cret");
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
        /// Any bytes give the same messages, wherever they are cut.
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
