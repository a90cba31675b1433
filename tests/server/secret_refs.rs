//! Secrets that a job refers to by name: found when it starts, given to its process alone, masked in its
//! output, and in no file of ours, whatever happens.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Client, Receiver, Server, Transcript, sha256, until, until_true},
    mcp::Agent,
};

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

/// A directory of secrets.
struct Secrets(TempDir);

impl Secrets {
    fn new() -> Self {
        let secrets = Self(tempfile::tempdir().expect("a directory"));
        secrets.put("token", TOKEN);
        secrets
    }

    fn put(&self, name: &str, value: &str) {
        let path = self.path().join(name);
        fs::write(&path, value).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn server(&self, more: &[&str]) -> Server {
        let directory = self.path().to_str().expect("UTF-8");
        let args = [&["--secrets-dir", directory], more].concat();
        Server::with(&args, &[])
    }
}

fn shell(line: &str) -> Value {
    json!({"shell": line, "env": {"TOKEN": {"secret": "token"}}})
}

fn mask(value: &str) -> String {
    value
        .chars()
        .map(|c| if c == '\n' { c } else { '*' })
        .collect()
}

#[track_caller]
fn output(client: &mut Client, job: &Value) -> String {
    String::from_utf8(client.whole(job).bytes).expect("UTF-8")
}

/// The most bytes that one `job.read` returns.
const READ_BYTES_MAX: u64 = 512 << 10;

/// The output that is stored of a job that runs, if it is not long.
#[track_caller]
fn so_far(client: &mut Client, job: &Value) -> Vec<u8> {
    let params = json!({"job": job["id"], "from": 0, "max_bytes": READ_BYTES_MAX});
    let reply = client.ok("job.read", params);
    let mut transcript = Transcript::default();
    for chunk in reply["chunks"].as_array().expect("chunks") {
        transcript.take(&json!({"method": "job.output", "params": chunk}));
    }
    transcript.bytes
}

#[test]
fn a_job_gets_the_value_and_its_output_and_its_row_do_not() {
    let secrets = Secrets::new();
    secrets.put("token", &format!("{TOKEN}\n"));
    let server = secrets.server(&[]);
    let mut client = server.connect();
    let info = client.ok("server.info", json!({}));
    assert_eq!(info["secrets"], json!({"sources": ["secrets_dir"]}));
    let job = client.submit(shell("[ ${#TOKEN} = 40 ] && echo \"it is $TOKEN.\""));
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["exit_code"]),
        (&json!("succeeded"), &json!(0))
    );
    let expected = format!("it is {}.\n", mask(TOKEN));
    assert_eq!(output(&mut client, &job), expected);
    assert_eq!(end["output_bytes"], expected.len());
    assert_eq!(end["output_sha256"], sha256(expected.as_bytes()));
    assert_eq!(end["env_names"], json!(["TOKEN"]));
    assert_eq!(end["output"]["redact"], true);
    let shown = client.ok("job.get", json!({"job": job["id"], "include": ["env"]}));
    assert_eq!(shown["env"], json!({"TOKEN": {"secret": "token"}}));
    let claims =
        json!({"job": job["id"], "claims": [{"contains": TOKEN}, {"contains": "it is ***"}]});
    let verified = client.ok("transcript.verify", claims);
    assert_eq!(verified["intact"], true);
    assert_eq!(
        (
            &verified["claims"][0]["found"],
            &verified["claims"][1]["found"]
        ),
        (&json!(false), &json!(true))
    );
}

