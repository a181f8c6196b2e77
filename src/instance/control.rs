//! What the API can do to the VM of this process.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_api::{
    ApiError, ErrorCode, GuestRange, MigrateRequest, MigrationEvent, MigrationStatus, ResolveHow,
    UpgradeRequest, VmInfo, VmRegisters, VmState,
};
use godwit_migrate::engine::{SourceMigration, SourceOptions};
use godwit_migrate::ownership::Epoch;
use godwit_migrate::protocol::VmName;
use godwit_migrate::protocol::source::Resolution;
use tokio::sync::mpsc;

use super::address::engine_address;
use super::console::{self, Output, Part};
use super::http::{ConsoleAttachment, ConsoleLog, Control};
use super::source::Departing;
use super::succession::Successor;
use super::vm::{Event, Migration, Vm};

/// Events that may wait for a listener.
const EVENTS_WAITING_MAX: usize = 64;
/// How long a resolution may take: it asks the target once more.
const RESOLVE_WITHIN: Duration = Duration::from_secs(15);
/// How often a console's thread looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Control for Arc<Vm> {
    fn info(&self) -> VmInfo {
        Vm::info(self)
    }

    fn pause(&self) -> Result<VmInfo, ApiError> {
        Vm::pause(self)?;
        Ok(Vm::info(self))
    }

    fn resume(&self) -> Result<VmInfo, ApiError> {
        Vm::resume(self)?;
        Ok(Vm::info(self))
    }

    fn stop(&self, force: bool) -> Result<(), ApiError> {
        if let VmState::Unconfirmed { to, .. } = &self.status().state
            && !force
        {
            return Err(ApiError::wrong_state(
                format!(
                    "the guest was handed over to {to} and that is not confirmed; this may be the only copy"
                ),
                "decide with `godwit resolve`, or give --force to throw this copy away",
            ));
        }
        if !force && self.status().migration.as_ref().is_some_and(|m| m.remote.is_some()) {
            return Err(ApiError::wrong_state(
                "the guest is being migrated",
                "wait for the migration, end it with `godwit cancel`, or give --force to end this process at once",
            ));
        }
        self.events
            .send(Event::Stop { force })
            .map_err(|_| ApiError::internal("this VM is ending already", "wait"))
    }

    fn migrate(&self, request: MigrateRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError> {
        let target = engine_address(&request.validate()?);
        let (listener, events) = mpsc::channel(EVENTS_WAITING_MAX);
        // Held until the migration is entered below, so that nothing pauses the guest in between.
        let slot = self.slot();
        self.refuse_while_debugged("migrated")?;
        let guest =
            Departing::new(self, &slot, request.target.clone(), request.mode, listener).ok_or_else(|| {
                ApiError::wrong_state(
                    format!("only a running guest can be migrated; this one is: {}", self.status().state),
                    "resume it first with `godwit resume`",
                )
            })?;
        let migration = self.change(|status| {
            if status.migration.as_ref().is_some_and(|m| m.remote.is_some()) {
                return Err(ApiError::new(
                    ErrorCode::Busy,
                    "another migration of this VM is under way",
                    "wait for it, or end it with `godwit cancel`",
                ));
            }
            if status.state != VmState::Running {
                return Err(ApiError::wrong_state(
                    format!("only a running guest can be migrated; this one is: {}", status.state),
                    "see `godwit ps`",
                ));
            }
            // Burnt before it is used: no later attempt gets the same epoch, whatever happens to this one.
            let epoch = Epoch::new(status.epoch).and_then(Epoch::next).ok_or_else(|| {
                ApiError::internal("this guest was moved more often than can be counted", "report this")
            })?;
            status.registration.update(|file| file.epoch = epoch.get()).map_err(|e| {
                ApiError::internal(e.to_string(), "check the runtime directory, then try again")
            })?;
            status.epoch = epoch.get();
            let vm_name = VmName::new(status.registration.file().name.as_str())
                .map_err(|e| ApiError::internal(e.to_string(), "report this"))?;
            let migration = SourceMigration::new(SourceOptions {
                target,
                vm_name,
                epoch,
                max_downtime: Duration::from_micros(request.max_downtime_us),
                timeout: Duration::from_millis(request.timeout_ms),
                bytes_per_s: request.bandwidth_bits_per_s.map(|bits| bits / 8),
                streams: request
                    .streams
                    .map_or_else(default_streams, |n| u16::try_from(n).unwrap_or(u16::MAX)),
            });
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            status.migration = Some(Migration {
                status: MigrationStatus {
                    target: request.target.clone(),
                    mode: request.mode,
                    started_at_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
                    progress: None,
                    result: None,
                },
                remote: Some(migration.remote()),
            });
            Ok(migration)
        })?;
        drop(slot);
        let vm = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("migration".to_owned()).spawn(move || {
            let mut guest = guest;
            let report = migration.run(&mut guest);
            guest.finish(&report);
        });
        if let Err(error) = spawned {
            vm.change(|status| status.migration = None);
            return Err(ApiError::internal(
                format!("cannot start a thread: {error}"),
                "free some resources, then try again",
            ));
        }
        Ok(events)
    }

    fn upgrade(&self, request: UpgradeRequest) -> Result<mpsc::Receiver<MigrationEvent>, ApiError> {
        if self.launch().watched {
            return Err(ApiError::wrong_state(
                "this process watches its guest's lines (--expect or --reject) and cannot pass that on",
                "let it end, or start the VM without them",
            ));
        }
        // One at a time: they would meet at the same place.
        let Ok(_one) = self.upgrading.try_lock() else {
            return Err(ApiError::new(
                ErrorCode::Busy,
                "another upgrade of this VM is under way",
                "wait for it",
            ));
        };
        self.refuse_while_moving("upgraded")?;
        self.refuse_while_debugged("upgraded")?;
        let successor = Successor::start(self, request.binary.as_deref())?;
        let migrate =
            MigrateRequest { timeout_ms: request.timeout_ms, ..MigrateRequest::to(successor.listen()) };
        self.change(|status| status.successor = Some(successor));
        self.migrate(migrate).inspect_err(|_| {
            if let Some(successor) = self.change(|status| status.successor.take()) {
                successor.abandon();
            }
        })
    }

    fn migration(&self) -> Option<MigrationStatus> {
        self.status().migration.as_ref().map(|m| m.status.clone())
    }

    fn cancel(&self) -> Result<(), ApiError> {
        let status = self.status();
        if matches!(status.state, VmState::Unconfirmed { .. } | VmState::HandedOver { .. }) {
            return Err(ApiError::new(
                ErrorCode::TooLate,
                "the guest has been handed over already",
                "see `godwit ps`; an unconfirmed hand-over is ended by `godwit resolve`",
            ));
        }
        match status.migration.as_ref().and_then(|m| m.remote.as_ref()) {
            Some(remote) => {
                remote.cancel();
                Ok(())
            }
            None => Err(ApiError::new(ErrorCode::NotFound, "no migration is under way", "see `godwit info`")),
        }
    }

    fn resolve(&self, how: ResolveHow) -> Result<VmInfo, ApiError> {
        {
            let status = self.status();
            let remote = status.migration.as_ref().and_then(|m| m.remote.as_ref());
            let (VmState::Unconfirmed { .. }, Some(remote)) = (&status.state, remote) else {
                return Err(ApiError::wrong_state(
                    format!("there is nothing to resolve: the guest is {}", status.state),
                    "only a guest that is handed over, unconfirmed, needs it; see `godwit ps`",
                ));
            };
            remote.resolve(match how {
                ResolveHow::ResumeHere => Resolution::ResumeHere,
                ResolveHow::Discard => Resolution::Discard,
            });
        }
        let decided =
            self.wait_until(RESOLVE_WITHIN, |s| s.migration.as_ref().is_none_or(|m| m.remote.is_none()));
        let info = Vm::info(self);
        match (&info.state, how) {
            (VmState::HandedOver { to }, ResolveHow::ResumeHere) => Err(ApiError::wrong_state(
                format!("the target answered that the guest runs there ({to}), so it was not resumed here"),
                "this process ends now; the guest is found there",
            )),
            _ if decided => Ok(info),
            _ => Err(ApiError::internal("the hand-over is still not decided", "try again")),
        }
    }

    fn memory(&self, range: GuestRange) -> Result<Vec<u8>, ApiError> {
        Vm::memory(self, range)
    }

    fn registers(&self) -> Result<VmRegisters, ApiError> {
        Vm::registers(self)
    }

    fn console(&self) -> Result<ConsoleAttachment, ApiError> {
        let (replay, mut reader) = self.console.attach();
        let (sender, output) = mpsc::channel(EVENTS_WAITING_MAX);
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                loop {
                    match reader.read(LOOK_EVERY) {
                        Output::Bytes(bytes) => {
                            if sender.blocking_send(bytes).is_err() {
                                return;
                            }
                        }
                        Output::Nothing if sender.is_closed() => return,
                        Output::Nothing => {}
                        Output::End => return,
                    }
                }
            })
            .map_err(|e| ApiError::internal(format!("cannot start a thread: {e}"), "try again"))?;
        let typist = self.typist();
        Ok(ConsoleAttachment { replay, output, input: Box::new(move |bytes| _ = typist(bytes)) })
    }

    fn console_log(&self, from: u64, follow: bool) -> Result<ConsoleLog, ApiError> {
        let Part { from, bytes, last } = self.console.part(from, Duration::ZERO);
        let more = (follow && !last)
            .then(|| console::follow(&self.console, from + bytes.len() as u64))
            .transpose()
            .map_err(|e| ApiError::internal(format!("cannot start a thread: {e}"), "try again"))?;
        Ok(ConsoleLog { from, bytes, last, more })
    }
}

/// One stream for every two CPUs of the host, up to four: a stream keeps about one CPU busy on each
/// side, and the guest needs the others.
fn default_streams() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from((cpus / 2).clamp(1, 4)).unwrap_or(1)
}
