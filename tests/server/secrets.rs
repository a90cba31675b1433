//! Secrets that a server holds: who gets to see them, and what is left of them when their job is gone.

use std::fs;

use serde_json::json;

use crate::harness::{Server, until};

/// Whether bytes stand anywhere in the ledger's files.
fn is_kept(server: &Server, secret: &str) -> bool {
    let files = ["cc-executor.db", "cc-executor.db-wal"];
    files.iter().any(|name| {
        let bytes = fs::read(server.data_dir().join(name)).unwrap_or_default();
        let mut windows = bytes.windows(secret.len());
        windows.any(|window| window == secret.as_bytes())
    })
}

#[test]
fn a_list_of_queues_shows_names_of_variables_and_values_only_to_who_asks() {
    let server = Server::start();
    let mut client = server.connect();
    let defaults = json!({"env": {"TOKEN": "hunter2", "A": "b"}, "umask": "022"});
    let shown = json!({"env_names": ["A", "TOKEN"], "umask": "022"});
    let set = client.ok("queue.set", json!({"queue": "q", "defaults": defaults}));
    assert_eq!(set["defaults"], shown);
    // Somebody else who changes something else is not told either.
    let set = client.ok("queue.set", json!({"queue": "q", "paused": false}));
    assert_eq!(set["defaults"], shown);
    let listed = |params| {
        let list = server.connect().ok("queue.list", params);
        let queues = list["queues"].as_array().expect("queues").clone();
        queues
            .into_iter()
            .find(|queue| queue["queue"] == "q")
            .expect("q")["defaults"]
            .clone()
    };
    assert_eq!(listed(json!({})), shown);
    assert_eq!(listed(json!({"include": ["env"]})), defaults);
    client.refused(-32602, "queue.list", json!({"include": ["stdin"]}));
    for words in [&["queue"][..], &["queue", "--json"], &["status"]] {
        let said = server.cli(words[0]).args(&words[1..]).run();
        assert!(!said.out().contains("hunter2"), "{words:?}: {}", said.out());
    }
    // A job gets them all the same.
    let job = client.submit(json!({"shell": "echo $TOKEN", "queue": "q"}));
    assert_eq!(client.whole(&job).bytes, b"hunter2\n");
}

#[test]
fn what_is_deleted_stands_in_no_file_after_a_stop() {
    let mut server = Server::start();
    let mut client = server.connect();
    let secrets = ["env", "stdin", "output", "input"].map(|kind| format!("{kind}-c0ffee-secret"));
    let filler = "x".repeat(3000);
    let mut jobs = Vec::new();
    for nth in 0..40 {
        let job = json!({
            "shell": format!("echo {}; cat; sleep 0", secrets[2]),
            "env": {"S": format!("{} {nth} {filler}", secrets[0])},
            "stdin": format!("{} {filler}", secrets[1]), "interactive": true,
        });
        let job = client.submit(job);
        let input = json!({"job": job["id"], "data": secrets[3], "eof": true});
        client.ok("job.input", input);
        jobs.push(job);
    }
    for job in &jobs {
        client.finished(job);
    }
    assert!(is_kept(&server, &secrets[0]), "it is there before");
    for job in &jobs {
        client.ok("job.delete", json!({"job": job["id"]}));
    }
    drop(client);
    let (status, _) = server.stop();
    assert!(status.success());
    for secret in &secrets {
        // The command line of the job is in no column any more either.
        assert!(!is_kept(&server, secret), "{secret}");
    }
}

#[test]
fn no_process_of_ours_dumps_its_memory_and_a_job_does_as_its_shell_says() {
    let server = Server::start();
    let core = |pid: i32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let line = line.expect("a line").to_owned();
        line.split_whitespace().nth(4).map(str::to_owned)
    };
    let shims = until("a shim", || {
        Some(server.shims()).filter(|shims| !shims.is_empty())
    });
    for pid in shims.into_iter().chain([server.pid()]) {
        assert_eq!(core(pid).as_deref(), Some("0"), "{pid}");
    }
    let mut client = server.connect();
    let job = |limits| json!({"shell": "ulimit -S -c", "limits": limits});
    for (limits, says) in [
        (json!({}), "0\n"),
        (json!({"core_bytes": 512_000}), "1000\n"),
    ] {
        let job = client.submit(job(limits));
        assert_eq!(String::from_utf8_lossy(&client.whole(&job).bytes), says);
    }
}
