//! Whether this host's CPU has the features that a guest already uses. Pure.
//!
//! Only registers that are sets of feature bits are compared; those that hold numbers (topology, cache
//! sizes, frequencies) differ between hosts without harm. Each missing bit is named by leaf and register.

use crate::saved_state::CpuidEntryV1;

/// Leaf, index, register and a name for people.
const FEATURE_REGISTERS: &[(u32, u32, Register)] = &[
    (0x1, 0, Register::Ecx),
    (0x1, 0, Register::Edx),
    (0x7, 0, Register::Ebx),
    (0x7, 0, Register::Ecx),
    (0x7, 0, Register::Edx),
    (0x7, 1, Register::Eax),
    (0x7, 1, Register::Ecx),
    (0x7, 1, Register::Edx),
    (0x7, 2, Register::Edx),
    (0xd, 0, Register::Eax),
    (0xd, 1, Register::Eax),
    (0x8000_0001, 0, Register::Ecx),
    (0x8000_0001, 0, Register::Edx),
    (0x8000_0008, 0, Register::Ebx),
    (0x8000_0021, 0, Register::Eax),
    (0x4000_0001, 0, Register::Eax),
];

/// Bits that this VMM or the guest sets itself, so that the host's table need not offer them: leaf 1
/// ECX hypervisor, TSC deadline and OSXSAVE; leaf 1 EDX HTT; leaf 7 ECX OSPKE.
const NOT_FROM_HOST: &[(u32, u32, Register, u32)] = &[
    (0x1, 0, Register::Ecx, (1 << 31) | (1 << 27) | (1 << 24)),
    (0x1, 0, Register::Edx, 1 << 28),
    (0x7, 0, Register::Ecx, 1 << 4),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    fn of(self, entry: &CpuidEntryV1) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }
}

/// Names every feature of `guest` that `host` does not support.
///
/// # Errors
/// At least one is missing; the text lists them.
pub fn check_features(guest: &[CpuidEntryV1], host: &[CpuidEntryV1]) -> Result<(), String> {
    let mut missing = Vec::new();
    if vendor(guest) != vendor(host) {
        missing.push("its CPU vendor".to_owned());
    }
    for &(leaf, index, register) in FEATURE_REGISTERS {
        let bits = value(guest, leaf, index, register) & !value(host, leaf, index, register);
        let own =
            NOT_FROM_HOST.iter().find(|n| (n.0, n.1, n.2) == (leaf, index, register)).map_or(0, |n| n.3);
        let bits = bits & !own;
        missing.extend(
            (0..32)
                .filter(|bit| bits & (1 << bit) != 0)
                .map(|bit| format!("CPUID {leaf:#x}.{index} {} bit {bit}", register.name())),
        );
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

/// Leaf 0 EBX, EDX, ECX.
fn vendor(entries: &[CpuidEntryV1]) -> [u32; 3] {
    [Register::Ebx, Register::Edx, Register::Ecx].map(|register| value(entries, 0, 0, register))
}

fn value(entries: &[CpuidEntryV1], leaf: u32, index: u32, register: Register) -> u32 {
    entries.iter().find(|e| e.function == leaf && e.index == index).map_or(0, |e| register.of(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, ecx: u32) -> CpuidEntryV1 {
        CpuidEntryV1 { function, ecx, ..Default::default() }
    }

    #[test]
    fn missing_bits_are_named_and_extra_ones_are_fine() {
        let error = check_features(&[leaf(1, 0b101)], &[leaf(1, 0b1100)]).unwrap_err();
        assert_eq!(error, "CPUID 0x1.0 ECX bit 0");
        assert_eq!(check_features(&[leaf(1, 1)], &[leaf(1, 3)]), Ok(()));
    }

    #[test]
    fn another_vendor_is_named() {
        let intel = CpuidEntryV1 { ebx: 0x756e_6547, ..leaf(0, 0x6c65_746e) };
        let error = check_features(&[intel], &[leaf(0, 0x444d_4163)]).unwrap_err();
        assert_eq!(error, "its CPU vendor");
    }

    #[test]
    fn what_the_vmm_sets_itself_is_not_asked_of_the_host() {
        assert_eq!(check_features(&[leaf(1, 1 << 31)], &[leaf(1, 0)]), Ok(()));
    }
}
