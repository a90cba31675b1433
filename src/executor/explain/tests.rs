//! Tests of the sentences and facts.

use super::*;
use crate::job::{Command, JobId, JobSpec};

fn job(state: JobState) -> Job {
    let spec = JobSpec::new(Command::Shell("make".into()));
    Job::submitted((JobId(uuid::Uuid::nil()), 42), state, spec, None, Micros(0))
}

fn explained(job: &Job, causes: &Causes, queue: Option<&Queue>) -> Explanation {
    explanation(job, causes, queue, &Hidden::new())
}

fn nothing() -> Causes {
    Causes {
        unmet: Vec::new(),
        unmet_more: 0,
        key_holder: None,
        line: None,
        lost: 0,
        attempts: Vec::new(),
        events: Vec::new(),
    }
}

fn other(state: JobState) -> JobSummary {
    JobSummary {
        id: JobId(uuid::Uuid::nil()),
        number: 40,
        name: Some("build".into()),
        state,
    }
}

#[test]
fn what_a_job_waits_for_is_said() {
    let unmet = vec![UnmetDependency {
        job: other(JobState::Running),
        on: DependencyCondition::Success,
    }];
    let blocked = Causes { unmet, ..nothing() };
    let said = explained(&job(JobState::Blocked), &blocked, None);
    assert_eq!(
        said.summary,
        "Job 42 is blocked: it waits for other jobs. It waits for job 40 (build), which is running, \
         to succeed."
    );
    assert_eq!(said.facts[1]["kind"], "waits_for_job");
    let mut scheduled = job(JobState::Scheduled);
    scheduled.waits_until = Some(Micros(0));
    let said = explained(&scheduled, &nothing(), None);
    assert!(
        said.summary
            .ends_with("not start before 1970-01-01T00:00:00.000000Z.")
    );
}

fn full_queue() -> Queue {
    Queue {
        name: "default".into(),
        concurrency: 2,
        paused: false,
        pause_reason: None,
        drain: false,
        starts_per_minute: None,
        weight: 1,
        defaults: Default::default(),
        running: 2,
        queued: 6,
    }
}

fn in_line(ahead: u64) -> Causes {
    let line = QueueLine {
        ahead,
        ahead_is_least: false,
        typical_s: Some(60.0),
        sample: 20,
    };
    Causes {
        line: Some(line),
        ..nothing()
    }
}

#[test]
fn a_line_is_told_with_its_length_in_time() {
    let waiting = job(JobState::Queued);
    let summary = |ahead, queue: &Queue| explained(&waiting, &in_line(ahead), Some(queue)).summary;
    let queue = full_queue();
    assert_eq!(
        summary(5, &queue),
        "Job 42 is queued in default. All 2 slots of the queue default are in use. 5 jobs are ahead \
         of it; as the last 20 jobs of the queue took 60.0 s each, it starts in about 180 s."
    );
    let paused = Queue {
        paused: true,
        pause_reason: Some("moving house".into()),
        ..queue.clone()
    };
    assert_eq!(
        summary(5, &paused),
        "Job 42 is queued in default. The queue default is paused (moving house) and starts nothing. \
         5 jobs are ahead of it."
    );
    let free = Queue {
        running: 1,
        ..queue.clone()
    };
    assert!(summary(0, &free).ends_with("It is the next one of its queue."));
    let slow = Queue {
        starts_per_minute: Some(2),
        ..free
    };
    assert!(summary(0, &slow).ends_with("It is the next one of its queue."));
    assert!(summary(9, &slow).ends_with("it starts in about 300 s."));
}

#[test]
fn who_waits_for_a_key_is_told_its_place_among_those_with_the_key() {
    let mut waiting = job(JobState::Queued);
    waiting.spec.exclusive = Some("gpu".into());
    let causes = Causes {
        key_holder: Some(other(JobState::Running)),
        ..in_line(3)
    };
    let said = explained(&waiting, &causes, Some(&full_queue()));
    assert_eq!(
        said.summary,
        "Job 42 is queued in default. Its exclusive key \"gpu\" belongs to job 40 (build), which is \
         running. All 2 slots of the queue default are in use. 3 jobs with its key are ahead of it."
    );
    assert_eq!(said.facts[3]["estimate_s"], Value::Null);
}

#[test]
fn lost_attempts_are_no_tries() {
    let mut waiting = job(JobState::Scheduled);
    waiting.waits_until = Some(Micros(0));
    waiting.attempts = 3;
    waiting.spec.retry.max_attempts = 2;
    let causes = Causes {
        lost: 2,
        ..nothing()
    };
    let said = explained(&waiting, &causes, None).summary;
    assert!(said.contains("Attempt 4 of 4 begins at"), "{said}");
}

#[test]
fn every_end_has_a_sentence() {
    for reason in Reason::ALL {
        assert!(ended(JobState::Failed, Some(reason)).starts_with("failed: "));
    }
    let mut failed = job(JobState::Failed);
    failed.reason = Some(Reason::ExitCode);
    let attempts = vec![AttemptSummary {
        attempt: 1,
        state: "lost".into(),
        exit: None,
        started_at: Some(Micros(0)),
        ended_at: None,
    }];
    let said = explained(
        &failed,
        &Causes {
            attempts,
            ..nothing()
        },
        None,
    );
    assert!(
        said.summary.contains("Attempt 1 is lost"),
        "{}",
        said.summary
    );
}