#[test]
fn a_secret_that_cannot_be_used_ends_the_attempt_as_spawn_and_the_next_one_looks_again() {
    let secrets = Secrets::new();
    let server = secrets.server(&[]);
    let mut client = server.connect();
    let other = |name: &str| json!({"shell": "echo started", "env": {"A": {"secret": name}}});
    let open = secrets.path().join("open");
    secrets.put("open", TOKEN);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("a mode");
    secrets.put("empty", "\n");
    secrets.put("pin", "123");
    for (name, errno, text) in [
        ("missing", "ENOKEY", "there is no secret missing"),
        ("open", "EACCES", "chmod 600"),
        ("empty", "EINVAL", "is empty"),
        ("pin", "EINVAL", "--no-redact"),
    ] {
        let job = client.submit(other(name));
        let end = client.finished(&job);
        assert_eq!(
            (&end["state"], &end["reason"]),
            (&json!("failed"), &json!("spawn"))
        );
        let error = &end["spawn_error"];
        assert_eq!(error["name"], errno, "{error}");
        let what = error["what"].as_str().expect("a text");
        assert!(what.contains(text) && !what.contains(TOKEN), "{what}");
        assert_eq!(
            (&end["started_at"], &end["output_bytes"]),
            (&Value::Null, &json!(0))
        );
    }
    // The next attempt of a job, and a retry of it, look again.
    let mut again = other("later");
    again["retry"] =
        json!({"max_attempts": 10, "backoff_s": 0.2, "max_backoff_s": 0.2, "on": ["spawn"]});
    let job = client.submit(again);
    until_true("it has failed once", || {
        client.get(&job)["attempts"].as_u64() > Some(0) && client.get(&job)["state"] == "scheduled"
    });
    secrets.put("later", TOKEN);
    secrets.put("missing", TOKEN);
    assert_eq!(client.finished(&job)["state"], "succeeded");
    let retried = client.ok("job.retry", json!({"job": 1}));
    assert_eq!(client.finished(&retried)["state"], "succeeded");
    // Changed in its place, it has the new value.
    secrets.put("token", "n3w value");
    let job = client.submit(shell("echo ${#TOKEN} $TOKEN"));
    assert_eq!(
        output(&mut client, &job),
        format!("9 {}\n", mask("n3w value"))
    );
}

#[test]
fn wrong_references_are_refused_with_their_key() {
    let secrets = Secrets::new();
    let server = secrets.server(&[]);
    let mut client = server.connect();
    for (env, key) in [
        (
            json!({"GH_TOKEN": {"secret": "../token"}}),
            "env.GH_TOKEN.secret",
        ),
        (
            json!({"GH_TOKEN": {"secret": ".token"}}),
            "env.GH_TOKEN.secret",
        ),
        (json!({"GH_TOKEN": {"secret": 1}}), "env.GH_TOKEN.secret"),
        (json!({"GH_TOKEN": {}}), "env.GH_TOKEN.secret"),
        (
            json!({"GH_TOKEN": {"secret": "token", "or": ""}}),
            "env.GH_TOKEN.or",
        ),
        (json!({"PATH": {"secret": "token"}}), "env.PATH.secret"),
    ] {
        let error = client.refused(-32602, "job.submit", json!({"argv": ["true"], "env": env}));
        assert_eq!(error["data"]["key"], key, "{error}");
        let defaults = json!({"queue": "q", "defaults": {"env": env}});
        let error = client.refused(-32602, "queue.set", defaults);
        assert_eq!(error["data"]["key"], format!("defaults.{key}"), "{error}");
    }
    let jobs = json!({"jobs": [shell("true"), {"argv": ["true"], "env": {"A": {"secret": ""}}}]});
    let error = client.refused(-32602, "job.submit_many", jobs);
    assert_eq!(
        (&error["data"]["index"], &error["data"]["key"]),
        (&json!(1), &json!("env.A.secret"))
    );
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
}

#[test]
fn a_server_without_secrets_refuses_references_and_says_what_to_do() {
    let server = Server::start();
    let mut client = server.connect();
    let info = client.ok("server.info", json!({}));
    assert_eq!(info["secrets"], json!({"sources": []}));
    let error = client.refused(-32602, "job.submit", shell("true"));
    assert_eq!(error["data"]["key"], "env.TOKEN.secret", "{error}");
    let text = error["message"].as_str().expect("a text");
    assert!(text.contains("--secrets-dir"), "{text}");
    let jobs = json!({"jobs": [{"argv": ["true"]}, shell("true")]});
    let error = client.refused(-32602, "job.submit_many", jobs);
    assert_eq!(
        (&error["data"]["index"], &error["data"]["key"]),
        (&json!(1), &json!("env.TOKEN.secret"))
    );
    let schedule = json!({"name": "n", "cron": "0 0 1 1 *", "job": shell("true")});
    let error = client.refused(-32602, "schedule.set", schedule);
    assert_eq!(error["data"]["key"], "job.env.TOKEN.secret", "{error}");
}

