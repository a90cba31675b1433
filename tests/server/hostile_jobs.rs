//! Hostile jobs: what a process may do, print or be called, and that the server, its other jobs and
//! its reader's terminal do not notice. The table is docs/hostile.md.

use std::{fs, path::Path, thread};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Frame, Server, assert_bytes, memory, until_true};

/// Jobs of the queue `default` that run at a time.
fn slots() -> usize {
    4.max(thread::available_parallelism().map_or(1, usize::from))
}

fn text_of(client: &mut Client, job: &Value) -> String {
    String::from_utf8_lossy(&client.whole(job).bytes).into_owned()
}

#[test]
fn an_argv_of_three_megabytes_stores_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let argv: Vec<String> = (0..30).map(|_| "x".repeat(100_000)).collect();
    let request =
        json!({"jsonrpc": "2.0", "id": 1, "method": "job.submit", "params": {"argv": argv}});
    client.send_to_closing(Message::text(request.to_string()));
    assert_eq!(client.closed(), Some(1009));
    // As many as one command line can have, and more than one message.
    for verb in ["submit", "run"] {
        let words = ["--", "echo"].into_iter().map(str::to_owned);
        let refused = server
            .cli(verb)
            .args(words.chain(argv[..12].to_vec()))
            .run();
        assert_ne!(refused.code(), 0);
        assert_eq!(refused.stdout, b"");
        assert_eq!(refused.err().lines().count(), 1, "{}", refused.err());
    }
    assert_eq!(
        server.connect().ok("job.list", json!({}))["jobs"],
        json!([])
    );
}

#[test]
fn numbers_that_json_does_not_have_are_no_timeouts() {
    let server = Server::start();
    let mut client = server.connect();
    for number in [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "0x10",
        "+5",
        "5.",
        ".5",
        "05",
    ] {
        client.send(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"job.submit","params":{{"argv":["true"],"timeout_s":{number}}}}}"#
        ));
        let Frame::Json(reply) = client.frame() else {
            panic!("no reply")
        };
        assert_eq!(reply["error"]["code"], -32700, "{number}: {reply}");
    }
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
}

#[test]
fn a_preloaded_library_is_the_jobs_own_affair() {
    let server = Server::start();
    let mut client = server.connect();
    let env = json!({
        "LD_PRELOAD": "/no/such/library.so", "LD_LIBRARY_PATH": "/tmp", "LD_AUDIT": "/no/such.so",
        "GLIBC_TUNABLES": "nonsense", "BASH_ENV": "/no/such", "ENV": "/no/such", "IFS": "x",
        "PYTHONSTARTUP": "/no/such", "TMPDIR": "/no/such",
    });
    let job = client.submit(json!({"shell": "echo \"<$LD_PRELOAD>\"", "env": env}));
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded", "{end}");
    assert!(text_of(&mut client, &job).contains("</no/such/library.so>"));
    // Nothing of it stays in the shim that ran it, nor gets into the server.
    let next = client.submit(json!({"shell": "env; tr '\\0' '\\n' < /proc/$PPID/environ"}));
    client.finished(&next);
    assert!(!text_of(&mut client, &next).contains("LD_PRELOAD"));
}

#[test]
fn a_directory_that_goes_away_while_the_job_waits_is_a_spawn_error() {
    let server = Server::start();
    let mut client = server.connect();
    let sleepers: Vec<Value> = (0..slots())
        .map(|_| client.submit(server.marked(json!({"argv": ["sleep", "1000"]}))))
        .collect();
    sleepers.iter().for_each(|job| drop(client.started(job)));
    let place = server.scratch("place");
    fs::create_dir(&place).expect("a directory");
    let path = place.to_str().expect("UTF-8");
    let job = client.submit(json!({"argv": ["true"], "cwd": path}));
    fs::remove_dir(&place).expect("removed");
    client.control(&sleepers[0], "kill");
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("spawn"))
    );
    assert_eq!(end["spawn_error"]["name"], "ENOENT");
}

#[test]
fn a_directory_that_goes_away_under_a_running_job_changes_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let (place, gate) = (server.scratch("place"), server.scratch("gate"));
    fs::create_dir(&place).expect("a directory");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo after",
        gate.display()
    );
    let job = json!({"shell": line, "cwd": place.to_str().expect("UTF-8")});
    let job = client.submit(server.marked(job));
    client.started(&job);
    fs::remove_dir(&place).expect("removed");
    fs::write(&gate, "").expect("the gate");
    assert_eq!(client.finished(&job)["state"], "succeeded");
    assert_eq!(text_of(&mut client, &job), "after\n");
}

