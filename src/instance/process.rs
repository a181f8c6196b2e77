//! What `run` and `receive` share: how a VM process begins, waits and ends.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use godwit_api::registry::{NewEntry, RegistryError, RuntimeDir};
use godwit_api::{VmName, VmState};
use godwit_vmm::kvm::DirtyLogChoice;
use godwit_vmm::machine::{MachineConfig, PausedMachine};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::console::{Opening, OutputError, Outputs};
use super::ending::Ending;
use super::exit::Exit;
use super::gdb::{DebuggerError, Server};
use super::http::{self, ApiSocket, BindError, ServeError, ServerHandle};
use super::kernel::{KernelError, KernelFiles};
use super::main_loop::{MainLoop, Watch};
use super::succession::{Predecessor, Successor, stand_by};
use super::vm::{Event, Launch, Vm};
use crate::cli::Serial;

/// How long a process that received a guest still answers a source that may not know.
const ANSWER_FOR: Duration = Duration::from_secs(10);
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
    Debugger(#[from] DebuggerError),
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
    pub(super) dirty_log: DirtyLogChoice,
    /// `--expect` or `--reject` will decide how the process ends.
    pub(super) watched: bool,
    /// The process whose guest, serial port and API path this one takes over.
    pub(super) predecessor: Option<Predecessor>,
}

/// A VM process that others can find and talk to.
pub(super) struct Process {
    pub(super) vm: Arc<Vm>,
    pub(super) watch: Watch,
    pub(super) receiver: Option<JoinHandle<()>>,
    pub(super) debugger: Option<Server>,
    events: Receiver<Event>,
    server: ServerHandle,
    outputs: SerialPlace,
}

/// Where the serial port goes.
enum SerialPlace {
    Here(Outputs),
    /// Another process still has it.
    Later(JoinHandle<Result<Outputs, OutputError>>),
}

impl SerialPlace {
    fn outputs(self) -> Option<Outputs> {
        match self {
            Self::Here(outputs) => Some(outputs),
            Self::Later(thread) => match thread.join() {
                Ok(Ok(outputs)) => Some(outputs),
                Ok(Err(error)) => {
                    say(&error.to_string());
                    None
                }
                Err(_) => None,
            },
        }
    }
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
        let api = beginning.api.map(absolute);
        let registration = directory.register(NewEntry {
            name,
            state: state.clone(),
            epoch: beginning.epoch,
            api_socket: api.clone(),
        })?;
        let socket = match ApiSocket::bind(registration.api_socket()) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                let _ = registration.remove();
                return Err(error.into());
            }
        };
        let (sender, events) = mpsc::channel();
        let launch = Launch {
            serial: beginning.serial.clone(),
            dirty_log: beginning.dirty_log,
            api: api.or_else(|| beginning.predecessor.as_ref().and_then(Predecessor::api)),
            watched: beginning.watched,
            succeeds: beginning.predecessor.is_some(),
        };
        let vm = Vm::new(registration, state, beginning.epoch, launch, sender.clone());
        let begun = (|| -> Result<_, StartError> {
            forward_signals(sender)?;
            let outputs = match beginning.predecessor {
                None => SerialPlace::Here(Outputs::start(
                    &beginning.serial,
                    Opening::Fresh,
                    &vm.console,
                    vm.typist(),
                )?),
                Some(predecessor) => {
                    let (vm, socket, serial) = (Arc::clone(&vm), Arc::clone(&socket), beginning.serial);
                    SerialPlace::Later(
                        std::thread::Builder::new()
                            .name("succession".to_owned())
                            .spawn(move || predecessor.succeed(&vm, &socket, &serial))?,
                    )
                }
            };
            let server = http::serve(socket, Arc::new(Arc::clone(&vm)))?;
            Ok((outputs, server))
        })();
        match begun {
            Ok((outputs, server)) => {
                Ok(Self { vm, watch: Watch::Off, receiver: None, debugger: None, events, server, outputs })
            }
            Err(error) => {
                leave(&vm, Record::Remove);
                Err(error)
            }
        }
    }

    /// Waits until the VM is over, and ends the process's part in it.
    pub(super) fn serve(self) -> Ending {
        let mut ending = MainLoop::new(&self.vm, &self.events, self.watch).run();
        if let Some(exit) = self.end(ending.exit) {
            ending.exit = exit;
        }
        ending
    }

    /// Ends everything in order: a debugger, the guest, what it said last, the target's word to a source that still
    /// asks, then the API, then the entry. If the guest went on in a successor, waits until it is over
    /// there, and gives back how.
    pub(super) fn end(self, exit: Exit) -> Option<Exit> {
        let Self { vm, outputs, server, receiver, events, debugger, .. } = self;
        if let Some(debugger) = debugger {
            debugger.finish(exit);
        }
        let successor = vm.change(|status| status.successor.take());
        let successor_pid = successor.as_ref().map(Successor::pid);
        if let Some(successor) = successor {
            // First of all: it waits for the serial port.
            let typed = outputs.outputs().map(Outputs::finish_here).unwrap_or_default();
            successor.let_go(&typed);
            vm.forget_machine();
        } else {
            vm.forget_machine();
            if let Some(outputs) = outputs.outputs() {
                outputs.finish();
            }
        }
        let record = if told_the_source(&vm) { Record::Remove } else { Record::Leave };
        let remote = vm.change(|status| status.receiver.take());
        if let Some(remote) = remote {
            remote.stop();
        }
        if let Some(receiver) = receiver {
            // It ends at once when it is stopped, or has ended already.
            let _ = receiver.join();
        }
        server.shutdown(API_GRACE);
        leave(&vm, record);
        let handed_over = matches!(vm.status().state, VmState::HandedOver { .. });
        match successor_pid.filter(|_| handed_over && !vm.launch().succeeds) {
            Some(pid) => {
                let name = vm.status().registration.file().name.clone();
                Some(stand_by(&name, pid, &events, vm.events.clone()))
            }
            None => None,
        }
    }
}

/// Whether nobody needs this process's word on a guest that it received. A source that lost the link at
/// the door asks for it; it gets some time to.
fn told_the_source(vm: &Vm) -> bool {
    let owes_an_answer = {
        let status = vm.status();
        status.receiver.is_some() && status.epoch > 0
    };
    !owes_an_answer || vm.wait_until(ANSWER_FOR, |status| status.receiver.is_none())
}

/// What becomes of the state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Remove,
    /// A source on this host may still need to read that the guest ran here.
    Leave,
}

/// Builds a machine, boots a kernel in it and lets it run, or a debugger have it.
pub(super) fn boot(vm: &Arc<Vm>, config: &MachineConfig, files: &KernelFiles) -> Result<(), StartError> {
    let mut machine = PausedMachine::boot(config, &files.image())?;
    vm.adopt(&mut machine);
    vm.start_machine(machine).map_err(StartError::Other)
}

/// Says something to the person who started this process; standard output is the guest's. Nobody may be
/// there to hear it, which is no reason to fail.
pub(super) fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "godwit: {message}");
}

/// Reports why nothing could be started.
pub(super) fn start_failed(error: &dyn std::error::Error) -> Exit {
    say(&error.to_string());
    Exit::StartFailed
}

/// Leaves the runtime directory.
fn leave(vm: &Vm, record: Record) {
    if record == Record::Leave {
        return;
    }
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
