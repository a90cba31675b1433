//! A data directory that is not as it was left: a database or a spool that is damaged, foreign or
//! gone is refused or told of, and never replaced by an empty one.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::harness::{Server, Transcript, assert_bytes, content, emit, until};

/// A server that has run a job with little output and one of several segments, and was stopped.
fn used() -> (Server, Value, Value) {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let small = client.submit(json!({"argv": ["echo", "small"]}));
    let argv = json!([
        emit(),
        "--seed",
        "91",
        "--bytes",
        "5000000",
        "--chunk",
        "65536:65536"
    ]);
    let large = client.submit(json!({"argv": argv}));
    let small = client.finished(&small);
    let large = client.finished(&large);
    let (status, _) = server.stop();
    assert!(status.success());
    (server, small, large)
}

/// All names and bytes below the data directory but logs and what a start may renew.
fn names(server: &Server) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for dir in [server.data_dir(), server.data_dir().join("spool")] {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            names.insert(entry.path());
        }
    }
    names
}

/// A start is refused, in one line that says `what`.
#[track_caller]
fn refused(server: &Server, what: &str) {
    let before = names(server);
    let done = server.cli("serve").args(["--listen", "none"]).run();
    let said = done.err();
    assert_eq!(done.code(), 1, "{what}: {said}");
    assert!(done.stdout.is_empty(), "{what}: it said that it is ready");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains(what), "{what}: {said}");
    let gone: Vec<_> = before.difference(&names(server)).cloned().collect();
    assert!(gone.is_empty(), "{what}: {gone:?} are gone");
}

fn database(server: &Server) -> PathBuf {
    server.data_dir().join("cc-executor.db")
}

/// With the good database back in its place everything is there.
fn goes_on(server: &mut Server, jobs: [&Value; 2]) {
    server.restart();
    let mut client = server.connect();
    for job in jobs {
        assert_eq!(client.get(job), *job);
    }
    assert_eq!(client.whole(jobs[0]).bytes, b"small\n");
    client.whole(jobs[1]).verified();
}

#[test]
fn a_database_that_is_damaged_or_not_ours_is_refused_and_left_as_it_is() {
    let (mut server, small, large) = used();
    let path = database(&server);
    let good = fs::read(&path).expect("the database");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let middle = good.len() / 2 / 4096 * 4096;
    // A leaf of a table with rows in it.
    let leaf = (1..good.len() / 4096).map(|page| page * 4096);
    let leaf = leaf.rev().find(|at| good[*at] == 0x0d && good[at + 4] > 0);
    let leaf = leaf.expect("a table");
    let cases = [
        (
            "is damaged, or is no SQLite",
            changed(&|bytes| bytes.fill(0x5a)),
        ),
        ("cut off", Vec::new()),
        ("is damaged", changed(&|bytes| bytes.truncate(middle))),
        ("is damaged", changed(&|bytes| bytes.truncate(4096))),
        ("is damaged", changed(&|bytes| bytes.truncate(5000))),
        (
            "another program",
            changed(&|bytes| bytes[68..72].copy_from_slice(b"THEM")),
        ),
        // The kind of a page, and the first of its cells.
        ("is damaged", changed(&|bytes| bytes[leaf] ^= 0xff)),
        ("is damaged", changed(&|bytes| bytes[leaf + 8] ^= 0xff)),
    ];
    for (what, bytes) in cases {
        fs::write(&path, &bytes).expect("written");
        refused(&server, what);
        assert!(
            fs::read(&path).expect("there") == bytes,
            "{what}: it was changed"
        );
    }
    fs::write(&path, &good).expect("written");
    goes_on(&mut server, [&small, &large]);
}

#[test]
fn what_is_in_the_place_of_a_database_is_refused() {
    let (mut server, small, large) = used();
    let path = database(&server);
    let aside = server.scratch("aside");
    fs::rename(&path, &aside).expect("moved");
    refused(&server, "is missing, and the spool beside it holds");
    fs::create_dir(&path).expect("a directory");
    refused(&server, "no regular file");
    fs::remove_dir(&path).expect("removed");
    symlink(server.scratch("nowhere"), &path).expect("a link");
    refused(&server, "leads nowhere");
    fs::remove_file(&path).expect("removed");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo runs").success());
    refused(&server, "no regular file");
    fs::remove_file(&path).expect("removed");
    symlink(&aside, &path).expect("a link");
    goes_on(&mut server, [&small, &large]);
}

