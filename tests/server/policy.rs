//! A policy: which jobs are taken, by whichever door they come, and what a running server does when its file
//! changes.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Client, Receiver, Server, sha256, until_true},
    mcp::Agent,
};

const BYPASSES: &str = include_str!("../fixtures/policy/bypasses.json");
const CI: &str = include_str!("../fixtures/policy/ci.toml");

/// `echo` with any words, in two queues.
const ECHO: &str = r#"
[[rule]]
id = "echo"
decision = "allow"
program = "/bin/echo"
args = [{ rest = "any" }]
env = ["LANG"]
queue = ["default", "slow"]
priority = 5
"#;

/// A policy's file.
struct PolicyFile(TempDir);

impl PolicyFile {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::tempdir().expect("a temporary directory"));
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("policy.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("written");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(), mode).expect("a mode");
    }

    fn server(&self) -> Server {
        let path = self.path();
        Server::with(&["--policy", path.to_str().expect("text")], &[])
    }
}

/// A refusal by the policy that is in force; names the rule.
#[track_caller]
fn forbidden(client: &mut Client, method: &str, params: Value) -> (String, Value) {
    let error = client.refused(-32002, method, params);
    let info = client.ok("server.info", json!({}));
    assert_eq!(error["data"]["policy"], info["policy"]["digest"], "{error}");
    let rule = error["data"]["rule"].as_str().expect("a rule").to_owned();
    (rule, error)
}

fn stricter(id: &str) -> String {
    format!(
        "{ECHO}\n[[rule]]\nid = {id:?}\ndecision = \"deny\"\nargs = [\"bad\", {{ rest = \"any\" }}]\n"
    )
}

#[test]
fn without_a_policy_everything_is_taken_and_the_server_says_so() {
    let server = Server::start();
    let mut client = server.connect();
    let policy = client.ok("server.info", json!({}))["policy"].clone();
    assert_eq!(policy["file"], Value::Null);
    assert_eq!(
        (&policy["default"], &policy["advisory"]),
        (&json!("allow"), &json!(true))
    );
    let job = client.submit(json!({"shell": "true"}));
    assert!(client.finished(&job).get("policy").is_none());
    client.refused(-32004, "policy.reload", json!({}));
}

