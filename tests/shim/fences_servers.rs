//! One server at a time: the newest epoch is heard, what older ones had said unheard is void, and
//! a server that does not listen harms nobody.

use std::{thread, time::Duration};

use cc_executor::{
    job::Stream,
    spool::{FromShim, Greeting, ShimKey, ShimState, ToShim, message},
};
use nix::sys::signal::Signal;

use crate::harness::{Shim, arm, code, shell, spec, state_of, until};

#[test]
fn a_lower_epoch_is_stale() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(5);
    let mut old = shim.connect();
    old.send(&ToShim::Hello {
        epoch: 4,
        instance: "instance".into(),
    });
    assert_eq!(old.receive(), Some(FromShim::Stale { epoch: 5 }));
    assert_eq!(old.receive(), None);
    // The one that was there is still heard.
    server.run(spec(&["true"]));
    assert_eq!(server.exited().exit, code(0));
}

#[test]
fn the_same_and_a_higher_epoch_take_over() {
    let shim = Shim::start();
    let (mut first, _) = shim.hello(5);
    let (mut second, _) = shim.hello(5);
    assert_eq!(first.receive(), None);
    let (_third, _) = shim.hello(6);
    assert_eq!(second.receive(), None);
}

#[test]
fn what_an_older_server_had_said_unheard_is_void() {
    let shim = Shim::start();
    let witness = shim.dir.path().join("witness");
    let (mut old, _) = shim.hello(1);
    // The shim reads nothing while both say their piece.
    shim.signal(Signal::SIGSTOP);
    until("the shim has stopped", || state_of(shim.pid()) == Some('T'));
    old.run(shell(&format!("touch {}", witness.display())));
    let mut new = shim.connect();
    new.send(&ToShim::Hello {
        epoch: 2,
        instance: "instance".into(),
    });
    shim.signal(Signal::SIGCONT);
    let state = new.wait_for("welcome", |message| match message {
        FromShim::Welcome { state, .. } => Some(state.clone()),
        _ => None,
    });
    assert_eq!(state, ShimState::Idle);
    assert_eq!(old.receive(), None);
    let mut other = spec(&["true"]);
    other.job = 2;
    new.run(other);
    assert_eq!(new.exited().exit, code(0));
    assert!(!witness.exists());
    assert_eq!(fs_entries(&shim), ["2.1.0.seg"]);
}

fn fs_entries(shim: &Shim) -> Vec<String> {
    std::fs::read_dir(shim.layout.spool())
        .expect("spool")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("utf-8")
        })
        .collect()
}

#[test]
fn who_does_not_say_hello_first_is_not_heard() {
    let shim = Shim::start();
    let mut stranger = shim.connect();
    stranger.run(spec(&["true"]));
    assert_eq!(stranger.receive(), None);
    assert_eq!(shim.hello(1).1, ShimState::Idle);
}

#[test]
fn nonsense_closes_and_the_unknown_is_skipped() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let unknown = br#"{"type":"from_the_future","x":1}"#;
    server.send_raw(&(unknown.len() as u32).to_le_bytes());
    server.send_raw(unknown);
    server.run(spec(&["true"]));
    assert_eq!(server.exited().exit, code(0));
    server.send_raw(&u32::MAX.to_le_bytes());
    assert_eq!(server.receive(), None);
}

#[test]
fn a_message_in_single_bytes_is_heard() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let bytes = message::encode(&ToShim::Run(Box::new(spec(&["true"]))));
    for byte in bytes {
        server.send_raw(&[byte]);
    }
    assert_eq!(server.exited().exit, code(0));
}

#[test]
fn a_server_that_never_reads_harms_nobody() {
    let shim = Shim::start();
    let (mut deaf, _) = shim.hello(1);
    deaf.run(shell("seq 1 300000"));
    deaf.started();
    // It keeps asking and never listens: the shim's answers pile up.
    let asking = thread::spawn(move || {
        let arm = message::encode(&arm(0));
        while deaf.try_send_raw(&arm) {}
    });
    until("all is stored", || {
        let stored = shim.output(Stream::Stdout);
        stored.ends_with(b"\n300000\n")
    });
    asking.join().expect("the shim has closed the connection");
    let (mut server, state) = shim.hello(2);
    match state {
        ShimState::Exited { facts, .. } => assert_eq!(facts.exit, code(0)),
        _ => assert_eq!(server.exited().exit, code(0)),
    }
    assert!(server.receive_within(Duration::from_millis(10)).is_err());
}

/// A key is handed over through the pipe that is the shim's stdin; it stands nowhere else.
#[test]
fn a_shim_with_a_key_hears_nobody_who_does_not_know_it() {
    let key = ShimKey::from_bytes([7; 32]);
    let shim = Shim::with_key(&key);
    for epoch in [1, u64::MAX] {
        let mut stranger = shim.connect();
        stranger.send(&ToShim::Hello {
            epoch,
            instance: String::new(),
        });
        assert_eq!(stranger.receive(), None, "{epoch}");
        let mut forger = shim.connect();
        let other = ShimKey::from_bytes([8; 32]);
        forger.send_raw(&message::encode(&Greeting::new(&other, epoch, "")));
        assert_eq!(forger.receive(), None, "{epoch}");
    }
    let mut beyond = shim.connect();
    let greeting = Greeting::new(&key, u64::MAX, "");
    beyond.send_raw(&message::encode(&greeting));
    assert_eq!(beyond.receive(), None, "no server has that epoch");
    let mut server = shim.connect();
    server.send_raw(&message::encode(&Greeting::new(&key, 1, "")));
    let answer = server.receive();
    assert!(
        matches!(answer, Some(FromShim::Welcome { .. })),
        "{answer:?}"
    );
    for file in ["cmdline", "environ"] {
        let told = std::fs::read(format!("/proc/{}/{file}", shim.pid())).unwrap_or_default();
        assert!(!told.windows(8).any(|part| part == [7; 8]), "{file}");
    }
}
