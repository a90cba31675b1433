//! The parts of output: streams, offsets, chunks and gaps. `store` and `spool` keep them.

use serde::{Deserialize, Serialize};

use super::time::Micros;

/// A byte position in a job's output, from 0 to 2^63-1.
pub type Offset = u64;

/// Which of a process's outputs a byte came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stream {
    /// File descriptor 1.
    Stdout = 0,
    /// File descriptor 2.
    Stderr = 1,
    /// The pseudo-terminal, which has only one output.
    Pty = 2,
}

impl Stream {
    /// The stream with this code (0 stdout, 1 stderr, 2 pty), as in records and binary frames.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::Pty]
            .into_iter()
            .find(|stream| stream.code() == code)
    }

    /// The code of this stream in records and binary frames.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name of this stream on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Pty => "pty",
        }
    }
}

/// How many bytes and line ends (bytes 0x0A) of each stream a part of an output has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCounts {
    /// Bytes, by [`Stream::code`].
    pub bytes: [u64; 3],
    /// Line ends, by [`Stream::code`].
    pub lines: [u64; 3],
}

impl StreamCounts {
    /// Counts data of a stream.
    pub fn add(&mut self, stream: Stream, data: &[u8]) {
        let code = usize::from(stream.code());
        self.bytes[code] += data.len() as u64;
        self.lines[code] += memchr::memchr_iter(b'\n', data).count() as u64;
    }

    /// The bytes and line ends of these streams; `None`: of all.
    pub fn of(&self, streams: Option<&[Stream]>) -> (u64, u64) {
        let all = [Stream::Stdout, Stream::Stderr, Stream::Pty];
        let codes = streams
            .unwrap_or(&all)
            .iter()
            .map(|stream| usize::from(stream.code()));
        codes.fold((0, 0), |(bytes, lines), code| {
            (bytes + self.bytes[code], lines + self.lines[code])
        })
    }
}

/// An immutable run of output bytes of one stream of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The position of the first byte.
    pub offset: Offset,
    /// Where the bytes came from.
    pub stream: Stream,
    /// The attempt that wrote them, from 1.
    pub attempt: u32,
    /// When they were captured.
    pub at: Micros,
    /// The bytes, never empty.
    pub data: Vec<u8>,
}

impl Chunk {
    /// About how many bytes a chunk takes in memory besides its data. Code that limits chunks by
    /// their bytes must count it too, or a thousand chunks of one byte would seem to be nothing.
    pub const OVERHEAD_BYTES: usize = 64;

    /// The position after the last byte.
    pub fn next_offset(&self) -> Offset {
        self.offset + self.data.len() as u64
    }
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The machine lost power before the bytes were synced.
    PowerLoss,
    /// The oldest output was dropped to make room for newer (`output.when_full`).
    DropOldest,
    /// The newest output was not accepted any more (`output.when_full`).
    DropNewest,
    /// The disk was full when the job was stopped: there was no space for what was still in its
    /// pipes.
    DiskFull,
    /// The output was older than the retention allows.
    Retention,
    /// The job was deleted while a client read it.
    Deleted,
    /// The storage has lost the bytes: a file of the spool is missing, or is not as it was written.
    /// A read finds it; no row has this reason.
    Damaged,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::PowerLoss,
        Self::DropOldest,
        Self::DropNewest,
        Self::DiskFull,
        Self::Retention,
        Self::Deleted,
        Self::Damaged,
    ];

    /// The name of this reason on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerLoss => "power_loss",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::DiskFull => "disk_full",
            Self::Retention => "retention",
            Self::Deleted => "deleted",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the shim dropped the bytes and counted them: they count in [`Dropped`].
    pub fn is_dropping(self) -> bool {
        matches!(self, Self::DropOldest | Self::DropNewest | Self::DiskFull)
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// How much output was dropped, because of `output.when_full` or a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Bytes, of all streams.
    pub bytes: u64,
    /// Line ends (bytes 0x0A) among them: a line that was cut is dropped if its end was.
    pub lines: u64,
}

/// Missing output: bytes from `from` (inclusive) to `to` (exclusive) are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first missing position.
    pub from: Offset,
    /// The first position after the gap.
    pub to: Offset,
    /// Why the bytes are missing.
    pub reason: GapReason,
}
