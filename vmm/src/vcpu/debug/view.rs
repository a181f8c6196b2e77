//! A parked vCPU as a debugger sees it.

use std::sync::Arc;

use super::controls::DebugControls;
use super::floating::FloatRegisters;
use super::segment::{self, SegmentError};
use super::stop::DebugSink;
use super::thread::DebugCommand;
use crate::PAGE_SIZE;
use crate::memory::GuestRam;
use crate::saved_state::{RegistersV1, SegmentV1, SystemRegistersV1};
use crate::vcpu::error::VcpuError;
use crate::vcpu::handle::{Command, VcpuHandle};

/// Registers between two instructions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DebugRegisters {
    /// General registers.
    pub general: RegistersV1,
    /// Segment, table and control registers.
    pub system: SystemRegistersV1,
    /// x87 and SSE.
    pub float: FloatRegisters,
}

/// What stops a vCPU, and who hears of it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What stops it.
    pub controls: DebugControls,
    /// Who hears of it.
    pub sink: Arc<dyn DebugSink>,
}

/// A parked vCPU, to look into and to change.
#[derive(Debug, Clone, Copy)]
pub struct VcpuDebug<'m> {
    handle: &'m VcpuHandle,
    ram: &'m GuestRam,
}

impl<'m> VcpuDebug<'m> {
    pub(crate) fn new(handle: &'m VcpuHandle, ram: &'m GuestRam) -> Self {
        Self { handle, ram }
    }

    /// From its next run on, the vCPU stops at this; `None` ends debugging it.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn watch(&self, watched: Option<Watched>) -> Result<(), VcpuError> {
        self.handle.ask(|reply| Command::Debug(DebugCommand::Watch { watched, reply }))?
    }

    /// Reads its registers.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn registers(&self) -> Result<DebugRegisters, VcpuError> {
        let registers = self.handle.ask(|reply| Command::Debug(DebugCommand::Registers { reply }))??;
        Ok(*registers)
    }

    /// Writes those of its registers that differ.
    ///
    /// # Errors
    /// KVM refuses a value.
    pub fn set_registers(&self, registers: DebugRegisters) -> Result<(), VcpuError> {
        let registers = Box::new(registers);
        self.handle.ask(|reply| Command::Debug(DebugCommand::SetRegisters { registers, reply }))?
    }

    /// What a segment register will hold that holds `now`, once `selector` is written to it.
    ///
    /// # Errors
    /// The guest's descriptor tables do not have it.
    pub fn segment(
        &self,
        selector: u16,
        now: &SegmentV1,
        registers: &DebugRegisters,
    ) -> Result<SegmentV1, SegmentError> {
        segment::load(selector, now, &registers.system, registers.general.rflags, |linear| {
            let mut bytes = [0; 8];
            (self.read(linear, &mut bytes) == bytes.len()).then_some(bytes)
        })
    }

    /// The guest-physical address behind a linear one, as this vCPU's page tables are now. `None` where
    /// nothing is mapped.
    #[must_use]
    pub fn translate(&self, linear: u64) -> Option<u64> {
        self.handle.ask(|reply| Command::Debug(DebugCommand::Translate { linear, reply })).ok().flatten()
    }

    /// Reads guest memory at a linear address, up to the first byte that is not there; returns how much.
    pub fn read(&self, linear: u64, data: &mut [u8]) -> usize {
        self.for_each_page(linear, data.len(), |physical, from, to| {
            self.ram.read(physical, &mut data[from..to])
        })
    }

    /// Writes guest memory at a linear address, up to the first byte that is not there; returns how much.
    pub fn write(&self, linear: u64, data: &[u8]) -> usize {
        self.for_each_page(linear, data.len(), |physical, from, to| self.ram.write(physical, &data[from..to]))
    }

    /// Calls `act` with the physical address of each piece that lies within one page.
    fn for_each_page<E>(
        &self,
        linear: u64,
        bytes: usize,
        mut act: impl FnMut(u64, usize, usize) -> Result<(), E>,
    ) -> usize {
        let mut done = 0;
        while done < bytes {
            let Some(at) = linear.checked_add(done as u64) else { break };
            let Some(physical) = self.translate(at) else { break };
            let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(1);
            let next = bytes.min(done + in_page);
            if act(physical, done, next).is_err() {
                break;
            }
            done = next;
        }
        done
    }
}
