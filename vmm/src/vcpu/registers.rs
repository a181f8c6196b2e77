//! A vCPU's registers, to be looked at.

use kvm_ioctls::VcpuFd;

use super::error::VcpuError;
use super::state::StateContext;
use crate::saved_state::{RegistersV1, SystemRegistersV1};

/// What a vCPU that is out of the guest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuRegisters {
    /// Its number, which is its APIC ID.
    pub index: u32,
    /// `KVM_MP_STATE_*`: running, halted, waiting for SIPI, …
    pub mp_state: u32,
    /// General registers.
    pub general: RegistersV1,
    /// Segment, table and control registers.
    pub system: SystemRegistersV1,
}

impl StateContext {
    /// Reads what a person looks at first. Changes no more than saving does.
    pub(super) fn registers(&self, vcpu: &VcpuFd) -> Result<VcpuRegisters, VcpuError> {
        // First, as in `save`.
        let mp_state = vcpu.get_mp_state().map_err(self.ioctl("KVM_GET_MP_STATE"))?;
        let general = vcpu.get_regs().map_err(self.ioctl("KVM_GET_REGS"))?;
        let system = vcpu.get_sregs().map_err(self.ioctl("KVM_GET_SREGS"))?;
        Ok(VcpuRegisters {
            index: self.index,
            mp_state: mp_state.mp_state,
            general: (&general).into(),
            system: (&system).into(),
        })
    }
}
