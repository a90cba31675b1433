//! Events in the server's log, for programs: one line for each thing that somebody asked for and each job that
//! starts or ends, all with the same fields (docs/logs.md). They say what the audit trail says; the log may
//! drop lines, the trail may not.

use serde_json::Value;

use crate::{
    access::ClientOrigin, audit::AuditEntry, job::JobState, store::StateMove, telemetry::EVENTS,
};

/// Writes a line of the log with the fields of every event, and its own.
macro_rules! event {
    ($event:expr, $origin:expr, { $($fields:tt)* }) => {{
        let (event, origin): (&str, &ClientOrigin) = ($event, $origin);
        tracing::info!(
            target: EVENTS,
            event,
            actor = origin.name,
            token = origin.token,
            uid = origin.uid,
            pid = origin.pid,
            door = origin.door,
            peer = origin.peer,
            session = origin.session,
            $($fields)*
            "{event}"
        );
    }};
}

/// An entry of the audit trail was committed.
pub(super) fn entry(entry: &AuditEntry) {
    let (target, result) = (&entry.target, &entry.result);
    let number = |value: &Value| value.as_i64();
    let jobs = &target["jobs"];
    event!(&entry.action, &entry.origin, {
        decision = entry.decision.name(),
        job = number(&target["job"]).or_else(|| number(&jobs["first"])),
        jobs = number(&jobs["count"]),
        state = result["state"].as_str(),
        reason = result["reason"].as_str(),
        exit_code = number(&result["exit_code"]),
        signal = result["signal"].as_str(),
        rule = result["rule"].as_str(),
        count = number(&result["count"]),
        target_json = target.to_string(),
        result_json = result.to_string(),
    });
}

/// Jobs that have started, among those whose state has changed.
pub(super) fn started(moves: &[StateMove]) {
    let server = ClientOrigin::server();
    for one in moves {
        if (one.from, one.to) == (Some(JobState::Queued), JobState::Running) {
            event!("job.start", &server, { job = one.job, attempt = one.attempt, });
        }
    }
}

/// A client has begun a session, or has shown its token in one.
pub fn session_began(client: &ClientOrigin) {
    event!("session.begin", client, {});
}

/// A client's session has ended.
pub fn session_ended(client: &ClientOrigin, reason: &str, elapsed_s: u64) {
    event!("session.end", client, { reason, elapsed_s, });
}
