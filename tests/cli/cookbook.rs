//! docs/cookbook.md: each recipe is run as it stands on the page, in a shell, with stand-ins for the programs
//! of the reader. What is replaced is named where it is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::{BINARY, Finished, MARK, Receiver, Server, until, until_true};

/// The recipes.
const RECIPES: [&str; 7] = [
    "Three builds, and a test when all have succeeded",
    "A flaky job that is tried again",
    "One GPU job at a time",
    "Keep the disk under 5 GiB",
    "A webhook",
    "A nightly job",
    "A task list with a reviewer",
];

/// The longest that the lines of one recipe may take, seconds.
const LINES_S: &str = "50";

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cookbook.md");
    fs::read_to_string(page).expect("the cookbook")
}

/// A section of the page.
struct Recipe(String);

impl Recipe {
    #[track_caller]
    fn of(title: &str) -> Self {
        let page = page();
        let found = page
            .split("\n## ")
            .find_map(|part| part.strip_prefix(&format!("{title}\n")));
        Self(found.expect("the recipe").to_owned())
    }

    /// Its blocks of this language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let begin = format!("```{language}\n");
        let parts = self.0.split(&begin).skip(1);
        parts
            .map(|part| part.split("```").next().expect("its end").to_owned())
            .collect()
    }

    /// A command within its text that begins like this, such as `cc-executor explain`.
    #[track_caller]
    fn command(&self, begin: &str) -> String {
        let mut parts = self.0.split('`');
        let found = parts.find(|part| part.starts_with(begin) && !part.contains('\n'));
        found.unwrap_or_else(|| panic!("{begin}")).to_owned()
    }
}

/// A reader's shell: a directory, a `PATH` with our binary and stand-ins, and a data directory.
struct Reader {
    server: Server,
    cwd: PathBuf,
}

impl Reader {
    fn new() -> Self {
        let server = Server::stopped(&[], &[]);
        let cwd = server.scratch("here");
        fs::create_dir(&cwd).expect("a directory");
        let reader = Self { server, cwd };
        fs::create_dir(reader.bin()).expect("a directory");
        symlink(BINARY, reader.bin().join("cc-executor")).expect("a link");
        reader
    }

    fn bin(&self) -> PathBuf {
        self.server.scratch("bin")
    }

    /// A program: a line of shell.
    fn program(&self, path: &Path, line: &str) {
        fs::write(path, format!("#!/bin/sh\n{line}\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// One in its directory.
    fn script(&self, name: &str, line: &str) {
        self.program(&self.cwd.join(name), line);
    }

    /// One in its `PATH`.
    fn installed(&self, name: &str, line: &str) {
        self.program(&self.bin().join(name), line);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin().display());
        command.current_dir(&self.cwd).env("PATH", path);
        command.env("CC_EXECUTOR_DATA_DIR", self.server.data_dir());
        command.env(MARK, self.server.data_dir());
        command.stdin(Stdio::null());
        command
    }

    /// Runs these lines. Only the last one may fail.
    fn lines(&self, lines: &str) -> Finished {
        let mut shell = self.command("timeout");
        let done = shell.args([LINES_S, "sh", "-e", "-c", lines]).output();
        let done = done.expect("a shell");
        Finished {
            stdout: done.stdout,
            stderr: done.stderr,
            status: done.status,
        }
    }

    /// The same for lines that succeed; what they print.
    #[track_caller]
    fn ok(&self, lines: &str) -> String {
        let done = self.lines(lines);
        assert_eq!(done.code(), 0, "{lines}\n{}\n{}", done.out(), done.err());
        done.out()
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).expect("JSON")
    }

    /// A file of its directory, or nothing.
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.cwd.join(name)).unwrap_or_default()
    }
}

/// Replaces a part that must be there.
#[track_caller]
fn replaced(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "{part} in {text}");
    text.replace(part, by)
}

#[test]
fn every_recipe_has_a_test() {
    let page = page();
    let titles = page.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(titles.collect::<Vec<_>>(), RECIPES);
}

