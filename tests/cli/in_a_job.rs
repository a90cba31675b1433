//! A server that is started from within a job is no part of that job: it outlives the job's end and
//! the death of its shim, and so do the jobs of others. A job knows where it is queued.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{BINARY, Cli, Frozen, Server, is_alive, parent, until, until_true, with_word};

/// The pid of the server of a data directory.
#[track_caller]
fn server_of(data_dir: &Path) -> i32 {
    let status = Cli::new(data_dir, "status").args(["--json"]).run().json();
    status["pid"].as_i64().expect("a pid") as i32
}

/// No shim is above it, and it carries nothing of a job.
#[track_caller]
fn assert_outside(server: i32) {
    let mut above = parent(server);
    while let Some(pid) = above.filter(|pid| *pid > 1) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        assert_ne!(name.trim_end(), "cc-shim", "{pid} is above {server}");
        above = parent(pid);
    }
    let env = fs::read(format!("/proc/{server}/environ")).expect("its environment");
    let env = String::from_utf8_lossy(&env).into_owned();
    assert!(!env.contains("CC_EXECUTOR_JOB"), "{env}");
    assert!(!env.contains("CC_EXECUTOR_INSTANCE"), "{env}");
}

#[track_caller]
fn shell(place: &Server, verb: &str, line: &str) -> crate::harness::Finished {
    let words = ["--", "sh", "-c", line];
    place.cli(verb).args(words).run()
}

#[test]
fn a_job_that_restarts_its_server_goes_on_and_the_server_outlives_it() {
    let place = Server::stopped(&[], &[]);
    let other = shell(&place, "submit", "exec sleep 1000");
    assert_eq!(other.code(), 0, "{}", other.err());
    let before = server_of(&place.data_dir());
    let done = shell(&place, "run", &format!("{BINARY} restart && echo goes on"));
    assert_eq!(done.code(), 0, "{} {}", done.out(), done.err());
    assert!(done.out().ends_with("goes on\n"), "{}", done.out());
    let server = server_of(&place.data_dir());
    assert_ne!(server, before);
    assert_outside(server);
    let shown = place.cli("show").args(["1", "--json"]).run().json();
    assert_eq!(shown["state"], "running", "another job is left alone");
    assert_eq!(place.cli("kill").args(["1"]).run().code(), 0);
    assert_eq!(place.cli("wait").args(["1"]).run().code(), 130);
}

#[test]
fn a_job_that_finds_no_server_starts_one_that_outlives_it_and_the_death_of_its_shim() {
    for dies in [false, true] {
        let place = Server::stopped(&[], &[]);
        let (gate, end) = (place.scratch("gate"), place.scratch("end"));
        let line = format!(
            "until [ -e {} ]; do sleep 0.02; done; {BINARY} ls; \
             until [ -e {} ]; do sleep 0.02; done",
            gate.display(),
            end.display()
        );
        assert_eq!(shell(&place, "submit", &line).code(), 0);
        let running = || {
            let shown = place.cli("show").args(["1", "--json"]).run().json();
            (shown["state"] == "running").then_some(())
        };
        until("the job to run", running);
        assert_eq!(place.cli("stop").run().code(), 0);
        fs::write(&gate, "").expect("a gate");
        until_true("a server", || place.cli("status").run().status.success());
        let server = server_of(&place.data_dir());
        assert_outside(server);
        if dies {
            place.kill_shim();
        }
        fs::write(&end, "").expect("a gate");
        let code = place.cli("wait").args(["1"]).run().code();
        assert_eq!(code, if dies { 125 } else { 0 });
        assert!(is_alive(server));
        assert_eq!(server_of(&place.data_dir()), server, "the same one");
    }
}

#[test]
fn a_server_of_another_directory_that_a_job_starts_outlives_the_job_with_its_own_jobs() {
    let place = Server::stopped(&[], &[]);
    let other = place.scratch("other");
    let line = format!(
        "{BINARY} submit --data-dir {} -- sleep 1000",
        other.display()
    );
    let done = shell(&place, "run", &line);
    assert_eq!(done.code(), 0, "{}", done.err());
    let server = server_of(&other);
    assert_outside(server);
    for shim in with_word(&other.display().to_string()) {
        assert_outside(shim);
    }
    let shown = Cli::new(&other, "show").args(["1", "--json"]).run().json();
    assert!(["queued", "running"].contains(&shown["state"].as_str().expect("a state")));
    assert_eq!(
        Cli::new(&other, "stop").args(["--kill-jobs"]).run().code(),
        0
    );
    until_true("nothing to be left", || {
        with_word(&other.display().to_string()).is_empty()
    });
}

