//! What `run` and `receive` share: how a VM process begins, waits and ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use godwit_api::registry::{NewEntry, RegistryError, RuntimeDir};
use godwit_api::{VmName, VmState};
use godwit_vmm::machine::{MachineConfig, PausedMachine};
use godwit_vmm::saved_state::{MachineDescriptionV1, OnResetV1};
use godwit_vmm::vcpu::GuestEnd;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::console::{OutputError, Outputs};
use super::exit::Exit;
use super::http::{self, ApiSocket, BindError, ServeError, ServerHandle};
use super::kernel::{KernelError, KernelFiles};
use super::vm::{Event, Vm};
use super::watch::Verdict;
use crate::cli::Serial;

/// How long the end waits for answers of the API that are on their way.
const API_GRACE: Duration = Duration::from_secs(2);

/// Why a VM process cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Machine(#[from] godwit_vmm::machine::MachineError),
    #[error(transparent)]
    Receiver(#[from] godwit_migrate::engine::ReceiverError),
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// How a VM process enters the world.
pub(super) struct Beginning {
    pub(super) name: Option<VmName>,
    /// What it is called when nobody gave it a name.
    pub(super) fallback_name: fn(&RuntimeDir) -> Result<VmName, RegistryError>,
    pub(super) api: Option<PathBuf>,
    pub(super) state: VmState,
    pub(super) epoch: u64,
    pub(super) serial: Serial,
}

/// A VM process that others can find and talk to.
pub(super) struct Process {
    pub(super) vm: Arc<Vm>,
    events: Receiver<Event>,
    server: ServerHandle,
    outputs: Outputs,
}

impl Process {
    /// Enters the runtime directory, opens the API and the serial port. On an error nothing is left.
    pub(super) fn begin(beginning: Beginning) -> Result<Self, StartError> {
        let directory = RuntimeDir::open()?;
        let name = match beginning.name {
            Some(name) => name,
            None => (beginning.fallback_name)(&directory)?,
        };
        let state = beginning.state;
        let registration = directory.register(NewEntry {
            name,
            state: state.clone(),
            epoch: beginning.epoch,
            api_socket: beginning.api.map(absolute),
        })?;
        let socket = match ApiSocket::bind(registration.api_socket()) {
            Ok(socket) => socket,
            Err(error) => {
                let _ = registration.remove();
                return Err(error.into());
            }
        };
        let (sender, events) = mpsc::channel();
        let vm = Vm::new(registration, state, beginning.epoch, sender.clone());
        let begun = (|| -> Result<_, StartError> {
            forward_signals(sender)?;
            let outputs = Outputs::start(&beginning.serial, &vm.console, vm.typist())?;
            let server = http::serve(socket, Arc::new(Arc::clone(&vm)))?;
            Ok((outputs, server))
        })();
        match begun {
            Ok((outputs, server)) => Ok(Self { vm, events, server, outputs }),
            Err(error) => {
                leave(&vm);
                Err(error)
            }
        }
    }

    /// Waits until the VM is over, and ends the process's part in it.
    pub(super) fn serve(self) -> Exit {
        let exit = self.wait();
        self.end(exit)
    }

    /// Ends everything in order: the guest, then what it said last, then the API, then the entry.
    pub(super) fn end(self, exit: Exit) -> Exit {
        let Self { vm, outputs, server, .. } = self;
        let receiver = vm.change(|status| status.receiver.take());
        if let Some(receiver) = receiver {
            receiver.stop();
        }
        vm.forget_machine();
        outputs.finish();
        server.shutdown(API_GRACE);
        leave(&vm);
        exit
    }

    fn wait(&self) -> Exit {
        let mut signals = 0;
        for event in &self.events {
            let exit = match event {
                Event::GuestEnded { generation, end } => {
                    if generation != self.vm.status().generation {
                        continue;
                    }
                    self.tell_migration_that_guest_ended();
                    self.guest_ended(end)
                }
                Event::Stop => {
                    self.stopping();
                    Some(Exit::Done)
                }
                Event::Signal => {
                    signals += 1;
                    self.on_signal(signals)
                }
                Event::HandedOver { to } => {
                    let name = self.vm.status().registration.file().name.clone();
                    say(&format!("{name} was handed over to {to}"));
                    Some(Exit::Done)
                }
                Event::Watched(verdict) => Some(on_verdict(verdict)),
                Event::ReceiverEnded { error: Some(what) } | Event::VmmFailed { what } => {
                    say(&what);
                    Some(Exit::VmmFailed)
                }
                Event::ReceiverEnded { error: None } => None,
            };
            if let Some(exit) = exit {
                return exit;
            }
        }
        Exit::VmmFailed
    }

    fn on_signal(&self, signals: u32) -> Option<Exit> {
        let unconfirmed = matches!(self.vm.status().state, VmState::Unconfirmed { .. });
        if unconfirmed && signals < 2 {
            say("the guest is handed over, unconfirmed, and this may be the only copy: \
                 decide with `godwit resolve`, or send the signal again to throw this copy away");
            return None;
        }
        self.stopping();
        Some(Exit::Done)
    }

    fn stopping(&self) {
        self.tell_migration_that_guest_ended();
        self.vm.enter(VmState::Stopping);
    }

    fn tell_migration_that_guest_ended(&self) {
        if let Some(remote) = self.vm.status().migration.as_ref().and_then(|m| m.remote.as_ref()) {
            remote.guest_ended();
        }
    }

    fn guest_ended(&self, end: GuestEnd) -> Option<Exit> {
        match end {
            GuestEnd::PoweredOff => Some(Exit::Done),
            GuestEnd::DebugExit(value) => Some(Exit::DebugExit(value)),
            GuestEnd::Crashed(report) => {
                self.vm.enter(VmState::Crashed { reason: report.reason.clone() });
                say(&format!("the guest crashed: {report}"));
                Some(Exit::Crashed)
            }
            GuestEnd::Reset => {
                let description = self.vm.status().description.clone();
                match description {
                    Some(description) if description.on_reset == OnResetV1::Reboot => {
                        self.reboot(&description)
                    }
                    _ => Some(Exit::Reset),
                }
            }
        }
    }

    /// Boots the same kernel again in a fresh machine.
    fn reboot(&self, description: &MachineDescriptionV1) -> Option<Exit> {
        // The old machine first: there need not be memory for two.
        self.vm.forget_machine();
        let config = MachineConfig {
            vcpus: description.vcpus,
            memory_bytes: description.memory_bytes,
            kernel_name: description.kernel.clone(),
            initrd_name: description.initrd.clone(),
            cmdline: description.cmdline.clone(),
            on_reset: description.on_reset,
            console: self.vm.console.clone(),
        };
        let booted = KernelFiles::of(description)
            .map_err(StartError::from)
            .and_then(|files| boot(&self.vm, &config, &files));
        match booted {
            Ok(()) => None,
            Err(error) => {
                say(&format!("the guest reset itself and cannot be booted again here: {error}"));
                Some(Exit::Reset)
            }
        }
    }
}

/// Builds a machine, boots a kernel in it and lets it run.
pub(super) fn boot(vm: &Arc<Vm>, config: &MachineConfig, files: &KernelFiles) -> Result<(), StartError> {
    let mut machine = PausedMachine::boot(config, &files.image())?;
    vm.adopt(&mut machine);
    vm.run_machine(machine).map_err(StartError::Other)?;
    Ok(())
}

/// Says something to the person who started this process; standard output is the guest's.
pub(super) fn say(message: &str) {
    eprintln!("godwit: {message}");
}

/// Reports why nothing could be started.
pub(super) fn start_failed(error: &StartError) -> Exit {
    say(&error.to_string());
    Exit::StartFailed
}

fn on_verdict(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Met | Verdict::Quiet => Exit::Done,
        Verdict::Rejected { line } => {
            say(&format!("the guest printed what it must not (--reject {line:?})"));
            Exit::Expectation
        }
        Verdict::Missing { lines } => {
            say(&format!("the guest did not print in time (--expect): {}", lines.join(", ")));
            Exit::Expectation
        }
    }
}

/// Leaves the runtime directory.
fn leave(vm: &Vm) {
    let file = vm.change(|status| status.registration.path().to_owned());
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %file.display(), "the state file could not be removed");
    }
}

fn forward_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
