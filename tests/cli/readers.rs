//! A follower ends when its reader has left, also where the job has nothing to say.

use std::{
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::harness::{BINARY, Server, until};

const SAYS_ONE_LINE: &str = "echo Listening; exec sleep 1000";

fn follower(server: &Server, words: &[&str], stdout: Stdio, stderr: Stdio) -> Child {
    Command::new(BINARY)
        .args(words)
        .env("CC_EXECUTOR_DATA_DIR", server.data_dir())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("the binary starts")
}

#[track_caller]
fn code(child: &mut Child) -> Option<i32> {
    until("it to end", || child.try_wait().expect("our child")).code()
}

#[test]
fn a_tail_of_a_silent_job_ends_with_its_reader() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": SAYS_ONE_LINE})));
    client.started(&job);
    let number = job["number"].to_string();
    for more in [
        &[][..],
        &["--json"],
        &["--timestamps"],
        &["--stream", "stdout"],
    ] {
        let words = [&["tail", number.as_str()][..], more].concat();
        let mut tail = follower(&server, &words, Stdio::piped(), Stdio::inherit());
        let mut reader = BufReader::new(tail.stdout.take().expect("piped"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        drop(reader);
        assert_eq!(code(&mut tail), Some(141), "{more:?}");
    }
    for verb in ["wait", "tail"] {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let theirs = Stdio::from(OwnedFd::from(theirs));
        let mut child = follower(&server, &[verb, &number], theirs, Stdio::inherit());
        if verb == "tail" {
            let mut bytes = [0; 10];
            (&ours).read_exact(&mut bytes).expect("a line");
        }
        drop(ours);
        assert_eq!(code(&mut child), Some(141), "{verb}");
    }
    assert_eq!(
        client.get(&job)["state"],
        "running",
        "the job is left alone"
    );
}

#[test]
fn a_run_of_a_silent_job_detaches_when_a_reader_leaves() {
    let server = Server::start();
    let mut client = server.connect();
    for of_stderr in [false, true] {
        let words = [
            "run",
            "--",
            "sh",
            "-c",
            "echo Listening | tee /dev/stderr; exec sleep 1000",
        ];
        let mut run = follower(&server, &words, Stdio::piped(), Stdio::piped());
        let mut out = BufReader::new(run.stdout.take().expect("piped"));
        let mut err = BufReader::new(run.stderr.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        err.read_line(&mut line).expect("a line");
        let _other: Box<dyn Read> = match of_stderr {
            true => {
                drop(err);
                Box::new(out)
            }
            false => {
                drop(out);
                Box::new(err)
            }
        };
        assert_eq!(code(&mut run), Some(141));
        let job = client.ok("job.list", json!({}))["jobs"][0].clone();
        assert_eq!(job["state"], "running");
    }
}
