//! Output of a running job whose oldest segments are dropped, read around the dropped range, from
//! every offset and while the range grows.

use std::fs::{File, remove_file};

use super::{
    find::find_end,
    item::{Item, ReadError},
    lines::last_lines,
    log::Cursor,
};
use crate::{
    job::{Gap, GapReason, JobNumber},
    output::testing::{Fixture, Segment},
    spool::dropped_range::{self, DroppedRange},
};

/// Five segments of four bytes, one line each: `aaa\n` … `eee\n`.
fn five(fixture: &Fixture, job: JobNumber) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (nth, line) in ["aaa\n", "bbb\n", "ccc\n", "ddd\n", "eee\n"]
        .iter()
        .enumerate()
    {
        let mut next = fixture.segment(job, 1, 4 * nth as u64);
        if let Some(last) = segments.last_mut() {
            last.seal();
        }
        next.out(line);
        segments.push(next);
    }
    segments
}

/// Everything from 4 to `to` is dropped.
fn drop_to(fixture: &Fixture, job: JobNumber, segments: &[Segment], to: u64) {
    let gap = Gap {
        from: 4,
        to,
        reason: GapReason::DropOldest,
    };
    let spool = File::open(fixture.spool()).expect("the spool");
    let lines = (to - 4) / 4;
    dropped_range::write(&spool, job, 1, &DroppedRange { gap, lines }).expect("a dropped range");
    for segment in &segments[1..to as usize / 4] {
        let _ = remove_file(&segment.path);
    }
}

async fn read(fixture: &Fixture, job: JobNumber, cursor: &mut Cursor) -> String {
    let mut text = String::new();
    loop {
        let batch = fixture.log.read(job, cursor, 1).await.expect("readable");
        for item in batch.items {
            match item {
                Item::Chunk(chunk) => text.push_str(&String::from_utf8_lossy(&chunk.data)),
                Item::Gap(gap) => text.push_str(&format!("[{}-{}]", gap.from, gap.to)),
            }
        }
        if batch.at_end {
            return text;
        }
    }
}

#[tokio::test]
async fn from_every_offset_output_goes_on_after_the_dropped_range() {
    for rows in 0..=4 {
        let fixture = Fixture::new().await;
        let job = fixture.running().await;
        let segments = five(&fixture, job);
        for segment in &segments[..rows] {
            fixture.enter(segment).await;
        }
        drop_to(&fixture, job, &segments, 12);
        for from in 0..=20 {
            let expected = match from {
                0..4 => format!("{}[4-12]ddd\neee\n", &"aaa\n"[from..]),
                4..12 => format!("[{from}-12]ddd\neee\n"),
                _ => "aaa\nbbb\nccc\nddd\neee\n"[from..].to_owned(),
            };
            let mut cursor = Cursor::new(from as u64);
            assert_eq!(
                read(&fixture, job, &mut cursor).await,
                expected,
                "{rows} rows"
            );
        }
    }
}

#[tokio::test]
async fn an_idle_reader_gets_a_gap_for_what_was_dropped_meanwhile() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segments = five(&fixture, job);
    let mut cursor = Cursor::new(0);
    drop_to(&fixture, job, &segments, 8);
    let step = async |cursor: &mut Cursor| {
        let batch = fixture.log.read(job, cursor, 1).await.expect("readable");
        batch.items.into_iter().next()
    };
    while cursor.offset < 8 {
        step(&mut cursor).await;
    }
    // It has read up to the end of the first dropped range; what follows there is dropped, too.
    drop_to(&fixture, job, &segments, 16);
    segments[4].out("fff\n");
    assert_eq!(read(&fixture, job, &mut cursor).await, "[8-16]eee\nfff\n");
}

#[tokio::test]
async fn the_end_and_the_last_lines_are_found_after_a_dropped_range() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let segments = five(&fixture, job);
    fixture.enter(&segments[0]).await;
    drop_to(&fixture, job, &segments, 12);
    let end = fixture.log.open_end(job, 0).await.expect("readable");
    let end = end.expect("an end");
    assert_eq!(
        (end.offset, end.dropped.bytes, end.dropped.lines),
        (20, 8, 2)
    );
    for (offset, start) in [(3, None), (4, Some(4)), (11, Some(4)), (12, None)] {
        let found = fixture.log.gap_start(job, offset).await.expect("readable");
        assert_eq!(found, start, "{offset}");
    }
    // The line before the last one begins in the dropped range.
    for (lines, from) in [(1, 16), (2, 4), (3, 0), (9, 0)] {
        let found = last_lines(&fixture.log, job, 20, lines, None).await;
        assert_eq!(found.expect("readable"), from, "{lines} lines");
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_without_a_dropped_range_is_a_gap_and_not_passed_over() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let segments = five(&fixture, job);
    for segment in &segments[..4] {
        fixture.enter(segment).await;
    }
    remove_file(&segments[1].path).expect("a segment");
    let mut cursor = Cursor::new(5);
    let read = fixture
        .log
        .read(job, &mut cursor, 10)
        .await
        .expect("readable");
    let lost = Gap {
        from: 5,
        to: 8,
        reason: GapReason::Damaged,
    };
    assert_eq!(read.items, [Item::Gap(lost)]);
}

#[tokio::test]
async fn a_reader_does_not_go_round_before_a_segment_that_is_gone_without_a_dropped_range() {
    for gone in 1..=3 {
        let fixture = Fixture::new().await;
        let job = fixture.running().await;
        let segments = five(&fixture, job);
        remove_file(&segments[gone].path).expect("a segment");
        let mut cursor = Cursor::new(0);
        let mut bytes = 0;
        let missing = loop {
            let read = fixture.log.read(job, &mut cursor, 10).await;
            let Ok(batch) = read else { break read };
            assert!(
                !batch.items.is_empty() || batch.at_end,
                "nothing at {cursor:?}"
            );
            bytes += batch.items.len();
        };
        assert!(matches!(missing, Err(ReadError::Missing(_, at)) if at == 4 * gone as u64));
        assert_eq!(bytes, gone);
    }
}

#[tokio::test]
async fn the_end_is_found_while_the_first_range_is_dropped() {
    let fixture = Fixture::new().await;
    for job in 1..=200 {
        let segments = five(&fixture, job);
        let (spool, first) = (fixture.spool(), segments[0].name);
        let ends = std::thread::spawn(move || {
            let looks = (0..20).map(|_| find_end(&spool, first));
            looks.collect::<Vec<_>>()
        });
        drop_to(&fixture, job, &segments, 16);
        for end in ends.join().expect("ends") {
            assert_eq!(end.expect("an end").offset, 20);
        }
    }
}
