//! `flow`: a file of tasks as one graph of jobs. A review with an implementer and a reviewer reaches its end
//! whatever is killed, checks decide which step starts, and what failed is tried again.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::harness::{Finished, Receiver, Server, parent, until, until_true, with_mark, with_word};

/// Where the example lies.
fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flow")
}

/// A copy of the example in the scratch directory of a test.
fn copy_example(place: &Server) -> std::path::PathBuf {
    let there = place.scratch("flow");
    fs::create_dir(&there).expect("a directory");
    for entry in fs::read_dir(example()).expect("the example").flatten() {
        fs::copy(entry.path(), there.join(entry.file_name())).expect("a copy");
    }
    there
}

fn flow(place: &Server, words: &[&str]) -> Finished {
    place.cli("flow").args(words).run()
}

fn run(place: &Server, cwd: &Path, words: &[&str]) -> Finished {
    let words = ["run"].iter().chain(words);
    place.cli("flow").cwd(cwd).args(words).run()
}

/// The jobs of the newest flow as `NAME STATE`, without the flow's id, in the order of submission.
fn jobs(place: &Server) -> Vec<String> {
    let shown = flow(place, &["show", "--json"]).json();
    let id = shown["flow"].as_str().expect("an id").to_owned();
    let steps = shown["steps"].as_array().expect("steps");
    let jobs = steps
        .iter()
        .flat_map(|step| step["jobs"].as_array().expect("jobs"));
    let mut jobs: Vec<&Value> = jobs.collect();
    jobs.sort_by_key(|job| job["number"].as_i64());
    let name = |job: &Value| {
        let name = job["name"].as_str().expect("a name");
        name.strip_prefix(&format!("{id}/"))
            .expect("the flow's id")
            .to_owned()
    };
    jobs.iter()
        .map(|job| format!("{} {}", name(job), job["state"].as_str().expect("a state")))
        .collect()
}

fn has(place: &Server, job: &str) -> bool {
    jobs(place).iter().any(|found| found == job)
}

/// A secret of Standard Webhooks.
const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtMTIzNDU2Nzg=";

/// Waits until a receiver knows these jobs' ends, and looks at the signatures.
fn is_told(receiver: &Receiver, jobs: &[&str]) {
    let received = receiver.wait_for(jobs.len());
    let mut told = Vec::new();
    for one in &received {
        assert_eq!(one.header("webhook-signature"), one.signed_with(SECRET));
        let name = one.json()["data"]["job"]["name"].clone();
        let name = name.as_str().expect("a name").split_once('/');
        told.push(name.expect("a flow's").1.to_owned());
    }
    told.sort_unstable();
    assert_eq!(told, jobs);
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
}

