//! A shim is gone and its exit record is there: the job ends as it ended.

use cc_executor::{
    job::{Exit, SpawnError, Stream},
    spool::{RecordKind, ToShim},
    store::ClaimedJob,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{assert_bytes, content, emit},
    paper::{Paper, enter_segments},
    scene::{Scene, job},
    shim::{self, state_of},
};

#[test]
fn every_kind_of_exit_is_read_from_its_record() {
    let mut scene = Scene::new();
    let error = SpawnError {
        errno: 2,
        name: "ENOENT".to_owned(),
        what: "exec nothing".to_owned(),
    };
    let exits = [
        Exit::Code(0),
        Exit::Code(3),
        Exit::Signal(9),
        Exit::SpawnFailed(error),
    ];
    let mut claims = Vec::new();
    for (at, exit) in exits.into_iter().enumerate() {
        let claim = scene.claimed(&format!("s{at}"), "echo never run again");
        let mut paper = match exit {
            Exit::SpawnFailed(_) => Paper::intended(&scene, &claim, &claim.shim),
            _ => Paper::started(&scene, &claim),
        };
        if !matches!(exit, Exit::SpawnFailed(_)) {
            paper.output(Stream::Stdout, b"out\n");
            paper.output(Stream::Stderr, b"err\n");
        }
        paper.exit(exit);
        claims.push(claim);
    }
    let mut client = scene.start();
    let mut ends = Vec::new();
    for claim in &claims {
        let transcript = client.whole(&job(claim));
        ends.push(transcript.verified().clone());
        if claim.shim != "s3" {
            assert_eq!(transcript.streams, [b"out\n", b"err\n"]);
        }
    }
    let facts = |end: &Value| {
        json!([
            end["state"],
            end["reason"],
            end["exit_code"],
            end["signal"],
            end["attempts"]
        ])
    };
    assert_eq!(facts(&ends[0]), json!(["succeeded", null, 0, null, 1]));
    assert_eq!(facts(&ends[1]), json!(["failed", "exit_code", 3, null, 1]));
    assert_eq!(
        facts(&ends[2]),
        json!(["failed", "signal", null, "SIGKILL", 1])
    );
    assert_eq!(facts(&ends[3]), json!(["failed", "spawn", null, null, 1]));
    assert_eq!(ends[3]["spawn_error"]["name"], "ENOENT");
    assert_eq!(ends[0]["started_at"], "2023-11-14T22:13:20.000000Z");
}

/// Three segments of output in both streams and an exit.
fn write_segments(scene: &Scene, claim: &ClaimedJob) -> Vec<u8> {
    let mut paper = Paper::started(scene, claim);
    let bytes = content(7, 0, 30_000, true);
    for (at, part) in bytes.chunks(5_000).enumerate() {
        let stream = if at % 2 == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        paper.output(stream, part);
        if at == 1 || at == 3 {
            paper.roll();
        }
    }
    paper.exit(Exit::Code(0));
    bytes
}

#[test]
fn segments_are_read_through_whether_they_have_rows_or_not() {
    let mut scene = Scene::new();
    let mut claims = Vec::new();
    let mut bytes = Vec::new();
    for rows in 0..=2 {
        let claim = scene.claimed(&format!("s{rows}"), "echo never run again");
        bytes = write_segments(&scene, &claim);
        enter_segments(&scene, &claim, rows);
        claims.push(claim);
    }
    let mut client = scene.start();
    for claim in &claims {
        let transcript = client.whole(&job(claim));
        assert_bytes(&transcript.bytes, &bytes, "the output");
        assert_eq!(transcript.verified()["state"], "succeeded");
    }
    assert_eq!(
        scene.rows("SELECT job || ':' || first_offset || '-' || end_offset FROM segments"),
        "1:0-10000 1:10000-20000 1:20000-30000 2:0-10000 2:10000-20000 2:20000-30000 \
         3:0-10000 3:10000-20000 3:20000-30000"
    );
}

#[test]
fn what_ended_while_no_server_was_there_is_finished_by_the_next_one() {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let mut claims = Vec::new();
    for (shim, bytes) in [("small", 1_000), ("large", 1_000_000)] {
        let line = format!(
            "while [ ! -e {} ]; do sleep 0.01; done; exec {} --seed 3 --bytes {bytes}",
            gate.display(),
            emit()
        );
        claims.push(scene.started_in(shim, &line));
    }
    std::fs::write(&gate, b"").expect("the gate");
    // Nobody asks for them: once everything is on disk they leave.
    for claim in &claims {
        scene.shim(&claim.shim).wait();
        let records = scene.shim(&claim.shim).records(claim.number, 1);
        assert_eq!(
            records.last().map(|r| r.header.kind),
            Some(RecordKind::Exit)
        );
    }
    assert_eq!(scene.attempts(), "1.1:claimed 2.1:claimed");
    let mut client = scene.start();
    for (claim, length) in claims.iter().zip([1_000, 1_000_000]) {
        let transcript = client.whole(&job(claim));
        let expected = content(3, 0, length, false);
        assert_bytes(&transcript.bytes, &expected, "the output");
        let end = transcript.verified();
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
        assert!(end["started_at"].is_string());
    }
}

#[test]
fn a_shim_that_dies_behind_its_exit_record_is_not_lost() {
    for length in [1_000, 5_000_000] {
        exit_unheard(length);
    }
}

/// Whether every thread of a process has been stopped.
fn stands_still(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    let mut states = threads.map(|thread| {
        let thread = thread.expect("an entry").file_name();
        let thread = thread.to_str().and_then(|name| name.parse().ok());
        state_of(thread.expect("a number"))
    });
    states.all(|state| state == Some('T'))
}

/// A living server does not hear of an exit before the shim is dead: it stands still, and another
/// has the shim's ear.
fn exit_unheard(length: u64) {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exec {} --seed 5 --bytes {length} --chunk 65536",
        gate.display(),
        emit()
    );
    let claim = scene.started_in("s1", &line);
    let asked = job(&claim);
    let mut client = scene.start();
    client.started(&asked);
    let server = nix::unistd::Pid::from_raw(scene.server.pid());
    let send = |signal| nix::sys::signal::kill(server, signal).expect("our child");
    send(Signal::SIGSTOP);
    shim::until("the server stands still", || {
        stands_still(scene.server.pid())
    });
    let (mut other, _) = scene.shim("s1").hello(2);
    std::fs::write(&gate, b"").expect("the gate");
    other.exited();
    scene.kill_shim("s1");
    send(Signal::SIGCONT);
    let transcript = client.whole(&asked);
    let expected = content(5, 0, length, false);
    assert_bytes(&transcript.bytes, &expected, "the output");
    let end = transcript.verified();
    assert_eq!(
        (&end["state"], &end["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    let said = scene.server.said();
    assert!(said.contains("rescued an attempt"), "{said}");
}

#[test]
fn an_exit_that_a_living_shim_had_told_nobody() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo hello; exit 4");
    let spec = scene.spec(&claim);
    let (mut old, _) = scene.start_shim("s1").hello(1);
    old.run(spec);
    old.exited();
    drop(old);
    scene.submit_crowd();
    let mut client = scene.start();
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"hello\n");
    assert_eq!(transcript.verified()["exit_code"], 4);
    scene.assert_gets_work("s1");
    // The old server's word counts no more.
    let (mut stale, _) = (scene.shim("s1").connect(), ());
    stale.send(&ToShim::Hello {
        epoch: 1,
        instance: scene.instance.clone(),
    });
    let answer = stale.receive();
    assert_eq!(
        answer,
        Some(cc_executor::spool::FromShim::Stale { epoch: 2 })
    );
}
