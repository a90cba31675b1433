//! Tests on real pipes: what a feed takes, refuses and remembers.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use super::*;

/// Size of a pipe as the kernel creates it, bytes.
const PIPE_BYTES: usize = 64 << 10;

fn input(data: &[u8], write_id: Option<&str>) -> Input {
    Input {
        data: data.to_vec(),
        eof: false,
        write_id: write_id.map(str::to_owned),
    }
}

fn eof() -> Input {
    Input {
        eof: true,
        ..Input::default()
    }
}

fn accepted(bytes: u64) -> InputAnswer {
    InputAnswer::Accepted { bytes }
}

/// A feed without a pipe, as before the start of an interactive attempt.
fn without_pipe(own: &[u8]) -> Feed {
    Feed {
        destination: Destination::NotYet,
        waiting: own.to_vec().into(),
        own: own.len(),
        open: true,
        accepted: VecDeque::new(),
    }
}

fn pipe() -> (File, OwnedFd) {
    let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
    (theirs.into(), ours)
}

#[test]
fn everything_arrives_in_order_and_ends_with_the_end() {
    let mut feed = without_pipe(b"own ");
    assert_eq!(feed.take(input(b"one ", None)), accepted(4));
    let (mut theirs, ours) = pipe();
    feed.attach(ours);
    assert_eq!(feed.take(input(b"two", None)), accepted(3));
    assert_eq!(feed.take(eof()), accepted(0));
    assert_eq!(feed.take(input(b"late", None)), InputAnswer::Closed);
    let mut text = String::new();
    theirs.read_to_string(&mut text).expect("it ends");
    assert_eq!(text, "own one two");
}

#[test]
fn the_bound_is_exact_and_the_own_stdin_does_not_count() {
    let mut feed = without_pipe(&[0; 5000]);
    let most = vec![1; Input::BYTES_MAX];
    assert_eq!(
        feed.take(input(&[&most[..], &[1]].concat(), Some("a"))),
        InputAnswer::Full { waiting_bytes: 0 }
    );
    assert_eq!(feed.take(input(&most, Some("a"))), accepted(1 << 20));
    let full = InputAnswer::Full {
        waiting_bytes: 1 << 20,
    };
    assert_eq!(feed.take(input(b"x", None)), full);
    // A repeat and an end need no room.
    assert_eq!(feed.take(input(&most, Some("a"))), accepted(1 << 20));
    let (mut theirs, ours) = pipe();
    feed.attach(ours);
    // The pipe has the first bytes now, and there is room for as many.
    let space = PIPE_BYTES - 5000;
    let refused = InputAnswer::Full {
        waiting_bytes: (Input::BYTES_MAX - space) as u64,
    };
    assert_eq!(feed.take(input(&vec![2; space + 1], None)), refused);
    assert_eq!(
        feed.take(input(&vec![2; space], None)),
        accepted(space as u64)
    );
    assert_eq!(feed.take(eof()), accepted(0));
    let mut all = Vec::new();
    let mut bytes = vec![0; PIPE_BYTES];
    loop {
        let n = theirs.read(&mut bytes).expect("read");
        if n == 0 {
            break;
        }
        all.extend_from_slice(&bytes[..n]);
        feed.flush();
    }
    let expected = [vec![0; 5000], most, vec![2; space]].concat();
    assert!(all == expected, "{} of {}", all.len(), expected.len());
}

#[test]
fn only_the_newest_names_are_remembered() {
    let mut feed = without_pipe(b"");
    let name = |n: usize| format!("w{n}");
    for n in 0..=Input::REMEMBERED_MAX {
        assert_eq!(feed.take(input(b"x", Some(&name(n)))), accepted(1));
    }
    let waiting = feed.waiting.len();
    // Those that are known are answered as before, whatever comes with the name.
    assert_eq!(feed.take(input(b"longer", Some(&name(1)))), accepted(1));
    assert_eq!(feed.waiting.len(), waiting);
    assert_eq!(feed.take(input(b"longer", Some(&name(0)))), accepted(6));
    assert_eq!(feed.waiting.len(), waiting + 6);
}

#[test]
fn without_a_reader_nothing_is_taken_and_nothing_remembered() {
    let mut feed = without_pipe(b"");
    assert_eq!(feed.take(input(b"", Some("before"))), accepted(0));
    let (theirs, ours) = pipe();
    feed.attach(ours);
    drop(theirs);
    for _ in 0..2 {
        assert_eq!(feed.take(input(b"x", Some("w"))), InputAnswer::Closed);
    }
    assert_eq!(feed.take(input(b"", Some("before"))), accepted(0));
    assert!(feed.sink().is_none());
}
