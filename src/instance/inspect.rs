//! A look into the guest: its memory and its registers.
//!
//! Refused while a migration is under way, which alone decides then whether the guest runs; and as both
//! hold the slot, none begins meanwhile.

use godwit_api::{
    ApiError, ControlRegisters, DescriptorTable, ErrorCode, GeneralRegisters, GuestRange, Segment,
    SegmentRegisters, VcpuActivity, VcpuRegisters, VmRegisters,
};
use godwit_vmm::memory::RamError;
use godwit_vmm::saved_state::{SegmentV1, TableV1};
use kvm_states::{HALTED, INIT_RECEIVED, RUNNABLE, UNINITIALIZED};

use super::vm::{Slot, Vm};

/// `KVM_MP_STATE_*`, as the kernel's interface numbers them.
mod kvm_states {
    pub(super) const RUNNABLE: u32 = 0;
    pub(super) const UNINITIALIZED: u32 = 1;
    pub(super) const INIT_RECEIVED: u32 = 2;
    pub(super) const HALTED: u32 = 3;
}

impl Vm {
    /// Guest memory. The guest runs on, if it runs.
    pub(crate) fn memory(&self, range: GuestRange) -> Result<Vec<u8>, ApiError> {
        let slot = self.slot();
        self.refuse_while_moving("looked at")?;
        let ram = match &*slot {
            Slot::Running(running) => running.machine().ram(),
            Slot::Paused(paused) => paused.machine().ram(),
            Slot::Empty => return Err(self.no_guest()),
        };
        let bytes = usize::try_from(range.length()).unwrap_or(usize::MAX);
        ram.peek(range.address(), bytes).map_err(|error| match error {
            RamError::NotRam { .. } => ApiError::new(
                ErrorCode::BadRequest,
                error.to_string(),
                "see `godwit info` for how much it has: RAM is from 0 up to 3 GiB, the rest from 4 GiB on",
            ),
            error => ApiError::internal(error.to_string(), "try again"),
        })
    }

    /// The registers of every vCPU. A guest that runs is stopped for a moment; all are of one moment.
    pub(crate) fn registers(&self) -> Result<VmRegisters, ApiError> {
        let mut slot = self.slot();
        self.refuse_while_moving("looked at")?;
        let (paused, ran) = match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Running(running) => (running.pause(), true),
            Slot::Paused(paused) => (paused, false),
            Slot::Empty => return Err(self.no_guest()),
        };
        let registers = paused.registers();
        *slot = if ran && !paused.guest_has_ended() {
            Slot::Running(self.resume_or_fail(paused)?)
        } else {
            Slot::Paused(paused)
        };
        let registers = registers.map_err(|error| ApiError::internal(error.to_string(), "try again"))?;
        Ok(VmRegisters { vcpus: registers.iter().map(shown).collect() })
    }
}

/// As the API shows them.
pub(super) fn shown(vcpu: &godwit_vmm::vcpu::VcpuRegisters) -> VcpuRegisters {
    let (r, s) = (&vcpu.general, &vcpu.system);
    VcpuRegisters {
        vcpu: vcpu.index,
        activity: match vcpu.mp_state {
            RUNNABLE => VcpuActivity::Runs,
            UNINITIALIZED => VcpuActivity::WaitsForInit,
            INIT_RECEIVED => VcpuActivity::WaitsForSipi,
            HALTED => VcpuActivity::Halted,
            _ => VcpuActivity::Other,
        },
        general: GeneralRegisters {
            rip: r.rip,
            rflags: r.rflags,
            rax: r.rax,
            rbx: r.rbx,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            rsp: r.rsp,
            rbp: r.rbp,
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
        },
        control: ControlRegisters {
            cr0: s.cr0,
            cr2: s.cr2,
            cr3: s.cr3,
            cr4: s.cr4,
            cr8: s.cr8,
            efer: s.efer,
            apic_base: s.apic_base,
        },
        segments: SegmentRegisters {
            cs: segment(&s.cs),
            ds: segment(&s.ds),
            es: segment(&s.es),
            fs: segment(&s.fs),
            gs: segment(&s.gs),
            ss: segment(&s.ss),
            tr: segment(&s.tr),
            ldt: segment(&s.ldt),
            gdt: table(&s.gdt),
            idt: table(&s.idt),
        },
    }
}

fn segment(saved: &SegmentV1) -> Segment {
    Segment {
        selector: saved.selector,
        base: saved.base,
        limit: saved.limit,
        dpl: saved.dpl,
        long: saved.l != 0,
    }
}

fn table(saved: &TableV1) -> DescriptorTable {
    DescriptorTable { base: saved.base, limit: saved.limit }
}