#[test]
fn builds_and_their_test_run_in_order() {
    let recipe = Recipe::of(RECIPES[0]);
    let [graph, many] = &recipe.blocks("sh")[..] else {
        panic!("two blocks");
    };
    let reader = Reader::new();
    reader.installed(
        "make",
        "echo \"$*\" >>made; [ ! -e \"broken.$2\" ] || exit 3",
    );
    reader.script("report.sh", "echo report >>made");
    let done = reader.ok(graph);
    assert!(done.contains("└─ 4 make test"), "{done}");
    let made = reader.read("made");
    let mut made: Vec<&str> = made.lines().collect();
    made[..3].sort_unstable();
    assert_eq!(made, ["-C a", "-C b", "-C c", "test", "report"]);

    // A build fails: the wait tells, the test does not run, and the report comes all the same.
    fs::remove_file(reader.cwd.join("made")).expect("made");
    fs::write(reader.cwd.join("broken.a"), "").expect("written");
    let graph = replaced(graph, "nightly=1", "nightly=2");
    let mended = [
        recipe.command("cc-executor explain \"$t\""),
        "rm broken.a".to_owned(),
        recipe.command("cc-executor retry --with-dependants \"$a\""),
        "cc-executor wait last".to_owned(),
    ];
    let wait = "cc-executor wait --label nightly=2";
    let graph = replaced(&graph, wait, &format!("{wait} || echo \"code $?\""));
    let done = reader.ok(&format!("{graph}\n{}", mended.join("\n")));
    assert!(done.contains("code 3\n"), "{done}");
    assert!(done.contains("Job 6 did not end as it required"), "{done}");
    let made = reader.read("made");
    let made: Vec<&str> = made.lines().collect();
    assert_eq!(made[3..], ["report", "-C a", "test"]);

    let before = made.len();
    let numbers = reader.ok(many);
    assert_eq!(numbers.lines().count(), 3, "{numbers}");
    reader.ok(&format!("cc-executor wait {}", numbers.replace('\n', " ")));
    assert_eq!(reader.read("made").lines().nth(before + 2), Some("test"));
}

#[test]
fn a_flaky_job_and_jobs_for_one_gpu() {
    let recipe = Recipe::of(RECIPES[1]);
    let [submit] = &recipe.blocks("sh")[..] else {
        panic!("one block");
    };
    let reader = Reader::new();
    let flaky = "echo x >>calls; case $(wc -l <calls) in 1) echo busy; exit 75;; 2) echo 2 failed;; \
                 *) echo 0 failed;; esac";
    reader.script("integration-tests", flaky);
    reader.ok(submit);
    let waiting = until("the first attempt to fail", || {
        let job = reader.json("cc-executor show last --json");
        (job["state"] == "scheduled").then_some(job)
    });
    assert_eq!(waiting["retry"]["max_attempts"], 5, "up to five attempts");
    let explained = reader.ok("cc-executor explain last");
    assert!(
        explained.contains("Attempt 2 of 5 begins at"),
        "{explained}"
    );
    reader.ok("cc-executor cancel last; rm calls");

    // The same without the pauses. The second attempt exits with 0, but does not say the words.
    let quick = replaced(submit, "--retry-backoff 10s", "--retry-backoff 0.01");
    reader.ok(&quick);
    assert_eq!(reader.lines("cc-executor wait last").code(), 125);
    let job = reader.json("cc-executor show last --json");
    let ended = (&job["state"], &job["reason"], &job["attempts"]);
    assert_eq!(ended, (&"failed".into(), &"unverified".into(), &2.into()));
    assert_eq!(reader.ok("cc-executor tail last"), "busy\n2 failed\n");
    reader.ok("rm calls");
    let more = replaced(&quick, "75,timeout", "75,timeout,unverified");
    reader.ok(&more);
    reader.ok("cc-executor wait last");
    assert_eq!(
        reader.ok("cc-executor tail last"),
        "busy\n2 failed\n0 failed\n"
    );

    let recipe = Recipe::of(RECIPES[2]);
    let [submit] = &recipe.blocks("sh")[..] else {
        panic!("one block");
    };
    let train =
        "echo \"train $*\" >>order; until [ -e gate ]; do sleep 0.02; done; echo trained >>order";
    reader.script("train.py", train);
    reader.script("evaluate.py", "echo evaluate >>order");
    let explained = reader.ok(submit);
    assert!(explained.contains("gpu0"), "{explained}");
    let train = reader.json("cc-executor ls --json --state running --state queued")[1]["number"]
        .to_string();
    assert!(explained.contains(&format!("ob {train}")), "{explained}");
    reader.ok("touch gate; cc-executor wait last");
    assert_eq!(reader.read("order"), "train --lr 1e-3\ntrained\nevaluate\n");
    reader.ok(&recipe.command("cc-executor queue set gpu"));
}

