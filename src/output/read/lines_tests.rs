//! Where the last lines begin, over chunks, segments, windows and gaps.

use super::lines::last_lines;
use crate::{job::Stream, output::testing::Fixture};

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
