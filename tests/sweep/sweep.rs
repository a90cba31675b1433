//! Goes through the points of a victim with a few workers, and tells how each went.
//! Does not know what a run is.

use std::{
    collections::BTreeMap,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    point::{self, Point},
    shortage,
    strike::refusal,
    trial::{By, Told, Victim, run},
};

/// Runs of a victim at once, unless `CC_SWEEP_WORKERS` says otherwise.
const WORKERS: u64 = 2;
/// Points of a victim in a sample: blows, and errors.
const SAMPLE: usize = 20;
const SAMPLE_OF_ERRORS: usize = 12;
/// Runs without a blow that tell which points there are.
const RECORDINGS: usize = 3;
/// How often a point is tried that a run may not reach: the order of threads differs.
const TRIES: usize = 4;

/// How a point went.
enum Went {
    Right { lost: usize },
    NotReached,
    Wrong(String),
}

/// Strikes at every point, or at a sample; fails if anything was wrong.
pub fn sweep(victim: Victim, by: By) {
    let which = env::var("CC_SWEEP").unwrap_or_default();
    if by.is_left_out_of(&which) || !can_trace() {
        return;
    }
    let record = || run(victim, by, None).report;
    let reports: Vec<_> = (0..RECORDINGS).map(|_| record()).collect();
    let all = match by {
        By::Blow => point::enumerate(&reports),
        By::Error => shortage::enumerate(&reports),
    };
    let points = chosen(&all, by);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..number("CC_SWEEP_WORKERS").unwrap_or(WORKERS) {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let went = try_point(victim, by, point);
                    eprintln!("{victim:?} {point}: {}", went.sentence());
                    done.lock().expect("no worker panics").push((point, went));
                }
            });
        }
    });
    let done = done.into_inner().expect("no worker panics");
    assert_eq!(done.len(), points.len());
    tell(victim, all.len(), &done);
}

/// Whether we may trace a child; otherwise it is told why nothing is tested.
pub fn can_trace() -> bool {
    let refused = refusal();
    if let Some(why) = &refused {
        eprintln!("SKIPPED: {why}");
    }
    refused.is_none()
}

/// All points, or as many as a sample has, by the seed.
fn chosen(all: &[Point], by: By) -> Vec<Point> {
    if let Ok(only) = env::var("CC_SWEEP_ONLY") {
        return all
            .iter()
            .filter(|point| point.to_string().contains(&only))
            .cloned()
            .collect();
    }
    if env::var("CC_SWEEP").is_ok_and(|which| by.is_all_of(&which)) {
        // A long sweep that was broken off goes on at a call.
        let from = env::var("CC_SWEEP_FROM").unwrap_or_default();
        return all
            .iter()
            .filter(|point| point.call >= from)
            .cloned()
            .collect();
    }
    let seed = number("CC_SWEEP_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    // Seen when the test fails, or with --nocapture.
    eprintln!("CC_SWEEP_SEED={seed}");
    let mut points = all.to_vec();
    // By the point, not by its place: which others there are differs a little between runs.
    points.sort_by_cached_key(|point| {
        let mut hasher = DefaultHasher::new();
        (seed, point.to_string()).hash(&mut hasher);
        hasher.finish()
    });
    match by {
        By::Blow => points.truncate(number("CC_SWEEP_POINTS").map_or(SAMPLE, |n| n as usize)),
        By::Error => {
            spread(&mut points);
            points.truncate(number("CC_SWEEP_POINTS").map_or(SAMPLE_OF_ERRORS, |n| n as usize));
        }
    }
    points
}

/// One point of every call first, then a second one of each: most points are writes of the ledger.
fn spread(points: &mut [Point]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    points.sort_by_cached_key(|point| {
        let turn = seen.entry(point.call.clone()).or_default();
        *turn += 1;
        *turn
    });
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn try_point(victim: Victim, by: By, point: &Point) -> Went {
    for _ in 0..TRIES {
        match catch_unwind(AssertUnwindSafe(|| run(victim, by, Some(point)))) {
            Ok(Told {
                struck: true, lost, ..
            }) => return Went::Right { lost },
            Ok(_) => {}
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
                return Went::Wrong(text.unwrap_or_default());
            }
        }
    }
    Went::NotReached
}

impl Went {
    fn sentence(&self) -> String {
        match self {
            Self::Right { lost: 0 } => "right".to_owned(),
            Self::Right { .. } => "right, lost".to_owned(),
            Self::NotReached => format!("NOT REACHED in {TRIES} runs"),
            Self::Wrong(why) => format!("WRONG: {why}"),
        }
    }
}

/// The table of `docs/sweep.md`.
fn tell(victim: Victim, all: usize, done: &[(&Point, Went)]) {
    let mut rows: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (point, went) in done {
        let column = match went {
            Went::Right { lost: 0 } => 0,
            Went::Right { .. } => 1,
            Went::NotReached => 2,
            Went::Wrong(_) => 3,
        };
        rows.entry(&point.call).or_default()[column] += 1;
    }
    eprintln!("{victim:?}: {} of {all} points", done.len());
    eprintln!("| call | right | right, lost | not reached | wrong |\n|---|---|---|---|---|");
    let mut sum = [0; 4];
    for (call, counts) in &rows {
        let [right, lost, not_reached, wrong] = counts;
        eprintln!("| `{call}` | {right} | {lost} | {not_reached} | {wrong} |");
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    eprintln!(
        "| all | {} | {} | {} | {} |",
        sum[0], sum[1], sum[2], sum[3]
    );
    assert_eq!(sum[3], 0, "points went wrong; CC_SWEEP_ONLY repeats one");
    assert!(sum[0] + sum[1] > 0, "no point was reached");
}
