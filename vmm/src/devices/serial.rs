//! The 16550 serial port COM1: `vm-superio`'s device, an input queue behind its FIFO, and a sink that
//! never makes a vCPU wait.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial, SerialState};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::saved_state::SerialV1;

/// The ports of COM1.
pub(super) const COM1: RangeInclusive<u16> = 0x3f8..=0x3ff;
/// The interrupt line of COM1.
pub(crate) const COM1_IRQ: u32 = 4;
/// Input that may wait behind the FIFO, in bytes.
const PENDING_INPUT_BYTES_MAX: usize = crate::saved_state::PENDING_INPUT_BYTES_MAX;

/// Where the guest's output goes. Called by a vCPU's thread in the middle of an instruction of the
/// guest: it must take the byte or drop it, and never block.
pub trait ConsoleSink: Send + Sync + std::fmt::Debug {
    /// Takes one byte.
    fn byte(&self, byte: u8);
}

/// What can go wrong with the serial port.
#[derive(Debug, Error)]
pub enum SerialError {
    /// Its interrupt line could not be made.
    #[error("cannot make the serial port's interrupt line: {0}")]
    Interrupt(#[source] io::Error),
    /// Its saved state is not one of a 16550.
    #[error("the serial port's saved state is impossible")]
    State,
}

/// COM1.
#[derive(Debug)]
pub struct SerialPort {
    inner: Mutex<Inner>,
    irq: EventFd,
}

struct Inner {
    device: Serial<IrqLine, NoEvents, Output>,
    pending_input: VecDeque<u8>,
    gate: InputGate,
}

/// Whether new input is taken. Once the port's state has been saved, input taken here would be lost
/// to the guest that runs on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputGate {
    Open,
    Shut,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("pending_input", &self.pending_input.len()).finish_non_exhaustive()
    }
}

/// An edge on the interrupt line.
struct IrqLine(EventFd);

impl Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        match self.0.write(1) {
            // The counter is full: the interrupt is pending many times over already.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

struct Output(Arc<dyn ConsoleSink>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.byte(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialPort {
    /// A port in its reset state.
    ///
    /// # Errors
    /// No eventfd could be made.
    pub fn new(sink: Arc<dyn ConsoleSink>) -> Result<Self, SerialError> {
        let irq = EventFd::new(EFD_NONBLOCK).map_err(SerialError::Interrupt)?;
        let line = IrqLine(irq.try_clone().map_err(SerialError::Interrupt)?);
        let device = Serial::new(line, Output(sink));
        Ok(Self {
            inner: Mutex::new(Inner { device, pending_input: VecDeque::new(), gate: InputGate::Open }),
            irq,
        })
    }

    /// The eventfd of its interrupt line, for KVM.
    #[must_use]
    pub fn irq(&self) -> &EventFd {
        &self.irq
    }

    /// The guest writes register `offset`.
    pub(super) fn write(&self, offset: u16, value: u8) {
        let mut inner = self.lock();
        // The one error is a failed interrupt or loop-back overflow: the guest's next poll finds out.
        let _ = inner.device.write(register(offset), value);
    }

    /// The guest reads register `offset`.
    pub(super) fn read(&self, offset: u16) -> u8 {
        let mut inner = self.lock();
        let value = inner.device.read(register(offset));
        inner.feed();
        value
    }

    /// Queues input for the guest; returns how many bytes were taken. The rest is the caller's to
    /// offer again: there is no room, or the guest is about to move.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut inner = self.lock();
        if inner.gate == InputGate::Shut {
            return 0;
        }
        let room = PENDING_INPUT_BYTES_MAX - inner.pending_input.len().min(PENDING_INPUT_BYTES_MAX);
        let taken = bytes.len().min(room);
        inner.pending_input.extend(&bytes[..taken]);
        inner.feed();
        taken
    }

    /// Its registers and unread input. Takes no further input until [`accept_input`](Self::accept_input).
    #[must_use]
    pub fn save_and_refuse_input(&self) -> SerialV1 {
        let mut inner = self.lock();
        inner.gate = InputGate::Shut;
        SerialV1::new(inner.device.state(), inner.pending_input.iter().copied().collect())
    }

    /// Puts registers and unread input back. Writes nothing to the sink. A pending interrupt is raised
    /// again: the interrupt controllers must be restored before this, so that they take it.
    ///
    /// # Errors
    /// The state is not one of a 16550.
    pub fn restore(&self, saved: &SerialV1) -> Result<(), SerialError> {
        let mut inner = self.lock();
        let line = IrqLine(self.irq.try_clone().map_err(SerialError::Interrupt)?);
        let sink = Arc::clone(&inner.device.writer().0);
        let state: SerialState = saved.device();
        inner.device =
            Serial::from_state(&state, line, NoEvents, Output(sink)).map_err(|_| SerialError::State)?;
        inner.pending_input = saved.pending_input.iter().copied().collect();
        Ok(())
    }

    /// The guest runs (on) here: input is for it again.
    pub fn accept_input(&self) {
        self.lock().gate = InputGate::Open;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves waiting input into the FIFO as far as it goes.
    fn feed(&mut self) {
        while !self.pending_input.is_empty() {
            let room = self.device.fifo_capacity();
            if room == 0 {
                return;
            }
            let (front, _) = self.pending_input.as_slices();
            let bytes = front[..front.len().min(room)].to_vec();
            match self.device.enqueue_raw_bytes(&bytes) {
                Ok(taken) if taken > 0 => drop(self.pending_input.drain(..taken)),
                _ => return,
            }
        }
    }
}

fn register(offset: u16) -> u8 {
    u8::try_from(offset & 7).expect("masked to three bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Collect(Mutex<Vec<u8>>);

    impl ConsoleSink for Collect {
        fn byte(&self, byte: u8) {
            self.0.lock().unwrap().push(byte);
        }
    }

    fn port() -> (SerialPort, Arc<Collect>) {
        let sink = Arc::new(Collect::default());
        (SerialPort::new(sink.clone()).unwrap(), sink)
    }

    fn drain(port: &SerialPort) -> Vec<u8> {
        let mut got = Vec::new();
        while port.read(5) & 1 != 0 {
            got.push(port.read(0));
        }
        got
    }

    #[test]
    fn output_reaches_the_sink() {
        let (port, sink) = port();
        for byte in b"hi" {
            port.write(0, *byte);
        }
        assert_eq!(*sink.0.lock().unwrap(), b"hi");
    }

    #[test]
    fn input_beyond_the_fifo_waits_and_keeps_its_order() {
        let (port, _) = port();
        let text: Vec<u8> = (0..1000_u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(port.input(&text), 1000);
        assert_eq!(drain(&port), text);
    }

    #[test]
    fn input_is_bounded() {
        let (port, _) = port();
        let flood = vec![1; PENDING_INPUT_BYTES_MAX * 2];
        assert!(port.input(&flood) <= PENDING_INPUT_BYTES_MAX + 64);
        assert_eq!(port.input(&flood), 64, "the FIFO's own room is all that is left, then none");
    }

    #[test]
    fn unread_input_and_registers_survive_a_move() {
        let (port, _) = self::port();
        port.write(7, 0x5a);
        port.input(&[7; 300]);
        let (other, _) = self::port();
        other.restore(&port.save_and_refuse_input()).unwrap();
        assert_eq!(port.input(b"late"), 0, "it would be lost");
        assert_eq!(other.read(7), 0x5a);
        assert_eq!(drain(&other), [7; 300]);
    }
}
