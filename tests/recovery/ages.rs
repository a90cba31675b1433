//! Data directories of earlier versions: today's server opens them, serves every fact and byte that
//! their manifest names, and goes on where everything was killed.
//!
//! How they were made: `tests/fixtures/age/README.md`.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    harness::{Client, Transcript, sha256},
    scene::Scene,
};

/// What may have been shown and was not on disk when the power went: three segments of the default
/// size and one record, bytes.
const UNSYNCED_BYTES: u64 = 3 * (4 << 20) + (4 << 20);

/// An old data directory before the first start on it.
struct Age {
    scene: Scene,
    manifest: Value,
}

impl Age {
    fn of(version: &str) -> Self {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/age");
        let (scene, fixture) = (Scene::bare(&[]), fixtures.join(version));
        let data_dir = scene.layout.root().to_owned();
        let unpacked = Command::new("tar")
            .arg("-xzf")
            .arg(fixture.join("data.tar.gz"))
            .arg("-C")
            .arg(data_dir.parent().expect("a parent"))
            .status();
        assert!(unpacked.expect("tar").success());
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).expect("its own mode");
        let text = fs::read_to_string(fixture.join("manifest.json")).expect("a manifest");
        Self {
            scene,
            manifest: serde_json::from_str(&text).expect("JSON"),
        }
    }

    fn jobs(&self) -> &[Value] {
        self.manifest["jobs"].as_array().expect("jobs")
    }

    fn job(&self, what: &str) -> &Value {
        let found = self.jobs().iter().find(|job| job["what"] == what);
        found.unwrap_or_else(|| panic!("no job {what:?}"))
    }
}

/// Whether the job was final when everything was killed.
fn was_final(job: &Value) -> bool {
    !job["view"]["finished_at"].is_null()
}

/// What the first version showed of keys that were not built: always the same.
const NOT_BUILT: [&str; 6] = ["pty", "exclusive", "after", "run_at", "retry", "user"];

/// Every key of the old view has the old value; there may be new ones.
#[track_caller]
fn assert_still(job: &Value, now: &Value) {
    let view = job["view"].as_object().expect("a view").iter();
    for (key, value) in view.filter(|(key, _)| !NOT_BUILT.contains(&key.as_str())) {
        let what = format!("{key} of {}: {now}", job["what"]);
        match (key.as_str(), value) {
            // Here, too.
            ("output", Value::Object(policy)) => {
                let still = |(key, value): (&String, &Value)| &now["output"][key] == value;
                assert!(policy.iter().all(still), "{what}");
            }
            _ => assert_eq!(&now[key], value, "{what}"),
        }
    }
}

/// What was readable then is readable now, and nothing else.
#[track_caller]
fn assert_same_output(job: &Value, transcript: &Transcript) {
    let output = &job["output"];
    assert_eq!(
        sha256(&transcript.bytes),
        output["sha256"].as_str().expect("a digest")
    );
    assert_eq!(
        transcript.bytes.len(),
        output["bytes"].as_u64().expect("bytes") as usize
    );
}

fn bare(gaps: &[Value]) -> Value {
    let keys = |gap: &Value| json!({"from": gap["from"], "to": gap["to"], "reason": gap["reason"]});
    gaps.iter().map(keys).collect()
}

fn final_jobs_are_the_same(age: &Age, client: &mut Client) {
    for job in age.jobs().iter().filter(|job| was_final(job)) {
        assert_still(job, &client.get(job));
        let transcript = client.whole(job);
        assert_same_output(job, &transcript);
        assert_eq!(bare(&transcript.gaps), job["output"]["gaps"], "{job}");
        if transcript.gaps.is_empty() {
            transcript.verified();
        }
    }
}

/// `unsynced`: how long the gap of the power is.
fn interrupted_jobs_are_lost(age: &Age, client: &mut Client, unsynced: u64) {
    for what in [
        "running, in rows",
        "running, in segments",
        "paused",
        "running, before another",
    ] {
        let job = age.job(what);
        let transcript = client.whole(job);
        assert_same_output(job, &transcript);
        let end = transcript.end.clone().expect("an end");
        assert_eq!(
            (&end["state"], &end["reason"]),
            (&json!("failed"), &json!("lost")),
            "{what}"
        );
        assert_eq!(
            (&end["attempts"], &end["on_lost"]),
            (&json!(1), &json!("fail"))
        );
        assert_eq!(end["started_at"], job["view"]["started_at"]);
        let bytes = transcript.bytes.len() as u64;
        assert_eq!(end["output_bytes"], bytes + unsynced);
        match unsynced {
            0 => assert_eq!(transcript.verified()["survivors"], json!([])),
            _ => {
                let gap = json!([{"from": bytes, "to": bytes + unsynced, "reason": "power_loss"}]);
                assert_eq!(bare(&transcript.gaps), gap, "{what}");
            }
        }
    }
}

