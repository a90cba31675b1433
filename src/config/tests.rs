//! Tests of the settings: layers, bounds, names.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use clap::Args;
use serde_json::json;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, OsString> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).into()))
        .collect()
}

fn shown<'a>(loaded: &'a Loaded, name: &str) -> &'a Shown {
    loaded
        .shown
        .iter()
        .find(|row| row.name == name)
        .expect("a known setting")
}

#[test]
fn each_layer_overrules_the_one_below() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("config.toml");
    std::fs::write(
        &file,
        "sessions_max = 1\nin_flight_max = 1\njson_depth_max = 9\n",
    )
    .expect("write");
    let dir_text = dir.path().display().to_string();
    let environment = map(&[
        ("CC_EXECUTOR_DATA_DIR", &dir_text),
        ("CC_EXECUTOR_SESSIONS_MAX", "2"),
        ("CC_EXECUTOR_IN_FLIGHT_MAX", "2"),
    ]);
    let loaded = load_from(None, environment, &map(&[("sessions_max", "3")])).expect("valid");
    let settings = &loaded.settings;
    assert_eq!((settings.sessions_max, settings.in_flight_max), (3, 2));
    assert_eq!(
        (settings.json_depth_max, settings.subscriptions_max),
        (9, 256)
    );
    assert_eq!(
        shown(&loaded, "sessions_max").origin,
        Origin::Option("--sessions-max".into())
    );
    let variable = Origin::Environment("CC_EXECUTOR_IN_FLIGHT_MAX".into());
    assert_eq!(shown(&loaded, "in_flight_max").origin, variable);
    assert_eq!(shown(&loaded, "json_depth_max").origin, Origin::File(file));
    assert_eq!(shown(&loaded, "subscriptions_max").origin, Origin::Default);
}

fn refused(toml: &str) -> String {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("other.toml");
    std::fs::write(&file, toml).expect("write");
    let error = load_from(Some(&file), BTreeMap::new(), &BTreeMap::new()).expect_err("refused");
    error.to_string()
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let message = refused("session_max = 5\n");
    assert!(message.contains("did you mean sessions_max?"), "{message}");
    assert!(message.contains("warm_shims"), "{message}");
    assert!(!refused("zzzzzzzz = 5\n").contains("did you mean"));
}

#[test]
fn wrong_values_are_refused_with_their_name() {
    for toml in [
        "sessions_max = 0",
        "sessions_max = \"5\"",
        "sessions_max = -1",
        "listen = \"everywhere\"",
        "listen = 8003",
        "log_format = \"xml\"",
        "allowed_hosts = \"a\"",
        "drain = 1",
        "idle_exit_s = \"never\"",
    ] {
        let message = refused(toml);
        let name = toml.split(' ').next().expect("a name");
        assert!(message.starts_with(name), "{toml}: {message}");
    }
    assert!(refused("sessions_max = [").contains("other.toml"));
}

#[test]
fn a_named_file_must_exist_and_the_directory_cannot_name_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let gone = dir.path().join("gone.toml");
    assert!(load_from(Some(&gone), BTreeMap::new(), &BTreeMap::new()).is_err());
    let options = map(&[("data_dir", &dir.path().display().to_string())]);
    assert!(load_from(None, BTreeMap::new(), &options).is_ok());
    std::fs::write(dir.path().join("config.toml"), "data_dir = \"/elsewhere\"").expect("write");
    assert!(load_from(None, BTreeMap::new(), &options).is_err());
}

#[test]
fn every_setting_can_be_given_in_all_three_ways() {
    let command = SettingOptions::augment_args(clap::Command::new("serve"));
    for entry in TABLE {
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_id() == entry.name);
        assert_eq!(
            arg.and_then(clap::Arg::get_long),
            Some(entry.option().as_str())
        );
        assert!(entry.variable().starts_with("CC_EXECUTOR_"));
        assert!(!entry.help().is_empty());
    }
}

/// What `config` shows may be written into a file again.
#[test]
fn what_is_shown_can_be_read_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("all.toml");
    let first = load_from(None, BTreeMap::new(), &BTreeMap::new()).expect("defaults");
    let lines = first
        .shown
        .iter()
        .map(|row| format!("{} = {}\n", row.name, row.value));
    std::fs::write(&file, lines.collect::<String>()).expect("write");
    let second = load_from(Some(&file), BTreeMap::new(), &BTreeMap::new()).expect("valid");
    assert_eq!(first.settings, second.settings);
}

