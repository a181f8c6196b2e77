//! Port I/O: which device answers which port. What no device answers reads as all ones and swallows
//! writes, as on a real bus.

use std::sync::Arc;

use super::power;
use super::serial::{COM1, SerialPort};

/// What a port write did to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusOutcome {
    /// The guest goes on.
    Done,
    /// The guest turned its power off.
    PowerOff,
    /// The guest asked to be reset.
    Reset,
    /// The guest ended with this value.
    DebugExit(u32),
}

/// The port bus of one machine.
#[derive(Debug)]
pub struct PortBus {
    serial: Arc<SerialPort>,
}

impl PortBus {
    /// A bus with this serial port as COM1.
    #[must_use]
    pub fn new(serial: Arc<SerialPort>) -> Self {
        Self { serial }
    }

    /// One write access of 1, 2 or 4 bytes.
    #[must_use]
    pub fn write(&self, port: u16, data: &[u8]) -> BusOutcome {
        if COM1.contains(&port) {
            // A wider access goes to the ports that follow, as the ISA bus splits it.
            for (port, value) in (port..).zip(data).filter(|(port, _)| COM1.contains(port)) {
                self.serial.write(port - COM1.start(), *value);
            }
            return BusOutcome::Done;
        }
        power::write(port, data).unwrap_or(BusOutcome::Done)
    }

    /// One read access of 1, 2 or 4 bytes.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if COM1.contains(&port) {
            for (port, value) in (port..).zip(data).filter(|(port, _)| COM1.contains(port)) {
                *value = self.serial.read(port - COM1.start());
            }
        } else if let Some(value) = power::read(port) {
            data[0] = value;
        }
    }
}
