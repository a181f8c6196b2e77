//! The offset between the host's TSC and a vCPU's (`KVM_VCPU_TSC_OFFSET`, KVM devices/vcpu, group 0).
//! `unsafe`: reads it through a pointer, and `rdtsc`.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::capabilities::KvmError;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// guest TSC = host TSC + offset (modulo 2^64), while both run at the same frequency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TscOffset(pub u64);

impl TscOffset {
    /// Reads it, or `None` where this KVM does not tell.
    #[must_use]
    pub fn read(vcpu: &VcpuFd) -> Option<Self> {
        let mut offset = 0_u64;
        let attr = attribute(&raw mut offset);
        // SAFETY: for this attribute the kernel writes eight bytes to `addr`, which is `offset`.
        let done = unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attr) };
        (done == 0).then_some(Self(offset))
    }

    /// Sets it: the vCPU's TSC runs from here on, whether the vCPU does or not.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn write(self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        let mut offset = self.0;
        let attr = attribute(&raw mut offset);
        // SAFETY: for this attribute the kernel reads eight bytes at `addr`, which is `offset`.
        if unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attr) } < 0 {
            return Err(KvmError::last_os_error("KVM_VCPU_TSC_OFFSET"));
        }
        Ok(())
    }

    /// The host's TSC now.
    #[must_use]
    pub fn host_now() -> u64 {
        // SAFETY: every x86_64 CPU has rdtsc.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
}

fn attribute(value: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: value as u64,
        flags: 0,
    }
}
