//! Every query of `docs/sql.md`, run against a server with real jobs: each works as it stands there,
//! and tells what these jobs have really done.

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};

use crate::harness::{Client, Server, emit, until_true};

/// A row by its columns.
type Row = Map<String, Value>;
/// What must be true of the rows of a query.
type Check = fn(&[Row], &World);

/// A server with a day's work behind it, and the numbers of its jobs by what they are.
struct World {
    server: Server,
    jobs: BTreeMap<&'static str, Value>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            server: Server::start(),
            jobs: BTreeMap::new(),
        };
        let mut client = world.server.connect();
        client.ok("queue.set", json!({"queue": "batch", "concurrency": 1}));
        world.builds(&mut client);
        world.failures(&mut client);
        world.outputs(&mut client);
        world.losses(&mut client);
        world.stops(&mut client);
        world
    }

    /// Submits a job under a name of ours.
    fn submit(&mut self, client: &mut Client, name: &'static str, job: Value) -> Value {
        let mut job = self.server.marked(job);
        job["name"] = json!(name);
        let job = client.submit(job);
        self.jobs.insert(name, job.clone());
        job
    }

    fn run(&mut self, client: &mut Client, name: &'static str, job: Value) -> Value {
        let job = self.submit(client, name, job);
        client.finished(&job)
    }

    /// Ten jobs of each of two teams, one of them slow; and one that waits for its turn.
    fn builds(&mut self, client: &mut Client) {
        for team in ["a", "b"] {
            let slow = json!({"shell": "sleep 0.7", "labels": {"team": team}});
            self.run(client, if team == "a" { "slow_a" } else { "slow_b" }, slow);
            for _ in 0..9 {
                let quick = json!({"argv": ["true"], "labels": {"team": team}});
                self.run(client, "quick", quick);
            }
        }
        let first = self.submit(
            client,
            "first",
            json!({"shell": "sleep 0.5", "queue": "batch"}),
        );
        let waits = self.submit(client, "waits", json!({"argv": ["true"], "queue": "batch"}));
        client.finished(&first);
        client.finished(&waits);
    }

    fn failures(&mut self, client: &mut Client) {
        let dies = json!({"shell": "echo before; echo about to die; exit 137", "cwd": "/usr",
            "queue": "batch"});
        let dies = self.run(client, "dies", dies);
        let again = client.ok("job.retry", json!({"job": dies["id"]}));
        client.finished(&again);
        self.run(
            client,
            "killed",
            json!({"shell": "echo last words; kill -9 $$"}),
        );
        self.run(client, "missing", json!({"argv": ["/no/such/program"]}));
        for line in ["true", "false", "true", "false"] {
            self.run(client, "flaky", json!({"argv": [line]}));
        }
    }

    fn outputs(&mut self, client: &mut Client) {
        let speaks = "echo fine; echo 'ä wormhole: 5' >&2; echo fine again";
        self.run(client, "speaks", json!({"shell": speaks}));
        let big = json!({"argv": [emit(), "--seed", "7", "--bytes", "3000000"]});
        self.run(client, "big", big);
        let cut = json!({"argv": [emit(), "--seed", "8", "--bytes", "200000"],
            "output": {"max_bytes": 50_001, "when_full": "drop_newest"}});
        self.run(client, "cut", cut);
        let works = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        self.run(client, "works", json!({"shell": works}));
    }

    fn losses(&mut self, client: &mut Client) {
        for (name, on_lost) in [("lost", "fail"), ("again", "retry")] {
            let flag = self.server.scratch(name);
            let line = format!("[ -e {0} ] && exit 0; : > {0}; sleep 600", flag.display());
            let job = self.submit(client, name, json!({"shell": line, "on_lost": on_lost}));
            until_true("the job to run", || flag.exists());
            self.server.kill_shim();
            client.finished(&job);
        }
    }

    /// One that is cancelled, and one that runs on.
    fn stops(&mut self, client: &mut Client) {
        let stopped = self.submit(client, "stopped", json!({"argv": ["sleep", "600"]}));
        let running = self.submit(
            client,
            "running",
            json!({"shell": "echo working; sleep 600"}),
        );
        for job in [&stopped, &running] {
            let until = json!({"jobs": [job["id"]], "until": "running", "timeout_s": 60});
            assert_eq!(client.ok("job.wait", until)["met"], true);
        }
        client.ok(
            "job.wait",
            json!({"jobs": [running["id"]], "until": {"bytes": 8}}),
        );
        let cancel = json!({"job": stopped["id"], "action": "cancel", "actor": "alice"});
        client.ok("job.control", cancel);
        client.finished(&stopped);
    }

    fn number(&self, name: &str) -> &Value {
        &self.jobs[name]["number"]
    }

    /// Values for the names in a query.
    fn params(&self, title: &str) -> Value {
        match title {
            "The output of one job around a byte" => {
                json!({"job": self.number("big"), "offset": 1_500_000})
            }
            "Jobs whose output of the last hour contains a word" => json!({"word": "wormhole"}),
            "What a job wrote to stderr" => json!({"job": self.number("speaks")}),
            "Jobs with a label" => json!({"team": "a"}),
            "The life of one job" => json!({"job": self.number("again")}),
            _ => json!({}),
        }
    }
}

