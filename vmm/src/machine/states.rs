//! The machine's states and what is possible in each.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, kvm_clock_data, kvm_irqchip};
use kvm_ioctls::VmFd;

use super::error::MachineError;
use crate::devices::SerialPort;
use crate::kvm::{Capabilities, DirtyLog, KvmError, TscOffset};
use crate::memory::GuestRam;
use crate::saved_state::{ClockV1, IrqchipV1, MachineDescriptionV1, MachineStateV1, PitV1, StateError};
use crate::vcpu::debug::VcpuDebug;
use crate::vcpu::{RunGate, TscAt, VcpuError, VcpuEvent, VcpuHandle, VcpuRegisters};

/// PIC master, PIC slave, IOAPIC.
const IRQCHIPS: u32 = 3;

/// What is there in every state of a machine.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: threads first, then what they use.
    vcpus: Vec<VcpuHandle>,
    gate: Arc<RunGate>,
    events: Option<Receiver<VcpuEvent>>,
    serial: Arc<SerialPort>,
    dirty_log: Arc<DirtyLog>,
    ram: Arc<GuestRam>,
    vm: Arc<VmFd>,
}

impl Machine {
    pub(super) fn new(
        vm: Arc<VmFd>,
        ram: Arc<GuestRam>,
        dirty_log: Arc<DirtyLog>,
        serial: Arc<SerialPort>,
        vcpus: Vec<VcpuHandle>,
        gate: Arc<RunGate>,
        events: Receiver<VcpuEvent>,
    ) -> Self {
        Self { vcpus, gate, events: Some(events), serial, dirty_log, ram, vm }
    }

    /// Its RAM.
    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Its dirty log.
    #[must_use]
    pub fn dirty_log(&self) -> &Arc<DirtyLog> {
        &self.dirty_log
    }

    /// Its serial port.
    #[must_use]
    pub fn serial(&self) -> &Arc<SerialPort> {
        &self.serial
    }
}

/// A machine whose vCPUs are all out of the guest, with no I/O of theirs pending.
#[derive(Debug)]
pub struct PausedMachine {
    machine: Machine,
    capabilities: Capabilities,
    description: MachineDescriptionV1,
    history: History,
}

/// A machine whose vCPUs are in the guest, or were until the guest ended.
#[derive(Debug)]
pub struct RunningMachine {
    machine: Machine,
    capabilities: Capabilities,
    description: MachineDescriptionV1,
}

/// Whether the guest has run anywhere yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Fresh,
    HasRun,
}

/// How long it takes to save and to restore a machine of this shape on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsal {
    /// Time to save.
    pub save: Duration,
    /// Time to restore.
    pub restore: Duration,
}

impl PausedMachine {
    pub(super) fn new(
        machine: Machine,
        capabilities: Capabilities,
        description: MachineDescriptionV1,
    ) -> Self {
        Self { machine, capabilities, description, history: History::Fresh }
    }

    /// What is there in every state.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What this machine is.
    #[must_use]
    pub fn description(&self) -> &MachineDescriptionV1 {
        &self.description
    }

    /// Whether the guest is over: it powered off, reset or crashed before or while it was paused. Such a
    /// machine must not be resumed or moved.
    #[must_use]
    pub fn guest_has_ended(&self) -> bool {
        self.machine.gate.guest_ended()
    }

    /// The channel on which the end of the guest is told. Can be taken once.
    pub fn take_events(&mut self) -> Option<Receiver<VcpuEvent>> {
        self.machine.events.take()
    }

    /// Lets the vCPUs into the guest.
    ///
    /// # Errors
    /// A vCPU's thread is gone; the machine is of no use any more.
    pub fn resume(self) -> Result<RunningMachine, MachineError> {
        self.resume_some(|_| true)
    }