#[test]
fn a_review_reaches_its_end_once_whatever_is_killed() {
    let mut place = Server::start();
    let there = copy_example(&place);
    // Each call of the implementer waits for its gate, and leaves a line.
    fs::rename(there.join("implementer"), there.join("implementer.real")).expect("renamed");
    let gated = "#!/bin/sh\nname=$(echo \"$FLOW_STEP\" | tr / .)\necho \"$name\" >>calls\n\
                 until [ -e \"gate.$name\" ]; do sleep 0.02; done\nexec ./implementer.real\n";
    write(&there.join("implementer"), gated);
    let executable = fs::metadata(there.join("reviewer"))
        .expect("a file")
        .permissions();
    fs::set_permissions(there.join("implementer"), executable).expect("a mode");

    let submitted = run(&place, &there, &["flow.toml", "--var", "who=Bob"]);
    assert_eq!(submitted.code(), 0, "{}", submitted.err());
    assert!(
        submitted.out().starts_with("greeting-"),
        "{}",
        submitted.out()
    );
    until_true("the implementer", || has(&place, "implement running"));
    place.kill_9();
    place.restart();
    write(&there.join("gate.implement"), "");

    // Its tasks run one after the other, and the review waits: it, its shim and the server are killed.
    until_true("a task", || has(&place, "review/fix-1 running"));
    let review = |place: &Server| {
        let marked = with_mark(&place.data_dir());
        let mut found = with_word("flow\0review").into_iter();
        found.find(|pid| marked.contains(pid))
    };
    let first = until("the review", || review(&place));
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("a process");
    let second = until("another one", || review(&place).filter(|pid| *pid != first));
    let shim = parent(second).expect("its shim");
    kill(Pid::from_raw(shim), Signal::SIGKILL).expect("a shim");
    let third = until("a third one", || {
        review(&place).filter(|pid| ![first, second].contains(pid))
    });
    place.kill_9();
    write(&there.join("gate.review.fix-1"), "");
    kill(Pid::from_raw(third), Signal::SIGKILL).expect("a process");
    place.restart();
    write(&there.join("gate.review.fix-2"), "");

    let waited = flow(&place, &["wait", "last"]);
    assert_eq!(waited.code(), 0, "{} {:?}", waited.err(), jobs(&place));
    let expected = [
        "implement succeeded",
        "implement/check succeeded",
        "review failed",
        "review/review succeeded",
        "publish succeeded",
        "review/fix-1 succeeded",
        "review/fix-2 succeeded",
        "review.2 succeeded",
    ];
    assert_eq!(jobs(&place), expected, "each once");
    let calls = fs::read_to_string(there.join("calls")).expect("calls");
    assert_eq!(calls, "implement\nreview.fix-1\nreview.fix-2\n");
    let published = fs::read_to_string(there.join("published.txt")).expect("published");
    assert_eq!(published, "Hello, Bob.\n");
    let text = flow(&place, &["show"]).out();
    assert!(
        text.contains(": succeeded, 3 steps: 3 succeeded\n"),
        "{text}"
    );
    let listed = flow(&place, &["ls"]).out();
    assert!(listed.contains("3 steps: 3 succeeded"), "{listed}");
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_place_and_nothing_is_stored() {
    let place = Server::stopped(&[], &[]);
    let there = place.scratch("");
    let toml = "name = \"x\"\n\n[[step]]\nname = \"a\"\nshell = \"true\"\nafer = \"b\"\n";
    let yaml = "name: x\nstep:\n  - {name: a, shell: 'true', after: b}\n  - {name: b, shell: 'true', after: a}\n";
    for (name, text, expected) in [
        (
            "flow.toml",
            toml,
            "flow.toml:6:1: step \"a\": afer: unknown key of a step; known keys are name, after",
        ),
        (
            "flow.yaml",
            yaml,
            "flow.yaml:3:6: these steps wait for each other in a circle: a -> b -> a",
        ),
        ("broken.yaml", "name: x\nstep: [\n", "broken.yaml:3:1: "),
        (
            "slow.yaml",
            "name: x\nstep:\n  - name: a\n    shell: 'true'\n    verify: {timeout_s: soon}\n",
            "slow.yaml:5:25: step \"a\": verify.timeout_s: must be a number of seconds",
        ),
        (
            "pattern.toml",
            "name = \"x\"\n[[step]]\nname = \"a\"\nshell = \"x\"\nverify = {regex = [\"ok\", \"a(\"]}\n",
            "pattern.toml:5:19: step \"a\": verify.regex: unclosed group",
        ),
        (
            "digest.yaml",
            "name: x\nstep:\n  - name: a\n    shell: x\n    verify: {sha256: abc}\n",
            "digest.yaml:5:22: step \"a\": verify.sha256: \"sha256\" must be 64 hexadecimal digits",
        ),
        (
            "expected.yaml",
            "name: x\nstep:\n  - name: a\n    shell: x\n    expect: [{regex: a(}]\n",
            "expected.yaml:5:5: step \"a\": expect[0]: unclosed group",
        ),
        (
            "large.toml",
            &format!("name = \"x\"\n#{}", "x".repeat(1 << 20)),
            "large.toml: a flow's file has at most 1048576 bytes",
        ),
        (
            "many.toml",
            &format!(
                "name = \"x\"\n{}",
                "[[step]]\nname = \"a\"\n".repeat(40_000)
            ),
            "many.toml:2:1: step \"a\": needs exactly one of argv, shell and prompt",
        ),
    ] {
        write(&there.join(name), text);
        let refused = run(&place, &there, &[name]);
        assert_eq!(refused.code(), 1, "{name}");
        assert!(refused.err().contains(expected), "{}", refused.err());
        assert!(
            refused.err().contains("nothing was submitted"),
            "{}",
            refused.err()
        );
    }
    // Many steps are read at once, and what is too much for one commit is said without a submit.
    let step = |nth| format!("[[step]]\nname = \"s{nth}\"\nshell = \"true\"\nafter = \"s0\"\n");
    let many = (1..15_000).map(step).collect::<String>();
    let many = format!("name = \"x\"\n[[step]]\nname = \"s0\"\nshell = \"true\"\n{many}");
    write(&there.join("many.toml"), &many);
    let refused = run(&place, &there, &["many.toml", "--dry-run"]);
    assert!(
        refused
            .err()
            .contains("at most 10000 can be stored at once"),
        "{}",
        refused.err()
    );
    let missing = run(&place, &there, &["missing.toml"]);
    assert!(
        missing.err().contains("missing.toml cannot be read"),
        "{}",
        missing.err()
    );
    assert!(!place.data_dir().exists(), "no server was started");
}

#[test]
fn what_the_server_refuses_has_its_place_too() {
    let place = Server::start();
    let there = place.scratch("");
    let first = "name: x\nstep:\n  - {name: a, shell: 'true', verify: {contains: x}}\n";
    for (second, expected) in [
        (
            "{name: b, shell: 'true', queue: nowhere}",
            "flow.yaml:4:6: step \"b\": there is no queue \"nowhere\"; make it first",
        ),
        (
            "{name: b, shell: 'true', retry: {max_attempts: 2, on: [timeout]}}",
            "flow.yaml:4:6: step \"b\": retry.on: can never match: timeout needs timeout_s",
        ),
    ] {
        write(&there.join("flow.yaml"), &format!("{first}  - {second}\n"));
        let refused = run(&place, &there, &["flow.yaml"]);
        assert_eq!(refused.code(), 1);
        assert!(refused.err().contains(expected), "{}", refused.err());
        assert!(refused.err().contains("(nothing was submitted)"));
    }
    let none = place.cli("ls").args(["--all", "--json"]).run().json();
    assert_eq!(none.as_array().map(Vec::len), Some(0));
}

#[test]
fn a_flow_that_runs_is_found_without_its_first_job() {
    let place = Server::start();
    let there = place.scratch("");
    let file = "name: NAME\nstep:\n  - {name: a, shell: 'true'}\n  - {name: b, after: a, \
                shell: 'until [ -e gate ]; do sleep 0.02; done'}\n  - {name: c, after: b, shell: 'true'}\n";
    let start = |name: &str| {
        write(&there.join("flow.yaml"), &file.replace("NAME", name));
        let id = run(&place, &there, &["flow.yaml"]).out().trim().to_owned();
        until_true("its second step", || has(&place, "b running"));
        id
    };
    let (older, newer) = (start("older"), start("newer"));
    let pruned = place
        .cli("prune")
        .args(["--older-than", "0", "--yes"])
        .run();
    assert!(pruned.out().contains("removed 2 jobs"), "{}", pruned.out());
    let listed = flow(&place, &["ls"]).out();
    let ids: Vec<_> = listed
        .lines()
        .skip(1)
        .filter_map(|l| l.split(' ').nth(1))
        .collect();
    assert_eq!(ids, [&newer, &older], "{listed}");
    let shown = flow(&place, &["show"]).out();
    assert!(shown.starts_with(&format!("{newer}: running")), "{shown}");
    assert!(shown.contains("(deleted)"), "{shown}");
    write(&there.join("gate"), "");
    for id in [&newer, &older] {
        assert_eq!(flow(&place, &["wait", id]).code(), 0);
    }
    // What has ended is history: a part of it is no flow.
    let listed = flow(&place, &["ls"]);
    assert_eq!(listed.out().trim(), "", "{}", listed.out());
    assert!(flow(&place, &["show", &older]).out().contains("succeeded"));
}

#[test]
fn checks_decide_and_what_failed_is_tried_again() {
    let place = Server::stopped(&[], &[]);
    let there = place.scratch("");
    let receiver = Receiver::new();
    let file = r#"
name: checked
step:
  - name: talk
    shell: "echo one; echo two >&2; [ -e good ] && echo good; exit 3"
    notify: [{"on": [failed], url: "URL", secret: SECRET}]
    verify:
      exit_codes: [0, 3]
      contains: good
      regex: "^tw"
      command: [sh, -c, 'wc -l; echo "job $FLOW_CHECKED_JOB, code $FLOW_CHECKED_EXIT_CODE"']
  - name: next
    after: talk
    shell: "true"
  - name: anyway
    after: {step: talk, on: finish}
    shell: "true"
"#;
    let file = file.replace("URL", &receiver.url("/"));
    write(&there.join("flow.yaml"), &file.replace("SECRET", SECRET));
    let done = run(&place, &there, &["flow.yaml", "--follow"]);
    assert_eq!(done.code(), 1, "{}", done.err());
    assert!(
        done.err()
            .contains("/next (job 3) failed: job 2, which it waited for, failed"),
        "{}",
        done.err()
    );
    let expected = [
        "talk failed",
        "talk/check failed",
        "next failed",
        "anyway succeeded",
    ];
    assert_eq!(jobs(&place), expected);
    let said = place.cli("tail").args(["2", "--no-follow"]).run().out();
    for part in [
        "exit code 0, 3: true, it exited with code 3\n",
        "contains good: NOT true\n",
        // Two streams are two pipes: which of their lines comes first is not known.
        "regex ^tw: true, bytes ",
        "2\njob 1, code 3\ncommand sh: true",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }

    write(&there.join("good"), "");
    assert_eq!(flow(&place, &["retry", "last"]).code(), 0);
    let waited = flow(&place, &["wait"]);
    assert_eq!(waited.code(), 0, "{}", waited.err());
    let again = [
        "talk.2 failed",
        "talk/check.2 succeeded",
        "next.2 succeeded",
    ];
    assert_eq!(jobs(&place)[4..], again);
    is_told(&receiver, &["talk", "talk.2"]);
    let refused = flow(&place, &["retry", "last"]);
    assert!(
        refused.err().contains("nothing to try again"),
        "{}",
        refused.err()
    );
    let unknown = flow(&place, &["show", "checked"]);
    assert!(
        unknown
            .err()
            .contains("there is no flow checked; `cc-executor flow ls`"),
        "{}",
        unknown.err()
    );
}

#[test]
fn reviews_end_when_their_rounds_are_used_up_or_their_tasks_are_none() {
    let place = Server::stopped(&[], &[]);
    let there = place.scratch("");
    let receiver = Receiver::new();
    let file = r#"
name = "reviews"
[[step]]
name = "never"
shell = "echo '{\"task\": \"more\"}'; exit 1"
review = {rounds = 2, fix = {shell = 'echo "$FLOW_VAR_task" >>tasks'}}
notify = [{on = ["failed"], url = "URL", secret = "SECRET"}]
[[step]]
name = "wrong"
shell = "echo words; echo '{\"tusk\": 1}'; exit 1"
review = {}
[[step]]
name = "hangs"
shell = "true"
verify = {command = ["sleep", "1000"], timeout_s = 0.2}
[[step]]
name = "killed"
shell = "kill -9 $$"
review = {}
[[step]]
name = "last"
after = ["never"]
shell = "true"
"#;
    let file = file.replace("URL", &receiver.url("/"));
    write(&there.join("flow.toml"), &file.replace("SECRET", SECRET));
    let done = run(&place, &there, &["flow.toml", "--follow"]);
    assert_eq!(done.code(), 1, "{}", done.err());
    let mut found = jobs(&place);
    found.sort();
    let mut expected = vec![
        "never failed",
        "never/review failed",
        "never/fix-1 succeeded",
        "never.2 failed",
        "wrong failed",
        "wrong/review failed",
        "hangs succeeded",
        "hangs/check failed",
        "killed failed",
        "killed/review failed",
        "last failed",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    is_told(&receiver, &["never", "never.2"]);
    assert_eq!(
        fs::read_to_string(there.join("tasks")).expect("tasks"),
        "more\n"
    );
    let shown = flow(&place, &["show", "--json"]).json();
    let id = shown["flow"].as_str().expect("an id");
    for (step, said) in [
        (
            "never",
            "this was the last of 2 rounds, and tasks are left: 1",
        ),
        (
            "wrong",
            "line 2 of the reviewer's stdout is no task: unknown key \"tusk\"",
        ),
        ("killed", "the reviewer failed: it was ended by SIGKILL"),
    ] {
        let job = format!("{id}/{step}/review");
        let output = place.cli("tail").args([&job, "--no-follow"]).run().out();
        assert!(output.contains(said), "{output}");
    }

    // A flow that is cancelled ends with all of its jobs.
    write(
        &there.join("long.toml"),
        "name = \"long\"\n[[step]]\nname = \"a\"\nshell = \"exec sleep 1000\"\n\
                                     [[step]]\nname = \"b\"\nafter = \"a\"\nshell = \"true\"\n",
    );
    assert_eq!(run(&place, &there, &["long.toml"]).code(), 0);
    let late = flow(&place, &["wait", "--timeout", "0.01"]);
    assert_eq!(late.code(), 124, "{}", late.err());
    let refused = flow(&place, &["retry", "last"]);
    assert!(refused.err().contains("still runs"), "{}", refused.err());
    assert_eq!(flow(&place, &["cancel", "last"]).code(), 0);
    assert_eq!(flow(&place, &["wait"]).code(), 1);
    let listed = flow(&place, &["ls", "--json"]).json();
    assert_eq!(
        (&listed[0]["state"], &listed[1]["state"]),
        (&"cancelled".into(), &"failed".into())
    );
}
