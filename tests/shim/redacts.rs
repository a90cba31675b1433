//! The values of secrets are masked before a byte of them is stored, length and line ends kept; the
//! beginning of one is held back until it is decided, and nothing else ever waits.

use std::{fs, io::Write, path::Path};

use cc_executor::{
    job::{Exit, JobState, Reason, SecretText, SecretVariable, Stream, WhenFull},
    spool::{FromShim, RunSpec},
};

use crate::{
    harness::{Shim, arm, code, kill, shell, spec, until},
    waits_for_room::on_a_small_disk,
};

const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

/// An attempt with these secrets.
fn with_secrets(spec: RunSpec, secrets: &[(&str, &str)]) -> RunSpec {
    let secrets = secrets.iter().map(|(name, value)| SecretVariable {
        name: (*name).to_owned(),
        value: SecretText::new((*value).to_owned()),
    });
    RunSpec {
        secret_env: secrets.collect(),
        ..spec
    }
}

fn with_token(line: &str) -> RunSpec {
    with_secrets(shell(line), &[("TOKEN", TOKEN)])
}

fn text(shim: &Shim, stream: Stream) -> String {
    String::from_utf8(shim.output(stream)).expect("UTF-8")
}

/// Waits until a file is there.
fn await_file(file: &Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.01; done", file.display())
}

#[test]
fn the_process_has_the_value_and_neither_stream_shows_it() {
    let shim = Shim::start();
    let facts = shim.run_to_end(with_token(
        "[ ${#TOKEN} = 40 ] || exit 9; echo \"out $TOKEN.\"; echo \"err $TOKEN $TOKEN\" >&2; env | grep ^TOKEN",
    ));
    assert_eq!(facts.exit, code(0));
    let mask = "*".repeat(TOKEN.len());
    assert_eq!(
        text(&shim, Stream::Stdout),
        format!("out {mask}.\nTOKEN={mask}\n")
    );
    assert_eq!(text(&shim, Stream::Stderr), format!("err {mask} {mask}\n"));
    assert_eq!(facts.end_offset, 46 + 47 + 86);
}

#[test]
fn variables_of_the_executor_are_no_secrets_values() {
    let shim = Shim::start();
    let mut spec = with_secrets(
        shell("echo $CC_EXECUTOR_JOB"),
        &[("CC_EXECUTOR_JOB", TOKEN)],
    );
    spec.env.push(("CC_EXECUTOR_JOB".into(), "1".into()));
    shim.run_to_end(spec);
    assert_eq!(text(&shim, Stream::Stdout), "1\n");
}

#[test]
fn encodings_of_it_are_masked_too() {
    let shim = Shim::start();
    let line = "printf %s \"$TOKEN\" | base64 -w 0; echo; printf 'user:%s' \"$TOKEN\" | base64; \
                printf 'xy%s and more' \"$TOKEN\" | base64; printf %s \"$TOKEN\" | od -An -v -tx1 | tr -d ' '";
    assert_eq!(shim.run_to_end(with_token(line)).exit, code(0));
    let out = text(&shim, Stream::Stdout);
    let lines: Vec<&str> = out.lines().collect();
    let count = |line: &str| line.chars().filter(|c| *c != '*').count();
    // What is left are digits of the neighbours, and padding.
    assert!(count(lines[0]) <= 2, "{}", lines[0]);
    assert!(count(lines[1]) <= 10, "{}", lines[1]);
    assert!(count(lines[2]) <= 20, "{}", lines[2]);
    // od breaks the digits into lines of 16 bytes.
    assert_eq!(lines[3..].concat(), "*".repeat(TOKEN.len() * 2));
    assert_eq!(lines.len(), 6);
}

