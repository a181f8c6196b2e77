//! An ELF kernel that names no protocol: it is entered at its entry point.
//!
//! | file | mode | registers | it finds |
//! |---|---|---|---|
//! | 64 bit | long mode, the first 4 GiB mapped to themselves | RSI: `boot_params` | what Linux's 64-bit entry finds |
//! | 32 bit | flat 32-bit, paging off | ESI: `boot_params` | the same, and coreboot's table at 0x500, as a payload of coreboot does |
//!
//! Interrupts are off, there is no stack, and every other register is zero. So boots what others build for
//! VMMs that load a `vmlinux` (Firecracker's way), and what coreboot loads.

use super::bytes::address32;
use super::coreboot;
use super::descriptors::{write_gdt32, write_long_mode};
use super::elf::Kernel;
use super::error::BootError;
use super::image::{BootImage, Loaded, Protocol};
use super::linux::tell;
use super::registers::EntryState;
use super::room::Room;

pub(super) fn load(
    mut room: Room<'_>,
    image: &BootImage<'_>,
    kernel: &Kernel<'_>,
) -> Result<Loaded, BootError> {
    if !kernel.loads(kernel.entry) || kernel.entry >= room.low_end() {
        return Err(BootError::EntryOutside { entry: kernel.entry });
    }
    room.load(&kernel.segments)?;
    let params = tell(&mut room, image, &plain_setup(), 0, u64::MAX)?;
    let (protocol, entry) = if kernel.class64 {
        let (gdt, tables) = write_long_mode(&mut room)?;
        (Protocol::Elf64, EntryState::long(kernel.entry, tables).with_gdt(gdt))
    } else {
        coreboot::write_table(&room, &kernel.segments)?;
        let gdt = write_gdt32(&mut room)?;
        (Protocol::Elf32, EntryState::flat(address32(kernel.entry)).with_gdt(gdt))
    };
    Ok(Loaded { protocol, entry: entry.with_rsi(params) })
}

/// The setup header that a `vmlinux` does not bring: boot flag, magic and version, by which early code
/// tells a filled zero page from an empty one.
fn plain_setup() -> Vec<u8> {
    let mut setup = vec![0; 0x17];
    setup[0x0d..0x0f].copy_from_slice(&0xaa55_u16.to_le_bytes());
    setup[0x11..0x15].copy_from_slice(b"HdrS");
    setup[0x15..0x17].copy_from_slice(&0x020c_u16.to_le_bytes());
    setup
}

#[cfg(test)]
#[path = "plain_test.rs"]
mod tests;
