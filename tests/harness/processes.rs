//! Finds processes by what /proc says of them. Knows nothing of shims and servers but that their
//! command lines contain the data directory, and that jobs of tests carry a mark.

use std::{fs, path::Path};

/// The variable by which a test's jobs are recognised, descendants included.
pub const MARK: &str = "CC_TEST_MARK";

/// Living processes with `word` somewhere in their command line.
pub fn with_word(word: &str) -> Vec<i32> {
    matching("cmdline", word)
}

/// Living processes whose environment has the mark of this data directory.
pub fn with_mark(data_dir: &Path) -> Vec<i32> {
    matching("environ", &format!("{MARK}={}", data_dir.display()))
}

fn matching(file: &str, word: &str) -> Vec<i32> {
    pids()
        .into_iter()
        .filter(|pid| *pid != std::process::id() as i32)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|bytes| contains(&bytes, word.as_bytes()))
        })
        .filter(|pid| is_alive(*pid))
        .collect()
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

fn pids() -> Vec<i32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether the process exists and is no zombie. The letter of one whose first thread has ended is that
/// thread's; its others go on.
pub fn is_alive(pid: i32) -> bool {
    let Some(fields) = stat_fields(pid) else {
        return false;
    };
    let threads = fields.get(17).and_then(|threads| threads.parse().ok());
    !matches!(fields[0].as_str(), "Z" | "X") || threads.unwrap_or(1) > 1
}

/// The kernel's letter for a process: R, S, D, T, Z, …
pub fn state(pid: i32) -> Option<char> {
    stat_fields(pid)?.first()?.chars().next()
}

/// CPU time used so far, clock ticks.
pub fn cpu_ticks(pid: i32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// A line of /proc/PID/status that is a size, such as `VmRSS` or `VmHWM`, in bytes; 0 if unknown.
pub fn memory(pid: i32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|text| text.strip_prefix(':')?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// The parent's process id.
pub fn parent(pid: i32) -> Option<i32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// The children of a process, of all its threads, the dead ones that it has not reaped too.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let listed = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let words: Vec<String> = listed.filter_map(Result::ok).collect();
    let numbers = words.iter().flat_map(|text| text.split_whitespace());
    numbers.filter_map(|word| word.parse().ok()).collect()
}

/// The fields of /proc/PID/stat behind the command name, which may contain anything.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// What a process was started as, for messages.
pub fn describe(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("{pid} {} {words}", state(pid).unwrap_or('?'))
}