#[test]
fn the_credentials_of_a_service_are_a_source() {
    let credentials = Secrets::new();
    let token = credentials.path().join("token");
    fs::set_permissions(token, fs::Permissions::from_mode(0o440)).expect("a mode");
    let directory = credentials.path().to_str().expect("UTF-8");
    let mut server = Server::with(&[], &[("CREDENTIALS_DIRECTORY", directory)]);
    let mut client = server.connect();
    let info = client.ok("server.info", json!({}));
    assert_eq!(info["secrets"], json!({"sources": ["credentials"]}));
    let line = "echo $TOKEN ${CREDENTIALS_DIRECTORY-none}";
    let job = client.submit(shell(line));
    assert_eq!(output(&mut client, &job), format!("{} none\n", mask(TOKEN)));
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let job = client.submit(shell(line));
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

#[test]
fn a_directory_that_others_can_write_refuses_the_start() {
    let secrets = Secrets::new();
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    let directory = secrets.path().to_str().expect("UTF-8");
    let mut server = Server::stopped(&["--secrets-dir", directory], &[]);
    server.launch();
    assert!(server.readied().is_err());
    let said = server.said_last();
    assert!(
        said.contains("secrets_dir") && said.contains("chmod go-w"),
        "{said}"
    );
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert!(!server.ended().success());
}

#[test]
fn every_way_to_submit_carries_a_reference() {
    let secrets = Secrets::new();
    let server = secrets.server(&[]);
    let mut client = server.connect();
    let env = json!({"TOKEN": {"secret": "token"}});
    let expected = format!("{}\n", mask(TOKEN));
    let mut jobs = Vec::new();
    // A default of a queue; the job's own value wins.
    client.ok("queue.set", json!({"queue": "q", "defaults": {"env": env}}));
    jobs.push(client.submit(json!({"shell": "echo $TOKEN", "queue": "q"})));
    let own = json!({"shell": "echo $TOKEN", "queue": "q", "env": {"TOKEN": "own"}});
    let own = client.submit(own);
    assert_eq!(output(&mut client, &own), "own\n");
    // Many at once.
    let many = json!({"jobs": [{"shell": "echo $TOKEN"}], "defaults": {"env": env}});
    let many = client.ok("job.submit_many", many)["jobs"][0].clone();
    jobs.push(client.get(&many));
    // A schedule.
    let schedule = json!({"name": "n", "cron": "0 0 1 1 *", "job": shell("echo $TOKEN")});
    client.ok("schedule.set", schedule);
    jobs.push(client.ok("schedule.run", json!({"name": "n"}))["job"].clone());
    // The same job again, and a job that is changed before it starts.
    client.finished(&jobs[0]);
    jobs.push(client.ok("job.retry", json!({"job": jobs[0]["id"]})));
    let mut waiting = shell("echo $TOKEN");
    waiting["delay_s"] = json!(1000);
    let waiting = client.submit(waiting);
    let now = json!({"job": waiting["id"], "priority": 3, "run_at": "2020-01-01T00:00:00Z"});
    jobs.push(client.ok("job.update", now));
    // An agent.
    let mut agent = Agent::new(&server);
    let run = json!({"command": "echo $TOKEN", "env": env});
    let (text, is_error) = agent.tool(&server, "run", run);
    assert!(!is_error && text.contains(&mask(TOKEN)), "{text}");
    // The command line.
    let run = server.cli("run");
    let run = run.args([
        "--env-secret",
        "TOKEN=token",
        "--",
        "sh",
        "-c",
        "echo $TOKEN",
    ]);
    assert_eq!(run.run().out(), expected);
    for job in jobs {
        assert_eq!(output(&mut client, &job), expected, "{job}");
    }
}

#[test]
fn a_reference_is_part_of_what_an_idempotency_key_stands_for() {
    let secrets = Secrets::new();
    secrets.put("other", "an other value");
    let server = secrets.server(&[]);
    let mut client = server.connect();
    let with = |env: Value| json!({"argv": ["true"], "idempotency_key": "k", "env": env});
    let first = client.submit(with(json!({"A": {"secret": "token"}})));
    let again = client.ok("job.submit", with(json!({"A": {"secret": "token"}})));
    assert_eq!(
        (&again["created"], &again["job"]["id"]),
        (&json!(false), &first["id"])
    );
    for env in [
        json!({"A": {"secret": "other"}}),
        json!({"A": "token"}),
        json!({}),
    ] {
        client.refused(-32004, "job.submit", with(env));
    }
}

#[test]
fn unmasked_output_takes_the_right_to_read_values() {
    let secrets = Secrets::new();
    secrets.put("pin", "123");
    let server = secrets.server(&[]);
    let mut client = server.connect();
    let mut job = shell("echo $TOKEN");
    job["output"] = json!({"redact": false});
    let token = json!({"name": "t", "scopes": ["submit", "read"]});
    let token = client.ok("token.create", token)["secret"].clone();
    let mut narrow = Client::tcp(server.listen(), token.as_str());
    let error = narrow.refused(-32002, "job.submit", job.clone());
    assert_eq!(error["data"]["rule"], "token.scope", "{error}");
    let jobs = json!({"jobs": [job.clone()]});
    narrow.refused(-32002, "job.submit_many", jobs);
    let masked = narrow.submit(shell("echo $TOKEN"));
    assert_eq!(output(&mut narrow, &masked), format!("{}\n", mask(TOKEN)));
    let shown = client.submit(job);
    assert_eq!(output(&mut client, &shown), format!("{TOKEN}\n"));
    let error = narrow.refused(-32002, "job.retry", json!({"job": shown["id"]}));
    assert_eq!(error["data"]["rule"], "token.scope", "{error}");
    let wrong = json!({"argv": ["true"], "output": {"redact": "no"}});
    let error = client.refused(-32602, "job.submit", wrong);
    assert_eq!(error["data"]["key"], "output.redact");
    // What is too short for masks may be used where nothing is masked.
    let run = server.cli("run");
    let words = [
        "--no-redact",
        "--env-secret",
        "PIN=pin",
        "--",
        "sh",
        "-c",
        "echo $PIN",
    ];
    assert_eq!(run.args(words).run().out(), "123\n");
}

#[test]
fn a_policy_names_the_secrets_that_a_rule_allows() {
    let secrets = Secrets::new();
    secrets.put("deploy-key", "another value");
    let policy = secrets.path().join("policy.toml");
    let rule = r#"
        [[rule]]
        id = "print"
        decision = "allow"
        program = "/usr/bin/printenv"
        args = [{ rest = "any" }]
        env = ["TOKEN", "HOME"]
        secrets = ["token"]
        match = [{ argv = ["printenv"], env = ["TOKEN"], secrets = ["token"] }]
        not_match = [{ argv = ["printenv"], secrets = ["deploy-key"] }]
    "#;
    fs::write(&policy, rule).expect("written");
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o600)).expect("a mode");
    let server = secrets.server(&["--policy", policy.to_str().expect("UTF-8")]);
    let mut client = server.connect();
    let print = |env: Value| json!({"argv": ["printenv", "TOKEN"], "env": env});
    let job = client.submit(print(json!({"TOKEN": {"secret": "token"}})));
    assert_eq!(output(&mut client, &job), format!("{}\n", mask(TOKEN)));
    for (env, says) in [
        (
            json!({"TOKEN": {"secret": "deploy-key"}}),
            "refers to the secret deploy-key",
        ),
        // The variable is judged by its name, whatever its value is.
        (json!({"OTHER": {"secret": "token"}}), "OTHER"),
    ] {
        let error = client.refused(-32002, "job.submit", print(env));
        let text = error["message"].as_str().expect("a text");
        assert!(text.contains(says), "{text}");
    }
    // A job that waited is judged again, and is not given what the new rule takes away.
    let mut waiting = print(json!({"TOKEN": {"secret": "token"}}));
    waiting["delay_s"] = json!(1000);
    let waiting = client.submit(waiting);
    let stricter = rule.replace("secrets = [\"token\"]", "secrets = []");
    let stricter = stricter.lines().filter(|line| !line.contains("match = "));
    fs::write(&policy, stricter.collect::<Vec<_>>().join("\n")).expect("written");
    client.ok("policy.reload", json!({}));
    let now = json!({"job": waiting["id"], "run_at": "2020-01-01T00:00:00Z"});
    client.ok("job.update", now);
    let end = client.finished(&waiting);
    assert_eq!(end["reason"], "spawn", "{end}");
    let check = server.cli("policy").args([
        "check",
        "--policy",
        policy.to_str().expect("UTF-8"),
        "--secret",
        "deploy-key",
        "--",
        "printenv",
    ]);
    let check = check.run();
    assert_eq!(check.code(), 1);
    assert!(check.out().contains("secrets: "), "{}", check.out());
}

