//! Stored output: rows, gaps, segments, and the tail that has no row yet.

use cc_executor::{
    job::{Chunk, Gap, GapReason, JobNumber, Micros, Stream},
    store::{Fenced, Finish, OpenTail, OutputPlacement, SegmentRow, Stored, StoredItem},
};

use crate::ledger::*;

const ALL: u64 = u64::MAX;

/// Chunks of growing length from `offset` on, of both streams, with every byte value.
fn chunks(mut offset: u64, attempt: u32, count: usize) -> Vec<Chunk> {
    (0..count)
        .map(|nth| {
            let data: Vec<u8> = (0..=nth % 700).map(|i| (i * 7 + nth) as u8).collect();
            let chunk = Chunk {
                offset,
                stream: if nth % 3 == 0 {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                },
                attempt,
                at: Micros(nth as i64),
                data,
            };
            offset = chunk.next_offset();
            chunk
        })
        .collect()
}

fn end_of(items: &[StoredItem]) -> u64 {
    match items.last() {
        Some(StoredItem::Chunk(chunk)) => chunk.next_offset(),
        Some(StoredItem::Gap(gap)) => gap.to,
        None => 0,
    }
}

fn segment(number: JobNumber, attempt: u32, first: u64, end: u64) -> SegmentRow {
    SegmentRow {
        number,
        attempt,
        first_offset: first,
        end_offset: end,
        file_bytes: end - first + 100,
        hash_state: vec![end as u8; 3],
        counts: None,
    }
}

async fn stored(ledger: &Ledger, number: JobNumber, offset: u64, max: u64) -> Stored {
    ledger.store.stored(number, offset, max).await.unwrap()
}

async fn rows(ledger: &Ledger, number: JobNumber, offset: u64, max: u64) -> Vec<StoredItem> {
    match stored(ledger, number, offset, max).await {
        Stored::Rows(items) => items,
        other => panic!("no rows: {other:?}"),
    }
}

/// More than one statement's worth of rows, with gaps between and behind them.
#[tokio::test]
async fn rows_come_back_byte_for_byte_from_every_offset() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let mut all = chunks(0, 1, 5000);
    let hole = Gap {
        from: all[99].next_offset(),
        to: all[99].next_offset() + 1000,
        reason: GapReason::PowerLoss,
    };
    for chunk in &mut all[100..] {
        chunk.offset += 1000;
    }
    let end = all.last().unwrap().next_offset();
    let last = Gap {
        from: end,
        to: end + 5,
        reason: GapReason::DiskFull,
    };
    let finish = Finish {
        kept: OutputPlacement::Rows {
            chunks: all.clone(),
            gaps: vec![hole, last],
        },
        end_offset: end + 5,
        output_sha256: None,
        ..success(number, 1)
    };
    assert_eq!(ledger.store.finish(finish).await.unwrap(), Fenced::Applied);
    assert_eq!(ledger.get(number).await.output_bytes, end + 5);

    let mut expected: Vec<_> = all.into_iter().map(StoredItem::Chunk).collect();
    expected.insert(100, StoredItem::Gap(hole));
    expected.push(StoredItem::Gap(last));
    assert_eq!(rows(&ledger, number, 0, ALL).await, expected);

    let mut paged = Vec::new();
    while end_of(&paged) < end + 5 {
        paged.extend(rows(&ledger, number, end_of(&paged), 10_000).await);
    }
    assert_eq!(paged, expected);
    for offset in [hole.from, hole.from + 1, hole.to - 1] {
        assert_eq!(
            rows(&ledger, number, offset, 1).await,
            [expected[100].clone()]
        );
    }
    assert_eq!(
        stored(&ledger, number, end + 5, ALL).await,
        Stored::Open(None)
    );
}

