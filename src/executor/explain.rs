//! Says why a job is where it is, in sentences and as facts: what it waits for, what its attempts were,
//! what ended it and who asked.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Error, Executor};
use crate::{
    access::Principal,
    job::{
        DependencyCondition, Exit, Job, JobNumber, JobRef, JobState, Micros, Queue, Reason, signal,
        view::StopView,
    },
    store::{AttemptSummary, Causes, Include, JobSummary, QueueLine, UnmetDependency},
};

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Sentences for people.
    pub summary: String,
    /// The same for programs: each has a `kind`, a `text` and its own keys.
    pub facts: Vec<Value>,
}

impl Executor {
    /// Explains a job to a client; of jobs that its token does not reach it learns the numbers.
    pub async fn explain(&self, job: JobRef, principal: &Principal) -> Result<Explanation, Error> {
        let job = self.get(job, Include::default()).await?;
        let causes = self.inner.store.causes(&job).await?;
        let queues = self.inner.store.queues().await?;
        let queue = queues.into_iter().find(|one| one.name == job.spec.queue);
        let hidden = self.hidden(&job, Some(&causes), principal).await?;
        Ok(explanation(&job, &causes, queue.as_ref(), &hidden))
    }

    /// What a job that does not run waits for, or what besides its process has ended it, in sentences;
    /// empty where neither is the case. Of jobs that the client does not reach it learns the numbers.
    pub async fn reasons(&self, job: &Job, principal: &Principal) -> Result<String, Error> {
        let facts = match job.state {
            JobState::Scheduled | JobState::Blocked | JobState::Queued => {
                let causes = self.inner.store.causes(job).await?;
                let queues = self.inner.store.queues().await?;
                let queue = queues.iter().find(|one| one.name == job.spec.queue);
                let hidden = self.hidden(job, Some(&causes), principal).await?;
                waits(job, &causes, queue, &hidden)
            }
            _ => unmet_demands(job, &self.hidden(job, None, principal).await?),
        };
        let texts: Vec<_> = facts.into_iter().map(|(_, text)| text).collect();
        Ok(texts.join(" "))
    }

    /// Of the jobs because of which a job waits or has failed, those that the client's token does not reach.
    /// One that is gone is not reached by a token that is narrowed.
    async fn hidden(
        &self,
        job: &Job,
        causes: Option<&Causes>,
        principal: &Principal,
    ) -> Result<Hidden, Error> {
        let reach = &principal.grant.reach;
        let mut hidden = Hidden::new();
        if reach.is_all() {
            return Ok(hidden);
        }
        let unmet = causes.iter().flat_map(|causes| &causes.unmet);
        let holder = causes.and_then(|causes| causes.key_holder.as_ref());
        let failed = job.failed_dependency.as_ref().map(|on| on.number);
        let named = unmet.map(|unmet| unmet.job.number);
        for number in named.chain(holder.map(|job| job.number)).chain(failed) {
            let place = self.inner.store.job_place(JobRef::Number(number)).await?;
            if place.is_none_or(|place| reach.check(&place).is_err()) {
                hidden.insert(number);
            }
        }
        Ok(hidden)
    }
}

/// Jobs of which a client learns nothing but the numbers.
type Hidden = HashSet<JobNumber>;

/// A fact and its sentence.
type Fact = (Value, String);

fn explanation(job: &Job, causes: &Causes, queue: Option<&Queue>, hidden: &Hidden) -> Explanation {
    let mut facts = vec![state(job)];
    facts.extend(waits(job, causes, queue, hidden));
    facts.extend(unmet_demands(job, hidden));
    facts.extend(stop(job));
    let is_paused = job.state == JobState::Paused;
    facts.extend(causes.attempts.iter().map(|one| attempt(one, is_paused)));
    let summary: Vec<_> = facts.iter().map(|(_, text)| text.as_str()).collect();
    let summary = summary.join(" ");
    let mut facts: Vec<_> = facts.into_iter().map(with_text).collect();
    facts.extend(causes.events.iter().map(|event| {
        let mut fact = json!(event);
        fact["kind"] = json!("event");
        fact
    }));
    Explanation { summary, facts }
}

