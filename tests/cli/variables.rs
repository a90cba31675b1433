//! Our own variables where they are empty, which counts as unset, and where they are not UTF-8.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::harness::{BINARY, CEILING, Server, until};

/// Every variable of ours that a user may set, beside those of the settings.
const OTHERS: [&str; 6] = [
    "CC_EXECUTOR_CONFIG",
    "CC_EXECUTOR_COLOR",
    "CC_EXECUTOR_DATA_DIR",
    "CC_EXECUTOR_SERVER",
    "CC_EXECUTOR_TOKEN",
    "CC_EXECUTOR_TOKEN_FILE",
];

/// A home of its own, so that the default data directory is one of the test's.
struct Home(Server);

impl Home {
    fn new() -> Self {
        let place = Server::stopped(&[], &[]);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(place.data_dir())
            .expect("made");
        Self(place)
    }

    /// Where the data directory is by default; within the harness's, so that it finds what is left.
    fn default_dir(&self) -> PathBuf {
        self.0.data_dir().join("cc-executor")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(words)
            .env(crate::harness::MARK, self.0.data_dir())
            .env("HOME", self.0.data_dir())
            .env("XDG_STATE_HOME", self.0.data_dir())
            .stdin(Stdio::null());
        for name in OTHERS {
            command.env_remove(name);
        }
        command
    }

    /// The names of the variables of all settings.
    fn settings(&self) -> Vec<String> {
        let shown = self.command(&["config", "--json"]).output().expect("runs");
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let names = shown.as_object().expect("an object").keys();
        names
            .map(|name| format!("CC_EXECUTOR_{}", name.to_uppercase()))
            .collect()
    }

    fn stop(&self, data_dir: &Path) {
        let stopped = self.command(&["stop", "--data-dir"]).arg(data_dir).output();
        fine(&stopped.expect("runs"));
    }
}

/// How a command ends that may be a server which should not run.
#[track_caller]
fn ended(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let began = Instant::now();
    until("it to end", || {
        if began.elapsed() * 4 > CEILING {
            child.kill().expect("our child");
        }
        child.try_wait().expect("our child")
    });
    child.wait_with_output().expect("what it said")
}

#[track_caller]
fn fine(done: &Output) -> String {
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{err}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn err(done: &Output) -> String {
    assert!(!done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let home = Home::new();
    let with_all_empty = |words: &[&str]| {
        let mut command = home.command(words);
        for name in home.settings() {
            command.env(name, "");
        }
        for name in OTHERS {
            command.env(name, "");
        }
        command
            .current_dir(home.0.scratch(""))
            .output()
            .expect("runs")
    };
    for words in [
        &["run", "--", "echo", "hello"][..],
        &["ls"],
        &["show", "1"],
        &["status"],
        &["token"],
        &["config"],
        &["queue"],
        &["sql", "SELECT 1"],
        &["search", "hello"],
        &["token", "ls"],
    ] {
        fine(&with_all_empty(words));
    }
    assert!(home.default_dir().join("server.sock").exists());
    let token = fs::read_to_string(home.default_dir().join("token")).expect("a token");
    assert_eq!(fine(&with_all_empty(&["token"])).trim(), token.trim());
    let shown: Value =
        serde_json::from_str(&fine(&with_all_empty(&["config", "--json"]))).expect("JSON");
    for (name, row) in shown.as_object().expect("an object") {
        assert_eq!(row["origin"], "default", "{name}");
    }
    home.stop(&home.default_dir());
}

#[test]
fn no_token_is_missing_in_the_place_that_is_meant() {
    let home = Home::new();
    let mut token = home.command(&["token"]);
    let told = err(&token
        .env("CC_EXECUTOR_DATA_DIR", "")
        .output()
        .expect("runs"));
    assert!(
        told.contains(home.default_dir().to_str().expect("UTF-8")),
        "{told}"
    );
}

/// The database needs a path that is UTF-8. `serve` once served the default directory instead.
#[test]
fn a_data_directory_whose_path_is_not_utf_8_is_refused_by_every_verb() {
    let home = Home::new();
    let odd = home.0.data_dir().join(OsStr::from_bytes(b"odd-\xff"));
    for words in [
        &["serve", "--listen", "none"][..],
        &["run", "--", "true"],
        &["ls"],
        &["status"],
        &["stop"],
        &["restart"],
        &["token"],
        &["config"],
        &["mcp"],
    ] {
        let mut by_variable = home.command(words);
        by_variable.env("CC_EXECUTOR_DATA_DIR", &odd);
        let (verb, more) = words.split_first().expect("a verb");
        let mut by_option = home.command(&[verb, "--data-dir"]);
        by_option.arg(&odd).args(more);
        for mut command in [by_variable, by_option] {
            let told = err(&ended(&mut command));
            assert!(told.contains("valid UTF-8"), "{words:?}: {told}");
            assert!(told.contains("data"), "{words:?}: {told}");
        }
    }
    assert!(!odd.exists() && !home.default_dir().exists());
}

#[test]
fn a_restart_keeps_a_variable_that_is_not_utf_8() {
    let home = Home::new();
    let config = home.0.scratch("").join(OsStr::from_bytes(b"config-\xff"));
    fs::write(&config, "sessions_max = 7\nlisten = \"none\"\n").expect("written");
    let mut server = home.command(&["serve"]);
    let mut server = server
        .env("CC_EXECUTOR_CONFIG", &config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let pid = |place: &Home| {
        let status = place.command(&["status", "--json"]).output().expect("runs");
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        (status["limits"]["sessions_max"] == 7).then(|| status["pid"].clone())
    };
    let before = until("the server", || pid(&home));
    fine(&home.command(&["restart"]).output().expect("runs"));
    let after = pid(&home).expect("the same settings");
    assert_ne!(before, after);
    let ended = server.as_mut().expect("started").wait();
    assert!(ended.expect("our child").success());
    home.stop(&home.default_dir());
}

#[test]
fn what_must_be_text_and_is_none_is_refused_by_its_name() {
    let home = Home::new();
    let odd = OsStr::from_bytes(b"\xff");
    for name in home.settings() {
        let is_path = ["LOG_FILE", "POLICY", "SECRETS_DIR"];
        let is_path = is_path.iter().any(|path| name.ends_with(path));
        let mut serve = home.command(&["config"]);
        let done = serve
            .env(&name, odd)
            .current_dir(home.0.scratch(""))
            .output()
            .expect("runs");
        match is_path {
            true => drop(fine(&done)),
            false => assert!(err(&done).contains(&name), "{name}: {}", err(&done)),
        }
    }
    for name in ["CC_EXECUTOR_SERVER", "CC_EXECUTOR_TOKEN"] {
        let mut ls = home.command(&["ls"]);
        ls.env("CC_EXECUTOR_SERVER", "ws://127.0.0.1:1");
        let done = ls.env(name, odd).output().expect("runs");
        assert!(err(&done).contains(name), "{name}: {}", err(&done));
    }
    let config = home.0.scratch("").join(OsStr::from_bytes(b"config-\xff"));
    fs::write(&config, "sessions_max = 7\n").expect("written");
    let mut shown = home.command(&["config"]);
    let shown = fine(
        &shown
            .env("CC_EXECUTOR_CONFIG", &config)
            .output()
            .expect("runs"),
    );
    let row = shown.lines().find(|line| line.starts_with("sessions_max "));
    assert!(row.is_some_and(|row| row.contains(" 7 ")), "{shown}");
}
