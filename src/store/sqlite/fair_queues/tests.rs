//! Shares by weight, over any stretch of starts; and that no queue waits for long, whatever others do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::job::Queue;

/// Nothing of these tests ends: a backlog that lasts.
const BACKLOG: u64 = 1_000_000;
const SLOTS_MAX: u32 = 1024;

fn settings(weight: u32) -> SharingSettings {
    SharingSettings {
        concurrency: SLOTS_MAX,
        paused: false,
        weight,
        starts_per_minute: None,
    }
}

fn queued(queued: u64) -> QueueCounts {
    QueueCounts {
        queued,
        ..QueueCounts::default()
    }
}

/// Queues with these weights and a backlog each, named by their place from `a` on.
fn busy(weights: &[u32]) -> FairQueues {
    let mut queues = FairQueues::default();
    for (name, weight) in ('a'..).zip(weights) {
        queues.set(&name.to_string(), settings(*weight), queued(BACKLOG));
    }
    queues
}

/// The next start; the job ends at once, so the queue's slots never matter.
fn short_job(queues: &mut FairQueues) -> String {
    let name = queues.start_next().expect("a job is ready");
    end(queues, &name);
    name.to_string()
}

fn end(queues: &mut FairQueues, name: &str) {
    queues.count(name, |counts| counts.active -= 1);
}

fn short_jobs(queues: &mut FairQueues, starts: usize) -> Vec<String> {
    (0..starts).map(|_| short_job(queues)).collect()
}

fn starts_of(name: &str, starts: &[String]) -> usize {
    starts.iter().filter(|start| *start == name).count()
}

#[test]
fn every_stretch_of_starts_is_shared_by_weight() {
    for (weights, expected) in [
        (vec![1, 3], vec![1, 3]),
        (vec![1, 1], vec![1, 1]),
        (vec![7, 7, 7], vec![1, 1, 1]),
        (vec![2, 3, 5], vec![2, 3, 5]),
        (vec![1, 1000], vec![1, 1000]),
        (vec![1000, 1, 999], vec![1000, 1, 999]),
    ] {
        let round: usize = expected.iter().sum();
        let starts = short_jobs(&mut busy(&weights), 4 * round);
        for begin in 0..=3 * round {
            for (name, share) in ('a'..).zip(&expected) {
                let got = starts_of(&name.to_string(), &starts[begin..begin + round]);
                assert!(
                    got.abs_diff(*share) <= 1,
                    "{weights:?}: queue {name} got {got} of {round} starts from {begin}"
                );
            }
        }
    }
}

#[test]
fn a_queue_that_was_idle_is_served_at_once_and_saves_nothing_up() {
    for weight in [1, 1000] {
        let mut queues = busy(&[1000; 25]);
        queues.set("idle", settings(weight), queued(0));
        short_jobs(&mut queues, 100_000);
        queues.count("idle", |counts| counts.queued = 2);
        assert_eq!(short_job(&mut queues), "idle", "weight {weight}");
        queues.count("idle", |counts| counts.queued = BACKLOG);
        let starts = short_jobs(&mut queues, 26_000);
        let share = 26_000 * weight as usize / (25_000 + weight as usize);
        let got = starts_of("idle", &starts);
        assert!(got <= share + 1, "{got} of {share}, weight {weight}");
    }
}

/// A queue that comes back with one job after each of its ends gets no more than its share.
#[test]
fn a_queue_that_is_idle_between_its_jobs_gains_nothing_by_it() {
    let mut queues = busy(&[10, 10]);
    queues.set("sly", settings(1), queued(0));
    let mut starts = Vec::new();
    for _ in 0..2100 {
        queues.count("sly", |counts| counts.queued = 1);
        starts.push(short_job(&mut queues));
        queues.count("sly", |counts| counts.queued = 0);
    }
    let got = starts_of("sly", &starts);
    assert!((99..=101).contains(&got), "{got} of 100");
}

#[test]
fn one_start_of_a_new_queue_comes_before_a_second_one_of_any_other() {
    let mut queues = FairQueues::default();
    for nth in 0..100 {
        queues.set(&format!("{nth:03}"), settings(1), queued(BACKLOG));
    }
    short_jobs(&mut queues, 12_345);
    queues.set("zz", settings(1), queued(1));
    assert_eq!(short_job(&mut queues), "zz");
}

/// As after a start of the server, when no queue has had a start.
#[test]
fn what_comes_last_is_first_where_no_queue_has_had_a_start() {
    let mut queues = busy(&[1; 25]);
    short_job(&mut queues);
    queues.set("new", settings(1), queued(BACKLOG));
    assert_eq!(short_job(&mut queues), "new");
    let starts = short_jobs(&mut queues, 24);
    assert_eq!(
        starts_of("new", &starts),
        0,
        "all others come before its second start"
    );
}