#[test]
fn a_job_is_taken_with_the_rule_that_allowed_it() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    let info = client.ok("server.info", json!({}))["policy"].clone();
    assert_eq!(
        (&info["rules"], &info["default"]),
        (&json!(1), &json!("deny"))
    );
    assert!(info["advisory_reason"].is_string(), "{info}");
    let job = client.submit(json!({"argv": ["echo", "a; id", "$(id)"]}));
    let job = client.finished(&job);
    assert_eq!(
        (&job["state"], &job["output_bytes"]),
        (&json!("succeeded"), &json!(12))
    );
    let expected = json!({"rule": "echo", "digest": info["digest"]});
    assert_eq!(job["policy"], expected);
    let (rule, error) = forbidden(&mut client, "job.submit", json!({"argv": ["ls"]}));
    assert_eq!(
        (rule.as_str(), &error["data"]["kind"]),
        ("default", &json!("forbidden"))
    );
    assert_eq!(
        client.ok("job.list", json!({}))["jobs"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn no_known_bypass_is_executed() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = fs::canonicalize(place.path()).expect("a path");
    let ci = root.join("ci");
    fs::create_dir(&ci).expect("made");
    fs::create_dir(root.join("cier")).expect("made");
    symlink("/etc", ci.join("link")).expect("a link");
    fs::write(ci.join("check.py"), "").expect("written");
    let name = ci.to_str().expect("text");
    let file = PolicyFile::new(&CI.replace("{ci}", name));
    let server = file.server();
    let mut client = server.connect();
    let bypasses: Vec<Value> =
        serde_json::from_str(&BYPASSES.replace("{ci}", name)).expect("a table");
    let mut judged = 0;
    for mut bypass in bypasses {
        let what = bypass.as_object_mut().expect("an object").remove("what");
        if bypass.get("cwd").is_none() {
            bypass["cwd"] = json!(name);
        }
        let error = match client.call("job.submit", bypass.clone()) {
            Err(error) => error,
            Ok(taken) => panic!("{what:?}: {bypass} was taken: {taken}"),
        };
        // Some are no jobs at all.
        assert!(
            [-32002, -32602].contains(&error["code"].as_i64().expect("a code")),
            "{bypass}: {error}"
        );
        judged += i32::from(error["code"] == -32002);
    }
    assert!(judged >= 150, "{judged}");
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
}

#[test]
fn every_door_is_judged() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    let many = json!({"jobs": [{"argv": ["echo"]}, {"argv": ["ls"]}]});
    let (_, error) = forbidden(&mut client, "job.submit_many", many);
    assert_eq!(error["data"]["index"], 1);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("jobs[1]: ")),
        "{error}"
    );
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));

    // Defaults of a queue are part of the job.
    client.ok(
        "queue.set",
        json!({"queue": "slow", "defaults": {"env": {"LD_PRELOAD": "/tmp/x"}}}),
    );
    forbidden(
        &mut client,
        "job.submit",
        json!({"argv": ["echo"], "queue": "slow"}),
    );
    client.ok(
        "queue.set",
        json!({"queue": "slow", "defaults": {"notify": [{"on": ["failed"], "argv": ["ls"]}]}}),
    );
    forbidden(
        &mut client,
        "job.submit",
        json!({"argv": ["echo"], "queue": "slow"}),
    );
    forbidden(&mut client, "notice.test", json!({"queue": "slow"}));
    client.ok(
        "queue.set",
        json!({"queue": "slow", "defaults": {}, "paused": true}),
    );

    // A change of a job that waits.
    client.ok("queue.set", json!({"queue": "prod"}));
    let job = client.submit(json!({"argv": ["echo"], "queue": "slow"}));
    let id = job["id"].clone();
    forbidden(
        &mut client,
        "job.update",
        json!({"job": id, "queue": "prod"}),
    );
    forbidden(&mut client, "job.update", json!({"job": id, "priority": 6}));
    client.ok("job.update", json!({"job": id, "priority": 5, "name": "x"}));

    // Commands that the server runs itself.
    let notify = json!([{"on": ["failed"], "argv": ["sh", "-c", "id"]}]);
    forbidden(
        &mut client,
        "job.submit",
        json!({"argv": ["echo"], "notify": notify}),
    );
    forbidden(
        &mut client,
        "notice.test",
        json!({"argv": ["sh", "-c", "id"]}),
    );

    let schedule = json!({"name": "s", "cron": "* * * * *", "job": {"argv": ["ls"]}});
    forbidden(&mut client, "schedule.set", schedule);
    assert_eq!(
        client.ok("schedule.list", json!({}))["schedules"],
        json!([])
    );
}

#[test]
fn an_agent_is_refused_with_the_reason() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    let mut agent = Agent::new(&server);
    let (text, is_error) = agent.tool(&server, "run", json!({"command": "id"}));
    assert!(is_error && text.contains("policy"), "{text}");
    let (text, is_error) = agent.tool(
        &server,
        "run",
        json!({"argv": ["echo", "yes"], "queue": "default"}),
    );
    assert!(!is_error, "{text}");
    let jobs = client.ok("job.list", json!({}))["jobs"].clone();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1));
}

#[test]
fn a_retry_and_a_schedule_are_judged_by_the_policy_of_their_moment() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "bad"]}));
    client.finished(&job);
    let schedule = json!({"name": "s", "cron": "0 0 1 1 *", "job": {"argv": ["echo", "bad"]}});
    client.ok("schedule.set", schedule);
    file.write(&stricter("no-bad"));
    client.ok("policy.reload", json!({}));
    let (rule, _) = forbidden(&mut client, "job.retry", json!({"job": job["id"]}));
    assert_eq!(rule, "no-bad");
    forbidden(&mut client, "schedule.run", json!({"name": "s"}));
}