#[test]
fn what_comes_byte_by_byte_is_masked_from_the_fourth_byte_on() {
    let shim = Shim::start();
    let dir = shim.dir.path();
    // Each byte is read before the next one is written.
    let mut line = String::from("exec 3<\"$FIFO\"; ");
    for byte in TOKEN.chars().chain("!".chars()) {
        line.push_str(&format!("printf %s {byte}; read -r _ <&3; "));
    }
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let mut job = with_token(&line);
    job.env.push(("FIFO".into(), fifo.display().to_string()));
    let (mut server, _) = shim.hello(1);
    server.run(job);
    server.started();
    let mut next = fs::File::options().write(true).open(&fifo).expect("open");
    for written in 1..=TOKEN.len() as u64 {
        // Three are passed on; then nothing comes before the last one.
        match written {
            1..=3 => until("it is stored", || {
                shim.output(Stream::Stdout).len() as u64 == written
            }),
            _ if written < TOKEN.len() as u64 => {}
            _ => until("all is stored", || {
                shim.output(Stream::Stdout).len() == TOKEN.len()
            }),
        }
        next.write_all(b"\n").expect("go on");
    }
    next.write_all(b"\n").expect("go on");
    assert_eq!(server.exited().exit, code(0));
    let expected = format!("ghp{}!", "*".repeat(TOKEN.len() - 3));
    assert_eq!(text(&shim, Stream::Stdout), expected);
}

#[test]
fn a_beginning_is_released_by_what_follows_by_the_end_of_its_stream_and_by_the_exit() {
    let shim = Shim::start();
    let go = ["a", "b", "c"].map(|name| shim.dir.path().join(name));
    let line = format!(
        "printf 'one ghp_1'; {}; printf 'x two ghp_16'; {}; exec >&-; {}; printf 'err ghp_16C' >&2",
        await_file(&go[0]),
        await_file(&go[1]),
        await_file(&go[2])
    );
    let (mut server, _) = shim.hello(1);
    server.run(with_token(&line));
    server.started();
    let shows = |expected: &str| {
        until(expected, || text(&shim, Stream::Stdout) == expected);
    };
    shows("one ");
    fs::write(&go[0], "").expect("go");
    shows("one ghp_1x two ");
    fs::write(&go[1], "").expect("go");
    shows("one ghp_1x two ghp_16");
    fs::write(&go[2], "").expect("go");
    assert_eq!(server.exited().exit, code(0));
    assert_eq!(text(&shim, Stream::Stderr), "err ghp_16C");
}

#[test]
fn a_kill_loses_nothing_that_was_held_back() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(with_token("printf 'a ghp_16C7'; exec sleep 1000"));
    server.started();
    until("it is held back", || text(&shim, Stream::Stdout) == "a ");
    server.send(&kill());
    let facts = server.exited();
    assert_eq!(facts.exit, Exit::Signal(9));
    assert_eq!(text(&shim, Stream::Stdout), "a ghp_16C7");
    assert_eq!(facts.end_offset, 10);
}

#[test]
fn a_reader_is_woken_by_what_is_released_and_not_by_what_is_held_back() {
    let shim = Shim::start();
    let go = shim.dir.path().join("go");
    let (mut server, _) = shim.hello(1);
    server.run(with_token(&format!(
        "printf 'ask ghp_1'; {}; echo",
        await_file(&go)
    )));
    server.started();
    server.send(&arm(0));
    let grew = |server: &mut crate::harness::Server| {
        server.wait_for("growth", |message| match message {
            FromShim::Grew { offset, .. } => Some(*offset),
            _ => None,
        })
    };
    assert_eq!(grew(&mut server), 4);
    server.send(&arm(4));
    fs::write(&go, "").expect("go");
    assert_eq!(grew(&mut server), 10);
}

/// Text with tokens at all distances from the ends of reads, and the same with masks.
fn much_text(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut text, mut expected) = (Vec::new(), Vec::new());
    let mut nth = 0_usize;
    while text.len() < bytes {
        nth += 1;
        let noise = format!("{nth} ghp_ {}\n", "x".repeat(nth * 7919 % 1777));
        text.extend_from_slice(noise.as_bytes());
        expected.extend_from_slice(noise.as_bytes());
        text.extend_from_slice(TOKEN.as_bytes());
        expected.extend_from_slice("*".repeat(TOKEN.len()).as_bytes());
    }
    (text, expected)
}

