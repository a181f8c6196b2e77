//! Everything of a machine that moves besides its RAM, as our own versioned structs.
//!
//! They mirror the kernel's structs field by field instead of containing them, so that what is on the
//! wire does not change when a library does. Values whose layout the hardware defines (LAPIC and
//! IOAPIC register pages, the XSAVE area) are kept as bytes. A section is a name, a version and a
//! payload; golden files under `vmm/tests/golden/` hold each version's bytes.

mod container;
mod description;
mod irqchip;
mod machine_state;
mod mirror;
mod serial;
mod vcpu;

pub use container::{ContainerError, Section, SectionKind, read_container, write_container};
pub use description::{CpuidEntryV1, DescriptionError, MachineDescriptionV1, OnResetV1};
pub use irqchip::{ClockV1, IrqchipV1, PitChannelV1, PitV1};
pub(crate) use machine_state::PENDING_INPUT_BYTES_MAX;
pub use machine_state::{MachineStateV1, StateError};
pub use serial::SerialV1;
pub use vcpu::{
    DebugRegistersV1, MsrV1, RegistersV1, SegmentV1, SystemRegistersV1, TableV1, VcpuEventsV1, VcpuV1, XcrV1,
};
