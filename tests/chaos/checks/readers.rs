//! Each reader was told things in their order: dense offsets, caught up once, one end behind the
//! last byte, nothing behind it. Does not compare bytes.

use super::Violation;
use crate::{
    evidence::Evidence,
    history::{Entry, How, What},
};

const NAME: &str = "readers";

/// Goes through what each reader was told.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for (reader, entries) in evidence.readers() {
        if let Some(what) = first_wrong(&entries) {
            let what = format!("reader {reader}: {what}");
            found.push(Violation {
                check: NAME,
                job: entries[0].job,
                what,
            });
        }
    }
    found
}

fn first_wrong(entries: &[&Entry]) -> Option<String> {
    let (mut next, mut caught_up, mut ended, mut is_tail) = (0, false, false, false);
    let mut only = None;
    // Who reads one stream jumps over the bytes of the other one.
    let follows = |at: u64, next: u64, only: Option<u8>| at == next || only.is_some() && at > next;
    for (at, entry) in entries.iter().enumerate() {
        let wrong = match &entry.what {
            What::Began {
                from, how, stream, ..
            } => {
                (next, is_tail, only) = (*from, *how == How::Tail, *stream);
                at != 0
            }
            What::Shown { span, .. } => {
                let expected = std::mem::replace(&mut next, span.offset + span.length);
                let foreign = only.is_some_and(|stream| span.stream != stream);
                !follows(span.offset, expected, only) || span.length == 0 || ended || foreign
            }
            What::Gap { from, to, .. } => {
                let expected = std::mem::replace(&mut next, *to);
                !follows(*from, expected, only) || from >= to || ended
            }
            What::Passed { to, .. } => {
                let expected = std::mem::replace(&mut next, *to);
                only.is_none() || *to <= expected || ended
            }
            What::CaughtUp { next_offset, .. } => {
                let expected = std::mem::replace(&mut next, *next_offset);
                let twice = std::mem::replace(&mut caught_up, true);
                twice || !follows(*next_offset, expected, only) || ended
            }
            What::Ended { facts, .. } => {
                let whole = follows(facts.output_bytes, next, only);
                let early = is_tail && !caught_up || !whole;
                std::mem::replace(&mut ended, true) || early
            }
            What::Told { .. } => ended,
            What::Behind { .. } => true,
            _ => false,
        };
        if wrong {
            return Some(format!(
                "{:?}, expected offset {next}, ended: {ended}",
                entry.what
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};

    fn found_with(change: impl FnOnce(&mut Vec<Entry>)) -> usize {
        let mut evidence = scene::honest();
        change(&mut evidence.entries);
        check(&evidence).len()
    }

    fn at(entries: &[Entry], is_it: impl Fn(&What) -> bool) -> usize {
        entries
            .iter()
            .position(|entry| is_it(&entry.what))
            .expect("it is there")
    }

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&scene::honest()), []);
    }

    #[test]
    fn a_hole_without_a_gap_is_found() {
        let hole = |entries: &mut Vec<Entry>| {
            let at = at(entries, |what| matches!(what, What::Shown { .. }));
            if let What::Shown { span, .. } = &mut entries[at].what {
                (span.offset, span.length) = (span.offset + 1, span.length - 1);
            }
        };
        assert_eq!(found_with(hole), 1);
    }

    #[test]
    fn a_second_end_is_found() {
        let twice = |entries: &mut Vec<Entry>| {
            let at = at(entries, |what| matches!(what, What::Ended { .. }));
            entries.push(entries[at].clone());
        };
        assert_eq!(found_with(twice), 1);
    }

    #[test]
    fn an_end_before_the_last_byte_is_found() {
        let early = |entries: &mut Vec<Entry>| {
            let at = at(entries, |what| matches!(what, What::Shown { .. }));
            entries.remove(at);
        };
        assert_eq!(found_with(early), 1);
    }

    #[test]
    fn an_end_without_caught_up_is_found() {
        let early = |entries: &mut Vec<Entry>| {
            let at = at(entries, |what| matches!(what, What::CaughtUp { .. }));
            entries.remove(at);
        };
        assert_eq!(found_with(early), 1);
    }

    #[test]
    fn a_word_behind_untail_is_found() {
        let late = |entries: &mut Vec<Entry>| {
            let what = What::Behind {
                reader: 1,
                what: String::new(),
            };
            entries.push(Entry {
                at_us: 0,
                job: Some(0),
                what,
            });
        };
        assert_eq!(found_with(late), 1);
    }
}
