//! What a segment register holds after a selector was written to it by a debugger. Pure.
//!
//! A CPU takes the hidden part from the descriptor tables; KVM wants it from us (Intel SDM volume 3,
//! sections 3.4.5, 21.1.1).

use thiserror::Error;

use crate::saved_state::{SegmentV1, SystemRegistersV1};

/// CR0: protected mode.
const CR0_PE: u64 = 1;
/// RFLAGS: virtual-8086 mode.
const RFLAGS_VM: u64 = 1 << 17;
/// Selector: it is in the local table.
const SELECTOR_LOCAL: u16 = 1 << 2;

/// Why a selector cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// No descriptor, or none that can be read.
    #[error("the guest's descriptor tables have nothing for selector {selector:#x} that can be read")]
    NoDescriptor {
        /// The selector.
        selector: u16,
    },
    /// Not code or data, or not present.
    #[error("selector {selector:#x} is of a segment that is not present, or neither code nor data")]
    NotASegment {
        /// The selector.
        selector: u16,
    },
}

/// The segment that `selector` stands for, where `now` is what the register holds. `read` reads 8 bytes at a
/// linear address.
pub(super) fn load(
    selector: u16,
    now: &SegmentV1,
    system: &SystemRegistersV1,
    rflags: u64,
    read: impl FnOnce(u64) -> Option<[u8; 8]>,
) -> Result<SegmentV1, SegmentError> {
    if system.cr0 & CR0_PE == 0 || rflags & RFLAGS_VM != 0 {
        return Ok(SegmentV1 { selector, base: u64::from(selector) << 4, ..*now });
    }
    if selector & !3 == 0 {
        return Ok(SegmentV1 { selector, unusable: 1, present: 0, ..*now });
    }
    let missing = SegmentError::NoDescriptor { selector };
    let (base, limit) = if selector & SELECTOR_LOCAL == 0 {
        (system.gdt.base, u32::from(system.gdt.limit))
    } else if system.ldt.unusable == 0 {
        (system.ldt.base, system.ldt.limit)
    } else {
        return Err(missing);
    };
    let offset = selector & !7;
    if u32::from(offset) + 7 > limit {
        return Err(missing);
    }
    let bytes = read(base.wrapping_add(offset.into())).ok_or(missing)?;
    decode(selector, u64::from_le_bytes(bytes)).ok_or(SegmentError::NotASegment { selector })
}

fn decode(selector: u16, descriptor: u64) -> Option<SegmentV1> {
    let bits = |first: u32, count: u32| descriptor >> first & ((1 << count) - 1);
    let flag = |bit: u32| u8::from(bits(bit, 1) == 1);
    if flag(44) == 0 || flag(47) == 0 {
        return None;
    }
    let limit = u32::try_from(bits(0, 16) | bits(48, 4) << 16).unwrap_or(u32::MAX);
    let granular = flag(55);
    Some(SegmentV1 {
        selector,
        base: bits(16, 24) | bits(56, 8) << 24,
        limit: if granular == 1 { limit << 12 | 0xfff } else { limit },
        // Accessed, as the CPU marks what it loads.
        kind: bits(40, 4).to_le_bytes()[0] | 1,
        s: 1,
        dpl: bits(45, 2).to_le_bytes()[0],
        present: 1,
        avl: flag(52),
        l: flag(53),
        db: flag(54),
        g: granular,
        unusable: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved_state::TableV1;

    fn protected() -> SystemRegistersV1 {
        let mut system = SystemRegistersV1 { cr0: CR0_PE, ..Default::default() };
        system.gdt = TableV1 { base: 0x9000, limit: 0x2f };
        system.ldt.unusable = 1;
        system
    }

    #[test]
    fn a_descriptor_becomes_the_hidden_part() {
        let now = SegmentV1::default();
        let code = load(0x2b, &now, &protected(), 2, |at| {
            (at == 0x9028).then_some(0x00af_fb00_0000_ffff_u64.to_le_bytes())
        })
        .unwrap();
        let flat = SegmentV1 {
            selector: 0x2b,
            limit: u32::MAX,
            kind: 0xb,
            present: 1,
            dpl: 3,
            s: 1,
            l: 1,
            g: 1,
            ..now
        };
        assert_eq!(code, flat);
        let data =
            load(0x10, &now, &protected(), 2, |_| Some(0x1240_9234_5678_4321_u64.to_le_bytes())).unwrap();
        assert_eq!((data.base, data.limit, data.db, data.g), (0x1234_5678, 0x4321, 1, 0));
    }

    #[test]
    fn real_mode_needs_no_table() {
        let mut system = protected();
        let now = SegmentV1 { limit: 0xffff, ..Default::default() };
        let expected = SegmentV1 { selector: 0x9f00, base: 0x9_f000, ..now };
        assert_eq!(load(0x9f00, &now, &system, RFLAGS_VM, |_| None), Ok(expected));
        system.cr0 = 0;
        assert_eq!(load(0x9f00, &now, &system, 2, |_| None), Ok(expected));
    }

    #[test]
    fn what_the_tables_do_not_hold_is_refused() {
        let now = SegmentV1::default();
        let load = |selector, bytes: Option<u64>| {
            load(selector, &now, &protected(), 2, |_| bytes.map(u64::to_le_bytes)).unwrap_err()
        };
        assert_eq!(load(0x30, Some(u64::MAX)), SegmentError::NoDescriptor { selector: 0x30 });
        assert_eq!(load(0xc, Some(u64::MAX)), SegmentError::NoDescriptor { selector: 0xc });
        assert_eq!(load(0x8, None), SegmentError::NoDescriptor { selector: 8 });
        assert_eq!(load(0x8, Some(0)), SegmentError::NotASegment { selector: 8 });
    }
}