/// A query of the page, with the title above it.
#[derive(Debug)]
struct Recipe {
    title: String,
    sql: String,
}

/// All blocks of SQL, in order.
fn recipes() -> Vec<Recipe> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sql.md");
    let page = fs::read_to_string(path).expect("the page");
    let (mut title, mut found, mut open) = (String::new(), Vec::new(), None);
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```sql") => open = Some(String::new()),
            (None, line) if line.starts_with('#') => {
                title = line.trim_start_matches(['#', ' ']).to_owned();
            }
            (None, _) => {}
            (Some(_), "```") => found.push(Recipe {
                title: title.clone(),
                sql: open.take().expect("open"),
            }),
            (Some(sql), line) => {
                sql.push_str(line);
                sql.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block without an end");
    found
}

fn ask(client: &mut Client, recipe: &Recipe, params: &Value) -> Vec<Row> {
    let question = json!({"sql": recipe.sql, "params": params});
    let answer = client.ok("history.query", question);
    assert_eq!(answer["truncated"], false, "{}", recipe.title);
    let columns = answer["columns"].as_array().expect("columns");
    let names = columns.iter().map(|name| name.as_str().expect("a name"));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| {
            let values = row.as_array().expect("a row").iter().cloned();
            names.iter().cloned().zip(values).collect()
        })
        .collect()
}

/// The only row in which a column has this value.
#[track_caller]
fn the<'a>(rows: &'a [Row], column: &str, value: &Value) -> &'a Row {
    let mut found = rows.iter().filter(|row| row[column] == *value);
    let row = found
        .next()
        .unwrap_or_else(|| panic!("no {column} {value} in {rows:?}"));
    assert!(
        found.next().is_none(),
        "two with {column} {value} in {rows:?}"
    );
    row
}

