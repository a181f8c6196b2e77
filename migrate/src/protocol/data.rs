//! Batches of guest memory on a data stream: headers and run tables only. The pages themselves go
//! straight out of and into guest RAM and are never seen here.
//!
//! ```text
//! 0        4     5    6           8       12           16     24               32          36
//! ┌────────┬─────┬────┬───────────┬───────┬────────────┬──────┬────────────────┬───────────┬────────┐
//! │ "GWRB" │kind │ 0  │ run count │ round │ page count │ seq  │ payload xxh3   │ table crc │ header │
//! │        │ u8  │ u8 │ u16       │ u32   │ u32        │ u64  │ u64            │ u32       │ crc u32│
//! └────────┴─────┴────┴───────────┴───────┴────────────┴──────┴────────────────┴───────────┴────────┘
//! then run count × { first page u64, pages u32 }, then, for Pages, page count × 4096 bytes
//! ```
//! All little-endian. The run table has a checksum of its own, because it is believed before the
//! pages behind it have come: it says where in guest RAM they are written. `End` has no runs; its
//! page count holds how many batches the round had on this stream.

use super::message::STREAMS_MAX;
use std::ops::Range;
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 40;
/// Bytes of one entry of the run table.
pub const RUN_BYTES: usize = 12;
/// The most runs in a batch.
pub const RUNS_MAX: u16 = 512;
/// The most pages in a batch that carries pages (1 MiB). One of zero pages has no such limit.
pub const BATCH_PAGES_MAX: u32 = 256;
/// Bytes of a page on the wire, whatever backs it on the host.
pub const PAGE_BYTES: u32 = 4096;

const MAGIC: [u8; 4] = *b"GWRB";
const KIND_PAGES: u8 = 1;
const KIND_ZERO: u8 = 2;
const KIND_END: u8 = 3;

/// A data stream carries what it may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the texts say what the fields are")]
pub enum DataError {
    /// No batch begins here.
    #[error("data stream lost its step: {found:02x?} where a batch should begin")]
    NotABatch { found: [u8; 4] },
    /// A damaged header.
    #[error("batch header was damaged on its way: start the migration again")]
    BadHeaderChecksum,
    /// A damaged run table.
    #[error("run table was damaged on its way: start the migration again")]
    BadTableChecksum,
    /// An unknown kind.
    #[error("unknown batch kind {number}: the other end may be of another version")]
    UnknownKind { number: u8 },
    /// A field that must be 0, or a count beyond its limit.
    #[error("batch {field} is {value}, allowed is {min} to {max}")]
    OutOfBounds { field: &'static str, value: u64, min: u64, max: u64 },
    /// A batch is missing or came twice.
    #[error("batch {got} where {expected} should follow")]
    WrongSequence { expected: u64, got: u64 },
    /// A batch of another round.
    #[error("batch of round {got} in round {expected}")]
    WrongRound { expected: u32, got: u32 },
    /// `End` counts other batches than came.
    #[error("round of {got} batches, {expected} were announced")]
    WrongBatchCount { expected: u64, got: u64 },
    /// The table's length is not run count × run size.
    #[error("run table of {got} bytes where {expected} are announced")]
    WrongTableLength { expected: usize, got: usize },
    /// The table's pages do not add up.
    #[error("run table names {got} pages, {expected} are announced")]
    WrongPageCount { expected: u32, got: u64 },
    /// Runs must ascend and not overlap.
    #[error("run at page {first_page:#x} overlaps or precedes the one before it")]
    NotAscending { first_page: u64 },
    /// A run without pages.
    #[error("empty run at page {first_page:#x}")]
    EmptyRun { first_page: u64 },
    /// A run beyond guest memory.
    #[error("run of {pages} pages at page {first_page:#x} is not guest memory")]
    NotGuestMemory { first_page: u64, pages: u32 },
    /// Page ranges that are no layout.
    #[error("guest memory ranges must be sorted, not empty and apart")]
    BadLayout,
    /// Counters are used up.
    #[error("more batches or rounds than can be counted")]
    TooMany,
}

/// What a batch carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Pages, whose bytes follow the run table.
    Pages {
        /// Length of the run table, 1 to [`RUNS_MAX`].
        runs: u16,
        /// Pages in all, up to [`BATCH_PAGES_MAX`].
        pages: u32,
        /// xxh3-64 of the pages' bytes in the table's order.
        payload_xxh3: u64,
        /// From [`encode_runs`].
        table_crc32: u32,
    },
    /// Pages that are all zero; nothing follows the run table.
    Zero {
        /// Length of the run table, 1 to [`RUNS_MAX`].
        runs: u16,
        /// Pages in all.
        pages: u32,
        /// From [`encode_runs`].
        table_crc32: u32,
    },
    /// The round is over on this stream.
    End {
        /// How many batches it had, this one not counted.
        batches: u32,
    },
}

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The round that it belongs to, from 1.
    pub round: u32,
    /// Its number on this stream, from 0, `End` counted.
    pub seq: u64,
    /// What it carries.
    pub batch: Batch,
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), DataError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(DataError::OutOfBounds { field, value, min, max }) }
}