#[test]
fn a_policy_that_becomes_stricter_holds_at_the_claim() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "slow", "paused": true}));
    let bad = client.submit(json!({"argv": ["echo", "bad"], "queue": "slow"}));
    let good = client.submit(json!({"argv": ["echo", "good"], "queue": "slow"}));
    file.write(&stricter("no-bad"));
    client.ok("policy.reload", json!({}));
    client.ok("queue.set", json!({"queue": "slow", "paused": false}));
    let bad = client.finished(&bad);
    assert_eq!(
        (&bad["state"], &bad["reason"]),
        (&json!("failed"), &json!("spawn"))
    );
    let what = bad["spawn_error"]["what"].as_str().expect("a text");
    assert!(what.contains("no-bad"), "{what}");
    assert_eq!(
        (&bad["output_bytes"], &bad["started_at"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(client.finished(&good)["state"], "succeeded");
}

#[test]
fn a_program_that_leads_elsewhere_at_the_claim_is_refused() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = fs::canonicalize(place.path()).expect("a path");
    let tool = root.join("tool");
    symlink("/bin/echo", &tool).expect("a link");
    let rule =
        format!("[[rule]]\nid = \"t\"\ndecision = \"allow\"\nprogram = {tool:?}\nargs = []\n");
    let file = PolicyFile::new(&rule);
    let server = file.server();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let job = client.submit(json!({"argv": [tool]}));
    fs::remove_file(&tool).expect("removed");
    symlink("/bin/sh", &tool).expect("a link");
    client.ok("queue.set", json!({"queue": "default", "paused": false}));
    let job = client.finished(&job);
    assert_eq!(job["reason"], "spawn");
    let what = job["spawn_error"]["what"].as_str().expect("a text");
    assert!(what.contains("leads to"), "{what}");
}

#[test]
fn a_broken_file_keeps_the_policy_and_refuses_a_start() {
    let file = PolicyFile::new(ECHO);
    let mut server = file.server();
    let mut client = server.connect();
    let digest = client.ok("server.info", json!({}))["policy"]["digest"].clone();
    file.write("\n\n[[rule]]\nid = \"x\"\ndecision = \"maybe\"\n");
    let error = client.refused(-32602, "policy.reload", json!({}));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("policy.toml:5: "), "{message}");
    let info = client.ok("server.info", json!({}))["policy"].clone();
    assert_eq!(info["digest"], digest);
    assert!(info["last_error"].is_string(), "{info}");
    client.submit(json!({"argv": ["echo"]}));

    server.stop();
    server.launch();
    server.readied().expect_err("a broken policy");
    assert!(!server.ended().success());
    assert!(
        server.said_last().contains("policy.toml:5: "),
        "{}",
        server.said_last()
    );
    file.write(ECHO);
    server.restart();
}

#[test]
fn a_hangup_loads_the_policy_again() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    client.submit(json!({"argv": ["echo", "bad"]}));
    file.write(&stricter("no-bad"));
    server.signal(Signal::SIGHUP);
    until_true("the policy to be loaded", || {
        client.ok("server.info", json!({}))["policy"]["rules"] == 2
    });
    forbidden(&mut client, "job.submit", json!({"argv": ["echo", "bad"]}));
    // A broken one is told of, and the server goes on.
    file.write("rule = 1");
    server.signal(Signal::SIGHUP);
    until_true("the mistake to be told", || {
        client.ok("server.info", json!({}))["policy"]["last_error"].is_string()
    });
    forbidden(&mut client, "job.submit", json!({"argv": ["echo", "bad"]}));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let file = PolicyFile::new(ECHO);
    let server = file.server();
    let mut client = server.connect();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666));
    open(&file.path()).expect("a mode");
    let error = client.refused(-32602, "policy.reload", json!({}));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("chmod go-w")),
        "{error}"
    );
    client.submit(json!({"argv": ["echo"]}));
}

