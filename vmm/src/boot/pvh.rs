//! Puts a kernel, its initrd, command line and start_info into guest memory.

use super::elf;
use super::error::BootError;
use super::placement::Placement;
use super::start_info::{
    LOW_RAM_END, MEMMAP_ENTRY_BYTES, MODLIST_BYTES, StartInfo, encode_memory_map, encode_module, memory_map,
};
use crate::memory::GuestRam;

/// Longest command line, without its final zero.
pub const CMDLINE_BYTES_MAX: usize = 64 << 10;

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct BootImage<'a> {
    /// The kernel: an ELF file with a PVH note.
    pub kernel: &'a [u8],
    /// The initrd, handed to the kernel as its first module.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub cmdline: &'a str,
}

/// Where the loaded kernel wants to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Its 32-bit entry point.
    pub entry: u32,
    /// Guest-physical address of the start_info, for EBX.
    pub start_info: u64,
}

/// Loads `image` into `ram`.
///
/// # Errors
/// The kernel is not one that PVH can boot, or something does not fit.
pub fn load(ram: &GuestRam, image: &BootImage<'_>) -> Result<Loaded, BootError> {
    let bytes = image.cmdline.len();
    if bytes > CMDLINE_BYTES_MAX {
        return Err(BootError::CmdlineTooLong { bytes, max: CMDLINE_BYTES_MAX });
    }
    if image.cmdline.contains('\0') {
        return Err(BootError::CmdlineHasZero);
    }
    let kernel = elf::parse(image.kernel)?;
    let mut placement = Placement::new();
    // The firmware's area of a PC is RAM here, but the kernel is told that it is not.
    placement.take(LOW_RAM_END, (1 << 20) - LOW_RAM_END);
    for segment in &kernel.segments {
        let outside =
            BootError::KernelOutsideRam { guest_address: segment.guest_address, bytes: segment.memory_bytes };
        if !is_ram(ram, segment.guest_address, segment.memory_bytes) {
            return Err(outside);
        }
        // Memory is fresh, so the part that the file does not fill is zero already.
        ram.write(segment.guest_address, segment.data)?;
        placement.take(segment.guest_address, segment.memory_bytes);
    }
    let low_end = ram.layout().low().guest_end();
    let module = image.initrd.map(|initrd| place_initrd(ram, &mut placement, low_end, initrd)).transpose()?;

    let map = memory_map(ram.layout());
    let map_bytes = encode_memory_map(&map);
    let boot_bytes =
        StartInfo::BYTES + MODLIST_BYTES + MEMMAP_ENTRY_BYTES * map.len() as u64 + bytes as u64 + 1;
    // Small things go below the kernel if there is room, where every boot loader puts them.
    let start_info = placement
        .lowest(0, low_end, boot_bytes)
        .ok_or(BootError::NoRoom { what: "the boot information", bytes: boot_bytes })?;
    let modlist = start_info + StartInfo::BYTES;
    let memmap = modlist + MODLIST_BYTES;
    let cmdline = memmap + map_bytes.len() as u64;
    let info = StartInfo {
        modlist: module.map(|_| modlist),
        cmdline,
        memmap,
        memmap_entries: u32::try_from(map.len()).expect("the map has a handful of entries"),
    };
    ram.write(start_info, &info.encode())?;
    if let Some((address, bytes)) = module {
        ram.write(modlist, &encode_module(address, bytes))?;
    }
    ram.write(memmap, &map_bytes)?;
    ram.write(cmdline, image.cmdline.as_bytes())?;
    ram.write(cmdline + bytes as u64, &[0])?;
    Ok(Loaded { entry: kernel.entry, start_info })
}

fn place_initrd(
    ram: &GuestRam,
    placement: &mut Placement,
    low_end: u64,
    initrd: &[u8],
) -> Result<(u64, u64), BootError> {
    let bytes = initrd.len() as u64;
    // As high as possible: kernels grow upwards behind their image.
    let address = placement.highest(low_end, bytes).ok_or(BootError::NoRoom { what: "the initrd", bytes })?;
    ram.write(address, initrd)?;
    Ok((address, bytes))
}

fn is_ram(ram: &GuestRam, guest_address: u64, bytes: u64) -> bool {
    let Some(end) = guest_address.checked_add(bytes) else { return false };
    ram.layout().ranges().iter().any(|r| guest_address >= r.guest_base && end <= r.guest_end())
}

#[cfg(test)]
#[path = "pvh_test.rs"]
mod tests;
