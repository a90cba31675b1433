//! A client that lives through the death of its server: it submits under keys, follows at its own
//! offsets, deletes, and starts a server where there is none.
//! Does not know where the server is struck.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    checks::{noted, stop},
    harness::{CEILING, Client, Frame, Server, Transcript, until},
    plan::Plan,
    strike::{Aim, Struck},
};

/// Small segments, so that a few writes fill one; one idle shim, so that runs are alike.
pub const ARGS: [&str; 4] = ["--segment-bytes", "65536", "--warm-shims", "1"];

const NOT_FOUND: i64 = -32003;
const UNAVAILABLE: i64 = -32006;
const CONFLICT: i64 = -32004;
const INTERNAL: i64 = -32603;

/// A data directory, the server on it, and the client's session.
pub struct Scene {
    // Before `server`, whose end proves that nothing is left.
    struck: Option<Struck>,
    client: Option<Client>,
    door: Option<(String, String)>,
    /// Whether connections broke.
    broke: bool,
    /// What the traced server has left: its report, and whether it was struck.
    told: Option<(String, bool)>,
    /// The server of before and after.
    pub server: Server,
    /// Where jobs note their starts and ends.
    pub ledger: PathBuf,
}

impl Scene {
    /// An empty place.
    pub fn new() -> Self {
        let server = Server::stopped(&ARGS, &[]);
        Self {
            struck: None,
            client: None,
            door: None,
            broke: false,
            told: None,
            ledger: server.scratch("ledger"),
            server,
        }
    }

    /// Starts the server that is to be struck.
    pub fn begin(&mut self, aim: Aim<'_>) {
        let struck = Struck::start(&self.server, &ARGS, aim);
        self.door = struck.door();
        self.struck = Some(struck);
    }

    /// Ends the traced server, by a planned stop if it lives, and goes on with a fresh one.
    /// Returns the report of the traced one, and whether it was struck.
    pub fn recover(&mut self) -> (String, bool) {
        self.close();
        if let Some(struck) = &self.struck {
            struck.terminate();
            self.replace();
        }
        self.told.take().expect("there was one")
    }

    /// Waits for the end of the traced server and starts the next one.
    fn replace(&mut self) {
        let mut struck = self.struck.take();
        let struck = struck.as_mut().expect("a server that nobody strikes lives");
        let code = struck.ended();
        let (report, met) = (struck.report(), struck.is_struck());
        struck.assert_rightly_ended(code);
        self.told = Some((report, met));
        self.server.restart();
        self.door = Some((self.server.listen().to_owned(), self.server.token()));
    }

    /// Starts a server that nobody strikes.
    pub fn begin_unstruck(&mut self) {
        self.server.restart();
        self.door = Some((self.server.listen().to_owned(), self.server.token()));
    }

    /// Kills that server.
    pub fn kill_9(&mut self) {
        self.close();
        self.server.kill_9();
    }

    /// Submits until it is acknowledged; returns the id.
    #[track_caller]
    pub fn submit(&mut self, plan: &Plan) -> Value {
        let job = plan.new_job(&self.ledger);
        self.submit_job(job)
    }

    /// Submits until it is acknowledged; returns the id.
    #[track_caller]
    pub fn submit_job(&mut self, job: Value) -> Value {
        let job = self.server.marked(job);
        let reply = self.call("job.submit", job).expect("accepted");
        reply["job"]["id"].clone()
    }

    /// Follows an acknowledged job to its end.
    #[track_caller]
    pub fn follow(&mut self, id: &Value) -> Transcript {
        let mut transcript = Transcript::default();
        while transcript.end.is_none() {
            transcript.resume();
            let params = json!({"job": id, "from": transcript.next_offset});
            self.call("job.tail", params).expect("it was acknowledged");
            self.take(&mut transcript);
        }
        transcript
    }

