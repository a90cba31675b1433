//! What a server costs and leaves behind: memory, descriptors, processes, files.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Server, memory, until_true};

/// Server and shim together may need so much at their peak, bytes.
const PEAK_MAX: u64 = 150_000_000;

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn run_many(server: &Server, count: usize) {
    let mut client = server.connect();
    let jobs: Vec<Value> = (0..count)
        .map(|_| client.submit(json!({"shell": "echo some output"})))
        .collect();
    for job in &jobs {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
}

#[test]
fn many_small_jobs_leave_nothing_behind() {
    let server = Server::start();
    run_many(&server, 20);
    let before = descriptors(server.pid());
    run_many(&server, 300);
    until_true("the descriptors to be closed", || {
        descriptors(server.pid()) <= before + 3
    });
    until_true("the segments to be gone", || {
        let files = fs::read_dir(server.data_dir().join("spool"));
        files.is_ok_and(|mut files| files.next().is_none())
    });
    let slots = 4.max(std::thread::available_parallelism().map_or(1, usize::from));
    assert!(server.shims().len() <= slots + 2, "{:?}", server.shims());
}

#[test]
fn a_reader_that_never_reads_costs_bounded_memory() {
    let server = Server::start();
    let mut deaf = server.connect();
    let job = deaf.submit(json!({"shell": "yes some line of output | head -c 150000000"}));
    deaf.begin("job.tail", json!({"job": job["id"]}));
    let mut client = server.connect();
    let end = client.finished(&job);
    assert_eq!(end["output_bytes"], 150_000_000);
    let shims: u64 = server
        .shims()
        .into_iter()
        .map(|pid| memory(pid, "VmHWM"))
        .max()
        .unwrap_or(0);
    let server_peak = memory(server.pid(), "VmHWM");
    assert!(server_peak > 0);
    let both = server_peak + shims;
    assert!(both < PEAK_MAX, "{both} bytes at the peak");
}