/// The `N` bytes at `at`. Only called with constants inside the header.
fn field<const N: usize>(bytes: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl BatchHeader {
    /// The header as it travels.
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let (kind, runs, pages, payload_xxh3, table_crc32) = match self.batch {
            Batch::Pages { runs, pages, payload_xxh3, table_crc32 } => {
                (KIND_PAGES, runs, pages, payload_xxh3, table_crc32)
            }
            Batch::Zero { runs, pages, table_crc32 } => (KIND_ZERO, runs, pages, 0, table_crc32),
            Batch::End { batches } => (KIND_END, 0, batches, 0, 0),
        };
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = kind;
        bytes[6..8].copy_from_slice(&runs.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.round.to_le_bytes());
        bytes[12..16].copy_from_slice(&pages.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&payload_xxh3.to_le_bytes());
        bytes[32..36].copy_from_slice(&table_crc32.to_le_bytes());
        let crc32 = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc32.to_le_bytes());
        bytes
    }

    /// Reads a header and checks its bounds; its place in the stream is
    /// [`StreamCursor::accept`]'s to check.
    pub fn decode(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<BatchHeader, DataError> {
        let found = field::<4>(bytes, 0);
        if found != MAGIC {
            return Err(DataError::NotABatch { found });
        }
        if crc32fast::hash(&bytes[..36]) != u32::from_le_bytes(field(bytes, 36)) {
            return Err(DataError::BadHeaderChecksum);
        }
        let kind = bytes[4];
        within("reserved byte", bytes[5].into(), 0, 0)?;
        let runs = u16::from_le_bytes(field(bytes, 6));
        let round = u32::from_le_bytes(field(bytes, 8));
        let pages = u32::from_le_bytes(field(bytes, 12));
        let seq = u64::from_le_bytes(field(bytes, 16));
        let payload_xxh3 = u64::from_le_bytes(field(bytes, 24));
        let table_crc32 = u32::from_le_bytes(field(bytes, 32));
        within("round", round.into(), 1, u32::MAX.into())?;
        let (runs_min, runs_max, pages_max, checksum_max, crc_max) = match kind {
            KIND_PAGES => (1, RUNS_MAX, BATCH_PAGES_MAX, u64::MAX, u32::MAX),
            KIND_ZERO => (1, RUNS_MAX, u32::MAX, 0, u32::MAX),
            KIND_END => (0, 0, u32::MAX, 0, 0),
            number => return Err(DataError::UnknownKind { number }),
        };
        within("run count", runs.into(), runs_min, runs_max.into())?;
        // Every run has at least one page; for End the count is of batches, and may be 0.
        within("page count", pages.into(), runs.into(), pages_max.into())?;
        within("payload checksum", payload_xxh3, 0, checksum_max)?;
        within("table checksum", table_crc32.into(), 0, crc_max.into())?;
        let batch = match kind {
            KIND_PAGES => Batch::Pages { runs, pages, payload_xxh3, table_crc32 },
            KIND_ZERO => Batch::Zero { runs, pages, table_crc32 },
            _ => Batch::End { batches: pages },
        };
        Ok(BatchHeader { round, seq, batch })
    }

    /// How many bytes of run table follow.
    pub fn table_bytes(&self) -> usize {
        match self.batch {
            Batch::Pages { runs, .. } | Batch::Zero { runs, .. } => usize::from(runs) * RUN_BYTES,
            Batch::End { .. } => 0,
        }
    }

    /// How many bytes of pages follow the run table: at most 1 MiB.
    pub fn payload_bytes(&self) -> u32 {
        match self.batch {
            Batch::Pages { pages, .. } => pages.saturating_mul(PAGE_BYTES),
            Batch::Zero { .. } | Batch::End { .. } => 0,
        }
    }
}

/// Consecutive pages of guest memory, numbered by guest-physical address ÷ 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first_page: u64,
    /// How many.
    pub pages: u32,
}

/// Writes the run table into `table` (cleared first) and returns its checksum.
pub fn encode_runs(runs: &[Run], table: &mut Vec<u8>) -> u32 {
    table.clear();
    for run in runs {
        table.extend_from_slice(&run.first_page.to_le_bytes());
        table.extend_from_slice(&run.pages.to_le_bytes());
    }
    crc32fast::hash(table)
}

