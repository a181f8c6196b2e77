//! PVH kernels of all kinds of brokenness.
#![allow(clippy::cast_possible_truncation, reason = "values made by hand, all small")]

use super::*;
use crate::boot::CMDLINE_BYTES_MAX;
use crate::boot::test_elf::{BASE, Image, boot, never_panics, read, read64};

#[test]
fn a_good_kernel_finds_all_it_was_given() {
    for class64 in [true, false] {
        let machine = if class64 { 62 } else { 3 };
        let kernel = Image { class64, machine, ..Image::default() }.build();
        let (ram, loaded) = boot(&kernel, Some(b"INITRD"), "console=ttyS0").unwrap();
        assert_eq!(loaded.entry.rip, BASE + 4);
        assert_eq!(&read::<4>(&ram, BASE), b"CODE");
        let info = loaded.entry.rbx;
        assert_eq!(read::<4>(&ram, info), 0x336e_c578_u32.to_le_bytes());
        assert_eq!(&read::<14>(&ram, read64(&ram, info + 24)), b"console=ttyS0\0");
        let modlist = read64(&ram, info + 16);
        assert_eq!(&read::<6>(&ram, read64(&ram, modlist)), b"INITRD");
        assert_eq!(read64(&ram, modlist + 8), 6);
    }
}

#[test]
fn what_is_no_kernel_says_why() {
    assert!(matches!(boot(b"", None, ""), Err(BootError::NoKernel)));
    assert!(matches!(boot(b"#!/bin/sh\n", None, ""), Err(BootError::NoKernel)));
    let arm = Image { machine: 183, ..Image::default() }.build();
    assert!(matches!(boot(&arm, None, ""), Err(BootError::WrongArchitecture)));
    let outside = Image { entry: 0x1000, ..Image::default() }.build();
    assert!(matches!(boot(&outside, None, ""), Err(BootError::EntryOutside { .. })));
    let large = Image { memory_bytes: 1 << 30, ..Image::default() }.build();
    assert!(matches!(boot(&large, None, ""), Err(BootError::KernelOutsideRam { .. })));
    let wraps = Image { address: u64::MAX - 5, ..Image::default() }.build();
    assert!(boot(&wraps, None, "").is_err());
    let shrinks = Image { memory_bytes: 5, ..Image::default() }.build();
    assert!(matches!(boot(&shrinks, None, ""), Err(BootError::DamagedElf { .. })));
}

#[test]
fn a_kernel_cut_anywhere_or_with_any_byte_broken_never_panics() {
    let kernel = Image::default().build();
    never_panics(&kernel, kernel.len());
    for length in 0..kernel.len() {
        assert!(boot(&kernel[..length], None, "").is_err(), "cut at {length}");
    }
}

#[test]
fn what_does_not_fit_says_so() {
    let kernel = Image::default().build();
    let huge = vec![1; 20 << 20];
    assert!(matches!(boot(&kernel, Some(&huge), ""), Err(BootError::NoRoom { what: "the initrd", .. })));
    let long = "x".repeat(CMDLINE_BYTES_MAX + 1);
    assert!(matches!(boot(&kernel, None, &long), Err(BootError::CmdlineTooLong { .. })));
    assert!(matches!(boot(&kernel, None, "a\0b"), Err(BootError::CmdlineHasZero)));
}

#[test]
fn boot_information_goes_around_a_kernel_that_loads_low() {
    let kernel = Image { address: 0x1000, entry: 0x1000, memory_bytes: 0x9_0000, ..Image::default() }.build();
    let (_, loaded) = boot(&kernel, None, "a").unwrap();
    assert!(loaded.entry.rbx >= 0x9_1000);
}
