//! Reads a job's output as it was recorded, in chunks with times, from its first byte to its end;
//! of a job that still runs, to the end at the beginning of the read.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::job::ShownJob;
use crate::{cli::connect::link::Link, job::Stream};

/// How much one request asks for, bytes: the most that `job.read` returns.
const READ_BYTES: u64 = 512 << 10;

/// A piece of a recording.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordedItem {
    /// Bytes.
    Chunk(RecordedChunk),
    /// Bytes that are missing.
    Gap(RecordedGap),
}

/// Bytes of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedChunk {
    /// The offset of the first byte in the output.
    pub offset: u64,
    /// The stream that the job wrote them to.
    pub stream: Stream,
    /// The attempt that wrote them.
    pub attempt: u64,
    /// When they were captured.
    pub at: DateTime<Utc>,
    /// The bytes.
    pub data: Vec<u8>,
    /// The chunk as the server sent it.
    pub json: Value,
}

/// A gap as the server sent it: `from`, `to`, `reason`.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedGap(pub Value);

/// A recording that is being read.
pub struct Recording {
    link: Link,
    /// The job as the server sent it when the read began.
    pub job: Value,
    id: String,
    /// Where to stop, for a job that is not final.
    end: Option<u64>,
    stream: Option<String>,
    next_offset: u64,
    over: bool,
}

impl Recording {
    /// Begins at the first byte; with `stream`, only that stream is read.
    pub async fn begin(
        mut link: Link,
        job: &Value,
        stream: Option<String>,
    ) -> anyhow::Result<Self> {
        let job = link.request("job.get", &json!({"job": job})).await?;
        let described = ShownJob::read(&job)?;
        Ok(Self {
            link,
            end: (!described.is_final()).then_some(described.output_bytes),
            id: described.id,
            job,
            stream,
            next_offset: 0,
            over: false,
        })
    }

    /// The offset after what was read.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The next chunks and gaps; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<RecordedItem>>> {
        if self.over || self.end.is_some_and(|end| self.next_offset >= end) {
            return Ok(None);
        }
        let mut params = json!({
            "job": self.id, "from": self.next_offset, "max_bytes": READ_BYTES,
        });
        if let Some(stream) = &self.stream {
            params["streams"] = json!([stream]);
        }
        let mut reply = self.link.request("job.read", &params).await?;
        let next = reply["next_offset"].as_u64();
        let next = next.context("the server's answer has no next_offset")?;
        self.over = !reply["end"].is_null();
        if next <= self.next_offset && !self.over {
            if self.end.is_some() {
                return Ok(None);
            }
            bail!(
                "the output cannot be read from byte {next} on; `cc-executor verify {}` shows why",
                self.job["number"]
            );
        }
        self.next_offset = next;
        let Value::Array(items) = reply["chunks"].take() else {
            bail!("the server's answer has no chunks");
        };
        let items = items.into_iter().map(item);
        items.collect::<anyhow::Result<_>>().map(Some)
    }
}

fn item(mut value: Value) -> anyhow::Result<RecordedItem> {
    if let Some(gap) = value.get_mut("gap") {
        return Ok(RecordedItem::Gap(RecordedGap(gap.take())));
    }
    let chunk = chunk(value).context("the server's answer has an invalid chunk")?;
    Ok(RecordedItem::Chunk(chunk))
}

fn chunk(value: Value) -> Option<RecordedChunk> {
    let data = match value["data"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => STANDARD.decode(value["data_base64"].as_str()?).ok()?,
    };
    let streams = [Stream::Stdout, Stream::Stderr, Stream::Pty];
    Some(RecordedChunk {
        offset: value["offset"].as_u64()?,
        stream: streams
            .into_iter()
            .find(|stream| value["stream"] == stream.name())?,
        attempt: value["attempt"].as_u64()?,
        at: value["at"].as_str()?.parse().ok()?,
        data,
        json: value,
    })
}

impl RecordedGap {
    /// The line for stderr.
    pub fn message(&self) -> String {
        let (from, to) = (&self.0["from"], &self.0["to"]);
        let reason = self.0["reason"].as_str().unwrap_or("unknown");
        format!("bytes {from} to {to} are missing ({reason})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_and_gaps_are_read() {
        let chunk_with = |key: &str, value: &str| {
            json!({
                "offset": 3, "next_offset": 5, "stream": "stderr", "attempt": 2,
                "at": "1970-01-01T00:00:01.000002Z", key: value,
            })
        };
        for (key, value, data) in [
            ("data", "é", "é".as_bytes()),
            ("data_base64", "/wA=", b"\xff\0"),
        ] {
            let Ok(RecordedItem::Chunk(chunk)) = item(chunk_with(key, value)) else {
                panic!("{key}");
            };
            assert_eq!(
                (chunk.offset, chunk.stream, chunk.attempt),
                (3, Stream::Stderr, 2)
            );
            assert_eq!(
                (chunk.at.timestamp_micros(), &chunk.data[..]),
                (1_000_002, data)
            );
        }
        let gap = item(json!({"gap": {"from": 1, "to": 2, "reason": "power_loss"}}));
        let Ok(RecordedItem::Gap(gap)) = gap else {
            panic!("a gap")
        };
        assert_eq!(gap.message(), "bytes 1 to 2 are missing (power_loss)");
        assert!(item(json!({"offset": 3})).is_err());
    }
}
