//! Boots a kernel by PVH: a 32-bit entry point named by an ELF note, with a `start_info` structure
//! that tells memory, command line and initrd. Source: Xen's `docs/misc/pvh.pandoc` and
//! `xen/include/public/arch-x86/hvm/start_info.h`.

mod elf;
mod error;
mod placement;
mod pvh;
mod registers;
mod start_info;

pub use error::BootError;
pub use pvh::{BootImage, CMDLINE_BYTES_MAX, Loaded, load};
pub(crate) use registers::{KVM_PRIVATE_START, pvh_entry};
