//! Lets the guest run and halts it, as gdb says.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadResume, MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};
use godwit_api::VmState;
use godwit_vmm::machine::{MachineError, PausedMachine, Rings, RunningMachine};
use godwit_vmm::vcpu::debug::{DebugControls, DebugSink, DebugStop, Watched};

use super::attach::After;
use super::guest::{Guest, vcpu_of};
use super::mailbox::Note;
use crate::instance::vm::{Event, Slot};

/// Which vCPUs run, and how.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// vCPUs that go one instruction.
    steps: BTreeSet<u32>,
    /// vCPUs that run.
    runs: BTreeSet<u32>,
    /// All others stand.
    locked: bool,
}

impl Plan {
    fn runs(&self, vcpu: u32) -> bool {
        !self.locked || self.steps.contains(&vcpu) || self.runs.contains(&vcpu)
    }
}

impl Guest {
    /// Halts the guest; what it stopped at, if it was not just told to. `first` is a stop that was heard of.
    pub(super) fn halt(&mut self, first: Option<(u32, DebugStop)>) -> Option<(u32, DebugStop)> {
        {
            let mut slot = self.vm.slot();
            match std::mem::replace(&mut *slot, Slot::Empty) {
                Slot::Running(running) => {
                    *slot = Slot::Paused(running.pause());
                    if self.vm.status().state == VmState::Running {
                        self.vm.enter(VmState::Paused);
                    }
                }
                other => *slot = other,
            }
        }
        // All vCPUs are parked: there are no more stops than these.
        let mut stops = first.into_iter().chain(self.mailbox.take_stops());
        let told = stops.next();
        // A vCPU at a breakpoint meets it again when it runs; a write that was watched is past.
        let past =
            stops.filter(|(_, stop)| matches!(stop, DebugStop::Point(index) if self.points.is_watch(*index)));
        self.pending.extend(past);
        if let Some((vcpu, _)) = told {
            self.current = vcpu;
        }
        told
    }

    /// A stop that gdb has not heard of, of a vCPU that is to run.
    fn take_pending(&mut self) -> Option<Note> {
        let points = &self.points;
        self.pending.retain(|(_, stop)| matches!(stop, DebugStop::Point(index) if points.is_watch(*index)));
        let plan = &self.plan;
        let next = self.pending.iter().position(|(vcpu, _)| plan.runs(*vcpu))?;
        let (vcpu, stop) = self.pending.remove(next)?;
        Some(Note::Stopped { vcpu, stop })
    }

    /// The first vCPU that is to be stepped and stands where this host cannot: its step would reach the guest
    /// as an exception.
    fn cannot_step(&self) -> Option<u32> {
        let Rings { kernel, user } = self.support.step;
        if kernel && user {
            return None;
        }
        self.with_machine(|machine| {
            self.plan.steps.iter().copied().find(|index| {
                let registers = machine.vcpu_debug(*index).and_then(|vcpu| vcpu.registers().ok());
                registers.is_some_and(|registers| !if registers.system.ss.dpl == 3 { user } else { kernel })
            })
        })?
    }

    fn go(&self, paused: PausedMachine) -> Result<RunningMachine, MachineError> {
        let breakpoints = self.patches.physical();
        for index in 0..paused.description().vcpus {
            let controls = DebugControls {
                step: self.plan.steps.contains(&index),
                points: self.points.set(),
                breakpoints: Arc::clone(&breakpoints),
            };
            let sink = Arc::clone(&self.mailbox) as Arc<dyn DebugSink>;
            if let Some(vcpu) = paused.vcpu_debug(index).filter(|_| self.plan.runs(index)) {
                vcpu.watch(Some(Watched { controls, sink }))?;
            }
        }
        paused.resume_some(|index| self.plan.runs(index))
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), Infallible> {
        self.after = After::Runs;
        if let Some(note) = self.take_pending() {
            self.mailbox.put(note);
            return Ok(());
        }
        if let Some(vcpu) = self.cannot_step() {
            self.mailbox.put(Note::CannotStep { vcpu });
            return Ok(());
        }
        let mut slot = self.vm.slot();
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Paused(paused) if !paused.guest_has_ended() => match self.go(paused) {
                Ok(running) => {
                    *slot = Slot::Running(running);
                    // A step is over before anybody could read of it.
                    if self.plan.steps.is_empty() {
                        self.vm.enter(VmState::Running);
                    }
                }
                Err(error) => {
                    let _ = self.vm.events.send(Event::VmmFailed { what: error.to_string() });
                }
            },
            // It is over or about to be, of which a note comes; or gdb said so twice.
            other => *slot = other,
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.plan = Plan::default();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.plan.runs.extend(vcpu_of(tid));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.plan.steps.extend(vcpu_of(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.plan.locked = true;
        Ok(())
    }
}
