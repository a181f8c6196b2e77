//! Saved state of the 16550 serial port.

use serde::{Deserialize, Serialize};
use vm_superio::serial::SerialState;

/// The serial port's registers and the input that the guest has not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the 16550's own register names say it")]
pub struct SerialV1 {
    pub baud_divisor_low: u8,
    pub baud_divisor_high: u8,
    pub interrupt_enable: u8,
    pub interrupt_identification: u8,
    pub line_control: u8,
    pub line_status: u8,
    pub modem_control: u8,
    pub modem_status: u8,
    pub scratch: u8,
    /// In the port's FIFO.
    pub fifo: Vec<u8>,
    /// Behind the FIFO: sent by a person, not yet let into the port.
    pub pending_input: Vec<u8>,
}

impl SerialV1 {
    /// From the device's registers and what waits behind its FIFO.
    #[must_use]
    pub fn new(device: SerialState, pending_input: Vec<u8>) -> Self {
        Self {
            baud_divisor_low: device.baud_divisor_low,
            baud_divisor_high: device.baud_divisor_high,
            interrupt_enable: device.interrupt_enable,
            interrupt_identification: device.interrupt_identification,
            line_control: device.line_control,
            line_status: device.line_status,
            modem_control: device.modem_control,
            modem_status: device.modem_status,
            scratch: device.scratch,
            fifo: device.in_buffer,
            pending_input,
        }
    }

    /// The device's registers.
    #[must_use]
    pub fn device(&self) -> SerialState {
        SerialState {
            baud_divisor_low: self.baud_divisor_low,
            baud_divisor_high: self.baud_divisor_high,
            interrupt_enable: self.interrupt_enable,
            interrupt_identification: self.interrupt_identification,
            line_control: self.line_control,
            line_status: self.line_status,
            modem_control: self.modem_control,
            modem_status: self.modem_status,
            scratch: self.scratch,
            in_buffer: self.fifo.clone(),
        }
    }
}
