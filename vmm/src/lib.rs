//! One virtual machine on KVM: mechanism only.
//!
//! This crate builds a machine, boots a kernel in it, pauses and resumes it, tells which pages it
//! dirtied, and saves and restores everything that is not RAM. It never decides *when* any of that
//! happens, and knows nothing of migration, networks or clusters.
//!
//! | folder | what is inside |
//! |---|---|
//! | [`machine`] | the machine as types: built → running ⇄ paused, and what ended it |
//! | [`memory`] | guest RAM in a memfd, its layout, the set of dirty pages |
//! | [`vcpu`] | one thread a vCPU, its exits, its CPUID, its saved state, its debug controls |
//! | [`boot`] | finds out how a kernel wants to be booted, and lays out what it expects at its entry |
//! | [`devices`] | the port bus, the 16550 serial port, power and reset ports |
//! | [`saved_state`] | our own versioned structs for everything that moves, and their container |
//! | [`kvm`] | capabilities and the ioctls that no library offers; `unsafe` lives here and in `memory` |

pub mod boot;
pub mod devices;
pub mod kvm;
pub mod machine;
pub mod memory;
pub mod saved_state;
pub mod vcpu;

/// Size of a guest page in bytes: the unit of the dirty log and of migration.
pub const PAGE_SIZE: u64 = 4096;