    /// Lets the vCPUs into the guest for which `runs` holds; the others stay where they are.
    ///
    /// # Errors
    /// As for [`resume`](Self::resume).
    pub fn resume_some(self, runs: impl Fn(u32) -> bool) -> Result<RunningMachine, MachineError> {
        let Self { machine, capabilities, description, history } = self;
        if history == History::HasRun && capabilities.kvmclock_ctrl {
            for vcpu in &machine.vcpus {
                vcpu.tell_guest_it_was_paused()?;
            }
        }
        machine.serial.accept_input();
        let chosen = (0_u32..).zip(&machine.vcpus).filter(|(index, _)| runs(*index));
        for (_, vcpu) in chosen {
            vcpu.run()?;
        }
        Ok(RunningMachine { machine, capabilities, description })
    }

    /// Whether this host's KVM can debug vCPUs.
    #[must_use]
    pub fn can_be_debugged(&self) -> bool {
        self.capabilities.guest_debug
    }

    /// vCPU `index`, to look into and to change; `None` if there is no such.
    #[must_use]
    pub fn vcpu_debug(&self, index: u32) -> Option<VcpuDebug<'_>> {
        let handle = self.machine.vcpus.get(usize::try_from(index).ok()?)?;
        Some(VcpuDebug::new(handle, &self.machine.ram))
    }

    /// Reads everything but RAM. The guest stays as it is, and can be resumed here afterwards.
    ///
    /// Whatever raises interrupts is read before whatever receives them (devices, timer, controllers,
    /// then the vCPUs' local APICs): one that is raised in between is then saved twice, never lost.
    /// From here on the serial port takes no input until the machine is resumed.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn save(&self) -> Result<MachineStateV1, MachineError> {
        let vm = &self.machine.vm;
        let serial = self.machine.serial.save_and_refuse_input();
        let (clock, host_tsc) = self.save_clock()?;
        let pit = vm.get_pit2().map_err(KvmError::ioctl("KVM_GET_PIT2"))?;
        let mut irqchips = Vec::new();
        for chip in 0..IRQCHIPS {
            let mut kernel = kvm_irqchip { chip_id: chip, ..Default::default() };
            vm.get_irqchip(&mut kernel).map_err(KvmError::ioctl("KVM_GET_IRQCHIP"))?;
            irqchips.push(IrqchipV1::from(&kernel));
        }
        // All vCPUs at once, each on its own thread.
        let mut answers = Vec::new();
        for vcpu in &self.machine.vcpus {
            answers.push((vcpu, vcpu.save(host_tsc)?));
        }
        let vcpus = answers
            .into_iter()
            .map(|(vcpu, answer)| answer.recv().map_err(|_| vcpu.gone())?)
            .collect::<Result<_, VcpuError>>()?;
        Ok(MachineStateV1 { vcpus, irqchips, pit: PitV1::from(&pit), clock, serial })
    }

    /// Reads the registers of every vCPU. The guest stays as it is, and can be resumed here afterwards.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn registers(&self) -> Result<Vec<VcpuRegisters>, MachineError> {
        let asked = self.machine.vcpus.iter().map(|vcpu| Ok((vcpu, vcpu.registers()?)));
        let answers: Vec<_> = asked.collect::<Result<_, VcpuError>>()?;
        let registers = answers.into_iter().map(|(vcpu, answer)| answer.recv().map_err(|_| vcpu.gone())?);
        Ok(registers.collect::<Result<_, VcpuError>>()?)
    }

    /// Writes everything but RAM, `elapsed` after the instant at which it was saved: the guest's clocks
    /// go on as if they had never stopped. Guest memory is not touched. The guest does not run yet.
    ///
    /// Receivers of interrupts come before their sources, so that what the sources raise again finds them.
    ///
    /// # Errors
    /// The state does not fit this machine or host; the machine must not be resumed then.
    pub fn restore(&mut self, state: &MachineStateV1, elapsed: Duration) -> Result<(), MachineError> {
        if state.vcpus.len() != self.machine.vcpus.len() {
            return Err(StateError::Impossible { what: "its number of vCPUs is not this machine's" }.into());
        }
        let vm = &self.machine.vm;
        let clock = TscAt {
            host_tsc: TscOffset::host_now(),
            elapsed_ticks: ticks(elapsed, self.description.tsc_khz),
        };
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let kvmclock = kvm_clock_data {
            clock: state.clock.kvmclock_ns.saturating_add(elapsed_ns),
            ..Default::default()
        };
        vm.set_clock(&kvmclock).map_err(KvmError::ioctl("KVM_SET_CLOCK"))?;
        let mut answers = Vec::new();
        for (vcpu, saved) in self.machine.vcpus.iter().zip(&state.vcpus) {
            answers.push((vcpu, vcpu.restore(saved.clone(), clock)?));
        }
        all_done(answers)?;
        for chip in &state.irqchips {
            vm.set_irqchip(&chip.into()).map_err(KvmError::ioctl("KVM_SET_IRQCHIP"))?;
        }
        vm.set_pit2(&(&state.pit).into()).map_err(KvmError::ioctl("KVM_SET_PIT2"))?;
        self.machine.serial.restore(&state.serial)?;
        self.history = History::HasRun;
        Ok(())
    }

    /// Saves and restores this machine, which has not run yet, to learn how long that takes here and
    /// that it works at all. Its vCPUs have been in KVM once afterwards, without executing anything.
    ///
    /// # Errors
    /// As for [`save`](Self::save) and [`restore`](Self::restore).
    pub fn rehearse(&mut self) -> Result<Rehearsal, MachineError> {
        let mut answers = Vec::new();
        for vcpu in &self.machine.vcpus {
            answers.push((vcpu, vcpu.warm_up()?));
        }
        all_done(answers)?;
        let begin = Instant::now();
        let state = self.save()?;
        let saved = Instant::now();
        self.restore(&state, saved - begin)?;
        let rehearsal = Rehearsal { save: saved - begin, restore: saved.elapsed() };
        self.history = History::Fresh;
        Ok(rehearsal)
    }

    /// kvmclock and the host TSC at the same instant.
    fn save_clock(&self) -> Result<(ClockV1, u64), MachineError> {
        let data = self.machine.vm.get_clock().map_err(KvmError::ioctl("KVM_GET_CLOCK"))?;
        let now = TscOffset::host_now();
        // The kernel sets the flag only when its own clock source is the TSC.
        let told = |flag, offered| offered && data.flags & flag != 0;
        let host_tsc =
            if told(KVM_CLOCK_HOST_TSC, self.capabilities.clock_host_tsc) { data.host_tsc } else { now };
        let realtime_ns = told(KVM_CLOCK_REALTIME, self.capabilities.clock_realtime).then_some(data.realtime);
        let clock = ClockV1 { kvmclock_ns: data.clock, realtime_ns, tsc_khz: self.description.tsc_khz };
        Ok((clock, host_tsc))
    }
}

