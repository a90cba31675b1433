//! Limits the files and the system calls of a query process for the rest of its life, with Landlock
//! (landlock(7)) and seccomp (seccomp(2)) where the kernel has them.
//!
//! `confine` limits memory and time, `rules` what a statement may do.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

#[cfg(target_arch = "x86_64")]
use super::forbidden::x32_calls;
use super::forbidden::{FORBIDDEN, FORBIDDEN_HERE};
use crate::spool::Layout;

/// The newest version of Landlock that is used; an older kernel applies what it knows of it.
const LANDLOCK: ABI = ABI::V6;

/// Files outside the data directory that may be read, for local times and SQLite's random numbers.
const READ: [&str; 4] = [
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/timezone",
    "/dev/urandom",
];

/// From here on the process can read only the database, the segments and a few system files, and write
/// only the WAL index (`-shm`), which SQLite maps for writing even to register a reader. No file can
/// grow (`confine`). Everything else, such as the token, is out of reach.
///
/// # Errors
///
/// Why Landlock is not in force, in a few words.
pub fn restrict_files(layout: &Layout) -> Result<(), String> {
    // If the path is too long for the kernel, Landlock cannot have a rule for it.
    PathFd::new(layout.database()).map_err(|error| error.to_string())?;
    let set = ruleset(layout).map_err(|error| error.to_string())?;
    let status = set.restrict_self().map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn ruleset(layout: &Layout) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut set = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile.into();
    for (path, access) in allowed(layout, read) {
        // A file that does not exist needs no rule.
        if let Ok(file) = PathFd::new(path) {
            set = set.add_rule(PathBeneath::new(file, access))?;
        }
    }
    Ok(set)
}

fn allowed(layout: &Layout, read: BitFlags<AccessFs>) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
    // SQLite follows a link to the database, and puts its other files next to the link's target.
    let database = layout.database();
    let database = fs::canonicalize(&database).unwrap_or(database);
    let beside = |suffix: &str| {
        let mut name = database.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut all = vec![
        // SQLite reaches a database with a long name through its directory.
        (layout.root().to_owned(), AccessFs::ReadDir.into()),
        (database.clone(), read),
        (beside("-wal"), read),
        (beside("-shm"), read | AccessFs::WriteFile),
        (layout.spool(), read | AccessFs::ReadDir),
    ];
    all.extend(READ.iter().map(|path| (Path::new(path).to_owned(), read)));
    all
}

/// From here on the process can use no socket, start no program or process, signal no other process,
/// and neither open a file for writing nor change one otherwise. Forbidden calls fail with EPERM.
///
/// # Errors
///
/// Why seccomp is not in force, in a few words.
pub fn restrict_calls() -> Result<(), String> {
    let program = program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN
        .iter()
        .chain(FORBIDDEN_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(x32_calls().map(|call| (call, Vec::new())));
    rules.insert(libc::SYS_openat, opens_for_writing(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opens_for_writing(1)?);
    // abort(3) sends a signal to its own process; signals to others are forbidden.
    let own = u64::from(std::process::id());
    let others = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![others])?]);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}

/// One rule for each flag of open(2) that could change a file; `argument` is the index of the flags.
fn opens_for_writing(argument: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let changing = [
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_CREAT,
        libc::O_TRUNC,
        libc::O_APPEND,
    ];
    let rule = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is_set, flag)?;
        SeccompRule::new(vec![condition])
    };
    changing.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{self, Write},
        net::TcpStream,
        os::unix::net::UnixStream,
        process::Command,
    };

    use super::*;

    /// In a thread of its own: both restrict only the calling thread and what it starts.
    #[test]
    fn nothing_but_what_a_query_reads_is_in_reach() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = Layout::new(dir.path());
        fs::create_dir(layout.spool()).expect("the spool");
        let segment = layout.spool().join("1.1.0.seg");
        for path in [layout.database(), segment.clone(), layout.token()] {
            fs::write(path, "x").expect("written");
        }
        let look = move || {
            rustix::thread::set_no_new_privs(true).expect("allowed");
            let kind = |result: io::Result<()>| result.err().map(|error| error.raw_os_error());
            let refused = |errno: i32| Some(Some(errno));
            let read = |path: PathBuf| kind(File::open(path).map(drop));
            if let Err(why) = restrict_files(&layout) {
                let _ = writeln!(io::stderr(), "SKIPPED: {why}");
            } else {
                assert_eq!(read(layout.database()), None);
                assert_eq!(read(segment), None);
                assert_eq!(read(layout.token()), refused(libc::EACCES));
                assert_eq!(read("/etc/passwd".into()), refused(libc::EACCES));
                assert_eq!(
                    kind(fs::write(layout.database(), "y")),
                    refused(libc::EACCES)
                );
            }
            restrict_calls().expect("this kernel has seccomp");
            let denied = refused(libc::EPERM);
            assert_eq!(read(layout.database()), None);
            assert_eq!(kind(fs::write(layout.database(), "y")), denied);
            assert_eq!(kind(fs::remove_file(layout.database())), denied);
            assert_eq!(kind(UnixStream::pair().map(drop)), denied);
            assert_eq!(kind(TcpStream::connect("127.0.0.1:1").map(drop)), denied);
            assert_eq!(kind(Command::new("/bin/true").spawn().map(drop)), denied);
            let thread = std::thread::Builder::new().spawn(|| ());
            assert_eq!(kind(thread.map(drop)), denied);
        };
        std::thread::spawn(look).join().expect("all of it");
    }

    #[test]
    fn the_filter_can_be_made_for_this_machine() {
        let program = program().expect("a filter");
        // One filter has at most BPF_MAXINSNS instructions.
        assert!((100..4096).contains(&program.len()), "{}", program.len());
    }
}
