//! Multiboot 1 kernels made by hand.

use super::*;
use crate::boot::test_elf::{BASE, Image, boot, never_panics, read, read_text, read32, read64};

const ADDRESSES: u32 = 1 << 16;

fn header(flags: u32, rest: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let fields = [magic, flags, 0_u32.wrapping_sub(magic).wrapping_sub(flags)];
    fields.iter().chain(rest).flat_map(|field| field.to_le_bytes()).collect()
}

/// An ELF whose code is the header, on four bytes.
fn elf(flags: u32) -> Image {
    // The code begins behind two program headers and a note of 20 bytes.
    let code = [vec![0; 4], header(flags, &[])].concat();
    Image { note_type: 17, header_entry: BASE + 2, code, ..Image::default() }
}

/// No ELF: 8 bytes of code, the header with addresses, 4 more bytes.
fn raw(load: u32, load_end: u32, bss_end: u32, entry: u32) -> Vec<u8> {
    [
        b"CODE CODE".as_slice()[..8].to_vec(),
        header(ADDRESSES, &[0x10_0008, load, load_end, bss_end, entry]),
        b"DATA".to_vec(),
    ]
    .concat()
}

#[test]
fn an_elf_kernel_finds_all_it_was_given() {
    for class64 in [false, true] {
        let kernel = Image { class64, machine: if class64 { 62 } else { 3 }, ..elf(3) }.build();
        let (ram, loaded) = boot(&kernel, Some(b"INITRD"), "a=1 b").unwrap();
        assert_eq!(
            (loaded.protocol, loaded.entry.rip, loaded.entry.rax),
            (Protocol::Multiboot, BASE + 2, 0x2bad_b002)
        );
        assert!(loaded.entry.page_tables.is_none(), "32-bit, whatever the file is");
        let info = loaded.entry.rbx;
        let field = |at| u64::from(read32(&ram, info + at));
        assert_eq!(field(0), 0b10_0100_1101);
        assert_eq!((field(4), field(8)), (639, 15 << 10));
        assert_eq!(read_text(&ram, field(16)), "kernel a=1 b");
        assert_eq!(field(20), 1);
        let module = field(24);
        let (start, end) = (read32(&ram, module), read32(&ram, module + 4));
        assert_eq!(end - start, 6);
        assert_eq!(&read::<6>(&ram, start.into()), b"INITRD");
        assert_eq!(read_text(&ram, read32(&ram, module + 8).into()), "initrd");
        let (bytes, map) = (field(44), field(48));
        assert_eq!(bytes % 24, 0);
        assert_eq!((read32(&ram, map), read64(&ram, map + 4), read64(&ram, map + 12)), (20, 0, 0x9_fc00));
        assert_eq!(read_text(&ram, field(64)), "godwit");
        assert_eq!(read32(&ram, 0x40e) & 0xffff, 0x9fc0, "the extended BIOS data area");
        assert_eq!((read::<2>(&ram, 0x413), read::<2>(&ram, 0x400)), ([0x7f, 2], [0xf8, 3]));
        assert_eq!(&read::<4>(&ram, 0x500), b"LBIO", "payloads of coreboot have such a header too");
    }
}

#[test]
fn no_initrd_is_no_module_and_a_screen_is_told_to_who_asks() {
    let (ram, loaded) = boot(&elf(4).build(), None, "").unwrap();
    let info = loaded.entry.rbx;
    assert_eq!((read32(&ram, info + 20), read32(&ram, info) >> 12), (0, 1));
    assert_eq!(read_text(&ram, read32(&ram, info + 16).into()), "kernel");
    assert_eq!((read64(&ram, info + 88), read::<1>(&ram, info + 109)), (0xb_8000, [2]));
}

#[test]
fn the_headers_addresses_load_what_is_no_elf_file() {
    let (ram, loaded) = boot(&raw(0x10_0000, 0, 0, 0x10_0004), None, "").unwrap();
    assert_eq!(loaded.entry.rip, 0x10_0004);
    assert_eq!(&read::<8>(&ram, 0x10_0000), b"CODE COD");
    assert_eq!(&read::<4>(&ram, 0x10_0028), b"DATA");
    // Part of the file only, and more memory than that.
    let (ram, _) = boot(&raw(0x10_0004, 0x10_0028, 0x10_9000, 0x10_0004), None, "").unwrap();
    assert_eq!((&read::<4>(&ram, 0x10_0004), read::<4>(&ram, 0x10_0028)), (b" COD", [0; 4]));
}

#[test]
fn what_cannot_be_booted_says_why() {
    let damaged =
        |file: &[u8]| assert!(matches!(boot(file, None, ""), Err(BootError::DamagedMultiboot { .. })));
    damaged(&header(0, &[]));
    damaged(&header(ADDRESSES, &[0x10_0000]));
    damaged(&raw(0x10_0009, 0, 0, 0x10_0009));
    damaged(&raw(0x0f_0000, 0, 0, 0x10_0000));
    damaged(&raw(0x10_0000, 0x20_0000, 0, 0x10_0000));
    damaged(&raw(0x10_0000, 0x0f_0000, 0, 0x10_0000));
    damaged(&raw(0x10_0000, 0, 0x10_0001, 0x10_0000));
    damaged(&raw(0x10_0000, 0, 0x0f_0000, 0x10_0000));
    assert!(matches!(boot(&raw(0x10_0000, 0, 0, 7), None, ""), Err(BootError::EntryOutside { entry: 7 })));
    assert!(matches!(boot(&elf(8).build(), None, ""), Err(BootError::MultibootNeeds { .. })));
}

#[test]
fn a_header_counts_only_where_the_specification_looks() {
    let at = |before: usize| [vec![0; before], header(0, &[])].concat();
    assert!(header::find(&at(8192 - 12)).unwrap().is_some());
    assert!(header::find(&at(8192 - 8)).unwrap().is_none());
    assert!(header::find(&at(6)).unwrap().is_none());
    let mut wrong_sum = at(0);
    wrong_sum[8] ^= 1;
    assert!(header::find(&wrong_sum).unwrap().is_none());
}

#[test]
fn a_kernel_cut_anywhere_or_with_any_byte_broken_never_panics() {
    never_panics(&raw(0x10_0000, 0x10_0028, 0x10_9000, 0x10_0004), usize::MAX);
    never_panics(&elf(7).build(), usize::MAX);
}
