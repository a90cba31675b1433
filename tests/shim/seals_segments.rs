//! Large output goes through many segments, each sealed after its successor exists, all of it on
//! disk before the end is told.

use std::io::Write;

use cc_executor::{
    job::Stream,
    spool::{FromShim, RecordKind, SegmentName},
};
use sha2::{Digest, Sha256};

use crate::harness::{Shim, code, spec};

const BYTES: u64 = 50_000_000;

#[test]
fn fifty_megabytes_are_the_same_behind_the_seals() {
    let shim = Shim::start();
    let file = shim.dir.path().join("data");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("create"));
    let mut digest = Sha256::new();
    for i in 0..BYTES / 8 {
        let word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        digest.update(word);
        out.write_all(&word).expect("write");
    }
    out.into_inner().expect("flush");

    let (mut server, _) = shim.hello(1);
    server.run(spec(&["cat", file.to_str().expect("utf-8")]));
    let mut seals = Vec::new();
    let (facts, synced) = loop {
        match server.receive().expect("a message") {
            FromShim::Sealed { next_offset, .. } => seals.push(next_offset),
            FromShim::Exited { facts, synced, .. } => break (facts, synced),
            FromShim::Started { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((facts.exit, facts.end_offset), (code(0), BYTES));
    assert!(synced);
    assert!(Sha256::digest(shim.output(Stream::Stdout)) == digest.finalize());

    // Segments of 4 MiB and at most one record more.
    assert!((11..=12).contains(&seals.len()), "{seals:?}");
    let mut offset = 0;
    for record in shim.records(1, 1) {
        assert_eq!(record.header.offset, offset);
        match record.header.kind {
            RecordKind::Output => offset += record.payload.len() as u64,
            RecordKind::Seal => {
                let next = SegmentName {
                    job: 1,
                    attempt: 1,
                    first_offset: offset,
                };
                assert!(seals.contains(&offset));
                assert!(shim.layout.spool().join(next.to_string()).exists());
            }
            _ => {}
        }
    }
}
