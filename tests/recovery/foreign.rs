//! Shims and segments of other versions: an earlier one is adopted, a later one is left alone with a
//! word about what to do, and nothing of either is taken for lost.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::Shutdown,
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
};

use cc_executor::{
    job::{Exit, Stream},
    spool::Layout,
    store::ClaimedJob,
};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::{
    harness::until_true,
    paper::Paper,
    scene::{Scene, job},
};

/// Something that holds a shim's lock and says what it was told to say to everybody who connects.
struct Stand {
    lock: Option<Flock<File>>,
    names: [PathBuf; 2],
    peers: Arc<Mutex<Vec<UnixStream>>>,
    /// What it hears, message by message.
    heard: Receiver<Value>,
}

impl Stand {
    /// Says `answer` to every greeting, and `then` behind it.
    fn at(scene: &Scene, shim: &str, answer: &Value, then: &[Value]) -> Self {
        let shims = scene.layout.shims();
        let names = [Layout::shim_socket_name(shim), Layout::shim_lock_name(shim)];
        let names = names.map(|name| shims.join(name));
        let lock = File::create(&names[1]).expect("a lock file");
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("free");
        let listener = UnixListener::bind(&names[0]).expect("a socket");
        let peers = Arc::<Mutex<Vec<UnixStream>>>::default();
        let all = Arc::clone(&peers);
        let said: Vec<u8> = std::iter::once(answer)
            .chain(then)
            .flat_map(framed)
            .collect();
        let (tell, heard) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, tell, said) =
                    (stream.expect("a peer"), tell.clone(), said.clone());
                let peer = stream.try_clone().expect("a descriptor");
                all.lock().expect("peers").push(peer);
                thread::spawn(move || {
                    while let Some(message) = next(&mut stream) {
                        if message["type"] == "hello" && stream.write_all(&said).is_err() {
                            return;
                        }
                        let _ = tell.send(message);
                    }
                });
            }
        });
        Self {
            lock: Some(lock),
            names,
            peers,
            heard,
        }
    }

    /// It is gone, as after its end: first its traces, then its lock.
    fn leave(&mut self) {
        for name in &self.names {
            fs::remove_file(name).expect("its own");
        }
        for peer in self.peers.lock().expect("peers").drain(..) {
            let _ = peer.shutdown(Shutdown::Both);
        }
        self.lock.take();
    }

    fn hears(&self, kind: &str) -> Value {
        loop {
            let message = self
                .heard
                .recv_timeout(crate::harness::CEILING)
                .expect(kind);
            if message["type"] == kind {
                return message;
            }
        }
    }
}

fn framed(message: &Value) -> Vec<u8> {
    let json = message.to_string();
    let length = (json.len() as u32).to_le_bytes();
    length.into_iter().chain(json.into_bytes()).collect()
}

fn next(stream: &mut impl Read) -> Option<Value> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut json = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// What a shim of the first version said, about the job of this claim.
fn first_version(claim: &ClaimedJob) -> Vec<Value> {
    let lines = include_str!("../fixtures/age/0.1.0/shim.jsonl").lines();
    lines
        .map(|line| {
            let mut message: Value = serde_json::from_str(line).expect("JSON");
            for part in ["job", "attempt"] {
                let value = if part == "job" {
                    json!(claim.number)
                } else {
                    json!(claim.attempt)
                };
                for place in [&format!("/{part}"), &format!("/state/{part}")] {
                    if let Some(found) = message.pointer_mut(place) {
                        *found = value.clone();
                    }
                }
            }
            message
        })
        .collect()
}

/// A welcome of a shim that nobody has written yet.
fn later_version() -> Value {
    json!({"type": "welcome", "protocol": 2, "version": "9.9.9", "mood": "fine",
           "state": {"state": "dreaming", "of": [1, 2]}})
}

