use super::data::*;
use proptest::prelude::*;

fn layout() -> PageLayout {
    PageLayout::new(vec![0..160, 256..1000, 1000..1100, 0x10_0000..0x10_0100]).unwrap()
}

fn pages(runs: &[Run]) -> (BatchHeader, Vec<u8>) {
    let mut table = Vec::new();
    let table_crc32 = encode_runs(runs, &mut table);
    let batch = Batch::Pages {
        runs: u16::try_from(runs.len()).unwrap(),
        pages: runs.iter().map(|run| run.pages).sum(),
        payload_xxh3: 0xfeed,
        table_crc32,
    };
    (BatchHeader { round: 1, seq: 0, batch }, table)
}

fn run(first_page: u64, pages: u32) -> Run {
    Run { first_page, pages }
}

fn check(runs: &[Run]) -> Result<Vec<Run>, DataError> {
    let (header, table) = pages(runs);
    let mut out = vec![run(9, 9)];
    decode_runs(&header, &table, &layout(), &mut out).map(|()| out)
}

#[test]
fn headers_come_back() {
    let batches = [
        Batch::Pages { runs: 512, pages: 512.min(BATCH_PAGES_MAX), payload_xxh3: 1, table_crc32: 2 },
        Batch::Pages { runs: 3, pages: 256, payload_xxh3: u64::MAX, table_crc32: u32::MAX },
        Batch::Zero { runs: 1, pages: u32::MAX, table_crc32: 3 },
        Batch::End { batches: 0 },
        Batch::End { batches: u32::MAX },
    ];
    for batch in &batches[1..] {
        let header = BatchHeader { round: 7, seq: u64::MAX, batch: *batch };
        assert_eq!(BatchHeader::decode(&header.encode()), Ok(header));
    }
    // 512 runs of 256 pages can't be: each run has a page at least.
    let header = BatchHeader { round: 7, seq: 0, batch: batches[0] };
    assert!(matches!(BatchHeader::decode(&header.encode()), Err(DataError::OutOfBounds { .. })));
}

