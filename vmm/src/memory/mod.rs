//! Guest RAM: where it lies, the memfd that holds it, and sets of its pages.

mod bitmap;
mod guest_ram;
mod host_memory;
mod layout;
mod peek;
mod transfer;

pub use bitmap::PageBitmap;
pub use guest_ram::{GuestRam, RamError};
pub use layout::{
    HOLE_END, HOLE_START, LayoutError, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, RamLayout, RamRange,
};
pub use transfer::ReceiveError;
