//! vCPUs: a thread each, which alone owns the vCPU's file descriptor.

mod cpuid;
pub mod debug;
mod error;
mod exit;
mod features;
mod handle;
mod new;
mod state;
mod thread;

pub use cpuid::{for_machine, for_vcpu};
pub use error::VcpuError;
pub use exit::{CrashReport, GuestEnd};
pub use features::check_features;
pub use handle::{RunGate, VcpuEvent, VcpuHandle};
pub(crate) use new::NewVcpu;
pub use state::TscAt;
