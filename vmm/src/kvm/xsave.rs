//! A vCPU's XSAVE area of any size (`KVM_GET_XSAVE`, `KVM_GET_XSAVE2`, `KVM_SET_XSAVE`; KVM API 4.42,
//! 4.43, 4.134). `unsafe`: the kernel reads and writes a buffer whose length it does not know.

use kvm_bindings::{KVMIO, kvm_xsave};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use super::capabilities::{Capabilities, KvmError};
use requests::{KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE};

mod requests {
    use super::{KVMIO, ioctl_ior_nr, ioctl_iow_nr, kvm_xsave};

    ioctl_ior_nr!(KVM_GET_XSAVE, KVMIO, 0xa4, kvm_xsave);
    ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm_xsave);
    ioctl_ior_nr!(KVM_GET_XSAVE2, KVMIO, 0xcf, kvm_xsave);
}

/// The size of the area without `KVM_CAP_XSAVE2`.
pub(super) const LEGACY_BYTES: usize = 4096;

/// Reads the area: `capabilities.xsave_bytes` bytes.
///
/// # Errors
/// KVM refuses.
pub fn read(vcpu: &VcpuFd, capabilities: &Capabilities) -> Result<Vec<u8>, KvmError> {
    let mut words = vec![0_u32; capabilities.xsave_bytes.div_ceil(4)];
    let (request, call) = if capabilities.xsave_bytes > LEGACY_BYTES {
        (KVM_GET_XSAVE2(), "KVM_GET_XSAVE2")
    } else {
        (KVM_GET_XSAVE(), "KVM_GET_XSAVE")
    };
    // SAFETY: the kernel writes as many bytes as KVM_CAP_XSAVE2 told for XSAVE2, 4096 for XSAVE: the
    // buffer has at least that many.
    if unsafe { ioctl_with_mut_ptr(vcpu, request, words.as_mut_ptr()) } < 0 {
        return Err(KvmError::last_os_error(call));
    }
    Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// Writes the area. A shorter one than this host's is continued with zeroes.
///
/// # Errors
/// It is longer than what this host has, or KVM refuses its content.
pub fn write(vcpu: &VcpuFd, capabilities: &Capabilities, area: &[u8]) -> Result<(), KvmError> {
    let bytes = capabilities.xsave_bytes.div_ceil(4) * 4;
    if area.len() > bytes && area[bytes..].iter().any(|b| *b != 0) {
        return Err(KvmError::Lacks { feature: "XSAVE components that the guest uses" });
    }
    let mut words = vec![0_u32; bytes / 4];
    for (word, bytes) in words.iter_mut().zip(area.chunks(4)) {
        let mut padded = [0; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(padded);
    }
    // SAFETY: the kernel reads as many bytes as KVM_CAP_XSAVE2 told (4096 without it), which is how
    // long the buffer is at least.
    if unsafe { ioctl_with_ptr(vcpu, KVM_SET_XSAVE(), words.as_ptr()) } < 0 {
        return Err(KvmError::last_os_error("KVM_SET_XSAVE"));
    }
    Ok(())
}
