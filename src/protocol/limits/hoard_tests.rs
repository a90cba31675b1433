//! Tests of the budget: who lets go, when, and that nothing is counted twice.

use super::*;

const KIB: usize = 1 << 10;

fn evicted(shares: &[Arc<SessionUsage>]) -> Vec<bool> {
    shares.iter().map(|share| share.is_evicted()).collect()
}

fn held(hoard: &MemoryBudget) -> usize {
    hoard.held.load(Ordering::SeqCst)
}

fn hoard_of<const N: usize>(bytes_max: usize) -> (Arc<MemoryBudget>, [Arc<SessionUsage>; N]) {
    let hoard = MemoryBudget::new(bytes_max as u64);
    let shares = std::array::from_fn(|_| hoard.share());
    (hoard, shares)
}

#[test]
fn little_is_free_and_everything_comes_back() {
    let (hoard, shares) = hoard_of::<100>(KIB);
    for share in &shares {
        share.hold(BufferKind::Replies, FREE_BYTES / 2);
        share.arrive(FREE_BYTES / 2);
    }
    assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
    shares[0].hold(BufferKind::Requests, 100);
    assert_eq!((held(&hoard), hoard.holders().len()), (100, 1));
    shares[0].arrived();
    assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
    assert!(!evicted(&shares).contains(&true));
}

#[test]
fn the_longest_without_progress_lets_go_and_no_more_than_needed() {
    let (hoard, shares) = hoard_of::<4>(1000 * KIB);
    for share in &shares[..3] {
        share.hold(BufferKind::Replies, 364 * KIB);
    }
    assert_eq!(held(&hoard), 900 * KIB);
    // The first one reads, the second one does not.
    shares[0].take(100 * KIB);
    shares[3].arrive(164 * KIB);
    assert_eq!(evicted(&shares), [false, false, false, false]);
    shares[3].arrive(KIB);
    assert_eq!(evicted(&shares), [false, true, false, false]);
    assert_eq!(held(&hoard), 701 * KIB);
    // What it still lets go of is not counted twice.
    shares[1].release(BufferKind::Replies, 364 * KIB);
    shares[1].hold(BufferKind::Replies, 1000 * KIB);
    assert_eq!(held(&hoard), 701 * KIB);
}

/// A byte now and then is no progress.
#[test]
fn a_message_that_drips_lets_go_before_one_that_flows() {
    let (_hoard, shares) = hoard_of::<3>(1000 * KIB);
    shares[0].arrive(500 * KIB);
    shares[1].arrive(500 * KIB);
    for _ in 0..1000 {
        shares[0].arrive(1);
    }
    shares[1].arrive(20 * KIB);
    shares[2].arrive(200 * KIB);
    assert_eq!(evicted(&shares), [true, false, false]);
}

#[test]
fn who_sends_and_reads_outlasts_any_number_that_do_not() {
    let (hoard, [honest]) = hoard_of::<1>(4096 * KIB);
    for round in 0..1000 {
        let deaf = hoard.share();
        deaf.hold(BufferKind::Replies, 700 * KIB);
        let endless = hoard.share();
        endless.arrive(600 * KIB);
        honest.arrive(900 * KIB);
        honest.arrived();
        honest.hold(BufferKind::Requests, 900 * KIB);
        honest.hold(BufferKind::Replies, 700 * KIB);
        honest.take(700 * KIB);
        honest.release(BufferKind::Requests, 900 * KIB);
        honest.release(BufferKind::Replies, 700 * KIB);
        assert!(!honest.is_evicted(), "round {round}");
        assert!(held(&hoard) <= 4096 * KIB);
    }
    assert!(hoard.holders().len() < 8);
}

#[test]
fn who_waits_for_us_is_left_alone_up_to_twice_the_budget() {
    let (hoard, shares) = hoard_of::<5>(1000 * KIB);
    for share in &shares[..4] {
        share.hold(BufferKind::Requests, 500 * KIB + FREE_BYTES);
    }
    assert_eq!(held(&hoard), 2000 * KIB);
    assert!(!evicted(&shares).contains(&true));
    shares[4].hold(BufferKind::Requests, FREE_BYTES + 1);
    assert_eq!(evicted(&shares), [true, false, false, false, false]);
}

#[test]
fn who_leaves_holds_nothing() {
    let (hoard, [share]) = hoard_of::<1>(1000 * KIB);
    share.arrive(500 * KIB);
    share.arrived();
    drop(share);
    assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
}
