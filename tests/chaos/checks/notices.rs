//! Every state change that a job's receivers are to be told of is taken by each at least once; what
//! comes tells of such a change as it was, and an id stands for one change and one receiver alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::evidence::Evidence;

const NAME: &str = "notices";

/// Compares what the receiver was sent with the events of the database.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let (keys, ids) = (evidence.keys(), evidence.keys_by_id());
    let mut told: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    let mut meaning: BTreeMap<&str, u64> = BTreeMap::new();
    for delivery in &evidence.deliveries {
        told.entry(delivery.event).or_default().insert(&delivery.id);
        if delivery.taken {
            taken.insert(delivery.event);
        }
        if *meaning.entry(&delivery.id).or_insert(delivery.event) != delivery.event {
            let what = format!("one id, two events: {delivery:?}");
            found.push(Violation::general(NAME, what));
        }
        let mut events = evidence.rows.events.iter();
        let event = events.find(|event| event.id == delivery.event);
        let is_of_job = event.is_some_and(|event| {
            let key = keys.get(&event.job);
            event.to == delivery.state && key == ids.get(delivery.job_id.as_str())
        });
        if !is_of_job {
            let what = format!("not as it was: {delivery:?}, {event:?}");
            found.push(Violation::general(NAME, what));
        }
    }
    for event in &evidence.rows.events {
        let Some(plan) = keys.get(&event.job).and_then(|key| evidence.plans.get(key)) else {
            continue;
        };
        let wanted = plan.notify.contains(&event.to.as_str());
        let told = told.get(&event.id).map_or(0, BTreeSet::len);
        let what = match (wanted, taken.contains(&event.id), told) {
            (true, true, 1) | (false, false, 0) => continue,
            (true, false, _) => "was never told",
            (true, true, _) => "was told under several ids",
            (false, ..) => "was told, and nobody asked for it",
        };
        found.push(Violation::of(NAME, plan.key, format!("{what}: {event:?}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::receiver::Delivery;

    /// Of job 0 the start and the end are told; of the end, the first notice was refused.
    fn honest() -> Evidence {
        let mut evidence = scene::honest();
        evidence.plans.get_mut(&0).expect("a plan").notify = vec!["running", "succeeded"];
        for (event, taken) in [(1, true), (2, false), (2, true)] {
            let event = &evidence.rows.events[event];
            evidence.deliveries.push(Delivery {
                id: format!("evt-{}", event.id),
                event: event.id,
                job_id: "id-0".to_owned(),
                state: event.to.clone(),
                taken,
            });
        }
        evidence
    }

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&honest()), []);
    }

    #[test]
    fn a_change_that_nobody_was_told_of_is_found() {
        let mut evidence = honest();
        evidence.deliveries.remove(0);
        assert_eq!(check(&evidence).len(), 1);
        let mut evidence = honest();
        evidence.deliveries.pop();
        assert_eq!(check(&evidence).len(), 1, "it was refused");
    }

    #[test]
    fn a_notice_that_nobody_asked_for_is_found() {
        let mut evidence = honest();
        evidence.plans.get_mut(&0).expect("a plan").notify = vec!["running"];
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn ids_that_stand_for_two_things_are_found() {
        let mut evidence = honest();
        evidence.deliveries[0].id = evidence.deliveries[1].id.clone();
        assert_eq!(check(&evidence).len(), 2, "both deliveries of the end");
        let mut evidence = honest();
        evidence.deliveries[2].id = "another".to_owned();
        assert_eq!(check(&evidence).len(), 1, "and a change with two");
    }

    #[test]
    fn a_notice_of_another_state_or_job_or_of_no_event_is_found() {
        let change: [fn(&mut Delivery); 3] = [
            |it| it.state = "failed".to_owned(),
            |it| it.job_id = "id-1".to_owned(),
            |it| it.event = 999,
        ];
        for change in change {
            let mut evidence = honest();
            let mut again = evidence.deliveries[0].clone();
            again.id = "another".to_owned();
            change(&mut again);
            evidence.deliveries.push(again);
            assert!(!check(&evidence).is_empty());
        }
    }
}
