//! Resources: a job, its output, and the columns of the history.

use rmcp::{
    ErrorData, RoleServer,
    model::{
        ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
        ResourceContents, ResourceTemplate,
    },
    service::RequestContext,
};
use serde_json::json;

use super::{
    errors::data,
    reply,
    tools::output::{self, JobReport},
};
use crate::{
    escape,
    executor::ListFilter,
    job::JobRef,
    protocol::{ErrorKind, caller::Caller, jsonrpc::envelope::to_json},
};

/// The page that documents the columns.
const SCHEMA: &str = include_str!("../../../docs/sql.md");
/// Its parts from here on are about the command line.
const SCHEMA_END: &str = "## Asking from the command line";
const SCHEMA_URI: &str = "history://schema";
const JOB_URI: &str = "job://";
const OUTPUT_SUFFIX: &str = "/output";
/// Jobs that the list of resources names, the newest.
const JOBS_LISTED: u32 = 10;

/// `resources/list`: the schema and the newest jobs.
pub async fn list(caller: &Caller) -> Result<ListResourcesResult, ErrorData> {
    let filter = ListFilter {
        limit: JOBS_LISTED,
        ..ListFilter::default()
    };
    let page = caller
        .server
        .executor
        .list(filter, &caller.principal())
        .await;
    let page = page.map_err(|error| data(error.into()))?;
    let schema = resource(SCHEMA_URI, "history schema", "text/markdown")
        .with_description("Tables and columns for query_history, with example queries");
    let jobs = page.jobs.iter().map(|job| {
        let uri = format!("{JOB_URI}{}{OUTPUT_SUFFIX}", job.id);
        resource(&uri, &format!("output of job {}", job.number), "text/plain")
            .with_description(reply::status_line(job))
    });
    let all = std::iter::once(schema).chain(jobs).collect();
    Ok(ListResourcesResult::with_all_items(all))
}

fn resource(uri: &str, name: &str, mime_type: &str) -> Resource {
    Resource::new(uri, name).with_mime_type(mime_type)
}

/// `resources/templates/list`.
pub fn templates() -> ListResourceTemplatesResult {
    let template = |suffix: &str, name: &str, mime_type: &str, description: &str| {
        ResourceTemplate::new(format!("{JOB_URI}{{id}}{suffix}"), name)
            .with_mime_type(mime_type)
            .with_description(description)
    };
    ListResourceTemplatesResult::with_all_items(vec![
        template(
            "",
            "job",
            "application/json",
            "A job by number or id: state, exit, times, command",
        ),
        template(
            OUTPUT_SUFFIX,
            "output of a job",
            "text/plain",
            "An excerpt of a job's output: diagnostics, head and tail, with byte ranges",
        ),
    ])
}

/// `resources/read`.
pub async fn read(
    caller: &Caller,
    uri: &str,
    _: &RequestContext<RoleServer>,
) -> Result<ReadResourceResult, ErrorData> {
    if uri == SCHEMA_URI {
        let end = SCHEMA.find(SCHEMA_END).unwrap_or(SCHEMA.len());
        return Ok(contents(uri, "text/markdown", SCHEMA[..end].to_owned()));
    }
    let name = uri.strip_prefix(JOB_URI).ok_or_else(|| unknown(uri))?;
    let (name, is_output) = match name.strip_suffix(OUTPUT_SUFFIX) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let job = JobRef::parse(name).ok_or_else(|| unknown(uri))?;
    caller.check_reach(job).await.map_err(data)?;
    let job = caller.server.executor.get(job, Default::default()).await;
    let job = job.map_err(|error| match ErrorKind::of(&error) {
        ErrorKind::NotFound => unknown(uri),
        _ => data(error.into()),
    })?;
    if !is_output {
        let text = escape::visible_json(&to_json(&job));
        return Ok(contents(uri, "application/json", text));
    }
    let text = output::report(
        caller,
        &job,
        JobReport {
            chars: reply::CHARS_MAX,
            ..JobReport::default()
        },
    )
    .await;
    Ok(contents(uri, "text/plain", text.map_err(data)?))
}

fn contents(uri: &str, mime_type: &str, text: String) -> ReadResourceResult {
    let contents = ResourceContents::text(text, uri).with_mime_type(mime_type);
    ReadResourceResult::new(vec![contents])
}

fn unknown(uri: &str) -> ErrorData {
    let message = format!(
        "there is no resource {:?}; there are {SCHEMA_URI}, {JOB_URI}ID and {JOB_URI}ID{OUTPUT_SUFFIX}",
        reply::shortened(uri)
    );
    ErrorData::resource_not_found(message, Some(json!({"uri": reply::shortened(uri)})))
}