/// A token of this name for the queue `ci`, and a session with it.
#[track_caller]
fn token_session(server: &Server, name: &str) -> Client {
    let mut admin = server.connect();
    admin.ok("queue.set", json!({"queue": "ci"}));
    let params = json!({"name": name, "scopes": ["read", "submit", "control"], "queues": ["ci"]});
    let made = admin.ok("token.create", params);
    Client::tcp(server.listen(), made["secret"].as_str())
}

/// `echo` for the token `ci` in its queue, and anything else for the admin.
const CI_TOKEN: &str = r#"
[[rule]]
id = "ci-echo"
decision = "allow"
who = ["ci"]
program = "/bin/echo"
args = ["build"]

[[rule]]
id = "admin"
decision = "allow"
who = ["admin"]
program = "any"
args = [{ rest = "any" }]
"#;

#[test]
fn a_token_and_the_policy_both_have_to_allow_it() {
    let file = PolicyFile::new(CI_TOKEN);
    let server = file.server();
    let mut admin = server.connect();
    let mut ci = token_session(&server, "ci");
    let job = ci.submit(json!({"argv": ["echo", "build"], "queue": "ci"}));
    assert_eq!(ci.finished(&job)["policy"]["rule"], "ci-echo");
    // The policy allows it, the token does not.
    let wrong_queue = json!({"argv": ["echo", "build"], "queue": "default"});
    let error = ci.refused(-32002, "job.submit", wrong_queue);
    assert_eq!(error["data"]["rule"], "token.queues");
    // And the other way round, by every door that makes a job.
    let submit = json!({"argv": ["echo", "deploy"], "queue": "ci"});
    for (method, params) in [
        ("job.submit", submit.clone()),
        ("job.submit_many", json!({"jobs": [submit]})),
    ] {
        let error = ci.refused(-32002, method, params);
        assert_eq!(error["data"]["rule"], "default", "{error}");
    }
    let of_admin = admin.submit(json!({"argv": ["echo", "deploy"], "queue": "ci"}));
    admin.finished(&of_admin);
    let error = ci.refused(-32002, "job.retry", json!({"job": of_admin["id"]}));
    assert_eq!(error["data"]["rule"], "default", "{error}");
}

#[test]
fn the_user_of_a_socket_is_not_more_than_the_token_that_it_shows() {
    let uid = nix::unistd::geteuid();
    let text = format!(
        "[[rule]]\nid = \"user\"\ndecision = \"allow\"\nwho = [\"uid:{uid}\"]\n\
         program = \"/bin/echo\"\nargs = []\n"
    );
    let file = PolicyFile::new(&text);
    let server = file.server();
    let echo = json!({"argv": ["echo"]});
    let made = server.connect().ok(
        "token.create",
        json!({"name": "ci", "scopes": ["read", "submit"]}),
    );
    let mut client = Client::unix(&server.socket());
    client.ok("job.submit", echo.clone());
    client.ok("session.authenticate", json!({"token": made["secret"]}));
    let error = client.refused(-32002, "job.submit", echo);
    assert_eq!(error["data"]["rule"], "default", "{error}");
}

#[test]
fn a_job_from_before_the_policy_is_judged_for_its_token() {
    let file = PolicyFile::new(CI_TOKEN);
    let mut server = Server::start();
    let mut admin = server.connect();
    admin.ok("queue.set", json!({"queue": "ci", "paused": true}));
    let mut ci = token_session(&server, "ci");
    let deploy = json!({"argv": ["echo", "deploy"], "queue": "ci"});
    let (of_ci, of_admin) = (ci.submit(deploy.clone()), admin.submit(deploy));
    assert!(ci.get(&of_ci).get("policy").is_none());
    server.stop();
    let policy = format!("CC_EXECUTOR_POLICY={}", file.path().display());
    server.under(&["env", &policy]);
    server.restart();
    let mut admin = server.connect();
    admin.ok("queue.set", json!({"queue": "ci", "paused": false}));
    let refused = admin.finished(&of_ci);
    assert_eq!(refused["reason"], "spawn");
    let what = refused["spawn_error"]["what"].as_str().expect("a text");
    assert!(what.contains("\"default\""), "{what}");
    assert_eq!(admin.finished(&of_admin)["state"], "succeeded");
}