    fn take(&mut self, transcript: &mut Transcript) {
        while transcript.end.is_none() {
            match self.client().frame_or_closed() {
                // It says so before it closes the session.
                Frame::Json(value) if value["method"] == "server.going_away" => {}
                Frame::Json(value) => transcript.take(&value),
                Frame::Closed(_) => return self.close(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Submits a job that goes on for ever and kills it once it has written everything; returns the
    /// id.
    #[track_caller]
    pub fn submit_and_kill(&mut self, plan: &Plan) -> Value {
        let id = self.submit_job(plan.endless_job(&self.ledger));
        self.await_met(&id, json!({"bytes": plan.bytes()}));
        self.broke = false;
        match self.call("job.control", json!({"job": id, "action": "kill"})) {
            Ok(_) => {}
            Err(error) => assert!(error["code"] == CONFLICT && self.broke, "{error}"),
        }
        assert_eq!(noted(&self.ledger, plan.seed), (1, 0), "it was killed");
        id
    }

    /// Waits until a condition of `job.wait` is met.
    #[track_caller]
    pub fn await_met(&mut self, id: &Value, until: Value) {
        let params = json!({"jobs": [id], "until": until, "timeout_s": CEILING.as_secs()});
        let reply = self.call("job.wait", params).expect("a reply");
        assert_eq!(reply["met"], true, "{reply}");
    }

    /// Everything that is stored of a job is as it was recorded.
    #[track_caller]
    pub fn assert_intact(&mut self, id: &Value) {
        let verdict = self.call("transcript.verify", json!({"job": id}));
        let verdict = verdict.expect("a verdict");
        assert_eq!(verdict["intact"], true, "{verdict}");
    }

    /// Nobody has panicked: a shim says so in its log.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        let said = fs::read_to_string(self.server.data_dir().join("shims.log"));
        let said = said.unwrap_or_default();
        assert!(!said.contains("panicked at"), "{said}");
        let said = self.server.said();
        assert!(!said.contains("panicked at"), "the next server panicked");
    }

    /// Deletes an acknowledged job; a repeated try may find that it is gone.
    #[track_caller]
    pub fn delete(&mut self, id: &Value) {
        self.broke = false;
        match self.call("job.delete", json!({"job": id})) {
            Ok(_) => {}
            Err(error) => assert!(error["code"] == NOT_FOUND && self.broke, "{error}"),
        }
    }

    /// Nobody knows this job any more.
    #[track_caller]
    pub fn assert_gone(&mut self, id: &Value) {
        let error = self.call("job.get", json!({"job": id}));
        assert_eq!(error.expect_err("deleted")["code"], NOT_FOUND);
    }

    /// Calls a method, on as many connections as it takes.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        loop {
            match self.client().try_call(method, params.clone()) {
                Ok(Err(error)) if error["code"] == UNAVAILABLE => self.close(),
                Ok(Err(error)) if error["code"] == INTERNAL => panic!("{method}: {error}"),
                Ok(reply) => return reply,
                Err(_broken) => self.close(),
            }
        }
    }

    fn client(&mut self) -> &mut Client {
        while self.client.is_none() {
            self.client = until("a session, or the server's end", || match self.connect() {
                Some(client) => Some(Some(client)),
                None => (!self.lives()).then_some(None),
            });
            if self.client.is_none() {
                self.broke = true;
                self.replace();
            }
        }
        self.client.as_mut().expect("just made")
    }

    /// Whether the struck server may still answer; the one after it always does.
    fn lives(&mut self) -> bool {
        self.struck.as_mut().is_none_or(Struck::is_alive)
    }

    fn connect(&self) -> Option<Client> {
        let (listen, token) = self.door.as_ref()?;
        Client::try_tcp(listen, Some(token)).ok()
    }

    fn close(&mut self) {
        self.client = None;
        self.broke = true;
    }

    /// Stops the server.
    #[track_caller]
    pub fn stop(&mut self) {
        self.client = None;
        stop(&mut self.server);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.server.scratch("log"));
            eprintln!("--- the traced server\n{}", said.unwrap_or_default());
            let said = fs::read_to_string(self.server.data_dir().join("shims.log"));
            eprintln!("--- its shims\n{}", said.unwrap_or_default());
        }
    }
}