#[test]
fn a_server_that_a_job_starts_by_hand_outlives_the_job_and_ends_when_it_is_told_to() {
    let place = Server::stopped(&[], &[]);
    let other = place.scratch("other");
    let serve = format!(
        "{BINARY} serve --listen none --data-dir {}",
        other.display()
    );
    // The ready line comes where the job is, and a signal to what the job has started is the server's.
    let line = format!(
        "{serve} >ready & until grep -q ready ready; do sleep 0.02; done; kill $!; wait $!; echo $?"
    );
    let there = place.scratch("there");
    fs::create_dir(&there).expect("a directory");
    let words = ["--", "sh", "-c", &line];
    let done = place.cli("run").cwd(&there).args(words).run();
    assert_eq!(done.out(), "0\n", "{}", done.err());
    let status = Cli::new(&other, "status").run();
    assert_eq!(status.code(), 1, "{}", status.out());
    // Not the line of the one before.
    fs::remove_file(there.join("ready")).expect("the ready line");
    let line = format!("{serve} >ready & until grep -q ready ready; do sleep 0.02; done");
    let words = ["--", "sh", "-c", &line];
    let done = place.cli("run").cwd(&there).args(words).run();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_outside(server_of(&other));
    assert_eq!(Cli::new(&other, "stop").run().code(), 0);
}

#[test]
fn a_shim_that_cannot_start_a_server_is_named_and_nothing_is_stopped() {
    let place = Server::stopped(&[], &[]);
    let (gate, said, over) = (
        place.scratch("gate"),
        place.scratch("said"),
        place.scratch("over"),
    );
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; timeout 40 {BINARY} restart 2>{}; echo >{}",
        gate.display(),
        said.display(),
        over.display()
    );
    let running = place.cli("run").args(["--", "sh", "-c", &line]).spawn();
    let before = until("a server", || {
        let status = place.cli("status").args(["--json"]).run();
        status
            .status
            .success()
            .then(|| server_of(&place.data_dir()))
    });
    let job = until("the job", || {
        with_word(&over.display().to_string())
            .into_iter()
            .find(|pid| parent(*pid).is_some_and(|shim| Some(before) == parent(shim)))
    });
    let Some(frozen) = Frozen::process(parent(job).expect("a shim")) else {
        fs::write(&gate, "").expect("the gate");
        running.finish();
        return;
    };
    fs::write(&gate, "").expect("the gate");
    until_true("it has given up", || over.exists());
    drop(frozen);
    running.finish();
    let said = fs::read_to_string(&said).expect("said");
    assert!(said.contains("from within this job"), "{said}");
    assert_eq!(server_of(&place.data_dir()), before, "not stopped");
}

#[test]
fn a_job_knows_its_data_directory_unless_it_names_another() {
    let place = Server::stopped(&[], &[]);
    let done = shell(&place, "run", &format!("{BINARY} submit -- true"));
    assert_eq!(done.code(), 0, "{}", done.err());
    let jobs = place.cli("ls").args(["--json"]).run().json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(2), "{jobs}");
    assert_eq!(place.cli("wait").args(["2"]).run().code(), 0);
    let say = "echo $CC_EXECUTOR_DATA_DIR";
    let said = shell(&place, "run", say);
    assert_eq!(said.out(), format!("{}\n", place.data_dir().display()));
    let words = ["--env", "CC_EXECUTOR_DATA_DIR=/tmp", "--", "sh", "-c", say];
    assert_eq!(place.cli("run").args(words).run().out(), "/tmp\n");
}

#[test]
fn a_server_whose_launcher_is_killed_leaves_no_zombie() {
    let place = Server::start();
    let other = place.scratch("other");
    let line = format!("{BINARY} submit --data-dir {} -- true", other.display());
    assert_eq!(shell(&place, "run", &line).code(), 0);
    let server = place.pid();
    until_true("no zombie below the server", || {
        crate::harness::children(server)
            .into_iter()
            .all(|child| crate::harness::state(child) != Some('Z'))
    });
    let other = server_of(&other);
    kill(Pid::from_raw(other), Signal::SIGTERM).expect("a server");
    until_true("the other server to end", || !is_alive(other));
}