#[test]
fn the_command_of_a_notice_is_judged_again_before_it_runs() {
    let told = tempfile::tempdir().expect("a temporary directory");
    let touched = told.path().join("touched");
    let allowed = format!(
        "{ECHO}\n[[rule]]\nid = \"tell\"\ndecision = \"allow\"\nprogram = \"/usr/bin/touch\"\n\
         args = [{touched:?}]\ntimeout_s = 60\noutput_bytes = 1000\npriority = 0\n"
    );
    let file = PolicyFile::new(&allowed);
    let server = file.server();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let notify = json!([{"on": ["succeeded"], "argv": ["touch", touched]}]);
    let job = json!({"argv": ["echo"], "notify": notify, "priority": 1});
    let job = client.submit(job);
    file.write(ECHO);
    client.ok("policy.reload", json!({}));
    client.ok("queue.set", json!({"queue": "default", "paused": false}));
    // The job itself is refused at the claim, as its notices are a part of it.
    assert_eq!(client.finished(&job)["reason"], "spawn");

    file.write(&allowed);
    client.ok("policy.reload", json!({}));
    let gate = told.path().join("gate");
    let waits = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let shell = "\n[[rule]]\nid = \"sh\"\ndecision = \"allow\"\nshell = \"any\"\n";
    file.write(&format!("{allowed}{shell}"));
    client.ok("policy.reload", json!({}));
    let job = client.submit(json!({"shell": waits, "notify": notify}));
    client.started(&job);
    file.write(ECHO);
    client.ok("policy.reload", json!({}));
    fs::write(gate, "").expect("written");
    assert_eq!(client.finished(&job)["state"], "succeeded");
    let params = json!({"job": job["id"]});
    until_true("the refusal to be stored", || {
        let notices = client.ok("notice.list", params.clone());
        let error = notices["notices"][0]["error"].as_str();
        error.is_some_and(|error| error.contains("the policy does not allow it"))
    });
    assert!(!touched.exists());
}

/// A rule for a program with this digest, whose other predicates anything fits.
fn with_digest(program: &str, digest: &str) -> String {
    format!(
        "[[rule]]\nid = \"digest\"\ndecision = \"allow\"\nprogram = {program:?}\nsha256 = {digest:?}\n\
         args = [{{ rest = \"any\" }}]\n"
    )
}

