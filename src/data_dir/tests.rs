//! Tests of the checks of a data directory and its files: our own are used, all others are refused with
//! a message that says what is wrong and what to do.

use std::{
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

/// A directory for one test, mode 0700.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("tempdir")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn flaw<T: std::fmt::Debug>(result: Result<T, DataDirError>) -> Flaw {
    match result {
        Err(DataDirError::Unsafe { flaw, .. }) => flaw,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_missing_is_made_for_us_alone() {
    let scratch = scratch();
    let path = scratch.path().join("a/b/c");
    assert!(OwnDir::open(&path).expect("safe").is_none());
    assert!(!scratch.path().join("a").exists(), "a look makes nothing");
    let made = OwnDir::make(&path).expect("made");
    assert_eq!(made.path(), path);
    for dir in ["a", "a/b", "a/b/c"] {
        let stat = fs::metadata(scratch.path().join(dir)).expect("there");
        assert_eq!(stat.permissions().mode() & 0o777, 0o700, "{dir}");
    }
    assert!(OwnDir::open(&path).expect("safe").is_some());
}

#[test]
fn a_directory_that_others_may_write_into_is_refused_with_the_remedy() {
    let scratch = scratch();
    let path = scratch.path().join("data");
    fs::create_dir(&path).expect("made");
    for open in [0o770, 0o722, 0o777, 0o1777, 0o2770] {
        mode(&path, open);
        assert_eq!(flaw(OwnDir::open(&path)), Flaw::ModeOfDirectory(open));
        let error = OwnDir::make(&path).expect_err("refused").to_string();
        assert!(
            error.contains(&format!("chmod go-w {}", path.display())),
            "{error}"
        );
    }
    mode(&path, 0o755);
    OwnDir::make(&path).expect("ours");
}

#[test]
fn a_directory_above_that_others_may_write_into_is_refused_unless_it_is_sticky() {
    let scratch = scratch();
    let above = scratch.path().join("above");
    let path = above.join("state/data");
    fs::create_dir_all(&path).expect("made");
    for open in [0o775, 0o757, 0o2775, 0o777] {
        mode(&above, open);
        assert_eq!(flaw(OwnDir::open(&path)), Flaw::ModeAbove(open));
        let missing = OwnDir::make(&above.join("new"));
        assert_eq!(flaw(missing), Flaw::ModeAbove(open));
        assert!(!above.join("new").exists());
    }
    mode(&above, 0o1777);
    OwnDir::open(&path).expect("safe").expect("there");
}

#[test]
fn links_of_our_own_are_followed_to_where_the_same_is_asked() {
    let scratch = scratch();
    let real = scratch.path().join("real");
    fs::create_dir_all(real.join("deep/data")).expect("made");
    symlink("real", scratch.path().join("link")).expect("linked");
    symlink(real.join("deep"), scratch.path().join("absolute")).expect("linked");
    symlink("../real/./deep/data", real.join("data")).expect("linked");
    for path in [
        "link/deep/data",
        "absolute/data",
        "link/data",
        "absolute/../deep/data",
    ] {
        let found = OwnDir::open(&scratch.path().join(path)).expect("safe");
        assert_eq!(
            found.expect("there").path(),
            real.join("deep/data"),
            "{path}"
        );
    }
    mode(&real, 0o777);
    let below = OwnDir::open(&scratch.path().join("absolute/data"));
    assert_eq!(flaw(below), Flaw::ModeAbove(0o777));
    symlink("round", scratch.path().join("round")).expect("linked");
    assert!(OwnDir::open(&scratch.path().join("round/data")).is_err());
    assert!(OwnDir::make(&scratch.path().join("round/data")).is_err());
}

#[test]
fn what_is_no_directory_is_refused() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    fs::write(&path, "").expect("written");
    assert_eq!(flaw(OwnDir::open(&path)), Flaw::NotADirectory);
    assert_eq!(flaw(OwnDir::make(&path.join("data"))), Flaw::NotADirectory);
}

/// Only root can change the owner of a file.
#[test]
fn what_belongs_to_another_user_is_refused_with_that_users_name() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = scratch();
    let path = scratch.path().join("theirs");
    fs::create_dir_all(path.join("data")).expect("made");
    std::os::unix::fs::chown(&path, Some(1), None).expect("given away");
    assert_eq!(flaw(OwnDir::open(&path)), Flaw::OwnerOfDirectory(1));
    let error = OwnDir::open(&path).expect_err("refused").to_string();
    assert!(error.contains("sudo -u "), "{error}");
    assert_eq!(flaw(OwnDir::open(&path.join("data"))), Flaw::OwnerAbove(1));
    symlink(scratch.path(), scratch.path().join("link")).expect("linked");
    std::os::unix::fs::lchown(scratch.path().join("link"), Some(1), None).expect("given away");
    let by_link = OwnDir::open(&scratch.path().join("link/mine"));
    assert_eq!(flaw(by_link), Flaw::OwnerOfLink(1));
}

