//! The state of a paused machine, all but its RAM: the last thing that is sent before COMMIT.

use thiserror::Error;

use super::container::{ContainerError, read_container, write_container};
use super::{ClockV1, IrqchipV1, PitV1, SerialV1, VcpuV1};

/// Bytes of the local APIC's register page (`KVM_APIC_REG_SIZE`).
pub(crate) const LAPIC_BYTES: usize = 1024;
/// Bytes of an interrupt chip in the KVM API.
pub(crate) const IRQCHIP_BYTES: usize = 512;
/// Bytes that an XSAVE area can have at most: more than AMX needs.
const XSAVE_BYTES_MAX: usize = 64 << 10;
/// Serial input that may wait for the guest.
pub(crate) const PENDING_INPUT_BYTES_MAX: usize = 64 << 10;
/// The FIFO of the serial port.
const SERIAL_FIFO_BYTES_MAX: usize = 64;
const MSRS_MAX: usize = 1024;

/// Why saved state was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// It could not be read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A part has an impossible size or number.
    #[error("saved machine state is impossible: {what}")]
    Impossible {
        /// Which part.
        what: &'static str,
    },
}

/// State of a paused machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineStateV1 {
    /// Every vCPU, ascending.
    pub vcpus: Vec<VcpuV1>,
    /// PIC master, PIC slave, IOAPIC.
    pub irqchips: Vec<IrqchipV1>,
    /// The 8254.
    pub pit: PitV1,
    /// The clocks.
    pub clock: ClockV1,
    /// The serial port.
    pub serial: SerialV1,
}

impl MachineStateV1 {
    /// As bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        write_container(|w| {
            for vcpu in &self.vcpus {
                w.mandatory("vcpu", 1, vcpu);
            }
            w.mandatory("irqchips", 1, &self.irqchips);
            w.mandatory("pit", 1, &self.pit);
            w.mandatory("clock", 1, &self.clock);
            w.mandatory("serial", 1, &self.serial);
        })
    }

    /// Reads and checks state that came over a wire, for a machine of `vcpus` vCPUs.
    ///
    /// # Errors
    /// It is damaged, of an unknown version, incomplete or impossible.
    pub fn decode(bytes: &[u8], vcpus: u32) -> Result<Self, StateError> {
        let (mut cpus, mut irqchips, mut pit, mut clock, mut serial) = (Vec::new(), None, None, None, None);
        for section in read_container(bytes)? {
            match (section.name, section.version) {
                ("vcpu", 1) => cpus.push(section.decode::<VcpuV1>()?),
                ("irqchips", 1) => irqchips = Some(section.decode::<Vec<IrqchipV1>>()?),
                ("pit", 1) => pit = Some(section.decode::<PitV1>()?),
                ("clock", 1) => clock = Some(section.decode::<ClockV1>()?),
                ("serial", 1) => serial = Some(section.decode::<SerialV1>()?),
                _ => section.skip()?,
            }
        }
        let missing = |name| ContainerError::Missing { name };
        let state = Self {
            vcpus: cpus,
            irqchips: irqchips.ok_or(missing("irqchips"))?,
            pit: pit.ok_or(missing("pit"))?,
            clock: clock.ok_or(missing("clock"))?,
            serial: serial.ok_or(missing("serial"))?,
        };
        state.check(vcpus)?;
        Ok(state)
    }

    fn check(&self, vcpus: u32) -> Result<(), StateError> {
        let impossible = |what| Err(StateError::Impossible { what });
        if !self.vcpus.iter().map(|v| v.index).eq(0..vcpus) {
            return impossible("its vCPUs are not those of the machine");
        }
        if self.vcpus.iter().any(|v| v.lapic.len() != LAPIC_BYTES) {
            return impossible("a local APIC does not have 1024 bytes");
        }
        if self.vcpus.iter().any(|v| v.xsave.len() < 576 || v.xsave.len() > XSAVE_BYTES_MAX) {
            return impossible("an XSAVE area has an impossible size");
        }
        if self.vcpus.iter().any(|v| v.xcrs.len() > 16 || v.msrs.len() > MSRS_MAX) {
            return impossible("a vCPU has too many registers");
        }
        if !self.irqchips.iter().map(|c| c.chip).eq(0..3) {
            return impossible("its interrupt chips are not the three of a PC");
        }
        if self.irqchips.iter().any(|c| c.registers.len() != IRQCHIP_BYTES) {
            return impossible("an interrupt chip does not have 512 bytes");
        }
        if self.serial.fifo.len() > SERIAL_FIFO_BYTES_MAX
            || self.serial.pending_input.len() > PENDING_INPUT_BYTES_MAX
        {
            return impossible("its serial port holds more input than one can");
        }
        Ok(())
    }
}
