//! Breakpoints in guest memory, and the CPU's breakpoints and watchpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint, SwBreakpointOps,
    WatchKind,
};
use gdbstub::target::{TargetError, TargetResult};
use godwit_vmm::machine::PausedMachine;
use godwit_vmm::memory::GuestRam;
use godwit_vmm::vcpu::debug::{DebugPoint, POINTS_MAX, PointKind};

use super::guest::Guest;

/// The instruction that raises a breakpoint exception.
const INT3: u8 = 0xcc;
/// More breakpoints in memory than anybody sets.
const PATCHES_MAX: usize = 4096;
/// `EFAULT`, as gdb shows it.
const NOT_THERE: u8 = 14;

/// A byte of guest memory under an `int3`.
#[derive(Debug)]
struct Patch {
    physical: u64,
    original: u8,
}

/// `int3`s in guest memory, by the linear address that gdb gave.
#[derive(Debug, Default)]
pub(super) struct Patches(BTreeMap<u64, Patch>);

impl Patches {
    /// Where they are in guest-physical memory.
    pub(super) fn physical(&self) -> Arc<BTreeSet<u64>> {
        Arc::new(self.0.values().map(|patch| patch.physical).collect())
    }

    /// Puts one; false when there are too many, `None` if there is no memory.
    fn add(&mut self, linear: u64, physical: u64, ram: &GuestRam) -> Option<bool> {
        if self.0.contains_key(&linear) {
            return Some(true);
        }
        if self.0.len() >= PATCHES_MAX {
            return Some(false);
        }
        // The same byte may be patched already, by another address.
        let patched = self.0.values().find(|patch| patch.physical == physical).map(|patch| patch.original);
        let original = match patched {
            Some(original) => original,
            None => {
                let mut byte = [0];
                ram.read(physical, &mut byte).ok()?;
                ram.write(physical, &[INT3]).ok()?;
                byte[0]
            }
        };
        self.0.insert(linear, Patch { physical, original });
        Some(true)
    }

    fn remove(&mut self, linear: u64, ram: &GuestRam) {
        let Some(Patch { physical, original }) = self.0.remove(&linear) else { return };
        if self.0.values().any(|patch| patch.physical == physical) {
            return;
        }
        let mut byte = [0];
        // If the guest has written something else there, that stays.
        if ram.read(physical, &mut byte).is_ok() && byte[0] == INT3 {
            let _ = ram.write(physical, &[original]);
        }
    }

    pub(super) fn remove_all(&mut self, ram: &GuestRam) {
        while let Some(linear) = self.0.keys().next().copied() {
            self.remove(linear, ram);
        }
    }

    /// Shows memory that was read as it is without breakpoints.
    pub(super) fn hide(&self, start: u64, data: &mut [u8]) {
        for (linear, patch) in self.within(start, data.len()) {
            if let Some(byte) = offset(start, linear).and_then(|at| data.get_mut(at))
                && *byte == INT3
            {
                *byte = patch.original;
            }
        }
    }

    /// Keeps breakpoints in memory that gdb wrote.
    pub(super) fn overwritten(&mut self, start: u64, data: &[u8], ram: &GuestRam) {
        let under: Vec<u64> = self.within(start, data.len()).map(|(linear, _)| linear).collect();
        for linear in under {
            if let Some(patch) = self.0.get_mut(&linear)
                && let Some(byte) = offset(start, linear).and_then(|at| data.get(at))
                && ram.write(patch.physical, &[INT3]).is_ok()
            {
                patch.original = *byte;
            }
        }
    }

    fn within(&self, start: u64, bytes: usize) -> impl Iterator<Item = (u64, &Patch)> {
        self.0.range(start..start.saturating_add(bytes as u64)).map(|(linear, patch)| (*linear, patch))
    }
}

fn offset(start: u64, linear: u64) -> Option<usize> {
    usize::try_from(linear.checked_sub(start)?).ok()
}

