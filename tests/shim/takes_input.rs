//! An interactive attempt reads what it is sent, piece by piece: in order, each piece once and
//! whole, until an end or until nobody reads.

use cc_executor::{
    job::{Input, InputAnswer, Stream},
    spool::{FromShim, RunSpec, ToShim},
};

use crate::harness::{Server, Shim, code, pause, resume, shell, spec, state_of, until};

/// What a pipe holds as the kernel makes it, bytes.
const PIPE_BYTES: usize = 64 << 10;

fn interactive(spec: RunSpec) -> RunSpec {
    RunSpec {
        interactive: true,
        ..spec
    }
}

fn bytes(data: &[u8]) -> Input {
    Input {
        data: data.to_vec(),
        ..Input::default()
    }
}

fn named(data: &[u8], write_id: &str) -> Input {
    Input {
        write_id: Some(write_id.into()),
        ..bytes(data)
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

fn input(server: &mut Server, attempt: u32, input: Input) -> InputAnswer {
    server.send(&ToShim::Input {
        job: 1,
        attempt,
        request: 7,
        input,
    });
    server.wait_for("an answer", |message| match message {
        FromShim::Input { request: 7, answer } => Some(*answer),
        _ => None,
    })
}

fn waits_for_output(shim: &Shim, text: &[u8]) {
    until("the output is there", || {
        shim.output(Stream::Stdout) == text
    });
}

#[test]
fn a_conversation_goes_on_until_its_end() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut spec = interactive(shell("while read -r l; do echo \"<$l>\"; done; echo bye"));
    spec.stdin = Some("first\n".into());
    spec.inputs = vec![bytes(b"sec"), bytes(b"ond\n")];
    server.run(spec);
    server.started();
    waits_for_output(&shim, b"<first>\n<second>\n");
    assert_eq!(input(&mut server, 1, bytes(b"third\n")), accepted(6));
    waits_for_output(&shim, b"<first>\n<second>\n<third>\n");
    assert_eq!(input(&mut server, 1, eof()), accepted(0));
    assert_eq!(server.exited().exit, code(0));
    let all = b"<first>\n<second>\n<third>\nbye\n";
    assert_eq!(shim.output(Stream::Stdout), all);
    // Behind its end, and for attempts that the shim does not have.
    for attempt in [1, 2] {
        let answer = input(&mut server, attempt, bytes(b"late"));
        assert_eq!(answer, InputAnswer::Closed);
    }
}

#[test]
fn an_end_that_was_kept_ends_it_and_other_jobs_take_nothing() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut spec = interactive(spec(&["cat"]));
    spec.inputs = vec![bytes(b"\0\xff"), eof()];
    server.run(spec);
    assert_eq!(server.exited().exit, code(0));
    assert_eq!(shim.output(Stream::Stdout), b"\0\xff");

    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("sleep 60"));
    server.started();
    assert_eq!(input(&mut server, 1, bytes(b"x")), InputAnswer::Closed);
}

#[test]
fn what_is_not_read_is_bounded_exactly() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let go = shim.dir.path().join("go");
    let line = format!("until [ -e {} ]; do sleep 0.02; done; cat", go.display());
    server.run(interactive(shell(&line)));
    server.started();
    let whole = vec![b'a'; Input::BYTES_MAX];
    let too_long = vec![b'-'; Input::BYTES_MAX + 1];
    let full = |waiting_bytes| InputAnswer::Full { waiting_bytes };
    assert_eq!(input(&mut server, 1, bytes(&too_long)), full(0));
    assert_eq!(input(&mut server, 1, bytes(&whole)), accepted(1 << 20));
    // What has gone into the pipe does not wait any more.
    let rest = vec![b'b'; PIPE_BYTES];
    let more = [&rest[..], b"-"].concat();
    let waiting = (Input::BYTES_MAX - PIPE_BYTES) as u64;
    assert_eq!(input(&mut server, 1, bytes(&more)), full(waiting));
    assert_eq!(input(&mut server, 1, bytes(&rest)), accepted(64 << 10));
    assert_eq!(input(&mut server, 1, named(b"-", "w")), full(1 << 20));
    // An end needs no room.
    std::fs::write(&go, "").expect("go");
    until("there is room again", || {
        input(&mut server, 1, named(b"c", "w")) == accepted(1)
    });
    assert_eq!(input(&mut server, 1, eof()), accepted(0));
    assert_eq!(server.exited().exit, code(0));
    let expected = [&whole[..], &rest, b"c"].concat();
    assert!(shim.output(Stream::Stdout) == expected);
}

#[test]
fn a_repeat_is_not_written_twice_whichever_server_sends_it() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut spec = interactive(spec(&["cat"]));
    spec.inputs = vec![named(b"kept ", "k")];
    server.run(spec);
    server.started();
    for _ in 0..2 {
        assert_eq!(input(&mut server, 1, named(b"kept ", "k")), accepted(5));
        assert_eq!(input(&mut server, 1, named(b"once ", "w")), accepted(5));
    }
    drop(server);
    let (mut server, _) = shim.hello(2);
    for _ in 0..2 {
        assert_eq!(input(&mut server, 1, named(b"kept ", "k")), accepted(5));
        assert_eq!(input(&mut server, 1, named(b"once ", "w")), accepted(5));
        assert_eq!(input(&mut server, 1, named(b"new", "n")), accepted(3));
    }
    assert_eq!(input(&mut server, 1, eof()), accepted(0));
    assert_eq!(server.exited().exit, code(0));
    // An end makes no difference to what was taken before.
    assert_eq!(input(&mut server, 1, named(b"new", "n")), accepted(3));
    assert_eq!(shim.output(Stream::Stdout), b"kept once new");
}

#[test]
fn a_process_that_reads_no_more_takes_no_more() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(interactive(shell(
        "echo up; exec 0<&-; echo down; exec sleep 60",
    )));
    server.started();
    waits_for_output(&shim, b"up\ndown\n");
    until("that is noticed", || {
        input(&mut server, 1, bytes(b"x")) == InputAnswer::Closed
    });
    // The shim is not busy with a pipe that is always ready.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", shim.pid())).expect("stat");
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .expect("a name")
            .split(' ')
            .collect();
        let cpu = |at: usize| fields[at].parse::<u64>().expect("ticks");
        cpu(12) + cpu(13)
    };
    let before = ticks();
    for _ in 0..20 {
        assert_eq!(input(&mut server, 1, bytes(b"x")), InputAnswer::Closed);
        assert_eq!(
            server.receive_within(std::time::Duration::from_millis(25)),
            Err(())
        );
    }
    assert!(ticks() - before < 10, "{} ticks", ticks() - before);
}

#[test]
fn a_paused_process_is_fed_when_it_goes_on() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(interactive(spec(&["cat"])));
    let leader = server.started();
    server.send(&pause());
    until("it stands still", || state_of(leader) == Some('T'));
    let much = vec![b'p'; 500_000];
    assert_eq!(input(&mut server, 1, bytes(&much)), accepted(500_000));
    assert_eq!(input(&mut server, 1, eof()), accepted(0));
    server.send(&resume());
    assert_eq!(server.exited().exit, code(0));
    assert!(shim.output(Stream::Stdout) == much);
}

#[test]
fn unread_input_does_not_keep_a_job_from_its_end() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(interactive(shell("head -c 3; sleep 0.1; exit 4")));
    server.started();
    let much = vec![b'u'; 900_000];
    assert_eq!(input(&mut server, 1, bytes(&much)), accepted(900_000));
    assert_eq!(server.exited().exit, code(4));
    assert_eq!(shim.output(Stream::Stdout), b"uuu");
}
