//! `job.tail`: a subscription to a job's output, and the options that `job.submit` shares with it.
//! `ws::tails` sends the output.

use serde_json::{Map, Value, json};

use super::Outcome;
use crate::{
    executor::{StartAt, TailOptions},
    job::{Job, JobRef},
    protocol::{
        jsonrpc::{
            error::Refusal,
            params::{OFFSET_MAX, Params},
        },
        ws::{
            session::Session,
            tails::{Granted, ReservedTail, TailEncoding},
        },
    },
};

const OPTIONS: [&str; 6] = [
    "from",
    "last_bytes",
    "last_lines",
    "follow",
    "streams",
    "encoding",
];
const KEYS: [&str; 7] = [
    "job",
    "from",
    "last_bytes",
    "last_lines",
    "follow",
    "streams",
    "encoding",
];

/// The options of a tail.
#[derive(Debug, Clone, PartialEq)]
pub struct TailRequest {
    /// Where it begins, whether it follows, and which streams.
    pub options: TailOptions,
    /// How output is sent.
    pub encoding: TailEncoding,
}

impl TailRequest {
    /// Reads the key `tail` of a submit.
    pub fn nested(value: &Value) -> Result<Self, Refusal> {
        let map = value
            .as_object()
            .ok_or_else(|| Refusal::params("tail", "must be an object"))?;
        Self::from_params(&Params::nested(map, "tail.", &OPTIONS)?)
    }

    fn from_params(params: &Params<'_>) -> Result<Self, Refusal> {
        let options = TailOptions {
            from: start_at(params)?,
            follow: params.flag("follow")?.unwrap_or(true),
            streams: params.streams()?,
        };
        let words = [
            ("text", TailEncoding::Text),
            ("binary", TailEncoding::Binary),
        ];
        let encoding = params
            .one_of("encoding", &words)?
            .unwrap_or(TailEncoding::Text);
        Ok(Self { options, encoding })
    }

    /// Opens the tail at its reserved place; also returns the job as it is now.
    pub async fn open(
        self,
        session: &Session,
        job: JobRef,
        place: ReservedTail,
    ) -> Result<(Granted, Job), Refusal> {
        let follow = self.options.follow;
        let (tail, job) = session
            .caller
            .server
            .executor
            .tail(job, self.options)
            .await?;
        let granted = Granted {
            subscription: session.tails.next_number(),
            tail,
            follow,
            encoding: self.encoding,
            place,
        };
        Ok((granted, job))
    }
}

fn start_at(params: &Params<'_>) -> Result<StartAt, Refusal> {
    let from = params.offset("from")?.map(StartAt::Offset);
    let bytes = params
        .number("last_bytes", 0, OFFSET_MAX)?
        .map(StartAt::LastBytes);
    let lines = params
        .number("last_lines", 0, OFFSET_MAX)?
        .map(StartAt::LastLines);
    let mut given = [from, bytes, lines].into_iter().flatten();
    match (given.next(), given.next()) {
        (begin, None) => Ok(begin.unwrap_or(StartAt::Offset(0))),
        _ => Err(params.wrong("from", "give at most one of from, last_bytes, last_lines")),
    }
}

/// Whether finding the beginning may take long: lines are counted from the end backwards.
pub fn counts_lines(params: &Map<String, Value>) -> bool {
    params
        .get("last_lines")
        .is_some_and(|lines| !lines.is_null())
}

pub async fn execute(session: &Session, params: Map<String, Value>) -> Result<Outcome, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let job = params.job()?;
    let wanted = TailRequest::from_params(&params)?;
    let place = session.tails.reserve()?;
    let (granted, job) = wanted.open(session, job, place).await?;
    session
        .caller
        .server
        .executor
        .asked_for(&session.caller.id, job.number);
    let from = granted.tail.from();
    let result = json!({ "subscription": granted.subscription, "job": job, "from": from });
    Ok(Outcome {
        granted: Some(granted),
        ..Outcome::of(&result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Stream;

    #[test]
    fn options_have_defaults() {
        let wanted = TailRequest::nested(&json!({})).expect("valid");
        let options = TailOptions {
            from: StartAt::Offset(0),
            follow: true,
            streams: None,
        };
        assert_eq!(
            wanted,
            TailRequest {
                options,
                encoding: TailEncoding::Text
            }
        );
    }

    #[test]
    fn options_are_read() {
        let wanted = TailRequest::nested(&json!({
            "last_lines": 3, "follow": false, "streams": ["stderr"], "encoding": "binary",
        }));
        let options = TailOptions {
            from: StartAt::LastLines(3),
            follow: false,
            streams: Some(vec![Stream::Stderr]),
        };
        assert_eq!(
            wanted,
            Ok(TailRequest {
                options,
                encoding: TailEncoding::Binary
            })
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            json!([]),
            json!({"from": -1}),
            json!({"from": 1.5}),
            json!({"from": 1u64 << 63}),
            json!({"from": "0"}),
            json!({"from": 0, "last_lines": 0}),
            json!({"last_bytes": 1, "last_lines": 1}),
            json!({"streams": []}),
            json!({"streams": ["stdin"]}),
            json!({"encoding": "base64"}),
            json!({"follow": 1}),
            json!({"job": 1}),
        ] {
            assert!(TailRequest::nested(&wrong).is_err(), "{wrong}");
        }
    }
}