#[test]
fn a_large_program_delays_nothing_but_its_own_job() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let executable = |name: &str, bytes: u64| {
        let path = fs::canonicalize(place.path()).expect("a path").join(name);
        let file = fs::File::create(&path).expect("made");
        file.set_len(bytes).expect("a sparse file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
        path.display().to_string()
    };
    // Beyond what is read, and as much as is read.
    let (huge, large) = (executable("huge", 40 << 30), executable("large", 512 << 20));
    let other = executable("other", 40 << 30);
    let digest = sha256(b"");
    let file = PolicyFile::new(&format!("{}\n{}", with_digest("any", &digest), ECHO));
    let mut server = file.server();
    let mut client = server.connect();
    for huge in [&huge, &other] {
        let error = client.refused(-32002, "job.submit", json!({"argv": [huge]}));
        let text = error["message"].as_str().expect("a message");
        assert!(text.contains("only files of up to"), "{text}");
    }
    let mut sessions: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for session in &mut sessions {
        for _ in 0..4 {
            session.begin("job.submit", json!({"argv": [large]}));
        }
    }
    // The server answers meanwhile: others, and those whose program is not read.
    assert_eq!(server.get("/health").status, 200);
    let job = client.submit(json!({"argv": ["echo"]}));
    assert_eq!(client.finished(&job)["policy"]["rule"], "echo");
    let (status, took) = server.stop();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_batch_reads_each_program_once() {
    // Large, so that a thousand times would take minutes.
    let place = tempfile::tempdir().expect("a temporary directory");
    let program = fs::canonicalize(place.path()).expect("a path").join("tool");
    fs::File::create(&program)
        .and_then(|file| file.set_len(64 << 20))
        .expect("a sparse file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a mode");
    let digest = sha256(&vec![0; 64 << 20]);
    let program = program.display().to_string();
    let file = PolicyFile::new(&with_digest(&program, &digest));
    let server = file.server();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let jobs = vec![json!({"argv": [program, "a"]}); 1000];
    let stored = client.ok("job.submit_many", json!({"jobs": jobs}));
    assert_eq!(stored["jobs"].as_array().map(Vec::len), Some(1000));
    // One that is refused is named, and nothing is stored.
    let mut jobs = vec![json!({"argv": [program, "a"]}); 3];
    jobs[1] = json!({"argv": ["/bin/ls"]});
    let error = client.refused(-32002, "job.submit_many", json!({"jobs": jobs}));
    assert_eq!(error["data"]["index"], 1, "{error}");
}

#[test]
fn the_client_that_asked_for_a_job_stays_its_requester() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let ran = place.path().join("ran");
    let touch = "[[rule]]\nid = \"touch\"\ndecision = \"allow\"\nprogram = \"/usr/bin/touch\"\n\
                 args = [{ any = true }]\n";
    let deny = |id: &str, who: &str, queue: &str| {
        format!(
            "[[rule]]\nid = {id:?}\ndecision = \"deny\"\nwho = [{who:?}]\nqueue = [{queue:?}]\n"
        )
    };
    let file = PolicyFile::new(&format!("{touch}{}", deny("not-there", "ci", "slow")));
    let server = file.server();
    let mut admin = server.connect();
    let mut ci = token_session(&server, "ci");
    admin.ok("queue.set", json!({"queue": "ci", "paused": true}));
    admin.ok("queue.set", json!({"queue": "slow"}));
    let job = ci.submit(json!({"argv": ["touch", ran], "queue": "ci"}));
    // An update is judged for both.
    let into_slow = json!({"job": job["id"], "queue": "slow"});
    let (rule, _) = forbidden(&mut admin, "job.update", into_slow);
    assert_eq!(rule, "not-there");
    admin.ok("job.update", json!({"job": job["id"], "priority": 1}));
    file.write(&format!("{touch}{}", deny("no-ci", "ci", "ci")));
    admin.ok("policy.reload", json!({}));
    let (rule, _) = forbidden(
        &mut admin,
        "job.update",
        json!({"job": job["id"], "priority": 2}),
    );
    assert_eq!(rule, "no-ci");
    admin.ok("queue.set", json!({"queue": "ci", "paused": false}));
    let end = admin.finished(&job);
    assert_eq!(end["reason"], "spawn", "{end}");
    let what = end["spawn_error"]["what"].as_str().expect("a text");
    assert!(what.contains("no-ci"), "{what}");
    assert!(!ran.exists());
}

#[test]
fn another_name_of_a_denied_program_is_denied() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = fs::canonicalize(place.path()).expect("a path");
    let (tool, link) = (root.join("tool"), root.join("link"));
    fs::copy("/bin/echo", &tool).expect("copied");
    fs::hard_link(&tool, &link).expect("a hard link");
    let file = PolicyFile::new(&format!(
        "default = \"allow\"\n[[rule]]\nid = \"no-tool\"\ndecision = \"deny\"\nprogram = {tool:?}\n"
    ));
    let server = file.server();
    let mut client = server.connect();
    for name in [&tool, &link] {
        let (rule, _) = forbidden(&mut client, "job.submit", json!({"argv": [name]}));
        assert_eq!(rule, "no-tool");
    }
    // A copy is another file.
    let copy = root.join("copy");
    fs::copy(&tool, &copy).expect("copied");
    let job = client.submit(json!({"argv": [copy]}));
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

