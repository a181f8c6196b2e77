//! What can go wrong with a machine.

use thiserror::Error;

use crate::boot::BootError;
use crate::devices::SerialError;
use crate::kvm::KvmError;
use crate::memory::{LayoutError, RamError};
use crate::saved_state::StateError;
use crate::vcpu::VcpuError;

/// What can go wrong with a machine.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The number of vCPUs is out of range.
    #[error("{vcpus} vCPUs are out of range: give --cpus a number from 1 to 64")]
    Vcpus {
        /// Asked for.
        vcpus: u32,
    },
    /// The memory size is impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Guest RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The kernel.
    #[error("cannot boot '{kernel}': {source}")]
    Boot {
        /// Its name.
        kernel: String,
        /// Why.
        source: BootError,
    },
    /// The serial port.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// Saved state that does not fit this machine.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host's CPU lacks features that the guest has.
    #[error("this host's CPU or KVM lacks what the guest uses: {features}")]
    CpuFeatures {
        /// Which, by leaf and register.
        features: String,
    },
}