/// The write-ahead log was lost with a kill: the spool knows a job that the database does not.
#[test]
fn a_database_that_is_older_than_its_spool_is_refused() {
    let (mut server, small, large) = used();
    let path = database(&server);
    let older = fs::read(&path).expect("the database");
    server.restart();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "92", "--bytes", "1000000"]);
    let newer = client.submit(json!({"argv": argv}));
    let newer = client.finished(&newer);
    let (status, _) = server.stop();
    assert!(status.success());
    let newest = fs::read(&path).expect("the database");
    fs::write(&path, &older).expect("written");
    refused(
        &server,
        "a newer database, or its write-ahead log, is missing",
    );
    fs::write(&path, &newest).expect("written");
    goes_on(&mut server, [&small, &large]);
    server.connect().whole(&newer).verified();
}

#[test]
fn a_log_of_the_database_that_was_removed_under_the_server_ends_it() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "kept"]}));
    client.finished(&job);
    // The next start finds what was in it only if it was carried over before.
    fs::remove_file(server.data_dir().join("cc-executor.db-wal")).expect("removed");
    let submitted = client.try_call("job.submit", json!({"argv": ["true"]}));
    assert!(
        !matches!(submitted, Ok(Ok(_))),
        "acknowledged: {submitted:?}"
    );
    assert_eq!(server.ended().code(), Some(1));
    assert!(
        server.said().contains("removed or replaced"),
        "{}",
        server.said()
    );
}

/// A large database is looked through beside the work: damage anywhere ends the server.
#[test]
fn a_large_database_is_looked_through_beside_the_work() {
    let mut server = Server::with(&["--check-bytes-max", "0"], &[]);
    let mut client = server.connect();
    let shell = "head -c 100000 /dev/zero | tr '\\0' x";
    let job = client.submit(json!({"shell": shell}));
    client.finished(&job);
    server.stop();
    server.restart();
    assert_eq!(server.connect().download(&job, 65_536), vec![b'x'; 100_000]);
    server.stop();
    let sound = fs::read(database(&server)).expect("readable");
    // A page of its table of outputs, which is not the first one.
    let path = database(&server);
    let root = |name: &str| -> u64 {
        let sql = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'");
        let asked = Command::new("sqlite3").arg(&path).arg(sql).output();
        let text = String::from_utf8(asked.expect("sqlite3").stdout).expect("text");
        text.trim().parse().expect("a page")
    };
    let damage = |server: &Server, page: u64| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(database(server))
            .expect("opens");
        file.write_all_at(&[0xff; 64], (page - 1) * 4096)
            .expect("written");
    };
    let (outputs, events) = (root("output_chunks"), root("events"));
    let (nodes, queues) = (root("nodes"), root("queues"));
    for page in [outputs, events] {
        damage(&server, page);
        server.launch();
        // It may have said that it is ready before.
        let _ = server.readied();
        assert_eq!(server.ended().code(), Some(1));
        assert!(server.said().contains("damaged"), "{}", server.said());
        fs::write(database(&server), &sound).expect("as it was");
    }
    // What the start itself reads has to be sound first.
    let read = [1, nodes, queues];
    for page in read {
        // The file's header stays.
        let at = if page == 1 { 100 } else { 0 };
        let mut bytes = sound.clone();
        bytes[(page as usize - 1) * 4096 + at..][..64].fill(0xff);
        fs::write(database(&server), &bytes).expect("written");
        refused(&server, "damaged");
    }
    fs::write(database(&server), sound).expect("as it was");
}

/// The segments of a job, by their first offsets.
pub fn segments(server: &Server, job: &Value) -> Vec<(u64, PathBuf)> {
    let number = job["number"].as_i64().expect("a number");
    let mut found = Vec::new();
    for entry in fs::read_dir(server.data_dir().join("spool"))
        .expect("the spool")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let parts: Vec<&str> = name.split('.').collect();
        if let [job, _, first, "seg"] = parts[..]
            && job == number.to_string()
        {
            found.push((first.parse().expect("an offset"), entry.path()));
        }
    }
    found.sort();
    found
}

/// Another bit at this byte.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a segment");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// What is there is right, and what is missing is told once.
#[track_caller]
fn one_gap(server: &Server, job: &Value, seed: u64, from_to: (u64, u64)) {
    let (from, to) = from_to;
    let whole = server.connect().whole(job);
    let gaps: Vec<Value> = whole.gaps.iter().map(|gap| json!(gap)).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(whole.gaps[0]["reason"], "damaged");
    assert_eq!(whole.gaps[0]["to"], to);
    let begins = whole.gaps[0]["from"].as_u64().expect("an offset");
    assert!((from..to).contains(&begins), "{gaps:?}");
    let length = job["output_bytes"].as_u64().expect("a length");
    let mut expected = content(seed, 0, length, false);
    expected.drain(begins as usize..to as usize);
    assert_bytes(&whole.bytes, &expected, "what is there");
}