#[test]
fn a_change_of_weight_applies_at_once() {
    let mut queues = busy(&[1000, 1]);
    while short_job(&mut queues) != "b" {}
    queues.set("b", settings(1000), queued(BACKLOG));
    let starts = short_jobs(&mut queues, 100);
    assert!(
        starts_of("b", &starts).abs_diff(50) <= 1,
        "it owes no 999 starts any more: {starts:?}"
    );
    queues.set("b", settings(1), queued(BACKLOG));
    let got = starts_of("b", &short_jobs(&mut queues, 2002));
    assert!(got.abs_diff(2) <= 1, "{got} of 2");
}

#[test]
fn a_paused_queue_is_passed_over_and_comes_back_with_its_share() {
    let mut queues = busy(&[1, 1]);
    let paused = SharingSettings {
        paused: true,
        ..settings(1)
    };
    queues.set("a", paused, queued(BACKLOG));
    assert_eq!(queues.ready(), u64::from(SLOTS_MAX), "of the other");
    assert_eq!(starts_of("a", &short_jobs(&mut queues, 500)), 0);
    queues.set("a", settings(1), queued(BACKLOG));
    let got = starts_of("a", &short_jobs(&mut queues, 100));
    assert!(got.abs_diff(50) <= 1, "{got} of 50");
}

#[test]
fn fewer_slots_than_active_jobs_start_nothing_until_enough_have_ended() {
    let mut queues = busy(&[1]);
    for _ in 0..5 {
        queues.start_next().expect("a slot is free");
    }
    let slots = |concurrency| SharingSettings {
        concurrency,
        ..settings(1)
    };
    let counts = queues.get("a").expect("there").counts;
    queues.set("a", slots(3), counts);
    for _ in 0..2 {
        assert_eq!((queues.ready(), queues.start_next()), (0, None));
        end(&mut queues, "a");
    }
    assert_eq!((queues.ready(), queues.start_next()), (0, None));
    end(&mut queues, "a");
    assert_eq!(queues.ready(), 1);
    assert!(queues.start_next().is_some() && queues.start_next().is_none());
    let counts = queues.get("a").expect("there").counts;
    queues.set("a", slots(10), counts);
    assert_eq!(queues.ready(), 7);
}

#[test]
fn full_and_empty_queues_are_not_in_the_order() {
    let mut queues = FairQueues::default();
    for nth in 0..999 {
        let full = QueueCounts {
            queued: BACKLOG,
            active: u64::from(SLOTS_MAX),
            held: 3,
            waiting_for_key: 3,
        };
        let counts = if nth % 2 == 0 { full } else { queued(0) };
        queues.set(&format!("{nth}"), settings(1000), counts);
    }
    assert_eq!((queues.ready(), queues.order.len()), (0, 0));
    queues.set("free", settings(1), queued(1));
    assert_eq!((queues.ready(), queues.order.len()), (1, 1));
    assert_eq!(queues.start_next().as_deref(), Some("free"));
    assert_eq!((queues.ready(), queues.start_next()), (0, None));
    queues.remove("free");
    assert_eq!(queues.get("free"), None);
}

#[test]
fn what_is_restored_goes_on_as_if_nothing_had_happened() {
    let weights = [3, 1, 4, 1, 5];
    let (mut queues, mut other) = (busy(&weights), busy(&weights));
    short_jobs(&mut queues, 77);
    short_jobs(&mut other, 77);
    let clock = queues.clock();
    let before: Vec<_> = queues.iter().map(|(n, q)| (n.clone(), *q)).collect();
    short_jobs(&mut queues, 10);
    queues.remove("c");
    queues.set("new", settings(9), queued(1));
    queues.set("a", settings(900), queued(1));
    queues.restore_clock(clock);
    queues.restore(&"new".into(), None);
    for (name, queue) in before {
        queues.restore(&name, Some(queue));
    }
    assert_eq!(queues.ready(), other.ready());
    assert_eq!(short_jobs(&mut queues, 500), short_jobs(&mut other, 500));
}

/// What is counted anew from the database keeps its place in the order.
#[test]
fn counting_anew_changes_no_order() {
    let weights = [3, 1, 4, 1, 5];
    let (mut queues, mut other) = (busy(&weights), busy(&weights));
    short_jobs(&mut queues, 77);
    short_jobs(&mut other, 77);
    let mut anew = busy(&weights);
    for (name, queue) in queues.iter() {
        anew.set(name, queue.settings, queue.counts);
    }
    anew.continue_from(&queues);
    assert_eq!(anew.ready(), other.ready());
    assert_eq!(short_jobs(&mut anew, 500), short_jobs(&mut other, 500));
}

