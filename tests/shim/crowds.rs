//! Trees that are long, wide, or never the same for two looks: every control comes within its time,
//! and output flows meanwhile.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use cc_executor::{
    job::{JobState, StopCause},
    spool::{FromShim, RunSpec},
};

use crate::harness::{
    CEILING, Server, Shim, arm, cancel, code, is_alive, kill, pause, pid_in, resume, shell, spec,
    state_of, until,
};

/// How long a control may take in a crowd, on a machine that the crowd has to itself but for us: a shim
/// that starves never comes to it.
const SOON: Duration = CEILING;

/// So many chains, of which each link starts the next one and exits; they end after a minute,
/// whatever becomes of them. The leader says `lit`, and goes on counting.
fn chains(count: u32) -> RunSpec {
    shell(&format!(
        "trap '' TERM; f() {{ [ $(($(date +%s) < $end)) = 1 ] || exit; g; }}
         g() {{ h & exit; }}; h() {{ i & exit; }}; i() {{ j & exit; }}; j() {{ k & exit; }}
         k() {{ l & exit; }}; l() {{ m & exit; }}; m() {{ n & exit; }}; n() {{ f & exit; }}
         end=$(($(date +%s) + 60))
         c=0; while [ $c -lt {count} ]; do f & c=$((c+1)); done
         echo lit; c=0; while [ $c -lt 1200 ]; do sleep 0.05; echo $c; c=$((c+1)); done"
    ))
}

/// The same, but each link is in a session of its own.
fn chains_apart(count: u32) -> RunSpec {
    let program = format!(
        "import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 60
def chain():
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        os.setsid()
for _ in range({count}):
    if not os.fork():
        chain()
        os._exit(0)
print('lit', flush=True)
for beat in range(1200):
    time.sleep(0.05)
    print(beat, flush=True)
"
    );
    spec(&["python3", "-c", &program])
}

/// A chain of so many processes that all live, each in a session of its own; it says `lit`.
fn living(shim: &Shim, length: u32) -> RunSpec {
    let script = shim.dir.path().join("living.sh");
    let line = "[ $1 = 0 ] && { echo lit; exec sleep 60; }\nsetsid sh $0 $(($1-1)) & wait\n";
    std::fs::write(&script, line).expect("a script");
    spec(&["sh", script.to_str().expect("UTF-8"), &length.to_string()])
}

/// Waits until the job has said something.
fn lit(server: &mut Server) {
    server.started();
    server.send(&arm(3));
    grew(server);
}

fn grew(server: &mut Server) -> u64 {
    server.wait_for("grew", |m| match m {
        FromShim::Grew { offset, .. } => Some(*offset),
        _ => None,
    })
}

fn told(server: &mut Server, paused: bool) {
    server.wait_for("a pause or its end", |m| match (m, paused) {
        (FromShim::Paused { .. }, true) | (FromShim::Resumed { .. }, false) => Some(()),
        _ => None,
    });
}

#[test]
fn a_cancel_comes_in_time_over_chains_of_orphans() {
    for job in [chains(32), chains_apart(32)] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        server.run(job);
        lit(&mut server);
        let begun = Instant::now();
        server.send(&cancel(500));
        let facts = server.exited();
        assert_eq!(facts.outcome().0, JobState::Cancelled);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        nobody_is_left(&shim);
    }
}

#[test]
fn a_timeout_comes_in_time_over_chains_of_orphans() {
    for mut job in [chains(32), chains_apart(32)] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        job.timeout_ms = Some(1000);
        job.grace_ms = 200;
        server.run(job);
        server.started();
        let begun = Instant::now();
        let facts = server.exited();
        assert_eq!(facts.stop.map(|stop| stop.cause), Some(StopCause::Timeout));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1) + SOON, "{took:?}");
        nobody_is_left(&shim);
    }
}

#[test]
fn output_flows_and_a_pause_holds_over_chains_of_orphans() {
    for job in [chains(8), chains_apart(8)] {
        let shim = Shim::start();
        let (mut server, _) = shim.hello(1);
        server.run(job);
        lit(&mut server);
        let begun = Instant::now();
        let mut offset = 4;
        for _ in 0..10 {
            server.send(&arm(offset));
            offset = grew(&mut server);
        }
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let begun = Instant::now();
        server.send(&pause());
        told(&mut server, true);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let forks = forks_within(Duration::from_millis(300), &shim);
        assert_eq!(forks, 0, "a paused chain has gone on");
        server.send(&resume());
        told(&mut server, false);
        // Whether chains still fork is not asked: on a machine without a free process id they end.
        until("nobody stands still", || !any_stands_still(&shim));
        server.send(&arm(offset));
        grew(&mut server);
        server.send(&kill());
        server.exited();
        nobody_is_left(&shim);
    }
}