#[test]
fn a_segment_that_is_gone_or_damaged_is_one_gap() {
    let (mut server, _, large) = used();
    let segments = segments(&server, &large);
    assert!(segments.len() >= 4, "{segments:?}");
    let [(_, first), (second_at, second), (third_at, _)] = &segments[..3] else {
        panic!("{segments:?}");
    };
    let good = fs::read(second).expect("a segment");
    server.restart();
    for damage in [
        |path: &Path| fs::remove_file(path).expect("removed"),
        |path: &Path| flip(path, 500_000),
        |path: &Path| flip(path, 3),
        |path: &Path| fs::write(path, "").expect("written"),
        |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path);
            file.and_then(|file| file.set_len(300_000)).expect("cut");
        },
    ] {
        damage(second);
        one_gap(&server, &large, 91, (*second_at, *third_at));
        server.kill_9();
        server.restart();
        one_gap(&server, &large, 91, (*second_at, *third_at));
        fs::write(second, &good).expect("written");
        server.connect().whole(&large).verified();
    }
    // From the middle of the gap one goes on behind it.
    fs::remove_file(second).expect("removed");
    let from = json!({"job": large["id"], "from": second_at + 10});
    let reply = server.connect().ok("job.read", from);
    assert_eq!(reply["chunks"][0]["gap"]["from"], second_at + 10);
    assert_eq!(reply["chunks"][0]["gap"]["to"], *third_at);
    flip(first, 100);
}

/// What is damaged while the job still runs keeps it from nothing, and there is no digest.
#[test]
fn a_segment_that_goes_while_its_job_runs_is_one_gap_at_the_end() {
    for entered in [false, true] {
        let server = Server::with(&["--segment-bytes", "1048576"], &[]);
        let mut client = server.connect();
        let gate = server.scratch("gate");
        let line = format!(
            "{} --seed 93 --bytes 3500000 --chunk 65536:65536; while [ ! -e {} ]; do sleep 0.02; done; exit 3",
            emit(),
            gate.display()
        );
        let job = client.submit(server.marked(json!({"shell": line})));
        until("its output", || {
            (client.get(&job)["output_bytes"] == 3_500_000).then_some(())
        });
        let segments = segments(&server, &job);
        let [_, (second_at, second), (third_at, _)] = &segments[..3] else {
            panic!("{segments:?}");
        };
        if entered {
            fs::remove_file(second).expect("removed");
        } else {
            flip(second, 500_000);
        }
        fs::write(&gate, "").expect("the gate");
        let end = client.finished(&job);
        assert_eq!(end["exit_code"], 3);
        assert_eq!(end["output_bytes"], 3_500_000);
        one_gap(&server, &end, 93, (*second_at, *third_at));
    }
}

#[test]
fn a_small_output_that_is_cut_off_before_its_end_is_one_gap() {
    let mut server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "{} --seed 94 --bytes 50000 --chunk 1000:1000; while [ ! -e {} ]; do sleep 0.02; done; exit 3",
        emit(),
        gate.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    until("its output", || {
        (client.get(&job)["output_bytes"] == 50_000).then_some(())
    });
    let segments = segments(&server, &job);
    flip(&segments[0].1, 20_000);
    fs::write(&gate, "").expect("the gate");
    let end = client.finished(&job);
    assert_eq!(end["exit_code"], 3);
    assert_eq!(end["output_sha256"], Value::Null);
    one_gap(&server, &end, 94, (0, 50_000));
    server.kill_9();
    server.restart();
    one_gap(&server, &end, 94, (0, 50_000));
}

#[test]
fn a_file_in_the_spool_that_is_not_ours_stays() {
    let (mut server, small, large) = used();
    let spool = server.data_dir().join("spool");
    let foreign = ["notes.txt", "1.tar.gz", "backup.seg", ".hidden"];
    for name in foreign {
        fs::write(spool.join(name), "theirs").expect("written");
    }
    let leftover = spool.join(format!("{}.1.hole.draft", large["number"]));
    fs::write(&leftover, "ours").expect("written");
    goes_on(&mut server, [&small, &large]);
    until("ours to be tidied up", || {
        (!leftover.exists()).then_some(())
    });
    for name in foreign {
        assert_eq!(fs::read(spool.join(name)).expect("there"), b"theirs");
    }
}

