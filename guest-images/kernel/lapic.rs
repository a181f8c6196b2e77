//! The local APIC, in its memory-mapped form.

use crate::port;
use crate::pulse::now;
use crate::tables::{SPURIOUS_VECTOR, TIMER_VECTOR};
use crate::tsc::Tsc;

const BASE: u64 = 0xfee0_0000;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const LINT0: u64 = 0x350;
const TIMER_COUNT: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

const MASKED: u32 = 1 << 16;
const ALL_BUT_SELF: u32 = 0b11 << 18;
const ASSERT: u32 = 1 << 14;
const INIT: u32 = 0b101 << 8;
const STARTUP: u32 = 0b110 << 8;

fn read(register: u64) -> u32 {
    // SAFETY: the APIC's page is mapped, and reading these registers has no effect.
    unsafe { ((BASE + register) as *const u32).read_volatile() }
}

fn write(register: u64, value: u32) {
    // SAFETY: the APIC's page is mapped; what the registers do is what the callers are for.
    unsafe { ((BASE + register) as *mut u32).write_volatile(value) }
}

/// Switches this vCPU's APIC on.
pub fn enable() {
    write(SPURIOUS, 0x100 | u32::from(SPURIOUS_VECTOR));
}

/// Resets all other vCPUs.
pub fn send_init_to_others() {
    write(COMMAND_HIGH, 0);
    write(COMMAND_LOW, ALL_BUT_SELF | ASSERT | INIT);
}

/// Starts all other vCPUs in real mode at the start of page `page`.
pub fn send_startup_to_others(page: u8) {
    write(COMMAND_HIGH, 0);
    write(COMMAND_LOW, ALL_BUT_SELF | ASSERT | STARTUP | u32::from(page));
}

/// Firmware may have left the old interrupt controllers and their timer running, whose interrupts
/// look like exceptions.
fn silence_others() {
    const FIRST_PIC_MASK: u16 = 0x21;
    const SECOND_PIC_MASK: u16 = 0xa1;
    port::write8(FIRST_PIC_MASK, 0xff);
    port::write8(SECOND_PIC_MASK, 0xff);
    write(LINT0, MASKED);
}

/// The timer, with its measured frequency.
pub struct Timer {
    counts_per_ms: u64,
}

impl Timer {
    /// Measures the timer; `None` if it does not run.
    pub fn new(tsc: Tsc) -> Option<Self> {
        enable();
        silence_others();
        write(TIMER_DIVIDE, 0b1011); // by 1
        write(TIMER, MASKED | u32::from(TIMER_VECTOR));
        write(TIMER_COUNT, u32::MAX);
        let start = now();
        let first = read(TIMER_CURRENT);
        tsc.delay(1_000_000);
        let counts = first.wrapping_sub(read(TIMER_CURRENT));
        let us = tsc.microseconds(now().wrapping_sub(start));
        write(TIMER_COUNT, 0);
        let counts_per_ms = u64::from(counts) * 1000 / us.max(1);
        (counts_per_ms > 0).then_some(Self { counts_per_ms })
    }

    /// One interrupt, `us` microseconds from now.
    pub fn arm(&self, us: u64) {
        let count = (self.counts_per_ms * us / 1000).clamp(1, u64::from(u32::MAX));
        write(TIMER, u32::from(TIMER_VECTOR));
        write(TIMER_COUNT, count as u32);
    }
}
