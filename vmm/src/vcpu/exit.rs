//! Why a vCPU left the guest, and what that means for the machine.

use kvm_bindings::kvm_debug_exit_arch;
use kvm_ioctls::VcpuExit;

use super::code::Code;
use super::registers::VcpuRegisters;
use crate::devices::{BusOutcome, PortBus};

/// The instruction pointer of a vCPU after its reset.
const RESET_RIP: u64 = 0xfff0;

/// How a guest ended. Each is told apart, because a script reacts differently to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest turned its power off.
    PoweredOff,
    /// The guest asked to be reset.
    Reset,
    /// The guest wrote this to the debug-exit port.
    DebugExit(u32),
    /// The guest cannot go on: a triple fault, or KVM cannot run it.
    Crashed(Box<CrashReport>),
}

/// What is known of a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashReport {
    /// The vCPU that crashed.
    pub vcpu: u32,
    /// Why.
    pub reason: String,
    /// Its registers, if they could still be read.
    pub registers: Option<VcpuRegisters>,
    /// The bytes around the instruction, if it is in memory.
    pub code: Option<Code>,
}

impl VcpuRegisters {
    /// Whether these are the registers of a vCPU that KVM has reset, as some do upon a triple fault: they
    /// say nothing about what went wrong.
    #[must_use]
    pub fn were_reset(&self) -> bool {
        self.general.rip == RESET_RIP && self.system.cr3 == 0
    }
}

/// What the vCPU's thread does next.
#[derive(Debug)]
pub(super) enum AfterExit {
    /// Back into the guest.
    Continue,
    /// Back into the guest once the dirty rings are emptied.
    EmptyDirtyRing,
    /// Back into the guest, once others are told that its crash kernel takes over.
    TellCrashKernel,
    /// The guest is over.
    End(End),
    /// KVM cannot emulate an instruction.
    NotEmulated,
    /// Something that a debugger watches for, or that looks like it.
    Debug(kvm_debug_exit_arch),
}

/// Why it is over, before registers are added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    PoweredOff,
    Reset,
    DebugExit(u32),
    Crash(String),
}

/// Serves one exit. `port_access_bytes` is the width of one port access: a string instruction moves
/// several accesses at once.
pub(super) fn serve(exit: VcpuExit<'_>, port_access_bytes: usize, bus: &PortBus) -> AfterExit {
    match exit {
        VcpuExit::IoOut(port, data) => {
            let mut after = AfterExit::Continue;
            for value in data.chunks(port_access_bytes) {
                match bus.write(port, value) {
                    BusOutcome::Done => {}
                    BusOutcome::PowerOff => return AfterExit::End(End::PoweredOff),
                    BusOutcome::Reset => return AfterExit::End(End::Reset),
                    BusOutcome::DebugExit(value) => return AfterExit::End(End::DebugExit(value)),
                    BusOutcome::Panicked => {
                        return crash("the guest reported a panic (pvpanic)".to_owned());
                    }
                    BusOutcome::CrashKernel => after = AfterExit::TellCrashKernel,
                }
            }
            after
        }
        VcpuExit::IoIn(port, data) => {
            for value in data.chunks_mut(port_access_bytes) {
                bus.read(port, value);
            }
            AfterExit::Continue
        }
        // No device is mapped in memory yet: reads float high as on a real bus, writes go nowhere.
        VcpuExit::MmioRead(_, data) => {
            data.fill(0xff);
            AfterExit::Continue
        }
        VcpuExit::MmioWrite(..) | VcpuExit::Intr | VcpuExit::IoapicEoi(_) | VcpuExit::Hlt => {
            AfterExit::Continue
        }
        VcpuExit::Unsupported(kvm_bindings::KVM_EXIT_DIRTY_RING_FULL) => AfterExit::EmptyDirtyRing,
        VcpuExit::Debug(exit) => AfterExit::Debug(exit),
        // In KVM's API this is a triple fault (or SEV's counterpart), never a clean shutdown.
        VcpuExit::Shutdown => crash("triple fault: the guest could not handle an exception".to_owned()),
        VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN, _) => AfterExit::End(End::PoweredOff),
        VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_RESET, _) => AfterExit::End(End::Reset),
        VcpuExit::InternalError => AfterExit::NotEmulated,
        VcpuExit::FailEntry(reason, cpu) => {
            crash(format!("the CPU refused to enter the guest (reason {reason:#x}, host CPU {cpu})"))
        }
        VcpuExit::MemoryFault { gpa, size, .. } => {
            crash(format!("the host has no memory behind guest addresses {gpa:#x}..+{size:#x}"))
        }
        other => crash(format!("KVM left the guest in a way that this machine does not use: {other:?}")),
    }
}

/// The end of a guest whose instruction KVM cannot emulate.
pub(super) fn not_emulated() -> End {
    End::Crash("KVM internal error: it cannot emulate what the guest executes at rip".to_owned())
}

fn crash(reason: String) -> AfterExit {
    AfterExit::End(End::Crash(reason))
}