#[test]
fn notices_go_to_the_urls_of_a_rule_alone() {
    let receiver = Receiver::answering(0, |_, _| {
        "500 Internal Server Error\r\nX: credential-in-the-answer\r\n".to_owned()
    });
    let rule = |urls: &str| {
        format!(
            "[[rule]]\nid = \"echo\"\ndecision = \"allow\"\nprogram = \"/bin/echo\"\nargs = []\n{urls}"
        )
    };
    let allowed = format!("notify_urls = [{:?}]\n", receiver.url("/hooks/"));
    let file = PolicyFile::new(&rule(""));
    let server = file.server();
    let mut client = server.connect();
    let job =
        |url: String| json!({"argv": ["echo"], "notify": [{"on": ["succeeded"], "url": url}]});
    let (_, error) = forbidden(&mut client, "job.submit", job(receiver.url("/hooks/a")));
    let text = error["message"].as_str().expect("a text");
    assert!(text.contains("notify_urls"), "{text}");
    forbidden(
        &mut client,
        "notice.test",
        json!({"url": receiver.url("/hooks/a")}),
    );
    file.write(&rule(&allowed));
    client.ok("policy.reload", json!({}));
    for other in ["/other", "/hooks/../other", "/hooksmore", "/"] {
        forbidden(&mut client, "job.submit", job(receiver.url(other)));
    }
    let other_port = job("http://127.0.0.1:1/hooks/a".to_owned());
    forbidden(&mut client, "job.submit", other_port);
    let told = client.submit(job(receiver.url("/hooks/a")));
    assert_eq!(client.finished(&told)["state"], "succeeded");
    receiver.wait_for(1);
    client.ok("notice.test", json!({"url": receiver.url("/hooks/a")}));
    // A URL that is not listed any more is not asked again.
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let later = client.submit(job(receiver.url("/hooks/later")));
    client.ok("queue.set", json!({"queue": "default", "paused": false}));
    assert_eq!(client.finished(&later)["state"], "succeeded");
    file.write(&rule(""));
    client.ok("policy.reload", json!({}));
    let params = json!({"job": later["id"]});
    until_true("the refusal to be stored", || {
        let notices = client.ok("notice.list", params.clone());
        let error = notices["notices"][0]["error"].as_str();
        error.is_some_and(|error| error.contains("no rule allows notices"))
    });
}

#[test]
fn a_command_of_a_notice_is_the_file_that_was_judged() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = fs::canonicalize(place.path()).expect("a path");
    let (tool, told) = (root.join("tool"), root.join("told"));
    // A script, which is executed by its descriptor.
    fs::write(
        &tool,
        format!("#!/bin/sh\ncat > {}\necho \"$0\" >> {0}\n", told.display()),
    )
    .expect("written");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).expect("a mode");
    let file = PolicyFile::new(&format!(
        "{ECHO}\n[[rule]]\nid = \"tell\"\ndecision = \"allow\"\nprogram = {tool:?}\nargs = []\n"
    ));
    let server = file.server();
    let mut client = server.connect();
    let notify = json!([{"on": ["succeeded"], "argv": [tool]}]);
    let job = client.submit(json!({"argv": ["echo"], "notify": notify}));
    client.finished(&job);
    until_true("the notice", || {
        fs::read_to_string(&told)
            .is_ok_and(|text| text.contains("job.succeeded") && text.contains("/fd/"))
    });
    client.ok("notice.test", json!({"argv": [tool]}));
    fs::remove_file(&tool).expect("removed");
    symlink("/bin/sh", &tool).expect("a link");
    forbidden(&mut client, "notice.test", json!({"argv": [tool]}));
}

