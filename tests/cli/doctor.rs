//! `doctor`: what it finds on this machine, in a data directory and of a server; it starts none and changes nothing.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use serde_json::Value;

use crate::harness::{Cli, Disk, FileSystem, Server};

/// Runs it; whether it found no failure, and its checks.
fn doctor(data_dir: &Path) -> (i32, Vec<Value>) {
    let finished = Cli::new(data_dir, "doctor").args(["--json"]).run();
    let told: Value = serde_json::from_slice(&finished.stdout).expect("one JSON object");
    assert_eq!(told["ok"], finished.code() == 0, "{told}");
    (
        finished.code(),
        told["checks"].as_array().expect("checks").clone(),
    )
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {checks:?}"))
}

/// Each check has an outcome and says what it found; what is not well has advice.
fn assert_well_formed(checks: &[Value]) {
    for check in checks {
        assert!(
            !check["found"].as_str().expect("a text").is_empty(),
            "{check}"
        );
        match check["outcome"].as_str().expect("an outcome") {
            "ok" => assert_eq!(check["advice"], Value::Null, "{check}"),
            "warning" | "failure" => assert!(check["advice"].is_string(), "{check}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn without_a_server_it_starts_none_and_makes_nothing() {
    let server = Server::stopped(&[], &[]);
    let (code, checks) = doctor(&server.data_dir());
    assert_eq!(code, 0, "{checks:?}");
    assert_well_formed(&checks);
    for name in [
        "kernel",
        "isolation",
        "open files",
        "data directory",
        "settings",
        "server",
    ] {
        check(&checks, name);
    }
    assert!(!server.data_dir().exists());
    let text = Cli::new(&server.data_dir(), "doctor").run();
    assert!(text.out().contains("none runs"), "{}", text.out());
}

#[test]
fn of_a_server_it_tells_the_level_in_force() {
    let server = Server::with(&["--isolation", "B"], &[]);
    let (code, checks) = doctor(&server.data_dir());
    assert_eq!(code, 0, "{checks:?}");
    assert_well_formed(&checks);
    let isolation = check(&checks, "isolation");
    assert_eq!(isolation["outcome"], "warning");
    let found = isolation["found"].as_str().expect("a text");
    assert!(
        found.contains("level B") && found.contains("the setting isolation"),
        "{found}"
    );
    assert_eq!(check(&checks, "server")["outcome"], "ok");
    for name in ["file system", "disk"] {
        assert_ne!(check(&checks, name)["outcome"], "failure");
    }
}

#[test]
fn what_is_wrong_is_a_failure_and_says_what_to_do() {
    let server = Server::stopped(&[], &[]);
    let dir = server.data_dir();
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("its mode");
    let (code, checks) = doctor(&dir);
    assert_eq!(
        (code, &check(&checks, "data directory")["outcome"]),
        (1, &"failure".into())
    );
    assert_well_formed(&checks);
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("its mode");
    assert_eq!(doctor(&dir).0, 0);
    fs::write(dir.join("config.toml"), "sessions_max = \"many\"\n").expect("settings");
    let (code, checks) = doctor(&dir);
    let settings = check(&checks, "settings");
    assert_eq!((code, &settings["outcome"]), (1, &"failure".into()));
    assert!(
        settings["found"]
            .as_str()
            .expect("a text")
            .contains("sessions_max"),
        "{settings}"
    );
}

#[test]
fn a_full_disk_in_memory_is_told_as_both() {
    let Some(disk) = Disk::mount(FileSystem::Tmpfs, 64 << 20) else {
        return;
    };
    let dir = disk.path("data");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("its mode");
    let (_, checks) = doctor(&dir);
    assert_eq!(check(&checks, "file system")["outcome"], "warning");
    assert_eq!(check(&checks, "disk")["outcome"], "ok");
    disk.fill();
    let (code, checks) = doctor(&dir);
    assert_eq!(
        (code, &check(&checks, "disk")["outcome"]),
        (1, &"failure".into())
    );
}

/// More may stay free than is free now.
#[test]
fn what_stays_free_is_what_the_settings_say() {
    let server = Server::stopped(&[], &[]);
    let dir = server.data_dir();
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("its mode");
    fs::write(
        dir.join("config.toml"),
        "free_bytes_min = 9000000000000000\n",
    )
    .expect("settings");
    let (code, checks) = doctor(&dir);
    assert_eq!(
        (code, &check(&checks, "disk")["outcome"]),
        (1, &"failure".into())
    );
}
