//! bzImages made by hand, in versions of the protocol.

use super::*;
use crate::boot::linux_header;
use crate::boot::test_elf::{boot, never_panics, read, read_text, read32, read64};

const LOADFLAGS: usize = 0x211;
const XLOADFLAGS: usize = 0x236;
const RELOCATABLE: usize = 0x234;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const CMDLINE_SIZE: usize = 0x238;
const INITRD_ADDR_MAX: usize = 0x22c;

/// A bzImage with one setup sector and a small kernel.
fn bzimage(version: u16) -> Vec<u8> {
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes());
    // A jump over the header, which ends at 0x268.
    file[0x200..0x202].copy_from_slice(&[0xeb, 0x66]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    file[LOADFLAGS] = 1;
    set(&mut file, CMDLINE_SIZE, &255_u32.to_le_bytes());
    set(&mut file, INITRD_ADDR_MAX, &0x7fff_ffff_u32.to_le_bytes());
    file.extend(b"PROTECTED MODE");
    file
}

fn set(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn a_kernel_with_a_64_bit_entry_is_entered_there_and_finds_all_it_was_given() {
    let mut file = bzimage(0x20f);
    set(&mut file, XLOADFLAGS, &1_u16.to_le_bytes());
    file[RELOCATABLE] = 1;
    set(&mut file, PREF_ADDRESS, &0x40_0000_u64.to_le_bytes());
    set(&mut file, INIT_SIZE, &0x10_0000_u32.to_le_bytes());
    let (ram, loaded) = boot(&file, Some(b"INITRD"), "console=ttyS0").unwrap();
    assert_eq!(loaded.protocol, Protocol::Linux64);
    assert_eq!(loaded.entry.rip, 0x40_0200);
    assert!(loaded.entry.page_tables.is_some() && loaded.entry.gdt.is_some());
    assert_eq!(&read::<14>(&ram, 0x40_0000), b"PROTECTED MODE");
    let params = loaded.entry.rsi;
    assert_eq!(&read::<4>(&ram, params + 0x202), b"HdrS");
    assert_eq!(read::<1>(&ram, params + 0x210), [0xff]);
    assert_eq!(read32(&ram, params + 0x214), 0x40_0000);
    assert_eq!(read_text(&ram, read32(&ram, params + 0x228).into()), "console=ttyS0");
    assert_eq!(&read::<6>(&ram, read32(&ram, params + 0x218).into()), b"INITRD");
    assert_eq!(read32(&ram, params + 0x21c), 6);
    // The map: two pieces of RAM with the PC's hole between.
    assert!(read::<1>(&ram, params + 0x1e8)[0] >= 3);
    assert_eq!((read64(&ram, params + 0x2d0), read64(&ram, params + 0x2d8)), (0, 0x9_fc00));
    assert_eq!(read32(&ram, params + 0x2e0), 1);
    assert_eq!(read64(&ram, params + 0x2d0 + 40), 0x10_0000);
}

#[test]
fn a_kernel_without_one_is_entered_in_32_bit_mode_at_its_start() {
    for version in [0x202, 0x206, 0x20c, 0x20f] {
        let (ram, loaded) = boot(&bzimage(version), None, "x").unwrap();
        assert_eq!((loaded.protocol, loaded.entry.rip), (Protocol::Linux32, 0x10_0000), "{version:#x}");
        assert!(loaded.entry.page_tables.is_none() && loaded.entry.gdt.is_some());
        assert_eq!(read32(&ram, loaded.entry.rsi + 0x218), 0, "no initrd");
    }
}

#[test]
fn fields_that_a_version_does_not_have_are_not_read() {
    let mut file = bzimage(0x202);
    set(&mut file, XLOADFLAGS, &1_u16.to_le_bytes());
    file[RELOCATABLE] = 1;
    set(&mut file, PREF_ADDRESS, &u64::MAX.to_le_bytes());
    set(&mut file, CMDLINE_SIZE, &0_u32.to_le_bytes());
    let header = linux_header::parse(&file).unwrap().unwrap();
    assert_eq!((header.address, header.has_entry64, header.cmdline_bytes_max), (0x10_0000, false, 255));
    // Nor those behind the header's own end.
    let mut file = bzimage(0x20f);
    set(&mut file, XLOADFLAGS, &1_u16.to_le_bytes());
    file[0x201] = 0x30;
    assert!(!linux_header::parse(&file).unwrap().unwrap().has_entry64);
}

#[test]
fn the_initrd_ends_where_the_kernel_can_reach_it() {
    let mut file = bzimage(0x20c);
    set(&mut file, INITRD_ADDR_MAX, &0x7f_ffff_u32.to_le_bytes());
    let (ram, loaded) = boot(&file, Some(&[1; 5000]), "").unwrap();
    let at = read32(&ram, loaded.entry.rsi + 0x218);
    assert!(at + 5000 <= 0x80_0000 && at.is_multiple_of(4096), "{at:#x}");
}

#[test]
fn what_cannot_be_booted_says_why() {
    let error = |change: &dyn Fn(&mut Vec<u8>), cmdline: &str| {
        let mut file = bzimage(0x20c);
        change(&mut file);
        boot(&file, None, cmdline).unwrap_err()
    };
    assert!(matches!(
        error(&|file| set(file, 0x206, &[1, 2]), ""),
        BootError::OldLinux { major: 2, minor: 1 }
    ));
    assert!(matches!(error(&|file| file[LOADFLAGS] = 0, ""), BootError::DamagedLinux { .. }));
    assert!(matches!(error(&|file| file.truncate(1024), ""), BootError::DamagedLinux { .. }));
    assert!(matches!(error(&|file| file.truncate(0x208), ""), BootError::DamagedLinux { .. }));
    assert!(matches!(error(&|_| (), &"x".repeat(256)), BootError::CmdlineTooLong { bytes: 256, max: 255 }));
    let far = |file: &mut Vec<u8>| {
        file[RELOCATABLE] = 1;
        set(file, PREF_ADDRESS, &(u64::MAX - 4).to_le_bytes());
    };
    assert!(matches!(error(&far, ""), BootError::KernelOutsideRam { .. }));
    let large = |file: &mut Vec<u8>| set(file, INIT_SIZE, &u32::MAX.to_le_bytes());
    assert!(matches!(error(&large, ""), BootError::KernelOutsideRam { .. }));
}

#[test]
fn a_bzimage_cut_anywhere_or_with_any_byte_broken_never_panics() {
    let mut file = bzimage(0x20f);
    set(&mut file, XLOADFLAGS, &1_u16.to_le_bytes());
    never_panics(&file, usize::MAX);
}
