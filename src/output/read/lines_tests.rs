//! Where the last lines begin, over chunks, segments, windows and gaps.

use super::lines::last_lines;
use crate::{
    job::Stream,
    output::{
        digest::Digest,
        testing::{Fixture, Segment},
    },
};

#[tokio::test]
async fn lines_are_counted_over_chunks_and_segments() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut first = fixture.segment(job, 1, 0);
    first.out("a\nb");
    first.out("b\n\nc");
    let mut second = fixture.segment(job, 1, first.end);
    first.seal();
    second.out("c\nd");
    let text = "a\nbb\n\ncc\nd";
    for (end, lines) in (0..=text.len()).flat_map(|end| (0..8).map(move |lines| (end, lines))) {
        let shown: Vec<&str> = text[..end].split_inclusive('\n').collect();
        let skipped = shown.len().saturating_sub(lines);
        let expected: usize = shown[..skipped].iter().map(|line| line.len()).sum();
        let found = last_lines(&fixture.log, job, end as u64, lines as u64, None).await;
        let found = found.expect("readable");
        assert_eq!(
            found,
            expected as u64,
            "the last {lines} of {:?}",
            &text[..end]
        );
    }
}

#[tokio::test]
async fn lines_are_found_over_windows_and_among_other_streams() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    segment.write(Stream::Stderr, b"first\nsecond\n");
    // More than one window of bytes without a newline, then many lines of the other stream.
    for _ in 0..10 {
        segment.write(Stream::Stdout, &[b'x'; 60_000]);
    }
    let long = segment.end;
    segment.out("\n\n\n");
    let of = |streams: Option<Vec<Stream>>, lines| {
        let (log, end) = (fixture.log.clone(), segment.end);
        async move {
            let found = last_lines(&log, job, end, lines, streams.as_deref()).await;
            found.expect("readable")
        }
    };
    assert_eq!(of(None, 2).await, long + 1);
    assert_eq!(of(None, 3).await, 13);
    assert_eq!(of(Some(vec![Stream::Stderr]), 1).await, 6);
    assert_eq!(of(Some(vec![Stream::Stderr]), 9).await, 0);
    assert_eq!(of(Some(vec![Stream::Stdout]), 9).await, 0);
}

/// Sealed segments with counted rows, as the hasher makes them; pieces are of one stream each.
async fn counted(fixture: &Fixture, job: i64, segments: &[&[(Stream, &str)]]) -> Vec<Segment> {
    let mut digest = Digest::resume(0, None);
    let mut files: Vec<Segment> = Vec::new();
    for pieces in segments {
        let first = files.last().map_or(0, |last| last.end);
        let mut segment = fixture.segment(job, 1, first);
        for (stream, text) in *pieces {
            segment.write(*stream, text.as_bytes());
        }
        segment.seal();
        let (row, sealed) = digest
            .next_segment(&fixture.spool(), job, 1)
            .expect("readable");
        assert!(sealed);
        assert_eq!(
            fixture.store.segment_read(row).await,
            Ok(crate::store::Fenced::Applied)
        );
        files.push(segment);
    }
    files
}

#[tokio::test]
async fn counted_segments_tell_where_lines_begin() {
    use Stream::{Stderr, Stdout};
    let segments: [&[(Stream, &str)]; 5] = [
        &[(Stderr, "e1\ne2\n"), (Stdout, "a\nb")],
        &[(Stdout, "c\n\n")],
        &[(Stdout, "xxxxxx")],
        &[(Stdout, "y\n"), (Stderr, "e3"), (Stdout, "z\n")],
        &[(Stdout, "no line"), (Stdout, " ends here")],
    ];
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let files = counted(&fixture, job, &segments).await;
    let end = files[4].end;
    let bytes: Vec<(Stream, u8)> = segments
        .iter()
        .flat_map(|pieces| pieces.iter())
        .flat_map(|(stream, text)| text.bytes().map(move |byte| (*stream, byte)))
        .collect();
    for streams in [None, Some(vec![Stdout]), Some(vec![Stderr])] {
        let is_wanted = |stream| {
            streams
                .as_ref()
                .is_none_or(|wanted| wanted.contains(stream))
        };
        for end in 0..=end {
            // Where the lines of the wanted streams begin, apart from the first one.
            let wanted = (0..end).filter(|at| is_wanted(&bytes[*at as usize].0));
            let wanted: Vec<u64> = wanted.collect();
            let mut begins: Vec<u64> = wanted
                .iter()
                .filter(|at| bytes[**at as usize].1 == b'\n' && Some(*at) != wanted.last())
                .map(|at| at + 1)
                .collect();
            begins.reverse();
            for lines in 1..9 {
                let expected = begins.get(lines - 1).copied().unwrap_or(0);
                let found =
                    last_lines(&fixture.log, job, end, lines as u64, streams.as_deref()).await;
                let found = found.expect("readable");
                assert_eq!(found, expected, "the last {lines} of {streams:?} to {end}");
            }
        }
    }
}

/// The files in between are not there to be read.
#[tokio::test]
async fn of_counted_segments_two_are_read() {
    use Stream::{Stderr, Stdout};
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let between: &[(Stream, &str)] = &[(Stdout, "b\nb\n")];
    let mut segments = vec![between; 600];
    segments[0] = &[(Stderr, "e1\ne2\n"), (Stdout, "a\n")];
    let files = counted(&fixture, job, &segments).await;
    for file in &files[1..599] {
        std::fs::remove_file(&file.path).expect("removed");
    }
    let end = files[599].end;
    let of = |lines, streams: Option<Vec<Stream>>| {
        let log = fixture.log.clone();
        async move {
            let found = last_lines(&log, job, end, lines, streams.as_deref()).await;
            found.expect("readable")
        }
    };
    assert_eq!(of(1, Some(vec![Stderr])).await, 3);
    assert_eq!(of(2, Some(vec![Stderr])).await, 0);
    assert_eq!(of(1199, Some(vec![Stdout])).await, 0);
    assert_eq!(of(1200, None).await, 3);
}
