//! Boots a kernel: finds out by the file's content which protocol it speaks, puts it into guest memory
//! with what it expects there, and tells how the boot vCPU enters it.
//!
//! | looked for, in this order | protocol | file |
//! |---|---|---|
//! | setup header of a bzImage | Linux, at its 64-bit or else its 32-bit entry | `linux` |
//! | ELF note `Xen`, type 18 | PVH | `pvh` |
//! | Multiboot 1 header in the first 8 KiB | Multiboot 1, ELF or by the header's addresses | `multiboot` |
//! | Multiboot 2 header in the first 32 KiB | Multiboot 2, ELF or by the header's addresses | `multiboot2` |
//! | ELF file that stands alone | its entry point | `plain` |
//!
//! Reading a file and making what the kernel is told are pure (`elf`, `*header`, `*info`, `start_info`,
//! `boot_params`, `descriptors`, `coreboot`, `memory_map`, `registers`); `room` alone writes.
//! `docs/kernels.md` tells which kernels were tried.

mod bios_data;
mod boot_params;
mod bytes;
mod coreboot;
mod descriptors;
mod elf;
mod error;
mod image;
mod linux;
mod linux_header;
mod memory_map;
mod multiboot;
mod multiboot2;
mod placement;
mod plain;
mod pvh;
mod registers;
mod room;
mod start_info;
#[cfg(test)]
mod test_elf;

pub use error::BootError;
pub use image::{BootImage, CMDLINE_BYTES_MAX, Loaded, Protocol, load};
pub(crate) use registers::KVM_PRIVATE_START;
