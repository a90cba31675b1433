//! Days when clocks change, as tables; and what is due after an absence.

use super::*;

fn micros(text: &str) -> Micros {
    let moment = DateTime::parse_from_rfc3339(text).expect("a moment");
    Micros(moment.timestamp_micros())
}

fn timetable(cron: &str, zone: &str) -> Timetable {
    Timetable::read(cron, zone, Micros(0)).expect("valid")
}

/// The times of a table's row after a moment, as the zone's clock shows them.
fn times(zone: &str, cron: &str, after: &str, count: usize) -> Vec<String> {
    let timetable = timetable(cron, zone);
    let times = timetable.following(micros(after), count);
    times.into_iter().map(|time| timetable.show(time)).collect()
}

/// Zone, expression, the moment before, and the times that follow.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

fn hold(table: &[Row]) {
    for (zone, cron, after, expected) in table {
        assert_eq!(
            times(zone, cron, after, expected.len()),
            *expected,
            "{cron} in {zone} after {after}"
        );
    }
}

/// A fixed time that does not exist runs once, right after the gap. Times of a pattern with `*` or a
/// step that do not exist are left out.
#[test]
fn a_clock_goes_forward() {
    hold(&[
        // 02:00 becomes 03:00.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2027-03-27T00:00:00Z",
            &[
                "2027-03-27T02:30:00+01:00",
                "2027-03-28T03:00:00+02:00",
                "2027-03-29T02:30:00+02:00",
            ],
        ),
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "2027-03-28T00:15:00Z",
            &["2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00"],
        ),
        (
            "Europe/Berlin",
            "*/30 2 * * *",
            "2027-03-28T00:15:00Z",
            &["2027-03-29T02:00:00+02:00", "2027-03-29T02:30:00+02:00"],
        ),
        (
            "America/New_York",
            "0 2 * * *",
            "2027-03-13T12:00:00Z",
            &["2027-03-14T03:00:00-04:00", "2027-03-15T02:00:00-04:00"],
        ),
        (
            "America/New_York",
            "15 * * * *",
            "2027-03-14T06:00:00Z",
            &["2027-03-14T01:15:00-05:00", "2027-03-14T03:15:00-04:00"],
        ),
        // Half an hour: 02:00 becomes 02:30.
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-10-03T00:00:00Z",
            &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
        ),
        (
            "Australia/Lord_Howe",
            "45 2 * * *",
            "2026-10-03T00:00:00Z",
            &["2026-10-04T02:45:00+11:00", "2026-10-05T02:45:00+11:00"],
        ),
    ]);
}

/// A fixed time that exists twice runs once, the first time. Times of a pattern with `*` or a step run
/// both times.
#[test]
fn a_clock_goes_back() {
    hold(&[
        // 03:00 becomes 02:00.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T22:00:00Z",
            &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        ),
        // The look in between, in the hour's first pass and in its second.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-25T00:45:00Z",
            &["2026-10-26T02:30:00+01:00"],
        ),
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-25T01:15:00Z",
            &["2026-10-26T02:30:00+01:00"],
        ),
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "2026-10-24T23:45:00Z",
            &[
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T03:00:00+01:00",
            ],
        ),
        (
            "America/New_York",
            "30 1 * * *",
            "2026-10-31T12:00:00Z",
            &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
        ),
        (
            "America/New_York",
            "0 * * * *",
            "2026-11-01T04:30:00Z",
            &[
                "2026-11-01T01:00:00-04:00",
                "2026-11-01T01:00:00-05:00",
                "2026-11-01T02:00:00-05:00",
            ],
        ),
        // Half an hour: 02:00 becomes 01:30.
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2027-04-02T16:00:00Z",
            &["2027-04-04T01:45:00+11:00", "2027-04-05T01:45:00+10:30"],
        ),
        (
            "Australia/Lord_Howe",
            "*/15 * * * *",
            "2027-04-03T14:31:00Z",
            &[
                "2027-04-04T01:45:00+11:00",
                "2027-04-04T01:30:00+10:30",
                "2027-04-04T01:45:00+10:30",
                "2027-04-04T02:00:00+10:30",
            ],
        ),
    ]);
}