#[test]
fn a_job_is_masked_on_while_its_server_is_killed_and_replaced() {
    let secrets = Secrets::new();
    let mut server = secrets.server(&[]);
    let go = server.scratch("go");
    let line = format!(
        "echo \"one $TOKEN\"; while [ ! -e {} ]; do sleep 0.05; done; echo \"two $TOKEN\"",
        go.display()
    );
    let job = server.connect().submit(server.marked(shell(&line)));
    let first = format!("one {}\n", mask(TOKEN));
    until_true("the first line", || {
        so_far(&mut server.connect(), &job) == first.as_bytes()
    });
    server.kill_9();
    // The shim has the value, and needs no source.
    fs::remove_file(secrets.path().join("token")).expect("removed");
    server.restart();
    fs::write(&go, "").expect("go");
    let mut client = server.connect();
    let expected = format!("{first}two {}\n", mask(TOKEN));
    assert_eq!(output(&mut client, &job), expected);
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

/// Planted values of one test, whose processes run beside those of others: one with what is quoted by every
/// encoding, and one of several lines.
fn planted(mark: &str) -> [String; 2] {
    [
        format!("Pl4nted 'q' \"d\" $x/\\<&> {mark} 7f3a9c1e"),
        format!(
            "-----BEGIN PLANTED KEY {mark}-----\nMIIEvQIBADANBgkqhkiG9w0BAQ{mark}\nPLANTEDPLANTEDplanted+/=={mark}\n\
             -----END PLANTED KEY {mark}-----\n"
        ),
    ]
}

/// How the planted values may stand in a file.
fn traces(planted: &[String]) -> Vec<Vec<u8>> {
    let mut traces = Vec::new();
    for value in planted {
        let value = value.trim_end();
        let lines = value
            .lines()
            .filter(|line| line.contains("PLANTED") || line.contains("MIIE"));
        let texts = lines.chain([value]);
        for text in texts {
            traces.push(text.to_owned());
            let json = json!(text).to_string();
            traces.push(json[1..json.len() - 1].to_owned());
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            traces.extend([hex.to_uppercase(), hex]);
            for before in ["", "x", "xx"] {
                let encoded = BASE64_STANDARD.encode(format!("{before}{text}"));
                // Without the digits that depend on the neighbours.
                traces.push(encoded[4..encoded.len() - 4].to_owned());
            }
            let percent = |byte: u8| match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            };
            traces.push(text.bytes().map(percent).collect());
        }
    }
    traces.into_iter().map(String::into_bytes).collect()
}

