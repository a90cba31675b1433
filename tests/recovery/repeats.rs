//! A server is killed while it recovers, and the next one as well: all come to the same end.

use std::{fs, thread, time::Duration};

use cc_executor::job::{Exit, StopCause, Stream};
use serde_json::json;

use crate::{
    harness::BINARY,
    paper::Paper,
    scene::{Scene, job},
    shim,
};

/// How many servers are killed, each a little later than the one before.
const KILLS: u64 = 12;

/// Starts a server and kills it a moment after it has taken its epoch.
fn recover_and_die(scene: &Scene, epoch: u64) {
    let mut server = std::process::Command::new(BINARY)
        .args(["serve", "--listen", "none", "--data-dir"])
        .arg(scene.layout.root())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    shim::until("the epoch is taken", || {
        scene.rows("SELECT epoch || '' FROM nodes") == epoch.to_string()
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "another point of its recovery every time; nothing is awaited"
    )]
    thread::sleep(Duration::from_millis(epoch * 3));
    server.kill().expect("our child");
    server.wait().expect("our child");
}

#[test]
fn recoveries_that_are_killed_come_to_the_same_end() {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let ledger = |name: &str| scene.server.scratch(name);
    let (idle, dead) = (ledger("idle"), ledger("dead"));
    scene.start_shim("s1");
    let idle_claim = scene.claimed("s1", &format!("echo ran >>{}", idle.display()));
    let dead_claim = scene.claimed("s2", &format!("echo ran >>{}", dead.display()));
    let ended = scene.claimed("s3", "echo never");
    let mut paper = Paper::started(&scene, &ended);
    paper.output(Stream::Stdout, b"ended");
    paper.exit(Exit::Code(5));
    let lost = scene.claimed("s4", "echo never");
    let mut paper = Paper::started(&scene, &lost);
    paper.output(Stream::Stdout, b"begun").roll();
    paper.output(Stream::Stdout, b" and lost");
    scene.wish(&lost, StopCause::Cancel, 1000);
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; echo behind",
        gate.display()
    );
    let running = scene.started_in("s5", &line);
    scene.close();
    for kill in 0..KILLS {
        recover_and_die(&scene, kill + 2);
    }
    let mut client = scene.start();
    for (claim, ledger) in [(&idle_claim, &idle), (&dead_claim, &dead)] {
        let end = client.finished(&job(claim));
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
        assert_eq!(fs::read_to_string(ledger).expect("it ran"), "ran\n");
    }
    let transcript = client.whole(&job(&ended));
    assert_eq!(transcript.bytes, b"ended");
    assert_eq!(transcript.verified()["exit_code"], 5);
    let transcript = client.whole(&job(&lost));
    assert_eq!(transcript.bytes, b"begun and lost");
    // A wish that reached nobody does not explain an end that nobody knows.
    assert_eq!(transcript.verified()["reason"], "lost");
    fs::write(&gate, b"").expect("the gate");
    let transcript = client.whole(&job(&running));
    assert_eq!(transcript.bytes, b"behind\n");
    assert_eq!(transcript.verified()["attempts"], 1);
    // The marks of a rescue stay until the start after it.
    scene.server.kill_9();
    scene.start();
    shim::until("the spool is tidy", || {
        scene.spool() == ["4.1.0.seg", "4.1.5.seg"]
    });
}
