//! A data directory that is not ours alone, and what is planted in one that is: every verb refuses, says
//! what to do, and has touched nothing.

use std::{
    fs,
    io::{ErrorKind, Read},
    os::unix::{
        fs::{PermissionsExt, chown, lchown, symlink},
        net::UnixListener,
        process::CommandExt,
    },
    path::Path,
    process::Command,
    thread,
};

use crate::harness::{BINARY, Cli, Finished, Server, is_alive};

/// Every verb, with words that it takes.
const VERBS: [&[&str]; 29] = [
    &["run", "--", "env"],
    &["submit", "--", "true"],
    &["ls"],
    &["status"],
    &["status", "--json"],
    &["stop"],
    &["stop", "--drain"],
    &["restart"],
    &["token"],
    &["config"],
    &["serve", "--listen", "none"],
    &["tail", "1"],
    &["show", "1"],
    &["wait", "1"],
    &["cancel", "1"],
    &["input", "1", "x"],
    &["verify", "1"],
    &["export", "1", "--format", "text"],
    &["rm", "1"],
    &["queue"],
    &["notify", "ls"],
    &["policy", "reload"],
    &["audit", "export"],
    &["schedule"],
    &["flow", "ls"],
    &["search", "x"],
    &["sql", "SELECT 1"],
    &["mcp"],
    &["backup", "/nowhere/at/all"],
];

/// A user that is not us.
const OTHER: u32 = 65_534;

fn verb(directory: &Path, words: &[&str]) -> Finished {
    Cli::new(directory, words[0])
        .args(&words[1..])
        .env("SECRET", "hush")
        .run()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// All that lies in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listed");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().display().to_string())
        .collect();
    names.sort();
    names
}

/// Every verb refuses this directory with these words, and leaves what is in it as it is.
#[track_caller]
fn all_refuse(directory: &Path, told: &[&str]) {
    let before = names(directory);
    for words in VERBS {
        let done = verb(directory, words);
        assert_ne!(done.code(), 0, "{words:?}");
        for part in told {
            assert!(done.err().contains(part), "{words:?}: {}", done.err());
        }
        assert_eq!(names(directory), before, "{words:?}");
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can be another user");
    }
    root
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_by_every_verb() {
    let place = Server::stopped(&[], &[]);
    let directory = place.data_dir();
    fs::create_dir(&directory).expect("made");
    for open in [0o777, 0o770, 0o1777] {
        mode(&directory, open);
        let remedy = format!("chmod go-w {}", directory.display());
        all_refuse(&directory, &[&remedy]);
    }
    mode(&directory, 0o700);
    assert_eq!(verb(&directory, &["run", "--", "true"]).code(), 0);
}

#[test]
fn a_directory_below_one_that_others_may_write_to_is_refused_by_every_verb() {
    let place = Server::stopped(&[], &[]);
    let above = place.scratch("above");
    let directory = above.join("data");
    fs::create_dir_all(&directory).expect("made");
    mode(&above, 0o775);
    all_refuse(
        &directory,
        &[&format!("chmod go-w {}", above.display()), "on the way"],
    );
    let missing = verb(&above.join("new"), &["run", "--", "true"]);
    assert_ne!(missing.code(), 0);
    assert_eq!(names(&above), ["data"]);
}

#[test]
fn root_on_the_directory_of_another_user_does_nothing() {
    if !is_root() {
        return;
    }
    let place = Server::stopped(&[], &[]);
    let directory = place.data_dir();
    fs::create_dir(&directory).expect("made");
    let precious = place.scratch("precious");
    fs::write(&precious, "precious").expect("written");
    mode(&precious, 0o640);
    for name in ["server.log", "token", "token.new", "lock", "config.toml"] {
        symlink(&precious, directory.join(name)).expect("linked");
        lchown(directory.join(name), Some(OTHER), None).expect("given away");
    }
    chown(&directory, Some(OTHER), None).expect("given away");
    all_refuse(&directory, &["sudo -u ", "--data-dir"]);
    assert_eq!(fs::read(&precious).expect("read"), b"precious");
    let stat = fs::metadata(&precious).expect("there");
    assert_eq!(stat.permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_link_of_another_user_on_the_way_is_not_followed() {
    if !is_root() {
        return;
    }
    let place = Server::stopped(&[], &[]);
    fs::create_dir(place.data_dir()).expect("made");
    let link = place.scratch("link");
    symlink(place.data_dir(), &link).expect("linked");
    lchown(&link, Some(OTHER), None).expect("given away");
    all_refuse(&link, &["is a link that belongs to"]);
}

#[test]
fn links_of_our_own_lead_to_the_same_server() {
    let place = Server::stopped(&[], &[]);
    fs::create_dir(place.data_dir()).expect("made");
    let link = place.scratch("link");
    symlink("data", &link).expect("linked");
    let first = verb(&link, &["run", "--", "echo", "hello"]);
    assert_eq!((first.code(), first.out().as_str()), (0, "hello\n"));
    let by_name = place.cli("status").args(["--json"]).run().json();
    let by_link = verb(&link, &["status", "--json"]).json();
    assert_eq!(by_name["pid"], by_link["pid"]);
    assert_eq!(verb(&link, &["stop"]).code(), 0);
}

/// Somebody has put a socket there while the directory was open to all: nothing is sent to it.
#[test]
fn who_listens_as_another_user_is_sent_nothing() {
    if !is_root() {
        return;
    }
    let place = Server::stopped(&[], &[]);
    let directory = place.data_dir();
    fs::create_dir(&directory).expect("made");
    mode(place.scratch("").as_path(), 0o755);
    mode(&directory, 0o777);
    let socket = directory.join("server.sock");
    let at = socket.clone();
    // Of this thread alone; the kernel keeps who has listened (unix(7)).
    let listener = thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(OTHER)).expect("another");
        UnixListener::bind(at).expect("bound")
    });
    let listener = listener.join().expect("a listener");
    mode(&directory, 0o700);
    listener.set_nonblocking(true).expect("set");
    for words in [&["run", "--", "env"][..], &["ls"], &["stop"], &["restart"]] {
        let done = verb(&directory, words);
        assert_ne!(done.code(), 0, "{words:?}");
        assert!(
            done.err().contains("nothing was sent"),
            "{words:?}: {}",
            done.err()
        );
        while let Ok((mut peer, _)) = listener.accept() {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).expect("its end");
            assert_eq!(got, b"", "{words:?}");
        }
    }
    fs::remove_file(&socket).expect("removed");
}

