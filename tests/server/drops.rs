//! Jobs that write more than may be kept, `drop_oldest` and `drop_newest`: every byte that is
//! delivered is right at its offset, what is missing is one gap, and all of it adds up.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::harness::{Client, Frame, Server, content, emit, until, until_true};

const MIB: u64 = 1 << 20;

/// A gap as it is told.
#[derive(Debug, Clone, PartialEq)]
struct Gap {
    from: u64,
    to: u64,
    reason: String,
}

impl Gap {
    fn of(params: &Value) -> Self {
        Self {
            from: params["from"].as_u64().expect("from"),
            to: params["to"].as_u64().expect("to"),
            reason: params["reason"].as_str().expect("reason").to_owned(),
        }
    }
}

/// What a job must have written, wherever one looks.
trait Written {
    fn is_right(&self, offset: u64, data: &[u8]) -> bool;
}

impl Written for Vec<u8> {
    fn is_right(&self, offset: u64, data: &[u8]) -> bool {
        let at = offset as usize;
        self.get(at..at + data.len()) == Some(data)
    }
}

/// `yes 0123456`: eight bytes, for ever.
struct Yes;

impl Written for Yes {
    fn is_right(&self, offset: u64, data: &[u8]) -> bool {
        let expected = b"0123456\n".iter().cycle().skip((offset % 8) as usize);
        data.iter().zip(expected).all(|(got, want)| got == want)
    }
}

/// What tails of one job have told, held to the contract.
struct Story<'a> {
    written: &'a dyn Written,
    next_offset: u64,
    bytes: u64,
    gaps: Vec<Gap>,
    caught_up: Option<u64>,
    end: Option<Value>,
}

impl<'a> Story<'a> {
    fn of(written: &'a dyn Written) -> Self {
        Self {
            written,
            next_offset: 0,
            bytes: 0,
            gaps: Vec::new(),
            caught_up: None,
            end: None,
        }
    }

    fn take(&mut self, notification: &Value) {
        assert!(self.end.is_none(), "behind the end: {notification}");
        let params = &notification["params"];
        match notification["method"].as_str() {
            Some("job.output") => {
                assert_eq!(params["offset"], self.next_offset);
                let data = params["data"].as_str().expect("text").as_bytes();
                assert!(self.written.is_right(self.next_offset, data));
                self.bytes += data.len() as u64;
                self.next_offset += data.len() as u64;
                assert_eq!(params["next_offset"], self.next_offset);
            }
            Some("job.gap") => {
                let gap = Gap::of(params);
                assert_eq!(gap.from, self.next_offset);
                assert!(gap.to > gap.from, "{gap:?}");
                self.next_offset = gap.to;
                self.gaps.push(gap);
            }
            Some("job.caught_up") => self.caught_up = params["next_offset"].as_u64(),
            Some("job.end") => {
                assert_eq!(params["job"]["output_bytes"], self.next_offset);
                self.end = Some(params["job"].clone());
            }
            Some("job.state") => {}
            _ => panic!("unexpected: {notification}"),
        }
    }

    fn step(&mut self, client: &mut Client) {
        match client.frame() {
            Frame::Json(value) => self.take(&value),
            other => panic!("expected a notification, got {other:?}"),
        }
    }

    /// Reads on over a new tail until `enough`.
    fn tail(&mut self, client: &mut Client, job: &Value, enough: impl Fn(&Self) -> bool) {
        client.tail(json!({"job": job["id"], "from": self.next_offset}));
        while !enough(self) {
            self.step(client);
        }
    }

    fn whole(client: &mut Client, job: &Value, written: &'a dyn Written) -> Self {
        let mut story = Self::of(written);
        story.tail(client, job, |story| story.end.is_some());
        story
    }

    fn missing(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.to - gap.from).sum()
    }
}

fn dropping(argv: &[&str], when_full: &str, max_bytes: u64) -> Value {
    json!({"argv": argv, "output": {"max_bytes": max_bytes, "when_full": when_full}})
}

