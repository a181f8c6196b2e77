//! The devices of the machine and the port bus that they sit on.

mod bus;
mod power;
mod serial;

pub use bus::{BusOutcome, PortBus};
pub(crate) use serial::COM1_IRQ;
pub use serial::{ConsoleSink, SerialError, SerialPort};
