//! The bytes around an instruction, for a crash report. Only [`read_at`] asks KVM and reads guest memory.

use std::fmt;

use kvm_ioctls::VcpuFd;

use crate::PAGE_SIZE;
use crate::memory::GuestRam;
use crate::saved_state::{RegistersV1, SystemRegistersV1};

/// Shown before the instruction, at most.
const BYTES_BEFORE: u64 = 32;
/// Shown from the instruction on, at most: the longest instruction of x86 has 15.
const BYTES_FROM: u64 = 16;
/// EFER: the CPU is in long mode.
const EFER_LMA: u64 = 1 << 10;

/// What lies in memory around an instruction; what is not mapped there is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// What comes before it.
    before: Vec<u8>,
    /// The instruction's first byte and what follows: at least one byte.
    from: Vec<u8>,
}

impl fmt::Display for Code {
    /// In hexadecimal; the instruction's first byte is the one in angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.before {
            write!(f, "{byte:02x} ")?;
        }
        for (index, byte) in self.from.iter().enumerate() {
            match index {
                0 => write!(f, "<{byte:02x}>")?,
                _ => write!(f, " {byte:02x}")?,
            }
        }
        Ok(())
    }
}

/// The bytes around the instruction that these registers point to, through the guest's own page tables.
pub(super) fn read_at(
    vcpu: &VcpuFd,
    ram: &GuestRam,
    registers: &RegistersV1,
    system: &SystemRegistersV1,
) -> Option<Code> {
    around(linear_rip(registers, system), |address, bytes| {
        let Ok(translated) = vcpu.translate_gva(address) else { return false };
        translated.valid != 0 && ram.read(translated.physical_address, bytes).is_ok()
    })
}

/// Where the instruction is, as the guest's page tables see it.
fn linear_rip(registers: &RegistersV1, system: &SystemRegistersV1) -> u64 {
    let code_segment = &system.cs;
    if system.efer & EFER_LMA != 0 && code_segment.l != 0 {
        return registers.rip;
    }
    // Outside of 64-bit code, addresses have 32 bits and are counted from the segment's base.
    code_segment.base.wrapping_add(registers.rip) & 0xffff_ffff
}

/// Reads around `address`, page by page: `read` fills a piece that lies in one page, or says that there
/// is none.
fn around(address: u64, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Option<Code> {
    let mut piece = |begin: u64, end: u64| {
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        (bytes.is_empty() || read(begin, &mut bytes)).then_some(bytes)
    };
    let page = address & !(PAGE_SIZE - 1);
    let next_page = page.checked_add(PAGE_SIZE);

    let end = address.saturating_add(BYTES_FROM);
    let end_here = next_page.map_or(end, |next| end.min(next));
    let mut from = piece(address, end_here).filter(|bytes| !bytes.is_empty())?;
    from.extend(piece(end_here, end).unwrap_or_default());

    let begin = address.saturating_sub(BYTES_BEFORE);
    let begin_here = begin.max(page);
    let mut before = piece(begin, begin_here).unwrap_or_default();
    before.extend(piece(begin_here, address)?);
    Some(Code { before, from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved_state::SegmentV1;

    /// Memory in which each byte is the low byte of its address, mapped in these pages only.
    fn code(address: u64, mapped: &[u64]) -> Option<String> {
        let read = |begin: u64, bytes: &mut [u8]| {
            let last = begin + bytes.len() as u64 - 1;
            assert_eq!(begin / PAGE_SIZE, last / PAGE_SIZE, "{begin:#x} and {last:#x} are in one page");
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = (begin + index as u64).to_le_bytes()[0];
            }
            mapped.contains(&(begin / PAGE_SIZE))
        };
        around(address, read).map(|code| code.to_string())
    }

    #[test]
    fn the_instructions_first_byte_is_marked() {
        let shown = code(0x1080, &[1]).unwrap();
        assert!(shown.starts_with("60 61 62 "), "{shown}");
        assert!(shown.contains(" 7e 7f <80> 81 82 "), "{shown}");
        assert!(shown.ends_with(" 8e 8f"), "{shown}");
        assert_eq!(shown.split(' ').count(), 48);
    }

    #[test]
    fn what_is_not_mapped_is_left_out() {
        assert_eq!(code(0x1080, &[]), None);
        assert_eq!(code(0x1080, &[0, 2]), None, "its neighbours say nothing about it");
        assert_eq!(code(0x1002, &[1]).unwrap().split(' ').next(), Some("00"), "nothing of the page before");
        assert_eq!(code(0x1000, &[1]).unwrap().split(' ').next(), Some("<00>"));
        assert!(code(0x1002, &[0, 1]).unwrap().starts_with("e2 e3 "));
        assert!(code(0x1ffe, &[1]).unwrap().ends_with(" fd <fe> ff"));
        assert!(
            code(0x1ffe, &[1, 2]).unwrap().ends_with(" <fe> ff 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d")
        );
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_trap() {
        assert!(code(0, &[0]).unwrap().starts_with("<00> 01"));
        assert!(code(2, &[0]).unwrap().starts_with("00 01 <02>"));
        assert!(code(u64::MAX - 1, &[u64::MAX / PAGE_SIZE]).unwrap().ends_with(" <fe>"));
        assert_eq!(code(u64::MAX, &[u64::MAX / PAGE_SIZE]), None);
    }

    #[test]
    fn the_segment_counts_outside_of_64_bit_code() {
        let registers = RegistersV1 { rip: 0xfff0, ..Default::default() };
        let cs = SegmentV1 { base: 0xffff_0000, ..Default::default() };
        let mut system = SystemRegistersV1 { cs, ..Default::default() };
        assert_eq!(linear_rip(&registers, &system), 0xffff_fff0);
        system.cs.base = 0xffff_ff00;
        assert_eq!(linear_rip(&registers, &system), 0xfef0, "wraps at 32 bits");
        system.efer = EFER_LMA;
        system.cs.l = 1;
        assert_eq!(linear_rip(&registers, &system), 0xfff0);
    }
}
