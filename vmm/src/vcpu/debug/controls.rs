//! What stops a vCPU, and the same in KVM's terms. Pure.
//!
//! Debug register 7: Intel SDM volume 3, section 18.2.4.

use std::collections::BTreeSet;
use std::sync::Arc;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};

/// The CPU has so many address registers for breakpoints and watchpoints.
pub const POINTS_MAX: usize = 4;

/// DR7: a bit that always reads as one, and "exact" for CPUs that heed it.
const DR7_BASE: u64 = 0x0600;

/// What about an address is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointKind {
    /// It is about to be executed.
    Execute,
    /// It was written.
    Write,
    /// It was read or written. The CPU cannot watch reads alone.
    Access,
}

/// One watched address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugPoint {
    kind: PointKind,
    address: u64,
    bytes: u8,
}

impl DebugPoint {
    /// A point that the CPU can watch: 1, 2, 4 or 8 bytes at a multiple of their number; one byte to execute.
    #[must_use]
    pub fn new(kind: PointKind, address: u64, bytes: u64) -> Option<Self> {
        let size_is_possible = match kind {
            PointKind::Execute => bytes == 1,
            PointKind::Write | PointKind::Access => matches!(bytes, 1 | 2 | 4 | 8),
        };
        let bytes = u8::try_from(bytes).ok().filter(|_| size_is_possible)?;
        address.is_multiple_of(bytes.into()).then_some(Self { kind, address, bytes })
    }

    /// Its linear address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// R/W and LEN fields.
    fn condition(self) -> u64 {
        let kind = match self.kind {
            PointKind::Execute => 0b00,
            PointKind::Write => 0b01,
            PointKind::Access => 0b11,
        };
        let length = match self.bytes {
            2 => 0b01,
            4 => 0b11,
            8 => 0b10,
            _ => 0b00,
        };
        length << 2 | kind
    }
}

/// What stops a vCPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebugControls {
    /// After one instruction.
    pub step: bool,
    /// At these addresses, by the CPU's debug registers.
    pub points: [Option<DebugPoint>; POINTS_MAX],
    /// At an `int3` whose byte is at one of these guest-physical addresses. Any other is the guest's own.
    pub breakpoints: Arc<BTreeSet<u64>>,
}

impl DebugControls {
    /// For `KVM_SET_GUEST_DEBUG`. `block_irq` says that KVM can hold interrupts back during a step, so that
    /// it does not end in a handler.
    pub(super) fn to_kernel(&self, block_irq: bool) -> kvm_guest_debug {
        let mut kernel = kvm_guest_debug {
            // Software breakpoints always: an `int3` of the guest's own then comes here too and is given back.
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP,
            ..Default::default()
        };
        if self.step {
            kernel.control |= KVM_GUESTDBG_SINGLESTEP;
            if block_irq {
                kernel.control |= KVM_GUESTDBG_BLOCKIRQ;
            }
        }
        let set = self.points.iter().enumerate().filter_map(|(index, point)| Some((index, (*point)?)));
        for (index, point) in set {
            if kernel.arch.debugreg[7] == 0 {
                kernel.control |= KVM_GUESTDBG_USE_HW_BP;
                kernel.arch.debugreg[7] = DR7_BASE;
            }
            kernel.arch.debugreg[index] = point.address;
            // The global enable bit; the local one goes off when the guest switches tasks.
            kernel.arch.debugreg[7] |= 2 << (2 * index) | point.condition() << (16 + 4 * index);
        }
        kernel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_cpu_can_watch_is_a_point() {
        for (kind, address, bytes) in [
            (PointKind::Execute, 0x1001, 1),
            (PointKind::Write, 0x1008, 8),
            (PointKind::Access, u64::MAX, 1),
            (PointKind::Write, 0x1002, 2),
        ] {
            assert!(DebugPoint::new(kind, address, bytes).is_some(), "{kind:?} {address:#x} {bytes}");
        }
        for (kind, address, bytes) in [
            (PointKind::Execute, 0x1000, 2),
            (PointKind::Write, 0x1004, 8),
            (PointKind::Write, 0x1000, 3),
            (PointKind::Access, 0x1000, 0),
            (PointKind::Access, 0, u64::MAX),
        ] {
            assert!(DebugPoint::new(kind, address, bytes).is_none(), "{kind:?} {address:#x} {bytes}");
        }
    }

    #[test]
    fn points_become_debug_registers() {
        let mut controls = DebugControls::default();
        let none = controls.to_kernel(true);
        assert_eq!(
            (none.control, none.arch.debugreg),
            (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, [0; 8])
        );
        controls.points[1] = DebugPoint::new(PointKind::Write, 0x2000, 8);
        controls.points[3] = DebugPoint::new(PointKind::Execute, 0x3001, 1);
        let two = controls.to_kernel(true);
        assert_eq!(two.control & KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_HW_BP);
        assert_eq!(two.arch.debugreg[..4], [0, 0x2000, 0, 0x3001]);
        // G1 and G3, and for point 1: write, 8 bytes.
        assert_eq!(two.arch.debugreg[7], 0x0600 | 1 << 3 | 1 << 7 | 0b1001 << 20);
    }

    #[test]
    fn a_step_holds_interrupts_back_where_that_is_possible() {
        let step = DebugControls { step: true, ..Default::default() };
        assert_eq!(step.to_kernel(true).control & KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_BLOCKIRQ);
        assert_eq!(step.to_kernel(false).control & KVM_GUESTDBG_BLOCKIRQ, 0);
        assert_eq!(step.to_kernel(false).control & KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_SINGLESTEP);
    }
}
