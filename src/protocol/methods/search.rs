//! `history.search`: lines of outputs in which a text is or a pattern matches. It runs beside the session's
//! other requests.

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::list;
use crate::{
    executor::{
        FoundLine, LinePattern, PatternError, SearchHit, SearchOptions, SearchResult, SearchScope,
        SearchTurn,
    },
    job::{JobId, JobNumber, Offset, Stream},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::job_bytes_max,
    },
};

/// The keys besides those that say which jobs.
const OWN_KEYS: [&str; 8] = [
    "text",
    "regex",
    "ignore_case",
    "job",
    "from",
    "streams",
    "limit",
    "cursor",
];

/// Free bytes of a reply beside its hits. A hit may take up to 25 KiB more than was left for it.
const BESIDE_HITS_BYTES: usize = 64 << 10;

fn options(params: &Map<String, Value>, bytes_max: usize) -> Result<SearchOptions, Refusal> {
    let keys: Vec<&str> = OWN_KEYS.into_iter().chain(list::FILTER_KEYS).collect();
    let params = Params::new(params, &keys)?;
    let limit = params.number("limit", 1, SearchOptions::LIMIT_MAX as u64)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let cursor = params.text("cursor")?.map(|text| {
        let wrong = |_| params.wrong("cursor", "must be the cursor of an earlier search");
        text.parse().map_err(wrong)
    });
    Ok(SearchOptions {
        scope: scope(&params)?,
        streams: params.streams()?,
        limit: limit.unwrap_or(SearchOptions::LIMIT_DEFAULT),
        json_bytes_max: bytes_max.saturating_sub(BESIDE_HITS_BYTES),
        cursor: cursor.transpose()?,
        // The last one, because it may take long.
        pattern: pattern(&params)?,
    })
}

fn pattern(params: &Params<'_>) -> Result<LinePattern, Refusal> {
    let ignore_case = params.flag("ignore_case")?.unwrap_or(false);
    let (key, made) = match (params.text("text")?, params.text("regex")?) {
        (Some(text), None) => ("text", LinePattern::text(text, ignore_case)),
        (None, Some(regex)) => ("regex", LinePattern::regex(regex, ignore_case)),
        (None, None) => return Err(params.wrong("text", "missing; give text or regex")),
        (Some(_), Some(_)) => return Err(params.wrong("regex", "give text or regex, not both")),
    };
    made.map_err(|error| match error {
        PatternError::TooLong => Refusal::limit("pattern_bytes_max", error.to_string()),
        error => params.wrong(key, &error.to_string()),
    })
}

fn scope(params: &Params<'_>) -> Result<SearchScope, Refusal> {
    let from = params.offset("from")?;
    if params.get("job").is_none() {
        return match from {
            Some(_) => Err(params.wrong("from", "is an offset in one output: name its job")),
            None => Ok(SearchScope::Jobs(list::filter(params)?)),
        };
    }
    if let Some(key) = list::FILTER_KEYS
        .into_iter()
        .find(|key| params.get(key).is_some())
    {
        return Err(params.wrong(key, "leave it out where job names the one to search"));
    }
    let job = params.job()?;
    match (from, params.get("cursor")) {
        (Some(_), Some(_)) => Err(params.wrong("from", "leave it out where a cursor is given")),
        (from, _) => Ok(SearchScope::Job {
            job,
            from: from.unwrap_or(0),
        }),
    }
}

#[derive(Debug, Serialize)]
struct HitView {
    job: JobId,
    number: JobNumber,
    stream: Stream,
    offset: Offset,
    line_number: Option<u64>,
    match_offset: Offset,
    match_end: Offset,
    line: String,
    /// The part of `line` that matched, in characters.
    line_match: [usize; 2],
    /// Where `line` begins, if the line has bytes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    line_from: Option<Offset>,
    /// The line has bytes after `line`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    line_goes_on: bool,
}

impl HitView {
    fn of(hit: &SearchHit) -> Self {
        let line = &hit.line;
        let (text, line_match) = text_of(line);
        Self {
            job: hit.job,
            number: hit.number,
            stream: line.stream,
            offset: line.offset,
            line_number: line.number,
            match_offset: line.found.start,
            match_end: line.found.end,
            line: text,
            line_match,
            line_from: (line.text_offset > line.offset).then_some(line.text_offset),
            line_goes_on: line.goes_on,
        }
    }
}

