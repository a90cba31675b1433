//! Who reads one stream gets all of it: between where a reader began and how far it came, nothing of its stream is
//! left out. Does not compare the bytes themselves.

use super::Violation;
use crate::{
    history::{Entry, What},
    plan::Key,
    truth::Truth,
};

const NAME: &str = "streams";

/// Judges the readers of one job that read one stream, each with what it was told.
pub fn check(key: Key, truth: &Truth, readers: &[Vec<&Entry>]) -> Vec<Violation> {
    let lacking = readers.iter().filter_map(|entries| lacking(truth, entries));
    lacking.map(|what| Violation::of(NAME, key, what)).collect()
}

fn lacking(truth: &Truth, entries: &[&Entry]) -> Option<String> {
    let Some(What::Began {
        from,
        stream: Some(stream),
        reader,
        ..
    }) = entries.first().map(|entry| &entry.what)
    else {
        return None;
    };
    let (mut to, mut shown, mut gaps) = (*from, 0, Vec::new());
    for entry in entries {
        match &entry.what {
            What::Shown { span, .. } => {
                to = span.offset + span.length;
                shown += span.length;
            }
            What::Gap {
                from, to: gap_to, ..
            } => {
                to = *gap_to;
                gaps.push((*from, *gap_to));
            }
            What::Passed { to: next, .. } => to = *next,
            What::CaughtUp { next_offset, .. } => to = *next_offset,
            What::Ended { facts, .. } => to = facts.output_bytes,
            _ => {}
        }
    }
    let there = bytes_within(truth, *stream, *from, to);
    let missed: u64 = gaps
        .iter()
        .map(|(from, to)| bytes_within(truth, *stream, *from, *to))
        .sum();
    (shown + missed != there).then(|| {
        format!(
            "reader {reader}: {shown} bytes of stream {stream} from {from} to {to}, {missed} in gaps; there are {there}"
        )
    })
}

/// Bytes of a stream between two offsets.
fn bytes_within(truth: &Truth, stream: u8, from: u64, to: u64) -> u64 {
    let runs = truth.runs.iter().filter(|run| run.stream == stream);
    runs.map(|run| {
        let end = run.offset + run.bytes.len() as u64;
        end.min(to).saturating_sub(run.offset.max(from))
    })
    .sum()
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::history::{How, Span};

    /// A reader of stdout that was told this.
    fn found(truth: &Truth, told: Vec<What>) -> usize {
        let began = What::Began {
            reader: 7,
            from: 0,
            how: How::Tail,
            stream: Some(0),
        };
        let entries: Vec<Entry> = std::iter::once(began)
            .chain(told)
            .map(|what| Entry {
                at_us: 0,
                job: Some(0),
                what,
            })
            .collect();
        check(0, truth, &[entries.iter().collect()]).len()
    }

    fn shown(truth: &Truth, less: u64) -> What {
        let run = &truth.runs[0];
        assert_eq!(run.stream, 0);
        let span = Span {
            offset: run.offset,
            length: run.bytes.len() as u64 - less,
            stream: 0,
            attempt: 1,
            crc32c: 0,
        };
        What::Shown { reader: 7, span }
    }

    #[test]
    fn all_of_a_stream_passes_and_a_byte_less_is_found() {
        let truth = scene::truth(&scene::writer());
        let passed = What::Passed {
            reader: 7,
            to: truth.next_offset,
        };
        assert_eq!(found(&truth, vec![shown(&truth, 0), passed.clone()]), 0);
        assert_eq!(found(&truth, vec![shown(&truth, 1), passed.clone()]), 1);
        assert_eq!(found(&truth, vec![passed]), 1);
        // It may hang up in the middle.
        assert_eq!(found(&truth, vec![shown(&truth, 1)]), 0);
        assert_eq!(found(&truth, Vec::new()), 0);
    }

    #[test]
    fn what_a_gap_says_is_not_missing() {
        let truth = scene::truth(&scene::writer());
        let gap = What::Gap {
            reader: 7,
            from: 0,
            to: truth.next_offset,
            reason: "deleted".to_owned(),
        };
        assert_eq!(found(&truth, vec![gap]), 0);
    }
}