impl RunningMachine {
    /// What is there in every state.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What this machine is.
    #[must_use]
    pub fn description(&self) -> &MachineDescriptionV1 {
        &self.description
    }

    /// When the first vCPU was about to execute, waiting for that up to `within`: on a busy host being let
    /// go and executing are not the same.
    #[must_use]
    pub fn wait_first_entry(&self, within: Duration) -> Option<Instant> {
        self.machine.gate.wait_first_entry(within)
    }

    /// Waits up to `within` until every vCPU has left the guest by itself.
    pub(super) fn wait_all_parked(&self, within: Duration) {
        self.machine.gate.wait_all_parked_within(within);
    }

    /// Takes every vCPU out of the guest and waits until they are, with the I/O of the instruction that
    /// each was in finished.
    #[must_use]
    pub fn pause(self) -> PausedMachine {
        let Self { machine, capabilities, description } = self;
        for vcpu in &machine.vcpus {
            vcpu.request_park();
        }
        machine.gate.wait_all_parked();
        PausedMachine { machine, capabilities, description, history: History::HasRun }
    }
}

/// Waits until every vCPU has answered.
fn all_done(answers: Vec<(&VcpuHandle, Receiver<Result<(), VcpuError>>)>) -> Result<(), MachineError> {
    for (vcpu, answer) in answers {
        answer.recv().map_err(|_| vcpu.gone())??;
    }
    Ok(())
}

fn ticks(elapsed: Duration, khz: u32) -> u64 {
    u64::try_from(elapsed.as_nanos() * u128::from(khz) / 1_000_000).unwrap_or(u64::MAX)
}
