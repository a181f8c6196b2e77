//! PVH: a 32-bit entry point named by an ELF note, with a `start_info` that tells memory, command line
//! and initrd. Sources: Xen's `docs/misc/pvh.pandoc`, `xen/include/public/arch-x86/hvm/start_info.h`.

use super::elf::Kernel;
use super::error::BootError;
use super::image::{BootImage, Loaded, Protocol};
use super::memory_map::memory_map;
use super::registers::EntryState;
use super::room::Room;
use super::start_info::{MEMMAP_ENTRY_BYTES, MODLIST_BYTES, StartInfo, encode_memory_map, encode_module};

pub(super) fn load(
    mut room: Room<'_>,
    image: &BootImage<'_>,
    kernel: &Kernel<'_>,
    entry: u32,
) -> Result<Loaded, BootError> {
    if !kernel.loads(entry.into()) {
        return Err(BootError::EntryOutside { entry: entry.into() });
    }
    room.load(&kernel.segments)?;
    let module = image.initrd.map(|initrd| room.initrd(initrd, u64::MAX)).transpose()?;

    let map = memory_map(room.layout());
    let map_bytes = encode_memory_map(&map);
    let cmdline_bytes = image.cmdline.len() as u64 + 1;
    let boot_bytes = StartInfo::BYTES + MODLIST_BYTES + MEMMAP_ENTRY_BYTES * map.len() as u64 + cmdline_bytes;
    let start_info = room.lowest("the boot information", boot_bytes)?;
    let modlist = start_info + StartInfo::BYTES;
    let memmap = modlist + MODLIST_BYTES;
    let cmdline = memmap + map_bytes.len() as u64;
    let info = StartInfo {
        modlist: module.map(|_| modlist),
        cmdline,
        memmap,
        memmap_entries: u32::try_from(map.len()).expect("the map has a handful of entries"),
    };
    room.write(start_info, &info.encode())?;
    if let Some((address, bytes)) = module {
        room.write(modlist, &encode_module(address, bytes))?;
    }
    room.write(memmap, &map_bytes)?;
    room.write_text(cmdline, image.cmdline)?;
    Ok(Loaded { protocol: Protocol::Pvh, entry: EntryState::flat(entry).with_rbx(start_info) })
}

#[cfg(test)]
#[path = "pvh_test.rs"]
mod tests;
