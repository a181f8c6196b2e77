//! The thread of one vCPU.
//!
//! ```text
//!            Run                park requested / guest ended / debugger's stop
//!  parked ─────────▶ in the guest ─────────────────────────────────▶ parked
//!    │ Save, Restore, Debug, …              (I/O in flight is finished first)
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use kvm_ioctls::VcpuFd;

use super::code;
use super::debug::DebugState;
use super::error::VcpuError;
use super::exit::{AfterExit, CrashReport, End, GuestEnd, not_emulated, serve};
use super::handle::{Command, Shared, Surroundings, VcpuEvent};
use super::state::StateContext;
use crate::kvm::{KvmError, RunPage};
use crate::saved_state::MsrV1;

pub(super) struct VcpuThread {
    pub(super) vcpu: VcpuFd,
    pub(super) context: StateContext,
    pub(super) around: Surroundings,
    pub(super) shared: Arc<Shared>,
    pub(super) events: Sender<VcpuEvent>,
    /// Restored MSRs, of which some are written only when the guest is let go.
    pub(super) restored: Vec<MsrV1>,
    pub(super) debug: DebugState,
}

impl VcpuThread {
    /// Serves commands until the handle is dropped.
    pub(super) fn serve(mut self, commands: &Receiver<Command>) {
        let page = RunPage::of(&mut self.vcpu);
        self.shared.kick.arm(&page);
        for command in commands {
            match command {
                Command::Run => {
                    let restored = std::mem::take(&mut self.restored);
                    let end = match self.context.let_go(&self.vcpu, &restored) {
                        Ok(()) => self.run_until_parked(&page),
                        Err(error) => Some(End::Crash(error.to_string())),
                    };
                    if let Some(end) = end {
                        // Before the gate: who has paused the machine must know that nothing is left
                        // to move.
                        self.around.gate.note_end();
                        let end = self.report(end);
                        // Nobody listens any more when the machine is being dropped.
                        let _ = self.events.send(VcpuEvent::Ended(end));
                    }
                    self.around.gate.leave();
                }
                Command::Save { host_tsc, reply } => {
                    let _ = reply.send(self.context.save(&self.vcpu, host_tsc));
                }
                Command::Restore { saved, clock, reply } => {
                    let restored = self.context.restore(&self.vcpu, &saved, clock);
                    self.restored = saved.msrs;
                    let _ = reply.send(restored);
                }
                Command::Registers { reply } => {
                    let _ = reply.send(self.context.registers(&self.vcpu));
                }
                Command::TellGuestItWasPaused => {
                    // EINVAL means that the guest does not use kvmclock and has no such watchdog.
                    let _ = self.vcpu.kvmclock_ctrl();
                }
                Command::WarmUp { reply } => {
                    let _ = reply.send(self.warm_up(&page));
                }
                Command::Debug(command) => self.debug.serve(&self.vcpu, &self.context, command),
            }
        }
        self.shared.kick.disarm();
    }

    /// What KVM sets up upon the first `KVM_RUN` of a machine (threads of its own among it) it sets up
    /// now, instead of in a blackout. With `immediate_exit` set, nothing is executed.
    fn warm_up(&mut self, page: &RunPage) -> Result<(), VcpuError> {
        page.immediate_exit().store(1, Ordering::SeqCst);
        match self.vcpu.run() {
            Err(e) if !is_transient(e) => {
                Err(VcpuError::Kvm { index: self.context.index, source: KvmError::ioctl("KVM_RUN")(e) })
            }
            _ => Ok(()),
        }
    }

    fn run_until_parked(&mut self, page: &RunPage) -> Option<End> {
        // Clear before looking at the request: a kick after this line sets it again, a kick before it
        // has set the request already. See `kvm::run_page`.
        page.immediate_exit().store(0, Ordering::SeqCst);
        self.around.gate.note_entry();
        loop {
            if self.shared.park_requested.load(Ordering::SeqCst) {
                return self.finish_pending_io(page);
            }
            match self.vcpu.run() {
                Ok(exit) => {
                    let after = serve(exit, page.port_access_bytes(), &self.around.bus);
                    if let ControlFlow::Break(end) = self.go_on(after) {
                        return end;
                    }
                }
                Err(e) if is_transient(e) => {}
                Err(e) => return Some(End::Crash(format!("KVM_RUN failed: {e}"))),
            }
        }
    }

    /// After an I/O exit the instruction completes only when `KVM_RUN` is entered again; before that
    /// the registers are not those of any point between two instructions. With `immediate_exit` set,
    /// `KVM_RUN` completes it and returns `EINTR` without entering the guest. An instruction with
    /// several pieces (a string, an access across a page) exits again for each.
    fn finish_pending_io(&mut self, page: &RunPage) -> Option<End> {
        loop {
            page.immediate_exit().store(1, Ordering::SeqCst);
            match self.vcpu.run() {
                Ok(exit) => {
                    let after = serve(exit, page.port_access_bytes(), &self.around.bus);
                    if let ControlFlow::Break(end) = self.go_on(after) {
                        return end;
                    }
                }
                Err(e) if e.errno() == libc::EINTR => return None,
                Err(e) if is_transient(e) => {}
                Err(e) => return Some(End::Crash(format!("KVM_RUN failed: {e}"))),
            }
        }
    }

    /// Does what an exit asks for; breaks when the vCPU has to leave the guest, with the guest's end if it
    /// is over.
    fn go_on(&mut self, after: AfterExit) -> ControlFlow<Option<End>> {
        match after {
            AfterExit::Continue => ControlFlow::Continue(()),
            AfterExit::EmptyDirtyRing => match self.around.dirty_log.empty_rings() {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(Some(End::Crash(error.to_string()))),
            },
            AfterExit::TellCrashKernel => {
                self.tell_crash_kernel();
                ControlFlow::Continue(())
            }
            AfterExit::Debug(exit) if !self.debug.stops_at(&self.vcpu, &self.context, &exit) => {
                ControlFlow::Continue(())
            }
            AfterExit::Debug(_) => ControlFlow::Break(None),
            AfterExit::NotEmulated => ControlFlow::Break(
                (!self.debug.stops_unemulated(&self.vcpu, &self.context)).then(not_emulated),
            ),
            AfterExit::End(end) => ControlFlow::Break(Some(end)),
        }
    }

    fn tell_crash_kernel(&self) {
        // Nobody listens any more when the machine is being dropped.
        let _ = self.events.send(VcpuEvent::CrashKernel);
    }

    fn report(&self, end: End) -> GuestEnd {
        match end {
            End::PoweredOff => GuestEnd::PoweredOff,
            End::Reset => GuestEnd::Reset,
            End::DebugExit(value) => GuestEnd::DebugExit(value),
            End::Crash(reason) => {
                let registers = self.context.registers(&self.vcpu).ok();
                // After a reset the guest's page tables are out of reach with the rest.
                let code = registers
                    .as_ref()
                    .filter(|registers| !registers.were_reset())
                    .and_then(|r| code::read_at(&self.vcpu, &self.around.ram, &r.general, &r.system));
                GuestEnd::Crashed(Box::new(CrashReport { vcpu: self.context.index, reason, registers, code }))
            }
        }
    }
}

/// `EINTR`: kicked. `EAGAIN`: an INIT or SIPI was taken while the vCPU waited for it.
fn is_transient(error: kvm_ioctls::Error) -> bool {
    matches!(error.errno(), libc::EINTR | libc::EAGAIN)
}