fn an_end_that_only_paper_knows_is_entered(age: &Age, client: &mut Client) {
    let transcript = client.whole(age.job("ended without a server"));
    assert_eq!(transcript.bytes, b"before\nafter\n");
    let end = transcript.verified();
    assert_eq!(
        (&end["reason"], &end["exit_code"]),
        (&json!("exit_code"), &json!(9))
    );
}

fn queues_are_the_same(age: &Age, client: &mut Client) {
    let now = client.ok("queue.list", json!({}));
    let now = now["queues"].as_array().expect("queues");
    for queue in age.manifest["queues"].as_array().expect("queues") {
        let same = now
            .iter()
            .find(|now| now["queue"] == queue["queue"])
            .expect("still there");
        for key in ["concurrency", "paused", "weight", "defaults"] {
            assert_eq!(same[key], queue[key], "{key} of {queue}");
        }
    }
}

fn keys_name_the_same_jobs(age: &Age, client: &mut Client) {
    for (what, key, queue) in [
        ("key, final", "of a final job", "default"),
        ("key, queued", "of a queued job", "held"),
    ] {
        let mut job = json!({"shell": "echo keyed", "cwd": "/", "umask": "077", "queue": queue,
                             "idempotency_key": key});
        let again = client.ok("job.submit", job.clone());
        assert_eq!(again["created"], false, "{what}");
        assert_eq!(again["job"]["id"], age.job(what)["id"]);
        job["on_lost"] = json!("retry");
        client.refused(-32004, "job.submit", job);
    }
}

fn waiting_jobs_run(age: &Age, client: &mut Client) {
    for what in ["queued", "key, queued", "inputs"] {
        assert_still(age.job(what), &client.get(age.job(what)));
    }
    client.ok("queue.set", json!({"queue": "held", "paused": false}));
    for (what, output, code) in [
        ("behind it", "behind\n", 0),
        ("queued", "waited\n", 3),
        ("key, queued", "keyed\n", 0),
        ("inputs", "kept for the start\nand the end\n", 0),
    ] {
        let transcript = client.whole(age.job(what));
        assert_eq!(transcript.bytes, output.as_bytes(), "{what}");
        assert_eq!(transcript.verified()["exit_code"], code);
    }
}

fn numbers_go_on(age: &Age, client: &mut Client) {
    client.refused(-32003, "job.get", json!({"job": 13}));
    let numbers = age.jobs().iter().filter_map(|job| job["number"].as_i64());
    let job = client.submit(json!({"argv": ["true"]}));
    assert!(job["number"].as_i64() > numbers.max(), "{job}");
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

fn everything_is_there(age: &Age, client: &mut Client, unsynced: u64) {
    final_jobs_are_the_same(age, client);
    interrupted_jobs_are_lost(age, client, unsynced);
    an_end_that_only_paper_knows_is_entered(age, client);
    queues_are_the_same(age, client);
    keys_name_the_same_jobs(age, client);
    waiting_jobs_run(age, client);
    numbers_go_on(age, client);
}

/// Whoever unpacks it has another boot: the machine on which it was made is gone.
#[test]
fn the_first_version_after_a_reboot() {
    let mut age = Age::of("0.1.0");
    // On the machine where it was made, too.
    age.scene.set_boot_ids();
    let mut client = age.scene.start();
    everything_is_there(&age, &mut client, UNSYNCED_BYTES);
    // Whatever was tidied and migrated, the next start finds it again.
    age.scene.server.kill_9();
    let mut client = age.scene.start();
    final_jobs_are_the_same(&age, &mut client);
    interrupted_jobs_are_lost(&age, &mut client, UNSYNCED_BYTES);
}

/// The same as an upgrade meets it: the machine has been up all the time.
#[test]
fn the_first_version_on_the_same_boot() {
    let mut age = Age::of("0.1.0");
    age.scene.set_this_boot();
    let mut client = age.scene.start();
    everything_is_there(&age, &mut client, 0);
}