/// A file that cannot be read is the affair of those bytes alone: not of its job's other bytes, nor of the
/// session's other tails.
#[test]
fn what_cannot_be_read_is_one_gap_and_its_session_goes_on() {
    let (mut server, small, large) = used();
    let segments = segments(&server, &large);
    let [(second_at, second), (third_at, _)] = &segments[1..3] else {
        panic!("{segments:?}");
    };
    let good = server.scratch("good");
    fs::rename(second, &good).expect("moved");
    server.restart();
    for place in [
        |path: &Path, _: &Path| fs::create_dir(path).expect("a directory"),
        |path: &Path, good: &Path| symlink(good, path).expect("a link"),
        |path: &Path, _: &Path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe")
        },
    ] {
        place(second, &good);
        one_gap(&server, &large, 91, (*second_at, *third_at));
        let mut client = server.connect();
        let mut tails = [&large, &small, &large].map(|job| {
            let subscription = client.tail(json!({"job": job["id"]}));
            (subscription, Transcript::default())
        });
        while tails.iter().any(|(_, transcript)| transcript.end.is_none()) {
            let told = client.notification();
            let is_its = |(number, _): &&mut (u64, _)| told["params"]["subscription"] == *number;
            let (_, transcript) = tails.iter_mut().find(is_its).expect("a tail");
            transcript.take(&told);
        }
        tails[1].1.verified();
        // A query finds the rest of it.
        let sql = "SELECT job, sum(bytes) FROM history_output GROUP BY job ORDER BY job";
        let rows = client.ok("history.query", json!({"sql": sql}))["rows"].clone();
        let there = large["output_bytes"].as_u64().expect("a length") - (third_at - second_at);
        assert_eq!(
            rows,
            json!([[small["number"], 6], [large["number"], there]])
        );
        // From the middle of the gap, and from behind it.
        for (from, to) in [(second_at + 10, *third_at), (*third_at, *third_at)] {
            let reply = client.ok("job.read", json!({"job": large["id"], "from": from}));
            let gap = &reply["chunks"][0]["gap"];
            match from < to {
                true => assert_eq!((&gap["from"], &gap["to"]), (&json!(from), &json!(to))),
                false => assert_eq!(*gap, Value::Null, "{reply}"),
            }
        }
        client.still_works();
        match fs::symlink_metadata(second).expect("ours").is_dir() {
            true => fs::remove_dir(second).expect("removed"),
            false => fs::remove_file(second).expect("removed"),
        }
    }
    fs::rename(&good, second).expect("moved back");
    server.connect().whole(&large).verified();
    let lines = server.said();
    let lines = lines.matches("a segment cannot be read").count();
    assert!(lines <= 60, "{lines} lines for a few readers");
}

/// The end of a segment that is still written is unknown, so there is no gap to tell: the tail ends with an
/// error, and can be begun again where it stopped.
#[test]
fn a_tail_of_a_running_job_that_cannot_be_read_ends_with_an_error() {
    let server = Server::start();
    let mut client = server.connect();
    let talks = json!({"shell": "echo hello; read a; echo $a", "interactive": true});
    let job = client.submit(server.marked(talks.clone()));
    let other = client.submit(server.marked(talks));
    for job in [&job, &other] {
        let written = json!({"jobs": [job["id"]], "until": {"bytes": 6}});
        assert_eq!(client.ok("job.wait", written)["met"], true);
    }
    let (_, segment) = segments(&server, &job).remove(0);
    let good = server.scratch("good");
    fs::rename(&segment, &good).expect("moved");
    fs::create_dir(&segment).expect("in its place");
    let subscription = client.tail(json!({"job": job["id"]}));
    let told = loop {
        let told = client.notification();
        if told["method"] != "job.caught_up" {
            break told;
        }
    };
    assert_eq!(told["method"], "job.error", "{told}");
    let params = &told["params"];
    assert_eq!(params["subscription"], subscription);
    assert_eq!(
        (&params["job"], &params["next_offset"]),
        (&job["id"], &json!(0))
    );
    assert_eq!(params["error"]["data"]["kind"], "internal");
    let error = client.refused(-32603, "job.read", json!({"job": job["id"], "from": 0}));
    assert_eq!(error["data"]["kind"], "internal");
    assert_eq!(client.get(&job)["state"], "running");
    // The session goes on, and so do its other tails.
    let subscription = client.tail(json!({"job": other["id"]}));
    let mut transcript = Transcript::default();
    client.ok("job.input", json!({"job": other["id"], "data": "on\n"}));
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.bytes, b"hello\non\n");
    fs::remove_dir(&segment).expect("removed");
    fs::rename(&good, &segment).expect("moved back");
    client.ok("job.input", json!({"job": job["id"], "data": "on\n"}));
    assert_eq!(client.whole(&job).bytes, b"hello\non\n");
}
