//! `prune`, `retention` and `du`, and the line about a large data directory.

use serde_json::json;

use crate::harness::{Finished, Server, until_true};

fn call(server: &Server, verb: &str, words: &[&str]) -> Finished {
    server.cli(verb).args(words).run()
}

fn fine(done: Finished) -> String {
    assert_eq!(done.code(), 0, "{}", done.err());
    done.out()
}

#[test]
fn final_jobs_are_removed_by_hand_and_by_rules() {
    let server = Server::with(&["--disk-warn-bytes", "1"], &[]);
    for text in ["one", "two", "three"] {
        let words = ["--label", "k=v", "--queue", "default", "--", "echo", text];
        fine(call(&server, "run", &words));
    }
    // What is missing or wrong is said on one line, and nothing happens.
    for wrong in [
        &["--yes"][..],
        &["--older-than", "soon"],
        &["--keep-bytes", "much"],
        &["--state", "running", "--yes"],
        &["--older-than", "0", "--dry-run", "--yes"],
    ] {
        let refused = call(&server, "prune", wrong);
        assert_ne!(refused.code(), 0, "{wrong:?}");
        assert!(!refused.err().is_empty(), "{wrong:?}");
    }
    let dry = fine(call(&server, "prune", &["--keep-newest", "2"]));
    assert!(
        dry.starts_with("would remove 1 job (4 B of stored output): 1\n"),
        "{dry}"
    );
    assert!(dry.contains("--yes"), "{dry}");
    assert_eq!(
        fine(call(&server, "prune", &["--keep-newest", "2", "--dry-run"])),
        dry
    );
    let words = ["--label", "k=v", "--keep-bytes", "6", "--outputs", "--yes"];
    let run = fine(call(&server, "prune", &words));
    assert_eq!(
        run,
        "removed the outputs of 2 jobs (8 B of stored output): 2 1\n"
    );
    let gone = call(&server, "tail", &["1"]);
    assert_eq!(gone.out(), "");
    assert!(gone.err().contains("retention"), "{}", gone.err());
    assert_eq!(fine(call(&server, "tail", &["3"])), "three\n");

    let usage = call(&server, "du", &["--json"]).json();
    assert_eq!(
        usage["queues"],
        json!([{"queue": "default", "jobs": 3, "bytes": 6}])
    );
    assert_eq!(usage["jobs"][0]["number"], 3);
    let page = fine(call(&server, "du", &["--top", "1"]));
    assert!(page.contains("k=v") && page.contains("database"), "{page}");
    for verb in ["ls", "status"] {
        let done = call(&server, verb, &[]);
        assert!(
            done.err().contains("`cc-executor du`"),
            "{verb}: {}",
            done.err()
        );
        assert_eq!(done.err().trim().lines().count(), 1, "{verb}");
    }

    assert_eq!(
        call(&server, "retention", &["set", "r"]).code(),
        1,
        "it keeps nothing"
    );
    let words = [
        "set",
        "r",
        "--queue",
        "default",
        "--older-than",
        "0",
        "--json",
    ];
    let rule = call(&server, "retention", &words).json();
    let expected = json!({"rule": "r", "scope": "jobs", "queue": "default", "older_than_s": 0});
    assert_eq!(rule, expected);
    until_true("the jobs to go", || {
        call(&server, "ls", &["--all", "--json"]).json() == json!([])
    });
    let page = fine(call(&server, "retention", &[]));
    assert!(page.contains("queue=default"), "{page}");
    fine(call(&server, "retention", &["rm", "r"]));
    assert_eq!(call(&server, "retention", &["rm", "r"]).code(), 1);
    assert_eq!(
        call(&server, "retention", &["ls", "--json"]).json(),
        json!([])
    );
}
