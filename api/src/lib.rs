//! What other programs use to talk to Godwit: the wire types of a VM's HTTP/JSON API, the
//! runtime directory in which running VMs are found by name, and a client for both.
//!
//! ```text
//!  types      requests, answers, events, errors: the same structs on both ends of the socket
//!  registry   runtime directory: one state file and one socket for each VM process
//!  client     HTTP/1.1 over that socket, as blocking calls
//! ```
//!
//! The crate links neither the VMM nor the migration engine, and starts no thread of its own.

pub mod client;
pub mod registry;
pub mod types;

pub use types::{
    ApiError, ControlRegisters, DebuggerInfo, DescriptorTable, ErrorCode, GeneralRegisters, GuestRange,
    InvalidInput, MigrateRequest, MigrationEvent, MigrationMode, MigrationOutcome, MigrationPhase,
    MigrationProgress, MigrationResult, MigrationStatus, ResolveHow, ResolveRequest, Segment,
    SegmentRegisters, StopRequest, TargetAddress, UpgradeRequest, VcpuActivity, VcpuRegisters, VersionInfo,
    VmInfo, VmName, VmRegisters, VmState, ms_from_us,
};
