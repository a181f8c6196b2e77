//! What we need of KVM beyond what `kvm-ioctls` offers: which optional features this host has, the
//! dirty log's clear, a vCPU's run page and its TSC offset.
//!
//! Every optional feature is asked for by capability; its absence is a degraded mode or a clear
//! error, and nothing here assumes a particular vendor or module.

mod capabilities;
mod dirty_log;
mod dirty_ring;
mod run_page;
mod tsc;
pub mod xsave;

pub use capabilities::{Capabilities, DirtyLogChoice, DirtyLogMode, KvmError, open};
pub use dirty_log::DirtyLog;
pub use run_page::{KickSignal, RunPage};
pub use tsc::TscOffset;
