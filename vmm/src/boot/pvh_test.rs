//! Kernels of all kinds of brokenness, built by hand byte by byte.
#![allow(clippy::cast_possible_truncation, reason = "values made by hand, all small")]

use super::*;
use crate::memory::RamLayout;

const BASE: u64 = 0x20_0000;

/// A 64-bit ELF with one segment at [`BASE`] and one note.
struct Image {
    class64: bool,
    machine: u16,
    note_type: u32,
    entry: u32,
    address: u64,
    memory_bytes: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            class64: true,
            machine: 62,
            note_type: 18,
            entry: BASE as u32 + 4,
            address: BASE,
            memory_bytes: 0x2000,
        }
    }
}

impl Image {
    fn build(&self) -> Vec<u8> {
        let word = |bytes: &mut Vec<u8>, value: u64| {
            if self.class64 {
                bytes.extend(value.to_le_bytes());
            } else {
                bytes.extend((value as u32).to_le_bytes());
            }
        };
        let (header_bytes, program_bytes) = if self.class64 { (64_u64, 56_u64) } else { (52, 32) };
        let note_at = header_bytes + 2 * program_bytes;
        let note = note(self.note_type, self.entry);
        let code_at = note_at + note.len() as u64;
        let code = b"CODE CODE";
        let mut elf = vec![0x7f, b'E', b'L', b'F', if self.class64 { 2 } else { 1 }, 1, 1, 0];
        elf.resize(16, 0);
        elf.extend(2_u16.to_le_bytes());
        elf.extend(self.machine.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        word(&mut elf, 0);
        word(&mut elf, header_bytes);
        word(&mut elf, 0);
        elf.extend(0_u32.to_le_bytes());
        for value in [header_bytes, program_bytes, 2, 0, 0, 0] {
            elf.extend((value as u16).to_le_bytes());
        }
        for (kind, at, address, file, memory) in [
            (1_u32, code_at, self.address, code.len() as u64, self.memory_bytes),
            (4, note_at, 0, note.len() as u64, note.len() as u64),
        ] {
            elf.extend(kind.to_le_bytes());
            if self.class64 {
                elf.extend(5_u32.to_le_bytes());
            }
            for value in [at, address, address, file, memory] {
                word(&mut elf, value);
            }
            if !self.class64 {
                elf.extend(5_u32.to_le_bytes());
            }
            word(&mut elf, 4);
        }
        elf.extend(note);
        elf.extend(code);
        elf
    }
}

fn note(kind: u32, entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    for value in [4, 4, kind] {
        note.extend(value.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

fn boot(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Result<(GuestRam, Loaded), BootError> {
    let ram = GuestRam::allocate(RamLayout::new(16 << 20).unwrap()).unwrap();
    let loaded = load(&ram, &BootImage { kernel, initrd, cmdline })?;
    Ok((ram, loaded))
}

fn read<const N: usize>(ram: &GuestRam, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read(at, &mut bytes).unwrap();
    bytes
}

fn read64(ram: &GuestRam, at: u64) -> u64 {
    u64::from_le_bytes(read(ram, at))
}

#[test]
fn a_good_kernel_finds_all_it_was_given() {
    for class64 in [true, false] {
        let machine = if class64 { 62 } else { 3 };
        let kernel = Image { class64, machine, ..Image::default() }.build();
        let (ram, loaded) = boot(&kernel, Some(b"INITRD"), "console=ttyS0").unwrap();
        assert_eq!(loaded.entry, BASE as u32 + 4);
        assert_eq!(&read::<4>(&ram, BASE), b"CODE");
        let info = loaded.start_info;
        assert_eq!(read::<4>(&ram, info), 0x336e_c578_u32.to_le_bytes());
        assert_eq!(&read::<14>(&ram, read64(&ram, info + 24)), b"console=ttyS0\0");
        let modlist = read64(&ram, info + 16);
        assert_eq!(&read::<6>(&ram, read64(&ram, modlist)), b"INITRD");
        assert_eq!(read64(&ram, modlist + 8), 6);
    }
}

#[test]
fn what_is_no_kernel_says_why() {
    assert!(matches!(boot(b"", None, ""), Err(BootError::NotElf)));
    assert!(matches!(boot(b"#!/bin/sh\n", None, ""), Err(BootError::NotElf)));
    let arm = Image { machine: 183, ..Image::default() }.build();
    assert!(matches!(boot(&arm, None, ""), Err(BootError::WrongArchitecture)));
    let no_note = Image { note_type: 17, ..Image::default() }.build();
    assert!(matches!(boot(&no_note, None, ""), Err(BootError::NoPvhNote)));
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
    for length in 0..kernel.len() {
        assert!(boot(&kernel[..length], None, "").is_err(), "cut at {length}");
    }
    for at in 0..kernel.len() {
        for value in [0, 0x7f, 0xff] {
            let mut broken = kernel.clone();
            broken[at] = value;
            let _ = boot(&broken, None, "");
        }
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
    assert!(loaded.start_info >= 0x9_1000);
}
