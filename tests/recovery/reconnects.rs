//! A connection breaks while both sides live: the server finds its shim again, and neither the
//! shim nor its job is counted twice.

use cc_executor::spool::{FromShim, Greeting, ShimKey, message};
use serde_json::json;

use crate::{
    harness::Client,
    scene::{Scene, job},
    shim::{self, Shim},
};

/// Takes the shim's ear away from the server, which takes it back.
fn interrupt(key: &ShimKey, shim: &Shim, epoch: u64) {
    let hello = message::encode(&Greeting::new(key, epoch, ""));
    shim::until("a stranger is welcome", || {
        let mut stranger = shim.connect();
        // A server that comes at the same time may be faster.
        let was_welcome = stranger.try_send_raw(&hello)
            && matches!(stranger.receive(), Some(FromShim::Welcome { .. }));
        // Closed by the shim as soon as the server is back.
        while stranger.receive().is_some() {}
        was_welcome
    });
}

fn epoch(client: &mut Client) -> u64 {
    let info = client.ok("server.info", json!({}));
    info["epoch"].as_u64().expect("an epoch")
}

#[test]
fn an_idle_shim_is_offered_once() {
    let mut scene = Scene::with(&["--warm-shims", "1"]);
    let mut client = scene.start();
    let epoch = epoch(&mut client);
    let mut warm = None;
    shim::until("the warm shim is there", || {
        let traces = scene.traces();
        let socket = traces.iter().find_map(|name| name.strip_suffix(".sock"));
        warm = socket.map(str::to_owned);
        warm.is_some()
    });
    let warm = warm.expect("found");
    let key = scene.key_of(&warm);
    let warm = scene.shim_of_the_server(&warm);
    for _ in 0..3 {
        interrupt(&key, &warm, epoch);
    }
    let jobs: Vec<_> = (0..4)
        .map(|_| {
            client.submit(
                scene
                    .server
                    .marked(json!({"shell": "sleep 0.2; echo done"})),
            )
        })
        .collect();
    for job in &jobs {
        let transcript = client.whole(job);
        assert_eq!(transcript.bytes, b"done\n");
        assert_eq!(transcript.verified()["attempts"], 1);
    }
    let attempts = scene.rows("SELECT DISTINCT state FROM attempts");
    assert_eq!(attempts, "ended");
    let said = scene.server.said();
    assert!(!said.contains("nothing could be claimed"), "{said}");
}

#[test]
fn a_running_job_goes_on() {
    let mut scene = Scene::new();
    let gate = scene.server.scratch("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.01; done; echo behind",
        gate.display()
    );
    let claim = scene.started_in("s1", &line);
    let mut client = scene.start();
    let epoch = epoch(&mut client);
    let key = scene.key_of("s1");
    for _ in 0..3 {
        interrupt(&key, scene.shim("s1"), epoch);
    }
    std::fs::write(&gate, b"").expect("the gate");
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"before\nbehind\n");
    let end = transcript.verified();
    assert_eq!(
        (&end["state"], &end["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(scene.attempts(), "1.1:ended");
}
