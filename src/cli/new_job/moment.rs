//! Moments as people write them: a time of day, a date and a time, or RFC 3339.

use chrono::{DateTime, Days, Local, LocalResult, NaiveDateTime, NaiveTime, TimeZone};

use crate::cli::render::times;

/// Reads `18:30` (the next time that it is so late), `2026-12-24 18:30` (both in the local time zone, with
/// or without seconds), or RFC 3339; returns RFC 3339.
pub fn parse(text: &str) -> Result<String, String> {
    if DateTime::parse_from_rfc3339(text).is_ok() {
        return Ok(text.to_owned());
    }
    let now = times::now().with_timezone(&Local);
    let local = local(text, &now).ok_or_else(|| {
        format!(
            "{text:?} is no time; write 18:30, \"2026-12-24 18:30\" or 2026-12-24T18:30:00+01:00"
        )
    })?;
    match Local.from_local_datetime(&local) {
        LocalResult::Single(moment) => Ok(moment.to_rfc3339()),
        LocalResult::Ambiguous(..) => Err(format!(
            "{text:?} comes twice, because clocks are set back; write it as 2026-12-24T18:30:00+01:00"
        )),
        LocalResult::None => Err(format!(
            "{text:?} does not come, because clocks are set forward; write another time"
        )),
    }
}

fn local(text: &str, now: &DateTime<Local>) -> Option<NaiveDateTime> {
    let date = |format| NaiveDateTime::parse_from_str(text, format).ok();
    if let Some(date) = date("%Y-%m-%d %H:%M").or_else(|| date("%Y-%m-%d %H:%M:%S")) {
        return Some(date);
    }
    let time = |format| NaiveTime::parse_from_str(text, format).ok();
    let time = time("%H:%M").or_else(|| time("%H:%M:%S"))?;
    let today = now.date_naive();
    match time > now.time() {
        true => Some(today.and_time(time)),
        false => Some(today.checked_add_days(Days::new(1))?.and_time(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let now = Local
            .with_ymd_and_hms(2026, 7, 15, 12, 0, 0)
            .single()
            .expect("a time");
        for (text, expected) in [
            ("12:01", "2026-07-15 12:01:00"),
            ("12:00", "2026-07-16 12:00:00"),
            ("11:59:59", "2026-07-16 11:59:59"),
            ("2026-12-24 18:30", "2026-12-24 18:30:00"),
            ("2020-01-01 00:00:01", "2020-01-01 00:00:01"),
        ] {
            let read = local(text, &now).map(|moment| moment.to_string());
            assert_eq!(read.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn rfc_3339_is_taken_and_the_rest_refused() {
        let exact = "2026-12-24T18:30:00+01:00";
        assert_eq!(parse(exact).as_deref(), Ok(exact));
        for wrong in [
            "",
            "tomorrow",
            "25:00",
            "2026-02-30 12:00",
            "12",
            "2026-12-24",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
