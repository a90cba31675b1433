//! The search on real processes of this machine.

use std::process::{Child, Command};

use super::{super::spec::INSTANCE_VARIABLE, super::spec::JOB_ID_VARIABLE, *};
use crate::job::JobId;

async fn search(id: JobId) -> OrphanTree {
    let (vital, mark) = (Vital::default(), Mark::new(id, "here", None));
    let searched = OrphanSearcher::default()
        .search(&vital, mark, None, None)
        .await;
    searched.expect("it does not stop")
}

fn sleep(job: &str, instance: Option<&str>) -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000").env(JOB_ID_VARIABLE, job);
    if let Some(instance) = instance {
        sleep.env(INSTANCE_VARIABLE, instance);
    }
    sleep.spawn().expect("sleep")
}

#[tokio::test]
async fn a_marked_process_is_ended_and_no_other() {
    let id = JobId(uuid::Uuid::now_v7());
    let job = id.to_string();
    let mut ours = sleep(&job, Some("here"));
    let unsaid = sleep(&job, None);
    let others = [sleep("0", Some("here")), sleep(&job, Some("elsewhere"))];
    // Reaped at once, as its shim's parent would.
    let reaper = std::thread::spawn(move || ours.wait().expect("wait"));
    let left = search(id).await;
    assert!(!reaper.join().expect("join").success());
    assert_eq!(left.unknown, None);
    let named: Vec<i32> = left.survivors.iter().map(|survivor| survivor.pid).collect();
    assert_eq!(named, [unsaid.id() as i32]);
    for mut other in others.into_iter().chain([unsaid]) {
        assert!(other.try_wait().expect("wait").is_none());
        other.kill().expect("kill");
        other.wait().expect("wait");
    }
}
