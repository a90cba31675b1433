//! Every byte: what any reader was shown at an offset is what stands there when all is over, and
//! what stands there is what the job wrote, attempt by attempt. Does not look at how the job ended,
//! but whether it and each of its attempts did so by itself: then nothing may be missing.

use std::collections::BTreeSet;

use super::Violation;
use crate::{
    facts::Facts,
    harness::sha256,
    history::Span,
    oracle,
    plan::{End, Plan},
    truth::Truth,
};

const NAME: &str = "bytes";

/// Judges one job: its whole output, and everything that was ever shown of it. `whole`: the attempts
/// that came to their end by themselves.
pub fn check(plan: &Plan, truth: &Truth, shown: &[Span], whole: &BTreeSet<u32>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(Violation::of(NAME, plan.key, what));
    if let Some(what) = &truth.wrong {
        wrong(what.clone());
    }
    for span in shown.iter().filter(|span| !truth.has(span)) {
        wrong(format!("shown and no more there: {span:?}"));
    }
    if let Some(what) = against_oracle(plan, truth) {
        wrong(what);
    }
    if !truth.runs.is_sorted_by_key(|run| run.attempt) {
        let attempts: Vec<_> = truth.runs.iter().map(|run| run.attempt).collect();
        wrong(format!("attempts out of order: {attempts:?}"));
    }
    let mut lacking = whole
        .iter()
        .filter(|attempt| written(truth, **attempt) != plan.total_bytes());
    if let Some(attempt) = lacking.next().filter(|_| plan.end != End::OutputLimit) {
        let (has, total) = (written(truth, *attempt), plan.total_bytes());
        wrong(format!(
            "attempt {attempt} ended by itself: {has} bytes of {total}"
        ));
    }
    if let Some(facts) = &truth.facts {
        if let Some(what) = against_facts(truth, facts) {
            wrong(what);
        }
        if let Some(what) = incomplete(plan, truth, facts) {
            wrong(what);
        }
    }
    found
}

/// Bytes of an attempt, of both streams.
fn written(truth: &Truth, attempt: u32) -> u64 {
    let runs = truth.runs.iter().filter(|run| run.attempt == attempt);
    runs.map(|run| run.bytes.len() as u64).sum()
}

/// Each stream of each attempt is a beginning of what the job writes.
fn against_oracle(plan: &Plan, truth: &Truth) -> Option<String> {
    let wanted = [
        oracle::bytes(plan.seed, 0, plan.stdout_bytes, raw(plan)),
        oracle::bytes(plan.seed, 1, plan.stderr_bytes, raw(plan)),
    ];
    let last = truth.runs.iter().map(|run| run.attempt).max().unwrap_or(0);
    for attempt in 1..=last {
        for stream in 0..2u8 {
            let got = truth.stream(stream, attempt);
            let wanted = &wanted[usize::from(stream)];
            if !wanted.starts_with(&got) {
                let same = got.iter().zip(wanted).take_while(|(a, b)| a == b).count();
                let (got, wanted) = (got.len(), wanted.len());
                return Some(format!(
                    "attempt {attempt}, stream {stream}: {got} bytes of {wanted}, wrong from {same} on"
                ));
            }
        }
    }
    None
}

/// What comes on stdin of a job that is fed is printable in any case.
fn raw(plan: &Plan) -> bool {
    plan.raw && plan.kind != crate::plan::Kind::Fed
}

fn against_facts(truth: &Truth, facts: &Facts) -> Option<String> {
    if facts.output_bytes != truth.next_offset {
        return Some(format!(
            "output_bytes {}, has {}",
            facts.output_bytes, truth.next_offset
        ));
    }
    let all: Vec<u8> = truth
        .runs
        .iter()
        .flat_map(|run| run.bytes.iter().copied())
        .collect();
    let digest = truth.gaps.is_empty().then(|| sha256(&all));
    (facts.output_sha256 != digest)
        .then(|| format!("output_sha256 {:?}, is {digest:?}", facts.output_sha256))
}

