//! Port I/O: which device answers which port. What no device answers reads as all ones and swallows
//! writes, as on a real bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// The guest says that it panicked, and does nothing more about it.
    Panicked,
    /// The guest says that it panicked, and that its crash kernel takes over. Heard once: a guest that
    /// repeats it must not keep anyone busy.
    CrashKernel,
}

/// The port bus of one machine.
#[derive(Debug)]
pub struct PortBus {
    serial: Arc<SerialPort>,
    crash_kernel_heard: AtomicBool,
}

impl PortBus {
    /// A bus with this serial port as COM1.
    #[must_use]
    pub fn new(serial: Arc<SerialPort>) -> Self {
        Self { serial, crash_kernel_heard: AtomicBool::new(false) }
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
        match power::write(port, data) {
            Some(BusOutcome::CrashKernel) if self.crash_kernel_heard.swap(true, Ordering::Relaxed) => {
                BusOutcome::Done
            }
            outcome => outcome.unwrap_or(BusOutcome::Done),
        }
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
