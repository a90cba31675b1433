//! A process that hangs in a call to a disk cannot be killed until that disk answers: a server that
//! starts does not wait for it, and says what it can.

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::harness::{Disk, FileSystem, Server, parent, state, until, until_true};

#[test]
fn a_start_does_not_wait_for_a_process_that_cannot_die() {
    let Some(disk) = Disk::mount(FileSystem::Ext4, 16 << 20) else {
        return;
    };
    let mut server = Server::start();
    let mut client = server.connect();
    let file = disk.path("file");
    let line = format!("while :; do echo x >> {}; done", file.display());
    let hung = client.submit(server.marked(json!({"shell": line})));
    client.started(&hung);
    let other = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&other);
    until_true("it to write", || file.exists());
    if let Err(why) = disk.freeze() {
        eprintln!("SKIPPED: no file system can be frozen here: {why}");
        client.control(&hung, "kill");
        return;
    }
    let leader = until("it to hang", || {
        let hangs = |pid: &i32| state(*pid) == Some('D');
        server.job_processes().into_iter().find(hangs)
    });
    server.kill_9();
    let shim = parent(leader).expect("its shim");
    kill(nix::unistd::Pid::from_raw(shim), Signal::SIGKILL).expect("the shim");
    server.restart();
    let mut client = server.connect();
    assert_eq!(client.get(&hung)["state"], "running", "it waited for it");
    assert_eq!(client.get(&other)["state"], "running");
    let next = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&next)["state"], "succeeded");
    // Nobody can know how it ended, and it is not called gone while it is there.
    let end = client.finished(&hung);
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("lost"))
    );
    assert_eq!(end["survivors"][0]["pid"], leader, "{end}");
    disk.thaw();
    until_true("its death", || state(leader).is_none_or(|s| s == 'Z'));
    client.control(&other, "kill");
}
