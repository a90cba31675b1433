//! Backups that cannot be made, are given up, or are cut off by a kill: the original goes on, and
//! nothing is left that could be taken for a backup.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    full_disk::MIB,
    harness::{Client, Disk, FileSystem, Server, until_true},
};

const INVALID: i64 = -32602;
const CONFLICT: i64 = -32004;
const UNAVAILABLE: i64 = -32006;

/// How often is tried to do something while a backup is made.
const TRIES_MAX: u32 = 10;

/// So many jobs make a ledger whose copy takes a while.
const JOBS: usize = 600;

/// A server whose ledger has some forty megabytes.
fn with_a_long_ledger() -> Server {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    let job = json!({"argv": ["true"], "queue": "held", "stdin": "x".repeat(64 << 10)});
    for _ in 0..JOBS / 12 {
        client.ok("job.submit_many", json!({"jobs": vec![job.clone(); 12]}));
    }
    server
}

fn partial(to: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", to.display()))
}

/// Begins a backup, and waits until it is on its way, or over already.
fn begun(client: &mut Client, to: &Path) {
    client.begin("server.backup", json!({ "to": to }));
    until_true("the backup to be on its way", || {
        partial(to).join("cc-executor.db").exists() || to.exists()
    });
}

/// Tries until something happens while a backup is on its way; where that was to go.
fn in_the_middle(server: &Server, mut hit: impl FnMut(&Path) -> bool) -> PathBuf {
    let mut places = (0..TRIES_MAX).map(|n| server.scratch(&format!("backup{n}")));
    let found = places.find(|to| hit(to));
    found.expect("every backup was over too soon")
}

fn jobs(made: &Value) -> usize {
    made["jobs"].as_u64().expect("jobs") as usize
}

#[test]
fn a_place_that_will_not_do_is_refused_and_left_as_it_is() {
    let server = Server::start();
    let mut client = server.connect();
    let (dir, file) = (server.scratch("dir"), server.scratch("file"));
    fs::create_dir(&dir).expect("a directory");
    fs::write(&file, "mine").expect("a file");
    let inside = server.data_dir().join("spool/backup");
    let missing = server.scratch("missing/backup");
    for (code, to) in [
        (CONFLICT, json!(dir)),
        (CONFLICT, json!(file)),
        (INVALID, json!(inside)),
        (INVALID, json!(server.data_dir())),
        (INVALID, json!(missing)),
        (INVALID, json!(file.join("backup"))),
        (INVALID, json!("/proc/backup")),
        (INVALID, json!("backup")),
        (INVALID, json!("")),
        (INVALID, json!("/")),
        (INVALID, json!("/a\0b")),
        (INVALID, json!(5)),
        (INVALID, Value::Null),
    ] {
        client.refused(code, "server.backup", json!({ "to": to }));
    }
    client.refused(INVALID, "server.backup", json!({"to": "/x", "from": "/y"}));
    assert_eq!(fs::read_to_string(&file).expect("still there"), "mine");
    assert_eq!(fs::read_dir(&dir).expect("listed").count(), 0);
    let said = server.cli("backup").args([&dir]).run();
    assert_eq!(said.code(), 1);
    assert!(said.err().contains("is there already"), "{}", said.err());
    let beside = server.data_dir();
    let beside = fs::read_dir(beside.parent().expect("a parent")).expect("listed");
    let partials = beside.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().ends_with(".partial")
    });
    assert_eq!(partials.count(), 0);
}

#[test]
fn a_full_disk_leaves_nothing_and_harms_nobody() {
    let Some(disk) = Disk::mount(FileSystem::Tmpfs, 8 * MIB) else {
        return;
    };
    let server = with_a_long_ledger();
    let mut client = server.connect();
    let to = disk.path("backup");
    let params = json!({ "to": to });
    let error = client.refused(UNAVAILABLE, "server.backup", params.clone());
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("room")),
        "{error}"
    );
    assert_eq!(fs::read_dir(disk.path(".")).expect("listed").count(), 0);
    // Where the ledger fits and the spool does not.
    disk.grow(64 * MIB);
    let line = "head -c 60000000 /dev/zero; sleep 1000";
    let job = client.submit(server.marked(json!({ "shell": line })));
    client.ok(
        "job.wait",
        json!({"jobs": [job["id"]], "until": {"bytes": 60_000_000}}),
    );
    client.refused(UNAVAILABLE, "server.backup", params.clone());
    assert_eq!(fs::read_dir(disk.path(".")).expect("listed").count(), 0);
    assert_eq!(client.get(&job)["state"], "running");
    disk.grow(256 * MIB);
    let made = client.ok("server.backup", params);
    assert_eq!((jobs(&made), &made["shared_bytes"]), (JOBS + 1, &json!(0)));
    client.control(&job, "kill");
    assert_eq!(client.finished(&job)["state"], "cancelled");
}