/// What a point is for gdb. A watchpoint that is wider than a point takes several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Break {
        address: u64,
    },
    /// A breakpoint that gdb wants in memory.
    Memory {
        address: u64,
    },
    Watch {
        address: u64,
        bytes: u64,
        kind: WatchKind,
    },
}

/// The CPU's points.
#[derive(Debug, Default)]
pub(super) struct Points([Option<(Owner, DebugPoint)>; POINTS_MAX]);

impl Points {
    /// As vCPUs take them.
    pub(super) fn set(&self) -> [Option<DebugPoint>; POINTS_MAX] {
        self.0.map(|taken| taken.map(|(_, point)| point))
    }

    /// Whether this point tells of something that has happened already, and cannot be met again.
    pub(super) fn is_watch(&self, index: usize) -> bool {
        matches!(self.0.get(index), Some(Some((Owner::Watch { .. }, _))))
    }

    pub(super) fn reason(&self, index: usize, tid: Tid) -> MultiThreadStopReason<u64> {
        match self.0.get(index).copied().flatten() {
            Some((Owner::Break { .. }, _)) => MultiThreadStopReason::HwBreak(tid),
            Some((Owner::Memory { .. }, _)) => MultiThreadStopReason::SwBreak(tid),
            Some((Owner::Watch { kind, .. }, point)) => {
                MultiThreadStopReason::Watch { tid, kind, addr: point.address() }
            }
            None => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP },
        }
    }

    /// False when there are not enough, or the CPU cannot watch that.
    fn add(&mut self, owner: Owner) -> bool {
        if self.0.iter().flatten().any(|(taken, _)| *taken == owner) {
            return true;
        }
        let Some(points) = points_for(owner) else { return false };
        if self.0.iter().filter(|slot| slot.is_none()).count() < points.len() {
            return false;
        }
        for (slot, point) in self.0.iter_mut().filter(|slot| slot.is_none()).zip(points) {
            *slot = Some((owner, point));
        }
        true
    }

    fn remove(&mut self, owner: Owner) {
        for slot in &mut self.0 {
            if slot.is_some_and(|(taken, _)| taken == owner) {
                *slot = None;
            }
        }
    }
}

