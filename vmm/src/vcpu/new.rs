//! A vCPU between its creation and its thread.

use std::sync::Arc;

use kvm_ioctls::{VcpuFd, VmFd};

use super::error::VcpuError;
use super::state::StateContext;
use crate::boot::Loaded;
use crate::kvm::{Capabilities, KvmError};
use crate::saved_state::{CpuidEntryV1, SystemRegistersV1};

/// `IA32_MTRR_DEF_TYPE`: enabled, write-back. Kernels without MTRR code of their own expect RAM to be
/// cached.
const MSR_MTRR_DEF_TYPE: (u32, u64) = (0x2ff, (1 << 11) | 6);

/// A vCPU that has no thread yet.
pub(crate) struct NewVcpu {
    pub(super) vcpu: VcpuFd,
    pub(super) context: StateContext,
}

impl NewVcpu {
    pub(crate) fn create(
        vm: &VmFd,
        index: u32,
        capabilities: Capabilities,
        msr_indices: Arc<[u32]>,
    ) -> Result<Self, VcpuError> {
        let kvm = |call| move |e| VcpuError::Kvm { index, source: KvmError::ioctl(call)(e) };
        let vcpu = vm.create_vcpu(index.into()).map_err(kvm("KVM_CREATE_VCPU"))?;
        // A new vCPU's TSC runs at the host's frequency.
        let host_tsc_khz = vcpu.get_tsc_khz().map_err(kvm("KVM_GET_TSC_KHZ"))?;
        Ok(Self { vcpu, context: StateContext { index, capabilities, msr_indices, host_tsc_khz } })
    }

    /// For what needs the vCPU itself and not its state.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.vcpu
    }

    pub(crate) fn host_tsc_khz(&self) -> u32 {
        self.context.host_tsc_khz
    }

    pub(crate) fn set_cpuid(&self, entries: &[CpuidEntryV1]) -> Result<(), VcpuError> {
        self.context.set_cpuid(&self.vcpu, entries)
    }

    pub(crate) fn set_tsc_khz(&self, khz: u32) -> Result<(), VcpuError> {
        self.context.set_tsc_khz(&self.vcpu, khz)
    }

    /// Puts the boot vCPU at a kernel's entry. The others wait for its INIT and SIPI.
    pub(crate) fn enter_at(&self, loaded: Loaded) -> Result<(), VcpuError> {
        let kvm = |call| move |e| VcpuError::Kvm { index: 0, source: KvmError::ioctl(call)(e) };
        let reset = self.vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
        let reset = SystemRegistersV1::from(&reset);
        let (registers, system) = loaded.entry.registers(&reset);
        self.vcpu.set_sregs(&(&system).into()).map_err(kvm("KVM_SET_SREGS"))?;
        self.vcpu.set_regs(&(&registers).into()).map_err(kvm("KVM_SET_REGS"))?;
        self.context.set_msr(&self.vcpu, MSR_MTRR_DEF_TYPE.0, MSR_MTRR_DEF_TYPE.1)
    }
}
