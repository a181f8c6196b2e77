//! Why a kernel cannot be booted.

use thiserror::Error;

use crate::memory::RamError;

/// Why a kernel cannot be booted.
#[derive(Debug, Error)]
pub enum BootError {
    /// No protocol fits.
    #[error(
        "it is no kernel that godwit knows: looked for a Linux bzImage, a Multiboot header, and an ELF file \
         (with a PVH note or without)"
    )]
    NoKernel,
    /// It is compressed as a whole.
    #[error("it is compressed with gzip: unpack it first (gzip -dc FILE > KERNEL)")]
    Compressed,
    /// An ELF file, but a program or library.
    #[error(
        "it is an ELF file for an operating system, not a kernel: it has neither a PVH note nor a Multiboot \
         header, and is not linked to fixed addresses"
    )]
    Program,
    /// The setup header of a bzImage does not fit the file.
    #[error("its Linux setup header is damaged: {what}")]
    DamagedLinux {
        /// What does not fit.
        what: &'static str,
    },
    /// A bzImage of long ago.
    #[error("it speaks version {major}.{minor:02} of Linux's boot protocol: 2.02 or newer is needed")]
    OldLinux {
        /// Before the dot.
        major: u16,
        /// After the dot.
        minor: u16,
    },
    /// A Multiboot header does not fit the file.
    #[error("its Multiboot header is damaged: {what}")]
    DamagedMultiboot {
        /// What does not fit.
        what: &'static str,
    },
    /// A Multiboot header has a requirement that is not met.
    #[error("its Multiboot header requires {what}, which godwit does not have")]
    MultibootNeeds {
        /// What it requires.
        what: String,
    },
    /// An ELF file for another machine.
    #[error("it is an ELF file for another CPU architecture: x86 or x86-64 is needed")]
    WrongArchitecture,
    /// The ELF headers contradict each other or the file's size.
    #[error("its ELF headers are damaged: {what}")]
    DamagedElf {
        /// What does not fit.
        what: String,
    },
    /// Its entry point is not in what is loaded.
    #[error("its entry point {entry:#x} lies outside of what it loads")]
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
