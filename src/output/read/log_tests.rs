//! Output read from real segments and rows, also while it moves from segments to rows.

use super::{item::Item, log::Cursor};
use crate::{
    job::{Gap, GapReason, JobNumber},
    output::{tail::snapshot, testing::Fixture},
    spool::{record::HEADER_BYTES, segment::FILE_HEADER_BYTES},
    store::OutputPlacement,
};

/// Everything from an offset to the current end, read `max_bytes` at a time.
async fn all(fixture: &Fixture, job: JobNumber, from: u64, max_bytes: usize) -> String {
    let (mut cursor, mut text) = (Cursor::new(from), String::new());
    loop {
        let batch = fixture.log.read(job, &mut cursor, max_bytes).await;
        let batch = batch.expect("readable");
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
async fn segments_are_one_sequence_from_every_offset() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut first = fixture.segment(job, 1, 0);
    first.out("abc");
    first.out("def");
    let mut second = fixture.segment(job, 1, 6);
    first.seal();
    second.out("ghi");
    let mut third = fixture.segment(job, 1, 9);
    second.seal();
    third.out("jkl");
    for rows in [false, true] {
        if rows {
            fixture.enter(&first).await;
            fixture.enter(&second).await;
        }
        for from in 0..=12 {
            for max_bytes in [1, 2, 1000] {
                let expected = &"abcdefghijkl"[from..];
                assert_eq!(all(&fixture, job, from as u64, max_bytes).await, expected);
            }
        }
    }
}

/// The hasher enters one segment after the other, and a fast job is far ahead of it.
#[tokio::test]
async fn a_reader_finds_a_byte_after_many_segments_that_are_not_entered() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    for at in 1..40 {
        segment.out("x");
        let next = fixture.segment(job, 1, at);
        segment.seal();
        segment = next;
    }
    segment.out("end");
    assert_eq!(all(&fixture, job, 38, 100).await, "xend");
}

#[tokio::test]
async fn a_small_read_gets_a_part_of_a_record_and_then_the_rest() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    fixture.segment(job, 1, 0).out("abcdefgh");
    let mut cursor = Cursor::new(1);
    let mut parts = Vec::new();
    for max_bytes in [3, 2, 100] {
        let batch = fixture.log.read(job, &mut cursor, max_bytes).await;
        for item in batch.expect("readable").items {
            let Item::Chunk(chunk) = item else {
                panic!("{item:?}");
            };
            parts.push((chunk.offset, String::from_utf8(chunk.data).expect("text")));
        }
    }
    let expected = [(1, "bcd"), (4, "ef"), (6, "gh")];
    assert_eq!(parts, expected.map(|(at, text)| (at, text.to_owned())));
}

#[tokio::test]
async fn a_reader_follows_from_an_unlinked_segment_into_rows() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    let chunks = vec![segment.out("one "), segment.out("two ")];
    let mut cursor = Cursor::new(0);
    let batch = fixture
        .log
        .read(job, &mut cursor, 4)
        .await
        .expect("readable");
    assert_eq!((batch.items.len(), cursor.offset), (1, 4));
    segment.exit();
    let gap = Gap {
        from: 8,
        to: 20,
        reason: GapReason::PowerLoss,
    };
    let gaps = vec![gap];
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 20)
        .await;
    std::fs::remove_file(&segment.path).expect("unlinked");
    let mut items = Vec::new();
    loop {
        let batch = fixture
            .log
            .read(job, &mut cursor, 1)
            .await
            .expect("readable");
        items.extend(batch.items);
        if batch.at_end {
            break;
        }
    }
    assert_eq!(items.len(), 2);
    assert!(matches!(&items[0], Item::Chunk(chunk) if chunk.data == b"two "));
    assert_eq!(items[1], Item::Gap(gap));
    assert_eq!(all(&fixture, job, 2, 100).await, "e two [8-20]");
    assert_eq!(all(&fixture, job, 11, 100).await, "[11-20]");
}

/// An offset that was returned may never be refused: a client that reconnects names it.
#[tokio::test]
async fn a_segment_that_is_entered_meanwhile_does_not_hide_the_end() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut first = fixture.segment(job, 1, 0);
    first.out("abc");
    let mut second = fixture.segment(job, 1, 3);
    first.seal();
    second.out("de");
    let row_read_before = 0;
    fixture.enter(&first).await;
    let end = fixture.log.open_end(job, row_read_before).await;
    assert_eq!(end.expect("readable").map(|end| end.offset), Some(5));
    let job = snapshot(&fixture.store, &fixture.log, job).await;
    assert_eq!(job.expect("readable").expect("a job").output_bytes, 5);
}

#[tokio::test]
async fn an_attempt_that_has_written_nothing_ends_where_it_began() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    assert_eq!(fixture.log.open_end(job, 0).await.expect("readable"), None);
    assert_eq!(all(&fixture, job, 0, 10).await, "");
    fixture.segment(job, 1, 0);
    let end = fixture.log.open_end(job, 0).await.expect("readable");
    assert_eq!(end.map(|end| end.offset), Some(0));
    assert_eq!(all(&fixture, job, 0, 10).await, "");
}

#[tokio::test]
async fn a_segment_that_is_damaged_or_missing_is_a_gap_and_not_an_end() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    segment.out("abcdef");
    segment.exit();
    let rows = vec![segment.row()];
    let gaps = Vec::new();
    fixture
        .finish(job, 1, OutputPlacement::Segments { rows, gaps }, 6)
        .await;
    assert_eq!(all(&fixture, job, 0, 10).await, "abcdef");
    let mut bytes = std::fs::read(&segment.path).expect("the segment");
    let output = FILE_HEADER_BYTES as usize + HEADER_BYTES;
    bytes[output] ^= 0xff;
    std::fs::write(&segment.path, bytes).expect("damaged");
    assert_eq!(all(&fixture, job, 0, 10).await, "[0-6]");
    std::fs::remove_file(&segment.path).expect("removed");
    assert_eq!(all(&fixture, job, 0, 10).await, "[0-6]");
}
