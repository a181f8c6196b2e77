//! Moving the guest to a fresh process, behind the same handle.

use std::panic::Location;
use std::time::{Duration, Instant};

use godwit_api::client::{EventStream, Polled};
use godwit_api::{MigrateRequest, MigrationEvent, MigrationOutcome, MigrationResult};

use super::Guest;
use crate::error::{Error, Failure};
use crate::process::VmProcess;

/// The blackout that is allowed unless the test says otherwise: a test machine may be busy.
const MAX_DOWNTIME: Duration = Duration::from_secs(1);
/// How long the outcome may take beyond the migration's own limit.
const OUTCOME_SLACK: Duration = Duration::from_secs(10);

/// How a guest's memory gets to its next process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is copied over TCP on this host, while the guest runs: as between two hosts.
    Tcp,
    /// It is handed over as it is, over a unix socket.
    HandOver,
}

impl Guest {
    /// Moves the guest live to a fresh process. Afterwards this handle is of the guest there: its serial output
    /// goes on where it was, a line that was begun there ends here.
    ///
    /// # Errors
    /// It could not be moved; it runs on where it was then, unless the error says otherwise.
    #[track_caller]
    pub fn migrate(&mut self, way: Way) -> Result<MigrationResult, Error> {
        self.go(way, Location::caller(), |_| {})
    }

    /// As [`migrate`](Self::migrate), with a request changed by the test: a blackout of up to 1 s is allowed
    /// unless it says otherwise.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    #[track_caller]
    pub fn migrate_with(
        &mut self,
        way: Way,
        change: impl FnOnce(&mut MigrateRequest),
    ) -> Result<MigrationResult, Error> {
        self.go(way, Location::caller(), change)
    }

    fn go(
        &mut self,
        way: Way,
        at: &'static Location<'static>,
        change: impl FnOnce(&mut MigrateRequest),
    ) -> Result<MigrationResult, Error> {
        self.refuse_rejected(at)?;
        let target = match self.receiver(way) {
            Ok(target) => target,
            Err(failure) => return Err(self.fail(failure, at)),
        };
        let mut request = MigrateRequest::to(target.address());
        request.max_downtime_us = u64::try_from(MAX_DOWNTIME.as_micros()).unwrap_or(u64::MAX);
        change(&mut request);
        let limit = Duration::from_millis(request.timeout_ms) + OUTCOME_SLACK;
        let events = self.ask("migrate", at, |client| client.migrate(&request))?;
        let result = match outcome(events, limit) {
            Ok(result) => result,
            Err(failure) => return Err(self.fail(failure, at)),
        };
        if result.status != MigrationOutcome::Completed {
            let how = result.status.as_str().to_owned();
            let why = result.reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
            let error = self.fail(Failure::NotMoved { how, why }, at);
            return Err(error);
        }
        self.follow(target, at)?;
        self.refuse_rejected(at)?;
        Ok(result)
    }

    /// A process that waits for the guest.
    fn receiver(&self, way: Way) -> Result<VmProcess, Failure> {
        let listen = match way {
            Way::Tcp => "tcp:127.0.0.1:0".to_owned(),
            // Named after its predecessor, whose own socket is gone by now.
            Way::HandOver => {
                format!("unix:{}", self.host.files().join(format!("to.{}", self.pid())).display())
            }
        };
        let mut process = self
            .host
            .try_vm(&["receive", "--listen", &listen])
            .map_err(|source| Failure::System { action: "start godwit", source })?;
        if process.comes_to_listen(self.patience) {
            return Ok(process);
        }
        Err(Failure::NotMoved { how: "nobody listens".to_owned(), why: process.messages().text() })
    }

    /// The guest is there now.
    fn follow(&mut self, target: VmProcess, at: &'static Location<'static>) -> Result<(), Error> {
        let mut source = std::mem::replace(&mut self.process, target);
        let until = Instant::now() + self.patience;
        while source.exited().is_none() {
            if Instant::now() >= until {
                let what = format!("the end of process {}, which handed the guest over", source.pid());
                return Err(self.fail(Failure::Late { what, within: self.patience }, at));
            }
            std::thread::sleep(super::LOOK_EVERY);
        }
        source.wait_end();
        self.process.serial().continue_from(source.serial());
        self.process.messages().continue_from(source.messages());
        Ok(())
    }
}

/// The migration's result.
fn outcome(mut events: EventStream, within: Duration) -> Result<MigrationResult, Failure> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let polled = events.poll(left);
        match polled.map_err(|source| Failure::Refused { action: "watch the migration", source })? {
            Polled::Event(MigrationEvent::Result(result)) => return Ok(result),
            Polled::Event(MigrationEvent::Progress(_)) => {}
            Polled::Waiting => {
                return Err(Failure::Late { what: "the migration's result".to_owned(), within });
            }
            Polled::Ended => {
                let why = "its process ended without a result".to_owned();
                return Err(Failure::NotMoved { how: "not known".to_owned(), why });
            }
        }
    }
}
