//! Multiboot 2 kernels made by hand.

use super::*;
use crate::boot::test_elf::{BASE, Image, boot, never_panics, read, read_text, read32, read64};

/// A tag with its flags and payload.
type Tag<'a> = (u16, u16, &'a [u32]);

fn header(tags: &[Tag<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, flags, payload) in tags.iter().chain([&(0, 0, [].as_slice())]) {
        body.extend(kind.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend(u32::try_from(8 + 4 * payload.len()).unwrap().to_le_bytes());
        payload.iter().for_each(|value| body.extend(value.to_le_bytes()));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let (magic, bytes) = (0xe852_50d6_u32, u32::try_from(16 + body.len()).unwrap());
    let fields = [magic, 0, bytes, 0_u32.wrapping_sub(magic).wrapping_sub(bytes)];
    [fields.iter().flat_map(|field| field.to_le_bytes()).collect(), body].concat()
}

/// A 64-bit ELF whose code is the header, on eight bytes.
fn elf(tags: &[Tag<'_>]) -> Vec<u8> {
    let code = [vec![0; 4], header(tags)].concat();
    Image { note_type: 17, header_entry: BASE + 2, code, ..Image::default() }.build()
}

/// Where the tags of an information structure lie, by kind.
fn tags(ram: &crate::memory::GuestRam, info: u64) -> std::collections::BTreeMap<u32, u64> {
    let end = info + u64::from(read32(ram, info));
    let mut found = std::collections::BTreeMap::new();
    let mut at = info + 8;
    while at < end {
        found.insert(read32(ram, at), at);
        at += u64::from(read32(ram, at + 4)).next_multiple_of(8);
    }
    assert_eq!(at, end);
    found
}

#[test]
fn an_elf_kernel_finds_all_it_was_given() {
    let (ram, loaded) = boot(&elf(&[(1, 0, &[6, 3])]), Some(b"INITRD"), "a=1").unwrap();
    assert_eq!(
        (loaded.protocol, loaded.entry.rip, loaded.entry.rax),
        (Protocol::Multiboot2, BASE + 2, 0x36d7_6289)
    );
    let tags = tags(&ram, loaded.entry.rbx);
    assert_eq!(read_text(&ram, tags[&1] + 8), "a=1");
    assert_eq!(read_text(&ram, tags[&2] + 8), "godwit");
    let start = read32(&ram, tags[&3] + 8);
    assert_eq!((read32(&ram, tags[&3] + 12) - start, &read::<6>(&ram, start.into())), (6, b"INITRD"));
    assert_eq!((read32(&ram, tags[&4] + 8), read32(&ram, tags[&4] + 12)), (639, 15 << 10));
    assert_eq!((read32(&ram, tags[&6] + 8), read64(&ram, tags[&6] + 24)), (24, 0x9_fc00));
    assert_eq!(u64::from(read32(&ram, tags[&21] + 8)), BASE);
    assert!(tags.contains_key(&0) && !tags.contains_key(&8));
}

#[test]
fn addresses_and_entry_of_its_header_load_what_is_no_elf_file() {
    for load in [0x10_0000, u32::MAX] {
        let tags: [Tag<'_>; 3] =
            [(2, 0, &[0x10_0000, load, 0, 0x10_9000]), (3, 0, &[0x10_0040]), (5, 0, &[80, 25, 0])];
        let (ram, loaded) = boot(&header(&tags), None, "").unwrap();
        assert_eq!((loaded.entry.rip, read32(&ram, 0x10_0000)), (0x10_0040, 0xe852_50d6));
        assert!(self::tags(&ram, loaded.entry.rbx).contains_key(&8), "it asked about its screen");
    }
}

#[test]
fn what_it_requires_and_is_not_there_is_refused() {
    // ACPI tables, and a tag of the future; either is fine if it may be ignored.
    for tag in [(1, &[15][..]), (99, &[])] {
        assert!(matches!(boot(&elf(&[(tag.0, 0, tag.1)]), None, ""), Err(BootError::MultibootNeeds { .. })));
        assert!(boot(&elf(&[(tag.0, 1, tag.1)]), None, "").is_ok());
    }
    let damaged =
        |file: &[u8]| assert!(matches!(boot(file, None, ""), Err(BootError::DamagedMultiboot { .. })));
    damaged(&header(&[]));
    damaged(&header(&[(2, 0, &[1])]));
    damaged(&header(&[(2, 0, &[0x10_0000, 0x10_0000, 0, 0])]));
}

#[test]
fn a_header_counts_only_where_the_specification_looks() {
    let at = |before: usize| [vec![0; before], header(&[])].concat();
    let bytes = header(&[]).len();
    assert!(header::find(&at(32768 - bytes)).unwrap().is_some());
    assert!(header::find(&at(32768)).unwrap().is_none());
    assert!(header::find(&at(4)).unwrap().is_none());
}

#[test]
fn a_kernel_cut_anywhere_or_with_any_byte_broken_never_panics() {
    let tags: [Tag<'_>; 3] = [(1, 0, &[6, 3]), (2, 1, &[0x20_0000, 0x20_0000, 0, 0]), (3, 0, &[0x20_0000])];
    never_panics(&elf(&tags), usize::MAX);
    never_panics(&header(&tags), usize::MAX);
}