#[test]
fn zones_without_changes_and_odd_offsets() {
    hold(&[
        (
            "UTC",
            "30 2 * * *",
            "2027-03-28T00:00:00Z",
            &["2027-03-28T02:30:00+00:00", "2027-03-29T02:30:00+00:00"],
        ),
        (
            "Asia/Kathmandu",
            "0 6 * * SUN",
            "2026-12-01T00:00:00Z",
            &["2026-12-06T06:00:00+05:45", "2026-12-13T06:00:00+05:45"],
        ),
    ]);
}

#[test]
fn the_syntax_has_last_days_weekdays_names_and_seconds() {
    hold(&[
        (
            "UTC",
            "0 0 L 2 *",
            "2028-01-01T00:00:00Z",
            &["2028-02-29T00:00:00+00:00"],
        ),
        (
            "UTC",
            "0 0 15W 8 *",
            "2026-01-01T00:00:00Z",
            &["2026-08-14T00:00:00+00:00"],
        ),
        (
            "UTC",
            "0 0 * JAN fri#2",
            "2026-12-01T00:00:00Z",
            &["2027-01-08T00:00:00+00:00"],
        ),
        (
            "UTC",
            "0 0 * 12 5#L",
            "2026-12-01T00:00:00Z",
            &["2026-12-25T00:00:00+00:00"],
        ),
        // Day or weekday, as in every cron; with a plus, both.
        (
            "UTC",
            "0 0 13 * FRI",
            "2026-12-01T00:00:00Z",
            &["2026-12-04T00:00:00+00:00"],
        ),
        (
            "UTC",
            "0 0 13 * +FRI",
            "2026-12-01T00:00:00Z",
            &["2027-08-13T00:00:00+00:00"],
        ),
        (
            "UTC",
            "*/20 * * * * *",
            "2026-12-01T00:00:15Z",
            &["2026-12-01T00:00:20+00:00"],
        ),
        (
            "UTC",
            "@weekly",
            "2026-12-01T00:00:00Z",
            &["2026-12-06T00:00:00+00:00"],
        ),
        (
            "UTC",
            "0 0 29 2 *",
            "2096-03-01T00:00:00Z",
            &["2104-02-29T00:00:00+00:00"],
        ),
    ]);
}

#[test]
fn what_is_wrong_is_refused_by_its_key() {
    for (cron, zone, key) in [
        ("", "UTC", "cron"),
        ("* * * *", "UTC", "cron"),
        ("* * * * * * *", "UTC", "cron"),
        ("60 * * * *", "UTC", "cron"),
        ("0 24 * * *", "UTC", "cron"),
        ("0 0 32 * *", "UTC", "cron"),
        ("0 0 0 * *", "UTC", "cron"),
        ("0 0 * 13 *", "UTC", "cron"),
        ("0 0 * * 8", "UTC", "cron"),
        ("tomorrow", "UTC", "cron"),
        ("@reboot", "UTC", "cron"),
        ("* * * * ✓", "UTC", "cron"),
        ("0 0 30 2 *", "UTC", "cron"),
        ("0 0 31 4,6,9,11 *", "UTC", "cron"),
        ("* * * * *", "", "timezone"),
        ("* * * * *", "Mars/Olympus", "timezone"),
        ("* * * * *", "europe/berlin", "timezone"),
    ] {
        let refused = Timetable::read(cron, zone, Micros(0)).expect_err(cron);
        assert_eq!(refused.key(), key, "{cron} {zone}");
    }
    let long = "1,".repeat(200) + "2 * * * *";
    assert!(Timetable::read(&long, "UTC", Micros(0)).is_err());
    let near = Timetable::read("* * * * *", "berlin", Micros(0)).expect_err("refused");
    assert!(near.to_string().contains("Europe/Berlin"), "{near}");
}