/// So many bytes of the fixture, in writes of up to 64 KiB.
fn emitting(seed: &str, bytes: &str, when_full: &str, max_bytes: u64) -> Value {
    let argv = [
        emit(),
        "--seed",
        seed,
        "--bytes",
        bytes,
        "--chunk",
        "1:65536",
    ];
    dropping(&argv, when_full, max_bytes)
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Everything that holds of a final job whose whole output is known; returns its only gap.
fn check(client: &mut Client, job: &Value, written: &Vec<u8>, reason: &str) -> Gap {
    let story = Story::whole(client, job, written);
    let [gap] = &story.gaps[..] else {
        panic!("one gap: {:?}", story.gaps)
    };
    assert_eq!(gap.reason, reason);
    let end = story.end.as_ref().expect("an end");
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["output_bytes"], written.len());
    assert_eq!(story.bytes + story.missing(), written.len() as u64);
    assert_eq!(end["dropped_bytes"], gap.to - gap.from);
    let dropped = &written[gap.from as usize..gap.to as usize];
    assert_eq!(end["dropped_lines"], lines(dropped));
    assert_eq!(end["output_sha256"], Value::Null);
    assert_eq!(client.get(job), *end);
    gap.clone()
}

/// What one read from `from` on says first.
fn first_item(client: &mut Client, job: &Value, from: u64) -> Value {
    let read = json!({"job": job["id"], "from": from, "max_bytes": 100});
    client.ok("job.read", read)["chunks"][0].clone()
}

#[test]
fn the_oldest_behind_the_first_segment_are_one_gap() {
    let server = Server::start();
    let mut client = server.connect();
    let written = content(31, 0, 60_000_000, false);
    let job = client.submit(emitting("31", "60000000", "drop_oldest", 16 * MIB));
    client.finished(&job);
    let gap = check(&mut client, &job, &written, "drop_oldest");
    assert!(gap.from >= MIB, "the first segment is kept: {gap:?}");
    let kept = written.len() as u64 - (gap.to - gap.from);
    assert!(
        (12 * MIB..=16 * MIB).contains(&kept),
        "{kept} bytes are kept"
    );

    for from in [gap.from, gap.from + 1, (gap.from + gap.to) / 2, gap.to - 1] {
        let rest = Gap {
            from,
            ..gap.clone()
        };
        assert_eq!(Gap::of(&first_item(&mut client, &job, from)["gap"]), rest);
        let mut story = Story::of(&written);
        story.next_offset = from;
        story.tail(&mut client, &job, |story| story.end.is_some());
        assert_eq!(story.gaps, [rest]);
    }
    for from in [0, gap.from - 1, gap.to, gap.to + 5 * MIB] {
        let chunk = first_item(&mut client, &job, from);
        let data = chunk["data"].as_str().expect("text").as_bytes();
        assert_eq!(chunk["offset"], from);
        assert!(written.is_right(from, data), "at {from}");
    }
    let ends = written.len() as u64;
    for (asked, from) in [
        (json!({"last_bytes": 1000}), ends - 1000),
        (json!({"last_lines": 10}), {
            let ends: Vec<_> = (0..ends)
                .rev()
                .filter(|at| at % 64 == 63)
                .take(11)
                .collect();
            // The last line has an end only by chance.
            ends[if ends[0] + 1 == written.len() as u64 {
                10
            } else {
                9
            }] + 1
        }),
        (json!({"last_bytes": 30_000_000}), ends - 30_000_000),
    ] {
        let mut params = asked.clone();
        params["job"] = job["id"].clone();
        let reply = client.ok("job.tail", params);
        assert_eq!(reply["from"], from, "{asked}");
        let mut story = Story::of(&written);
        story.next_offset = from;
        while story.end.is_none() {
            story.step(&mut client);
        }
    }
    // Far more lines than are kept: those before the hole are found without reading it.
    let reply = client.ok(
        "job.tail",
        json!({"job": job["id"], "last_lines": 10_000_000}),
    );
    assert_eq!(reply["from"], 0);
}

