//! Linux's boot protocol for a bzImage: at the 64-bit entry if the kernel has one, else at the 32-bit
//! one. The real-mode setup part is not run: there is no BIOS that it could ask. Source: Linux's
//! `Documentation/arch/x86/boot.rst`.

use super::boot_params::{BOOT_PARAMS_BYTES, BootParams};
use super::bytes::address32;
use super::descriptors::{write_gdt32, write_long_mode};
use super::elf::Segment;
use super::error::BootError;
use super::image::{BootImage, Loaded, Protocol};
use super::linux_header::Header;
use super::memory_map::memory_map;
use super::registers::EntryState;
use super::room::Room;

/// From the start of the kernel to its 64-bit entry.
const ENTRY64: u64 = 0x200;

pub(super) fn load(
    mut room: Room<'_>,
    image: &BootImage<'_>,
    header: &Header<'_>,
) -> Result<Loaded, BootError> {
    let (bytes, max) = (image.cmdline.len(), header.cmdline_bytes_max);
    if bytes > max {
        return Err(BootError::CmdlineTooLong { bytes, max });
    }
    let kernel = Segment {
        guest_address: header.address,
        data: header.kernel,
        memory_bytes: header.init_bytes.max(if header.has_entry64 { ENTRY64 + 1 } else { 1 }),
    };
    // Whatever lies above 3 GiB could be entered in long mode only; no kernel asks for it.
    if header.address >= room.low_end() {
        let (guest_address, bytes) = (header.address, kernel.memory_bytes);
        return Err(BootError::KernelOutsideRam { guest_address, bytes });
    }
    room.load(&[kernel])?;
    let params = tell(&mut room, image, header.setup, header.address, header.initrd_end)?;
    let entry = if header.has_entry64 {
        let (gdt, tables) = write_long_mode(&mut room)?;
        EntryState::long(header.address + ENTRY64, tables).with_gdt(gdt)
    } else {
        EntryState::flat(address32(header.address)).with_gdt(write_gdt32(&mut room)?)
    };
    let protocol = if header.has_entry64 { Protocol::Linux64 } else { Protocol::Linux32 };
    Ok(Loaded { protocol, entry: entry.with_rsi(params) })
}

/// Writes `boot_params` and what it points to; gives its address.
pub(super) fn tell(
    room: &mut Room<'_>,
    image: &BootImage<'_>,
    setup: &[u8],
    kernel: u64,
    initrd_end: u64,
) -> Result<u64, BootError> {
    let initrd = image.initrd.map(|initrd| room.initrd(initrd, initrd_end)).transpose()?;
    let params = room.lowest("boot_params", BOOT_PARAMS_BYTES)?;
    let cmdline = room.lowest("the command line", image.cmdline.len() as u64 + 1)?;
    room.write_text(cmdline, image.cmdline)?;
    let map = memory_map(room.layout());
    room.write(params, &BootParams { setup, kernel, cmdline, initrd, map: &map }.encode())?;
    Ok(params)
}

#[cfg(test)]
#[path = "linux_test.rs"]
mod tests;