/// The points that cover what gdb wants, `None` if more than all are needed.
fn points_for(owner: Owner) -> Option<Vec<DebugPoint>> {
    let (mut address, bytes, kind) = match owner {
        Owner::Break { address } | Owner::Memory { address } => {
            return Some(vec![DebugPoint::new(PointKind::Execute, address, 1)?]);
        }
        Owner::Watch { address, bytes, kind: WatchKind::Write } => (address, bytes, PointKind::Write),
        // The CPU cannot watch reads alone; gdb tells them apart by the value.
        Owner::Watch { address, bytes, kind: WatchKind::Read | WatchKind::ReadWrite } => {
            (address, bytes, PointKind::Access)
        }
    };
    let end = address.checked_add(bytes)?;
    let mut points = Vec::new();
    while address < end {
        let point = [8, 4, 2, 1]
            .into_iter()
            .filter(|size| *size <= end - address)
            .find_map(|size| DebugPoint::new(kind, address, size))?;
        points.push(point);
        if points.len() > POINTS_MAX {
            return None;
        }
        address +=
            [8, 4, 2, 1].into_iter().find(|size| DebugPoint::new(kind, address, *size) == Some(point))?;
    }
    (!points.is_empty()).then_some(points)
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

/// Where a linear address is for the vCPU that stopped last, else for any.
fn physical(machine: &PausedMachine, current: u32, linear: u64) -> Option<u64> {
    let others = (0..machine.description().vcpus).filter(|index| *index != current);
    [current].into_iter().chain(others).find_map(|index| machine.vcpu_debug(index)?.translate(linear))
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        // Where an `int3` would reach the guest, a breakpoint of the CPU's does no harm.
        if !self.support.breakpoint.everywhere() {
            return Ok(self.support.execute.anywhere() && self.points.add(Owner::Memory { address }));
        }
        let mut patches = std::mem::take(&mut self.patches);
        let added = self
            .with_machine(|machine| {
                let physical = physical(machine, self.current, address)?;
                patches.add(address, physical, machine.machine().ram())
            })
            .flatten();
        self.patches = patches;
        added.ok_or(TargetError::Errno(NOT_THERE))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.points.remove(Owner::Memory { address });
        let ram = self.with_machine(|machine| Arc::clone(machine.machine().ram()));
        let ram = ram.ok_or(TargetError::Errno(NOT_THERE))?;
        self.patches.remove(address, &ram);
        // One that is not there was in the memory of a guest that has reset itself.
        Ok(true)
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.support.execute.anywhere() && self.points.add(Owner::Break { address }))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.points.remove(Owner::Break { address });
        Ok(true)
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(&mut self, address: u64, bytes: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(self.support.watch.anywhere() && self.points.add(Owner::Watch { address, bytes, kind }))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        bytes: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.points.remove(Owner::Watch { address, bytes, kind });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_vmm::memory::RamLayout;

    fn watch(address: u64, bytes: u64) -> Owner {
        Owner::Watch { address, bytes, kind: WatchKind::Write }
    }

    #[test]
    fn a_watchpoint_takes_as_many_points_as_it_needs() {
        let needed = |owner| points_for(owner).map(|points| points.len());
        assert_eq!(needed(watch(0x1000, 8)), Some(1));
        assert_eq!(needed(watch(0x1001, 8)), Some(4), "1 + 2 + 4 + 1");
        assert_eq!(needed(watch(0x1000, 32)), Some(4));
        for impossible in [watch(0x1000, 33), watch(0x1000, 0), watch(u64::MAX, 2), watch(0, u64::MAX)] {
            assert_eq!(needed(impossible), None, "{impossible:?}");
        }
    }

    #[test]
    fn points_are_taken_and_given_back() {
        let mut points = Points::default();
        assert!(points.add(watch(0x1000, 24)) && points.add(watch(0x1000, 24)), "twice is once");
        assert!(points.add(Owner::Break { address: 0x2000 }));
        assert!(!points.add(Owner::Memory { address: 0x2000 }), "all four are taken");
        assert!(points.is_watch(0) && points.is_watch(2) && !points.is_watch(3) && !points.is_watch(4));
        points.remove(watch(0x1000, 24));
        assert_eq!(points.set().iter().flatten().count(), 1);
        assert!(points.add(watch(0x1001, 3)), "1 + 2");
    }

    #[test]
    fn breakpoints_are_hidden_and_leave_nothing_behind() {
        let ram = GuestRam::allocate(RamLayout::new(1 << 20).unwrap()).unwrap();
        let byte = |at| {
            let mut byte = [0];
            ram.read(at, &mut byte).unwrap();
            byte[0]
        };
        ram.write(0x1000, &[1, 2, 3, 4]).unwrap();
        let mut patches = Patches::default();
        // The same byte at two linear addresses, and its neighbour.
        for (linear, physical) in [(0x1001, 0x1001), (0xffff_1001, 0x1001), (0x1002, 0x1002)] {
            assert_eq!(patches.add(linear, physical, &ram), Some(true));
        }
        assert_eq!(patches.add(0x9000_0000, 0x9000_0000, &ram), None, "no memory");
        let mut seen = [1, INT3, INT3, 4];
        patches.hide(0x1000, &mut seen);
        assert_eq!(seen, [1, 2, 3, 4]);
        // gdb writes over one; the guest over the other.
        patches.overwritten(0x1002, &[30], &ram);
        assert_eq!(byte(0x1002), INT3);
        patches.remove(0x1001, &ram);
        assert_eq!(byte(0x1001), INT3, "the other address needs it");
        ram.write(0x1001, &[20]).unwrap();
        patches.remove_all(&ram);
        assert_eq!([byte(0x1000), byte(0x1001), byte(0x1002), byte(0x1003)], [1, 20, 30, 4]);
        assert!(patches.physical().is_empty());
    }
}
