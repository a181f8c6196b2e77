//! Multiboot 2: 32-bit entry with EAX telling the protocol and EBX at a list of tags.
//! Source: Multiboot2 specification 2.0.

pub(super) mod header;
mod info;

use self::header::Header;
use self::info::Info;
use super::bios_data;
use super::elf::Kernel;
use super::error::BootError;
use super::image::{BootImage, Loaded, Protocol};
use super::multiboot::{Placed, place};
use super::registers::EntryState;
use super::room::Room;

/// What EAX holds at the entry.
const LOADED_BY_MULTIBOOT2: u32 = 0x36d7_6289;

pub(super) fn load(
    mut room: Room<'_>,
    image: &BootImage<'_>,
    elf: Option<&Kernel<'_>>,
    header: &Header,
) -> Result<Loaded, BootError> {
    let Placed { segments, entry } = place(image.kernel, elf, header.addresses.as_ref(), header.entry)?;
    room.load(&segments)?;
    bios_data::write(&room, &segments)?;
    let info = Info {
        cmdline: image.cmdline,
        initrd: image.initrd.map(|initrd| room.initrd(initrd, u64::MAX)).transpose()?,
        layout: room.layout(),
        video: header.video,
        load_base: segments.iter().map(|segment| segment.guest_address).min().unwrap_or(0),
    }
    .encode();
    let at = room.lowest("the Multiboot information", info.len() as u64)?;
    room.write(at, &info)?;
    let entry = EntryState::flat(entry).with_rax(LOADED_BY_MULTIBOOT2).with_rbx(at);
    Ok(Loaded { protocol: Protocol::Multiboot2, entry })
}

#[cfg(test)]
#[path = "multiboot2_test.rs"]
mod tests;