#[test]
fn a_running_job_of_the_first_version_is_adopted() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo hi");
    Paper::started(&scene, &claim).output(Stream::Stdout, b"hi\n");
    let said = first_version(&claim);
    let mut stand = Stand::at(&scene, "s1", &said[0], &said[1..2]);
    let mut client = scene.start();
    let running = client.started(&job(&claim));
    assert_eq!(
        (&running["state"], &running["output_bytes"]),
        (&json!("running"), &json!(3))
    );
    let entered = scene.rows("SELECT pid || ' ' || start_ticks FROM attempts");
    assert_eq!(entered, "23179 2456007");
    client.control(&job(&claim), "cancel");
    assert_eq!(stand.hears("stop")["cause"], "cancel");
    // It could not be told how it ended: the stand-in just goes.
    stand.leave();
    scene.server.kill_9();
    let mut client = scene.start();
    assert_eq!(client.finished(&job(&claim))["reason"], "lost");
}

#[test]
fn an_end_that_a_shim_of_the_first_version_tells_is_entered() {
    for (welcome, then) in [(0, vec![1, 2]), (3, vec![])] {
        let mut scene = Scene::new();
        let claim = scene.claimed("s1", "echo hi");
        Paper::started(&scene, &claim).output(Stream::Stdout, b"hi\n");
        let said = first_version(&claim);
        let then: Vec<_> = then
            .into_iter()
            .map(|nth: usize| said[nth].clone())
            .collect();
        let mut stand = Stand::at(&scene, "s1", &said[welcome], &then);
        let mut client = scene.start();
        let transcript = client.whole(&job(&claim));
        assert_eq!(transcript.bytes, b"hi\n");
        let end = transcript.verified();
        assert_eq!(
            (&end["reason"], &end["exit_code"]),
            (&json!("exit_code"), &json!(4))
        );
        assert_eq!(stand.hears("release")["job"], claim.number);
        stand.leave();
    }
}

#[test]
fn a_shim_of_a_later_version_keeps_its_job_and_is_not_talked_to() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo hi");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"seen ");
    let mut stand = Stand::at(&scene, "s1", &later_version(), &[]);
    for _ in 0..2 {
        let mut client = scene.start();
        assert_eq!(client.get(&job(&claim))["state"], "running");
        let read = client.ok("job.read", json!({"job": job(&claim)["id"], "from": 0}));
        assert_eq!(read["next_offset"], 5, "what it writes is readable");
        // Others run beside it.
        let other = client.submit(json!({"argv": ["true"]}));
        assert_eq!(client.finished(&other)["state"], "succeeded");
        scene.server.kill_9();
    }
    let said = scene.server.said();
    assert!(said.contains("start that version of cc-executor"), "{said}");
    assert!(said.contains("9.9.9"), "{said}");
    assert_eq!(
        stand.heard.try_iter().count(),
        2,
        "one greeting of each server, and no word more"
    );
    // When it is gone its end is read from paper, as that of any other.
    let mut client = scene.start();
    paper
        .output(Stream::Stdout, b"and behind")
        .exit(Exit::Code(6));
    stand.leave();
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"seen and behind");
    assert_eq!(transcript.verified()["exit_code"], 6);
}

#[test]
fn segments_of_a_later_format_are_no_end_of_anything() {
    let mut scene = Scene::new();
    let claim = scene.claimed("s1", "echo never");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"one").exit(Exit::Code(5));
    let format = |format: &[u8; 1]| {
        let file = fs::OpenOptions::new().write(true).open(paper.path());
        file.expect("a segment")
            .write_all_at(format, 7)
            .expect("written");
    };
    format(b"2");
    let mut client = scene.start();
    assert_eq!(scene.attempts(), "1.1:claimed", "left as it is");
    let read = json!({"job": job(&claim)["id"], "from": 0});
    let refused = client.refused(-32603, "job.read", read);
    let why = refused["message"].as_str().expect("a message");
    assert!(why.contains("start that version"), "{why}");
    until_true("a word about it", || {
        scene
            .server
            .said()
            .contains("which a later version of cc-executor writes")
    });
    // The version that knows it finds everything.
    scene.server.kill_9();
    format(b"1");
    let mut client = scene.start();
    assert_eq!(client.whole(&job(&claim)).verified()["exit_code"], 5);
}
