//! Names of signals, both ways, as signal(7) spells them.

/// Signal numbers of Linux on x86-64 and ARM with their names.
const NAMES: [(i32, &str); 31] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (16, "SIGSTKFLT"),
    (17, "SIGCHLD"),
    (18, "SIGCONT"),
    (19, "SIGSTOP"),
    (20, "SIGTSTP"),
    (21, "SIGTTIN"),
    (22, "SIGTTOU"),
    (23, "SIGURG"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (28, "SIGWINCH"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (31, "SIGSYS"),
];

/// The name of a signal: `SIGKILL`; real-time and unknown ones as `SIG34`.
pub fn name(number: i32) -> String {
    NAMES
        .iter()
        .find(|(n, _)| *n == number)
        .map_or_else(|| format!("SIG{number}"), |(_, name)| (*name).to_owned())
}

/// Whether a signal continues processes or, unless they catch it, stops them: SIGCONT, SIGSTOP,
/// SIGTSTP, SIGTTIN, SIGTTOU (signal(7)).
pub fn is_of_job_control(number: i32) -> bool {
    (18..=22).contains(&number)
}

/// The number of a signal given as `SIGTERM`, `TERM`, `term` or `15` (1 to 64).
pub fn number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = bare.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    NAMES
        .iter()
        .find(|(_, name)| &name[3..] == bare)
        .map(|(n, _)| *n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (number_, name_) in NAMES {
            assert_eq!(name(number_), name_);
            assert_eq!(number(name_), Some(number_));
        }
        assert_eq!(number("usr1"), Some(10));
        assert_eq!(number("9"), Some(9));
        assert_eq!(number(&name(34)), Some(34));
        for bad in ["", "SIG", "SIGFOO", "0", "65", "-9"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn signals_of_job_control_are_known() {
        let of_job_control = NAMES.iter().filter(|(n, _)| is_of_job_control(*n));
        let names: Vec<_> = of_job_control.map(|(_, name)| *name).collect();
        let expected = ["SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"];
        assert_eq!(names, expected);
    }
}
