//! A kernel that refuses threads and processes for a moment: what was acknowledged is done when the
//! moment is over, and until then callers are told what is short. The refusals are strace's.

use serde_json::json;

use crate::harness::{Failing, Server};

const UNAVAILABLE: i64 = -32006;

/// No thread and no process can be started.
fn nothing_starts(server: &Server) -> Option<Failing> {
    Failing::calls(server.pid(), "clone,clone3,fork,vfork", "EAGAIN")
}

#[test]
fn jobs_submitted_while_nothing_can_be_started_end_when_something_can() {
    let server = Server::with(&["--warm-shims", "1"], &[]);
    let mut client = server.connect();
    // Its output stays in segments, which are read by threads of their own.
    let large = server.marked(json!({"shell": "head -c 1000000 /dev/zero"}));
    let large = client.submit(large);
    client.finished(&large);
    let Some(refusals) = nothing_starts(&server) else {
        return;
    };
    let small = server.marked(json!({"shell": "echo hi; exit 3"}));
    let jobs: Vec<_> = (0..4).map(|_| client.submit(small.clone())).collect();
    let read = client.ok("job.read", json!({"job": large["id"], "from": 500_000}));
    assert_eq!(read["chunks"][0]["offset"], 500_000);
    let counted = json!({"sql": "SELECT count(*) FROM history_jobs"});
    client.refused(UNAVAILABLE, "history.query", counted.clone());
    let verified = client.ok("transcript.verify", json!({"job": large["id"]}));
    assert_eq!(verified["intact"], true, "{verified}");
    drop(refusals);
    for job in &jobs {
        let ended = client.finished(job);
        let facts = (&ended["exit_code"], &ended["attempts"]);
        assert_eq!(facts, (&json!(3), &json!(1)), "{ended}");
    }
    client.ok("history.query", counted);
}