/// How many bytes of output are stored.
fn stored(reader: &Reader) -> u64 {
    let queues = reader.json("cc-executor du --json")["queues"].take();
    let queues = queues.as_array().into_iter().flatten();
    queues.filter_map(|queue| queue["bytes"].as_u64()).sum()
}

#[test]
fn a_nightly_job_and_a_small_disk() {
    let recipe = Recipe::of(RECIPES[5]);
    let [nightly, failed] = &recipe.blocks("sh")[..] else {
        panic!("two blocks");
    };
    let reader = Reader::new();
    reader.script("backup.sh", "umask; echo \"$GREETING from $PWD\"");
    let done = reader.ok(&format!("export GREETING=hello; umask 027; {nightly}"));
    let here = reader.cwd.display();
    assert!(done.contains("T02:30:00+0"), "{done}");
    assert!(
        done.contains(&format!("0027\nhello from {here}\n")),
        "{done}"
    );
    let schedule = reader.json("cc-executor schedule --json")[0].take();
    let stands = (&schedule["paused"], &schedule["runs"], &schedule["overlap"]);
    assert_eq!(stands, (&true.into(), &1.into(), &"skip".into()));
    assert_eq!(schedule["timezone"], "Europe/Berlin");
    assert_eq!(schedule["next"].as_array().map(Vec::len), Some(5));
    assert_eq!(reader.ok(failed), "");

    let recipe = Recipe::of(RECIPES[3]);
    let blocks = recipe.blocks("sh");
    reader.ok(&blocks.concat());
    reader.ok(&recipe.command("cc-executor prune --older-than 30d --yes"));
    let rules = reader.json("cc-executor retention --json");
    let keep = |at: usize| (rules[at]["rule"].clone(), rules[at]["keep_bytes"].clone());
    assert_eq!(keep(0), ("failed".into(), (3_u64 << 30).into()));
    assert_eq!(keep(2), ("outputs-4g".into(), (4_u64 << 30).into()));
    assert_eq!(keep(3), ("succeeded".into(), (1_u64 << 30).into()));
    assert_eq!(rules[1]["older_than_s"], 90 * 86_400);
    // What it does where there is so much: the same with KiB.
    let kib = 1_u64 << 10;
    reader
        .ok("for n in 1 2 3 4 5 6; do cc-executor run -- head -c 1024 /dev/zero >/dev/null; done");
    assert!(stored(&reader) >= 6 * kib);
    let small = blocks.concat().replace("GiB", "KiB");
    reader.ok(&replaced(
        &small,
        "--older-than 7d --keep-bytes 1KiB",
        "--older-than 7d",
    ));
    until_true("the oldest outputs to go", || stored(&reader) <= 4 * kib);
    assert_eq!(reader.ok("cc-executor tail last | wc -c").trim(), "1024");
}