/// What croner takes, and what it makes of it: another minute, another day, or one value alone.
#[test]
fn what_would_fire_at_other_times_than_it_says_is_refused() {
    for (cron, says) in [
        ("MON * * * *", "the minute has no names, such as \"MON\""),
        ("0 FRI * * *", "the hour has no names"),
        ("0 0 MON * *", "the day of the month has no names"),
        ("0 0 1 FRI *", "the month has the names JAN to DEC"),
        ("0 0 * * JAN", "the weekday has the names SUN to SAT"),
        ("0 0 * * MONDAY", "no \"MONDAY\""),
        ("L * * * *", "the minute has no names"),
        ("*/61 * * * *", "a step of 61 is too long for the minute"),
        ("0 */24 * * *", "a step is at most 23 there"),
        ("0 0 */31 * *", "the day of the month"),
        ("0 0 1 */12 *", "the month"),
        ("0 0 * * */7", "the weekday"),
        ("0 0 * * 1,2/99", "the weekday"),
        ("*/99999999999999999999999 * * * *", ""),
        ("61 * * * *", "the minute is from 0 to 59, not 61"),
        ("0 0 32 * *", "the day of the month is from 1 to 31, not 32"),
        ("0 0 * * 1-8", "the weekday is from 0 to 7, not 8"),
        ("61 * * * * *", "the second is"),
        ("999999999999 * * * *", "not 999999999999"),
        ("* * *", "must have 5 or 6 fields, not 3"),
        ("  ", "is empty"),
        ("0 0\n* * *", "no control characters"),
    ] {
        let refused = Timetable::read_new(cron, "UTC", Micros(0)).expect_err(cron);
        let text = refused.to_string();
        assert!(text.starts_with("cron: ") && text.contains(says), "{text}");
    }
    for cron in [
        "* * * * *",
        "*/59 */23 */30 */11 */6",
        " 0\t 0 1,15 * MON-FRI ",
        "0 0 LW jan-MAR ?",
        "0 0 L * *",
        "0 0 15W * fri#2",
        "0 0 * 12 5#L",
        "0 0 13 * +FRI",
        "10-40/5 30 2 * * 7",
        "@daily",
    ] {
        let read = Timetable::read_new(cron, "UTC", Micros(0));
        assert!(read.is_ok(), "{cron}: {read:?}");
    }
    // One that is stored fires on.
    assert!(Timetable::read("0 0 * * JAN", "UTC", Micros(0)).is_ok());
}

fn due(cron: &str, next: &str, now: &str, catch_up: CatchUp) -> (Vec<String>, u64, String) {
    let timetable = timetable(cron, "UTC");
    let due = timetable.due(micros(next), micros(now), catch_up);
    let show = |time: &Micros| timetable.show(*time)[11..19].to_owned();
    let next = due.next.expect("cron has no end");
    (due.runs.iter().map(show).collect(), due.missed, show(&next))
}

#[test]
fn what_was_missed_is_caught_up_by_policy() {
    let next = "2026-12-01T02:00:00Z";
    let of = |now, catch_up| due("0 * * * *", next, now, catch_up);
    let strings = |times: &[&str]| times.iter().map(|time| (*time).to_owned()).collect();
    // On time: every policy runs it.
    for catch_up in CatchUp::ALL.iter().copied() {
        let found = of("2026-12-01T02:00:09Z", catch_up);
        assert_eq!(found, (strings(&["02:00:00"]), 0, "03:00:00".into()));
        let early = of("2026-12-01T01:59:59Z", catch_up);
        assert_eq!(early, (strings(&[]), 0, "02:00:00".into()), "not yet");
    }
    let now = "2026-12-01T04:30:00Z";
    let next = "05:00:00".to_owned();
    assert_eq!(of(now, CatchUp::None), (strings(&[]), 3, next.clone()));
    assert_eq!(
        of(now, CatchUp::Last),
        (strings(&["04:00:00"]), 2, next.clone())
    );
    let all = strings(&["02:00:00", "03:00:00", "04:00:00"]);
    assert_eq!(of(now, CatchUp::All), (all, 0, next.clone()));
    // A run that is due now stands for those before it.
    let now = "2026-12-01T04:00:01Z";
    for catch_up in [CatchUp::None, CatchUp::Last] {
        assert_eq!(of(now, catch_up), (strings(&["04:00:00"]), 2, next.clone()));
    }
}

#[test]
fn a_long_absence_costs_little_and_is_counted() {
    let (runs, missed, next) = due(
        "* * * * *",
        "2026-12-01T00:00:00Z",
        "2026-12-01T04:00:30Z",
        CatchUp::All,
    );
    assert_eq!(runs.len(), Timetable::CATCH_UP_MAX);
    assert_eq!((missed, next), (241 - 100, "04:01:00".to_owned()));
    assert_eq!(runs.last().map(String::as_str), Some("04:00:00"));
    // A year of seconds.
    let (runs, missed, next) = due(
        "* * * * * *",
        "2025-12-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
        CatchUp::Last,
    );
    assert_eq!(runs.len(), 11, "those of the last ten seconds are on time");
    assert!(missed > Timetable::MISSED_COUNTED_MAX - 100, "{missed}");
    assert_eq!(next, "00:00:01");
}
