//! Jobs that have become root under a server that is not: what the kernel refuses is told, and decides
//! nothing. Needs root, which lends the job a program that changes its user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::harness::{Client, Server, is_alive, until, until_true};

/// nobody, of whom nothing is expected.
const NOBODY: u32 = 65_534;

/// A server of another user, and a program that makes itself root.
struct Place {
    server: Server,
    setuid: PathBuf,
}

impl Place {
    /// `None`, and a word why, where that cannot be tried.
    fn new() -> Option<Self> {
        let program = ["/usr/bin/setpriv", "/bin/setpriv"].map(PathBuf::from);
        let program = program.into_iter().find(|path| path.exists());
        let Some(program) = program.filter(|_| nix::unistd::geteuid().is_root()) else {
            eprintln!("SKIPPED: only root can lend a program, and there must be setpriv");
            return None;
        };
        let mut server = Server::stopped(&[], &[]);
        let home = server.scratch("");
        chown(&home, Some(NOBODY), Some(NOBODY)).expect("given to nobody");
        let setuid = server.scratch("setuid");
        fs::copy(program, &setuid).expect("copied");
        fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).expect("setuid");
        let id = NOBODY.to_string();
        server.under(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        server.restart();
        Some(Self { server, setuid })
    }

    /// The words of a job that is root, says so, and ends with 0 once the gate is there.
    fn rooted(&self) -> Vec<String> {
        let line = format!(
            "trap '' TERM; id -u; while [ ! -e {} ]; do sleep 0.05; done; exit 0",
            self.gate().display()
        );
        let setuid = self.setuid.to_str().expect("UTF-8");
        let words = [setuid, "--reuid", "0", "--regid", "0", "--clear-groups"];
        let line = ["sh", "-c", &line];
        words
            .iter()
            .chain(&line)
            .map(|&word| word.to_owned())
            .collect()
    }

    fn gate(&self) -> PathBuf {
        self.server.scratch("gate")
    }

    fn open(&self) {
        fs::write(self.gate(), "").expect("the gate");
    }

    /// Submits a job and waits until it is root; `None` where it does not become it (nosuid).
    fn submit(&self, client: &mut Client, job: Value) -> Option<Value> {
        let job = client.submit(self.server.marked(job));
        let read = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
        let read = client.ok("job.read", read);
        if read["chunks"][0]["data"] == "0\n" {
            return Some(job);
        }
        eprintln!("SKIPPED: nobody becomes root here: {read}");
        self.open();
        client.finished(&job);
        None
    }
}

#[test]
fn a_cancel_that_the_kernel_refuses_is_not_told_as_done() {
    let Some(place) = Place::new() else { return };
    let mut client = place.server.connect();
    let job = json!({"argv": place.rooted(), "grace_s": 0.1});
    let Some(job) = place.submit(&mut client, job) else {
        return;
    };
    client.control(&job, "cancel");
    until_true("the refusal", || {
        client.get(&job)["stop"]["refused"][0]["pid"].is_i64()
    });
    client.control(&job, "kill");
    let stop = client.get(&job)["stop"].clone();
    assert!(stop["refused"][0]["comm"].is_string(), "{stop}");
    assert_eq!(client.get(&job)["state"], "running");
    assert!(place.server.said().contains("EPERM"), "told in the log");
    place.open();
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["exit_code"]),
        (&json!("succeeded"), &json!(0))
    );
    let stop = &end["stop"];
    assert_eq!(
        (&stop["signals"], &stop["killed"]),
        (&json!([]), &json!(false))
    );
    assert!(stop["refused"][0]["pid"].is_i64(), "{stop}");
    let shown = place.server.cli("show").args(["last"]).run().out();
    assert!(shown.contains("EPERM"), "{shown}");
}

#[test]
fn a_limit_that_the_kernel_refuses_decides_nothing() {
    let Some(place) = Place::new() else { return };
    let mut client = place.server.connect();
    let job = json!({"argv": place.rooted(), "timeout_s": 0.2, "grace_s": 0.1});
    let Some(job) = place.submit(&mut client, job) else {
        return;
    };
    until_true("the refusal", || place.server.said().contains("EPERM"));
    place.open();
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(end["stop"]["cause"], "timeout", "{end}");
}

#[test]
fn a_pause_that_the_kernel_refuses_is_a_conflict() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let mut client = place.server.connect();
    let Some(job) = place.submit(&mut client, json!({"argv": place.rooted()})) else {
        return;
    };
    let pause = json!({"job": job["id"], "action": "pause"});
    for _ in 0..2 {
        let error = client.refused(-32004, "job.control", pause.clone());
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("EPERM"), "{message}");
        assert_eq!(client.get(&job)["state"], "running");
    }
    // Nobody wishes it any more.
    place.server.kill_9();
    place.server.restart();
    let mut client = place.server.connect();
    assert_eq!(client.get(&job)["state"], "running");
    place.open();
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded", "{end}");
    let paused = place.server.said().matches("be paused").count();
    assert_eq!(paused, 0, "it was not tried again after the restart");
}

#[test]
fn what_a_cancelled_leader_leaves_to_root_is_named() {
    let Some(place) = Place::new() else { return };
    let mut client = place.server.connect();
    let words: Vec<_> = place
        .rooted()
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
        .collect();
    let line = format!("{} & wait", words.join(" "));
    let Some(job) = place.submit(&mut client, json!({"shell": line, "grace_s": 0.1})) else {
        return;
    };
    client.control(&job, "cancel");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled", "{end}");
    assert_eq!(end["stop"]["signals"], json!(["SIGTERM"]), "{end}");
    assert_eq!(end["stop"]["killed"], false, "{end}");
    let survivor = end["survivors"][0]["pid"].as_i64().expect("a survivor") as i32;
    assert!(is_alive(survivor));
    let refused = end["stop"]["refused"].as_array().expect("a list");
    assert!(refused.iter().any(|r| r["pid"] == survivor), "{end}");
    place.open();
    until("it has ended", || (!is_alive(survivor)).then_some(()));
}
