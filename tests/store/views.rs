//! What readers see: jobs, lists, changes, open attempts, counts.

use cc_executor::{
    job::{Exit, JobNumber, JobRef, JobSpec, JobState, Micros, Reason, SpawnError, Survivor},
    store::{Fenced, Finish, Include, ListFilter},
};

use crate::ledger::*;

fn secret_job() -> JobSpec {
    JobSpec {
        env: [("A".into(), "1".into()), ("B".into(), "secret".into())].into(),
        stdin: Some("a\0\u{e9}".into()),
        ..true_job()
    }
}

#[tokio::test]
async fn values_are_shown_only_where_they_are_asked_for() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(secret_job()).await.number;
    let plain = ledger.get(number).await;
    assert_eq!(plain.env_names, ["A", "B"]);
    assert_eq!(plain.stdin_bytes, Some(4));
    assert_eq!((plain.env, plain.stdin), (None, None));
    let include = Include {
        env: true,
        stdin: true,
        ..Include::default()
    };
    let full = ledger.store.job(JobRef::Number(number), include).await;
    let full = full.unwrap().unwrap();
    assert_eq!(full.env, Some(secret_job().env));
    assert_eq!(full.stdin, Some(secret_job().stdin));
    let bare = ledger.queued().await.number;
    let bare = ledger.store.job(JobRef::Number(bare), include).await;
    let bare = bare.unwrap().unwrap();
    assert_eq!((bare.stdin, bare.env), (Some(None), Some([].into())));
}