/// The line as text: bytes that are no UTF-8 become U+FFFD. And where the match is in it, in characters.
fn text_of(line: &FoundLine) -> (String, [usize; 2]) {
    let found = line.text_found.clone();
    let parts = [
        &line.text[..found.start],
        &line.text[found.clone()],
        &line.text[found.end..],
    ];
    let [before, matched, after] = parts.map(String::from_utf8_lossy);
    let count = |text: &Cow<'_, str>| text.chars().count();
    let begin = count(&before);
    let end = begin + count(&matched);
    (format!("{before}{matched}{after}"), [begin, end])
}

#[derive(Debug, Serialize)]
struct SearchView<'a> {
    hits: Vec<HitView>,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<ReachedView>,
    jobs_searched: u64,
    bytes_searched: u64,
    missing_bytes: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreadable: &'a [JobNumber],
    elapsed_ms: u64,
}

/// How far the search has come.
#[derive(Debug, Serialize)]
struct ReachedView {
    number: JobNumber,
    offset: Offset,
}

impl<'a> SearchView<'a> {
    fn of(result: &'a SearchResult) -> Self {
        let stopped = result.stopped;
        Self {
            hits: result.hits.iter().map(HitView::of).collect(),
            truncated: stopped.is_some(),
            stopped_by: stopped.map(|(bound, _)| bound.name()),
            cursor: stopped.map(|(_, cursor)| cursor.to_string()),
            reached: stopped.map(|(_, cursor)| ReachedView {
                number: cursor.number,
                offset: cursor.position.next(),
            }),
            jobs_searched: result.jobs,
            bytes_searched: result.bytes,
            missing_bytes: result.missing_bytes,
            unreadable: &result.unreadable,
            elapsed_ms: u64::try_from(result.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Searches. Wrong parameters are refused at once; while the request waits for its turn, they stay text,
/// because a compiled pattern takes more memory. Keep the turn until the reply is sent.
pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<(Box<RawValue>, SearchTurn), Refusal> {
    let executor = &caller.server.executor;
    let bytes_max = job_bytes_max(&caller.server.settings);
    let params = Arc::new(params);
    let read =
        |params: Arc<Map<String, Value>>| executor.in_turn(move || options(&params, bytes_max));
    drop(read(params.clone()).await??);
    let turn = executor.turn_to_search(&caller.turns).await?;
    let options = read(params).await??;
    let result = executor.search(&turn, options, &caller.principal()).await?;
    Ok((to_raw(&SearchView::of(&result)), turn))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        executor::{LinePosition, SearchBound, SearchCursor},
        job::JobRef,
        protocol::ErrorKind,
    };

    fn read(value: Value) -> Result<SearchOptions, Refusal> {
        options(value.as_object().expect("an object"), 1 << 20)
    }

    #[test]
    fn one_job_or_a_filter_is_read() {
        let all = read(json!({"text": "x"})).expect("valid");
        assert_eq!(all.limit, 50);
        assert!(matches!(all.scope, SearchScope::Jobs(filter) if filter.states.is_empty()));
        let one = json!({"regex": "x+", "job": 7, "from": 9, "streams": ["stderr"], "limit": 1000});
        let one = read(one).expect("valid");
        let scope = SearchScope::Job {
            job: JobRef::Number(7),
            from: 9,
        };
        assert_eq!((one.scope, one.limit), (scope, 1000));
        assert_eq!(one.streams, Some(vec![Stream::Stderr]));
        let some =
            read(json!({"text": "x", "state": "failed", "queue": "q", "cursor": "7.0.0.0.0.0"}));
        let some = some.expect("valid");
        let SearchScope::Jobs(filter) = some.scope else {
            panic!("{:?}", some.scope);
        };
        assert_eq!(filter.queue.as_deref(), Some("q"));
        let position = LinePosition::begin(0);
        assert_eq!(
            some.cursor,
            Some(SearchCursor {
                number: 7,
                position
            })
        );
    }

    #[test]
    fn wrong_searches_are_refused_with_what_would_be_right() {
        for (wrong, key, says) in [
            (json!({}), "text", "text or regex"),
            (json!({"text": "x", "regex": "x"}), "regex", "not both"),
            (json!({"text": ""}), "text", "must not be empty"),
            (json!({"text": "a\nb"}), "text", "line end"),
            (json!({"regex": "a\\nb"}), "regex", "line end"),
            (json!({"regex": "("}), "regex", "unclosed group"),
            (json!({"text": 1}), "text", "a string"),
            (
                json!({"text": "x", "ignore_case": 1}),
                "ignore_case",
                "true or false",
            ),
            (json!({"text": "x", "from": 1}), "from", "job"),
            (
                json!({"text": "x", "job": 1, "queue": "q"}),
                "queue",
                "leave it out",
            ),
            (json!({"text": "x", "job": "x"}), "job", "number"),
            (
                json!({"text": "x", "job": 1, "from": 1, "cursor": "1.0.0.0.0.0"}),
                "from",
                "cursor",
            ),
            (
                json!({"text": "x", "cursor": "1"}),
                "cursor",
                "earlier search",
            ),
            (json!({"text": "x", "limit": 1001}), "limit", "1 to 1000"),
            (json!({"text": "x", "streams": []}), "streams", "stdout"),
            (json!({"text": "x", "since": "now"}), "since", "RFC 3339"),
            (
                json!({"text": "x", "pattern": 1}),
                "pattern",
                "known keys are text, regex",
            ),
        ] {
            let refusal = read(wrong.clone()).expect_err("refused");
            assert_eq!(refusal.kind, ErrorKind::InvalidParams, "{wrong}");
            assert!(
                refusal.message.starts_with(key),
                "{wrong}: {}",
                refusal.message
            );
            assert!(
                refusal.message.contains(says),
                "{wrong}: {}",
                refusal.message
            );
        }
        let long = read(json!({"text": "x".repeat(4097)})).expect_err("refused");
        assert_eq!(long.kind, ErrorKind::LimitExceeded);
    }

    fn found(text: &[u8], found: std::ops::Range<usize>, is_part: bool) -> SearchHit {
        SearchHit {
            job: JobId(uuid::Uuid::nil()),
            number: 7,
            line: FoundLine {
                stream: Stream::Stdout,
                offset: 100,
                number: Some(3),
                found: 102..103,
                text: text.to_vec(),
                text_offset: 100 + u64::from(is_part),
                text_found: found,
                goes_on: is_part,
            },
        }
    }

    #[test]
    fn a_hit_is_text_with_the_place_of_the_match_in_characters() {
        let whole = found("aé漢b".as_bytes(), 3..7, false);
        let view = json!(HitView::of(&whole));
        assert_eq!(
            (&view["line"], &view["line_match"]),
            (&json!("aé漢b"), &json!([2, 4]))
        );
        assert_eq!(
            (&view["offset"], &view["line_number"]),
            (&json!(100), &json!(3))
        );
        assert!(view.get("line_from").is_none() && view.get("line_goes_on").is_none());
        let broken = json!(HitView::of(&found(b"\xffx\xfe", 1..2, true)));
        assert_eq!(broken["line"], "\u{fffd}x\u{fffd}");
        assert_eq!(
            (&broken["line_match"], &broken["line_from"]),
            (&json!([1, 2]), &json!(101))
        );
        assert_eq!(broken["line_goes_on"], true);
    }

    #[test]
    fn a_search_that_has_stopped_says_why_and_where() {
        let position = LinePosition::begin(9);
        let mut result = SearchResult {
            hits: vec![found(b"x", 0..1, false)],
            stopped: Some((
                SearchBound::Time,
                SearchCursor {
                    number: 7,
                    position,
                },
            )),
            jobs: 1,
            bytes: 2,
            missing_bytes: 0,
            unreadable: Vec::new(),
            elapsed: std::time::Duration::from_millis(5),
        };
        let view = json!(SearchView::of(&result));
        assert_eq!(
            (&view["truncated"], &view["stopped_by"]),
            (&json!(true), &json!("search_timeout_s"))
        );
        assert_eq!(view["reached"], json!({"number": 7, "offset": 9}));
        assert_eq!(view["cursor"], "7.9.-.9.9.9");
        result.stopped = None;
        let view = json!(SearchView::of(&result));
        assert_eq!(view["truncated"], false);
        assert!(view.get("cursor").is_none() && view.get("reached").is_none());
    }
}
