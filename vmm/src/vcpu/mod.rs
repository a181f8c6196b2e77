//! vCPUs: a thread each, which alone owns the vCPU's file descriptor.

mod code;
mod cpuid;
pub mod debug;
mod error;
mod exit;
mod features;
mod handle;
mod new;
mod registers;
mod state;
mod thread;

pub use code::Code;
pub use cpuid::{for_machine, for_vcpu};
pub use error::VcpuError;
pub use exit::{CrashReport, GuestEnd};
pub use features::check_features;
pub(crate) use handle::Surroundings;
pub use handle::{RunGate, VcpuEvent, VcpuHandle};
pub(crate) use new::NewVcpu;
pub use registers::VcpuRegisters;
pub use state::TscAt;
