//! The figures of docs/benchmarks.md, each measured beside its yardstick in the same run.
//! Uses the release binary over its public doors; prints markdown, and decides nothing.

#![allow(clippy::disallowed_methods, reason = "figures are taken with clocks")]

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "stamps.rs"]
mod stamps;

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use harness::{Client, Server};
use stamps::age_us;

/// Jobs of the first figure.
const JOBS: usize = 1000;
/// Requests sent ahead of their replies; a session may have 64 in flight.
const WINDOW: usize = 48;
/// Jobs of one `job.wait`, so that its reply stays far below 1 MiB.
const WAIT_BATCH: usize = 100;
/// Blocks of 64 KiB of the second figure: 1 GiB.
const BLOCKS: u32 = 16_384;
/// Writes of the third figure, and the time between them.
const STAMPS: usize = 1000;
const STAMP_EVERY: Duration = Duration::from_millis(4);

fn main() -> io::Result<()> {
    // The third figure's job is this program, so that both sides share one clock.
    if env::args().nth(1).as_deref() == Some("--write-stamps") {
        return stamps::write(STAMPS, STAMP_EVERY);
    }
    say(&format!("Measured on {}.\n", machine()))?;
    say("| figure | cc-executor | yardstick | ratio |")?;
    say("| --- | --- | --- | --- |")?;
    jobs()?;
    gibibyte()?;
    latency()
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} ({cores} cores), Linux {}",
        model.unwrap_or("an unnamed processor"),
        kernel.trim()
    )
}

/// The median of so many runs, in seconds.
fn median(runs: usize, mut run: impl FnMut() -> Duration) -> f64 {
    let mut times: Vec<f64> = (0..runs).map(|_| run().as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn shell(line: &str) -> Duration {
    let began = Instant::now();
    let status = Command::new("/bin/sh").args(["-c", line]).status();
    assert!(status.is_ok_and(|status| status.success()), "{line}");
    began.elapsed()
}

fn jobs() -> io::Result<()> {
    let server = Server::start();
    let mut client = server.connect();
    let ours = median(5, || thousand_jobs(&mut client));
    let line = format!("seq {JOBS} | xargs -P2 -n1 /bin/true");
    let theirs = median(5, || shell(&line));
    let rate = |seconds: f64| JOBS as f64 / seconds;
    say(&format!(
        "| {JOBS} jobs `/bin/true` over one WebSocket, submitted one by one, until all are final \
         | {ours:.3} s ({:.0}/s) | `xargs -P2 -n1`: {theirs:.3} s ({:.0}/s) | {:.2} |",
        rate(ours),
        rate(theirs),
        ours / theirs
    ))
}

fn thousand_jobs(client: &mut Client) -> Duration {
    let began = Instant::now();
    let submit = json!({"argv": ["/bin/true"]});
    let mut sent = Vec::with_capacity(JOBS);
    let mut ids = Vec::with_capacity(JOBS);
    while ids.len() < JOBS {
        while sent.len() < JOBS && sent.len() - ids.len() < WINDOW {
            sent.push(client.begin("job.submit", submit.clone()));
        }
        let reply = client.reply(sent[ids.len()]).expect("a submit");
        ids.push(reply["job"]["id"].clone());
    }
    for batch in ids.chunks(WAIT_BATCH) {
        let reply = client.ok("job.wait", json!({"jobs": batch, "mode": "all"}));
        let jobs = reply["jobs"].as_array().expect("jobs");
        assert!(jobs.iter().all(|job| job["state"] == "succeeded"));
    }
    began.elapsed()
}

fn gibibyte() -> io::Result<()> {
    let writer = format!("dd if=/dev/zero bs=64k count={BLOCKS} status=none");
    let ours = median(3, || one_job(&writer));
    let place = tempfile::tempdir()?;
    let file = place.path().join("copy");
    let plain = median(3, || copy(&writer, &file, "true"));
    let synced = median(3, || {
        copy(&writer, &file, &format!("sync -d {}", file.display()))
    });
    say(&format!(
        "| one job that writes 1 GiB, until it is final | {ours:.2} s \
         | `cat > file`: {plain:.2} s; and `sync -d`: {synced:.2} s | {:.2}; {:.2} |",
        ours / plain,
        ours / synced
    ))
}

/// A new server each time: nothing of an earlier run fills the disk.
fn one_job(writer: &str) -> Duration {
    let server = Server::start();
    let mut client = server.connect();
    let began = Instant::now();
    let job = client.submit(json!({"shell": writer}));
    let end = client.ok("job.wait", json!({"jobs": [job["id"]], "timeout_s": 600}));
    let took = began.elapsed();
    assert_eq!(end["job"]["state"], "succeeded", "{end}");
    assert_eq!(end["job"]["output_bytes"], u64::from(BLOCKS) * 65_536);
    took
}

fn copy(writer: &str, file: &Path, then: &str) -> Duration {
    let took = shell(&format!("{writer} | cat > {} && {then}", file.display()));
    std::fs::remove_file(file).expect("the copy");
    took
}

fn latency() -> io::Result<()> {
    let server = Server::start();
    let mut client = server.connect();
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..3 {
        ours.push(percentiles(tail_latencies(&mut client)));
        theirs.push(percentiles(pipe_latencies()?));
    }
    let (ours, theirs) = (middle(ours), middle(theirs));
    say(&format!(
        "| from a job's write to the client of a live tail, p50 / p99 | {:.0} / {:.0} µs \
         | a raw pipe: {:.0} / {:.0} µs | {:.1} / {:.1} |",
        ours.0,
        ours.1,
        theirs.0,
        theirs.1,
        ours.0 / theirs.0,
        ours.1 / theirs.1
    ))
}

fn tail_latencies(client: &mut Client) -> Vec<f64> {
    let program = env::current_exe().expect("our path");
    let argv = json!([program.to_str().expect("UTF-8"), "--write-stamps"]);
    let reply = client.ok("job.submit", json!({"argv": argv, "tail": {}}));
    assert!(reply["subscription"].is_u64());
    let mut ages = Vec::with_capacity(STAMPS);
    loop {
        let event: Value = client.notification();
        match event["method"].as_str() {
            Some("job.output") => {
                let text = event["params"]["data"].as_str().expect("text");
                ages.extend(text.lines().map(age_us));
            }
            Some("job.end") => return ages,
            _ => {}
        }
    }
}

fn pipe_latencies() -> io::Result<Vec<f64>> {
    let mut child = Command::new(env::current_exe()?)
        .arg("--write-stamps")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("piped");
    let ages = BufReader::new(stdout)
        .lines()
        .map(|line| line.map(|stamp| age_us(&stamp)))
        .collect();
    child.wait()?;
    ages
}

fn percentiles(mut ages: Vec<f64>) -> (f64, f64) {
    assert_eq!(
        ages.len(),
        STAMPS,
        "every write arrived alone or with others"
    );
    ages.sort_by(f64::total_cmp);
    (ages[ages.len() / 2], ages[ages.len() * 99 / 100])
}

/// The run whose p50 is in the middle.
fn middle(mut runs: Vec<(f64, f64)>) -> (f64, f64) {
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs[runs.len() / 2]
}