/// A job that came to its own end has all its bytes.
fn incomplete(plan: &Plan, truth: &Truth, facts: &Facts) -> Option<String> {
    let own_end = match plan.end {
        _ if facts.state == "cancelled" => false,
        _ if facts.state == "succeeded" => true,
        End::Code(code) => facts.exit_code == Some(code),
        End::Signal(name) => facts.signal.as_deref() == Some(name),
        End::OutputLimit => facts.reason.as_deref() == Some("output_limit"),
        End::Timeout | End::Spawn | End::Never => false,
    };
    // The bound is one over all attempts; otherwise the last attempt has written everything.
    let last = truth.runs.iter().map(|run| run.attempt).max().unwrap_or(1);
    let has = match plan.end {
        End::OutputLimit => truth.next_offset,
        _ => written(truth, last),
    };
    let total = plan.total_bytes();
    (own_end && has != total).then(|| format!("{has} bytes of {total}"))
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};

    /// A plan with output on both streams, its truth, and what a reader saw of it.
    fn honest() -> (Plan, Truth, Vec<Span>) {
        let plan = scene::writer();
        let truth = scene::truth(&plan);
        let run = &truth.runs[0];
        let shown = Span {
            offset: run.offset + 1,
            length: run.bytes.len() as u64 - 1,
            stream: run.stream,
            attempt: run.attempt,
            crc32c: crc32c::crc32c(&run.bytes[1..]),
        };
        (plan, truth, vec![shown])
    }

    fn none() -> BTreeSet<u32> {
        BTreeSet::new()
    }

    /// A job that wrote this at its first attempt and everything at its second one.
    fn twice(first: &[u8], whole: &Truth) -> Truth {
        let mut truth = Truth::default();
        truth.add(0, 1, first);
        for run in &whole.runs {
            truth.add(run.stream, 2, &run.bytes);
        }
        let all: Vec<u8> = truth
            .runs
            .iter()
            .flat_map(|run| run.bytes.clone())
            .collect();
        let mut facts = whole.facts.clone().expect("an end");
        (facts.output_bytes, facts.output_sha256) = (truth.next_offset, Some(sha256(&all)));
        truth.facts = Some(facts);
        truth
    }

    #[test]
    fn honest_bytes_pass() {
        let (plan, truth, shown) = honest();
        assert_eq!(check(&plan, &truth, &shown, &none()), []);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let (plan, mut truth, _) = honest();
        truth.runs[0].bytes[3] ^= 1;
        assert_eq!(
            check(&plan, &truth, &[], &none()).len(),
            2,
            "not the job's, and not the digest's"
        );
    }

    #[test]
    fn a_byte_that_was_shown_and_is_another_now_is_found() {
        let (plan, truth, mut shown) = honest();
        shown[0].crc32c ^= 1;
        assert_eq!(check(&plan, &truth, &shown, &none()).len(), 1);
    }

    #[test]
    fn a_byte_that_was_shown_behind_the_end_is_found() {
        let (plan, truth, mut shown) = honest();
        shown[0].length += truth.next_offset;
        assert_eq!(check(&plan, &truth, &shown, &none()).len(), 1);
    }

    #[test]
    fn bytes_shown_of_another_stream_are_found() {
        let (plan, truth, mut shown) = honest();
        shown[0].stream = 1 - shown[0].stream;
        assert_eq!(check(&plan, &truth, &shown, &none()).len(), 1);
    }

    #[test]
    fn lost_last_bytes_are_found() {
        let (plan, mut truth, _) = honest();
        let last = truth.runs.last_mut().expect("output");
        last.bytes.pop();
        truth.next_offset -= 1;
        let all: Vec<u8> = truth
            .runs
            .iter()
            .flat_map(|run| run.bytes.clone())
            .collect();
        let facts = truth.facts.as_mut().expect("an end");
        (facts.output_bytes, facts.output_sha256) = (truth.next_offset, Some(sha256(&all)));
        assert_eq!(check(&plan, &truth, &[], &none()).len(), 1);
    }

    #[test]
    fn a_lost_attempt_may_have_written_a_beginning_and_nothing_else() {
        let (plan, whole, _) = honest();
        let half = |first: &[u8]| twice(first, &whole);
        let beginning = &whole.runs[0].bytes[..50];
        assert_eq!(check(&plan, &half(beginning), &[], &none()), []);
        assert_eq!(
            check(&plan, &half(&whole.runs[0].bytes[1..50]), &[], &none()).len(),
            1
        );
    }

    #[test]
    fn an_attempt_that_ended_by_itself_has_written_everything() {
        let (plan, whole, _) = honest();
        let truth = twice(&whole.runs[0].bytes[..50], &whole);
        assert_eq!(check(&plan, &truth, &[], &[2].into()), []);
        assert_eq!(check(&plan, &truth, &[], &[1, 2].into()).len(), 1);
        assert_eq!(
            check(&plan, &truth, &[], &[3].into()).len(),
            1,
            "has no byte"
        );
    }

    #[test]
    fn attempts_in_the_wrong_order_are_found() {
        let (plan, whole, _) = honest();
        let mut truth = twice(&whole.runs[0].bytes, &whole);
        for run in &mut truth.runs {
            run.attempt = 3 - run.attempt;
        }
        truth.facts = None;
        assert_eq!(check(&plan, &truth, &[], &none()).len(), 1);
    }

    #[test]
    fn doubled_bytes_are_found() {
        let (plan, mut truth, _) = honest();
        let again = truth.runs[0].clone();
        truth.add(again.stream, again.attempt, &again.bytes);
        assert!(!check(&plan, &truth, &[], &none()).is_empty());
    }

    #[test]
    fn a_wrong_digest_is_found() {
        let (plan, mut truth, _) = honest();
        truth.facts.as_mut().expect("an end").output_sha256 = Some("0".repeat(64));
        assert_eq!(check(&plan, &truth, &[], &none()).len(), 1);
    }
}
