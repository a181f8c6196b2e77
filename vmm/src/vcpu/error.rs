//! What can go wrong with a vCPU.

use thiserror::Error;

use crate::kvm::KvmError;

/// What can go wrong with a vCPU.
#[derive(Debug, Error)]
pub enum VcpuError {
    /// An ioctl failed.
    #[error("vCPU {index}: {source}")]
    Kvm {
        /// The vCPU's number.
        index: u32,
        /// What failed.
        source: KvmError,
    },
    /// An MSR of the saved state cannot be set on this host.
    #[error(
        "vCPU {index}: this host's KVM refuses value {value:#x} of MSR {msr:#x}: \
         its CPU or kernel lacks a feature that the guest uses"
    )]
    Msr {
        /// The vCPU's number.
        index: u32,
        /// The register.
        msr: u32,
        /// The guest's value.
        value: u64,
    },
    /// The vCPU's TSC cannot run at the guest's frequency here.
    #[error(
        "the guest's TSC runs at {guest_khz} kHz, this host's at {host_khz} kHz, and its KVM cannot scale it: \
         use hosts with the same TSC frequency"
    )]
    TscFrequency {
        /// The guest's.
        guest_khz: u32,
        /// The host's.
        host_khz: u32,
    },
    /// The vCPU's thread is gone.
    #[error("the thread of vCPU {index} is gone: see the message before this one")]
    ThreadGone {
        /// The vCPU's number.
        index: u32,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for vCPU {index}: {source}")]
    Spawn {
        /// The vCPU's number.
        index: u32,
        /// The system's reason.
        source: std::io::Error,
    },
}
