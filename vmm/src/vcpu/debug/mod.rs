//! Debug controls of vCPUs: what stops one, what it stopped at, and its registers between two instructions.
//!
//! ```text
//!  VcpuDebug (a parked vCPU) ── watch: controls ──▶ vCPU thread ── KVM_SET_GUEST_DEBUG ──▶ KVM
//!       ▲ registers, memory                             │ KVM_EXIT_DEBUG: the debugger's or the guest's own?
//!       │                                               ├─ the guest's own: handed to it
//!  whoever debugs ◀────────── DebugSink ────────────────┴─ the debugger's: told, and the vCPU parks
//! ```
//! Nothing here knows who debugs or by which protocol. A vCPU that nobody debugs takes none of these paths.

mod controls;
mod floating;
mod segment;
mod stop;
mod thread;
mod view;

pub use controls::{DebugControls, DebugPoint, POINTS_MAX, PointKind};
pub use floating::FloatRegisters;
pub use segment::SegmentError;
pub use stop::{DebugSink, DebugStop};
pub(super) use thread::{DebugCommand, DebugState};
pub use view::{DebugRegisters, VcpuDebug, Watched};
