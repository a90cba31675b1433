//! `notice.list`: notices, newest first, page by page.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::NoticeFilter,
    job::{Notice, NoticeState},
    protocol::{
        caller::Caller,
        jsonrpc::{
            envelope::to_raw,
            error::Refusal,
            params::{NOT_A_JOB, Params, job_ref},
        },
        methods::{fitting, job_bytes_max},
    },
};

/// Most notices of one page.
const LIMIT_MAX: u64 = 1000;
/// Notices of a page if `limit` is not given.
const LIMIT_DEFAULT: u64 = 50;

const KEYS: [&str; 4] = ["job", "state", "limit", "cursor"];

#[derive(Debug, Serialize)]
struct NoticeListView {
    notices: Vec<Box<RawValue>>,
    /// Present if there may be older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl NoticeListView {
    fn of(notices: &[Notice], limit: u32, bytes_max: usize) -> Self {
        let (shown, all) = fitting(notices, bytes_max);
        let is_last = all && notices.len() < limit as usize;
        let last = shown.len().checked_sub(1).map(|last| notices[last].number);
        Self {
            notices: shown,
            next_cursor: last.filter(|_| !is_last).map(|number| number.to_string()),
        }
    }
}

fn filter(params: &Params<'_>) -> Result<NoticeFilter, Refusal> {
    let states: Vec<_> = NoticeState::ALL.iter().map(|s| (s.name(), *s)).collect();
    let limit = params.number("limit", 1, LIMIT_MAX)?;
    let cursor = params.text("cursor")?.map(str::parse::<i64>).transpose();
    Ok(NoticeFilter {
        job: None,
        state: params.one_of("state", &states)?,
        below: cursor.map_err(|_| params.wrong("cursor", "must be a next_cursor of a reply"))?,
        limit: u32::try_from(limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(u32::MAX),
    })
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let filter = filter(&params)?;
    let job = params.get("job").map(|value| {
        let job = job_ref(value);
        job.ok_or_else(|| params.wrong("job", NOT_A_JOB))
    });
    let limit = filter.limit;
    let executor = &caller.server.executor;
    let mut notices = executor.notices(filter, job.transpose()?).await?;
    // A receiver may be a service that the client cannot reach by itself.
    if !caller.principal().is_administrator() {
        let shown = notices.into_iter().map(Notice::without_answer);
        notices = shown.collect();
    }
    let bytes_max = job_bytes_max(&caller.server.settings);
    Ok(to_raw(&NoticeListView::of(&notices, limit, bytes_max)))
}
