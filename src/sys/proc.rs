//! Reads `/proc` about processes (proc(5)). Every function returns the kernel's error to its
//! caller: only [`is_gone`] tells whether an error means that the process does not exist; any other
//! error says nothing about it.

use std::{fs, io};

/// Process id and start time (clock ticks since boot): unique even after the id is reused.
pub type Identity = (i32, u64);

/// Whether an error means that the process does not exist (any more): ENOENT before its file is
/// opened, ESRCH after that.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The numbers of all processes that are visible to this one.
///
/// # Errors
///
/// The list could not be read to its end.
pub fn ids() -> io::Result<Vec<i32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(ids)
}

/// The kernel's boot id (proc_sys_kernel(5)): where it has changed, every process of before is
/// gone.
///
/// # Errors
///
/// The file cannot be read.
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// The command line of a process as the kernel shows it: each word ends in a NUL.
///
/// # Errors
///
/// The file cannot be read; see [`is_gone`].
pub fn command_line(pid: i32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline"))
}

/// The command name of a process, up to 15 bytes.
///
/// # Errors
///
/// The file cannot be read (see [`is_gone`]), or the name is no UTF-8.
pub fn name(pid: i32) -> io::Result<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    Ok(name.trim_end().to_owned())
}

/// The text of `/proc/PID/status`, for [`status_field`].
///
/// # Errors
///
/// The file cannot be read; see [`is_gone`].
pub fn status(pid: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
}

/// The text of this process's own status, for [`status_field`].
///
/// # Errors
///
/// The file cannot be read.
pub fn own_status() -> io::Result<String> {
    fs::read_to_string("/proc/self/status")
}

/// The value of a field of `/proc/PID/status`, by its whole name.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The numbers in a list of children (`/proc/PID/task/TID/children`).
pub fn numbers(text: &[u8]) -> Vec<i32> {
    text.split(|b| b.is_ascii_whitespace())
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
        .collect()
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that are needed, besides the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The letter of its first thread: `R`, `S`, `T`, `Z`, …
    pub state: u8,
    /// Process id of its parent.
    pub parent: i32,
    /// Id of its process group.
    pub group: i32,
    /// Id of its session.
    pub session: i32,
    /// How many threads it has.
    pub threads: u32,
    /// Its start, clock ticks since boot: process id and start identify one process for ever.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads a line of `/proc/PID/stat`, which may be cut off after its field 22; `None` where it
    /// is no such line. It allocates nothing, so a child may call it between fork and exec.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (_, rest) = around_name(line)?;
        // In pieces that are searched as text: the search for orphans reads many of these lines, and
        // a line must not take longer than a process may live.
        let rest = std::str::from_utf8(rest).ok()?;
        let mut fields = rest.split(' ').filter(|field| !field.is_empty());
        // Field 3 comes first, then 4, 5, 6, 20 and 22.
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
            threads: fields.nth(13)?.parse().ok()?,
            start_ticks: fields.nth(1)?.trim_end().parse().ok()?,
        })
    }

    /// The state of a process.
    ///
    /// # Errors
    ///
    /// The file cannot be read (see [`is_gone`]); `InvalidData` where its format is wrong.
    pub fn read(pid: i32) -> io::Result<Self> {
        Self::parse(&line(pid)?).ok_or_else(invalid)
    }

    /// The same with the name of the process, both of one moment.
    ///
    /// # Errors
    ///
    /// As for [`Stat::read`].
    pub fn read_named(pid: i32) -> io::Result<(Self, String)> {
        let line = line(pid)?;
        let stat = Self::parse(&line).ok_or_else(invalid)?;
        let (name, _) = around_name(&line).ok_or_else(invalid)?;
        Ok((stat, String::from_utf8_lossy(name).into_owned()))
    }

    /// Whether its first thread has ended: then `state` says nothing about the others.
    pub fn first_thread_has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it is a zombie or gone; false where only its first thread has ended and others go
    /// on.
    pub fn is_dead(&self) -> bool {
        self.first_thread_has_ended() && self.threads <= 1
    }

    /// Whether its first thread has ended and others go on (pthread_exit(3) in `main`).
    pub fn has_lost_its_first_thread(&self) -> bool {
        self.first_thread_has_ended() && self.threads > 1
    }

    /// Whether a signal has stopped its first thread.
    pub fn is_stopped(&self) -> bool {
        self.state == b'T'
    }
}

fn line(pid: i32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/stat"))
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The name, and what follows it. The name stands in parentheses and may contain any byte, also
/// parentheses.
fn around_name(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = memchr::memchr(b'(', line)?;
    let close = memchr::memrchr(b')', line)?;
    Some((line.get(open + 1..close)?, &line[close + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(state: &str, threads: u32) -> String {
        let rest = "1 7 8 0 -1 4194560 1 2 3 4 5 6 7 8 20 0";
        format!("7 (a) R b (c)) {state} {rest} {threads} 0 4711 99 1\n")
    }

    fn parsed(state: &str, threads: u32) -> Stat {
        Stat::parse(text(state, threads).as_bytes()).expect("valid")
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let expected = Stat {
            state: b'S',
            parent: 1,
            group: 7,
            session: 8,
            threads: 1,
            start_ticks: 4711,
        };
        assert_eq!(parsed("S", 1), expected);
    }

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let text = text("S", 1);
        let (name, _) = around_name(text.as_bytes()).expect("a name");
        assert_eq!(name, b"a) R b (c)");
    }

    #[test]
    fn a_line_may_end_after_its_start_time_and_not_before() {
        let text = text("S", 1);
        let (whole, _) = text.split_once(" 99").expect("more fields");
        assert!(Stat::parse(whole.as_bytes()).is_some());
        let (cut, _) = text.split_once(" 4711").expect("a start time");
        for cut in [cut, "7 (x) S 1", "7 x", ")7(", ""] {
            assert_eq!(Stat::parse(cut.as_bytes()), None, "{cut:?}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_alive() {
        for (state, threads, is_dead) in [
            ("S", 1, false),
            ("Z", 1, true),
            ("X", 1, true),
            ("Z", 0, true),
            ("Z", 2, false),
            ("S", 2, false),
        ] {
            let stat = parsed(state, threads);
            assert_eq!(stat.is_dead(), is_dead, "{state} {threads}");
        }
        assert!(parsed("Z", 2).has_lost_its_first_thread());
        assert!(!parsed("S", 2).has_lost_its_first_thread());
        assert!(parsed("T", 1).is_stopped() && !parsed("S", 1).is_stopped());
    }

    #[test]
    fn our_own_start_time_is_found() {
        let own = std::process::id() as i32;
        let (stat, name) = Stat::read_named(own).expect("our own line");
        let again = Stat::read(own).expect("our own line");
        assert!(stat.start_ticks > 0);
        assert_eq!(stat.start_ticks, again.start_ticks);
        assert!(!stat.is_dead() && !name.is_empty());
        assert!(ids().expect("a list").contains(&own));
    }

    #[test]
    fn a_reaped_process_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        child.wait().expect("reaped");
        let error = Stat::read(child.id() as i32).expect_err("reaped");
        assert!(is_gone(&error), "{error}");
        assert!(!is_gone(&io::Error::from_raw_os_error(libc::EMFILE)));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "SigIgnored:\t7\nUmask:\t0022\nSigIgn:\t0000000000001000\n";
        assert_eq!(status_field(status, "SigIgn"), Some("0000000000001000"));
        assert_eq!(status_field(status, "Umask"), Some("0022"));
        assert_eq!(status_field(status, "Sig"), None);
    }
}