/// Every place below a directory where one of the traces is.
fn found_below(directory: &Path, traces: &[Vec<u8>], found: &mut Vec<PathBuf>) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files += found_below(&entry.path(), traces, found);
        } else if kind.is_file() {
            files += 1;
            if is_in(&fs::read(entry.path()).unwrap_or_default(), traces) {
                found.push(entry.path());
            }
        }
    }
    files
}

fn is_in(bytes: &[u8], traces: &[Vec<u8>]) -> bool {
    let finds = |trace: &Vec<u8>| memchr::memmem::find(bytes, trace).is_some();
    traces.iter().any(finds)
}

/// Processes whose command line or environment has one of the traces.
fn processes_with(traces: &[Vec<u8>]) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        ["environ", "cmdline"].iter().any(|name| {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            is_in(&bytes, traces)
        })
    })
    .collect()
}

/// A shell line that prints what its variables have, in every way that this machine knows.
const PRINTS: &str = r#"
    for value in "$PLAIN" "$KEY"; do
        printf '%s\n' "$value"; printf '%s' "$value" >&2
        printf '%s' "$value" | base64; printf 'x%s' "$value" | base64 -w 0; printf 'xx%s\n' "$value" | base64
        printf '%s' "$value" | od -An -v -tx1 | tr -d ' '
        printf '%s' "$value" | od -An -v -tx1 | tr -d ' \n' | tr a-f A-F; echo
    done
    env
    for i in 1 2 3 4 5 6 7 8 9; do printf '%s %s\n' "$i" "$PLAIN"; done