#[test]
fn a_long_chain_of_the_living_is_paused_and_ended_at_once() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(living(&shim, 1000));
    lit(&mut server);
    for _ in 0..2 {
        let before = cpu_time(shim.pid());
        server.send(&pause());
        told(&mut server, true);
        let paused = cpu_time(shim.pid());
        server.send(&resume());
        told(&mut server, false);
        let took = (paused - before, cpu_time(shim.pid()) - paused);
        eprintln!("a pause took {:?}, its end {:?}", took.0, took.1);
        assert!(took.0.max(took.1) < Duration::from_secs(1), "{took:?}");
    }
    server.send(&kill());
    let facts = server.exited();
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    nobody_is_left(&shim);
}

#[test]
fn orphans_that_go_on_and_on_end_with_their_leader() {
    for mut job in [chains(32), chains_apart(32)] {
        let shim = Shim::start();
        let last = job.argv.len() - 1;
        job.argv[last] = job.argv[last].replace("1200", "20");
        let (mut server, _) = shim.hello(1);
        server.run(job);
        lit(&mut server);
        let begun = Instant::now();
        let facts = server.exited();
        assert_eq!(facts.exit, code(0));
        assert!(facts.leaked > 0 && facts.survivors.is_empty(), "{facts:?}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1) + SOON, "{took:?}");
        nobody_is_left(&shim);
    }
}

#[test]
fn a_leader_is_heard_in_a_crowd_of_orphans() {
    let shim = Shim::start();
    let file = shim.dir.path().join("pid");
    // Orphans by the thousand, which all end in one moment.
    let line = format!(
        "i=0; while [ $i -lt 2000 ]; do (sleep 1000 &); i=$((i+1)); done; echo $$ > {}; \
         trap 'exit 9' TERM; while :; do sleep 0.01; done",
        file.display()
    );
    let (mut server, _) = shim.hello(1);
    server.run(shell(&line));
    let leader = pid_in(&file);
    assert!(is_alive(leader) && state_of(leader).is_some());
    let begun = Instant::now();
    server.send(&cancel(60_000));
    let facts = server.exited();
    assert_eq!(facts.exit, code(9));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    nobody_is_left(&shim);
}

fn nobody_is_left(shim: &Shim) {
    let children = format!("/proc/{0}/task/{0}/children", shim.pid());
    assert_eq!(std::fs::read_to_string(children).expect("children"), "");
}

/// How many children of the shim are there after that time that have been started within it. One that
/// was on its way out before a pause may leave its child to the shim after it.
fn forks_within(time: Duration, shim: &Shim) -> usize {
    let since = uptime_ticks() + 1;
    let waited = Command::new("sleep")
        .arg(time.as_secs_f64().to_string())
        .status();
    assert!(waited.expect("sleep").success());
    let children = format!("/proc/{0}/task/{0}/children", shim.pid());
    let children = std::fs::read_to_string(children).expect("children");
    let started = children.split_whitespace().filter_map(start_ticks);
    started.filter(|ticks| *ticks > since).count()
}

/// Whether a child of the shim is stopped.
fn any_stands_still(shim: &Shim) -> bool {
    let children = format!("/proc/{0}/task/{0}/children", shim.pid());
    let children = std::fs::read_to_string(children).expect("children");
    let mut children = children.split_whitespace().map(str::parse);
    children.any(|pid| state_of(pid.expect("a number")) == Some('T'))
}

/// The clock since boot, hundredths of a second.
fn uptime_ticks() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let seconds = uptime.split(' ').next().expect("seconds");
    (seconds.parse::<f64>().expect("seconds") * 100.0) as u64
}

/// When a process was started on that clock: field 22 (proc_pid_stat(5)).
fn start_ticks(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..]
        .split(' ')
        .nth(19)?
        .parse()
        .ok()
}

/// How much processor time a process has used.
fn cpu_time(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields = stat[stat.rfind(')').expect("a name") + 2..].split(' ');
    // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)).
    let ticks = fields.skip(11).take(2);
    let ticks: u64 = ticks.map(|t| t.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(10 * ticks)
}
