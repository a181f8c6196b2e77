//! Multiboot 1: 32-bit entry with EAX telling the protocol and EBX at the Multiboot information.
//! Source: Multiboot specification 0.6.96 (Debian's package `multiboot` has it).

mod addresses;
pub(super) mod header;
mod info;

pub(super) use addresses::{AddressFields, Placed, place};

use self::header::Header;
use self::info::Info;
use super::bios_data;
use super::bytes::address32;
use super::coreboot;
use super::elf::Kernel;
use super::error::BootError;
use super::image::{BootImage, Loaded, Protocol};
use super::registers::EntryState;
use super::room::Room;

/// What EAX holds at the entry.
const LOADED_BY_MULTIBOOT: u32 = 0x2bad_b002;
/// Boot loaders put the kernel's file name before its command line, and some kernels drop the first word.
const FIRST_WORD: &str = "kernel";

pub(super) fn load(
    mut room: Room<'_>,
    image: &BootImage<'_>,
    elf: Option<&Kernel<'_>>,
    header: &Header,
) -> Result<Loaded, BootError> {
    let Placed { segments, entry } = place(image.kernel, elf, header.addresses.as_ref(), None)?;
    room.load(&segments)?;
    let initrd = image.initrd.map(|initrd| room.initrd(initrd, u64::MAX)).transpose()?;
    let cmdline = match image.cmdline {
        "" => FIRST_WORD.to_owned(),
        cmdline => format!("{FIRST_WORD} {cmdline}"),
    };
    let mut info =
        Info { cmdline: &cmdline, initrd, layout: room.layout().clone(), video: header.video, at: 0 };
    info.at = address32(room.lowest("the Multiboot information", info.encode().len() as u64)?);
    room.write(info.at.into(), &info.encode())?;
    bios_data::write(&room, &segments)?;
    coreboot::write_table(&room, &segments)?;
    let entry = EntryState::flat(entry).with_rax(LOADED_BY_MULTIBOOT).with_rbx(info.at.into());
    Ok(Loaded { protocol: Protocol::Multiboot, entry })
}

#[cfg(test)]
#[path = "multiboot_test.rs"]
mod tests;
