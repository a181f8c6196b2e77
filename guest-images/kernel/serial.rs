//! The first serial port, polled.

use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::port;
use crate::pulse::Pulse;
use crate::report::{BEAT, BEAT_STAND_IN};

const DATA: u16 = 0x3f8;
const INTERRUPTS: u16 = DATA + 1;
const FIFO: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;

const RECEIVED: u8 = 0x01;
const TRANSMIT_EMPTY: u8 = 0x20;

/// Polls until a byte is given up: a port that takes nothing must not stop the guest.
const SPINS_MAX: u32 = 200_000;

/// Bytes sent to an empty transmitter without looking again. Its FIFO holds 16; the rest is left to
/// beats, which do not take the lock.
const BURST: u8 = 8;

/// Held for whole lines, so that the vCPUs' lines do not mix.
static LINE_LOCK: AtomicBool = AtomicBool::new(false);

/// Whether beats are on, and lines therefore must not contain one.
static BEATS: AtomicBool = AtomicBool::new(false);

/// Sets the port up: 115200 baud, 8N1, FIFOs on, no interrupts.
pub fn init() {
    port::write8(INTERRUPTS, 0);
    port::write8(LINE_CONTROL, 0x80); // the next two registers are the divisor
    port::write8(DATA, 1);
    port::write8(INTERRUPTS, 0);
    port::write8(LINE_CONTROL, 0x03);
    port::write8(FIFO, 0xc1); // on, and to be filled with 14 bytes before the sender waits
    port::write8(MODEM_CONTROL, 0x03);
}

/// From now on no line contains the byte of a beat.
pub fn expect_beats() {
    BEATS.store(true, Ordering::Relaxed);
}

/// Sends a beat, also in the middle of a line.
pub fn send_beat() {
    wait_for_transmitter(&mut || {});
    port::write8(DATA, BEAT);
}

/// A byte that has arrived.
pub fn receive() -> Option<u8> {
    (port::read8(LINE_STATUS) & RECEIVED != 0).then(|| port::read8(DATA))
}

/// Writes a line. `pulse` goes on meanwhile.
pub fn line(pulse: &mut Pulse, text: impl fmt::Display) {
    while LINE_LOCK.swap(true, Ordering::Acquire) {
        pulse.tick();
        spin_loop();
    }
    write_line(
        &mut || {
            pulse.tick();
        },
        &text,
    );
    LINE_LOCK.store(false, Ordering::Release);
}

/// Writes a line though another vCPU may be in the middle of one: the last words before a crash.
pub fn last_line(text: impl fmt::Display) {
    for _ in 0..SPINS_MAX {
        if !LINE_LOCK.swap(true, Ordering::Acquire) {
            break;
        }
        spin_loop();
    }
    write_line(&mut || {}, &text);
}

fn write_line(tick: &mut dyn FnMut(), text: &dyn fmt::Display) {
    let mut line = Line { tick, room: 0 };
    // Only fails if the transmitter does, which never says so.
    let _ = writeln!(line, "{text}");
}

/// Waits until the transmitter is empty; false if that takes too long.
fn wait_for_transmitter(tick: &mut dyn FnMut()) -> bool {
    for _ in 0..SPINS_MAX {
        if port::read8(LINE_STATUS) & TRANSMIT_EMPTY != 0 {
            return true;
        }
        tick();
    }
    false
}

struct Line<'a> {
    tick: &'a mut dyn FnMut(),
    /// Bytes that the transmitter takes before it is to be looked at again.
    room: u8,
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let byte = if byte == BEAT && BEATS.load(Ordering::Relaxed) { BEAT_STAND_IN } else { byte };
            if self.room == 0 {
                wait_for_transmitter(self.tick);
                self.room = BURST;
            }
            self.room -= 1;
            port::write8(DATA, byte);
            (self.tick)();
        }
        Ok(())
    }
}