/// The receiver of the page, in its language, on another port.
fn receiver(reader: &Reader, program: &str, port: u16) -> Child {
    let program = replaced(program, "9000", &port.to_string());
    fs::write(reader.cwd.join("hook.py"), program).expect("written");
    let mut told = fs::File::options();
    let told = told.create(true).append(true);
    let told = told.open(reader.cwd.join("told")).expect("a file");
    let mut python = Command::new("python3");
    python.arg("hook.py").current_dir(&reader.cwd).stdout(told);
    let child = python.stderr(Stdio::null()).spawn().expect("Python");
    until_true("the receiver to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    child
}

fn stop(mut receiver: Child) {
    receiver.kill().expect("our child");
    receiver.wait().expect("our child");
}

#[test]
fn a_webhook_tells_what_failed() {
    let recipe = Recipe::of(RECIPES[4]);
    let [secret, uses, command] = &recipe.blocks("sh")[..] else {
        panic!("three blocks");
    };
    let [program] = &recipe.blocks("python")[..] else {
        panic!("one receiver");
    };
    let reader = Reader::new();
    reader.installed("make", "exit 1");
    reader.installed("openssl", "head -c \"$3\" /dev/urandom | base64");
    reader.script("backup.sh", "exit 9");
    reader.ok(secret);
    let port = Receiver::new().port();
    let python = receiver(&reader, program, port);
    // One that does not know the secret is not told: 403.
    let url = format!("http://127.0.0.1:{port}/");
    let unsigned = reader.lines(&format!("cc-executor notify test --url {url}"));
    assert_eq!(unsigned.code(), 1, "{}", unsigned.out());
    let uses = replaced(uses, "127.0.0.1:9000", &format!("127.0.0.1:{port}"));
    reader.ok(&uses);
    let told = |count: usize| {
        until("the receiver to be told", || {
            let told = reader.read("told");
            (told.lines().count() >= count).then_some(told)
        })
    };
    let mut lines: Vec<String> = told(2).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["job.failed 1 exit_code", "job.failed 2 exit_code"]);

    stop(python);
    reader.ok("cc-executor submit --queue nightly -- ./backup.sh");
    let waiting = until("the notice to wait", || {
        let listed = reader.ok(&recipe.command("cc-executor notify ls"));
        listed.contains("refused").then_some(listed)
    });
    let notice = waiting.lines().find(|line| line.contains("refused"));
    let notice = notice.and_then(|line| line.split_whitespace().next());
    let python = receiver(&reader, program, port);
    let retry = recipe.command("cc-executor notify retry");
    reader.ok(&replaced(&retry, "NOTICE", notice.expect("a number")));
    assert!(told(3).ends_with("job.failed 3 exit_code\n"));
    stop(python);

    // The server's commands have no stand-ins of the reader in their PATH.
    reader.installed("notify-send", "echo \"$*\" >>\"${0%/*}/../here/sent\"");
    let path = reader.bin().join("notify-send").display().to_string();
    reader.ok(&replaced(command, "'notify-send", &format!("'{path}")));
    let sent = until("the command", || {
        Some(reader.read("sent")).filter(|sent| !sent.is_empty())
    });
    assert_eq!(sent, "job 4 failed: exit_code\n");
}

#[test]
fn a_task_list_with_a_reviewer_reaches_its_end() {
    let recipe = Recipe::of(RECIPES[6]);
    let ([file], [lines]) = (&recipe.blocks("toml")[..], &recipe.blocks("sh")[..]) else {
        panic!("a file and its use");
    };
    let reader = Reader::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flow");
    for entry in fs::read_dir(example).expect("the example").flatten() {
        fs::copy(entry.path(), reader.cwd.join(entry.file_name())).expect("a copy");
    }
    assert_eq!(reader.read("flow.toml"), *file, "the example is the page's");
    let done = reader.ok(lines);
    assert!(done.contains(": succeeded, 3 steps: 3 succeeded"), "{done}");
    assert_eq!(reader.read("published.txt"), "Hello, Ada.\n");

    // The line for Claude Code, whose exit code says nothing, with a stand-in for it.
    let command = recipe.command("command = [\"sh\", \"-c\", ");
    let words: Vec<String> = serde_json::from_str(&command["command = ".len()..]).expect("words");
    for (says, code, tasks) in [
        ("fine", 0, ""),
        ("two:\n{\"task\": \"a\"}", 1, "{\"task\": \"a\"}\n"),
    ] {
        reader.installed("claude", &format!("cat >/dev/null; cat <<'E'\n{says}\nE"));
        let done = reader.lines(&words[2]);
        assert_eq!(
            (done.code(), done.out().as_str()),
            (code, tasks),
            "{}",
            done.err()
        );
    }
}