/// Whether this is the text with masks, but for up to three bytes at the beginning of one where a read ended.
fn is_masked(found: &[u8], expected: &[u8]) -> bool {
    let mut start = 0;
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .enumerate()
            .all(|(at, (found, expected))| {
                if *expected != b'*' {
                    start = at + 1;
                }
                found == expected
                    || (at - start < 3 && TOKEN.as_bytes().get(at - start) == Some(found))
            })
}

#[test]
fn megabytes_through_many_segments_are_masked_everywhere() {
    let shim = Shim::start();
    let (text, expected) = much_text(3_000_000);
    let file = shim.dir.path().join("data");
    fs::write(&file, &text).expect("written");
    let mut job = with_secrets(
        spec(&["cat", file.to_str().expect("UTF-8")]),
        &[("TOKEN", TOKEN)],
    );
    job.segment_bytes = 100_000;
    let facts = shim.run_to_end(job);
    assert_eq!((facts.exit, facts.end_offset), (code(0), text.len() as u64));
    let found = shim.output(Stream::Stdout);
    assert!(is_masked(&found, &expected));
}

#[test]
fn a_bound_holds_for_what_is_masked_and_counts_the_rest() {
    for when_full in [WhenFull::Fail, WhenFull::DropNewest] {
        let shim = Shim::start();
        let line = "for i in 1 2 3 4; do echo \"$i $TOKEN\"; done; printf 'ghp_16'";
        let mut job = with_token(line);
        job.output_bytes_max = Some(60);
        job.when_full = when_full;
        let facts = shim.run_to_end(job);
        let mask = "*".repeat(TOKEN.len());
        let all = format!("1 {mask}\n2 {mask}\n3 {mask}\n4 {mask}\nghp_16");
        assert_eq!(text(&shim, Stream::Stdout), all[..60]);
        match when_full {
            WhenFull::Fail => assert_eq!(
                facts.outcome(),
                (JobState::Failed, Some(Reason::OutputLimit))
            ),
            _ => {
                assert_eq!(facts.end_offset, all.len() as u64);
                assert_eq!(
                    (facts.dropped.bytes, facts.dropped.lines),
                    (all.len() as u64 - 60, 3)
                );
            }
        }
    }
}

#[test]
fn a_job_that_shows_its_secrets_is_not_masked() {
    let shim = Shim::start();
    let mut job = with_token("echo $TOKEN");
    job.redact = false;
    shim.run_to_end(job);
    assert_eq!(text(&shim, Stream::Stdout), format!("{TOKEN}\n"));
}

#[test]
fn on_a_full_disk_masked_output_waits_and_is_whole_in_the_end() {
    let Some((shim, _disk)) = on_a_small_disk() else {
        return;
    };
    let filler = shim.layout.spool().join("filler");
    let (text, expected) = much_text(700_000);
    let file = shim.dir.path().join("data");
    fs::write(&file, &text).expect("written");
    let mut job = with_secrets(
        spec(&["cat", file.to_str().expect("UTF-8")]),
        &[("TOKEN", TOKEN)],
    );
    job.segment_bytes = 64 << 10;
    let (mut server, _) = shim.hello(1);
    // Room for about half of it.
    fs::write(&filler, vec![0; 1_600_000]).expect("filled");
    server.run(job);
    let waits = server.wait_for("waiting", |message| match message {
        FromShim::Waiting { waiting, .. } => Some(*waiting),
        _ => None,
    });
    assert!(waits);
    fs::remove_file(&filler).expect("room");
    let facts = server.exited();
    assert_eq!((facts.exit, facts.end_offset), (code(0), text.len() as u64));
    assert!(is_masked(&shim.output(Stream::Stdout), &expected));
}
