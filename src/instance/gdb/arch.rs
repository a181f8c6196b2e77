//! The registers that gdb is told of, in the order of `target.xml`: those of `gdbstub_arch`, then segment
//! bases and control registers, which a kernel's developer needs.
//!
//! Always those of x86-64, also while the guest is still in 32-bit mode: gdb takes one description for the
//! whole connection.

use gdbstub::arch::{Arch, Registers};
use gdbstub_arch::x86::reg::X86_64CoreRegs;

/// Registers beyond the core.
pub(super) const SYSTEM_REGISTERS: usize = 8;
/// Bytes of the 57 registers of `X86_64CoreRegs`.
const CORE_BYTES: usize = 0x218;

/// x86-64 as gdb sees it.
#[derive(Debug)]
pub(super) enum Amd64 {}

impl Arch for Amd64 {
    type Usize = u64;
    type Registers = Amd64Registers;
    /// gdb reads and writes all of them at once.
    type RegId = ();
    type BreakpointKind = usize;

    fn target_description_xml() -> Option<&'static str> {
        Some(include_str!("target.xml"))
    }
}

/// All registers of a vCPU.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Amd64Registers {
    pub(super) core: X86_64CoreRegs,
    /// fs_base, gs_base, cr0, cr2, cr3, cr4, cr8, efer.
    pub(super) system: [u64; SYSTEM_REGISTERS],
}

impl Registers for Amd64Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.core.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.core.gdb_serialize(&mut write_byte);
        self.system
            .iter()
            .flat_map(|register| register.to_le_bytes())
            .for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (core, system) = bytes.split_at_checked(CORE_BYTES).ok_or(())?;
        self.core.gdb_deserialize(core)?;
        let (words, []) = system.as_chunks::<8>() else { return Err(()) };
        let words: &[_; SYSTEM_REGISTERS] = words.try_into().map_err(|_| ())?;
        self.system = words.map(u64::from_le_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_as_many_bytes_as_the_registers() {
        let xml = Amd64::target_description_xml().expect("there is one");
        let described: usize = xml
            .split("bitsize=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap() / 8)
            .sum();
        let mut written = 0;
        Amd64Registers::default().gdb_serialize(|_| written += 1);
        assert_eq!(
            (described, written),
            (CORE_BYTES + 8 * SYSTEM_REGISTERS, CORE_BYTES + 8 * SYSTEM_REGISTERS)
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let mut registers = Amd64Registers { system: [1, 2, 3, 4, 5, 6, 7, 8], ..Default::default() };
        registers.core.rip = 9;
        registers.core.mxcsr = 10;
        let mut bytes = Vec::new();
        registers.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        let mut read = Amd64Registers::default();
        read.gdb_deserialize(&bytes).unwrap();
        assert_eq!(read, registers);
        for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[]] {
            assert!(Amd64Registers::default().gdb_deserialize(wrong).is_err());
        }
    }
}
