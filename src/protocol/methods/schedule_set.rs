//! `schedule.set`: creates a schedule or changes it. `job::schedule` and `job::timetable` decide what is
//! valid.

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::submit::check_size;
use crate::{
    executor::{ScheduleError, ScheduleView},
    job::{CatchUp, Micros, Overlap, Schedule, ScheduleChange, SkippedRun},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::job_bytes_max,
    },
};

const KEYS: [&str; 8] = [
    "name", "cron", "timezone", "overlap", "catch_up", "paused", "job", "dry_run",
];

/// A schedule on the wire.
#[derive(Debug, Serialize)]
pub struct ScheduleJson<'a> {
    name: &'a str,
    cron: &'a str,
    timezone: &'a str,
    overlap: Overlap,
    catch_up: CatchUp,
    paused: bool,
    /// Without values of variables, and without stdin.
    job: Map<String, Value>,
    next: Vec<Value>,
    /// The newest run.
    last: Option<Value>,
    waiting: &'a [Micros],
    runs: u64,
    skipped: u64,
    last_skip: Option<&'a SkippedRun>,
}

impl<'a> ScheduleJson<'a> {
    /// What every client may see of a schedule.
    pub fn of(view: &'a ScheduleView) -> Self {
        let schedule = &view.schedule;
        let next = view.next.iter();
        let last = schedule.last;
        Self {
            name: &schedule.name,
            cron: &schedule.cron,
            timezone: &schedule.timezone,
            overlap: schedule.overlap,
            catch_up: schedule.catch_up,
            paused: schedule.paused,
            job: schedule.shown_job(),
            next: next
                .map(|(local, utc)| json!({"local": local, "at": utc}))
                .collect(),
            last: last.map(|(at, job)| json!({"at": at, "job": job})),
            waiting: &schedule.waiting,
            runs: schedule.runs,
            skipped: schedule.skipped,
            last_skip: schedule.last_skip.as_ref(),
        }
    }
}

impl From<ScheduleError> for Refusal {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Refused(refusal) => refusal.into(),
            ScheduleError::Other(error) => error.into(),
        }
    }
}

fn change(params: &Params<'_>) -> Result<ScheduleChange, Refusal> {
    let text = |key| Ok::<_, Refusal>(params.text(key)?.map(str::to_owned));
    let overlaps: Vec<_> = Overlap::ALL.iter().map(|one| (one.name(), *one)).collect();
    let catch_ups: Vec<_> = CatchUp::ALL.iter().map(|one| (one.name(), *one)).collect();
    let job = match params.get("job") {
        None => None,
        Some(Value::Object(job)) => Some(job.clone()),
        Some(_) => return Err(params.wrong("job", "must be a NewJob, an object")),
    };
    Ok(ScheduleChange {
        name: name(params)?,
        cron: text("cron")?,
        timezone: text("timezone")?,
        overlap: params.one_of("overlap", &overlaps)?,
        catch_up: params.one_of("catch_up", &catch_ups)?,
        paused: params.flag("paused")?,
        job,
    })
}

/// The key `name`, which is required.
pub fn name(params: &Params<'_>) -> Result<String, Refusal> {
    let name = params.text("name")?;
    let name = name.ok_or_else(|| params.wrong("name", "missing"))?;
    Schedule::check_name(name)?;
    Ok(name.to_owned())
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let change = change(&params)?;
    let dry_run = params.flag("dry_run")?.unwrap_or(false);
    let executor = &caller.executor();
    if let Some(job) = &change.job {
        let job = executor.read_scheduled_job(job)?;
        check_size(&job, job_bytes_max(&caller.server.settings))?;
    }
    let view = executor
        .set_schedule(change, dry_run, &caller.actor())
        .await?;
    Ok(to_raw(&ScheduleJson::of(&view)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<ScheduleChange, Refusal> {
        change(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn keys_are_read_and_wrong_ones_refused() {
        let all = parse(json!({
            "name": "nightly", "cron": "0 2 * * *", "timezone": "Europe/Berlin",
            "overlap": "replace", "catch_up": "all", "paused": true, "job": {"argv": ["true"]},
        }));
        let all = all.expect("valid");
        assert_eq!(
            (all.overlap, all.catch_up),
            (Some(Overlap::Replace), Some(CatchUp::All))
        );
        let nothing = ScheduleChange {
            name: "n".to_owned(),
            ..ScheduleChange::default()
        };
        assert_eq!(parse(json!({"name": "n", "cron": null})), Ok(nothing));
        for wrong in [
            json!({}),
            json!({"name": ""}),
            json!({"name": "a\n"}),
            json!({"name": "n", "overlap": "explode"}),
            json!({"name": "n", "catch_up": "some"}),
            json!({"name": "n", "cron": 5}),
            json!({"name": "n", "job": []}),
            json!({"name": "n", "colour": 1}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
