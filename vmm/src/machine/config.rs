//! What a new machine shall be.

use std::sync::Arc;

use crate::devices::ConsoleSink;

/// Most vCPUs of a machine.
pub const VCPUS_MAX: u32 = 64;

/// What a new machine shall be.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// vCPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// RAM in bytes, whole pages.
    pub memory_bytes: u64,
    /// For people: the kernel's file name or `builtin`.
    pub kernel_name: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// Where serial output goes.
    pub console: Arc<dyn ConsoleSink>,
}