#[test]
fn a_backup_on_the_same_disk_leaves_free_what_has_to_stay_free() {
    let Some(disk) = Disk::mount(FileSystem::Tmpfs, 64 * MIB) else {
        return;
    };
    let min = (40 * MIB).to_string();
    let mut server = Server::stopped(&["--free-bytes-min", &min], &[]).within(disk.path("data"));
    server.restart();
    let mut client = server.connect();
    let fill = vec![0; 24 * MIB as usize];
    fs::write(disk.path("others"), fill).expect("a file");
    let params = json!({"to": disk.path("backup")});
    client.refused(UNAVAILABLE, "server.backup", params.clone());
    assert!(!disk.path("backup.partial").exists());
    fs::remove_file(disk.path("others")).expect("removed");
    client.ok("server.backup", params);
}

#[test]
fn who_leaves_gives_the_backup_up() {
    let server = with_a_long_ledger();
    let to = in_the_middle(&server, |to| {
        let mut client = server.connect();
        begun(&mut client, to);
        drop(client);
        until_true("its files to be gone", || !partial(to).exists());
        !to.exists()
    });
    let made = server.connect().ok("server.backup", json!({ "to": to }));
    assert_eq!(jobs(&made), JOBS);
}

#[test]
fn one_backup_is_made_at_a_time() {
    let server = with_a_long_ledger();
    let mut other = server.connect();
    in_the_middle(&server, |to| {
        begun(&mut server.connect(), to);
        let mut second = to.to_owned();
        second.set_extension("second");
        match other.call("server.backup", json!({ "to": second })) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error["code"], CONFLICT, "{error}");
                assert!(!second.exists() && !partial(&second).exists());
                true
            }
        }
    });
}

#[test]
fn a_stop_gives_the_backup_up() {
    let mut server = with_a_long_ledger();
    for n in 0..TRIES_MAX {
        let to = server.scratch(&format!("backup{n}"));
        begun(&mut server.connect(), &to);
        let (status, _) = server.stop();
        assert!(status.success());
        assert!(!partial(&to).exists());
        server.restart();
        if !to.exists() {
            return;
        }
    }
    panic!("every backup was over too soon");
}

#[test]
fn a_kill_in_the_middle_leaves_a_partial_one_and_a_sound_original() {
    let mut server = with_a_long_ledger();
    let mut hit = None;
    for n in 0..TRIES_MAX {
        let to = server.scratch(&format!("backup{n}"));
        let mut client = server.connect();
        begun(&mut client, &to);
        server.kill_9();
        server.restart();
        if partial(&to).exists() {
            assert!(!to.exists());
            hit = Some(to);
            break;
        }
    }
    let to = hit.expect("every backup was over too soon");
    let mut client = server.connect();
    let error = client.refused(CONFLICT, "server.backup", json!({ "to": to }));
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains(".partial") && message.contains("remove"),
        "{message}"
    );
    fs::remove_dir_all(partial(&to)).expect("removed");
    let made = client.ok("server.backup", json!({ "to": to }));
    assert_eq!(jobs(&made), JOBS);
}

#[test]
fn what_the_original_has_lost_is_missing_in_the_copy_and_told() {
    let original = Server::with(
        &["--segment-bytes", "65536", "--inline-bytes-max", "0"],
        &[],
    );
    let mut client = original.connect();
    let job = client.submit(json!({"shell": "head -c 200000 /dev/zero"}));
    client.finished(&job);
    let spool = original.data_dir().join("spool");
    let mut names: Vec<_> = fs::read_dir(&spool)
        .expect("the spool")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    fs::remove_file(&names[1]).expect("removed");
    let mut copy = Server::stopped(&[], &[]);
    let made = client.ok("server.backup", json!({"to": copy.data_dir()}));
    assert_eq!(made["missing_segments"], 1, "{made}");
    copy.restart();
    let [here, there] = [&mut client, &mut copy.connect()].map(|client| {
        let transcript = client.whole(&job);
        assert_eq!(transcript.gaps.len(), 1);
        assert_eq!(transcript.gaps[0]["reason"], "damaged");
        (transcript.bytes, transcript.gaps[0]["from"].clone())
    });
    assert_eq!(here, there);
}

#[test]
fn a_copy_has_the_configuration_and_its_own_token() {
    let mut original = Server::start();
    original.stop();
    let config = original.data_dir().join("config.toml");
    fs::write(&config, "submit_many_max = 77\n").expect("written");
    original.restart();
    let mut copy = Server::stopped(&[], &[]);
    let mut client = original.connect();
    client.ok("server.backup", json!({"to": copy.data_dir()}));
    for name in [".", "spool", "shims", "config.toml", "cc-executor.db"] {
        let meta = fs::metadata(copy.data_dir().join(name)).expect("is there");
        assert_eq!(
            meta.permissions().mode() & 0o077,
            0,
            "{name} is for us alone"
        );
    }
    assert!(!copy.data_dir().join("token").exists());
    copy.restart();
    assert_ne!(copy.token(), original.token());
    let info = copy.connect().ok("server.info", json!({}));
    assert_eq!(info["limits"]["submit_many_max"], 77);
}
