//! The VM of this process: its machine, what others may know of it, and what may be done in which
//! state.
//!
//! Two locks: the slot holds the machine and may be held while vCPUs stop; the status is what the API
//! reads, and is never held for long. Slot before status, where both are needed.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use godwit_api::registry::Registration;
use godwit_api::{ApiError, DebuggerInfo, MigrationStatus, VmInfo, VmState};
use godwit_migrate::engine::{ReceiverRemote, SourceRemote};
use godwit_vmm::devices::SerialPort;
use godwit_vmm::kvm::DirtyLogChoice;
use godwit_vmm::machine::{PausedMachine, RunningMachine};
use godwit_vmm::saved_state::MachineDescriptionV1;
use godwit_vmm::vcpu::{GuestEnd, VcpuEvent};

use super::console::{Console, Typist};
use super::exit::Exit;
use super::gdb::Mailbox;
use super::succession::Successor;
use super::watch::Verdict;
use crate::cli::Serial;

/// How long a vCPU's thread is waited for, to learn when it ran; it runs all the same.
const FIRST_ENTRY_WITHIN: Duration = Duration::from_secs(1);

/// What the main loop of the process hears.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest of this generation ended by itself.
    GuestEnded { generation: u64, end: GuestEnd },
    /// The guest of this generation panicked, and its crash kernel takes over.
    CrashKernel { generation: u64 },
    /// A person or program asks for the end; by force also of a guest that may be the only copy.
    Stop { force: bool },
    /// A signal asks for the end.
    Signal,
    /// The guest runs elsewhere.
    HandedOver { to: String },
    /// The migration under way has ended, and the guest is here.
    MigrationEnded,
    /// The guest is handed over, and that is not confirmed.
    Unconfirmed,
    /// `--expect` and `--reject` are decided.
    Watched(Verdict),
    /// This process owns the guest and cannot run it.
    VmmFailed { what: String },
    /// The guest is over in the process that it went on in.
    Succeeded { exit: Exit },
    /// The receiver has ended without a guest.
    ReceiverEnded { error: Option<String> },
}

/// Where the machine is.
#[derive(Debug)]
pub(crate) enum Slot {
    /// There is none: a receiver that waits, or it is gone.
    Empty,
    Running(RunningMachine),
    Paused(PausedMachine),
}

/// Where the guest of this process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was booted here.
    Booted,
    /// Another process sent it.
    Arrived,
}

/// How this process was started: its successor is started in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) serial: Serial,
    pub(crate) dirty_log: DirtyLogChoice,
    /// The path that was given for the API, if any.
    pub(crate) api: Option<PathBuf>,
    /// `--expect` or `--reject` decides how this process ends.
    pub(crate) watched: bool,
    /// It took its guest over from a process that stands by and adopts this one's successor.
    pub(crate) succeeds: bool,
}

/// What others may know.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) origin: Origin,
    pub(crate) state: VmState,
    pub(crate) epoch: u64,
    pub(crate) registration: Registration,
    /// Counts machines: the guest of an earlier one may still report its end.
    pub(crate) generation: u64,
    pub(crate) description: Option<MachineDescriptionV1>,
    pub(crate) serial: Option<Arc<SerialPort>>,
    pub(crate) migration: Option<Migration>,
    pub(crate) listen: Option<String>,
    pub(crate) receiver: Option<ReceiverRemote>,
    pub(crate) debugger: Option<DebuggerInfo>,
    pub(crate) detail: Option<String>,
    /// A new process that is to get the guest.
    pub(crate) successor: Option<Successor>,
}

/// The migration under way, or the last one.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) status: MigrationStatus,
    /// To talk to it, while it is under way.
    pub(crate) remote: Option<SourceRemote>,
}

#[derive(Debug)]
pub(crate) struct Vm {
    slot: Mutex<Slot>,
    status: Mutex<Status>,
    changed: Condvar,
    pub(crate) console: Arc<Console>,
    pub(crate) events: Sender<Event>,
    launch: Launch,
    /// Held while a successor is started.
    pub(crate) upgrading: Mutex<()>,
    /// Where the debugger hears of the guest, if there can be one.
    debugger: OnceLock<Arc<Mailbox>>,
    started: Instant,
}

