//! Why a vCPU left the guest, and what that means for the machine.

use std::fmt;

use kvm_bindings::kvm_debug_exit_arch;
use kvm_ioctls::VcpuExit;

use crate::devices::{BusOutcome, PortBus};
use crate::saved_state::{RegistersV1, SystemRegistersV1};

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
    pub registers: Option<(RegistersV1, SystemRegistersV1)>,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vCPU {}: {}", self.vcpu, self.reason)?;
        let Some((r, s)) = &self.registers else {
            return write!(f, "  registers could not be read");
        };
        if r.rip == RESET_RIP && s.cr3 == 0 {
            writeln!(f, "  (this CPU's KVM resets a vCPU upon a triple fault: these are its reset values)")?;
        }
        writeln!(f, "  rip={:016x} rflags={:08x} rsp={:016x} rbp={:016x}", r.rip, r.rflags, r.rsp, r.rbp)?;
        writeln!(f, "  rax={:016x} rbx={:016x} rcx={:016x} rdx={:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "  rsi={:016x} rdi={:016x} r8 ={:016x} r9 ={:016x}", r.rsi, r.rdi, r.r8, r.r9)?;
        writeln!(f, "  r10={:016x} r11={:016x} r12={:016x} r13={:016x}", r.r10, r.r11, r.r12, r.r13)?;
        writeln!(f, "  r14={:016x} r15={:016x}", r.r14, r.r15)?;
        writeln!(
            f,
            "  cr0={:08x} cr2={:016x} cr3={:016x} cr4={:08x} efer={:x}",
            s.cr0, s.cr2, s.cr3, s.cr4, s.efer
        )?;
        write!(
            f,
            "  cs={:04x} ss={:04x} ds={:04x} gdt={:016x}+{:x} idt={:016x}+{:x}",
            s.cs.selector, s.ss.selector, s.ds.selector, s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit
        )
    }
}

/// What the vCPU's thread does next.
#[derive(Debug)]
pub(super) enum AfterExit {
    /// Back into the guest.
    Continue,
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
            for value in data.chunks(port_access_bytes) {
                match bus.write(port, value) {
                    BusOutcome::Done => {}
                    BusOutcome::PowerOff => return AfterExit::End(End::PoweredOff),
                    BusOutcome::Reset => return AfterExit::End(End::Reset),
                    BusOutcome::DebugExit(value) => return AfterExit::End(End::DebugExit(value)),
                }
            }
            AfterExit::Continue
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
