//! Honest tails with and without a thousand hostile connections beside them: latency and memory.
//! Uses the release binary over its public doors; prints markdown, and decides nothing.

#![allow(clippy::disallowed_methods, reason = "figures are taken with clocks")]

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "stamps.rs"]
mod stamps;

use std::{
    env, fs,
    io::{self, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use harness::{Client, Horde, Server, Target, memory};
use stamps::age_us;

/// Honest clients, each with one live tail, every other one on TCP.
const HONEST: usize = 20;
/// Lines of the job that they tail, and the time between them.
const STAMPS: usize = 1000;
const STAMP_EVERY: Duration = Duration::from_millis(20);
/// Output of the job that the hostile ones tail and read, bytes.
const BAIT_BYTES: u64 = 64 << 20;
/// How long the hostile ones are there before anything is measured.
const LEAD: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("--write-stamps") => stamps::write(STAMPS, STAMP_EVERY),
        Some("--horde") => be_the_horde(&words[2], words[3].parse().expect("a number")),
        _ => measure(),
    }
}

fn measure() -> io::Result<()> {
    let hostile = env::var("CC_HOSTILE").map_or(1000, |n| n.parse().expect("a number"));
    let server = Server::start();
    let mut client = server.connect();
    let bait = bait(&mut client);
    let before = run(&server);
    let elsewhere = run_beside_another(&server, hostile)?;
    let memory_before = memory(server.pid(), "VmRSS");
    // Makes the peak begin anew.
    fs::write(format!("/proc/{}/clear_refs", server.pid()), "5")?;
    let mut horde = send_horde(&server, &bait, hostile)?;
    thread::sleep(LEAD);
    let began = Instant::now();
    let during = run(&server);
    let took = began.elapsed();
    client.still_works();
    let peak = memory(server.pid(), "VmHWM");
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count();
    drop(horde.stdin.take());
    horde.wait()?;
    let after = run(&server);
    let mut out = io::stdout().lock();
    writeln!(out, "| {HONEST} live tails | p50 | p99 | longest |")?;
    writeln!(out, "| --- | --- | --- | --- |")?;
    for (name, ages) in [
        ("alone".to_owned(), &before),
        (
            format!("on a machine where {hostile} attack another server"),
            &elsewhere,
        ),
        (format!("beside {hostile} hostile connections"), &during),
        ("alone again".to_owned(), &after),
    ] {
        let [p50, p99, max] = percentiles(ages);
        writeln!(out, "| {name} | {p50:.0} µs | {p99:.0} µs | {max:.0} µs |")?;
    }
    let grown = peak.saturating_sub(memory_before) as f64 / 1e6;
    writeln!(
        out,
        "\nMemory of the server: {:.1} MB before, {:.1} MB at the peak ({grown:.1} MB more), with \
         {open} descriptors open; the measured run took {:.1} s.",
        memory_before as f64 / 1e6,
        peak as f64 / 1e6,
        took.as_secs_f64()
    )
}

/// What the same attack costs where it hits somebody else: the machine's part.
fn run_beside_another(server: &Server, hostile: usize) -> io::Result<Vec<f64>> {
    let other = Server::start();
    let mut client = other.connect();
    let bait = bait(&mut client);
    let mut horde = send_horde(&other, &bait, hostile)?;
    thread::sleep(LEAD);
    let ages = run(server);
    client.still_works();
    drop(horde.stdin.take());
    horde.wait()?;
    Ok(ages)
}

/// A finished job with much output.
fn bait(client: &mut Client) -> Value {
    let bait = client.submit(json!({"shell": format!("yes some bait | head -c {BAIT_BYTES}")}));
    client.finished(&bait);
    bait
}

/// Ages of all lines at all clients when they arrived, microseconds.
fn run(server: &Server) -> Vec<f64> {
    let program = env::current_exe().expect("our path");
    let argv = json!([program.to_str().expect("UTF-8"), "--write-stamps"]);
    let job = server.connect().submit(json!({"argv": argv}));
    let clients: Vec<_> = (0..HONEST)
        .map(|n| {
            let client = match n % 2 {
                0 => server.connect(),
                _ => Client::unix(&server.socket()),
            };
            let job = job.clone();
            thread::spawn(move || ages_of(client, &job))
        })
        .collect();
    let all = clients
        .into_iter()
        .flat_map(|client| client.join().expect("an honest client"));
    all.collect()
}

fn ages_of(mut client: Client, job: &Value) -> Vec<f64> {
    let reply = client.ok("job.tail", json!({"job": job["id"]}));
    assert!(reply["subscription"].is_u64());
    let (mut ages, mut live) = (Vec::with_capacity(STAMPS), false);
    loop {
        let event = client.notification();
        match event["method"].as_str() {
            Some("job.output") if live => {
                let text = event["params"]["data"].as_str().expect("text");
                ages.extend(text.lines().map(age_us));
            }
            Some("job.caught_up") => live = true,
            Some("job.end") => return ages,
            _ => {}
        }
    }
}

fn percentiles(ages: &[f64]) -> [f64; 3] {
    let mut ages = ages.to_vec();
    ages.sort_by(f64::total_cmp);
    [ages.len() / 2, ages.len() * 99 / 100, ages.len() - 1].map(|at| ages[at])
}

/// The hostile ones are a process of their own, so that only the machine is shared.
fn send_horde(server: &Server, bait: &Value, count: usize) -> io::Result<Child> {
    let target = json!({
        "listen": server.listen(), "token": server.token(), "socket": server.socket(), "job": bait,
    });
    Command::new(env::current_exe()?)
        .args(["--horde", &target.to_string(), &count.to_string()])
        .stdin(Stdio::piped())
        .spawn()
}

/// Until stdin is closed.
fn be_the_horde(target: &str, count: usize) -> io::Result<()> {
    let target: Value = serde_json::from_str(target)?;
    let text = |key: &str| target[key].as_str().expect("text").to_owned();
    let target = Target {
        listen: text("listen"),
        token: text("token"),
        socket: PathBuf::from(text("socket")),
        job: target["job"].clone(),
    };
    let horde = Horde::send(&target, count);
    io::stdin().read_to_end(&mut Vec::new())?;
    eprintln!("the horde had {} rounds", horde.rounds());
    Ok(())
}
