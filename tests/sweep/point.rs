//! The points at which a run is struck, taken from the reports of runs that were not.
//! Does not know how anybody is struck.

use std::{collections::BTreeMap, fmt};

/// Which side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is not executed.
    Before,
    /// It is executed, and its caller dies.
    After,
    /// Half of its bytes are written, and its caller dies.
    Torn,
}

impl How {
    /// The fixture's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Torn => "torn",
        }
    }
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// What is done to what, such as `fsync cc-executor.db-wal`.
    pub call: String,
    /// Which of these calls, from 1.
    pub nth: usize,
    /// Which side of it.
    pub how: How,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} of {:?}", self.how.word(), self.nth, self.call)
    }
}

/// Every point of the runs with these reports; a call counts as often as in the run with the most.
pub fn enumerate(reports: &[String]) -> Vec<Point> {
    let mut calls: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for report in reports {
        for (call, (count, tears)) in count(report) {
            let most = calls.entry(call).or_default();
            *most = (most.0.max(count), most.1 || tears);
        }
    }
    let sides = |(call, (count, tears)): (String, (usize, bool))| {
        (1..=count).flat_map(move |nth| {
            let call = call.clone();
            let sides = [How::Before, How::After, How::Torn];
            let sides = sides
                .into_iter()
                .filter(move |how| tears || *how != How::Torn);
            sides.map(move |how| Point {
                call: call.clone(),
                nth,
                how,
            })
        })
    };
    calls.into_iter().flat_map(sides).collect()
}

/// How often each call was made, and whether any of them can be torn.
fn count(report: &str) -> BTreeMap<String, (usize, bool)> {
    let mut calls: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for line in report.lines() {
        let (kind, call) = line.split_once(' ').expect("two words");
        if kind != "struck" {
            let entry = calls.entry(call.to_owned()).or_default();
            entry.0 += 1;
            entry.1 |= kind == "tears";
        }
    }
    calls
}

#[test]
fn calls_of_several_runs_are_put_together() {
    let reports = [
        "tears write a\nwhole fsync a\ntears write a",
        "whole fsync a\nwhole fsync a",
    ];
    let points = enumerate(&reports.map(str::to_owned));
    let count = |call: &str| points.iter().filter(|point| point.call == call).count();
    assert_eq!(count("write a"), 2 * 3);
    assert_eq!(count("fsync a"), 2 * 2);
    assert_eq!(points[0].to_string(), "before #1 of \"fsync a\"");
}