/// What a job waits for before it starts.
fn waits(job: &Job, causes: &Causes, queue: Option<&Queue>, hidden: &Hidden) -> Vec<Fact> {
    let mut facts = Vec::new();
    facts.extend(job.waits_until.map(|at| waits_until(job, causes.lost, at)));
    let unmet = causes.unmet.iter();
    facts.extend(unmet.map(|unmet| waits_for_job(unmet, hidden)));
    if causes.unmet_more > 0 {
        let more = causes.unmet_more;
        let fact = json!({"kind": "waits_for_more_jobs", "jobs": more});
        facts.push((fact, format!("It waits for {more} more jobs.")));
    }
    if job.state == JobState::Queued {
        let holder = causes.key_holder.as_ref();
        facts.extend(holder.map(|holder| waits_for_key(job, holder, hidden)));
        facts.extend(queue.map(waits_for_slot));
        let line = causes.line;
        facts.extend(line.map(|line| stands_in_line(&line, holder.is_some(), queue)));
    }
    facts
}

/// What was demanded of other jobs and of its output, and did not come true.
fn unmet_demands(job: &Job, hidden: &Hidden) -> Vec<Fact> {
    let dependency = job.failed_dependency.iter().map(|on| {
        if hidden.contains(&on.number) {
            let fact = json!({"kind": "failed_dependency", "on": {"number": on.number}});
            let text = format!("It needed job {} to succeed, which did not.", on.number);
            return (fact, text);
        }
        let text = format!(
            "It needed job {} to succeed, which {}.",
            named(on.number, on.name.as_deref()),
            ended(on.state, on.reason)
        );
        (json!({"kind": "failed_dependency", "on": on}), text)
    });
    let expectations = job.unmet_expectations.iter().map(|unmet| {
        let expected = json!(unmet.expectation);
        let text = match unmet.gave_up_after_s {
            None => format!("The output of its last attempt does not show {expected}."),
            Some(seconds) => format!(
                "The search of its last attempt's output for {expected} was given up after {seconds} s \
                 (expect_timeout_s), so it counts as not shown: expect a text, or a simpler pattern."
            ),
        };
        let fact = json!({"kind": "unmet_expectation", "expectation": unmet});
        (fact, text)
    });
    dependency.chain(expectations).collect()
}

fn with_text((mut fact, text): Fact) -> Value {
    fact["text"] = json!(text);
    fact
}

fn named(number: i64, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}

fn state(job: &Job) -> Fact {
    let name = named(job.number, job.spec.name.as_deref());
    let text = match job.state {
        JobState::Blocked => format!("Job {name} is blocked: it waits for other jobs."),
        JobState::Scheduled => format!("Job {name} is scheduled: it waits for a time."),
        JobState::Queued => format!("Job {name} is queued in {}.", job.spec.queue),
        JobState::Running | JobState::Paused => format!("Job {name} is {}.", job.state.name()),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
            format!("Job {name} {}.", ended(job.state, job.reason))
        }
    };
    let fact = json!({"kind": "state", "state": job.state, "reason": job.reason,
        "queue": job.spec.queue, "attempts": job.attempts});
    (fact, text)
}

/// How a job ended, as the end of a sentence.
fn ended(state: JobState, reason: Option<Reason>) -> String {
    let why = match (state, reason) {
        (JobState::Succeeded, _) => return "succeeded".to_owned(),
        (JobState::Cancelled, _) => return "was cancelled".to_owned(),
        (_, None) => return state.name().to_owned(),
        (_, Some(reason)) => match reason {
            Reason::ExitCode => "it exited with another code than 0",
            Reason::Signal => "a signal ended it",
            Reason::Timeout => "it ran into its timeout",
            Reason::Stalled => "it wrote nothing for too long",
            Reason::Spawn => "it could not be started",
            Reason::OutputLimit => "it wrote more than it may",
            Reason::Dependency => "a job that it waited for did not end as required",
            Reason::Unverified => "its output did not show what was expected",
            Reason::Lost => "how its process ended is unknown",
        },
    };
    format!("failed: {why}")
}

