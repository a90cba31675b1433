//! `audit`: a real trail is exported and verified, and every manipulation of a real database or file is found.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{BINARY, Finished, Server, until, until_true};

/// A server whose checkpoints go to a file outside of its data directory.
struct Scene {
    server: Server,
    place: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let checkpoints = place.path().join("checkpoints");
        let checkpoints = checkpoints.to_str().expect("text");
        let args = [
            "--audit-checkpoints",
            checkpoints,
            "--audit-checkpoint-s",
            "1",
            "--audit-key-s",
            "2",
        ];
        Self {
            server: Server::with(&args, &[]),
            place,
        }
    }

    /// One that has run three jobs, and was stopped: its last checkpoint covers everything.
    fn stopped() -> Self {
        let mut scene = Self::start();
        scene.work();
        scene.stop();
        scene
    }

    fn work(&mut self) {
        let mut client = self.server.connect();
        for word in ["one", "two", "three"] {
            let job = client.submit(json!({"argv": ["echo", word]}));
            client.finished(&job);
        }
    }

    fn stop(&mut self) {
        let (status, _) = self.server.stop();
        assert!(status.success());
    }

    fn checkpoints(&self) -> PathBuf {
        self.place.path().join("checkpoints")
    }

    fn database(&self) -> PathBuf {
        self.server.data_dir().join("cc-executor.db")
    }

    /// Verifies the data directory with the checkpoints.
    fn verify(&self) -> Finished {
        let checkpoints = self.checkpoints();
        let checkpoints = checkpoints.to_str().expect("text");
        let verify = self.server.cli("audit");
        verify.args(["verify", "--checkpoints", checkpoints]).run()
    }

    #[track_caller]
    fn intact(&self) {
        let done = self.verify();
        assert_eq!(done.code(), 0, "{}{}", done.out(), done.err());
    }

    /// A finding says this.
    #[track_caller]
    fn found(&self, what: &str) {
        let done = self.verify();
        let said = done.out();
        assert_eq!(done.code(), 1, "{said}{}", done.err());
        assert!(said.contains(what), "{what}: {said}");
        assert!(said.contains("NOT intact"), "{said}");
    }

    /// Changes the database of the stopped server by a plain `sqlite3`; returns what it prints.
    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        let mut command = Command::new("sqlite3");
        let asked = command.arg("-bail").arg(self.database()).arg(sql).output();
        let output = asked.expect("sqlite3 is installed (scripts/test does it)");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{sql}: {said}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// The number of the n-th entry of this action.
    #[track_caller]
    fn seq(&self, action: &str, nth: u32) -> u64 {
        let sql = format!(
            "SELECT seq FROM audit WHERE entry ->> 'action' = '{action}' ORDER BY seq LIMIT 1 OFFSET {nth}"
        );
        self.sql(&sql).parse().expect("an entry")
    }

    /// Exports the trail of the running server.
    fn export(&self) -> PathBuf {
        let file = self.place.path().join("trail.jsonl");
        let path = file.to_str().expect("text");
        let export = self.server.cli("audit");
        let done = export.args(["export", "--force", "-o", path]).run();
        assert_eq!(done.code(), 0, "{}", done.err());
        file
    }
}

/// Verifies a file on another machine: there is no data directory.
fn verify_file(file: &Path, words: &[&str]) -> (i32, String) {
    let output = Command::new(BINARY)
        .args(["audit", "verify"])
        .arg(file)
        .args(words)
        .env_remove("CC_EXECUTOR_DATA_DIR")
        .env("HOME", "/nonexistent")
        .env_remove("XDG_STATE_HOME")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("an exit code"), said + &err)
}

/// A key that no server has.
fn other_key() -> String {
    let signer = cc_executor::audit::NoteSigner::of_seed("cc-executor.audit/x", [1; 32]);
    signer.expect("a key").key().to_string()
}

