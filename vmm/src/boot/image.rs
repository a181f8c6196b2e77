//! What to boot, and by which protocol.

use super::error::BootError;
use super::registers::EntryState;
use super::room::Room;
use super::{elf, linux, linux_header, multiboot, multiboot2, plain, pvh};
use crate::memory::GuestRam;

/// Longest command line, without its final zero. A protocol may allow less.
pub const CMDLINE_BYTES_MAX: usize = 64 << 10;
/// How a file begins that `gzip` made.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct BootImage<'a> {
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// The initrd, or the only module of a protocol that has modules.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub cmdline: &'a str,
}

/// How a kernel wants to be loaded and entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// An ELF file with Xen's PVH note.
    Pvh,
    /// A Linux bzImage, at its 64-bit entry.
    Linux64,
    /// A Linux bzImage, at its 32-bit entry.
    Linux32,
    /// Multiboot 1.
    Multiboot,
    /// Multiboot 2.
    Multiboot2,
    /// An ELF file of 64 bits, at its entry point.
    Elf64,
    /// An ELF file of 32 bits, at its entry point.
    Elf32,
}

/// A loaded kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// By which protocol.
    pub protocol: Protocol,
    /// How the boot vCPU enters it.
    pub(crate) entry: EntryState,
}

/// Finds out which protocol the kernel speaks, and loads `image` into `ram`.
///
/// # Errors
/// It speaks none of them, is damaged, or something does not fit.
pub fn load(ram: &GuestRam, image: &BootImage<'_>) -> Result<Loaded, BootError> {
    let bytes = image.cmdline.len();
    if bytes > CMDLINE_BYTES_MAX {
        return Err(BootError::CmdlineTooLong { bytes, max: CMDLINE_BYTES_MAX });
    }
    if image.cmdline.contains('\0') {
        return Err(BootError::CmdlineHasZero);
    }
    let room = Room::new(ram);
    if let Some(header) = linux_header::parse(image.kernel)? {
        return linux::load(room, image, &header);
    }
    let elf = elf::parse(image.kernel)?;
    if let Some(kernel) = &elf
        && let Some(entry) = kernel.pvh_entry
    {
        return pvh::load(room, image, kernel, entry);
    }
    if let Some(header) = multiboot::header::find(image.kernel)? {
        return multiboot::load(room, image, elf.as_ref(), &header);
    }
    if let Some(header) = multiboot2::header::find(image.kernel)? {
        return multiboot2::load(room, image, elf.as_ref(), &header);
    }
    match &elf {
        Some(kernel) if kernel.stands_alone => plain::load(room, image, kernel),
        Some(_) => Err(BootError::Program),
        None if image.kernel.starts_with(&GZIP_MAGIC) => Err(BootError::Compressed),
        None => Err(BootError::NoKernel),
    }
}