/// Links, second names, pipes and directories in the places of files that are opened.
#[test]
fn what_is_planted_is_neither_followed_nor_waited_for_nor_written_to() {
    let place = Server::stopped(&[], &[]);
    let directory = place.data_dir();
    fs::create_dir(&directory).expect("made");
    let precious = place.scratch("precious");
    fs::write(&precious, "precious").expect("written");
    type Plant<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Plant<'_>); 4] = [
        ("a link", &|at| symlink(&precious, at).expect("linked")),
        ("2 hard links", &|at| {
            fs::hard_link(&precious, at).expect("linked")
        }),
        ("not a regular file", &|at| {
            nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        }),
        ("not a regular file", &|at| {
            fs::create_dir(at).expect("made");
        }),
    ];
    for (told, plant) in kinds {
        for (name, words) in [
            ("server.log", &["run", "--", "true"][..]),
            ("lock", &["serve", "--listen", "none"]),
            ("token", &["serve", "--listen", "none"]),
            ("token", &["token"]),
        ] {
            let at = directory.join(name);
            // What a server that was refused later has made.
            let _ = fs::remove_file(&at);
            plant(&at);
            let done = verb(&directory, words);
            assert_ne!(done.code(), 0, "{told}: {name}");
            let said = done.err();
            assert!(said.contains(told) && said.contains(name), "{name}: {said}");
            let is_directory = fs::symlink_metadata(&at).expect("there").is_dir();
            let removed = match is_directory {
                true => fs::remove_dir(&at),
                false => fs::remove_file(&at),
            };
            removed.expect("still what was planted");
            assert_eq!(fs::read(&precious).expect("read"), b"precious");
        }
    }
}

#[test]
fn a_planted_new_token_does_not_become_the_token() {
    let mut server = Server::stopped(&[], &[]);
    let directory = server.data_dir();
    fs::create_dir(&directory).expect("made");
    let known = "0".repeat(64);
    let aside = server.scratch("aside");
    fs::write(&aside, &known).expect("written");
    fs::hard_link(&aside, directory.join("token.new")).expect("linked");
    server.restart();
    assert_ne!(server.token(), known);
    assert_eq!(fs::read_to_string(&aside).expect("read"), known);
    assert!(!names(&directory).contains(&"token.new".to_owned()));
}

/// Before there is a server nobody has made `~/.local/state`.
#[test]
fn what_is_missing_above_the_directory_is_made_for_us_alone() {
    let place = Server::stopped(&[], &[]).within("home/.local/state/cc-executor");
    fs::create_dir(place.scratch("home")).expect("made");
    let done = place.cli("run").args(["--", "echo", "hello"]).run();
    assert_eq!((done.code(), done.out().as_str()), (0, "hello\n"));
    for above in ["home/.local", "home/.local/state"] {
        let stat = fs::metadata(place.scratch(above)).expect("made");
        assert_eq!(stat.permissions().mode() & 0o777, 0o700, "{above}");
    }
}

/// It would have stopped the server, and nothing would have taken its place.
#[test]
fn a_restart_does_not_stop_what_it_could_not_start_again() {
    let server = Server::start();
    let settings = server.data_dir().join("config.toml");
    for wrong in ["no_such_setting = 1\n", "sessions_max = 0\n"] {
        fs::write(&settings, wrong).expect("written");
        let done = server.cli("restart").run();
        assert_ne!(done.code(), 0);
        assert!(done.err().contains("goes on"), "{}", done.err());
        assert!(is_alive(server.pid()));
        server.connect().still_works();
    }
    fs::remove_file(&settings).expect("removed");
}

/// Another user asks for what is root's: told to be that user.
#[test]
fn another_user_is_told_whose_directory_it_is() {
    if !is_root() {
        return;
    }
    let server = Server::start();
    let open = |mode_now: u32| {
        mode(server.scratch("").as_path(), mode_now);
        mode(&server.data_dir(), mode_now);
    };
    open(0o755);
    let asked = Command::new(BINARY)
        .args(["ls", "--data-dir"])
        .arg(server.data_dir())
        .current_dir("/")
        .env("HOME", "/")
        .uid(OTHER)
        .gid(OTHER)
        .output();
    open(0o700);
    match asked {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: another user cannot reach the binary");
        }
        asked => {
            let asked = asked.expect("the binary runs");
            assert!(!asked.status.success());
            assert_eq!(asked.stdout, b"");
            let said = String::from_utf8_lossy(&asked.stderr).into_owned();
            assert!(said.contains("sudo -u root"), "{said}");
        }
    }
}