/// Reads the run table behind `header` into `runs` (cleared first) and checks every run: inside
/// guest memory, ascending, none empty, and as many pages as the header says.
pub fn decode_runs(
    header: &BatchHeader,
    table: &[u8],
    layout: &PageLayout,
    runs: &mut Vec<Run>,
) -> Result<(), DataError> {
    runs.clear();
    let (pages_announced, table_crc32) = match header.batch {
        Batch::Pages { pages, table_crc32, .. } | Batch::Zero { pages, table_crc32, .. } => {
            (pages, table_crc32)
        }
        Batch::End { .. } => (0, 0),
    };
    let expected = header.table_bytes();
    if table.len() != expected {
        let got = table.len();
        return Err(DataError::WrongTableLength { expected, got });
    }
    if crc32fast::hash(table) != table_crc32 {
        return Err(DataError::BadTableChecksum);
    }
    let mut pages_in_runs = 0_u64;
    let mut free_from = 0_u64;
    let (entries, _) = table.as_chunks::<RUN_BYTES>();
    for entry in entries {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
        let first_page = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let pages = u32::from_le_bytes([i, j, k, l]);
        if pages == 0 {
            return Err(DataError::EmptyRun { first_page });
        }
        if first_page < free_from {
            return Err(DataError::NotAscending { first_page });
        }
        let end =
            layout.end_of_run(first_page, pages).ok_or(DataError::NotGuestMemory { first_page, pages })?;
        free_from = end;
        pages_in_runs += u64::from(pages);
        runs.push(Run { first_page, pages });
    }
    if pages_in_runs != u64::from(pages_announced) {
        return Err(DataError::WrongPageCount { expected: pages_announced, got: pages_in_runs });
    }
    Ok(())
}

/// Which page numbers are guest RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageLayout {
    ranges: Vec<Range<u64>>,
}

impl PageLayout {
    /// From ranges of page numbers: sorted, not empty, not overlapping.
    pub fn new(ranges: Vec<Range<u64>>) -> Result<PageLayout, DataError> {
        let each = ranges.iter().all(|range| range.start < range.end);
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if each && apart && !ranges.is_empty() {
            Ok(PageLayout { ranges })
        } else {
            Err(DataError::BadLayout)
        }
    }

    /// The page behind the run, if the whole of it is in one range.
    fn end_of_run(&self, first_page: u64, pages: u32) -> Option<u64> {
        let end = first_page.checked_add(pages.into())?;
        let at = self.ranges.partition_point(|range| range.end <= first_page);
        let range = self.ranges.get(at)?;
        (range.start <= first_page && end <= range.end).then_some(end)
    }
}

/// Where a data stream is: which batch comes next, and a running checksum of all that passed.
/// Both sides keep one for each stream, so both arrive at the same checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCursor {
    round: u32,
    next_seq: u64,
    batches_in_round: u32,
    digest: u64,
}

impl Default for StreamCursor {
    fn default() -> StreamCursor {
        StreamCursor { round: 1, next_seq: 0, batches_in_round: 0, digest: 0 }
    }
}

impl StreamCursor {
    /// The round under way on this stream.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// How many batches it had so far.
    pub fn batches_in_round(&self) -> u32 {
        self.batches_in_round
    }

    /// The checksum of all headers so far, and so of their tables and pages.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The header of the next batch to send.
    pub fn stamp(&mut self, batch: Batch) -> Result<[u8; BATCH_HEADER_BYTES], DataError> {
        let header = BatchHeader { round: self.round, seq: self.next_seq, batch };
        self.accept(&header)?;
        Ok(header.encode())
    }

    /// The header that ends the present round on this stream.
    pub fn stamp_end(&mut self) -> Result<[u8; BATCH_HEADER_BYTES], DataError> {
        let batches = self.batches_in_round;
        self.stamp(Batch::End { batches })
    }

    /// Takes a received header, if it is the next one. On an error nothing has changed.
    pub fn accept(&mut self, header: &BatchHeader) -> Result<(), DataError> {
        if header.seq != self.next_seq {
            return Err(DataError::WrongSequence { expected: self.next_seq, got: header.seq });
        }
        if header.round != self.round {
            return Err(DataError::WrongRound { expected: self.round, got: header.round });
        }
        let next_seq = self.next_seq.checked_add(1).ok_or(DataError::TooMany)?;
        let (round, batches_in_round) = match header.batch {
            Batch::End { batches } if batches != self.batches_in_round => {
                return Err(DataError::WrongBatchCount {
                    expected: self.batches_in_round.into(),
                    got: batches.into(),
                });
            }
            Batch::End { .. } => (self.round.checked_add(1), Some(0)),
            Batch::Pages { .. } | Batch::Zero { .. } => {
                (Some(self.round), self.batches_in_round.checked_add(1))
            }
        };
        self.round = round.ok_or(DataError::TooMany)?;
        self.batches_in_round = batches_in_round.ok_or(DataError::TooMany)?;
        self.next_seq = next_seq;
        self.digest = xxh3_64_with_seed(&header.encode(), self.digest);
        Ok(())
    }
}

/// The checksum in `Ready`: of the state's bytes and of every stream's digest, in order.
pub fn ready_checksum(state: &[u8], stream_digests: &[u64]) -> u64 {
    debug_assert!(stream_digests.len() <= usize::from(STREAMS_MAX));
    stream_digests.iter().fold(xxh3_64(state), |sum, digest| xxh3_64_with_seed(&digest.to_le_bytes(), sum))
}
