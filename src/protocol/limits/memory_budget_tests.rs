//! Tests of the budget: which session is evicted, when, and that nothing is counted twice.

use super::*;

const KIB: usize = 1 << 10;

fn evicted(usages: &[Arc<SessionUsage>]) -> Vec<bool> {
    usages.iter().map(|usage| usage.is_evicted()).collect()
}

fn held(budget: &MemoryBudget) -> usize {
    budget.held.load(Ordering::SeqCst)
}

fn budget_of<const N: usize>(bytes_max: usize) -> (Arc<MemoryBudget>, [Arc<SessionUsage>; N]) {
    let budget = MemoryBudget::new(bytes_max as u64);
    let usages = std::array::from_fn(|_| budget.session_usage());
    (budget, usages)
}

#[test]
fn little_is_free_and_everything_comes_back() {
    let (budget, usages) = budget_of::<100>(KIB);
    for usage in &usages {
        usage.hold(BufferKind::Replies, FREE_BYTES / 2);
        usage.received(FREE_BYTES / 2);
    }
    assert_eq!((held(&budget), budget.holders().len()), (0, 0));
    usages[0].hold(BufferKind::Requests, 100);
    assert_eq!((held(&budget), budget.holders().len()), (100, 1));
    usages[0].message_complete();
    assert_eq!((held(&budget), budget.holders().len()), (0, 0));
    assert!(!evicted(&usages).contains(&true));
}

#[test]
fn the_longest_without_progress_lets_go_and_no_more_than_needed() {
    let (budget, usages) = budget_of::<4>(1000 * KIB);
    for usage in &usages[..3] {
        usage.hold(BufferKind::Replies, 364 * KIB);
    }
    assert_eq!(held(&budget), 900 * KIB);
    // The first one reads, the second one does not.
    usages[0].written(100 * KIB);
    usages[3].received(164 * KIB);
    assert_eq!(evicted(&usages), [false, false, false, false]);
    usages[3].received(KIB);
    assert_eq!(evicted(&usages), [false, true, false, false]);
    assert_eq!(held(&budget), 701 * KIB);
    // What it still releases is not counted twice.
    usages[1].release(BufferKind::Replies, 364 * KIB);
    usages[1].hold(BufferKind::Replies, 1000 * KIB);
    assert_eq!(held(&budget), 701 * KIB);
}

/// A byte now and then is no progress.
#[test]
fn a_message_that_drips_lets_go_before_one_that_flows() {
    let (_budget, usages) = budget_of::<3>(1000 * KIB);
    usages[0].received(500 * KIB);
    usages[1].received(500 * KIB);
    for _ in 0..1000 {
        usages[0].received(1);
    }
    usages[1].received(20 * KIB);
    usages[2].received(200 * KIB);
    assert_eq!(evicted(&usages), [true, false, false]);
}

#[test]
fn who_sends_and_reads_outlasts_any_number_that_do_not() {
    let (budget, [honest]) = budget_of::<1>(4096 * KIB);
    for round in 0..1000 {
        let deaf = budget.session_usage();
        deaf.hold(BufferKind::Replies, 700 * KIB);
        let endless = budget.session_usage();
        endless.received(600 * KIB);
        honest.received(900 * KIB);
        honest.message_complete();
        honest.hold(BufferKind::Requests, 900 * KIB);
        honest.hold(BufferKind::Replies, 700 * KIB);
        honest.written(700 * KIB);
        honest.release(BufferKind::Requests, 900 * KIB);
        honest.release(BufferKind::Replies, 700 * KIB);
        assert!(!honest.is_evicted(), "round {round}");
        assert!(held(&budget) <= 4096 * KIB);
    }
    assert!(budget.holders().len() < 8);
}

#[test]
fn who_waits_for_us_is_left_alone_up_to_twice_the_budget() {
    let (budget, usages) = budget_of::<5>(1000 * KIB);
    for usage in &usages[..4] {
        usage.hold(BufferKind::Requests, 500 * KIB + FREE_BYTES);
    }
    assert_eq!(held(&budget), 2000 * KIB);
    assert!(!evicted(&usages).contains(&true));
    usages[4].hold(BufferKind::Requests, FREE_BYTES + 1);
    assert_eq!(evicted(&usages), [true, false, false, false, false]);
}

#[test]
fn who_leaves_holds_nothing() {
    let (budget, [usage]) = budget_of::<1>(1000 * KIB);
    usage.received(500 * KIB);
    usage.message_complete();
    drop(usage);
    assert_eq!((held(&budget), budget.holders().len()), (0, 0));
}
