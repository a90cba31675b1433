//! Finds out whether processes can be held together by control groups here, by doing so with one: it is put into a group,
//! frozen and killed there.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{getppid, pause, write},
};

use super::cgroup::{self, Cgroup};

/// The binary's role as the process of the probe: it waits until it is killed.
pub const PROBE_ROLE: &str = "cgroup-probe";

/// How long one step may take.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// The interval between two looks at a group that changes.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Does with a process what is done with jobs, in a group below the group `name` of this process. Returns that group's
/// path, or why there can be none. Blocking, some milliseconds.
///
/// # Errors
///
/// The first step that is not possible, for people.
pub fn probe(name: &str) -> Result<PathBuf, String> {
    let own = cgroup::own_dir().map_err(|error| format!("reading /proc: {error}"))?;
    let own =
        own.ok_or("no hierarchy of control groups of version 2 is mounted that has this process")?;
    let groups = own.join(name);
    if groups.to_str().is_none() {
        return Err("the path of the control groups is not UTF-8".to_owned());
    }
    let path = groups.join(format!("probe-{}", std::process::id()));
    let step = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |error: io::Error| format!("{what}: {error}")
    };
    let group = Cgroup::create(&path).map_err(step("creating the control group"))?;
    let probed = probe_in(&group);
    // Its process is gone, or was never in it.
    let removed = group.remove();
    probed.map_err(step("trying the control group"))?;
    removed.map_err(step("removing the control group"))?;
    Ok(groups)
}

/// Puts a process into the group, freezes and kills it there.
fn probe_in(group: &Cgroup) -> io::Result<()> {
    let mut process = Command::new("/proc/self/exe")
        .arg0("cc-executor")
        .arg(PROBE_ROLE)
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let probed = probe_with(group, &mut process);
    // Where the group's kill has failed.
    let _ = process.kill();
    process.wait()?;
    probed
}

fn probe_with(group: &Cgroup, process: &mut Child) -> io::Result<()> {
    // Frozen before that, it would stay for ever if this server was killed now.
    let mut is_tied = [0];
    let said = process.stdout.as_mut();
    said.ok_or(io::ErrorKind::BrokenPipe)?
        .read_exact(&mut is_tied)?;
    group.take(process.id())?;
    group.freeze(true)?;
    until("its process is not frozen", || Ok(group.events()?.frozen))?;
    group.kill()?;
    until("its process is not killed", || {
        Ok(process.try_wait()?.is_some())
    })?;
    until("it is not empty", || Ok(!group.events()?.populated))
}

/// Waits for a step of the probe.
fn until(what: &str, mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !is_done()? {
        if begun.elapsed() > STEP_WITHIN {
            return Err(io::Error::other(format!("{what} after {STEP_WITHIN:?}")));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "no event tells of every step, and a start waits for it anyway"
        )]
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The process of a probe; it does not outlive the process that has started it, whose id is its argument.
pub fn be_probed(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let _ = set_pdeathsig(Signal::SIGKILL);
    let starter = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let _ = write(io::stdout(), b"t");
    // If it died before that call, the kernel sends no signal.
    while starter == Some(getppid().as_raw()) {
        pause();
    }
    ExitCode::SUCCESS
}
