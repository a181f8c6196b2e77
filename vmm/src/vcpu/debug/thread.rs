//! The vCPU thread's part of debugging.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use kvm_bindings::{kvm_debug_exit_arch, kvm_guest_debug};
use kvm_ioctls::VcpuFd;

use super::controls::DebugControls;
use super::floating::FloatRegisters;
use super::stop::{DebugSink, DebugStop, Verdict, judge};
use super::view::{DebugRegisters, Watched};
use crate::kvm::{KvmError, xsave};
use crate::saved_state::{RegistersV1, SystemRegistersV1};
use crate::vcpu::error::VcpuError;
use crate::vcpu::state::StateContext;

/// What a parked vCPU can be asked for.
pub(in crate::vcpu) enum DebugCommand {
    Watch { watched: Option<Watched>, reply: Sender<Result<(), VcpuError>> },
    Registers { reply: Sender<Result<Box<DebugRegisters>, VcpuError>> },
    SetRegisters { registers: Box<DebugRegisters>, reply: Sender<Result<(), VcpuError>> },
    Translate { linear: u64, reply: Sender<Option<u64>> },
}

/// How a vCPU is debugged, if it is.
#[derive(Debug, Default)]
pub(in crate::vcpu) struct DebugState {
    controls: DebugControls,
    sink: Option<Arc<dyn DebugSink>>,
}

impl DebugState {
    pub(in crate::vcpu) fn serve(&mut self, vcpu: &VcpuFd, context: &StateContext, command: DebugCommand) {
        // Whoever asked may have gone meanwhile.
        match command {
            DebugCommand::Watch { watched, reply } => {
                let _ = reply.send(self.watch(vcpu, context, watched));
            }
            DebugCommand::Registers { reply } => {
                let _ = reply.send(registers(vcpu, context).map(Box::new));
            }
            DebugCommand::SetRegisters { registers, reply } => {
                let _ = reply.send(set_registers(vcpu, context, &registers));
            }
            DebugCommand::Translate { linear, reply } => {
                let _ = reply.send(translate(vcpu, linear));
            }
        }
    }

    fn watch(
        &mut self,
        vcpu: &VcpuFd,
        context: &StateContext,
        watched: Option<Watched>,
    ) -> Result<(), VcpuError> {
        let (kernel, state) = match watched {
            Some(Watched { controls, sink }) => {
                let kernel = controls.to_kernel(context.capabilities.debug_block_irq);
                (kernel, Self { controls, sink: Some(sink) })
            }
            None => (kvm_guest_debug::default(), Self::default()),
        };
        vcpu.set_guest_debug(&kernel).map_err(context.ioctl("KVM_SET_GUEST_DEBUG"))?;
        *self = state;
        Ok(())
    }

    /// Judges a debug exit: true for a stop, which was told and for which the vCPU parks.
    pub(in crate::vcpu) fn stops_at(
        &self,
        vcpu: &VcpuFd,
        context: &StateContext,
        exit: &kvm_debug_exit_arch,
    ) -> bool {
        // Nobody debugs any more: nothing was left behind that could stop a vCPU.
        let Some(sink) = &self.sink else { return false };
        match judge(exit, &self.controls, |pc| translate(vcpu, pc)) {
            Verdict::Stop(stop) => {
                sink.stopped(context.index, stop);
                true
            }
            Verdict::Guests(inject) => {
                let mut kernel = self.controls.to_kernel(context.capabilities.debug_block_irq);
                kernel.control |= inject;
                if let Err(error) = vcpu.set_guest_debug(&kernel) {
                    // An exception of the guest's is pending already: it comes first, this one comes again.
                    tracing::debug!(%error, vcpu = context.index, "an exception was not handed to the guest");
                }
                false
            }
        }
    }

    /// KVM could not emulate an instruction: true if that is an `int3` of the debugger's. Not every emulator
    /// knows it, and where KVM emulates it does not intercept.
    pub(in crate::vcpu) fn stops_unemulated(&self, vcpu: &VcpuFd, context: &StateContext) -> bool {
        let Some(sink) = self.sink.as_ref().filter(|_| !self.controls.breakpoints.is_empty()) else {
            return false;
        };
        let (Ok(general), Ok(system)) = (vcpu.get_regs(), vcpu.get_sregs()) else { return false };
        // In 64-bit mode the base of the code segment counts for nothing, whatever it is.
        let base = if system.cs.l == 1 { 0 } else { system.cs.base };
        let at = translate(vcpu, base.wrapping_add(general.rip));
        // Writing registers drops the exception that KVM raised for want of an emulation.
        if at.is_none_or(|at| !self.controls.breakpoints.contains(&at)) || vcpu.set_regs(&general).is_err() {
            return false;
        }
        sink.stopped(context.index, DebugStop::Breakpoint);
        true
    }
}

fn translate(vcpu: &VcpuFd, linear: u64) -> Option<u64> {
    let found = vcpu.translate_gva(linear).ok()?;
    (found.valid != 0).then_some(found.physical_address)
}

fn registers(vcpu: &VcpuFd, context: &StateContext) -> Result<DebugRegisters, VcpuError> {
    let general = vcpu.get_regs().map_err(context.ioctl("KVM_GET_REGS"))?;
    let system = vcpu.get_sregs().map_err(context.ioctl("KVM_GET_SREGS"))?;
    let area = xsave::read(vcpu, &context.capabilities).map_err(|e| context.kvm(e))?;
    Ok(DebugRegisters {
        general: (&general).into(),
        system: (&system).into(),
        float: FloatRegisters::from_area(&area).ok_or_else(|| too_short(context))?,
    })
}

/// Writes what differs: writing general registers drops a pending exception, and most debuggers write all
/// of them to change one.
fn set_registers(vcpu: &VcpuFd, context: &StateContext, wanted: &DebugRegisters) -> Result<(), VcpuError> {
    let general = vcpu.get_regs().map_err(context.ioctl("KVM_GET_REGS"))?;
    let system = vcpu.get_sregs().map_err(context.ioctl("KVM_GET_SREGS"))?;
    let mut area = xsave::read(vcpu, &context.capabilities).map_err(|e| context.kvm(e))?;
    if SystemRegistersV1::from(&system) != wanted.system {
        vcpu.set_sregs(&(&wanted.system).into()).map_err(context.ioctl("KVM_SET_SREGS"))?;
    }
    if RegistersV1::from(&general) != wanted.general {
        vcpu.set_regs(&(&wanted.general).into()).map_err(context.ioctl("KVM_SET_REGS"))?;
    }
    if FloatRegisters::from_area(&area) != Some(wanted.float) {
        wanted.float.write_to(&mut area).ok_or_else(|| too_short(context))?;
        xsave::write(vcpu, &context.capabilities, &area).map_err(|e| context.kvm(e))?;
    }
    Ok(())
}

fn too_short(context: &StateContext) -> VcpuError {
    context.kvm(KvmError::Lacks { feature: "KVM_CAP_XSAVE with x87 and SSE" })
}
