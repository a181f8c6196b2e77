//! Looking into the guest.

use std::ops::Range;
use std::panic::Location;

use godwit_api::client::Client;
use godwit_api::types::limits::MEMORY_READ_BYTES_MAX;
use godwit_api::{GuestRange, InvalidInput, VmRegisters, VmState};

use super::Guest;
use crate::error::{Error, Failure};
use crate::snapshot::Snapshot;

impl Guest {
    /// The registers of every vCPU, at one moment. A running guest is stopped for that moment.
    ///
    /// # Errors
    /// It refuses or does not answer.
    #[track_caller]
    pub fn registers(&mut self) -> Result<VmRegisters, Error> {
        self.ask("read the registers", Location::caller(), Client::registers)
    }

    /// Guest-physical memory. While the guest runs, bytes are from different moments: see
    /// [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// It is not all RAM, or the guest does not answer.
    #[track_caller]
    pub fn memory(&mut self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        self.read_memory(&range, Location::caller())
    }

    /// Guest-physical memory of one moment: a guest that runs is paused for as long as it takes.
    ///
    /// # Errors
    /// As for [`memory`](Self::memory), [`pause`](Self::pause) and [`resume`](Self::resume).
    #[track_caller]
    pub fn snapshot(&mut self, ranges: &[Range<u64>]) -> Result<Snapshot, Error> {
        let at = Location::caller();
        let runs = self.ask("tell its state", at, Client::info)?.state == VmState::Running;
        if runs {
            self.ask("pause", at, Client::pause)?;
        }
        let pieces: Result<Vec<_>, Error> =
            ranges.iter().map(|range| Ok((range.start, self.read_memory(range, at)?))).collect();
        if runs {
            self.ask("resume", at, Client::resume)?;
        }
        pieces.map(Snapshot::new)
    }

    fn read_memory(
        &mut self,
        range: &Range<u64>,
        at: &'static std::panic::Location<'static>,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut next = range.start;
        if range.is_empty() {
            let why = format!("{:#x}..{:#x} is empty", range.start, range.end);
            let invalid = InvalidInput::new("range", why, "give the end behind the start");
            return Err(self.fail(Failure::Input(invalid), at));
        }
        while next < range.end {
            let length = (range.end - next).min(MEMORY_READ_BYTES_MAX);
            let piece = match GuestRange::new(next, length) {
                Ok(piece) => piece,
                Err(invalid) => return Err(self.fail(Failure::Input(invalid), at)),
            };
            bytes.extend(self.ask("read memory", at, |client| client.memory(piece))?);
            next += length;
        }
        Ok(bytes)
    }
}