"#;

/// The search of the next test finds what is not masked.
#[test]
fn without_masks_the_value_is_found_in_every_form() {
    let secrets = Secrets::new();
    let planted = planted("shown");
    secrets.put("plain", &planted[0]);
    secrets.put("key", &planted[1]);
    let server = secrets.server(&["--inline-bytes-max", "0"]);
    let mut client = server.connect();
    let job = client.submit(json!({
        "shell": format!("{PRINTS}\nprintf '%s' \"$KEY\" | grep PLANTED | while read -r line; do \
                          printf %s \"$line\" | base64 -w 0; done"),
        "env": {"PLAIN": {"secret": "plain"}, "KEY": {"secret": "key"}},
        "output": {"redact": false},
    }));
    let shown = client.download(&job, READ_BYTES_MAX);
    let traces = traces(&planted);
    let found = traces
        .iter()
        .filter(|trace| memchr::memmem::find(&shown, trace).is_some());
    assert!(found.count() >= 10);
    let mut files = Vec::new();
    found_below(&server.data_dir(), &traces, &mut files);
    assert!(!files.is_empty(), "a segment has it");
}

#[test]
fn the_value_is_in_no_file_log_backup_export_or_other_process() {
    let secrets = Secrets::new();
    let planted = planted("masked");
    secrets.put("plain", &planted[0]);
    secrets.put("key", &planted[1]);
    let mut server = secrets.server(&[
        "--log-level",
        "trace",
        "--inline-bytes-max",
        "4096",
        "--segment-bytes",
        "65536",
    ]);
    let receiver = Receiver::new();
    let traces = traces(&planted);
    let job = |line: &str| {
        json!({
            "shell": format!("{PRINTS}\n{line}"),
            "env": {"PLAIN": {"secret": "plain"}, "KEY": {"secret": "key"}},
            "stdin": "read", "name": "planted",
            "notify": [{"on": ["succeeded", "failed"], "url": receiver.url("/")}],
        })
    };
    let mut client = server.connect();
    // One succeeds, with little and with much output, one fails, one is killed.
    let many =
        "i=0; while [ $i -lt 3000 ]; do printf '%s %s\\n' \"$PLAIN\" \"$KEY\"; i=$((i+1)); done";
    let ended: Vec<Value> = ["true", many, "exit 3", "kill -9 $$"]
        .into_iter()
        .map(|line| client.submit(job(line)))
        .collect();
    let states: Vec<Value> = ended
        .iter()
        .map(|job| client.finished(job)["state"].clone())
        .collect();
    assert_eq!(states, ["succeeded", "succeeded", "failed", "failed"]);
    // One runs while the server is killed and while its shim is killed, and runs again after that.
    let go = server.scratch("go");
    let wait = format!(
        "echo ready; while [ ! -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let mut waits = server.marked(job(&wait));
    waits["on_lost"] = json!("retry");
    let waits = client.submit(waits);
    let is_ready = |server: &Server, attempts: usize| {
        let mut client = server.connect();
        until_true("it waits", || {
            let bytes = so_far(&mut client, &waits);
            memchr::memmem::find_iter(&bytes, "ready\n").count() >= attempts
        });
    };
    is_ready(&server, 1);
    // Its own processes have it, and no other.
    let has = processes_with(&traces);
    let own = server.job_processes();
    assert!(
        !has.is_empty() && has.iter().all(|pid| own.contains(pid)),
        "{has:?} {own:?}"
    );
    server.kill_9();
    server.restart();
    is_ready(&server, 1);
    server.kill_shim();
    is_ready(&server, 2);
    let backup = server.scratch("backup");
    let run = server.cli("backup").args([&backup]).run();
    assert_eq!(run.code(), 0, "{}", run.err());
    fs::write(&go, "").expect("go");
    let mut client = server.connect();
    let end = client.finished(&waits);
    assert_eq!(
        (&end["state"], &end["attempts"]),
        (&json!("succeeded"), &json!(2)),
        "{end}"
    );

    // What can be asked for.
    let mut said = Vec::new();
    for (nth, job) in ended.iter().chain([&waits]).enumerate() {
        let number = job["number"].to_string();
        for format in ["json", "text", "asciicast"] {
            let file = server.scratch(&format!("export-{nth}.{format}"));
            let export = server
                .cli("export")
                .args([&number, "--format", format, "-o"]);
            assert_eq!(export.args([&file]).run().code(), 0);
        }
        said.push(server.cli("show").args(["--json", &number]).run().out());
        said.push(server.cli("explain").args([&number]).run().out());
        let include = json!({"job": job["id"], "include": ["env", "stdin"]});
        said.push(client.ok("job.get", include).to_string());
        assert!(
            client
                .download(job, READ_BYTES_MAX)
                .windows(4)
                .any(|bytes| bytes == b"****")
        );
    }
    let sql = json!({"sql": "SELECT * FROM history_jobs"});
    said.push(client.ok("history.query", sql).to_string());
    let sql = json!({"sql": "SELECT text, hex(data) FROM history_output"});
    said.push(client.ok("history.query", sql).to_string());
    for text in ["7f3a9c1e", "PLANTED KEY", "MIIEvQ"] {
        let hits = client.ok("history.search", json!({"text": text}));
        assert_eq!(hits["hits"], json!([]), "{text}");
    }
    let notices = until("the notices", || {
        let received = receiver.received();
        (received.len() >= 5).then_some(received)
    });
    said.extend(notices.iter().map(|notice| notice.json().to_string()));
    assert!(said.iter().all(|said| !is_in(said.as_bytes(), &traces)));

    // Everything that lies anywhere: database, log, segments, backup, exports, logs of all servers.
    let home = server.scratch("");
    let look = |when: &str| {
        let mut found = Vec::new();
        let files = found_below(&home, &traces, &mut found);
        assert!(files > 20, "{files}");
        assert!(found.is_empty(), "{when}: {found:?}");
    };
    look("while the server runs");
    assert!(server.said().contains("DEBUG"), "the log has everything");
    drop(client);
    let (status, _) = server.stop();
    assert!(status.success());
    look("after its end");
    assert_eq!(processes_with(&traces), [0; 0]);
}

/// A session with a token of these scopes.
#[track_caller]
fn with_scopes(server: &Server, name: &str, scopes: &[&str]) -> Client {
    let made = server
        .connect()
        .ok("token.create", json!({"name": name, "scopes": scopes}));
    Client::tcp(server.listen(), made["secret"].as_str())
}

#[test]
fn a_default_that_unmasks_others_asks_for_the_right_to_read_secrets() {
    let secrets = Secrets::new();
    let server = secrets.server(&[]);
    let mut queues = with_scopes(&server, "queues", &["queues", "read"]);
    let unmasked = |queue: &str| json!({"queue": queue, "defaults": {"output": {"redact": false}}});
    for queue in ["default", "new"] {
        let error = queues.refused(-32002, "queue.set", unmasked(queue));
        assert_eq!(error["data"]["rule"], "token.scope");
        let text = error["message"].as_str().expect("a text");
        assert!(text.contains("read.secrets"), "{text}");
    }
    let mut admin = server.connect();
    let job = admin.submit(shell("echo $TOKEN"));
    admin.finished(&job);
    assert_eq!(output(&mut admin, &job), format!("{}\n", mask(TOKEN)));
    // A client with the right sets it; then another one may send it again, beside other changes.
    let mut reader = with_scopes(&server, "reader", &["queues", "read.secrets"]);
    reader.ok("queue.set", unmasked("default"));
    let mut same = unmasked("default");
    same["defaults"]["priority"] = json!(3);
    queues.ok("queue.set", same);
    queues.ok("queue.set", json!({"queue": "default", "weight": 2}));
    let masked = json!({"queue": "default", "defaults": {"output": {"redact": true}}});
    queues.ok("queue.set", masked);
    queues.refused(-32002, "queue.set", unmasked("default"));
    // A run of a schedule takes the default of its moment.
    let schedule = json!({"name": "s", "cron": "0 0 1 1 *", "job": shell("echo $TOKEN")});
    admin.ok("schedule.set", schedule);
    let run = admin.ok("schedule.run", json!({"name": "s"}))["job"].clone();
    admin.finished(&run);
    assert_eq!(output(&mut admin, &run), format!("{}\n", mask(TOKEN)));
}
