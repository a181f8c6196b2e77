//! What a new machine shall be.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::devices::ConsoleSink;
use crate::kvm::DirtyLogChoice;
use crate::saved_state::OnResetV1;

/// Most vCPUs of a machine.
pub const VCPUS_MAX: u32 = 64;

/// Where the RAM of an incoming guest comes from.
#[derive(Debug)]
pub enum IncomingMemory {
    /// It is new and empty: pages will be written into it.
    Fresh,
    /// It is the guest's own, handed over by the process that has the guest now.
    HandedOver(OwnedFd),
}

/// What a new machine shall be.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// vCPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// RAM in bytes, whole pages.
    pub memory_bytes: u64,
    /// The kernel's path, or `builtin`.
    pub kernel_name: String,
    /// The initrd's path.
    pub initrd_name: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// How the pages that the guest writes are found when it is migrated.
    pub dirty_log: DirtyLogChoice,
    /// What to do when the guest resets itself.
    pub on_reset: OnResetV1,
    /// Where serial output goes.
    pub console: Arc<dyn ConsoleSink>,
}
