//! `job.read`: a range of output, cut exactly; may wait for its first byte.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    executor::{Read, ReadItem, ReadOptions},
    job::{Gap, Job, JobRef, Offset},
    protocol::{
        caller::Caller,
        encode::chunk_json::ChunkView,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::{fitting, job_bytes_max},
    },
};

/// Most bytes of one read.
pub const BYTES_MAX: u64 = 512 << 10;
/// Bytes of a read if `max_bytes` is not given.
pub const BYTES_DEFAULT: u64 = 64 << 10;
/// Longest wait, milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;

const KEYS: [&str; 5] = ["job", "from", "max_bytes", "wait_ms", "streams"];

fn options(params: &Map<String, Value>) -> Result<(JobRef, ReadOptions), Refusal> {
    let params = Params::new(params, &KEYS)?;
    let job = params.job()?;
    let from = params
        .offset("from")?
        .ok_or_else(|| params.wrong("from", "missing"))?;
    let max_bytes = params
        .number("max_bytes", 1, BYTES_MAX)?
        .unwrap_or(BYTES_DEFAULT);
    let wait = params.number("wait_ms", 0, WAIT_MS_MAX)?.unwrap_or(0);
    let wait = Duration::from_millis(wait);
    Ok((
        job,
        ReadOptions {
            from,
            max_bytes,
            wait,
            streams: params.streams()?,
        },
    ))
}

/// Whether a read with these parameters may wait.
pub fn waits(params: &Map<String, Value>) -> bool {
    let wait_ms = params.get("wait_ms").and_then(Value::as_u64);
    wait_ms.is_some_and(|ms| ms > 0)
}

/// Whether the reply to a read with these parameters may be long.
pub fn is_long(params: &Map<String, Value>) -> bool {
    let max_bytes = params.get("max_bytes").and_then(Value::as_u64);
    max_bytes.is_some_and(|bytes| bytes > BYTES_DEFAULT)
}

/// Waits for something to read, as long as the parameters allow; returns the offset where that begins. The
/// output for the reply is read only after the reply's permit is there.
pub async fn wait_for_output(
    caller: &Caller,
    params: &Map<String, Value>,
) -> Result<Offset, Refusal> {
    let (job, options) = options(params)?;
    let executor = &caller.server.executor;
    Ok(executor.wait_to_read(job, &options).await?)
}

/// Reads what is there, without waiting. `from` takes the place of the parameter.
pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
    from: Option<Offset>,
) -> Result<Box<RawValue>, Refusal> {
    let (job, options) = options(&params)?;
    let from = from.unwrap_or(options.from);
    let options = ReadOptions {
        from,
        wait: Duration::ZERO,
        ..options
    };
    let server = &caller.server;
    let read = server.executor.read(job, options).await?;
    let bytes_max = job_bytes_max(&server.settings);
    let bytes = usize::try_from(read.next_offset.saturating_sub(from)).unwrap_or(usize::MAX);
    let write = move || to_raw(&ReadView::of(&read, bytes_max));
    Ok(server.parser.run(bytes, write).await)
}

/// A read as it is sent.
#[derive(Debug, Serialize)]
struct ReadView<'a> {
    chunks: Vec<Box<RawValue>>,
    next_offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'a Job>,
}

impl<'a> ReadView<'a> {
    /// Stops earlier if the JSON would be longer than `bytes_max`: many small chunks take more space than
    /// their bytes.
    fn of(read: &'a Read, bytes_max: usize) -> Self {
        let end = read.end.as_deref();
        let end_bytes = end.map_or(0, |job| json!(job).to_string().len());
        let (chunks, all) = fitting(read.items.iter().map(view), bytes_max);
        let chunk_bytes: usize = chunks.iter().map(|chunk| chunk.get().len() + 1).sum();
        // If the end does not fit after the chunks, the next read returns it.
        let end =
            end.filter(|_| all && (chunks.is_empty() || chunk_bytes + end_bytes <= bytes_max));
        let next_offset = match read.items.get(chunks.len()) {
            Some(left_out) if !all => start_of(left_out),
            _ => read.next_offset,
        };
        Self {
            chunks,
            next_offset,
            end,
        }
    }
}

fn start_of(item: &ReadItem) -> Offset {
    match item {
        ReadItem::Chunk(chunk) => chunk.offset,
        ReadItem::Gap(gap) => gap.from,
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum ItemView<'a> {
    Chunk(ChunkView<'a>),
    Gap { gap: Gap },
}

fn view(item: &ReadItem) -> ItemView<'_> {
    match item {
        ReadItem::Chunk(chunk) => ItemView::Chunk(ChunkView::of(chunk)),
        ReadItem::Gap(gap) => ItemView::Gap { gap: *gap },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Chunk, GapReason, Micros, Stream};

    fn chunk(offset: Offset, data: &[u8]) -> ReadItem {
        let (stream, attempt, at) = (Stream::Stdout, 1, Micros(0));
        ReadItem::Chunk(Chunk {
            offset,
            stream,
            attempt,
            at,
            data: data.to_vec(),
        })
    }

    fn parse(value: Value) -> Result<(JobRef, ReadOptions), Refusal> {
        options(value.as_object().expect("an object"))
    }

    #[test]
    fn options_are_bounded() {
        let (job, read) = parse(json!({"job": 1, "from": 0})).expect("valid");
        let defaults = ReadOptions {
            from: 0,
            max_bytes: 65_536,
            wait: Duration::ZERO,
            streams: None,
        };
        assert_eq!((job, read), (JobRef::Number(1), defaults));
        assert!(
            parse(json!({"job": 1, "from": 0, "max_bytes": 524_288, "wait_ms": 60_000})).is_ok()
        );
        for wrong in [
            json!({"job": 1}),
            json!({"from": 1}),
            json!({"job": 1, "from": 0, "max_bytes": 0}),
            json!({"job": 1, "from": 0, "max_bytes": 524_289}),
            json!({"job": 1, "from": 0, "wait_ms": 60_001}),
            json!({"job": 1, "from": -1}),
            json!({"job": 1, "from": 0, "follow": true}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_read_is_told_whole_where_it_fits() {
        let gap = Gap {
            from: 2,
            to: 5,
            reason: GapReason::PowerLoss,
        };
        let items = vec![chunk(0, b"hi"), ReadItem::Gap(gap)];
        let read = Read {
            items,
            next_offset: 5,
            end: None,
        };
        let shown = json!(ReadView::of(&read, 1 << 20));
        assert_eq!(shown["next_offset"], 5);
        assert_eq!(shown["chunks"][0]["data"], "hi");
        let expected = json!({"gap": {"from": 2, "to": 5, "reason": "power_loss"}});
        assert_eq!(shown["chunks"][1], expected);
        assert!(shown.get("end").is_none());
    }

    /// Half a million chunks of one byte would be a hundred megabytes of JSON.
    #[test]
    fn many_small_chunks_are_cut_where_the_next_read_goes_on() {
        let items: Vec<ReadItem> = (0..1000).map(|at| chunk(at, b"x")).collect();
        let read = Read {
            items,
            next_offset: 1000,
            end: None,
        };
        let view = ReadView::of(&read, 10_000);
        assert!(view.chunks.len() < 1000 && !view.chunks.is_empty());
        assert_eq!(view.next_offset, view.chunks.len() as u64);
        assert!(json!(view).to_string().len() < 11_000);
    }
}