#[test]
fn an_exported_trail_is_verified_on_another_machine() {
    let mut scene = Scene::start();
    scene.work();
    let covered = |text: &str| text.matches("\nat ").count() >= 2;
    until_true("checkpoints", || {
        fs::read_to_string(scene.checkpoints()).is_ok_and(|text| covered(&text))
    });
    let file = scene.export();
    let checkpoints = scene.checkpoints();
    let checkpoints = checkpoints.to_str().expect("text");
    let (code, said) = verify_file(&file, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("without checkpoints"), "{said}");
    // Checkpoints that came after the export are of a longer trail.
    let until_then = fs::read_to_string(checkpoints).expect("checkpoints");
    let file = scene.export();
    let kept = scene.place.path().join("kept");
    fs::write(&kept, until_then).expect("written");
    let kept = kept.to_str().expect("text");
    let (code, said) = verify_file(&file, &["--checkpoints", kept, "--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &report["intact"]), (0, &json!(true)), "{said}");
    assert!(report["checkpoints"].as_u64() >= Some(2), "{said}");
    let key = report["first_key"].as_str().expect("a key");
    assert_eq!(verify_file(&file, &["--key", key]).0, 0);
    let other = &other_key();
    let (code, said) = verify_file(&file, &["--key", other]);
    assert!(code != 0, "{said}");

    // Every line, changed by itself, is found; so is a cut.
    let text = fs::read_to_string(&file).expect("the trail");
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[String]| fs::write(&file, lines.join("\n") + "\n").expect("written");
    let owned = || {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    for at in 0..lines.len() {
        let mut changed = owned();
        let digit = changed[at]
            .rfind(|c: char| c.is_ascii_digit())
            .expect("a digit");
        let other = if changed[at].as_bytes()[digit] == b'0' {
            "1"
        } else {
            "0"
        };
        changed[at].replace_range(digit..=digit, other);
        write(&changed);
        let (code, said) = verify_file(&file, &[]);
        assert_eq!(code, 1, "line {at}: {said}");
        let mut cut = owned();
        cut.remove(at);
        write(&cut);
        let (code, said) = verify_file(&file, &[]);
        assert_eq!(code, 1, "without line {at}: {said}");
    }
    write(&owned());
    assert_eq!(verify_file(&file, &[]).0, 0);
}

#[test]
fn a_part_of_a_trail_and_events_for_a_siem_are_exported() {
    let mut scene = Scene::start();
    scene.work();
    let export = |words: &[&str]| {
        let done = scene.server.cli("audit").args(["export"]).args(words).run();
        assert_eq!(done.code(), 0, "{}", done.err());
        done.out()
    };
    let all = export(&[]).lines().count();
    let none = export(&["--since", "2999-01-01T00:00:00Z"]);
    assert!(none.lines().count() < all, "{none}");
    let file = scene.place.path().join("part");
    fs::write(&file, export(&["--since", "1h"])).expect("written");
    let (code, said) = verify_file(&file, &[]);
    assert_eq!(code, 0, "{said}");
    let events = export(&["--format", "ocsf"]);
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |class: u64| {
        events
            .iter()
            .filter(|event| event["class_uid"] == class)
            .count()
    };
    assert_eq!(of(1007), 3);
    assert!(of(6003) >= 4 && of(1007) + of(6003) == events.len());
}

#[test]
fn a_stopped_directory_is_verified_and_nothing_in_it_changes() {
    let scene = Scene::stopped();
    let bytes = || fs::read(scene.database()).expect("the database");
    let before = bytes();
    scene.intact();
    assert!(before == bytes());
    let names = fs::read_dir(scene.server.data_dir()).expect("listed");
    let mut names = names.map(|entry| entry.expect("an entry").file_name());
    assert!(!names.any(|name| name.to_string_lossy().contains("-wal")));
}

#[test]
fn a_flip_a_deletion_an_insertion_and_a_swap_are_found() {
    let scene = Scene::stopped();
    let original = fs::read(scene.database()).expect("the database");
    let again = || fs::write(scene.database(), &original).expect("written");
    let seq = scene.seq("job.submit", 1);

    scene.sql(&format!(
        "UPDATE audit SET entry = replace(entry, 'default', 'Default') WHERE seq = {seq}"
    ));
    scene.found(&format!(
        "entry {seq}: its hash does not belong to its content"
    ));

    again();
    scene.sql(&format!("DELETE FROM audit WHERE seq = {seq}"));
    scene.found(&format!("entry {seq} is missing"));

    again();
    scene.sql(&format!(
        "UPDATE audit SET seq = seq + 1000000 WHERE seq >= {seq};
         UPDATE audit SET seq = seq - 999999 WHERE seq > 1000000;
         INSERT INTO audit SELECT {seq}, at, entry, hash FROM audit WHERE seq = 1"
    ));
    scene.found(&format!(
        "entry {seq}: it names the number 1: it was moved or changed"
    ));

    again();
    let next = seq + 1;
    scene.sql(&format!(
        "UPDATE audit SET seq = 1000000 WHERE seq = {seq};
         UPDATE audit SET seq = {seq} WHERE seq = {next};
         UPDATE audit SET seq = {next} WHERE seq = 1000000"
    ));
    scene.found(&format!("entry {seq}: it names the number {next}"));

    again();
    scene.intact();
}

#[test]
fn a_trail_that_was_written_anew_and_a_cut_end_are_found_by_checkpoints() {
    let scene = Scene::stopped();
    let seq = scene.seq("job.submit", 1);
    scene.sql(&format!(
        "UPDATE audit SET entry = replace(entry, 'default', 'Default') WHERE seq = {seq}"
    ));
    // All hashes from there on are made anew.
    let rows = scene.sql("SELECT seq || ' ' || hex(hash) || ' ' || entry FROM audit ORDER BY seq");
    let (mut prev, mut anew) = (vec![0; 32], String::new());
    for row in rows.lines() {
        let mut parts = row.splitn(3, ' ');
        let (seq, entry) = (parts.next().expect("seq"), parts.nth(1).expect("an entry"));
        prev = sha256_of(&[prev.as_slice(), entry.as_bytes()].concat());
        let hash: String = prev.iter().map(|byte| format!("{byte:02x}")).collect();
        anew += &format!("UPDATE audit SET hash = x'{hash}' WHERE seq = {seq};");
    }
    let before = scene.sql("SELECT hex(hash) FROM audit ORDER BY seq DESC LIMIT 1");
    scene.sql(&anew);
    let after = scene.sql("SELECT hex(hash) FROM audit ORDER BY seq DESC LIMIT 1");
    assert_ne!(before, after);
    scene.found("has another hash");
    let without = scene.server.cli("audit").args(["verify"]).run();
    assert_eq!(
        without.code(),
        0,
        "the chain itself is whole: {}",
        without.out()
    );

    let scene = Scene::stopped();
    scene.sql("DELETE FROM audit WHERE seq > (SELECT max(seq) FROM audit) - 2");
    scene.found("checkpoints say that it was longer");
}

fn sha256_of(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

#[test]
fn yesterdays_backup_that_was_put_back_is_found() {
    let mut scene = Scene::stopped();
    let yesterday = fs::read(scene.database()).expect("the database");
    let key = scene.server.data_dir().join("audit.key");
    let yesterdays_key = fs::read(&key).expect("the key");
    scene.server.restart();
    scene.work();
    let export = scene.export();
    scene.stop();
    scene.intact();
    fs::write(scene.database(), &yesterday).expect("put back");
    fs::write(&key, &yesterdays_key).expect("put back");
    scene.found("checkpoints say that it was longer");
    // Without checkpoints a later export finds it.
    let export = export.to_str().expect("text");
    let done = scene.server.cli("audit").args(["verify", export]).run();
    assert_eq!(done.code(), 1, "{}", done.out());
    assert!(
        done.out().contains("an older copy was put back"),
        "{}",
        done.out()
    );
    // It goes on from there, beyond all checkpoints.
    for _ in 0..3 {
        scene.server.restart();
        scene.work();
        scene.stop();
    }
    scene.found("has another hash");
}

#[test]
fn two_servers_on_copies_are_found() {
    let mut scene = Scene::stopped();
    let copy = scene.server.scratch("copy");
    let copied = Command::new("cp")
        .args(["-a"])
        .args([scene.server.data_dir(), copy.clone()])
        .status();
    assert!(copied.expect("cp").success());
    let checkpoints = scene.checkpoints();
    let checkpoints = ["--audit-checkpoints", checkpoints.to_str().expect("text")];
    let mut other = Server::stopped(&checkpoints, &[]).within(&copy);
    other.restart();
    scene.server.restart();
    scene.work();
    let mut client = other.connect();
    let job = client.submit(json!({"argv": ["echo", "other"]}));
    client.finished(&job);
    other.stop();
    scene.stop();
    scene.found("of two copies of a data directory");
    // Of each by itself nothing is wrong.
    let alone = scene.server.cli("audit").args(["verify"]).run();
    assert_eq!(alone.code(), 0, "{}", alone.out());
}

#[test]
fn stored_output_that_was_changed_is_found_with_and_without_its_digest() {
    let scene = Scene::stopped();
    scene.sql("UPDATE output_chunks SET data = CAST('tWo' || char(10) AS BLOB) WHERE job = 2");
    scene.found("the stored output of job 2 was changed: its SHA-256 is");
    let digest: String = sha256_of(b"tWo\n")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    scene.sql(&format!(
        "UPDATE jobs SET output_sha256 = '{digest}' WHERE number = 2;
         UPDATE attempts SET output_sha256 = '{digest}' WHERE job = 2"
    ));
    scene.found("the row of job 2 was changed: output_sha256 is");

    let scene = Scene::stopped();
    scene.sql(
        "UPDATE jobs SET exit_code = 1, state = 'failed', reason = 'exit_code' WHERE number = 3",
    );
    scene.found("the row of job 3 was changed: exit_code is 1");

    let scene = Scene::stopped();
    scene.sql("UPDATE jobs SET spec = replace(spec, 'three', 'four') WHERE number = 3");
    scene.found("job 3 has another command or directory than was submitted");

    let scene = Scene::stopped();
    scene.sql("DELETE FROM output_chunks WHERE job = 1; DELETE FROM attempts WHERE job = 1; DELETE FROM jobs WHERE number = 1");
    scene.found("job 1, whose end this is, is gone");
}

#[test]
fn what_was_removed_by_its_clients_is_no_finding() {
    let mut scene = Scene::start();
    scene.work();
    let mut client = scene.server.connect();
    client.ok("job.delete", json!({"job": 1}));
    client.ok(
        "job.prune",
        json!({"keep_newest": 1, "dry_run": false, "outputs": true}),
    );
    client.ok("job.prune", json!({"keep_newest": 1, "dry_run": false}));
    scene.stop();
    scene.intact();
    assert_eq!(scene.sql("SELECT count(*) FROM jobs"), "1");
}

#[test]
fn a_kill_leaves_the_chain_whole() {
    let mut scene = Scene::start();
    for round in 0..4 {
        let mut client = scene.server.connect();
        let begun: Vec<i64> = (0..20)
            .map(|nth| {
                client.begin(
                    "job.submit",
                    json!({"argv": ["echo", format!("{round}-{nth}")]}),
                )
            })
            .collect();
        // In the middle of it: some are acknowledged, some are not.
        client.reply(begun[round * 5]).expect("acknowledged");
        scene.server.kill_9();
        scene.server.restart();
    }
    let mut client = scene.server.connect();
    until("the jobs to end", || {
        let info = client.ok("server.info", json!({}));
        let live = ["scheduled", "blocked", "queued", "running"];
        let live = live
            .iter()
            .map(|state| info["counts"][state].as_u64().unwrap_or(0));
        (live.sum::<u64>() == 0).then_some(())
    });
    // Beside the running server, too.
    let done = scene.server.cli("audit").args(["verify"]).run();
    assert_eq!(done.code(), 0, "{}{}", done.out(), done.err());
    scene.stop();
    scene.intact();
    let jobs: u64 = scene
        .sql("SELECT count(*) FROM jobs")
        .parse()
        .expect("a number");
    let ends = "SELECT count(*) FROM audit WHERE entry ->> 'action' = 'job.end'";
    assert_eq!(scene.sql(ends), jobs.to_string());
}

#[test]
fn old_entries_are_pruned_and_the_rest_is_whole() {
    let mut scene = Scene::stopped();
    let last = scene.sql("SELECT max(seq) FROM audit");
    // A year and a half ago: only the time of the rows decides, and a hash covers the entry's own.
    scene.sql("UPDATE audit SET at = at - 47304000000000");
    scene.server.restart();
    let mut client = scene.server.connect();
    let first = until("the pruning", || {
        let page = client.ok("audit.read", json!({"limit": 1}));
        page["after"].as_u64().filter(|after| *after > 0)
    });
    assert_eq!(first.to_string(), last);
    scene.work();
    let file = scene.export();
    // The key that was noted when the server was new still counts, though its entry is pruned.
    let key = scene.sql("SELECT key FROM audit_keys ORDER BY seq LIMIT 1");
    let (code, said) = verify_file(&file, &["--key", &key]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("were pruned, as entry"), "{said}");
    scene.stop();
    scene.intact();
    scene.sql(
        "UPDATE audit_base SET seq = seq + 1, hash = (SELECT hash FROM audit ORDER BY seq LIMIT 1);
               DELETE FROM audit WHERE seq = (SELECT min(seq) FROM audit)",
    );
    scene.found("no entry says that they were pruned");
}

#[test]
fn a_sink_that_fails_is_told_of_and_tried_again() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("missing/checkpoints");
    let args = [
        "--audit-checkpoints",
        file.to_str().expect("text"),
        "--audit-checkpoint-s",
        "1",
    ];
    let server = Server::with(&args, &[]);
    let mut client = server.connect();
    let error = until("the failure", || {
        let info = client.ok("server.info", json!({}));
        info["audit"]["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("missing/checkpoints"), "{error}");
    assert!(
        server
            .cli("status")
            .run()
            .out()
            .contains("no checkpoint could be made")
    );
    let health = server.get("/health");
    assert!(
        format!("{health:?}").contains("\\\"ok\\\":false")
            || format!("{health:?}").contains("\"ok\":false")
    );
    fs::create_dir(place.path().join("missing")).expect("made");
    until_true("a checkpoint", || file.exists());
    until_true("the recovery", || {
        client.ok("server.info", json!({}))["audit"]["error"].is_null()
    });
}

#[test]
fn a_command_gets_checkpoints() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("notes");
    let script = place.path().join("sink");
    fs::write(&script, format!("#!/bin/sh\ncat >> {}\n", file.display())).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("a mode");
    let sink = format!("command:{}", script.display());
    let mut server = Server::with(&["--audit-checkpoints", &sink], &[]);
    server.stop();
    let notes = fs::read_to_string(&file).expect("notes");
    assert!(notes.contains("cc-executor.audit/"), "{notes}");
    let path = file.to_str().expect("text");
    let done = server
        .cli("audit")
        .args(["verify", "--checkpoints", path])
        .run();
    assert_eq!(done.code(), 0, "{}", done.out());
}

#[test]
fn wrong_sinks_are_refused() {
    let server = Server::stopped(&[], &[]);
    for wrong in ["relative", "command:", "command: ", ""] {
        let serve = server.cli("serve").args(["--audit-checkpoints", wrong]);
        let done = serve.args(["--listen", "none"]).run();
        assert_eq!(done.code(), 1, "{wrong}");
        assert!(
            done.err().contains("audit_checkpoints") || done.err().contains("audit-checkpoints"),
            "{}",
            done.err()
        );
    }
}

/// The lines of a file.
fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("the trail");
    text.lines().map(str::to_owned).collect()
}

fn write_lines(file: &Path, lines: &[String]) {
    fs::write(file, lines.join("\n") + "\n").expect("written");
}

/// The first lines of an export of the stopped server that begins after the entry `seq`.
fn begin_after(scene: &Scene, seq: u64, part: bool) -> Vec<String> {
    let (key, hash) = (key_at(scene, seq), hash_of(scene, seq));
    let begin = json!({"trail": {"after": seq, "hash": hash, "key": key, "part": part, "v": 1}});
    let past = scene.sql(&format!(
        "SELECT json_object('key', json_object('key', key, 'seq', seq, 'signature', signature))
         FROM audit_keys WHERE seq <= {seq} ORDER BY seq"
    ));
    let mut lines = vec![begin.to_string()];
    lines.extend(past.lines().map(str::to_owned));
    lines
}

fn key_at(scene: &Scene, seq: u64) -> Option<String> {
    let sql = format!("SELECT key FROM audit_keys WHERE seq <= {seq} ORDER BY seq DESC LIMIT 1");
    let key = scene.sql(&sql);
    (!key.is_empty()).then_some(key)
}

fn hash_of(scene: &Scene, seq: u64) -> String {
    scene.sql(&format!(
        "SELECT lower(hex(hash)) FROM audit WHERE seq = {seq}"
    ))
}

#[test]
fn a_trail_that_the_checkpoints_do_not_confirm_is_not_intact() {
    let scene = Scene::stopped();
    let checkpoints = scene.checkpoints();
    let checkpoints = checkpoints.to_str().expect("text");
    let mut server = Server::stopped(&[], &[]);
    server.restart();
    let trail = scene.place.path().join("trail.jsonl");
    let path = trail.to_str().expect("text");
    let export = server.cli("audit").args(["export", "-o", path]).run();
    assert_eq!(export.code(), 0, "{}", export.err());
    // Another server's trail, whole and consistent, and the real checkpoints and key.
    let key = scene.sql("SELECT key FROM audit_keys ORDER BY seq LIMIT 1");
    let (code, said) = verify_file(&trail, &["--checkpoints", checkpoints]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("NOT confirmed") && said.contains("say nothing about it"),
        "{said}"
    );
    let (code, said) = verify_file(&trail, &["--checkpoints", checkpoints, "--key", &key]);
    assert_eq!(code, 1, "{said}");
    // Invented from the first line on.
    for (after, part) in [
        ("1000", true),
        ("1000", false),
        ("18446744073709551615", true),
    ] {
        let begin = format!(
            "{{\"trail\":{{\"after\":{after},\"hash\":\"{}\",\"key\":\"{key}\",\"part\":{part},\"v\":1}}}}",
            "07".repeat(32)
        );
        let end = format!(
            "{{\"end\":{{\"hash\":\"{}\",\"seq\":{after}}}}}",
            "07".repeat(32)
        );
        write_lines(&trail, &[begin, end]);
        let words = ["--part", "--checkpoints", checkpoints, "--key", &key];
        let (code, said) = verify_file(&trail, &words);
        assert_eq!(code, 1, "{said}");
        assert!(
            !said.contains("\nintact") && !said.starts_with("intact"),
            "{said}"
        );
    }
}

#[test]
fn a_beginning_that_was_removed_is_found() {
    let mut scene = Scene::stopped();
    let key = scene.sql("SELECT key FROM audit_keys ORDER BY seq LIMIT 1");
    // All checkpoints are of entries that the export has.
    let notes = scene.place.path().join("notes");
    fs::copy(scene.checkpoints(), &notes).expect("copied");
    let notes = notes.to_str().expect("text");
    scene.server.restart();
    let trail = scene.export();
    scene.stop();
    let whole = lines_of(&trail);
    let words = ["--checkpoints", notes, "--key", &key];
    let with_part = ["--checkpoints", notes, "--key", &key, "--part"];
    let (code, said) = verify_file(&trail, &words);
    assert_eq!(code, 0, "{said}");

    let last = scene.seq("job.submit", 1);
    let rest = || whole[usize::try_from(last).expect("small") + 1..].to_vec();
    write_lines(&trail, &[begin_after(&scene, last, true), rest()].concat());
    let (code, said) = verify_file(&trail, &words);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("verify it with --part"), "{said}");
    let (code, said) = verify_file(&trail, &with_part);
    assert_eq!(code, 0, "{said}");
    let part = format!("it is a part: it does not hold entries 1 to {last}");
    assert!(said.contains(&part), "{said}");
    write_lines(&trail, &[begin_after(&scene, last, false), rest()].concat());
    let (code, said) = verify_file(&trail, &with_part);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("no entry says that they were pruned"),
        "{said}"
    );
}

#[test]
fn a_pruning_that_no_checkpoint_covers_is_found() {
    let scene = Scene::stopped();
    let last = scene.seq("job.submit", 1);
    let (hash, key) = (hash_of(&scene, last), key_at(&scene, last));
    let head = scene.sql("SELECT seq || ' ' || hex(hash) FROM audit ORDER BY seq DESC LIMIT 1");
    let (seq, before) = head.split_once(' ').expect("two words");
    let seq: u64 = seq.parse::<u64>().expect("a number") + 1;
    let entry = json!({
        "action": "audit.prune", "actor": {"name": "server"}, "at": 1, "decision": "allowed",
        "door": "server", "result": {"hash": hash, "key": key, "through": last}, "seq": seq,
        "target": {}, "v": 1,
    })
    .to_string();
    let before: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&before[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    let forged: String = sha256_of(&[&before, entry.as_bytes()].concat())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    scene.sql(&format!(
        "DELETE FROM audit WHERE seq <= {last};
         UPDATE audit_base SET seq = {last}, hash = x'{hash}';
         INSERT INTO audit VALUES ({seq}, 1, '{entry}', x'{forged}')"
    ));
    let done = scene.verify();
    assert_eq!(done.code(), 1, "{}", done.out());
    let why = format!("no checkpoint covers entry {seq}");
    assert!(done.out().contains(&why), "{}", done.out());
    let alone = scene.server.cli("audit").args(["verify"]).run();
    let why = "without checkpoints nothing confirms it";
    assert!(alone.out().contains(why), "{}", alone.out());
}

#[test]
fn a_part_follows_from_the_first_key_after_the_key_was_replaced() {
    let mut scene = Scene::start();
    scene.work();
    let mut client = scene.server.connect();
    let keys = |client: &mut crate::harness::Client| {
        let page = client.ok("audit.read", json!({"limit": 1000}));
        let entries = page["entries"].as_array().expect("entries").clone();
        let keys = entries
            .into_iter()
            .filter(|row| row["entry"]["action"] == "audit.key");
        keys.map(|row| row["entry"].clone()).collect::<Vec<_>>()
    };
    let made = until("three keys", || {
        let job = client.submit(json!({"argv": ["true"]}));
        client.finished(&job);
        let keys = keys(&mut client);
        (keys.len() >= 3).then_some(keys)
    });
    let first = made[0]["result"]["key"].as_str().expect("a key");
    let at = made[2]["at"].as_i64().expect("a time");
    let since = chrono::DateTime::from_timestamp_micros(at + 1).expect("a time");
    let since = since.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let part = scene.place.path().join("part.jsonl");
    let path = part.to_str().expect("text");
    let export = scene.server.cli("audit");
    let done = export.args(["export", "--since", &since, "-o", path]).run();
    assert_eq!(done.code(), 0, "{}", done.err());
    let (code, said) = verify_file(&part, &["--part", "--key", first]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("first key: {first}")), "{said}");
    let other = &other_key();
    assert_eq!(verify_file(&part, &["--part", "--key", other]).0, 1);
    // Without the keys from before it, nothing leads from the first key to the one in force.
    let mut lines = lines_of(&part);
    lines.retain(|line| !line.starts_with("{\"key\""));
    write_lines(&part, &lines);
    let (code, said) = verify_file(&part, &["--part", "--key", first]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nothing shows that the keys"), "{said}");
}

#[test]
fn checkpoints_of_two_servers_may_be_in_one_file() {
    let (mut scene, mut other) = (Scene::stopped(), Scene::stopped());
    let all = [&scene, &other].map(|one| fs::read_to_string(one.checkpoints()).expect("notes"));
    let forged = all[0].lines().nth(1).expect("an origin");
    let forged = format!(
        "\n{forged}\n999\n{}=\nat 2026-12-01T00:00:00Z\n\n\u{2014} {forged} {}\n",
        "A".repeat(43),
        "A".repeat(90) + "A="
    );
    for one in [&mut scene, &mut other] {
        fs::write(one.checkpoints(), all.concat() + &forged).expect("written");
        let done = one.verify();
        assert_eq!(done.code(), 0, "{}{}", done.out(), done.err());
        assert!(
            done.out().contains("say nothing about it"),
            "{}",
            done.out()
        );
    }
}

#[test]
fn lines_that_end_in_another_way_are_found() {
    let scene = Scene::start();
    let file = scene.export();
    let text = fs::read_to_string(&file).expect("the trail");
    assert_eq!(verify_file(&file, &[]).0, 0);
    for changed in [
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        text.clone() + "\n",
    ] {
        fs::write(&file, changed).expect("written");
        let (code, said) = verify_file(&file, &[]);
        assert_eq!(code, 1, "{said}");
    }
}

#[test]
fn rows_of_jobs_that_were_changed_by_hand_are_findings() {
    let mut scene = Scene::start();
    let mut client = scene.server.connect();
    client.ok(
        "schedule.set",
        json!({"name": "s", "cron": "0 0 1 1 *", "job": {"argv": ["echo", "one"]}}),
    );
    let run = client.ok("schedule.run", json!({"name": "s"}));
    client.finished(&run["job"]);
    scene.work();
    scene.stop();
    scene.intact();
    let original = fs::read(scene.database()).expect("the database");
    let again = || fs::write(scene.database(), &original).expect("written");

    scene.sql("UPDATE jobs SET spec = replace(spec, 'one', 'two') WHERE number = 1");
    scene.found("job 1 has another command or directory than was submitted");

    again();
    let columns = scene.sql("SELECT group_concat(name) FROM pragma_table_info('jobs')");
    scene.sql(&format!(
        "PRAGMA ignore_check_constraints = ON;
         CREATE TEMP TABLE t AS SELECT {columns} FROM jobs WHERE number = 1;
         UPDATE t SET number = 77, id = 'f' || substr(id, 2), schedule = NULL, schedule_at = NULL;
         INSERT INTO jobs ({columns}) SELECT {columns} FROM t"
    ));
    scene.found("job 77 has a row, and no entry says that it was submitted");

    again();
    scene.sql("UPDATE jobs SET policy = '{}' WHERE number = 2");
    scene.found("the row of job 2 was changed: it cannot be read");
}

#[test]
fn refusals_are_written_while_a_sink_hangs() {
    let place = tempfile::tempdir().expect("a directory");
    let (script, pid) = (place.path().join("sink"), place.path().join("pid"));
    let text = format!(
        "#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n",
        pid.display()
    );
    fs::write(&script, text).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("a mode");
    let sink = format!("command:{}", script.display());
    let server = Server::with(&["--audit-checkpoints", &sink], &[]);
    until_true("the sink hangs", || pid.exists());
    let mut admin = server.connect();
    let made = admin.ok(
        "token.create",
        json!({"name": "reader", "scopes": ["read"]}),
    );
    let token = made["secret"].as_str().expect("a secret");
    let mut reader = crate::harness::Client::tcp(server.listen(), Some(token));
    reader.refused(-32002, "job.submit", json!({"argv": ["true"]}));
    until_true("the entry", || {
        let page = admin.ok("audit.read", json!({"limit": 1000}));
        let entries = page["entries"].as_array().expect("entries");
        entries
            .iter()
            .any(|row| row["entry"]["decision"] == "refused")
    });
    let pid = fs::read_to_string(&pid).expect("a number");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()));
    assert!(
        command.is_ok_and(|command| command.starts_with("sleep")),
        "the sink has ended"
    );
}