#[track_caller]
fn real(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// What each query must tell of this world.
const CHECKS: [(&str, Check); 22] = [
    ("Last failures by exit code", |rows, world| {
        let by_code = the(rows, "exit_code", &json!(137));
        assert_eq!(
            (&by_code["failures"], &by_code["reason"]),
            (&json!(2), &json!("exit_code"))
        );
        assert_eq!(
            the(rows, "signal", &json!("SIGKILL"))["last_job"],
            *world.number("killed")
        );
        assert_eq!(
            the(rows, "reason", &json!("spawn"))["last_job"],
            *world.number("missing")
        );
        assert_eq!(the(rows, "exit_code", &json!(1))["failures"], 2);
        assert_eq!(
            rows[0]["reason"], "lost",
            "the last one comes first: {rows:?}"
        );
    }),
    (
        "What died with 137 last week, where, and what it printed last",
        |rows, world| {
            assert_eq!(rows.len(), 3, "{rows:?}");
            let dies = the(rows, "number", world.number("dies"));
            assert_eq!(
                (&dies["queue"], &dies["cwd"]),
                (&json!("batch"), &json!("/usr"))
            );
            assert!(
                text(&dies["printed_last"]).ends_with("about to die\n"),
                "{dies:?}"
            );
            let killed = the(rows, "number", world.number("killed"));
            assert_eq!(killed["printed_last"], "last words\n");
        },
    ),
    ("The slowest tenth of each label", |rows, world| {
        assert_eq!(rows.len(), 2, "{rows:?}");
        for (team, job) in [("a", "slow_a"), ("b", "slow_b")] {
            let row = the(rows, "team", &json!(team));
            assert_eq!(
                (&row["jobs"], &row["longest_job"]),
                (&json!(1), world.number(job))
            );
            assert!(real(&row["longest_s"]) >= 0.7, "{row:?}");
        }
    }),
    ("Time per label", |rows, _| {
        let both = [
            the(rows, "label", &json!("team=a")),
            the(rows, "label", &json!("team=b")),
        ];
        for row in both {
            assert_eq!(row["jobs"], 10, "{row:?}");
            assert!(real(&row["duration_s"]) >= 0.7, "{row:?}");
        }
    }),
    ("The output of one job around a byte", |rows, _| {
        let holds = |row: &Row| {
            let (from, bytes) = (real(&row["offset"]), real(&row["bytes"]));
            from <= 1_500_000.0 && from + bytes > 1_500_000.0
        };
        assert_eq!(
            rows.iter().filter(|row| holds(row)).count(),
            1,
            "{}",
            rows.len()
        );
        let ends = |row: &Row| real(&row["offset"]) + real(&row["bytes"]);
        assert!(
            rows.windows(2)
                .all(|two| ends(&two[0]) == real(&two[1]["offset"]))
        );
    }),
    ("Bytes per queue and day", |rows, _| {
        let of = |queue: &str| -> f64 {
            let rows = rows.iter().filter(|row| row["queue"] == queue);
            rows.map(|row| real(&row["bytes"])).sum()
        };
        assert!(
            (3_200_000.0..3_201_000.0).contains(&of("default")),
            "{rows:?}"
        );
        assert_eq!(of("batch"), 2.0 * "before\nabout to die\n".len() as f64);
    }),
    (
        "Jobs whose output of the last hour contains a word",
        |rows, world| {
            let row = the(rows, "number", world.number("speaks"));
            assert_eq!((rows.len(), &row["pieces"]), (1, &json!(1)), "{row:?}");
            // Before, between or behind the two lines that went the other way, behind `ä `.
            assert!(
                [3, 8, 19].iter().any(|at| row["first_byte"] == *at),
                "{row:?}"
            );
        },
    ),
    ("The longest waits in a queue", |rows, world| {
        let waits = the(rows, "number", world.number("waits"));
        assert!(real(&waits["waited_s"]) > 0.3, "{waits:?}");
        let sorted = rows
            .windows(2)
            .all(|two| real(&two[0]["waited_s"]) >= real(&two[1]["waited_s"]));
        assert!(sorted && rows.len() == 20, "{rows:?}");
    }),
    ("Runs per hour", |rows, world| {
        let runs: f64 = rows.iter().map(|row| real(&row["runs"])).sum();
        let jobs = real(world.number("running"));
        // All but the one that could not be executed, and one ran twice.
        assert_eq!(runs, jobs, "{rows:?}");
        assert!(
            rows.iter().all(|row| text(&row["hour"]).ends_with(":00")),
            "{rows:?}"
        );
    }),
    (
        "How often jobs of a name ran again or were lost",
        |rows, _| {
            assert_eq!(the(rows, "name", &json!("lost"))["lost"], 1);
            assert_eq!(the(rows, "name", &json!("again"))["more_attempts"], 1);
            assert_eq!(the(rows, "name", &json!("dies"))["submitted_again"], 1);
            assert_eq!(rows.len(), 3, "{rows:?}");
        },
    ),
    ("Flapping jobs", |rows, _| {
        let flaky = the(rows, "name", &json!("flaky"));
        assert_eq!(
            (&flaky["runs"], &flaky["failed"], &flaky["changes"]),
            (&json!(4), &json!(2), &json!(3))
        );
        assert_eq!(rows.len(), 1, "{rows:?}");
    }),
    ("Who cancelled what", |rows, world| {
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["cancelled_by"], "alice");
        assert_eq!(rows[0]["number"], *world.number("stopped"));
    }),
    (
        "Average and 95th percentile of the run time per name",
        |rows, _| {
            let quick = the(rows, "name", &json!("quick"));
            assert_eq!(quick["runs"], 18);
            // The 18th of 18 is the first that covers 95 of 100.
            assert_eq!(quick["p95_s"], quick["longest_s"]);
            assert!(
                real(&quick["average_s"]) <= real(&quick["p95_s"]),
                "{quick:?}"
            );
            assert!(real(&the(rows, "name", &json!("slow_a"))["average_s"]) >= 0.7);
        },
    ),
    ("What runs now, and for how long", |rows, world| {
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["number"], *world.number("running"));
        assert_eq!(rows[0]["printed_bytes"], 8);
        let seconds = real(&rows[0]["runs_for_s"]);
        assert!((0.0..600.0).contains(&seconds), "{seconds}");
    }),
    ("The biggest outputs", |rows, world| {
        assert_eq!((rows.len(), &rows[0]["number"]), (10, world.number("big")));
        assert_eq!(rows[0]["output_bytes"], 3_000_000);
        assert_eq!(rows[1]["dropped_bytes"], 200_000 - 50_001);
    }),
    ("What a job wrote to stderr", |rows, _| {
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["text"], "ä wormhole: 5\n");
    }),
    ("Jobs with a label", |rows, _| {
        assert_eq!(rows.len(), 10, "{rows:?}");
        assert!(
            rows.iter().all(|row| row["labels"] == "{\"team\":\"a\"}"),
            "{rows:?}"
        );
    }),
    ("Processor time per day", |rows, _| {
        let user: f64 = rows.iter().map(|row| real(&row["user_s"])).sum();
        assert!((0.01..600.0).contains(&user), "{rows:?}");
    }),
    ("The most memory per name", |rows, world| {
        let row = the(rows, "name", &json!("works"));
        assert_eq!(row["job"], *world.number("works"));
        assert!(
            rows.iter().any(|row| real(&row["max_rss_mib"]) > 0.0),
            "{rows:?}"
        );
    }),
    ("The life of one job", |rows, _| {
        let states: Vec<_> = rows.iter().map(|row| text(&row["to_state"])).collect();
        assert_eq!(states.first().copied(), Some("queued"), "{states:?}");
        assert_eq!(states.last().copied(), Some("succeeded"), "{states:?}");
        assert_eq!(
            states.iter().filter(|state| **state == "running").count(),
            2,
            "{states:?}"
        );
    }),
    (
        "Attempts that were lost, and what came of their jobs",
        |rows, world| {
            assert_eq!(rows.len(), 2, "{rows:?}");
            let lost = the(rows, "job", world.number("lost"));
            assert_eq!(
                (&lost["job_is"], &lost["attempts"]),
                (&json!("failed"), &json!(1))
            );
            let again = the(rows, "job", world.number("again"));
            assert_eq!(
                (&again["job_is"], &again["attempts"]),
                (&json!("succeeded"), &json!(2))
            );
        },
    ),
    ("Gaps in outputs", |rows, world| {
        assert_eq!(rows.len(), 1, "{rows:?}");
        let gap = the(rows, "job", world.number("cut"));
        assert_eq!(
            (&gap["gap_from"], &gap["gap_to"]),
            (&json!(50_001), &json!(200_000))
        );
        assert_eq!(gap["missing_bytes"], 200_000 - 50_001);
    }),
];

#[test]
fn every_query_of_the_page_tells_what_has_happened() {
    let recipes = recipes();
    let world = World::new();
    let mut client = world.server.connect();
    for recipe in &recipes {
        let rows = ask(&mut client, recipe, &world.params(&recipe.title));
        let check = CHECKS.iter().find(|(title, _)| *title == recipe.title);
        match check {
            Some((_, check)) => check(&rows, &world),
            None => assert!(!rows.is_empty(), "{}: no rows", recipe.title),
        }
    }
    let titles: Vec<_> = recipes.iter().map(|recipe| recipe.title.as_str()).collect();
    for (title, _) in CHECKS {
        assert!(titles.contains(&title), "{title} is not on the page");
    }
    client.control(&world.jobs["running"], "kill");
    client.finished(&world.jobs["running"]);
}
