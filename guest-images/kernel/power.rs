//! Ways to end the guest.

use crate::cmdline::MAX_CPUS;
use crate::port;
use crate::report::Report;
use crate::ring0;
use crate::serial;
use crate::tsc::Tsc;

/// Exit value of a kernel that gives up at boot.
const BOOT_ERROR: u8 = 0x10;

/// A VMM may take this long to act on a write.
const PATIENCE_NS: u64 = 500_000_000;

/// ACPI sleep control of Godwit and Cloud Hypervisor: S5 with the enable bit.
pub fn power_off(tsc: Tsc) -> ! {
    port::write8(0x600, 0x34);
    port::write16(0x604, 0x2000); // QEMU's PM1a control
    tsc.delay(PATIENCE_NS);
    reset(tsc)
}

/// Asks the keyboard controller for a reset.
pub fn reset(tsc: Tsc) -> ! {
    port::write8(0x64, 0xfe);
    tsc.delay(PATIENCE_NS);
    ring0::crash()
}

/// Ends with a value, where there is an isa-debug-exit port.
pub fn exit(value: u8) {
    port::write8(0xf4, value);
}

/// QEMU's pvpanic device on the ISA bus.
const PVPANIC: u16 = 0x505;

/// The events that the VMM takes: bit 0 a panic, bit 1 a crash kernel that was loaded.
pub fn panic_events() -> u8 {
    port::read8(PVPANIC)
}

/// Tells the VMM of such events. The guest goes on unless it is ended.
pub fn report_panic(events: u8) {
    port::write8(PVPANIC, events);
}

/// Says why the kernel can't go on, and ends.
pub fn give_up(reason: impl core::fmt::Display) -> ! {
    serial::last_line(format_args!("{}error {reason}", crate::report::PREFIX));
    exit(BOOT_ERROR);
    ring0::crash()
}

/// Where a broken vCPU was.
#[repr(C)]
pub struct ExceptionFrame {
    cr2: u64,
    vector: u64,
    error: u64,
    rip: u64,
}

/// Ring 0 comes here with exceptions that are not its calls.
#[unsafe(no_mangle)]
extern "C" fn exception_main(frame: &ExceptionFrame) -> ! {
    let cpu = crate::tables::cpu_of_ring0_stack(core::ptr::from_ref(frame) as u64).unwrap_or(MAX_CPUS);
    let &ExceptionFrame { cr2, vector, error, rip } = frame;
    serial::last_line(Report::Exception { cpu: cpu as u64, vector, error, rip, cr2 });
    ring0::crash()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let here = 0_u8;
    let cpu = crate::tables::cpu_of_stack(&raw const here as u64).unwrap_or(MAX_CPUS);
    serial::last_line(format_args!("{}panic cpu={cpu} {}", crate::report::PREFIX, OneLine(info)));
    ring0::crash()
}

/// A panic says where and why on two lines; a report is one line.
struct OneLine<'a>(&'a core::panic::PanicInfo<'a>);

impl core::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if let Some(location) = self.0.location() {
            write!(f, "{}:{}: ", location.file(), location.line())?;
        }
        write!(f, "{}", self.0.message())
    }
}
