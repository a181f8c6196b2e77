//! When a debugger may have the guest, and what becomes of the guest when it leaves.

use godwit_api::VmState;
use godwit_vmm::machine::PausedMachine;
use godwit_vmm::vcpu::VcpuError;

use crate::instance::vm::{Event, Slot, Vm};

/// Why a debugger cannot attach now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachRefused {
    #[error("the guest is being migrated; attach again when that is over")]
    Moving,
    #[error("there is no guest to debug: it is {0}")]
    NoGuest(String),
}

/// What the guest did when the debugger attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Ran,
    Stood,
}

/// What the guest does when the debugger has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Runs,
    Stands,
}

/// Halts the guest and makes it the debugger's.
pub(super) fn attach(vm: &Vm) -> Result<Before, AttachRefused> {
    // A migration is entered under this lock too: it is one or the other.
    let mut slot = vm.slot();
    {
        let status = vm.status();
        if status.migration.as_ref().is_some_and(|m| m.remote.is_some()) {
            return Err(AttachRefused::Moving);
        }
        if !matches!(status.state, VmState::Running | VmState::Paused) {
            return Err(AttachRefused::NoGuest(status.state.to_string()));
        }
    }
    let before = match std::mem::replace(&mut *slot, Slot::Empty) {
        Slot::Empty => return Err(AttachRefused::NoGuest("gone".to_owned())),
        Slot::Running(running) => {
            *slot = Slot::Paused(running.pause());
            vm.enter(VmState::Paused);
            Before::Ran
        }
        Slot::Paused(paused) => {
            *slot = Slot::Paused(paused);
            Before::Stood
        }
    };
    set_attached(vm, true);
    Ok(before)
}

/// Takes the guest back from the debugger: nothing of it stays behind. `clean` removes what is in memory.
pub(super) fn detach(vm: &Vm, after: After, clean: impl FnOnce(&PausedMachine)) {
    let mut slot = vm.slot();
    let paused = match std::mem::replace(&mut *slot, Slot::Empty) {
        Slot::Empty => return set_attached(vm, false),
        Slot::Running(running) => running.pause(),
        Slot::Paused(paused) => paused,
    };
    clean(&paused);
    let unwatched = unwatch_all(&paused);
    set_attached(vm, false);
    if after == After::Stands || paused.guest_has_ended() || unwatched.is_err() {
        *slot = Slot::Paused(paused);
        if let Err(error) = unwatched {
            let _ = vm.events.send(Event::VmmFailed { what: error.to_string() });
        }
        return;
    }
    match paused.resume() {
        Ok(running) => {
            *slot = Slot::Running(running);
            vm.enter(VmState::Running);
        }
        Err(error) => {
            let _ = vm.events.send(Event::VmmFailed { what: error.to_string() });
        }
    }
}

fn unwatch_all(paused: &PausedMachine) -> Result<(), VcpuError> {
    (0..paused.description().vcpus)
        .filter_map(|index| paused.vcpu_debug(index))
        .try_for_each(|vcpu| vcpu.watch(None))
}

fn set_attached(vm: &Vm, attached: bool) {
    vm.change(|status| {
        if let Some(debugger) = &mut status.debugger {
            debugger.attached = attached;
        }
    });
}
