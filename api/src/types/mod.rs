//! The wire types: what crosses a VM's API socket, as JSON.
//!
//! Requests refuse unknown fields, so that a misspelt option is an error and not a default.
//! Answers accept unknown fields, so that an older client understands a newer VM process.

mod address;
mod error;
pub mod limits;
mod memory;
mod migration;
mod name;
mod registers;
mod upgrade;
mod vm;

pub use address::{AddressError, TargetAddress};
pub use error::{ApiError, ErrorCode, InvalidInput};
pub use memory::GuestRange;
pub use migration::{
    MigrateRequest, MigrationEvent, MigrationMode, MigrationOutcome, MigrationPhase, MigrationProgress,
    MigrationResult, MigrationStatus, ms_from_us,
};
pub use name::{NameError, VmName};
pub use registers::{
    ControlRegisters, DescriptorTable, GeneralRegisters, Segment, SegmentRegisters, VcpuActivity,
    VcpuRegisters, VmRegisters,
};
pub use upgrade::UpgradeRequest;
pub use vm::{DebuggerInfo, ResolveHow, ResolveRequest, StopRequest, VersionInfo, VmInfo, VmState};