#[test]
fn addresses_are_read() {
    for (text, expected) in [
        ("none", "none"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("localhost:80", "127.0.0.1:80"),
        ("[::1]:8003", "[::1]:8003"),
    ] {
        let listen = Listen::from_text(text, &()).expect("valid");
        assert_eq!(listen.show(), json!(expected));
    }
    assert!(Listen::from_text("localhost", &()).is_err());
}

#[test]
fn an_address_beyond_this_machine_is_refused_unless_it_is_meant_on_any_layer() {
    let here = tempfile::tempdir().expect("tempdir");
    let file = here.path().join("config.toml");
    let check =
        |listen: &str, toml: &str, environment: &[(&str, &str)], options: &[(&str, &str)]| {
            std::fs::write(&file, format!("listen = \"{listen}\"\n{toml}")).expect("write");
            let loaded = load_from(Some(&file), map(environment), &map(options)).expect("valid");
            loaded.settings.check_listen()
        };
    for near in [
        "none",
        "127.0.0.1:1",
        "127.8.8.8:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "localhost:1",
    ] {
        assert_eq!(check(near, "", &[], &[]), Ok(()), "{near}");
    }
    for far in [
        "0.0.0.0:1",
        "[::]:1",
        "10.0.0.1:1",
        "[fe80::1]:1",
        "[::ffff:10.0.0.1]:1",
    ] {
        let error = check(far, "", &[], &[]).expect_err(far).to_string();
        for part in [far, "--insecure-listen", "CC_EXECUTOR_INSECURE_LISTEN"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(check(far, "insecure_listen = true", &[], &[]), Ok(()));
        let variable = [("CC_EXECUTOR_INSECURE_LISTEN", "true")];
        assert_eq!(check(far, "", &variable, &[]), Ok(()));
        assert_eq!(check(far, "", &[], &[("insecure_listen", "true")]), Ok(()));
        let off = [("insecure_listen", "false")];
        assert!(check(far, "", &variable, &off).is_err(), "the option rules");
    }
}

#[test]
fn a_flag_needs_no_value() {
    let command = SettingOptions::augment_args(clap::Command::new("serve"));
    let matches = command.get_matches_from(["serve", "--drain", "--idle-exit-s", "600"]);
    let options = <SettingOptions as clap::FromArgMatches>::from_arg_matches(&matches);
    let expected = map(&[("drain", "true"), ("idle_exit_s", "600")]);
    assert_eq!(options.expect("valid").0, expected);
}

#[test]
fn an_empty_variable_is_none_and_only_paths_may_be_no_utf_8() {
    let home = tempfile::tempdir().expect("tempdir");
    let empty: BTreeMap<String, OsString> = TABLE
        .iter()
        .map(|entry| (entry.variable(), OsString::new()))
        .chain([(CONFIG_VARIABLE.to_owned(), OsString::new())])
        .collect();
    let options = map(&[("data_dir", &home.path().display().to_string())]);
    let loaded = load_from(None, empty, &options).expect("valid");
    let other = |row: &&Shown| row.name != "data_dir" && row.origin != Origin::Default;
    assert_eq!(loaded.shown.iter().find(other), None);
    let path = home.path().join(OsStr::from_bytes(b"\xff"));
    for entry in TABLE {
        let variables = [(entry.variable(), path.clone().into_os_string())];
        let options = if entry.name == "data_dir" {
            BTreeMap::new()
        } else {
            options.clone()
        };
        let loaded = load_from(None, variables.into(), &options);
        match (entry.name, loaded) {
            ("policy" | "secrets_dir" | "log_file" | "audit_checkpoints", loaded) => {
                drop(loaded.expect("valid"));
            }
            (name, loaded) => {
                let error = loaded.expect_err(name).to_string();
                let told = format!("{name} must be valid UTF-8 (from: environment CC_EXECUTOR_");
                assert!(error.starts_with(&told), "{error}");
            }
        }
    }
}
