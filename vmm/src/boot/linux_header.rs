//! Reads the setup header of a Linux bzImage. Pure. Source: Linux's `Documentation/arch/x86/boot.rst`,
//! whose names the fields have.

use super::bytes::{get16, get32, get64};
use super::error::BootError;

const BOOT_FLAG: (usize, u16) = (0x1fe, 0xaa55);
const MAGIC: (usize, u32) = (0x202, u32::from_le_bytes(*b"HdrS"));
/// Where the setup header begins; it is copied from here.
pub(super) const HEADER_START: usize = 0x1f1;
/// Where it ends at most, in the zero page.
const HEADER_END_MAX: usize = 0x290;
const SECTOR_BYTES: usize = 512;
/// The oldest protocol whose command line has a pointer and that loads where we load: 2.02.
const VERSION_MIN: u16 = 0x202;
/// `loadflags`: the protected-mode part belongs at 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: it has an entry for long mode, 0x200 bytes behind the other.
const KERNEL_64: u16 = 1;
/// Where the initrd may end if the header does not say.
const INITRD_END_OLD: u64 = 0x3800_0000;
const CMDLINE_BYTES_OLD: u32 = 255;
const DEFAULT_ADDRESS: u64 = 0x10_0000;

/// What the header says, with what its version leaves out filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// The setup header's bytes, from [`HEADER_START`] on.
    pub(super) setup: &'a [u8],
    /// The part that runs in protected mode.
    pub(super) kernel: &'a [u8],
    /// Where it wants to lie.
    pub(super) address: u64,
    /// Memory that it needs from its address on, before it looks at the memory map.
    pub(super) init_bytes: u64,
    pub(super) has_entry64: bool,
    /// First address at which no byte of the initrd may be.
    pub(super) initrd_end: u64,
    /// Longest command line, without its final zero.
    pub(super) cmdline_bytes_max: usize,
}

/// `None` is a file of another kind.
pub(super) fn parse(file: &[u8]) -> Result<Option<Header<'_>>, BootError> {
    let is_linux = get16(file, BOOT_FLAG.0) == Some(BOOT_FLAG.1) && get32(file, MAGIC.0) == Some(MAGIC.1);
    if !is_linux {
        return Ok(None);
    }
    parse_header(file).map(Some)
}

fn parse_header(file: &[u8]) -> Result<Header<'_>, BootError> {
    let damaged = |what| BootError::DamagedLinux { what };
    let short = damaged("it ends within its setup header");
    let byte = |at: usize| file.get(at).copied();
    let (Some(version), Some(jump), Some(sectors), Some(loadflags)) =
        (get16(file, 0x206), byte(0x201), byte(HEADER_START), byte(0x211))
    else {
        return Err(short);
    };
    if version < VERSION_MIN {
        return Err(BootError::OldLinux { major: version >> 8, minor: version & 0xff });
    }
    if loadflags & LOADED_HIGH == 0 {
        return Err(damaged("it is a zImage, which loads below 1 MiB: build a bzImage"));
    }
    // The header ends where the short jump at its beginning goes.
    let end = (MAGIC.0 + usize::from(jump)).min(HEADER_END_MAX);
    let setup = file.get(HEADER_START..end).ok_or(short)?;
    // A field is there if the protocol's version has it and the header reaches so far.
    let has = |since: u16, field_end: usize| version >= since && end >= field_end;
    let field16 = |since, at: usize| has(since, at + 2).then(|| get16(file, at)).flatten();
    let field32 = |since, at: usize| has(since, at + 4).then(|| get32(file, at)).flatten();
    let field64 = |since, at: usize| has(since, at + 8).then(|| get64(file, at)).flatten();

    // 0 means 4, for kernels of long ago.
    let sectors = if sectors == 0 { 4 } else { usize::from(sectors) };
    let kernel = file.get((sectors + 1) * SECTOR_BYTES..).unwrap_or(&[]);
    if kernel.is_empty() {
        return Err(damaged("nothing follows its setup part: is the file complete?"));
    }
    let relocatable = has(0x205, 0x235) && byte(0x234).is_some_and(|flag| flag != 0);
    let address = if relocatable { field64(0x20a, 0x258) } else { None };
    let init_bytes = field32(0x20a, 0x260).unwrap_or(0);
    let cmdline_bytes_max = field32(0x206, 0x238).unwrap_or(CMDLINE_BYTES_OLD);
    Ok(Header {
        setup,
        kernel,
        address: address.unwrap_or(DEFAULT_ADDRESS),
        init_bytes: u64::from(init_bytes).max(kernel.len() as u64),
        has_entry64: field16(0x20c, 0x236).is_some_and(|flags| flags & KERNEL_64 != 0),
        initrd_end: field32(0x203, 0x22c).map_or(INITRD_END_OLD, |last| u64::from(last) + 1),
        cmdline_bytes_max: usize::try_from(cmdline_bytes_max).unwrap_or(usize::MAX),
    })
}
