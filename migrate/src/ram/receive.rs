//! The receiving end of one data stream: checks each batch before a byte of it reaches guest RAM, and
//! then reads its pages straight into place.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;

use godwit_vmm::PAGE_SIZE;
use godwit_vmm::memory::{GuestRam, RamError, ReceiveError};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::protocol::data::{
    BATCH_HEADER_BYTES, Batch, BatchHeader, DataError, PageLayout, Run, StreamCursor, decode_runs,
};

/// Bytes copied out of guest RAM at once to checksum them.
const CHECK_BYTES: usize = 64 << 10;

/// Why a data stream cannot go on.
#[derive(Debug, Error)]
pub enum ReceiveStreamError {
    /// The link.
    #[error("data stream: {0}")]
    Link(#[from] io::Error),
    /// What came is not a batch that may come here.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Guest RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Pages changed on their way.
    #[error(
        "pages were damaged on their way (batch {seq} of round {round}): check the network, then try again"
    )]
    Damaged {
        /// The batch.
        seq: u64,
        /// Its round.
        round: u32,
    },
}

impl From<ReceiveError> for ReceiveStreamError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Ram(e) => Self::Ram(e),
            ReceiveError::Io(e) => Self::Link(e),
        }
    }
}

/// A round has ended on this stream: all its pages are in guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRoundEnd {
    /// The round.
    pub round: u32,
    /// How many batches it had here.
    pub batches: u64,
    /// Bytes received for it here.
    pub bytes: u64,
    /// The checksum of all that this stream has brought so far.
    pub digest: u64,
}

/// The receiving end of one data stream.
pub struct StreamReceiver<S> {
    link: S,
    ram: Arc<GuestRam>,
    layout: PageLayout,
    cursor: StreamCursor,
    table: Vec<u8>,
    runs: Vec<Run>,
    check: Vec<u8>,
}

impl<S: Read + AsFd> StreamReceiver<S> {
    /// A stream that has brought nothing yet.
    ///
    /// # Errors
    /// The guest's RAM has no possible layout.
    pub fn new(link: S, ram: Arc<GuestRam>) -> Result<Self, DataError> {
        let ranges = ram.layout().ranges().iter();
        let layout = PageLayout::new(ranges.map(|r| r.first_page()..r.first_page() + r.pages()).collect())?;
        let cursor = StreamCursor::default();
        Ok(Self {
            link,
            ram,
            layout,
            cursor,
            table: Vec::new(),
            runs: Vec::new(),
            check: vec![0; CHECK_BYTES],
        })
    }

    /// Receives until a round ends on this stream.
    ///
    /// # Errors
    /// The link ends or breaks, or brings what it may not.
    pub fn receive_round(&mut self) -> Result<StreamRoundEnd, ReceiveStreamError> {
        let mut bytes = 0;
        loop {
            let mut header = [0; BATCH_HEADER_BYTES];
            self.link.read_exact(&mut header)?;
            let header = BatchHeader::decode(&header)?;
            let batches = u64::from(self.cursor.batches_in_round());
            self.cursor.accept(&header)?;
            bytes += BATCH_HEADER_BYTES as u64 + self.receive_batch(&header)?;
            if let Batch::End { .. } = header.batch {
                return Ok(StreamRoundEnd {
                    round: header.round,
                    batches,
                    bytes,
                    digest: self.cursor.digest(),
                });
            }
        }
    }

    fn receive_batch(&mut self, header: &BatchHeader) -> Result<u64, ReceiveStreamError> {
        // Bounded: a table has at most 512 runs.
        self.table.resize(header.table_bytes(), 0);
        self.link.read_exact(&mut self.table)?;
        decode_runs(header, &self.table, &self.layout, &mut self.runs)?;
        let table_bytes = self.table.len() as u64;
        match header.batch {
            Batch::End { .. } => Ok(0),
            Batch::Zero { .. } => {
                for run in &self.runs {
                    if header.round == 1 {
                        // Nothing has been written here yet, so it is zero already. It exists on the
                        // source, so the guest will want it: let the host provide it now.
                        self.ram.populate(run.first_page, run.pages.into())?;
                    } else {
                        self.ram.zero(run.first_page, run.pages.into())?;
                    }
                }
                Ok(table_bytes)
            }
            Batch::Pages { payload_xxh3, .. } => {
                let runs: Vec<_> = self.runs.iter().map(|run| (run.first_page, run.pages.into())).collect();
                let payload_bytes = self.ram.receive(&self.link, &runs)?;
                if self.checksum(&runs)? != payload_xxh3 {
                    return Err(ReceiveStreamError::Damaged { seq: header.seq, round: header.round });
                }
                Ok(table_bytes + payload_bytes)
            }
        }
    }

    fn checksum(&mut self, runs: &[(u64, u64)]) -> Result<u64, RamError> {
        let mut hash = Xxh3::new();
        for &(mut first_page, mut pages) in runs {
            while pages > 0 {
                let now = pages.min(CHECK_BYTES as u64 / PAGE_SIZE);
                let bytes = usize::try_from(now * PAGE_SIZE).unwrap_or(CHECK_BYTES);
                self.ram.copy_out(first_page, &mut self.check[..bytes])?;
                hash.update(&self.check[..bytes]);
                first_page += now;
                pages -= now;
            }
        }
        Ok(hash.digest())
    }
}
