//! The time zone of the person at this command line, by its name in the IANA database.

use std::path::Path;

use crate::job::{Micros, Timetable};

/// Where the system's zone is a link to.
const LOCALTIME: &str = "/etc/localtime";

/// The zone that `TZ` names, or else the system's, or else UTC: a rule such as `CET-1CEST` and a copied
/// file have no name.
pub fn of_this_process() -> String {
    let variable = std::env::var("TZ").ok();
    named(variable.as_deref(), Path::new(LOCALTIME))
}

fn named(variable: Option<&str>, localtime: &Path) -> String {
    let name = match variable {
        Some(text) => Some(text.trim_start_matches(':').to_owned()),
        None => std::fs::read_link(localtime).ok().and_then(|target| {
            let target = target.to_str()?;
            let (_, name) = target.split_once("zoneinfo/")?;
            let name = name.strip_prefix("posix/").unwrap_or(name);
            Some(name.to_owned())
        }),
    };
    let is_known = |name: &String| Timetable::read("* * * * *", name, Micros(0)).is_ok();
    name.filter(is_known)
        .unwrap_or_else(|| Timetable::ZONE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_first_and_what_has_no_name_is_utc() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("localtime");
        assert_eq!(named(None, &link), "UTC");
        let target = "/usr/share/zoneinfo/Asia/Kathmandu";
        std::os::unix::fs::symlink(target, &link).expect("a link");
        for (variable, expected) in [
            (None, "Asia/Kathmandu"),
            (Some("Europe/Berlin"), "Europe/Berlin"),
            (Some(":America/New_York"), "America/New_York"),
            (Some("CET-1CEST"), "UTC"),
            (Some(""), "UTC"),
        ] {
            assert_eq!(named(variable, &link), expected, "{variable:?}");
        }
    }
}