#[test]
fn header_bytes_are_golden() {
    let (header, table) = pages(&[run(2, 3)]);
    let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "47575242010001000100000003000000000000000000000".to_owned() + "0edfe000000000000" + &hex[64..]
    );
    assert_eq!(table, [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn headers_out_of_bounds_are_refused() {
    let cases = [
        (0, Batch::End { batches: 1 }),
        (1, Batch::Pages { runs: 0, pages: 1, payload_xxh3: 0, table_crc32: 0 }),
        (1, Batch::Pages { runs: 513, pages: 256, payload_xxh3: 0, table_crc32: 0 }),
        (1, Batch::Pages { runs: 1, pages: 257, payload_xxh3: 0, table_crc32: 0 }),
        (1, Batch::Pages { runs: 2, pages: 1, payload_xxh3: 0, table_crc32: 0 }),
        (1, Batch::Zero { runs: 0, pages: 0, table_crc32: 0 }),
        (1, Batch::Zero { runs: 513, pages: 1000, table_crc32: 0 }),
    ];
    for (round, batch) in cases {
        let header = BatchHeader { round, seq: 0, batch };
        let result = BatchHeader::decode(&header.encode());
        assert!(matches!(result, Err(DataError::OutOfBounds { .. })), "{header:?}: {result:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_header_or_table_is_noticed() {
    let (header, table) = pages(&[run(2, 3), run(300, 1)]);
    let bytes = header.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(BatchHeader::decode(&flipped).is_err(), "bit {bit}");
    }
    for bit in 0..table.len() * 8 {
        let mut flipped = table.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = decode_runs(&header, &flipped, &layout(), &mut Vec::new());
        assert_eq!(result, Err(DataError::BadTableChecksum), "bit {bit}");
    }
}

#[test]
fn runs_inside_guest_memory_are_taken() {
    for runs in [
        vec![run(0, 160)],
        vec![run(159, 1), run(256, 1)],
        vec![run(256, 100), run(356, 100)],
        vec![run(999, 1), run(1000, 100)],
        vec![run(0x10_00ff, 1)],
    ] {
        assert_eq!(check(&runs), Ok(runs));
    }
}

#[test]
fn runs_elsewhere_are_refused() {
    for bad in [
        run(160, 1),
        run(255, 1),
        run(159, 2),
        run(255, 2),
        run(999, 2),
        run(1100, 1),
        run(0x10_0100, 1),
        run(0x10_00ff, 2),
        run(u64::MAX, 1),
        run(u64::MAX - 1, 1),
        run(u64::MAX >> 12, 256),
    ] {
        let Run { first_page, pages } = bad;
        assert_eq!(check(&[bad]), Err(DataError::NotGuestMemory { first_page, pages }));
    }
}

#[test]
fn runs_out_of_order_are_refused() {
    assert_eq!(check(&[run(5, 2), run(6, 1)]), Err(DataError::NotAscending { first_page: 6 }));
    assert_eq!(check(&[run(5, 1), run(5, 1)]), Err(DataError::NotAscending { first_page: 5 }));
    assert_eq!(check(&[run(5, 1), run(1, 1)]), Err(DataError::NotAscending { first_page: 1 }));
    assert_eq!(check(&[run(5, 1), run(9, 0)]), Err(DataError::EmptyRun { first_page: 9 }));
}

#[test]
fn tables_that_do_not_add_up_are_refused() {
    let (mut header, table) = pages(&[run(2, 3), run(300, 1)]);
    let mut runs = Vec::new();
    let cut = decode_runs(&header, &table[..12], &layout(), &mut runs);
    assert_eq!(cut, Err(DataError::WrongTableLength { expected: 24, got: 12 }));
    if let Batch::Pages { pages, .. } = &mut header.batch {
        *pages = 5;
    }
    let sum = decode_runs(&header, &table, &layout(), &mut runs);
    assert_eq!(sum, Err(DataError::WrongPageCount { expected: 5, got: 4 }));
}

#[test]
fn layouts_are_sorted_and_apart() {
    let empty = std::ops::Range { start: 4, end: 4 };
    for bad in [vec![], vec![empty], vec![4..8, 0..2], vec![0..5, 4..8]] {
        assert_eq!(PageLayout::new(bad), Err(DataError::BadLayout));
    }
}

#[test]
fn both_cursors_agree_until_a_header_is_lost() {
    let batch = pages(&[run(2, 3)]).0.batch;
    let (mut sender, mut receiver) = (StreamCursor::default(), StreamCursor::default());
    let mut headers = Vec::new();
    for _ in 0..3 {
        headers.push(sender.stamp(batch).unwrap());
        headers.push(sender.stamp(batch).unwrap());
        headers.push(sender.stamp_end().unwrap());
    }
    for bytes in &headers {
        receiver.accept(&BatchHeader::decode(bytes).unwrap()).unwrap();
    }
    assert_eq!(sender, receiver);
    assert_eq!(receiver.round(), 4);
    assert_eq!(ready_checksum(b"state", &[sender.digest()]), ready_checksum(b"state", &[receiver.digest()]));
    for lost in 0..headers.len() - 1 {
        let mut receiver = StreamCursor::default();
        let result = headers
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != lost)
            .try_for_each(|(_, bytes)| receiver.accept(&BatchHeader::decode(bytes).unwrap()));
        assert!(matches!(result, Err(DataError::WrongSequence { .. })), "{lost}: {result:?}");
    }
}

#[test]
fn cursors_refuse_other_rounds_and_counts_and_do_not_move() {
    let batch = pages(&[run(2, 3)]).0.batch;
    let fresh = StreamCursor::default();
    let mut cursor = fresh.clone();
    let header = BatchHeader { round: 2, seq: 0, batch };
    assert_eq!(cursor.accept(&header), Err(DataError::WrongRound { expected: 1, got: 2 }));
    let header = BatchHeader { round: 1, seq: 0, batch: Batch::End { batches: 1 } };
    assert_eq!(cursor.accept(&header), Err(DataError::WrongBatchCount { expected: 0, got: 1 }));
    assert_eq!(cursor, fresh);
}

#[test]
fn the_checksum_covers_state_streams_and_their_order() {
    let sums = [
        ready_checksum(b"a", &[1, 2]),
        ready_checksum(b"b", &[1, 2]),
        ready_checksum(b"a", &[2, 1]),
        ready_checksum(b"a", &[1]),
    ];
    for (at, sum) in sums.iter().enumerate() {
        assert!(!sums[..at].contains(sum), "{at}");
    }
}

proptest! {
    #[test]
    fn random_headers_never_panic(bytes in any::<[u8; BATCH_HEADER_BYTES]>(), sealed: bool) {
        let mut bytes = bytes;
        if sealed {
            bytes[..4].copy_from_slice(b"GWRB");
            bytes[4] %= 5;
            bytes[5] = 0;
            let crc32 = crc32fast::hash(&bytes[..36]);
            bytes[36..].copy_from_slice(&crc32.to_le_bytes());
        }
        if let Ok(header) = BatchHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            prop_assert!(header.table_bytes() <= usize::from(RUNS_MAX) * RUN_BYTES);
            prop_assert!(header.payload_bytes() <= BATCH_PAGES_MAX * PAGE_BYTES);
        }
    }

    #[test]
    fn taken_runs_are_always_guest_memory(
        runs in proptest::collection::vec((0_u64..1200, 0_u32..40), 1..8),
    ) {
        let runs: Vec<Run> = runs.into_iter().map(|(first, pages)| run(first, pages)).collect();
        if let Ok(taken) = check(&runs) {
            let ranges = [0_u64..160, 256..1000, 1000..1100];
            for page in taken.iter().flat_map(|r| r.first_page..r.first_page + u64::from(r.pages)) {
                prop_assert!(ranges.iter().any(|range| range.contains(&page)));
            }
            prop_assert_eq!(taken, runs);
        }
    }
}