#[test]
fn a_bound_that_is_not_reached_changes_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let written = content(32, 0, 16 * MIB, false);
    let job = client.submit(emitting(
        "32",
        &(16 * MIB).to_string(),
        "drop_oldest",
        16 * MIB,
    ));
    let story = Story::whole(&mut client, &job, &written);
    let end = story.end.expect("an end");
    assert_eq!((story.bytes, story.gaps), (16 * MIB, Vec::new()));
    assert_eq!(end["output_sha256"], crate::harness::sha256(&written));
    assert_eq!(
        (&end["dropped_bytes"], &end["dropped_lines"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn the_newest_are_one_gap_at_the_end() {
    let server = Server::start();
    let mut client = server.connect();
    // As rows, and as segments.
    for max in [1, 5000, 9_000_000] {
        let written = content(33, 0, 20_000_000, false);
        let job = client.submit(emitting("33", "20000000", "drop_newest", max));
        client.finished(&job);
        let gap = check(&mut client, &job, &written, "drop_newest");
        assert_eq!((gap.from, gap.to), (max, 20_000_000));
        let item = first_item(&mut client, &job, 15_000_000);
        assert_eq!(item["gap"]["from"], 15_000_000);
        let tail = json!({"job": job["id"], "last_lines": 1});
        let from = client.ok("job.tail", tail)["from"].as_u64().expect("from");
        assert!(from < max && max - from <= 64, "{from}");
        let mut story = Story::of(&written);
        story.next_offset = from;
        while story.end.is_none() {
            story.step(&mut client);
        }
    }
}

#[test]
fn a_live_tail_waits_at_the_bound_and_is_told_of_one_gap() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "yes 0123456 | head -c 100000; while [ ! -e {} ]; do sleep 0.02; done; yes 0123456 | head -c 100000",
        gate.display()
    );
    let output = json!({"max_bytes": 50_001, "when_full": "drop_newest"});
    let job = client.submit(server.marked(json!({"shell": line, "output": output})));
    let mut story = Story::of(&Yes);
    story.tail(&mut client, &job, |story| {
        story.next_offset == 50_001 && story.caught_up.is_some()
    });
    assert_eq!(client.get(&job)["output_bytes"], 50_001);
    fs::write(&gate, "").expect("the gate");
    while story.end.is_none() {
        story.step(&mut client);
    }
    let gap = Gap {
        from: 50_001,
        to: 200_000,
        reason: "drop_newest".to_owned(),
    };
    assert_eq!(story.gaps, [gap]);
    let end = story.end.expect("an end");
    assert_eq!(end["dropped_bytes"], 149_999);
    assert_eq!(end["dropped_lines"], 25_000 - 50_001 / 8);
}

#[test]
fn a_character_that_is_cut_by_the_bound_comes_before_the_gap() {
    let server = Server::start();
    let mut client = server.connect();
    let job = json!({
        "shell": "printf 'a\\303\\251b\\n'",
        "output": {"max_bytes": 2, "when_full": "drop_newest"},
    });
    let job = client.submit(job);
    client.finished(&job);
    client.tail(json!({"job": job["id"]}));
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "job.end") {
        let notification = client.notification();
        let params = &notification["params"];
        told.push(match notification["method"].as_str().expect("a method") {
            "job.output" => {
                let data = [&params["data"], &params["data_base64"]];
                data.map(|data| data.as_str().unwrap_or_default()).concat()
            }
            "job.gap" => format!("{}-{}", params["from"], params["to"]),
            method => method.to_owned(),
        });
    }
    assert_eq!(told, ["a", "ww==", "2-5", "job.caught_up", "job.end"]);
}

#[test]
fn live_tails_are_dense_whether_they_keep_up_or_stand_still() {
    let server = Server::start();
    let mut client = server.connect();
    let written = content(34, 0, 80_000_000, false);
    let job = client.submit(emitting("34", "80000000", "drop_oldest", 16 * MIB));
    let mut slow_client = server.connect();
    let mut slow = Story::of(&written);
    slow.tail(&mut slow_client, &job, |story| story.bytes > 0);
    // The slow one stands still until the job is over.
    let mut live = Story::of(&written);
    live.tail(&mut client, &job, |story| story.end.is_some());
    while slow.end.is_none() {
        slow.step(&mut slow_client);
    }
    for story in [&live, &slow] {
        assert_eq!(story.bytes + story.missing(), 80_000_000);
        assert!(story.gaps.iter().all(|gap| gap.reason == "drop_oldest"));
    }
    assert!(!slow.gaps.is_empty());
    check(&mut client, &job, &written, "drop_oldest");
}

