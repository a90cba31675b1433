//! What MCP says of jobs that do not run: they wait for a time, a job, a key, or have failed because of
//! another job or of their output.

use serde_json::{Value, json};

use crate::{
    harness::{Client, Server, until_true},
    mcp::Agent,
};

/// Waits for a moment for a job and returns the text.
fn wait_shortly(agent: &mut Agent, server: &Server, job: i64) -> String {
    let arguments = json!({"jobs": [job], "wait_s": 0.1});
    agent.tool(server, "wait", arguments).0
}

#[track_caller]
fn must_have(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

fn submit(client: &mut Client, spec: Value) -> i64 {
    let job = client.ok("job.submit", spec);
    job["job"]["number"].as_i64().expect("a number")
}

#[test]
fn a_job_that_does_not_run_says_what_it_waits_for() {
    let server = Server::start();
    let (mut agent, mut client) = (Agent::new(&server), server.connect());
    let build = submit(
        &mut client,
        json!({"shell": "sleep 600", "name": "build", "exclusive": "gpu"}),
    );
    let deploy = submit(
        &mut client,
        json!({"shell": "echo up", "name": "deploy", "after": [{"job": build}]}),
    );
    let waits = "It waits for job 1 (build), which is running, to succeed.";
    let first = wait_shortly(&mut agent, &server, deploy);
    must_have(&first, &["job 2 blocked (deploy)", waits, "next: wait"]);
    let again = wait_shortly(&mut agent, &server, deploy);
    must_have(&again, &[waits, "none of its jobs runs", "next: list_jobs"]);
    let (listed, _) = agent.tool(&server, "list_jobs", json!({"state": "blocked"}));
    must_have(&listed, &["2 [deploy] blocked", waits]);
    let key = submit(&mut client, json!({"shell": "true", "exclusive": "gpu"}));
    let (text, _) = agent.tool(&server, "read_output", json!({"job": key}));
    must_have(
        &text,
        &[
            "job 3 queued",
            "exclusive key \"gpu\" belongs to job 1 (build)",
        ],
    );
    let later = submit(&mut client, json!({"shell": "true", "delay_s": 7200}));
    let (text, _) = agent.tool(&server, "read_output", json!({"job": later}));
    must_have(
        &text,
        &[
            "job 4 scheduled, starts in 1 h 59 min",
            "does not start before",
        ],
    );
    let cancel = json!({"job": later, "action": "cancel"});
    let (text, _) = agent.tool(&server, "control", cancel);
    must_have(&text, &["job 4 cancelled", "; cancel is done"]);
    let (text, _) = agent.tool(&server, "control", json!({"job": build, "action": "pause"}));
    must_have(&text, &["pause is done"]);
    wait_shortly(&mut agent, &server, build);
    let paused = wait_shortly(&mut agent, &server, build);
    must_have(&paused, &["job 1 paused", "none of its jobs runs"]);
    agent.tool(&server, "control", json!({"job": build, "action": "kill"}));
    let (text, _) = agent.tool(&server, "wait", json!({"jobs": [deploy]}));
    must_have(
        &text,
        &[
            "job 2 failed: dependency (deploy)",
            "It needed job 1 (build) to succeed, which was cancelled.",
            "next: read_output {\"job\":1}",
        ],
    );
}

#[test]
fn a_next_attempt_and_output_that_lacks_something_are_told() {
    let server = Server::start();
    let (mut agent, mut client) = (Agent::new(&server), server.connect());
    let retry = json!({"max_attempts": 3, "backoff_s": 7200, "max_backoff_s": 7200});
    let flaky = submit(
        &mut client,
        json!({"shell": "echo tried; exit 7", "retry": retry}),
    );
    until_true("the wait before the second attempt", || {
        client.ok("job.get", json!({"job": flaky}))["state"] == "scheduled"
    });
    let text = wait_shortly(&mut agent, &server, flaky);
    must_have(
        &text,
        &[
            "job 1 scheduled, attempt 2 starts in",
            "tried",
            "Attempt 2 of 3 begins at",
        ],
    );
    let checked = submit(
        &mut client,
        json!({"shell": "echo nothing", "expect": [{"contains": "0 failed"}]}),
    );
    let (text, _) = agent.tool(&server, "wait", json!({"jobs": [checked]}));
    must_have(
        &text,
        &[
            "job 2 failed: unverified, exit code 0",
            "does not show",
            "0 failed",
            "next: read_output",
        ],
    );
}

#[test]
fn a_claim_about_removed_output_is_not_called_false_alone() {
    let server = Server::start();
    let mut agent = Agent::new(&server);
    agent.tool(
        &server,
        "run",
        json!({"command": "echo passed", "name": "old"}),
    );
    let prune = json!({"outputs": true, "name": "old", "dry_run": false});
    server.connect().ok("job.prune", prune);
    let claims = json!([{"contains": "passed"}]);
    let verify = json!({"job": "old", "claims": claims});
    let (text, _) = agent.tool(&server, "verify_transcript", verify);
    must_have(
        &text,
        &[
            "in what is left of the log",
            "bytes 0-7 are not stored any more",
        ],
    );
}

#[test]
fn an_answer_for_a_program_that_reads_no_more_is_ignored() {
    let server = Server::start();
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let mut agent = Agent::with_capabilities(&server, tasks);
    let command = "printf 'Go? '; exec sleep 600 <&-";
    let run = json!({"command": command, "ask_user": true, "until": "Go"});
    let (text, _) = agent.tool(&server, "run", run);
    must_have(&text, &["job 1 running", "Go? "]);
    let answer = json!({"action": "accept", "content": {"answer": "yes"}});
    let update = json!({"taskId": "1", "inputResponses": {"prompt-4": answer}});
    let mut client = server.connect();
    until_true("the end of reading", || {
        let input = json!({"job": 1, "data": "x"});
        client.call("job.input", input).is_err()
    });
    let (_, reply) = agent.request(&server, "tasks/update", update);
    assert!(reply["error"].is_null(), "{reply}");
}
