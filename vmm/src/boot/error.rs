//! Why a kernel cannot be booted.

use thiserror::Error;

use crate::memory::RamError;

/// Why a kernel cannot be booted.
#[derive(Debug, Error)]
pub enum BootError {
    /// Not an ELF file at all.
    #[error("it is not an ELF file: give an uncompressed kernel (vmlinux or a PVH ELF)")]
    NotElf,
    /// An ELF file for another machine.
    #[error("it is an ELF file for another CPU architecture: x86 or x86-64 is needed")]
    WrongArchitecture,
    /// The ELF headers contradict each other or the file's size.
    #[error("its ELF headers are damaged: {what}")]
    DamagedElf {
        /// What does not fit.
        what: String,
    },
    /// No PVH entry point.
    #[error(
        "it has no PVH entry point (ELF note 'Xen', type 18): \
         build Linux with CONFIG_PVH=y, or add the note to your kernel"
    )]
    NoPvhNote,
    /// Its entry point is not in what is loaded.
    #[error("its PVH entry point {entry:#x} lies outside of what it loads")]
    EntryOutside {
        /// The entry point.
        entry: u64,
    },
    /// A segment does not fit the guest's memory.
    #[error(
        "it loads {bytes} bytes at {guest_address:#x}, outside of the guest's memory: \
         give the guest more with --memory"
    )]
    KernelOutsideRam {
        /// Where it loads.
        guest_address: u64,
        /// How much.
        bytes: u64,
    },
    /// No room for something that must lie in memory beside the kernel.
    #[error(
        "no room for {what} ({bytes} bytes) beside the kernel below 3 GiB: give the guest more with --memory"
    )]
    NoRoom {
        /// What.
        what: &'static str,
        /// How much it needs.
        bytes: u64,
    },
    /// The command line is too long.
    #[error("the command line has {bytes} bytes, at most {max} fit")]
    CmdlineTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The command line has a zero byte.
    #[error("the command line has a zero byte in it")]
    CmdlineHasZero,
    /// Guest memory could not be written.
    #[error(transparent)]
    Ram(#[from] RamError),
}