fn waits_until(job: &Job, lost: u32, at: Micros) -> Fact {
    let why = match job.attempts {
        0 => "It does not start before".to_owned(),
        // Lost attempts do not count as tries.
        _ => format!(
            "Attempt {} of {} begins at",
            job.attempts + 1,
            job.spec.retry.max_attempts + lost
        ),
    };
    let fact = json!({"kind": "waits_for_time", "until": at, "is_retry": job.attempts > 0});
    (fact, format!("{why} {}.", at.to_rfc3339()))
}

fn waits_for_job(unmet: &UnmetDependency, hidden: &Hidden) -> Fact {
    let JobSummary {
        number,
        name,
        state,
        ..
    } = &unmet.job;
    let must = match unmet.on {
        DependencyCondition::Success => "to succeed",
        DependencyCondition::Finish => "to end",
    };
    if hidden.contains(number) {
        let fact = json!({"kind": "waits_for_job", "on": unmet.on, "job": {"number": number}});
        return (fact, format!("It waits for job {number} {must}."));
    }
    let text = format!(
        "It waits for job {}, which is {}, {must}.",
        named(*number, name.as_deref()),
        state.name()
    );
    let fact = json!({"kind": "waits_for_job", "on": unmet.on, "job": unmet.job});
    (fact, text)
}

fn waits_for_key(job: &Job, holder: &JobSummary, hidden: &Hidden) -> Fact {
    let key = job.spec.exclusive.as_deref().unwrap_or_default();
    if hidden.contains(&holder.number) {
        let number = holder.number;
        return (
            json!({"kind": "waits_for_key", "exclusive": key, "held_by": {"number": number}}),
            format!("Its exclusive key {key:?} belongs to job {number}."),
        );
    }
    let does = match holder.state.is_active() {
        true => holder.state.name(),
        false => "first in line",
    };
    let text = format!(
        "Its exclusive key {key:?} belongs to job {}, which is {does}.",
        named(holder.number, holder.name.as_deref())
    );
    (
        json!({"kind": "waits_for_key", "exclusive": key, "held_by": holder}),
        text,
    )
}

fn waits_for_slot(queue: &Queue) -> Fact {
    let (name, running, slots) = (&queue.name, queue.running, queue.concurrency);
    let fact =
        |kind: &str| json!({"kind": kind, "queue": name, "running": running, "concurrency": slots});
    if queue.paused {
        let why = match &queue.pause_reason {
            Some(reason) => format!(" ({reason})"),
            None => String::new(),
        };
        let text = format!("The queue {name} is paused{why} and starts nothing.");
        let mut fact = fact("queue_paused");
        fact["reason"] = json!(queue.pause_reason);
        return (fact, text);
    }
    match running >= u64::from(slots) {
        true => {
            let text = match slots {
                1 => format!("The one slot of the queue {name} is in use."),
                _ => format!("All {slots} slots of the queue {name} are in use."),
            };
            (fact("queue_full"), text)
        }
        false => {
            let rate = match queue.starts_per_minute {
                Some(starts) => format!("; it starts at most {starts} jobs in a minute"),
                None => String::new(),
            };
            let text = format!("{running} of {slots} slots of the queue {name} are in use{rate}.");
            let mut fact = fact("queue_has_room");
            fact["starts_per_minute"] = json!(queue.starts_per_minute);
            (fact, text)
        }
    }
}

/// The jobs ahead of it in its queue, or with its key in its queue.
fn stands_in_line(line: &QueueLine, with_key: bool, queue: Option<&Queue>) -> Fact {
    let more = if line.ahead_is_least { "at least " } else { "" };
    let whose = if with_key { " with its key" } else { "" };
    let ahead = match line.ahead {
        0 => format!("It is the next one{whose} of its queue"),
        1 => format!("1 job{whose} is ahead of it"),
        jobs => format!("{more}{jobs} jobs{whose} are ahead of it"),
    };
    let estimate = match with_key {
        // That takes as long as the job that has the key.
        true => None,
        false => queue.and_then(|queue| estimate_s(line, queue)),
    };
    let text = match (estimate, line.typical_s) {
        (Some(seconds), Some(typical)) if seconds > 0.0 => format!(
            "{ahead}; as the last {} jobs of the queue took {typical:.1} s each, it starts in about {seconds:.0} s.",
            line.sample,
        ),
        _ => format!("{ahead}."),
    };
    let fact = json!({"kind": "ahead", "jobs": line.ahead, "is_least": line.ahead_is_least,
        "with_key": with_key, "typical_s": line.typical_s, "estimate_s": estimate});
    (fact, text)
}

