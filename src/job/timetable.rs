//! When a schedule is due: a cron expression in a time zone. `croner` reads and evaluates expressions,
//! `chrono_tz` has the zones of the IANA database.
//!
//! What happens on days when a clock changes is croner's rule; the tables in `timetable/tests.rs` hold it.

use std::collections::VecDeque;

use chrono::{DateTime, SecondsFormat};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::{
    Cron,
    parser::{CronParser, Seconds as SecondsField, Year},
};

use super::{NewJobRefusal, schedule::CatchUp, time::Micros};

mod fields;

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// What a look at the clock makes of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimes {
    /// The nominal times to run now, in order.
    pub runs: Vec<Micros>,
    /// How many times are over and do not run.
    pub missed: u64,
    /// The newest of those.
    pub newest_missed: Option<Micros>,
    /// The next time, after the look; `None`: there is none.
    pub next: Option<Micros>,
}

impl Timetable {
    /// The longest expression, bytes.
    pub const CRON_BYTES_MAX: usize = 256;
    /// A time that is looked at up to so much later runs as on time; a later look has missed it, µs.
    pub const LATE_MAX_US: i64 = 10_000_000;
    /// The most missed times that run after one another with `catch_up: "all"`, the newest ones.
    pub const CATCH_UP_MAX: usize = 100;
    /// The most missed times of one absence that are counted one by one.
    pub const MISSED_COUNTED_MAX: u64 = 10_000;
    /// The zone of a schedule that names none.
    pub const ZONE: &'static str = "UTC";

    /// Reads an expression and a zone that a user sets.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], or the expression means something else than it seems to.
    pub fn read_new(cron: &str, zone: &str, now: Micros) -> Result<Self, NewJobRefusal> {
        fields::check(cron).map_err(|why| wrong_expression(&why))?;
        Self::read(cron, zone, now)
    }

    /// Reads an expression and a zone that are stored.
    ///
    /// # Errors
    ///
    /// The expression or the zone is unknown, or no time will ever match after `now`.
    pub fn read(cron: &str, zone: &str, now: Micros) -> Result<Self, NewJobRefusal> {
        let timetable = Self {
            cron: expression(cron)?,
            zone: zone_named(zone)?,
        };
        match timetable.after(now) {
            Some(_) => Ok(timetable),
            None => Err(NewJobRefusal::invalid(
                "cron",
                "never fires: no date of the calendar matches its day, month and weekday; \
                 day 30 is not in month 2, for example",
            )),
        }
    }

    /// The first time after this moment; `None`: there is none before the year 5000.
    pub fn after(&self, moment: Micros) -> Option<Micros> {
        let moment = self.in_zone(moment);
        let next = self.cron.find_next_occurrence(&moment, false).ok()?;
        Some(Micros(next.timestamp_micros()))
    }

    /// The first `count` times after this moment.
    pub fn following(&self, moment: Micros, count: usize) -> Vec<Micros> {
        let first = self.after(moment);
        std::iter::successors(first, |time| self.after(*time))
            .take(count)
            .collect()
    }

    /// RFC 3339 to the second, with the zone's offset at that moment.
    pub fn show(&self, moment: Micros) -> String {
        self.in_zone(moment)
            .to_rfc3339_opts(SecondsFormat::Secs, false)
    }

    /// What is due at `now`, if `next` is the first time that has not been looked at.
    pub fn due(&self, next: Micros, now: Micros, catch_up: CatchUp) -> DueTimes {
        let (mut times, mut dropped) = (VecDeque::new(), None);
        let mut over: u64 = 0;
        let mut following = Some(next);
        while let Some(time) = following.filter(|time| *time <= now) {
            over += 1;
            times.push_back(time);
            if times.len() > Self::CATCH_UP_MAX {
                dropped = times.pop_front();
            }
            following = match over == Self::MISSED_COUNTED_MAX {
                true => self.near(time, now),
                false => self.after(time),
            };
        }
        let runs = runs(&times, now, catch_up);
        DueTimes {
            missed: over - runs.len() as u64,
            // The runs are the newest ones.
            newest_missed: match times.len() - runs.len() {
                0 => dropped,
                missed => times.get(missed - 1).copied(),
            },
            runs,
            next: following,
        }
    }

    /// A time after `time` from which it is not far to `now`, so that a long absence costs little.
    fn near(&self, time: Micros, now: Micros) -> Option<Micros> {
        let mut back_us = Self::CATCH_UP_MAX as i64 * 1_000_000;
        loop {
            let from = Micros(now.0.saturating_sub(back_us));
            if from <= time {
                return self.after(time);
            }
            match self.after(from) {
                Some(found) if found <= now => return Some(found),
                _ => back_us = back_us.saturating_mul(2),
            }
        }
    }

    fn in_zone(&self, moment: Micros) -> DateTime<Tz> {
        let moment = DateTime::from_timestamp_micros(moment.0);
        moment.unwrap_or_default().with_timezone(&self.zone)
    }
}

/// Those of the newest times that run.
fn runs(times: &VecDeque<Micros>, now: Micros, catch_up: CatchUp) -> Vec<Micros> {
    let punctual = Micros(now.0.saturating_sub(Timetable::LATE_MAX_US));
    let on_time = times.iter().copied().filter(|time| *time >= punctual);
    match catch_up {
        CatchUp::All => times.iter().copied().collect(),
        CatchUp::None => on_time.collect(),
        CatchUp::Last => {
            let on_time: Vec<_> = on_time.collect();
            match on_time.is_empty() {
                true => times.back().copied().into_iter().collect(),
                false => on_time,
            }
        }
    }
}

/// The refusal of an expression, with what would be right.
fn wrong_expression(why: &str) -> NewJobRefusal {
    let expected = "write minute, hour, day, month and weekday, such as \"30 2 * * MON-FRI\", \
                    with the seconds before them where needed, or @hourly, @daily, @weekly, \
                    @monthly, @yearly";
    NewJobRefusal::invalid("cron", format!("{why}; {expected}"))
}

fn expression(cron: &str) -> Result<Cron, NewJobRefusal> {
    if cron.len() > Timetable::CRON_BYTES_MAX || !cron.is_ascii() {
        let max = Timetable::CRON_BYTES_MAX;
        return Err(wrong_expression(&format!(
            "must have at most {max} characters, all of ASCII"
        )));
    }
    let parser = CronParser::builder()
        .seconds(SecondsField::Optional)
        .year(Year::Disallowed)
        .build();
    parser
        .parse(cron)
        .map_err(|why| wrong_expression(why.to_string().trim_end_matches('.')))
}

fn zone_named(zone: &str) -> Result<Tz, NewJobRefusal> {
    if let Ok(zone) = zone.parse() {
        return Ok(zone);
    }
    let near = TZ_VARIANTS.iter().find(|known| {
        let name = known.name();
        let city = name.rsplit('/').next().unwrap_or(name);
        [name, city]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(zone))
    });
    let meant = near.map_or_else(String::new, |near| format!(" (perhaps {})", near.name()));
    Err(NewJobRefusal::invalid(
        "timezone",
        format!(
            "is not known{meant}; write a name of the IANA database, such as Europe/Berlin, \
             America/New_York or UTC"
        ),
    ))
}

#[cfg(test)]
mod tests;
