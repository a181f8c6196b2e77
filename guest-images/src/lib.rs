//! A small guest kernel to test a VMM and live migration with.
//!
//! [`TEST_KERNEL`] boots in milliseconds, dirties memory at a known rate in a known order, checks
//! what it reads back, and reports on its serial port; see the README of this crate for its command
//! line. The modules are the parts that the kernel shares with a test on the host: what it accepts
//! ([`cmdline`], [`command`]), what it says ([`report`]) and what it writes into memory ([`stamp`],
//! [`order`], [`hash`]).

pub mod cmdline;
pub mod command;
pub mod hash;
pub mod observer;
pub mod order;
pub mod periodic;
pub mod region;
pub mod report;
pub mod stamp;
pub mod units;

/// The test kernel: an x86-64 ELF file with a PVH note, for any VMM that boots those.
pub const TEST_KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/test-kernel"));