#[test]
fn what_is_planted_in_the_place_of_a_file_is_neither_followed_nor_opened() {
    let scratch = scratch();
    let dir = OwnDir::make(scratch.path()).expect("ours");
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("precious"), "precious").expect("written");
    symlink("precious", at("link")).expect("linked");
    symlink("nowhere", at("dangling")).expect("linked");
    fs::hard_link(at("precious"), at("second")).expect("linked");
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::create_dir(at("directory")).expect("made");
    fs::write(at("open"), "").expect("written");
    mode(&at("open"), 0o620);
    for access in [Access::Read, Access::Append, Access::Write] {
        for (name, wrong) in [
            ("link", Flaw::Link),
            ("dangling", Flaw::Link),
            ("second", Flaw::HardLinks(2)),
            ("pipe", Flaw::NotAFile),
            ("directory", Flaw::NotAFile),
            ("open", Flaw::ModeOfFile(0o620)),
        ] {
            assert_eq!(flaw(dir.open_file(name, access)), wrong, "{name}");
            assert_eq!(flaw(dir.open_or_create_file(name, access)), wrong, "{name}");
        }
    }
    let error = dir.create_file("link", Access::Write).expect_err("there");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(!at("nowhere").exists());
    assert_eq!(fs::read(at("precious")).expect("read"), b"precious");
}

#[test]
fn a_file_is_replaced_as_a_whole_whatever_has_its_draft_name() {
    let scratch = scratch();
    let dir = OwnDir::make(scratch.path()).expect("ours");
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("precious"), "precious").expect("written");
    symlink("precious", at("draft")).expect("linked");
    symlink("precious", at("name")).expect("linked");
    dir.replace_file("name", "draft", b"new").expect("replaced");
    let mut text = String::new();
    let file = dir.open_file("name", Access::Read).expect("ours");
    let mut file = file.expect("there");
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "new");
    assert!(!at("draft").exists());
    assert_eq!(fs::read(at("precious")).expect("read"), b"precious");
}

#[test]
fn settings_may_be_a_link_of_ours_and_what_others_may_write_to_is_refused() {
    let scratch = scratch();
    let dir = OwnDir::make(&scratch.path().join("data")).expect("ours");
    let at = |name: &str| dir.path().join(name);
    assert!(dir.read_given("config.toml").expect("safe").is_none());
    fs::write(scratch.path().join("mine"), "x").expect("written");
    symlink("../mine", at("config.toml")).expect("linked");
    assert!(dir.read_given("config.toml").expect("safe").is_some());
    mode(&scratch.path().join("mine"), 0o666);
    assert!(dir.read_given("config.toml").expect("safe").is_some());
    mode(dir.path(), 0o755);
    let wrong = flaw(dir.read_given("config.toml"));
    assert_eq!(wrong, Flaw::ModeOfFile(0o666));
    fs::remove_file(at("config.toml")).expect("removed");
    nix::unistd::mkfifo(&at("config.toml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert_eq!(flaw(dir.read_given("config.toml")), Flaw::NotAFile);
}

#[test]
fn a_directory_in_it_is_ours_alone_as_well() {
    let scratch = scratch();
    let dir = OwnDir::make(scratch.path()).expect("ours");
    let at = |name: &str| scratch.path().join(name);
    dir.subdirectory("spool").expect("made");
    dir.subdirectory("spool").expect("there");
    mode(&at("spool"), 0o770);
    assert_eq!(
        flaw(dir.subdirectory("spool")),
        Flaw::ModeOfDirectory(0o770)
    );
    symlink("spool", at("link")).expect("linked");
    assert_eq!(flaw(dir.subdirectory("link")), Flaw::NotADirectory);
}

#[test]
fn the_name_of_a_file_in_it_is_known_by_any_path() {
    let scratch = scratch();
    let dir = OwnDir::make(&scratch.path().join("data")).expect("ours");
    symlink("data", scratch.path().join("link")).expect("linked");
    for path in ["data/x", "link/x", "data/../data/x"] {
        assert_eq!(dir.name_of(&scratch.path().join(path)), Some("x"), "{path}");
    }
    assert_eq!(dir.name_of(&scratch.path().join("x")), None);
    let path = dir.short_path("x");
    fs::write(&path, "y").expect("written");
    assert_eq!(fs::read(dir.path().join("x")).expect("read"), b"y");
}
