//! The guest as `gdbstub` sees it: registers and memory of its vCPUs, which are gdb's threads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::breakpoints::BreakpointsOps;
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use godwit_vmm::machine::{DebugSupport, PausedMachine};
use godwit_vmm::vcpu::debug::{DebugRegisters, DebugStop, VcpuDebug};

use super::arch::{Amd64, Amd64Registers};
use super::attach::{self, After, Before};
use super::breakpoints::{Patches, Points};
use super::mailbox::Mailbox;
use super::registers::{from_gdb, to_gdb};
use super::resume::Plan;
use crate::instance::vm::{Slot, Vm};

/// Nothing of the guest can be reached: it runs, is gone, or has nothing there (`EFAULT`, as people know it).
const NOT_THERE: u8 = 14;
/// A value that cannot be (`EINVAL`).
const IMPOSSIBLE: u8 = 22;

/// A guest that a debugger has. Dropping it gives the guest back.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) vm: Arc<Vm>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) support: DebugSupport,
    pub(super) patches: Patches,
    pub(super) points: Points,
    pub(super) plan: Plan,
    /// The vCPU that stopped last: breakpoints are set in its address space.
    pub(super) current: u32,
    /// Stops that gdb has not heard of yet: it hears of one at a time.
    pub(super) pending: VecDeque<(u32, DebugStop)>,
    /// What the guest does if gdb is gone without a word, and when it detaches.
    pub(super) after: After,
}

impl Guest {
    pub(super) fn new(vm: Arc<Vm>, mailbox: Arc<Mailbox>, support: DebugSupport, before: Before) -> Self {
        // What happened before is nothing to this debugger.
        let _ = mailbox.take_stops();
        Self {
            vm,
            mailbox,
            support,
            patches: Patches::default(),
            points: Points::default(),
            plan: Plan::default(),
            current: 0,
            pending: VecDeque::new(),
            after: if before == Before::Ran { After::Runs } else { After::Stands },
        }
    }

    /// The guest is a new one, with new memory.
    pub(super) fn has_rebooted(&mut self) {
        self.patches = Patches::default();
        self.pending.clear();
        self.current = 0;
        let _ = self.mailbox.take_stops();
    }

    /// Calls `act` with the halted machine; `None` while it runs or is gone.
    pub(super) fn with_machine<T>(&self, act: impl FnOnce(&PausedMachine) -> T) -> Option<T> {
        match &*self.vm.slot() {
            Slot::Paused(paused) => Some(act(paused)),
            Slot::Running(_) | Slot::Empty => None,
        }
    }

    fn with_vcpu<T>(&self, tid: Tid, act: impl FnOnce(VcpuDebug<'_>) -> Option<T>) -> TargetResult<T, Self> {
        self.with_machine(|machine| act(machine.vcpu_debug(vcpu_of(tid)?)?))
            .flatten()
            .ok_or(TargetError::Errno(NOT_THERE))
    }

    /// How gdb hears of a stop.
    pub(super) fn reason(&self, vcpu: u32, stop: DebugStop) -> MultiThreadStopReason<u64> {
        let tid = tid_of(vcpu);
        match stop {
            DebugStop::Breakpoint => MultiThreadStopReason::SwBreak(tid),
            DebugStop::Point(index) => self.points.reason(index, tid),
            DebugStop::Step => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP },
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        attach::detach(&self.vm, self.after, |machine| self.patches.remove_all(machine.machine().ram()));
    }
}

/// gdb counts threads from 1.
pub(super) fn tid_of(vcpu: u32) -> Tid {
    let number = usize::try_from(vcpu).unwrap_or(0).saturating_add(1);
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn vcpu_of(tid: Tid) -> Option<u32> {
    u32::try_from(tid.get() - 1).ok()
}

/// The registers with the selectors that gdb wants, and what they stand for.
fn load_segments(vcpu: VcpuDebug<'_>, wanted: &Amd64Registers, registers: &mut DebugRegisters) -> Option<()> {
    let before = registers.clone();
    let s = &mut registers.system;
    let w = &wanted.core.segments;
    let segments = [
        (w.cs, &mut s.cs),
        (w.ss, &mut s.ss),
        (w.ds, &mut s.ds),
        (w.es, &mut s.es),
        (w.fs, &mut s.fs),
        (w.gs, &mut s.gs),
    ];
    for (selector, segment) in segments {
        if selector != u32::from(segment.selector) {
            *segment = vcpu.segment(u16::try_from(selector).ok()?, segment, &before).ok()?;
        }
    }
    Some(())
}

impl Target for Guest {
    type Arch = Amd64;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Amd64, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, registers: &mut Amd64Registers, tid: Tid) -> TargetResult<(), Self> {
        *registers = self.with_vcpu(tid, |vcpu| Some(to_gdb(&vcpu.registers().ok()?)))?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &Amd64Registers, tid: Tid) -> TargetResult<(), Self> {
        let written = self.with_vcpu(tid, |vcpu| {
            let now = vcpu.registers().ok()?;
            let mut wanted = from_gdb(registers, &now);
            Some(load_segments(vcpu, registers, &mut wanted).is_some() && vcpu.set_registers(wanted).is_ok())
        })?;
        if written { Ok(()) } else { Err(TargetError::Errno(IMPOSSIBLE)) }
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let count = self.with_vcpu(tid, |vcpu| Some(vcpu.read(start, data)))?;
        if count == 0 && !data.is_empty() {
            return Err(TargetError::Errno(NOT_THERE));
        }
        self.patches.hide(start, &mut data[..count]);
        Ok(count)
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let count = self.with_vcpu(tid, |vcpu| Some(vcpu.write(start, data)))?;
        if let Some(ram) = self.with_machine(|machine| Arc::clone(machine.machine().ram())) {
            self.patches.overwritten(start, &data[..count], &ram);
        }
        if count == data.len() { Ok(()) } else { Err(TargetError::Errno(NOT_THERE)) }
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        let vcpus = self.vm.status().description.as_ref().map_or(1, |description| description.vcpus);
        (0..vcpus).map(tid_of).for_each(thread_is_active);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let text = vcpu_of(tid).map(|vcpu| format!("vCPU {vcpu}")).unwrap_or_default();
        let count = text.len().min(buffer.len());
        buffer[..count].copy_from_slice(&text.as_bytes()[..count]);
        Ok(count)
    }
}
