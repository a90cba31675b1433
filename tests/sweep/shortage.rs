//! Which errors each call can return because something is short or a disk is broken, and the points
//! that this makes: once, or for a while.
//! Does not know what a run is.

use nix::errno::Errno::{self, EAGAIN, EDQUOT, EIO, EMFILE, ENFILE, ENOLCK, ENOMEM, ENOSPC};

use crate::point::{How, Point, most_calls};

/// How often in a row a call fails that fails for a while.
pub const WHILE: usize = 20;

/// The points of the runs with these reports. Each call fails once with each of its errors; the
/// first one of each name, and the one in the middle, also for a while.
pub fn enumerate(reports: &[String]) -> Vec<Point> {
    let mut points = Vec::new();
    for (call, (count, _)) in most_calls(reports) {
        for &errno in errors_of(&call) {
            let mut add = |nth, times| {
                let how = How::Error { errno, times };
                let call = call.clone();
                points.push(Point { call, nth, how });
            };
            (1..=count.min(looks_max(&call))).for_each(|nth| add(nth, 1));
            add(1, WHILE);
            if count > 2 {
                add(count.div_ceil(2), WHILE);
            }
        }
    }
    points
}

/// How many of these calls are struck one by one. A search looks at every process of the machine in
/// the same way: the first few stand for all.
fn looks_max(call: &str) -> usize {
    let is_search = call.contains(" /proc/N/") || call == "pidfd_open";
    if is_search { 5 } else { usize::MAX }
}

/// The errors of a call, by its manual page (section 2, Linux man-pages 6). Where more is listed than
/// the page has, the reason stands beside it. `EAGAIN` only where nothing has to become ready for
/// it: the kernel would wake nobody after one that we made up.
fn errors_of(call: &str) -> &'static [Errno] {
    let call = call.strip_prefix("child: ").unwrap_or(call);
    let mut words = call.split(' ');
    let verb = words.next().unwrap_or_default();
    let place = call.rsplit(' ').next().unwrap_or_default();
    let on_disk = !matches!(place, "pipe" | "unix" | "tcp") && !place.starts_with('[');
    match (verb, words.next()) {
        // open(2): EMFILE, ENFILE, ENOMEM; where it creates, ENOSPC and EDQUOT. Every file system
        // gives EIO too, when it cannot read the directory.
        ("open" | "openat" | "openat2", _) if place.starts_with("/proc") => {
            &[EMFILE, ENFILE, ENOMEM]
        }
        ("open" | "openat" | "openat2", Some("O_CREAT")) => {
            &[EMFILE, ENFILE, ENOMEM, EIO, ENOSPC, EDQUOT]
        }
        ("open" | "openat" | "openat2", _) => &[EMFILE, ENFILE, ENOMEM, EIO],
        // accept(2), socket(2), signalfd(2), eventfd(2), epoll_create(2), timerfd_create(2),
        // memfd_create(2), pidfd_open(2).
        (
            "accept4" | "socket" | "signalfd4" | "eventfd2" | "epoll_create1" | "timerfd_create"
            | "memfd_create" | "pidfd_open",
            _,
        ) => &[EMFILE, ENFILE, ENOMEM],
        // pipe(2), socketpair(2), inotify_init(2).
        ("pipe2" | "socketpair", _) => &[EMFILE, ENFILE],
        ("inotify_init1", _) => &[EMFILE, ENFILE, ENOMEM],
        // inotify_add_watch(2), epoll_ctl(2): ENOSPC is the limit of watches.
        ("inotify_add_watch" | "epoll_ctl", _) => &[ENOMEM, ENOSPC],
        // dup(2), fcntl(2). ENOLCK: no memory for another lock; flock(2) has it too.
        ("dup", _) | ("fcntl", Some("F_DUPFD")) => &[EMFILE],
        ("fcntl" | "flock", _) => &[ENOLCK],
        // connect(2): a full backlog of a Unix socket.
        ("connect", _) if place == "unix" => &[EAGAIN],
        // bind(2): ENOMEM; a Unix socket is made as by mknod(2): ENOSPC, EDQUOT.
        ("bind", _) if place == "unix" => &[ENOMEM, ENOSPC, EDQUOT],
        // clone(2), fork(2), vfork(2).
        ("clone" | "clone3" | "fork" | "vfork", _) => &[EAGAIN, ENOMEM],
        // execve(2).
        ("execve", _) => &[EAGAIN, EIO, EMFILE, ENFILE, ENOMEM],
        // write(2), pwrite(2), writev(2): not for what is no file.
        ("write" | "pwrite64" | "pwritev" | "writev", _) if on_disk => &[EIO, ENOSPC, EDQUOT],
        // send(2).
        ("sendto" | "sendmsg", _) => &[ENOMEM],
        // fsync(2), syncfs(2).
        ("fsync" | "fdatasync" | "syncfs", _) => &[EIO, ENOSPC, EDQUOT],
        // sync_file_range(2).
        ("sync_file_range", _) => &[EIO, ENOMEM, ENOSPC],
        // ftruncate(2): EIO. A file system with quotas may need blocks to make a file longer.
        ("ftruncate", _) => &[EIO, ENOSPC, EDQUOT],
        // fallocate(2): EIO, ENOSPC; a quota is told as EDQUOT (kernel, fs/quota).
        ("fallocate", _) => &[EIO, ENOSPC, EDQUOT],
        // rename(2), link(2), unlink(2), mkdir(2).
        ("rename", _) => &[ENOMEM, ENOSPC, EDQUOT],
        ("link", _) => &[EIO, ENOMEM, ENOSPC, EDQUOT],
        ("unlink", _) => &[EIO, ENOMEM],
        ("mkdir", _) => &[ENOMEM, ENOSPC, EDQUOT],
        // mmap(2).
        ("mmap", _) => &[ENOMEM],
        _ => &[],
    }
}

#[test]
fn a_call_fails_with_each_of_its_errors_once_and_for_a_while() {
    let report = "whole flock lock\nwhole flock lock\nwhole flock lock\nwhole write [eventfd]\n";
    let points: Vec<_> = enumerate(&[report.to_owned()])
        .iter()
        .map(Point::to_string)
        .collect();
    let expected = [
        "ENOLCK at #1 of \"flock lock\"",
        "ENOLCK at #2 of \"flock lock\"",
        "ENOLCK at #3 of \"flock lock\"",
        "20 ENOLCK from #1 of \"flock lock\"",
        "20 ENOLCK from #2 of \"flock lock\"",
    ];
    assert_eq!(points, expected);
}
