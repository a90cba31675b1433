//! `serve` in a job: the job's shim starts the server outside of the job, and this process stands
//! in for it: it copies the ready line, forwards signals, and ends when the server ends.
//!
//! A signal from the job's shim is for the job: it ends this process and not the server.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use rustix::process::pidfd_send_signal;

use crate::{
    clean,
    cli::{
        connect::autostart::LAUNCH_ROLE,
        render::{exit_code, print},
    },
    config,
    launch::{Outside, Shim},
    sys::waiting_io::WaitingIo,
};

/// The signals that are forwarded to the server.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// Added to a signal's number, as shells do.
const SIGNALLED: u32 = 128;

/// Lets the shim start this command line outside of its job, and returns when that server has
/// ended: with 0 if a signal to this process asked for that, else with a failure.
pub fn serve(shim: &Shim) -> ExitCode {
    match start(shim).and_then(|(server, signals)| watch(shim, server, &signals)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print::line(&format!("{error:#}"));
            ExitCode::from(exit_code::FAILURE)
        }
    }
}

fn start(shim: &Shim) -> anyhow::Result<(Outside, SignalFd)> {
    // Blocked before the start, so that a signal during the start stays pending.
    let forwarded: SigSet = FORWARDED.into_iter().collect();
    forwarded.thread_block()?;
    let signals = SignalFd::with_flags(&forwarded, SfdFlags::SFD_CLOEXEC)?;
    let env = clean::environment(std::env::vars_os(), true, config::is_variable);
    let mut words: Vec<OsString> = vec![LAUNCH_ROLE.into()];
    words.extend(std::env::args_os().skip(1));
    let server = shim.start(&words, &env, &std::env::current_dir()?, &io::stderr())?;
    Ok((server, signals))
}

fn watch(shim: &Shim, mut server: Outside, signals: &SignalFd) -> anyhow::Result<u8> {
    let mut stop_requested = false;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(server.stdout.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let [signalled, written] = fds.map(|fd| fd.any() == Some(true));
        if signalled && let Some(signal) = signals.read_signal()? {
            if signal.ssi_pid as i32 == shim.pid {
                print::line(&format!(
                    "the job ends; the server (process {}) goes on outside of it",
                    server.pid
                ));
                return Ok(u8::try_from(SIGNALLED + signal.ssi_signo)?);
            }
            stop_requested = true;
            forward_signal(&server, signal.ssi_signo);
        }
        if written && !copy_stdout(&mut server)? {
            return Ok(if stop_requested {
                0
            } else {
                exit_code::FAILURE
            });
        }
    }
}

fn forward_signal(server: &Outside, signal: u32) {
    let signal = i32::try_from(signal).ok();
    let signal = signal.and_then(rustix::process::Signal::from_named_raw);
    if let Some(signal) = signal {
        // An error means that it has ended: the end of its stdout shows that next.
        let _ = pidfd_send_signal(&server.process, signal);
    }
}

/// Copies what the server has written to our stdout; false at the end.
fn copy_stdout(server: &mut Outside) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    let length = server.stdout.read(&mut bytes)?;
    // The server runs on even if nothing reads our stdout.
    let _ = WaitingIo(io::stdout()).write_all(&bytes[..length]);
    Ok(length > 0)
}
