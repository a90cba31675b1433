//! One idempotency key is one job, however many ask at once and however often the server is killed
//! under them.

use std::{fs, sync::Mutex, thread};

use serde_json::{Value, json};

use crate::harness::{Client, Server, until};

const CALLERS: usize = 50;
const KEYS: usize = 8;
const KILLS: usize = 6;

/// Where the server is now.
struct Door {
    listen: Mutex<String>,
    token: String,
}

impl Door {
    /// One try, on a connection of its own; `None` where it broke before there was a reply.
    fn submit(&self, job: &Value) -> Option<Value> {
        let listen = self.listen.lock().expect("an address").clone();
        let mut client = Client::try_tcp(&listen, Some(&self.token)).ok()?;
        match client.try_call("job.submit", job.clone()) {
            Ok(Ok(reply)) => Some(reply),
            // It stops, or too many are there at the same time.
            Ok(Err(error)) => {
                assert!(
                    [-32006, -32005].contains(&error["code"].as_i64()?),
                    "{error}"
                );
                None
            }
            Err(_) => None,
        }
    }

    /// Asks until there is a reply; the job's id.
    fn ask(&self, job: &Value) -> Value {
        let reply = until("a reply", || self.submit(job));
        reply["job"]["id"].clone()
    }
}

#[test]
fn fifty_at_once_over_kills_are_one_job() {
    let mut server = Server::start();
    let door = Door {
        listen: Mutex::new(server.listen().to_owned()),
        token: server.token(),
    };
    let ledger = server.scratch("ledger");
    let jobs: Vec<Value> = (0..KEYS)
        .map(|key| {
            let line = format!("echo {key} >> {}", ledger.display());
            server.marked(json!({"shell": line, "idempotency_key": format!("key {key}")}))
        })
        .collect();
    let answers: Vec<Vec<Value>> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| scope.spawn(|| jobs.iter().map(|job| door.ask(job)).collect()))
            .collect();
        for _ in 0..KILLS {
            server.kill_9();
            server.restart();
            *door.listen.lock().expect("an address") = server.listen().to_owned();
            // It is reached by somebody before it is killed again.
            assert!(server.connect().hello["params"]["version"].is_string());
        }
        let callers = callers.into_iter();
        callers
            .map(|caller| caller.join().expect("a caller"))
            .collect()
    });
    let first = answers[0].clone();
    assert!(
        answers.iter().all(|ids| *ids == first),
        "the same id for everybody"
    );
    let mut client = server.connect();
    let page = client.ok("job.list", json!({"limit": 1000}));
    assert_eq!(
        page["jobs"].as_array().map(Vec::len),
        Some(KEYS),
        "one row for each key"
    );
    for id in &first {
        let end = client.finished(&json!({"id": id}));
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
    }
    let mut lines: Vec<_> = fs::read_to_string(&ledger)
        .expect("the ledger")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    let once: Vec<_> = (0..KEYS).map(|key| key.to_string()).collect();
    assert_eq!(lines, once, "each ran once");
}