#[test]
fn a_hundred_pauses_race_a_hundred_resumes_and_two_cancels_end_it_once() {
    let server = Server::start();
    let mut client = server.connect();
    let job = json!({"shell": "echo ready; exec sleep 1000"});
    let job = client.submit(server.marked(job));
    client.started(&job);
    let race = |actions: [&'static str; 2]| {
        let racers = actions.map(|action| {
            let (mut client, job) = (server.connect(), job.clone());
            thread::spawn(move || {
                let rounds = if action == "cancel" { 1 } else { 100 };
                for _ in 0..rounds {
                    let params = json!({"job": job["id"], "action": action});
                    if let Err(error) = client.call("job.control", params) {
                        assert_eq!(error["code"], -32004, "{error}");
                    }
                }
            })
        });
        racers
            .into_iter()
            .for_each(|racer| racer.join().expect("a racer"));
    };
    race(["pause", "resume"]);
    let state = client.get(&job)["state"].clone();
    assert!(state == "running" || state == "paused", "{state}");
    race(["cancel", "cancel"]);
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled", "{end}");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
    let states = client.whole(&job).states;
    assert!(
        states.is_empty(),
        "a tail behind the end tells no states: {states:?}"
    );
}

/// Output that is our own segments, whole and torn, does not confuse their reader.
#[test]
fn output_that_looks_like_our_own_segments_is_only_output() {
    let mut server = Server::start();
    let mut client = server.connect();
    let talker = json!({"shell": "echo some; echo lines >&2; exec sleep 1000"});
    let talker = client.submit(server.marked(talker));
    client.started(&talker);
    let gate = server.scratch("gate");
    let spool = server.data_dir().join("spool");
    let copy = server.scratch("copy");
    let line = format!(
        "cat {spool}/* > {copy}; for i in 1 2 3 4 5 6 7 8 9; do cat {copy}; head -c 7$i {copy}; \
         tail -c 4$i {copy}; done; while [ ! -e {gate} ]; do sleep 0.02; done; cat {copy}",
        spool = spool.display(),
        copy = copy.display(),
        gate = gate.display()
    );
    let job = client.submit(server.marked(json!({ "shell": line })));
    client.started(&job);
    let copied = || fs::read(&copy).unwrap_or_default();
    let expected = |copy: &[u8]| {
        let parts = (1..10).flat_map(|i| {
            let (head, tail) = (70 + i, 40 + i);
            [copy, &copy[..head], &copy[copy.len() - tail..]].concat()
        });
        parts.chain(copy.iter().copied()).collect::<Vec<u8>>()
    };
    until_true("most of it to be there", || {
        let copy = copied();
        copy.len() > 100
            && client.get(&job)["output_bytes"] == (expected(&copy).len() - copy.len()) as u64
    });
    server.kill_9();
    fs::write(&gate, "").expect("the gate");
    server.restart();
    let mut client = server.connect();
    let transcript = client.whole(&job);
    assert_bytes(&transcript.bytes, &expected(&copied()), "our own framing");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn millions_of_empty_lines_arrive_and_cost_no_memory() {
    const LINES: u64 = 5_000_000;
    let server = Server::start();
    let mut client = server.connect();
    let line = format!("yes '' | head -n {LINES}");
    let job = client.submit(json!({ "shell": line }));
    let transcript = client.whole(&job);
    assert!(transcript.bytes.iter().all(|byte| *byte == b'\n'));
    assert_eq!(transcript.verified()["output_bytes"], LINES);
    let last = client.tail(json!({"job": job["id"], "last_lines": 3}));
    let mut few = crate::harness::Transcript::from(LINES - 3);
    client.follow(last, &mut few);
    assert_eq!(few.bytes, b"\n\n\n");
    let peak = memory(server.pid(), "VmHWM");
    assert!(peak < 100_000_000, "{peak} bytes");
}

#[test]
fn escapes_and_markup_are_only_text() {
    let server = Server::start();
    let mut client = server.connect();
    let evil = "<script>alert(1)</script>\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\u{8}x";
    let job = json!({
        "argv": ["printf", "%s", evil], "name": evil, "labels": {evil: evil},
        "cwd": "/", "env": {"EVIL": evil},
    });
    let job = client.submit(job);
    client.finished(&job);
    assert_eq!(text_of(&mut client, &job), evil, "the output is as it was");
    assert_eq!(client.get(&job)["name"], evil, "JSON has it exactly");
    for words in [&["ls"][..], &["show", "last"], &["status"]] {
        let view = server.cli(words[0]).args(&words[1..]).run();
        assert_eq!(view.code(), 0, "{}", view.err());
        let control = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        let found: Vec<char> = view.out().chars().filter(|c| control(*c)).collect();
        assert!(found.is_empty(), "{words:?}: {found:?} in {:?}", view.out());
    }
    let shown = server.cli("show").args(["last"]).run().out();
    assert!(shown.contains("<script>"), "{shown}");
}

/// Everything by which a process may try to get away, at once.
#[test]
fn a_daemon_that_hides_is_found_and_ended() {
    let server = Server::start();
    let mut client = server.connect();
    let (pids, script) = (server.scratch("pids"), server.scratch("hide.sh"));
    let hide = format!(
        "trap '' TERM HUP INT QUIT; cd /; echo $$ >> {}; exec <&- >&- 2>&-\n\
         while :; do sleep 1000; done",
        pids.display()
    );
    fs::write(&script, hide).expect("a script");
    let line = format!(
        "( setsid sh {0} & ) & ( ( sh {0} ) & ) &\n\
         echo ready; trap '' TERM; while :; do sleep 1000; done",
        script.display()
    );
    let job = server.marked(json!({"shell": line, "grace_s": 0.2}));
    let job = client.submit(job);
    let found = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    until_true("all of them to hide", || found(&pids) == 2);
    assert!(server.job_processes().len() >= 3);
    client.control(&job, "cancel");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled", "{end}");
    assert_eq!(
        server.job_processes(),
        Vec::<i32>::new(),
        "nothing is left: {end}"
    );
    assert!(
        end["survivors"].as_array().is_none_or(Vec::is_empty),
        "{end}"
    );
}

/// Processes that replace themselves all the time, a bounded number of them.
#[test]
fn a_fork_bomb_is_ended() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "hop() { ( sleep 0.02; hop ) & }\n\
                i=0; while [ $i -lt 40 ]; do hop; i=$((i+1)); done; echo lit; wait; sleep 1000";
    let job = server.marked(json!({"shell": line, "grace_s": 0.2}));
    let job = client.submit(job);
    let mut other = server.connect();
    until_true("the fuse to burn", || {
        other.get(&job)["output_bytes"].as_u64() >= Some(4)
    });
    assert_eq!(
        other.finished(&job_beside(&mut client))["state"],
        "succeeded"
    );
    client.control(&job, "kill");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled", "{end}");
    assert_eq!(server.job_processes(), Vec::<i32>::new(), "{end}");
}