#[test]
fn a_server_that_a_command_starts_has_the_policy_and_the_secrets_of_the_last_one() {
    let secrets = tempfile::tempdir().expect("a temporary directory");
    let token = secrets.path().join("token");
    fs::write(&token, "a-secret-value").expect("written");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a mode");
    let file = PolicyFile::new(&format!(
        "{ECHO}\n[[rule]]\nid = \"secret\"\ndecision = \"allow\"\nprogram = \"/usr/bin/printenv\"\n\
         args = [\"TOKEN\"]\nenv = [\"TOKEN\"]\nsecrets = [\"token\"]\n"
    ));
    let mut server = Server::stopped(&[], &[]);
    let policy = format!("CC_EXECUTOR_POLICY={}", file.path().display());
    let directory = format!("CC_EXECUTOR_SECRETS_DIR={}", secrets.path().display());
    server.under(&["env", &policy, &directory]);
    server.restart();
    let mut client = server.connect();
    let digest = client.ok("server.info", json!({}))["policy"]["digest"].clone();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let with_secret = json!({"argv": ["printenv", "TOKEN"], "env": {"TOKEN": {"secret": "token"}}});
    let job = client.submit(with_secret);
    let bad = client.submit(json!({"argv": ["echo", "bad"]}));
    file.write(&format!(
        "{}\n{}",
        fs::read_to_string(file.path()).expect("read"),
        "[[rule]]\nid = \"no-bad\"\ndecision = \"deny\"\nargs = [\"bad\"]\n"
    ));
    server.stop();

    // A verb that reads starts a server.
    let run = |words: &[&str]| server.cli(words[0]).args(&words[1..]).run();
    assert_eq!(run(&["ls"]).code(), 0);
    let refused = run(&["run", "--clean-env", "--", "/bin/ls"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.err().contains("policy"), "{}", refused.err());
    assert_eq!(run(&["queue", "set", "default", "--resume"]).code(), 0);
    let number = |job: &Value| job["number"].to_string();
    let wait = run(&["wait", &number(&job)]);
    assert_eq!(wait.code(), 0, "{}", wait.err());
    assert_ne!(run(&["wait", &number(&bad)]).code(), 0);
    let shown = run(&["show", &number(&bad), "--json"]).json();
    assert!(
        shown["spawn_error"]["what"]
            .as_str()
            .is_some_and(|what| what.contains("no-bad")),
        "{shown}"
    );
    assert_eq!(run(&["stop"]).code(), 0);

    // Where the policy cannot be loaded, nothing is started.
    let text = fs::read_to_string(file.path()).expect("read");
    fs::remove_file(file.path()).expect("removed");
    let failed = run(&["ls"]);
    assert_ne!(failed.code(), 0);
    let why = failed.err();
    assert!(
        why.contains("policy.toml") && why.contains("cc-executor serve"),
        "{why}"
    );
    assert_ne!(run(&["status"]).code(), 0);
    file.write(&text);

    // An operator may go on without; the trail and the log say so.
    server.under(&[]);
    server.restart();
    let mut client = server.connect();
    let entries = client.ok("audit.read", json!({"limit": 1000}));
    let of = |action: &str| -> Vec<Value> {
        let rows = entries["entries"].as_array().expect("entries").iter();
        let entries = rows.map(|row| row["entry"].clone());
        entries.filter(|entry| entry["action"] == action).collect()
    };
    let starts = of("server.start");
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert_eq!(starts[0]["result"]["policy"], digest);
    assert!(starts[1]["result"]["policy"].is_string());
    assert_eq!(starts[2]["result"]["policy"], Value::Null);
    assert_eq!(of("policy.cease").len(), 1);
    assert_eq!(of("secrets.cease").len(), 1);
    assert!(
        server.said_last().contains("had a policy"),
        "{}",
        server.said_last()
    );
    let job = client.submit(json!({"argv": ["/bin/ls"]}));
    assert_eq!(client.finished(&job)["state"], "succeeded");
    server.stop();
    // From then on it is forgotten.
    let allowed = server
        .cli("run")
        .args(["--clean-env", "--", "/bin/ls"])
        .run();
    assert_eq!(allowed.code(), 0, "{}", allowed.err());
    assert_eq!(server.cli("stop").run().code(), 0);
}
