//! What can be measured: something that runs a guest in one process and moves it to another.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::cell::Cell;
use crate::process::Process;

/// A system under measurement, with its settings.
pub(crate) trait System: fmt::Debug {
    /// Name and version.
    fn name(&self) -> String;
    /// How it is set up in this cell, for the table.
    fn settings(&self) -> String;
    /// Starts the guest and the process that waits for it; `outputs` become their standard outputs.
    fn start(&self, cell: &Cell, outputs: [OwnedFd; 2]) -> anyhow::Result<Box<dyn Pair>>;
}

/// A guest, and where it goes.
pub(crate) trait Pair {
    /// The two processes, source first.
    fn processes(&mut self) -> [&mut Process; 2];
    /// Moves the guest; gives back the time from the request to the system's word that it is done.
    fn migrate(&mut self) -> anyhow::Result<Duration>;
}