/// How long it takes until a job starts, from history, seconds; `None` where that cannot be known.
fn estimate_s(line: &QueueLine, queue: &Queue) -> Option<f64> {
    if queue.paused {
        return None;
    }
    let slots = u64::from(queue.concurrency.max(1));
    let free = slots.saturating_sub(queue.running);
    // Each slot that is in use ends one job in the typical time.
    let rounds = (line.ahead + 1).saturating_sub(free).div_ceil(slots);
    let by_slots = rounds as f64 * line.typical_s?;
    match queue.starts_per_minute {
        None => Some(by_slots),
        Some(starts) => {
            let minutes = line.ahead / u64::from(starts.max(1));
            // In which moment of its minute the queue is, is not known here.
            let by_rate = (minutes > 0).then_some(minutes as f64 * 60.0);
            match (rounds, by_rate) {
                (0, None) => None,
                (_, by_rate) => Some(by_slots.max(by_rate.unwrap_or_default())),
            }
        }
    }
}

/// Who asked for the end, and what was done.
fn stop(job: &Job) -> Option<Fact> {
    let stop = job.stop.as_ref()?;
    let fact = json!({"kind": "stop", "stop": stop});
    let (by, cause, at) = match stop {
        StopView::Requested(request) | StopView::Refused(request, _) => {
            (&request.by, request.cause, request.asked_at_us)
        }
        StopView::Done(done) => (&done.by, done.cause, done.asked_at_us),
    };
    let by = match by.as_str() {
        "" => String::new(),
        by => format!(" by {by}"),
    };
    let signals = match stop {
        StopView::Done(done) if !done.signals.is_empty() => {
            let were = if done.signals.len() == 1 {
                "was"
            } else {
                "were"
            };
            format!("; {} {were} sent", done.signals.join(", "))
        }
        _ => String::new(),
    };
    let at = Micros(at).to_rfc3339();
    let text = format!(
        "A stop ({}) was asked for{by} at {at}{signals}.",
        cause.name()
    );
    Some((fact, text))
}

fn attempt(attempt: &AttemptSummary, is_paused: bool) -> Fact {
    let number = attempt.attempt;
    let exit = attempt.exit.as_ref().map(|facts| &facts.exit);
    let how = match (attempt.state.as_str(), exit) {
        ("void", _) => "never started".to_owned(),
        ("lost", _) => "is lost: how it ended is unknown".to_owned(),
        (_, Some(Exit::Code(code))) => format!("exited with code {code}"),
        (_, Some(Exit::Signal(number))) => format!("was ended by {}", signal::name(*number)),
        (_, Some(Exit::SpawnFailed(error))) => {
            format!("could not be started: {} ({})", error.what, error.name)
        }
        ("started", None) if is_paused => "is paused".to_owned(),
        ("started", None) => "runs".to_owned(),
        (_, None) => "is being started".to_owned(),
    };
    let from = attempt
        .started_at
        .map(|at| format!(", started at {}", at.to_rfc3339()));
    let to = attempt
        .ended_at
        .map(|at| format!(", ended at {}", at.to_rfc3339()));
    let text = format!(
        "Attempt {number} {how}{}{}.",
        from.unwrap_or_default(),
        to.unwrap_or_default()
    );
    let (code, signal) = match exit {
        Some(Exit::Code(code)) => (Some(*code), None),
        Some(Exit::Signal(number)) => (None, Some(signal::name(*number))),
        _ => (None, None),
    };
    let fact = json!({"kind": "attempt", "attempt": number, "state": attempt.state,
        "exit_code": code, "signal": signal, "started_at": attempt.started_at,
        "ended_at": attempt.ended_at});
    (fact, text)
}

#[cfg(test)]
mod tests;
