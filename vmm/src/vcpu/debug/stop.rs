//! What a debug exit was about: the debugger's stop, or an exception that is the guest's own. Pure.

use std::fmt;

use kvm_bindings::{KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_INJECT_DB, kvm_debug_exit_arch};

use super::controls::DebugControls;

/// Vectors of the two exceptions that can be told.
const DEBUG_EXCEPTION: u32 = 1;
const BREAKPOINT_EXCEPTION: u32 = 3;

/// Why a vCPU stopped for its debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugStop {
    /// One instruction was executed.
    Step,
    /// At an `int3` that the debugger put there; the instruction pointer is at it.
    Breakpoint,
    /// At the point of this index in [`DebugControls::points`].
    Point(usize),
}

/// Hears of stops.
pub trait DebugSink: Send + Sync + fmt::Debug {
    /// This vCPU has stopped, and parks. Said before the vCPU counts as parked, so who has waited for all
    /// vCPUs has heard of every stop. Called on the vCPU's thread: must not wait for the machine.
    fn stopped(&self, vcpu: u32, stop: DebugStop);
}

/// What becomes of a debug exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stop(DebugStop),
    /// The guest's own exception: the flag of `KVM_SET_GUEST_DEBUG` that hands it to the guest.
    Guests(u32),
}

/// Judges an exit. `breakpoint_at` is the guest-physical address behind its instruction pointer.
pub(super) fn judge(
    exit: &kvm_debug_exit_arch,
    controls: &DebugControls,
    breakpoint_at: impl FnOnce(u64) -> Option<u64>,
) -> Verdict {
    match exit.exception {
        BREAKPOINT_EXCEPTION => match breakpoint_at(exit.pc) {
            Some(at) if controls.breakpoints.contains(&at) => Verdict::Stop(DebugStop::Breakpoint),
            _ => Verdict::Guests(KVM_GUESTDBG_INJECT_BP),
        },
        DEBUG_EXCEPTION => {
            let hit = |index: &usize| controls.points[*index].is_some() && exit.dr6 & 1 << index != 0;
            match (0..controls.points.len()).find(hit) {
                Some(index) => Verdict::Stop(DebugStop::Point(index)),
                None if controls.step => Verdict::Stop(DebugStop::Step),
                None => Verdict::Guests(KVM_GUESTDBG_INJECT_DB),
            }
        }
        // No exception is told where KVM ends a step by itself.
        _ => Verdict::Stop(DebugStop::Step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::debug::{DebugPoint, PointKind};
    use std::sync::Arc;

    fn exit(exception: u32, dr6: u64) -> kvm_debug_exit_arch {
        kvm_debug_exit_arch { exception, pc: 0x5000, dr6, ..Default::default() }
    }

    #[test]
    fn a_breakpoint_is_the_debuggers_only_where_it_put_one() {
        let controls = DebugControls { breakpoints: Arc::new([0x1000].into()), ..Default::default() };
        let judged = |at| judge(&exit(3, 0), &controls, |pc| (pc == 0x5000).then_some(at)?);
        assert_eq!(judged(Some(0x1000)), Verdict::Stop(DebugStop::Breakpoint));
        assert_eq!(judged(Some(0x5000)), Verdict::Guests(KVM_GUESTDBG_INJECT_BP));
        assert_eq!(judged(None), Verdict::Guests(KVM_GUESTDBG_INJECT_BP));
    }

    #[test]
    fn a_point_is_told_before_a_step_and_the_rest_is_the_guests() {
        let mut controls = DebugControls::default();
        controls.points[2] = DebugPoint::new(PointKind::Write, 0x2000, 4);
        let judged = |controls: &DebugControls, dr6| judge(&exit(1, dr6), controls, |_| None);
        assert_eq!(judged(&controls, 0b0100), Verdict::Stop(DebugStop::Point(2)));
        assert_eq!(judged(&controls, 0b0010), Verdict::Guests(KVM_GUESTDBG_INJECT_DB));
        assert_eq!(judged(&controls, 1 << 14), Verdict::Guests(KVM_GUESTDBG_INJECT_DB));
        controls.step = true;
        assert_eq!(judged(&controls, 0b0100 | 1 << 14), Verdict::Stop(DebugStop::Point(2)));
        assert_eq!(judged(&controls, 1 << 14), Verdict::Stop(DebugStop::Step));
    }
}
