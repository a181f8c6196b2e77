//! x87 and SSE registers inside an XSAVE area. Pure.
//!
//! The area's first 512 bytes are those of FXSAVE in 64-bit mode, the header follows (Intel SDM volume 1,
//! sections 10.5.1, 13.4).

use std::ops::Range;

const CONTROL: Range<usize> = 0..2;
const STATUS: Range<usize> = 2..4;
const TAG: usize = 4;
const OPCODE: Range<usize> = 6..8;
const INSTRUCTION: Range<usize> = 8..16;
const DATA: Range<usize> = 16..24;
const MXCSR: Range<usize> = 24..28;
const ST: usize = 32;
const XMM: usize = 160;
/// `XSTATE_BV`: which components of the area are not in their initial state.
const COMPONENTS: Range<usize> = 512..520;
/// x87 and SSE.
const LEGACY_COMPONENTS: u64 = 0b11;

/// x87 and SSE registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FloatRegisters {
    /// x87 control word.
    pub control: u16,
    /// x87 status word.
    pub status: u16,
    /// One bit for each physical x87 register: it is not empty.
    pub tag: u8,
    /// Last x87 opcode.
    pub opcode: u16,
    /// Last x87 instruction's address.
    pub instruction: u64,
    /// Last x87 operand's address.
    pub data: u64,
    /// SSE control and status.
    pub mxcsr: u32,
    /// The x87 stack from its top.
    pub st: [[u8; 10]; 8],
    /// SSE registers.
    pub xmm: [u128; 16],
}

impl FloatRegisters {
    /// Reads them from an area, `None` if it is too short to be one.
    pub(super) fn from_area(area: &[u8]) -> Option<Self> {
        let mut registers = Self {
            control: u16::from_le_bytes(field(area, CONTROL)?),
            status: u16::from_le_bytes(field(area, STATUS)?),
            tag: *area.get(TAG)?,
            opcode: u16::from_le_bytes(field(area, OPCODE)?),
            instruction: u64::from_le_bytes(field(area, INSTRUCTION)?),
            data: u64::from_le_bytes(field(area, DATA)?),
            mxcsr: u32::from_le_bytes(field(area, MXCSR)?),
            ..Self::default()
        };
        for (index, st) in registers.st.iter_mut().enumerate() {
            *st = field(area, slot(ST, index, 10))?;
        }
        for (index, xmm) in registers.xmm.iter_mut().enumerate() {
            *xmm = u128::from_le_bytes(field(area, slot(XMM, index, 16))?);
        }
        Some(registers)
    }

    /// Writes them into an area; the rest of it stays. `None` if it is too short.
    pub(super) fn write_to(&self, area: &mut [u8]) -> Option<()> {
        let components = u64::from_le_bytes(field(area, COMPONENTS)?) | LEGACY_COMPONENTS;
        area[COMPONENTS].copy_from_slice(&components.to_le_bytes());
        area[CONTROL].copy_from_slice(&self.control.to_le_bytes());
        area[STATUS].copy_from_slice(&self.status.to_le_bytes());
        area[TAG] = self.tag;
        area[OPCODE].copy_from_slice(&self.opcode.to_le_bytes());
        area[INSTRUCTION].copy_from_slice(&self.instruction.to_le_bytes());
        area[DATA].copy_from_slice(&self.data.to_le_bytes());
        area[MXCSR].copy_from_slice(&self.mxcsr.to_le_bytes());
        for (index, st) in self.st.iter().enumerate() {
            area[slot(ST, index, 10)].copy_from_slice(st);
        }
        for (index, xmm) in self.xmm.iter().enumerate() {
            area[slot(XMM, index, 16)].copy_from_slice(&xmm.to_le_bytes());
        }
        Some(())
    }
}

/// Registers of both files are 16 bytes apart.
fn slot(base: usize, index: usize, bytes: usize) -> Range<usize> {
    let start = base + 16 * index;
    start..start + bytes
}

fn field<const N: usize>(area: &[u8], range: Range<usize>) -> Option<[u8; N]> {
    area.get(range)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let mut area: Vec<u8> = (0..=255).cycle().take(1024).collect();
        area[COMPONENTS].copy_from_slice(&4_u64.to_le_bytes());
        let before = area.clone();
        let mut registers = FloatRegisters::from_area(&area).unwrap();
        registers.mxcsr = 0x1f80;
        registers.st[7] = [0xee; 10];
        registers.xmm[15] = u128::MAX / 3;
        registers.write_to(&mut area).unwrap();
        assert_eq!(FloatRegisters::from_area(&area), Some(registers));
        assert_eq!(area[COMPONENTS.start], 7, "x87 and SSE are in use now, the third component as before");
        assert_eq!((&area[416..512], &area[520..]), (&before[416..512], &before[520..]));
        assert_eq!(area[slot(ST, 7, 16)][10..], before[slot(ST, 7, 16)][10..]);
    }

    #[test]
    fn a_short_area_is_none() {
        assert_eq!(FloatRegisters::from_area(&[0; 415]), None);
        assert_eq!(FloatRegisters::default().write_to(&mut [0; 519]), None);
    }
}