#[tokio::test]
async fn an_end_is_told_with_all_its_facts() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    let number = claim.number;
    ledger.store.started(started(&claim)).await.unwrap();
    assert_eq!(ledger.get(number).await.attempts, 1, "while it runs");
    let mut end = facts(Exit::Code(3));
    end.leaked = 2;
    end.survivors = vec![Survivor {
        pid: 7,
        comm: "daemon".into(),
    }];
    let finish = Finish {
        state: JobState::Failed,
        reason: Some(Reason::ExitCode),
        facts: Some(end.clone()),
        ..success(number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    let job = ledger.get(number).await;
    assert_eq!(job.exit, Some(Exit::Code(3)));
    assert_eq!((job.usage, job.leaked), (end.usage, 2));
    assert_eq!(job.survivors, end.survivors);
    assert_eq!(
        job.started_at,
        Some(Micros(3000)),
        "the first that was told"
    );
    assert_eq!(job.finished_at, Some(Micros(5000)));
    assert_eq!(job.output_sha256, Some("e".repeat(64)));
}

#[tokio::test]
async fn neither_a_spawn_error_nor_a_loss_has_an_exit() {
    let ledger = Ledger::new().await;
    let error = SpawnError {
        errno: 2,
        name: "ENOENT".into(),
        what: "exec no-such-program".into(),
    };
    let mut end = facts(Exit::SpawnFailed(error.clone()));
    end.started_at_us = None;
    let number = ledger.running("a").await.number;
    let finish = Finish {
        state: JobState::Failed,
        reason: Some(Reason::Spawn),
        facts: Some(end),
        ..success(number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    let job = ledger.get(number).await;
    assert_eq!(job.exit, Some(Exit::SpawnFailed(error)));
    assert_eq!(job.started_at, None);

    let number = ledger.running("b").await.number;
    let survivors = vec![Survivor {
        pid: 9,
        comm: "x".into(),
    }];
    let finish = Finish {
        survivors: survivors.clone(),
        ..lost(number, 1)
    };
    assert_eq!(ledger.store.finish(finish).await.unwrap(), Fenced::Applied);
    let job = ledger.get(number).await;
    assert_eq!(job.reason, Some(Reason::Lost));
    assert_eq!((job.exit, job.attempts), (None, 1));
    assert_eq!(job.survivors, survivors);
}

async fn numbers(ledger: &Ledger, filter: ListFilter) -> (Vec<JobNumber>, Option<JobNumber>) {
    let page = ledger.store.list(filter).await.unwrap();
    let numbers = page.jobs.iter().map(|job| job.number).collect();
    (numbers, page.next)
}

fn filter() -> ListFilter {
    ListFilter {
        limit: 50,
        ..ListFilter::default()
    }
}

#[tokio::test]
async fn lists_are_newest_first_and_go_on_at_the_cursor() {
    let ledger = Ledger::new().await;
    let mut expected = Vec::new();
    for nth in 0..7 {
        let number = ledger.queued().await.number;
        if nth % 2 == 0 {
            ledger.claim(&[&format!("shim-{nth}")]).await;
        }
        expected.insert(0, number);
    }
    let (all, next) = numbers(&ledger, filter()).await;
    assert_eq!((all, next), (expected.clone(), None));

    let mut paged = Vec::new();
    let mut below = None;
    loop {
        let page = ListFilter {
            limit: 3,
            below,
            ..filter()
        };
        let (page, next) = numbers(&ledger, page).await;
        assert!(page.len() <= 3);
        paged.extend(page);
        if next.is_none() {
            break;
        }
        below = next;
    }
    assert_eq!(paged, expected);
    let exact = ListFilter {
        limit: 7,
        ..filter()
    };
    assert_eq!(numbers(&ledger, exact).await.1, None, "no empty last page");
}

#[tokio::test]
async fn a_list_shows_what_matches_all_conditions() {
    let ledger = Ledger::new().await;
    let labels = [
        ("team".to_string(), "a\"b".to_string()),
        ("x".into(), String::new()),
    ];
    let labelled = ledger
        .submit(JobSpec {
            labels: labels.clone().into(),
            name: Some("nightly".into()),
            ..true_job()
        })
        .await
        .number;
    let running = ledger.claim(&["a"]).await.claims[0].number;
    assert_eq!(running, labelled);
    let other = ledger
        .submit(JobSpec {
            labels: [("x".into(), "y".into())].into(),
            queue: "interactive".into(),
            ..true_job()
        })
        .await
        .number;
    let cases = [
        (
            ListFilter {
                labels: labels.into(),
                ..filter()
            },
            vec![labelled],
        ),
        (
            ListFilter {
                labels: [("x".into(), "y".into()), ("z".into(), "y".into())].into(),
                ..filter()
            },
            vec![],
        ),
        (
            ListFilter {
                name: Some("nightly".into()),
                states: vec![JobState::Running],
                ..filter()
            },
            vec![labelled],
        ),
        (
            ListFilter {
                name: Some("nightly".into()),
                states: vec![JobState::Queued],
                ..filter()
            },
            vec![],
        ),
        (
            ListFilter {
                queue: Some("interactive".into()),
                ..filter()
            },
            vec![other],
        ),
        (
            ListFilter {
                states: vec![JobState::Queued, JobState::Running, JobState::Queued],
                since: Some(Micros(1000)),
                ..filter()
            },
            vec![other, labelled],
        ),
        (
            ListFilter {
                since: Some(Micros(1001)),
                ..filter()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(
            numbers(&ledger, filter.clone()).await.0,
            expected,
            "{filter:?}"
        );
    }
}

#[tokio::test]
async fn of_many_jobs_the_final_ones_are_told() {
    let ledger = Ledger::new().await;
    let running = ledger.running("a").await.number;
    let lost_one = ledger.running("b").await.number;
    ledger.store.finish(lost(lost_one, 1)).await.unwrap();
    let queued = ledger.queued().await.number;
    let among = vec![queued, lost_one, running, 999];
    assert_eq!(ledger.store.final_among(among).await.unwrap(), [lost_one]);
    assert!(
        ledger
            .store
            .final_among(Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn changes_come_in_order_and_from_where_one_was() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    let number = claim.number;
    let seen = ledger.store.newest_change(number).await.unwrap();
    ledger.store.finish(lost(number, 1)).await.unwrap();
    let changes = ledger.store.changes(number, seen).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].state, JobState::Failed);
    assert_eq!(
        (changes[0].reason, changes[0].at),
        (Some(Reason::Lost), Micros(5000))
    );
    assert_eq!(
        ledger.store.newest_change(number).await.unwrap(),
        changes[0].event
    );
    let rows: Vec<(Option<String>, String, Option<i64>, String)> = sqlx::query_as(
        "SELECT from_state, to_state, attempt, actor FROM events WHERE job = ? ORDER BY id",
    )
    .bind(number)
    .fetch_all(&mut ledger.raw().await)
    .await
    .unwrap();
    let row = |from: Option<&str>, to: &str, attempt, actor: &str| {
        (
            from.map(str::to_owned),
            to.to_owned(),
            attempt,
            actor.to_owned(),
        )
    };
    let expected = [
        row(None, "queued", None, "tester"),
        row(Some("queued"), "running", Some(1), "scheduler"),
        row(Some("running"), "failed", Some(1), "rescue"),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn open_attempts_are_what_recovery_needs() {
    let ledger = Ledger::new().await;
    let (a, b) = (ledger.running("a").await, ledger.running("b").await);
    ledger.queued().await;
    ledger.store.started(started(&b)).await.unwrap();
    let open = ledger.store.open_attempts().await.unwrap();
    assert_eq!(open.len(), 2);
    assert_eq!(
        (open[0].number, open[0].id, open[0].attempt),
        (a.number, a.id, 1)
    );
    assert_eq!(
        (open[0].shim.as_str(), open[0].boot_id.as_str()),
        ("a", BOOT)
    );
    assert_eq!(open[0].instance, INSTANCE);
    assert_eq!((open[0].started_at, open[0].pid), (None, None));
    assert_eq!((open[0].hashed_to, &open[0].hash_state), (0, &None));
    assert_eq!(
        (open[1].started_at, open[1].pid),
        (Some(Micros(3000)), Some(4242))
    );
    assert_eq!(open[1].start_ticks, Some(77));
}

/// Texts that travel through JSON arrive whole, whatever characters they hold.
#[tokio::test]
async fn strange_characters_are_characters() {
    let ledger = Ledger::new().await;
    let strange = "a\0b\"\\\u{7f}\u{1F980}\n";
    let labelled = |value: &str| JobSpec {
        labels: [(strange.to_string(), value.to_string())].into(),
        name: Some(strange.into()),
        ..true_job()
    };
    let one = ledger.submit(labelled("v\0one")).await;
    let two = ledger.submit(labelled("v\0two")).await;
    for job in [&one, &two] {
        let filter = ListFilter {
            labels: job.spec.labels.clone(),
            name: Some(strange.into()),
            ..filter()
        };
        assert_eq!(numbers(&ledger, filter).await.0, [job.number]);
    }
    let offers = vec![offer(strange)];
    let claimed = ledger
        .store
        .claim(offers, BOOT.into(), INSTANCE.into())
        .await
        .unwrap();
    assert_eq!(claimed.claims[0].job.name.as_deref(), Some(strange));
    let open = ledger.store.open_attempts().await.unwrap().remove(0);
    assert_eq!(open.shim, strange);
    let told = ledger
        .store
        .paused(one.number, 1, strange.into(), Micros(2));
    assert_eq!(told.await.unwrap(), Fenced::Applied);
    let actor: String = sqlx::query_scalar("SELECT actor FROM events WHERE to_state = 'paused'")
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap();
    assert_eq!(actor, strange);
}

#[tokio::test]
async fn jobs_are_counted_by_state() {
    let ledger = Ledger::new().await;
    ledger.running("a").await;
    ledger.queued().await;
    ledger.queued().await;
    let counts = ledger.store.counts().await.unwrap();
    assert_eq!(
        counts,
        [(JobState::Queued, 2), (JobState::Running, 1)].into()
    );
}