impl Vm {
    pub(crate) fn new(
        registration: Registration,
        state: VmState,
        epoch: u64,
        launch: Launch,
        events: Sender<Event>,
    ) -> Arc<Self> {
        Arc::new(Self {
            slot: Mutex::new(Slot::Empty),
            launch,
            upgrading: Mutex::new(()),
            status: Mutex::new(Status {
                origin: Origin::Booted,
                state,
                epoch,
                registration,
                generation: 0,
                description: None,
                serial: None,
                migration: None,
                listen: None,
                receiver: None,
                debugger: None,
                detail: None,
                successor: None,
            }),
            changed: Condvar::new(),
            console: Console::new(),
            events,
            debugger: OnceLock::new(),
            started: Instant::now(),
        })
    }

    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    pub(crate) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the status and wakes who waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        let result = change(&mut self.status());
        self.changed.notify_all();
        result
    }

    /// Enters a state, here and in the state file. That others cannot read it is no reason to stop.
    pub(crate) fn enter(&self, state: VmState) {
        self.change(|status| {
            status.state = state;
            let (state, epoch) = (status.state.clone(), status.epoch);
            if let Err(error) = status.registration.update(|file| {
                file.state = state;
                file.epoch = epoch;
            }) {
                tracing::warn!(%error, "the state file could not be written; `godwit ps` shows an old state");
            }
        });
    }

    /// Waits until `done` holds of the status, up to `within`.
    pub(crate) fn wait_until(&self, within: Duration, done: impl Fn(&Status) -> bool) -> bool {
        let guard = self.status();
        let (_guard, timeout) = self
            .changed
            .wait_timeout_while(guard, within, |status| !done(status))
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    pub(crate) fn info(&self) -> VmInfo {
        let status = self.status();
        let description = status.description.as_ref();
        VmInfo {
            name: status.registration.file().name.to_string(),
            state: status.state.clone(),
            pid: std::process::id(),
            epoch: status.epoch,
            cpus: description.map(|d| d.vcpus),
            memory_bytes: description.map(|d| d.memory_bytes),
            kernel: description.map(|d| d.kernel.clone()),
            cmdline: description.map(|d| d.cmdline.clone()),
            started_at_unix_ms: status.registration.file().started_at_unix_ms,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            console_dropped_bytes: self.console.dropped_bytes(),
            api_socket: status.registration.api_socket().to_owned(),
            listen: status.listen.clone(),
            migration: status.migration.as_ref().map(|m| m.status.clone()),
            debugger: status.debugger.clone(),
            detail: status.detail.clone(),
        }
    }

    /// Takes note of a machine that was built: its serial port takes input from now on, and its end is
    /// told to the main loop.
    pub(crate) fn adopt(self: &Arc<Self>, machine: &mut PausedMachine) {
        let generation = self.change(|status| {
            status.generation += 1;
            status.description = Some(machine.description().clone());
            status.serial = Some(Arc::clone(machine.machine().serial()));
            status.generation
        });
        if let Some(ends) = machine.take_events() {
            self.forward_end(generation, ends);
        }
    }

    fn forward_end(&self, generation: u64, ends: Receiver<VcpuEvent>) {
        let events = self.events.clone();
        let spawned = std::thread::Builder::new().name("guest-end".to_owned()).spawn(move || {
            for event in ends {
                let ended = matches!(event, VcpuEvent::Ended(_));
                let event = match event {
                    VcpuEvent::Ended(end) => Event::GuestEnded { generation, end },
                    VcpuEvent::CrashKernel => Event::CrashKernel { generation },
                };
                if events.send(event).is_err() || ended {
                    return;
                }
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a thread; the guest's end will not be noticed");
        }
    }

    /// The machine is gone.
    pub(crate) fn forget_machine(&self) {
        *self.slot() = Slot::Empty;
        self.change(|status| {
            status.serial = None;
            status.description = None;
        });
    }

    /// From now on a debugger may come; the guest waits for it at its entry.
    pub(crate) fn offer_to_debugger(&self, mailbox: Arc<Mailbox>, info: DebuggerInfo) {
        let _once = self.debugger.set(mailbox);
        self.change(|status| status.debugger = Some(info));
    }

    /// Lets a machine run that was just booted, unless a debugger is to do that: the one that is attached,
    /// or the first one, which is waited for.
    pub(crate) fn start_machine(&self, machine: PausedMachine) -> Result<(), String> {
        let mut slot = self.slot();
        let (debugger, first) = {
            let status = self.status();
            (status.debugger.clone(), status.generation == 1)
        };
        if let Some(debugger) = debugger.filter(|debugger| debugger.attached || first) {
            *slot = Slot::Paused(machine);
            self.enter(VmState::Paused);
            if let Some(mailbox) = self.debugger.get().filter(|_| debugger.attached) {
                mailbox.rebooted();
            }
            return Ok(());
        }
        drop(slot);
        self.run_machine(machine).map(|_entered| ())
    }

    /// Lets the machine run (on), and says when its first vCPU executed.
    pub(crate) fn run_machine(&self, machine: PausedMachine) -> Result<Option<Instant>, String> {
        let mut slot = self.slot();
        let running = machine.resume().map_err(|e| e.to_string())?;
        let entered = running.wait_first_entry(FIRST_ENTRY_WITHIN);
        *slot = Slot::Running(running);
        drop(slot);
        // A target has recorded it already, before the guest's first instruction.
        if self.status().state != VmState::Running {
            self.enter(VmState::Running);
        }
        Ok(entered)
    }

    /// Types into the guest. Waits while the guest does not read or is on its way; what is left when
    /// the guest is gone or runs elsewhere is not taken.
    pub(crate) fn typist(self: &Arc<Self>) -> Typist {
        let vm = Arc::clone(self);
        Arc::new(move |bytes| {
            let mut rest = bytes;
            let mut pause = Duration::from_millis(1);
            while !rest.is_empty() {
                let serial = {
                    let status = vm.status();
                    match status.state {
                        VmState::HandedOver { .. } | VmState::Stopping | VmState::Crashed { .. } => break,
                        _ => status.serial.clone(),
                    }
                };
                let taken = serial.map_or(0, |serial| serial.input(rest));
                rest = &rest[taken..];
                if taken == 0 {
                    // Nothing tells when there is room again but the guest's own reading: look again,
                    // ever less often.
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                } else {
                    pause = Duration::from_millis(1);
                }
            }
            bytes.len() - rest.len()
        })
    }

    pub(crate) fn pause(&self) -> Result<(), ApiError> {
        let mut slot = self.slot();
        self.refuse_while_moving("paused")?;
        self.refuse_while_debugged("paused")?;
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Running(running) => {
                *slot = Slot::Paused(running.pause());
                // Before the slot is free, so that two calls cannot enter their states in the wrong order.
                self.enter(VmState::Paused);
                Ok(())
            }
            Slot::Paused(paused) => {
                *slot = Slot::Paused(paused);
                Ok(())
            }
            Slot::Empty => Err(self.no_guest()),
        }
    }

    pub(crate) fn resume(&self) -> Result<(), ApiError> {
        let mut slot = self.slot();
        self.refuse_while_moving("resumed")?;
        self.refuse_while_debugged("resumed")?;
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Paused(paused) if paused.guest_has_ended() => {
                *slot = Slot::Paused(paused);
                Err(ApiError::wrong_state("the guest has ended", "start it again with `godwit run`"))
            }
            Slot::Paused(paused) => {
                *slot = Slot::Running(self.resume_or_fail(paused)?);
                self.enter(VmState::Running);
                Ok(())
            }
            Slot::Running(running) => {
                *slot = Slot::Running(running);
                Ok(())
            }
            Slot::Empty => Err(self.no_guest()),
        }
    }

    /// Lets the machine run on. When that is not possible, the VM is over.
    pub(super) fn resume_or_fail(&self, paused: PausedMachine) -> Result<RunningMachine, ApiError> {
        paused.resume().map_err(|e| {
            let _ = self.events.send(Event::VmmFailed { what: e.to_string() });
            ApiError::internal(e.to_string(), "start the VM again")
        })
    }

    /// Refuses what must not happen while a migration is under way: it alone decides then whether the
    /// guest runs.
    pub(super) fn refuse_while_moving(&self, what: &str) -> Result<(), ApiError> {
        let status = self.status();
        if let VmState::Unconfirmed { to, .. } = &status.state {
            return Err(ApiError::wrong_state(
                format!(
                    "the guest was handed over to {to} and that is not confirmed, so it cannot be {what} here"
                ),
                "find out whether it runs there, then `godwit resolve` with --resume-here or --discard",
            ));
        }
        if status.migration.as_ref().is_some_and(|m| m.remote.is_some()) {
            return Err(ApiError::wrong_state(
                format!("the guest is being migrated and cannot be {what}"),
                "wait for the migration, or end it with `godwit cancel`",
            ));
        }
        // Above all a guest that was handed over: its memory is still here for a moment.
        if !matches!(status.state, VmState::Running | VmState::Paused | VmState::Incoming) {
            return Err(ApiError::wrong_state(
                format!("the guest cannot be {what}: it is {}", status.state),
                "see `godwit ps`",
            ));
        }
        Ok(())
    }

    /// Refuses what only a debugger decides while one is attached.
    pub(crate) fn refuse_while_debugged(&self, what: &str) -> Result<(), ApiError> {
        if self.status().debugger.as_ref().is_some_and(|debugger| debugger.attached) {
            return Err(ApiError::wrong_state(
                format!("a debugger is attached, so the guest cannot be {what}"),
                "detach it first (in gdb: detach)",
            ));
        }
        Ok(())
    }

    pub(super) fn no_guest(&self) -> ApiError {
        let state = self.status().state.to_string();
        ApiError::wrong_state(format!("there is no guest here ({state})"), "see `godwit ps`")
    }
}
