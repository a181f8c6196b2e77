//! Saved state of one vCPU.

use kvm_bindings::{kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events};
use serde::{Deserialize, Serialize};

use super::mirror::{IntoKernel, IntoSaved, mirror};

mirror! {
    /// General registers (`KVM_GET_REGS`).
    #[allow(missing_docs, reason = "the registers' own names say it")]
    RegistersV1 = kvm_regs {
        rax: u64 = rax, rbx: u64 = rbx, rcx: u64 = rcx, rdx: u64 = rdx,
        rsi: u64 = rsi, rdi: u64 = rdi, rsp: u64 = rsp, rbp: u64 = rbp,
        r8: u64 = r8, r9: u64 = r9, r10: u64 = r10, r11: u64 = r11,
        r12: u64 = r12, r13: u64 = r13, r14: u64 = r14, r15: u64 = r15,
        rip: u64 = rip, rflags: u64 = rflags,
    }
}

mirror! {
    /// A segment register with its hidden part, fields as in the CPU's descriptor.
    #[allow(missing_docs, reason = "the architecture's own names")]
    SegmentV1 = kvm_segment {
        base: u64 = base, limit: u32 = limit, selector: u16 = selector, kind: u8 = type_,
        present: u8 = present, dpl: u8 = dpl, db: u8 = db, s: u8 = s, l: u8 = l, g: u8 = g,
        avl: u8 = avl, unusable: u8 = unusable,
    }
}

mirror! {
    /// GDTR or IDTR.
    #[allow(missing_docs, reason = "the architecture's own names")]
    TableV1 = kvm_dtable { base: u64 = base, limit: u16 = limit }
}

impl IntoSaved<SegmentV1> for &kvm_segment {
    fn into_saved(self) -> SegmentV1 {
        self.into()
    }
}

impl IntoKernel<kvm_segment> for &SegmentV1 {
    fn into_kernel(self) -> kvm_segment {
        self.into()
    }
}

impl IntoSaved<TableV1> for &kvm_dtable {
    fn into_saved(self) -> TableV1 {
        self.into()
    }
}

impl IntoKernel<kvm_dtable> for &TableV1 {
    fn into_kernel(self) -> kvm_dtable {
        self.into()
    }
}

mirror! {
    /// Segment, table and control registers (`KVM_GET_SREGS`).
    #[allow(missing_docs, reason = "the registers' own names say it")]
    SystemRegistersV1 = kvm_sregs {
        cs: SegmentV1 = cs, ds: SegmentV1 = ds, es: SegmentV1 = es, fs: SegmentV1 = fs,
        gs: SegmentV1 = gs, ss: SegmentV1 = ss, tr: SegmentV1 = tr, ldt: SegmentV1 = ldt,
        gdt: TableV1 = gdt, idt: TableV1 = idt,
        cr0: u64 = cr0, cr2: u64 = cr2, cr3: u64 = cr3, cr4: u64 = cr4, cr8: u64 = cr8,
        efer: u64 = efer, apic_base: u64 = apic_base,
        /// A pending external interrupt, one bit a vector.
        interrupt_bitmap: [u64; 4] = interrupt_bitmap,
    }
}

mirror! {
    /// Debug registers (`KVM_GET_DEBUGREGS`).
    #[allow(missing_docs, reason = "the registers' own names say it")]
    DebugRegistersV1 = kvm_debugregs {
        db: [u64; 4] = db, dr6: u64 = dr6, dr7: u64 = dr7, flags: u64 = flags,
    }
}

mirror! {
    /// Exceptions, interrupts and NMIs between "raised" and "delivered" (`KVM_GET_VCPU_EVENTS`).
    #[allow(missing_docs, reason = "fields as in the KVM API, section 4.31")]
    VcpuEventsV1 = kvm_vcpu_events {
        exception_injected: u8 = exception.injected,
        exception_vector: u8 = exception.nr,
        exception_has_error_code: u8 = exception.has_error_code,
        exception_pending: u8 = exception.pending,
        exception_error_code: u32 = exception.error_code,
        exception_has_payload: u8 = exception_has_payload,
        exception_payload: u64 = exception_payload,
        interrupt_injected: u8 = interrupt.injected,
        interrupt_vector: u8 = interrupt.nr,
        interrupt_soft: u8 = interrupt.soft,
        interrupt_shadow: u8 = interrupt.shadow,
        nmi_injected: u8 = nmi.injected,
        nmi_pending: u8 = nmi.pending,
        nmi_masked: u8 = nmi.masked,
        sipi_vector: u32 = sipi_vector,
        flags: u32 = flags,
        smi_smm: u8 = smi.smm,
        smi_pending: u8 = smi.pending,
        smi_inside_nmi: u8 = smi.smm_inside_nmi,
        smi_latched_init: u8 = smi.latched_init,
        triple_fault_pending: u8 = triple_fault.pending,
    }
}

/// An extended control register (`KVM_GET_XCRS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct XcrV1 {
    /// Its number; 0 is XCR0.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// A model-specific register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsrV1 {
    /// Its number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// Everything of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuV1 {
    /// Its number, which is its APIC ID.
    pub index: u32,
    /// `KVM_MP_STATE_*`: running, halted, waiting for SIPI, …
    pub mp_state: u32,
    /// General registers.
    pub registers: RegistersV1,
    /// Segment and control registers.
    pub system_registers: SystemRegistersV1,
    /// Debug registers.
    pub debug_registers: DebugRegistersV1,
    /// Pending events.
    pub events: VcpuEventsV1,
    /// Extended control registers.
    pub xcrs: Vec<XcrV1>,
    /// The XSAVE area in the CPU's standard format.
    pub xsave: Vec<u8>,
    /// The local APIC's register page, 1024 bytes.
    pub lapic: Vec<u8>,
    /// Every MSR that the host offers to save, in the host's order, without the TSC.
    pub msrs: Vec<MsrV1>,
    /// The guest's TSC on this vCPU at the machine's common save instant.
    pub tsc: u64,
}