fn job_beside(client: &mut Client) -> Value {
    client.submit(json!({"argv": ["true"]}))
}

#[test]
fn a_job_that_stops_itself_has_its_timeout_and_can_be_cancelled() {
    let server = Server::start();
    let mut client = server.connect();
    let stopped = "echo ready; kill -STOP $$; exec sleep 1000";
    let timed = json!({"shell": stopped, "timeout_s": 1, "grace_s": 0.5});
    let timed = client.submit(server.marked(timed));
    let job = client.submit(server.marked(json!({"shell": stopped, "grace_s": 0.5})));
    assert_eq!(client.finished(&timed)["reason"], "timeout");
    client.control(&job, "cancel");
    assert_eq!(client.finished(&job)["state"], "cancelled");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn a_job_that_kills_its_shim_is_lost_and_costs_only_itself() {
    let server = Server::start();
    let mut client = server.connect();
    let beside = client.submit(server.marked(json!({"shell": "sleep 1; echo unharmed"})));
    let line = "echo before; sleep 0.3; kill -9 $PPID; sleep 1000";
    let job = client.submit(server.marked(json!({ "shell": line })));
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("lost")),
        "{end}"
    );
    assert_eq!(text_of(&mut client, &job), "before\n");
    assert_eq!(client.finished(&beside)["state"], "succeeded");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
    let next = job_beside(&mut client);
    assert_eq!(client.finished(&next)["state"], "succeeded");
}
