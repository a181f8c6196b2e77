//! The sending end of one data stream.
//!
//! For each chunk: clear its pages in the dirty log, *then* read them, so that a write in between is
//! logged again and comes with the next round. Pages are copied once, into a buffer that stays in the
//! CPU's cache: the guest writes while we read, so what is checksummed, tested for zero and sent has to
//! be the same bytes.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_vmm::PAGE_SIZE;
use godwit_vmm::kvm::{DirtyLog, KvmError};
use godwit_vmm::memory::{GuestRam, RamError};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::round::{Pass, RoundWork};
use super::shard::{Chunk, Shard};
use super::zero::is_zero;
use crate::protocol::data::{BATCH_PAGES_MAX, Batch, DataError, RUNS_MAX, Run, StreamCursor, encode_runs};
use crate::transport::Shaper;

const PAGE: usize = 4096;
/// Pages copied at once.
const BUFFER_PAGES: usize = BATCH_PAGES_MAX as usize;

/// Why a round could not be sent on a stream.
#[derive(Debug, Error)]
pub enum SendError {
    /// The link.
    #[error("data stream: {0}")]
    Link(#[from] io::Error),
    /// Guest RAM could not be read.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The dirty log could not be cleared.
    #[error(transparent)]
    DirtyLog(#[from] KvmError),
    /// Counters ran over.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The migration was given up meanwhile.
    #[error("the migration was given up")]
    Stopped,
}

/// What has been sent so far, over all streams; read by whoever shows progress.
#[derive(Debug, Default)]
pub struct TransferCounters {
    /// Bytes written to data streams.
    pub bytes: AtomicU64,
    /// Pages sent with their content.
    pub pages: AtomicU64,
    /// Pages sent as zero.
    pub zero_pages: AtomicU64,
    /// Pages of the present round that were looked at.
    pub round_pages_done: AtomicU64,
}

/// The sending end of one data stream.
pub struct StreamSender<W: Write> {
    link: W,
    shard: Shard,
    ram: Arc<GuestRam>,
    dirty_log: Arc<DirtyLog>,
    shaper: Arc<Shaper>,
    counters: Arc<TransferCounters>,
    cursor: StreamCursor,
    batch: PendingBatch,
    extents: Vec<(u64, u64)>,
}

/// Pages collected for the next batches.
struct PendingBatch {
    bytes: Vec<u8>,
    data_pages: usize,
    data: Vec<Run>,
    zero: Vec<Run>,
    table: Vec<u8>,
}

impl<W: Write> StreamSender<W> {
    /// A stream that has sent nothing yet.
    pub fn new(
        link: W,
        shard: Shard,
        ram: Arc<GuestRam>,
        dirty_log: Arc<DirtyLog>,
        shaper: Arc<Shaper>,
        counters: Arc<TransferCounters>,
    ) -> Self {
        let batch = PendingBatch {
            bytes: vec![0; BUFFER_PAGES * PAGE],
            data_pages: 0,
            data: Vec::new(),
            zero: Vec::new(),
            table: Vec::new(),
        };
        let cursor = StreamCursor::default();
        Self { link, shard, ram, dirty_log, shaper, counters, cursor, batch, extents: Vec::new() }
    }

    /// Sends this stream's share of a round and its `End`; returns how many batches it had.
    ///
    /// # Errors
    /// The link breaks, or the migration is given up.
    pub fn send_round(&mut self, work: &RoundWork) -> Result<u64, SendError> {
        let ram = Arc::clone(&self.ram);
        for chunk in self.shard.chunks(ram.layout()) {
            let dirty = &work.pages[chunk.range];
            if dirty.any_in(chunk.first, chunk.pages) {
                self.send_chunk(work, chunk)?;
            }
        }
        self.flush(work.pass)?;
        let batches = u64::from(self.cursor.batches_in_round());
        let end = self.cursor.stamp_end()?;
        self.write(work.pass, &end, 0, false)?;
        self.link.flush()?;
        Ok(batches)
    }

    /// The checksum of all that this stream has sent.
    pub fn digest(&self) -> u64 {
        self.cursor.digest()
    }

    fn send_chunk(&mut self, work: &RoundWork, chunk: Chunk) -> Result<(), SendError> {
        let dirty = &work.pages[chunk.range];
        if work.pass != Pass::Last {
            self.dirty_log.clear(chunk.range, dirty, chunk.first, chunk.pages)?;
        }
        let range_first = self.ram.layout().ranges()[chunk.range].first_page();
        for (first, pages) in dirty.runs_in(chunk.first, chunk.pages) {
            let first_page = range_first + first;
            if work.pass == Pass::First {
                // Reading a page that nobody touched would make the host allocate it.
                let mut extents = std::mem::take(&mut self.extents);
                self.ram.extents(first_page, pages, &mut extents)?;
                for &(extent_first, extent_pages) in &extents {
                    self.collect(work.pass, extent_first, extent_pages)?;
                }
                self.extents = extents;
            } else {
                self.collect(work.pass, first_page, pages)?;
            }
            self.counters.round_pages_done.fetch_add(pages, Ordering::Relaxed);
        }
        Ok(())
    }

    fn collect(&mut self, pass: Pass, mut first_page: u64, mut pages: u64) -> Result<(), SendError> {
        while pages > 0 {
            if self.batch.is_full() {
                self.flush(pass)?;
            }
            let room = (BUFFER_PAGES - self.batch.data_pages) as u64;
            let now = room.min(pages);
            self.batch.take(&self.ram, first_page, now)?;
            first_page += now;
            pages -= now;
        }
        Ok(())
    }

    /// Sends what has been collected.
    fn flush(&mut self, pass: Pass) -> Result<(), SendError> {
        if !self.batch.zero.is_empty() {
            let pages: u64 = self.batch.zero.iter().map(|run| u64::from(run.pages)).sum();
            let runs = self.batch.zero.len();
            let table_crc32 = encode_runs(&self.batch.zero, &mut self.batch.table);
            let batch = Batch::Zero { runs: to_u16(runs), pages: to_u32(pages), table_crc32 };
            let header = self.cursor.stamp(batch)?;
            self.write(pass, &header, 0, true)?;
            self.counters.zero_pages.fetch_add(pages, Ordering::Relaxed);
            self.batch.zero.clear();
        }
        if self.batch.data_pages > 0 {
            let pages = self.batch.data_pages;
            let table_crc32 = encode_runs(&self.batch.data, &mut self.batch.table);
            let payload_xxh3 = xxh3_64(&self.batch.bytes[..pages * PAGE]);
            let runs = to_u16(self.batch.data.len());
            let batch = Batch::Pages { runs, pages: to_u32(pages as u64), payload_xxh3, table_crc32 };
            let header = self.cursor.stamp(batch)?;
            self.write(pass, &header, pages * PAGE, true)?;
            self.counters.pages.fetch_add(pages as u64, Ordering::Relaxed);
            self.batch.data.clear();
            self.batch.data_pages = 0;
        }
        Ok(())
    }

    /// Writes a header, the run table if there is one, and `payload_bytes` of the buffer.
    fn write(
        &mut self,
        pass: Pass,
        header: &[u8],
        payload_bytes: usize,
        table: bool,
    ) -> Result<(), SendError> {
        let table = if table { &self.batch.table[..] } else { &[] };
        let payload = &self.batch.bytes[..payload_bytes];
        let bytes = (header.len() + table.len() + payload.len()) as u64;
        if pass == Pass::Last {
            self.shaper.check_stopped()?;
        } else {
            self.shaper.wait_for(bytes)?;
        }
        let mut slices = [IoSlice::new(header), IoSlice::new(table), IoSlice::new(payload)];
        write_all_vectored(&mut self.link, &mut slices)?;
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl PendingBatch {
    fn is_full(&self) -> bool {
        // One copy adds a run for each of its pages at most. Runs of data are bounded by data pages.
        self.data_pages == BUFFER_PAGES || self.zero.len() > usize::from(RUNS_MAX) - BUFFER_PAGES
    }

    /// Copies pages behind those that are there, and keeps the ones that are not zero. There must be
    /// room for all of them: at most `BUFFER_PAGES - data_pages`, and not [`is_full`](Self::is_full).
    fn take(&mut self, ram: &GuestRam, first_page: u64, pages: u64) -> Result<(), RamError> {
        let from = self.data_pages * PAGE;
        let count = usize::try_from(pages).unwrap_or(usize::MAX);
        ram.copy_out(first_page, &mut self.bytes[from..from + count * PAGE])?;
        for index in 0..count {
            let at = from + index * PAGE;
            let page = first_page + index as u64;
            if is_zero(&self.bytes[at..at + PAGE]) {
                extend(&mut self.zero, page);
            } else {
                let to = self.data_pages * PAGE;
                if to != at {
                    self.bytes.copy_within(at..at + PAGE, to);
                }
                extend(&mut self.data, page);
                self.data_pages += 1;
            }
        }
        Ok(())
    }
}

/// Adds a page to the last run if it follows it, else as a run of its own.
fn extend(runs: &mut Vec<Run>, page: u64) {
    match runs.last_mut() {
        Some(last) if last.first_page + u64::from(last.pages) == page && last.pages < u32::MAX => {
            last.pages += 1
        }
        _ => runs.push(Run { first_page: page, pages: 1 }),
    }
}

fn write_all_vectored(link: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match link.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn to_u16(value: usize) -> u16 {
    u16::try_from(value).expect("a batch has at most 512 runs")
}

fn to_u32(value: u64) -> u32 {
    u32::try_from(value).expect("a stream's chunk has fewer than 2^32 pages")
}

const _: () = assert!(PAGE as u64 == PAGE_SIZE);
const _: () = assert!(BUFFER_PAGES <= RUNS_MAX as usize);
