//! A client that lives through the death of its server: it submits under keys, follows at its own
//! offsets, deletes, and starts a server where there is none.
//! Does not know where the server is struck.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    checks::stop,
    harness::{Client, Frame, Server, Transcript},
    plan::Plan,
    point::Point,
    strike::Struck,
};

/// Small segments, so that a few writes fill one; one idle shim, so that runs are alike.
pub const ARGS: [&str; 4] = ["--segment-bytes", "65536", "--warm-shims", "1"];

const NOT_FOUND: i64 = -32003;
const UNAVAILABLE: i64 = -32006;

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
    pub fn begin(&mut self, target: &str, point: Option<&Point>) {
        let struck = Struck::start(&self.server, &ARGS, target, point);
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
        assert!(code == 0 || code == 137 && met, "ended with {code}");
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
                Frame::Json(value) => transcript.take(&value),
                Frame::Closed(_) => return self.close(),
                other => panic!("{other:?}"),
            }
        }
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
                Ok(reply) => return reply,
                Err(_broken) => self.close(),
            }
        }
    }

    fn client(&mut self) -> &mut Client {
        while self.client.is_none() {
            self.client = self.connect();
            if self.client.is_none() {
                self.broke = true;
                self.replace();
            }
        }
        self.client.as_mut().expect("just made")
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
        }
    }
}