#[test]
fn kills_of_the_server_change_nothing() {
    let mut server = Server::start();
    let mut client = server.connect();
    let written = content(35, 0, 120_000_000, false);
    let argv = [
        emit(),
        "--seed",
        "35",
        "--bytes",
        "120000000",
        "--chunk",
        "1:65536",
        "--pause-us",
        "500",
    ];
    let job = dropping(&argv, "drop_oldest", 16 * MIB);
    let job = client.submit(server.marked(job));
    let mut story = Story::of(&written);
    for kill in 1..=5 {
        story.tail(&mut client, &job, |story| {
            story.next_offset > kill * 15_000_000
        });
        server.kill_9();
        server.restart();
        client = server.connect();
    }
    story.tail(&mut client, &job, |story| story.end.is_some());
    assert_eq!(story.bytes + story.missing(), 120_000_000);
    assert_eq!(story.end.expect("an end")["attempts"], 1);
    check(&mut client, &job, &written, "drop_oldest");
    until_true("what was dropped leaves no trace", || {
        let names = spool(&server.data_dir());
        !names.iter().any(|name| name.contains(".hole"))
    });
}

#[test]
fn a_job_that_ends_without_a_server_is_told_as_it_was() {
    for when_full in ["drop_oldest", "drop_newest"] {
        let mut server = Server::start();
        let mut client = server.connect();
        let written = content(36, 0, 50_000_000, false);
        let done = server.scratch("done");
        let line = format!(
            "{} --seed 36 --bytes 50000000 --chunk 1:65536; echo >{}",
            emit(),
            done.display()
        );
        let output = json!({"max_bytes": 16 * MIB, "when_full": when_full});
        let job = client.submit(json!({"shell": line, "output": output}));
        client.started(&job);
        server.kill_9();
        until_true("the job is done", || done.exists());
        server.restart();
        client = server.connect();
        check(&mut client, &job, &written, when_full);
    }
}

#[test]
fn a_runaway_job_is_bounded_on_disk_and_in_memory_and_a_stopped_server_does_not_matter() {
    let server = Server::start();
    let mut client = server.connect();
    let job = dropping(&["yes", "0123456"], "drop_oldest", 64 * MIB);
    let job = client.submit(server.marked(job));
    client.started(&job);
    let pid = Pid::from_raw(server.pid());
    kill(pid, Signal::SIGSTOP).expect("stop the server");
    let mut most = 0;
    until_true("the job has written much more than is kept", || {
        most = most.max(disk_bytes(&server.data_dir()));
        dropped(&server) > 600 * MIB
    });
    kill(pid, Signal::SIGCONT).expect("continue the server");
    let running = client.get(&job);
    assert!(
        running["dropped_bytes"].as_u64() > Some(500 * MIB),
        "{running}"
    );
    let shims = server.shims();
    assert!(shims.iter().all(|pid| private_bytes(*pid) < 32 * MIB));
    assert!(private_bytes(server.pid()) < 128 * MIB);
    let mut story = Story::of(&Yes);
    story.tail(&mut client, &job, |story| story.gaps.len() > 2);
    most = most.max(disk_bytes(&server.data_dir()));
    assert!(most <= (64 + 8 + 8) * MIB, "{most} bytes on the disk");
    client.begin("job.control", json!({"job": job["id"], "action": "kill"}));
    let mut reader = server.connect();
    let end = reader.finished(&job);
    let story = Story::whole(&mut reader, &job, &Yes);
    let [gap] = &story.gaps[..] else {
        panic!("one gap: {:?}", story.gaps)
    };
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["dropped_bytes"], gap.to - gap.from);
    let lines_before = |offset: u64| offset / 8;
    let lines = lines_before(gap.to) - lines_before(gap.from);
    assert_eq!(end["dropped_lines"], lines);
    assert!(story.bytes <= 64 * MIB, "{} bytes are kept", story.bytes);
}

fn spool(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir.join("spool")).expect("the spool");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.filter_map(|name| name.into_string().ok()).collect()
}

/// The upper end of what the spool says was dropped: the name of the oldest segment behind it.
fn dropped(server: &Server) -> u64 {
    let firsts = spool(&server.data_dir()).into_iter();
    let firsts = firsts.filter_map(|name| name.split('.').nth(2)?.parse::<u64>().ok());
    firsts.filter(|first| *first > 0).min().unwrap_or(0)
}

fn disk_bytes(data_dir: &Path) -> u64 {
    let entries = |dir: &Path| fs::read_dir(dir).expect("a directory");
    let sizes = entries(data_dir).chain(entries(&data_dir.join("spool")));
    let size = |entry: std::io::Result<fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.len());
    sizes.filter_map(size).sum()
}

/// The memory of a process that is its own, bytes: without the pages of files, of which a debug build has many.
fn private_bytes(pid: i32) -> u64 {
    until("its memory is known", || {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        Some((resident - shared) * 4096)
    })
}
