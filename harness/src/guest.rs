//! A guest that runs, wherever it is: the handle stays the same when it moves.

mod lines;
mod looks;
mod moves;

use std::cell::Cell;
use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

use godwit_api::VmInfo;
use godwit_api::client::{Client, ClientError};

use crate::error::{Error, Evidence, Failure};
use crate::host::Host;
use crate::output::{Mark, Output};
use crate::process::VmProcess;

pub use moves::Way;

/// How long a process may take to tell its registers to a failure.
const REGISTERS_WITHIN: Duration = Duration::from_secs(3);
/// How long an ended guest's process may take until all that it said was read.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(10);
/// How often a process is looked at that is about to end.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A guest, in a runtime directory of its own. Dropped, it is killed, and nothing of it is left; dropped by a
/// panic, it shows its serial output's tail and its registers before that.
#[derive(Debug)]
pub struct Guest {
    // Dropped in this order: the process, then the directory that it uses.
    process: VmProcess,
    host: Host,
    /// Lines before this were looked at.
    read: Mark,
    rejected: Vec<String>,
    patience: Duration,
    /// Whether an error has shown all there is to see.
    shown: Cell<bool>,
}

impl Guest {
    pub(crate) fn new(process: VmProcess, host: Host, rejected: Vec<String>, patience: Duration) -> Self {
        Self { process, host, read: Mark::START, rejected, patience, shown: Cell::new(false) }
    }

    pub(crate) fn process(&mut self) -> &mut VmProcess {
        &mut self.process
    }

    /// The process that has it now.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it ever said on its serial port, in all its processes.
    #[must_use]
    pub fn serial(&self) -> &Output {
        self.process.serial()
    }

    /// What its processes said on standard error.
    #[must_use]
    pub fn messages(&self) -> &Output {
        self.process.messages()
    }

    /// Its runtime directory, for what this handle does not offer.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What its process says about it.
    ///
    /// # Errors
    /// It does not answer.
    #[track_caller]
    pub fn info(&mut self) -> Result<VmInfo, Error> {
        self.ask("tell its state", Location::caller(), Client::info)
    }

    /// Pauses it; does nothing if it is paused.
    ///
    /// # Errors
    /// It refuses or does not answer.
    #[track_caller]
    pub fn pause(&mut self) -> Result<(), Error> {
        self.ask("pause", Location::caller(), Client::pause).map(drop)
    }

    /// Lets it run on; does nothing if it runs.
    ///
    /// # Errors
    /// It refuses or does not answer.
    #[track_caller]
    pub fn resume(&mut self) -> Result<(), Error> {
        self.ask("resume", Location::caller(), Client::resume).map(drop)
    }

    /// Types a line into it.
    ///
    /// # Errors
    /// It is over, or does not read.
    #[track_caller]
    pub fn send(&mut self, line: impl Display) -> Result<(), Error> {
        self.type_in(format!("{line}\n").as_bytes(), Location::caller())
    }

    /// Types bytes into it.
    ///
    /// # Errors
    /// It is over, or does not read.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.type_in(bytes, Location::caller())
    }

    fn type_in(&mut self, bytes: &[u8], at: &'static Location<'static>) -> Result<(), Error> {
        let typed = self.process.try_type(bytes, self.patience);
        typed.map_err(|source| self.fail(Failure::System { action: "type into the guest", source }, at))
    }

    /// Waits until it has ended, and returns its exit status: those of `godwit run`.
    ///
    /// # Errors
    /// It does not end in time, it was killed, or it said what it must not.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Result<i32, Error> {
        self.exit(Location::caller())
    }

    /// Asks it to stop, and waits until it has; returns its exit status, which is 0 then.
    ///
    /// # Errors
    /// As for [`wait_exit`](Self::wait_exit), or it refuses.
    #[track_caller]
    pub fn stop(&mut self) -> Result<i32, Error> {
        let at = Location::caller();
        self.ask("stop", at, |client| client.stop(false))?;
        self.exit(at)
    }

    fn exit(&mut self, at: &'static Location<'static>) -> Result<i32, Error> {
        let until = Instant::now() + self.patience;
        loop {
            self.refuse_rejected(at)?;
            if let Some(status) = self.process.exited() {
                self.process.wait_end();
                self.refuse_rejected(at)?;
                let what = || "an exit status".to_owned();
                return status.ok_or_else(|| {
                    self.fail(Failure::Ended { what: what(), how: "a signal".to_owned() }, at)
                });
            }
            if Instant::now() >= until {
                let late = Failure::Late { what: "the guest's end".to_owned(), within: self.patience };
                return Err(self.fail(late, at));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills its process, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks its process for something.
    fn ask<T>(
        &mut self,
        action: &'static str,
        at: &'static Location<'static>,
        call: impl FnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Error> {
        if self.process.exited().is_some() {
            return Err(self.ended(action.to_owned(), at));
        }
        let Some(client) = self.process.try_client() else {
            return Err(self.ended(action.to_owned(), at));
        };
        call(&client.with_timeout(self.patience))
            .map_err(|source| self.fail(Failure::Refused { action, source }, at))
    }

    /// The failure of something that needs a guest that is over.
    fn ended(&mut self, what: String, at: &'static Location<'static>) -> Error {
        let until = Instant::now() + LAST_WORDS_WITHIN;
        let how = loop {
            match self.process.exited() {
                Some(Some(status)) => break format!("exit status {status}"),
                Some(None) => break "killed by a signal".to_owned(),
                None if Instant::now() >= until => break "its process is about to end".to_owned(),
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        self.process.wait_end();
        self.fail(Failure::Ended { what, how }, at)
    }

    /// An error with all that can be seen now.
    pub(crate) fn fail(&mut self, failure: Failure, at: &'static Location<'static>) -> Error {
        let evidence = self.evidence();
        self.shown.set(true);
        Error::new(failure, at, Some(evidence))
    }

    fn evidence(&mut self) -> Evidence {
        let registers = match (self.process.exited(), self.process.try_client()) {
            (Some(_), _) => {
                self.process.wait_end();
                "(its process has ended; after a crash they are among its messages)".to_owned()
            }
            (None, None) => "(its process does not answer)".to_owned(),
            (None, Some(client)) => match client.with_timeout(REGISTERS_WITHIN).registers() {
                Ok(registers) => registers.to_string(),
                Err(error) => format!("(not to be had: {error})"),
            },
        };
        Evidence { serial: self.process.serial().tail(), messages: self.process.messages().tail(), registers }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.shown.get() {
            eprintln!("the guest when the test failed:\n{}", self.evidence());
        }
    }
}
