//! The machine as types: what cannot be done in a state cannot be written.
//!
//! ```text
//!  MachineConfig ──build──▶ PausedMachine ──resume──▶ RunningMachine
//!  description   ──build──▶      │  ▲                      │
//!                                │  └────────pause─────────┘
//!                                ├─ save    (the guest stays as it is)
//!                                └─ restore (before its first run)
//! ```
//! Both hold the same [`Machine`], which offers what is possible in either state: RAM, dirty log,
//! serial port. Dropping either ends the vCPU threads and frees everything.

mod build;
mod config;
mod debug_probe;
mod error;
mod states;

pub use config::{IncomingMemory, MachineConfig, VCPUS_MAX};
pub use debug_probe::{DebugSupport, Rings};
pub use error::MachineError;
pub use states::{Machine, PausedMachine, Rehearsal, RunningMachine};