proptest! {
    /// Of two queues that always have ready jobs, neither is ahead of the other by more than one start
    /// of each, whatever other queues come and go.
    #[test]
    fn no_queue_gets_ahead_of_another(
        weights in prop::collection::vec(1u32..=1000, 2..12),
        guests in prop::collection::vec((0usize..6, 0u64..4, 1u32..=1000), 200..800),
    ) {
        let mut queues = busy(&weights);
        let mut got: BTreeMap<String, u64> = BTreeMap::new();
        for (guest, jobs, weight) in guests {
            queues.set(&format!("guest {guest}"), settings(weight), queued(jobs));
            *got.entry(short_job(&mut queues)).or_default() += 1;
            for ((a, wa), (b, wb)) in ('a'..).zip(&weights).zip(('a'..).zip(&weights).skip(1)) {
                let share = |name: char, weight: u32| {
                    let starts = got.get(&name.to_string()).copied().unwrap_or(0);
                    starts as f64 / f64::from(weight)
                };
                let bound = 1.0 / f64::from(*wa) + 1.0 / f64::from(*wb) + 1e-6;
                prop_assert!((share(a, *wa) - share(b, *wb)).abs() <= bound);
            }
        }
    }
}

fn bounded(starts_per_minute: u32) -> SharingSettings {
    SharingSettings {
        starts_per_minute: Some(starts_per_minute),
        ..settings(1)
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn no_stretch_of_a_minute_has_more_starts_than_a_queue_may_have() {
    let mut queues = FairQueues::default();
    queues.set("slow", bounded(3), queued(BACKLOG));
    let mut starts = Vec::new();
    for second in 0..600 {
        queues.advance(at(second));
        // A job is wanted at every moment but some, so that the starts are not all together.
        while second % 7 != 3 && queues.ready() > 0 && starts.len() as u64 % 2 <= second % 2 {
            short_job(&mut queues);
            starts.push(second);
        }
    }
    assert!(starts.len() > 24, "{}", starts.len());
    let window = Queue::RATE_WINDOW.as_secs();
    for four in starts.windows(4) {
        assert!(four[3] - four[0] >= window, "{four:?}");
    }
}

#[test]
fn a_queue_that_rests_holds_nobody_up_and_says_when_it_goes_on() {
    let mut queues = FairQueues::default();
    queues.set("slow", bounded(2), queued(10));
    queues.set("other", settings(1), queued(BACKLOG));
    queues.advance(at(1000));
    let starts = short_jobs(&mut queues, 20);
    assert_eq!(starts_of("slow", &starts), 2);
    assert_eq!(queues.next_start_in(), Some(at(60)));
    // It wants no shims while it rests.
    assert_eq!(queues.get("slow").map(QueueShare::ready), Some(0));
    queues.advance(at(1059));
    assert_eq!(starts_of("slow", &short_jobs(&mut queues, 5)), 0);
    assert_eq!(queues.next_start_in(), Some(at(1)));
    queues.advance(at(1060));
    assert_eq!(queues.next_start_in(), None);
    assert_eq!(
        starts_of("slow", &short_jobs(&mut queues, 20)),
        2,
        "and is next"
    );
    // One that cannot start anything does not wake anybody.
    queues.set("slow", bounded(2), QueueCounts::default());
    assert_eq!(queues.next_start_in(), None);
    queues.set(
        "slow",
        SharingSettings {
            paused: true,
            ..bounded(2)
        },
        queued(10),
    );
    assert_eq!(queues.next_start_in(), None);
}

#[test]
fn a_start_that_is_taken_back_can_be_made_again_and_a_restored_one_counts() {
    let mut queues = FairQueues::default();
    queues.set("slow", bounded(2), queued(10));
    queues.advance(at(100));
    queues.restore_start("slow", at(70));
    let (clock, before) = (queues.clock(), queues.get("slow").copied());
    let name = queues.start_next().expect("one is left");
    assert_eq!((queues.next(), queues.ready()), (None, 0));
    queues.take_start_back(&name);
    queues.restore_clock(clock);
    queues.restore(&name, before);
    assert_eq!(queues.ready(), 1);
    queues.start_next().expect("again");
    assert_eq!(queues.next_start_in(), Some(at(30)));
    // A higher bound counts at once, and so does none; a queue that is made anew has gained nothing.
    queues.set("slow", bounded(5), queued(10));
    assert_eq!(queues.ready(), 3);
    queues.remove("slow");
    queues.set("slow", bounded(2), queued(10));
    assert_eq!(queues.ready(), 0);
    queues.set("slow", settings(1), queued(10));
    assert_eq!(queues.ready(), 10);
}
