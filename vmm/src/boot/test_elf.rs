//! Kernels of all kinds, built by hand byte by byte, for the tests of every protocol.
#![allow(clippy::cast_possible_truncation, reason = "values made by hand, all small")]

use super::error::BootError;
use super::image::{BootImage, Loaded, load};
use crate::memory::{GuestRam, RamLayout};

pub(super) const BASE: u64 = 0x20_0000;

/// An ELF with one segment and one note.
pub(super) struct Image {
    pub(super) class64: bool,
    pub(super) machine: u16,
    pub(super) note_type: u32,
    pub(super) entry: u32,
    pub(super) address: u64,
    pub(super) memory_bytes: u64,
    pub(super) virtual_offset: u64,
    /// `ET_EXEC` or `ET_DYN`.
    pub(super) kind: u16,
    pub(super) header_entry: u64,
    pub(super) code: Vec<u8>,
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
            virtual_offset: 0,
            kind: 2,
            header_entry: 0,
            code: b"CODE CODE".to_vec(),
        }
    }
}

impl Image {
    pub(super) fn build(&self) -> Vec<u8> {
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
        let mut elf = vec![0x7f, b'E', b'L', b'F', if self.class64 { 2 } else { 1 }, 1, 1, 0];
        elf.resize(16, 0);
        elf.extend(self.kind.to_le_bytes());
        elf.extend(self.machine.to_le_bytes());
        elf.extend(1_u32.to_le_bytes());
        word(&mut elf, self.header_entry);
        word(&mut elf, header_bytes);
        word(&mut elf, 0);
        elf.extend(0_u32.to_le_bytes());
        for value in [header_bytes, program_bytes, 2, 0, 0, 0] {
            elf.extend((value as u16).to_le_bytes());
        }
        for (header, at, address, file, memory) in [
            (1_u32, code_at, self.address, self.code.len() as u64, self.memory_bytes),
            (4, note_at, 0, note.len() as u64, note.len() as u64),
        ] {
            elf.extend(header.to_le_bytes());
            if self.class64 {
                elf.extend(5_u32.to_le_bytes());
            }
            for value in [at, address + self.virtual_offset, address, file, memory] {
                word(&mut elf, value);
            }
            if !self.class64 {
                elf.extend(5_u32.to_le_bytes());
            }
            word(&mut elf, 4);
        }
        elf.extend(note);
        elf.extend(&self.code);
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

pub(super) fn boot(
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
) -> Result<(GuestRam, Loaded), BootError> {
    let ram = GuestRam::allocate(RamLayout::new(16 << 20).unwrap()).unwrap();
    let loaded = load(&ram, &BootImage { kernel, initrd, cmdline })?;
    Ok((ram, loaded))
}

pub(super) fn read<const N: usize>(ram: &GuestRam, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read(at, &mut bytes).unwrap();
    bytes
}

pub(super) fn read32(ram: &GuestRam, at: u64) -> u32 {
    u32::from_le_bytes(read(ram, at))
}

pub(super) fn read64(ram: &GuestRam, at: u64) -> u64 {
    u64::from_le_bytes(read(ram, at))
}

/// What is at `at` up to its zero byte.
pub(super) fn read_text(ram: &GuestRam, at: u64) -> String {
    let bytes = (at..).map(|at| read::<1>(ram, at)[0]).take_while(|byte| *byte != 0);
    String::from_utf8(bytes.collect()).unwrap()
}

/// Cuts `kernel` everywhere and breaks its first bytes one by one: an error is fine, a panic is not.
pub(super) fn never_panics(kernel: &[u8], broken_bytes: usize) {
    for length in (0..kernel.len()).rev() {
        let _ = boot(&kernel[..length], None, "");
    }
    for at in 0..broken_bytes.min(kernel.len()) {
        for value in [0, 0x7f, 0xff] {
            let mut broken = kernel.to_vec();
            broken[at] = value;
            let _ = boot(&broken, Some(b"INITRD"), "x");
        }
    }
}
