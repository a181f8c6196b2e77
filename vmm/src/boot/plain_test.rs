//! ELF kernels that name no protocol.

use super::*;
use crate::boot::test_elf::{BASE, Image, boot, read, read_text, read32};

/// A kernel whose note is no PVH note.
fn plain() -> Image {
    Image { note_type: 17, header_entry: BASE + 2, ..Image::default() }
}

#[test]
fn a_64_bit_kernel_is_entered_in_long_mode_with_boot_params() {
    let (ram, loaded) = boot(&plain().build(), Some(b"INITRD"), "a b").unwrap();
    assert_eq!((loaded.protocol, loaded.entry.rip), (Protocol::Elf64, BASE + 2));
    assert!(loaded.entry.page_tables.is_some());
    let params = loaded.entry.rsi;
    assert_eq!(read::<2>(&ram, params + 0x1fe), [0x55, 0xaa]);
    assert_eq!(&read::<4>(&ram, params + 0x202), b"HdrS");
    assert_eq!(read_text(&ram, read32(&ram, params + 0x228).into()), "a b");
    assert_eq!(&read::<6>(&ram, read32(&ram, params + 0x218).into()), b"INITRD");
}

#[test]
fn a_32_bit_kernel_is_entered_flat_and_finds_coreboots_table() {
    let kernel = Image { class64: false, machine: 3, ..plain() }.build();
    let (ram, loaded) = boot(&kernel, None, "").unwrap();
    assert_eq!((loaded.protocol, loaded.entry.rip), (Protocol::Elf32, BASE + 2));
    assert!(loaded.entry.page_tables.is_none());
    assert_eq!(&read::<4>(&ram, 0x500), b"LBIO");
}

#[test]
fn a_kernel_that_loads_into_the_first_page_has_it_for_itself() {
    let kernel = Image { class64: false, machine: 3, address: 0x200, header_entry: 0x200, ..plain() }.build();
    let (ram, _) = boot(&kernel, None, "").unwrap();
    assert_eq!(&read::<4>(&ram, 0x200), b"CODE");
    assert_eq!(read::<4>(&ram, 0x500), [0; 4]);
}

#[test]
fn an_entry_point_given_as_a_virtual_address_is_found() {
    let offset = 0xffff_ffff_8000_0000 - BASE;
    let kernel = Image { virtual_offset: offset, header_entry: BASE + 4 + offset, ..plain() }.build();
    assert_eq!(boot(&kernel, None, "").unwrap().1.entry.rip, BASE + 4);
}

#[test]
fn what_is_no_kernel_says_why() {
    let program = Image { kind: 3, ..plain() }.build();
    assert!(matches!(boot(&program, None, ""), Err(BootError::Program)));
    let nowhere = Image { header_entry: 0x1000, ..plain() }.build();
    assert!(matches!(boot(&nowhere, None, ""), Err(BootError::EntryOutside { entry: 0x1000 })));
    assert!(matches!(boot(b"\x1f\x8b\x08", None, ""), Err(BootError::Compressed)));
}