#[tokio::test]
async fn a_running_job_ends_in_an_open_tail() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let tail = |first_offset| {
        Stored::Open(Some(OpenTail {
            attempt: 1,
            first_offset,
        }))
    };
    assert_eq!(stored(&ledger, number, 0, ALL).await, tail(0));

    let first = segment(number, 1, 0, 100);
    let read = ledger.store.segment_read(first.clone()).await;
    assert_eq!(read.unwrap(), Fenced::Applied);
    assert_eq!(ledger.get(number).await.output_bytes, 100);
    assert_eq!(
        stored(&ledger, number, 0, ALL).await,
        Stored::Segment(first.clone())
    );
    assert_eq!(
        stored(&ledger, number, 99, ALL).await,
        Stored::Segment(first.clone())
    );
    assert_eq!(stored(&ledger, number, 100, ALL).await, tail(100));

    let second = segment(number, 1, 100, 250);
    for _ in 0..2 {
        let read = ledger.store.segment_read(second.clone()).await;
        assert_eq!(
            read.unwrap(),
            Fenced::Applied,
            "told twice after an adoption"
        );
    }
    assert_eq!(
        stored(&ledger, number, 99, ALL).await,
        Stored::Segment(first)
    );
    assert_eq!(
        stored(&ledger, number, 100, ALL).await,
        Stored::Segment(second)
    );
    assert_eq!(stored(&ledger, number, 250, ALL).await, tail(250));

    let open = ledger.store.open_attempts().await.unwrap().remove(0);
    assert_eq!((open.start_offset, open.hashed_to), (0, 250));
    assert_eq!(open.hash_state, Some(vec![250; 3]));
}

#[tokio::test]
async fn an_empty_segment_hides_nothing() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let full = segment(number, 1, 0, 10);
    let empty = segment(number, 1, 10, 10);
    for row in [&full, &empty] {
        ledger.store.segment_read(row.clone()).await.unwrap();
    }
    assert_eq!(stored(&ledger, number, 9, ALL).await, Stored::Segment(full));
    let tail = OpenTail {
        attempt: 1,
        first_offset: 10,
    };
    assert_eq!(
        stored(&ledger, number, 10, ALL).await,
        Stored::Open(Some(tail))
    );
}

#[tokio::test]
async fn segments_stay_and_rows_replace_them() {
    let ledger = Ledger::new().await;
    let (large, small) = (ledger.running("a").await, ledger.running("b").await);
    let first = segment(large.number, 1, 0, 100);
    let second = segment(large.number, 1, 100, 130);
    ledger.store.segment_read(first.clone()).await.unwrap();
    let finish = Finish {
        kept: OutputPlacement::Segments {
            rows: vec![second.clone()],
            gaps: Vec::new(),
        },
        end_offset: 130,
        ..success(large.number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    let found = stored(&ledger, large.number, 99, ALL).await;
    assert_eq!(found, Stored::Segment(first));
    let found = stored(&ledger, large.number, 129, ALL).await;
    assert_eq!(found, Stored::Segment(second));
    let behind = stored(&ledger, large.number, 130, ALL).await;
    assert_eq!(behind, Stored::Open(None));

    let read = segment(small.number, 1, 0, 3);
    ledger.store.segment_read(read).await.unwrap();
    let kept = chunks(0, 1, 3);
    let finish = Finish {
        end_offset: kept[2].next_offset(),
        kept: OutputPlacement::Rows {
            chunks: kept.clone(),
            gaps: Vec::new(),
        },
        ..success(small.number, 1)
    };
    ledger.store.finish(finish).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(StoredItem::Chunk).collect();
    assert_eq!(rows(&ledger, small.number, 0, ALL).await, kept);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM segments WHERE job = ?")
        .bind(small.number)
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap();
    assert_eq!(left, 0, "a row must not name a file that may be unlinked");
}

#[tokio::test]
async fn there_is_nothing_of_a_job_that_is_not() {
    let ledger = Ledger::new().await;
    assert_eq!(stored(&ledger, 7, 0, ALL).await, Stored::Open(None));
    let waiting = ledger.queued().await;
    let nothing = stored(&ledger, waiting.number, 0, ALL).await;
    assert_eq!(nothing, Stored::Open(None));
}
