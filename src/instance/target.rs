//! The place for a guest as the migration engine sees it at its target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_api::registry::{RuntimeDir, SessionState};
use godwit_api::{VmName, VmState};
use godwit_migrate::engine::{BuiltGuest, RecordPlace, TargetGuest};
use godwit_migrate::ownership::Epoch;
use godwit_migrate::protocol::target::DiscardReason;
use godwit_migrate::protocol::{Hello, RefusalReason, SessionId, Text};
use godwit_vmm::devices::ConsoleSink;
use godwit_vmm::machine::{IncomingMemory, PausedMachine};
use godwit_vmm::saved_state::{MachineDescriptionV1, MachineStateV1};

use super::process::say;
use super::vm::{Event, Vm};

/// The code of a refusal because the target cannot write its state file.
const CANNOT_RECORD: u16 = 1;

/// A guest that is on its way here.
pub(crate) struct Arriving {
    vm: Arc<Vm>,
    /// Kept even if the guest has another one where it comes from.
    given_name: Option<VmName>,
    machine: Option<PausedMachine>,
}

impl Arriving {
    pub(crate) fn new(vm: &Arc<Vm>, given_name: Option<VmName>) -> Self {
        Self { vm: Arc::clone(vm), given_name, machine: None }
    }

    /// Whether another VM of this host has this name, other than the guest's own source: that one has
    /// recorded the epoch of this very attempt.
    fn is_taken(name: &VmName, epoch: Epoch) -> bool {
        let Ok(listing) = RuntimeDir::open().and_then(|directory| directory.list()) else { return false };
        listing.entries.iter().any(|entry| {
            entry.file.name == *name && entry.file.state.holds_name() && entry.file.epoch != epoch.get()
        })
    }
}

impl TargetGuest for Arriving {
    fn admit(&mut self, hello: &Hello) -> Result<RecordPlace, RefusalReason> {
        let name = match &self.given_name {
            Some(name) => name.clone(),
            None => VmName::new(hello.vm_name.as_str())
                .map_err(|e| RefusalReason::Unsupported { what: Text::clip(&e.to_string()) })?,
        };
        if Self::is_taken(&name, hello.epoch) {
            return Err(RefusalReason::NameTaken { name: hello.vm_name.clone() });
        }
        self.vm.change(|status| {
            let registration = &mut status.registration;
            registration.rename(name).map_err(|e| RefusalReason::Other {
                code: CANNOT_RECORD,
                what: Text::clip(&e.to_string()),
            })?;
            Ok(RecordPlace {
                host_boot_id: Text::clip(&registration.file().boot_id),
                state_file: Text::clip(&registration.path().to_string_lossy()),
            })
        })
    }

    fn build(&mut self, description: &[u8], memory: IncomingMemory) -> Result<BuiltGuest, RefusalReason> {
        let cannot = |why: String| RefusalReason::CannotBuild { what: Text::clip(&why) };
        let description = MachineDescriptionV1::decode(description).map_err(|e| cannot(e.to_string()))?;
        let console: Arc<dyn ConsoleSink> = self.vm.console.clone();
        let mut machine = PausedMachine::empty(description, memory, self.vm.launch().dirty_log, console)
            .map_err(|e| cannot(e.to_string()))?;
        let rehearsal = machine.rehearse().map_err(|e| cannot(e.to_string()))?;
        let ram = Arc::clone(machine.machine().ram());
        self.vm.adopt(&mut machine);
        self.machine = Some(machine);
        Ok(BuiltGuest { ram, rehearsal: rehearsal.save + rehearsal.restore })
    }

    fn restore(&mut self, state: &[u8], saved_ago: Duration) -> Result<(), String> {
        let machine = self.machine.as_mut().ok_or("no machine is built")?;
        let state = MachineStateV1::decode(state, machine.description().vcpus).map_err(|e| e.to_string())?;
        machine.restore(&state, saved_ago).map_err(|e| e.to_string())
    }

    fn record_running(&mut self, session: SessionId, epoch: Epoch) -> Result<(), String> {
        self.vm.change(|status| {
            let recorded = status.registration.update(|file| {
                file.state = VmState::Running;
                file.epoch = epoch.get();
                file.sessions.insert(session.to_string(), SessionState::Running);
            });
            if recorded.is_ok() {
                status.epoch = epoch.get();
                status.state = VmState::Running;
            }
            recorded.map_err(|e| e.to_string())
        })
    }

    fn run(&mut self, _epoch: Epoch) -> Option<Instant> {
        match self.vm.run_machine(self.machine.take()?) {
            Ok(entered) => entered,
            Err(error) => {
                // This side owns the guest and cannot run it: that is a crash, and must be seen as one.
                let what = format!("the guest was taken over and cannot run: {error}");
                self.vm.enter(VmState::Crashed { reason: error });
                let _ = self.vm.events.send(Event::VmmFailed { what });
                None
            }
        }
    }

    fn discard(&mut self, reason: &DiscardReason) {
        self.machine = None;
        self.vm.forget_machine();
        say(&format!("the guest did not come: {reason}; still waiting"));
    }
}
