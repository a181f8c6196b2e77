//! Ports by which a guest ends or resets itself, or says that it panicked. Pure.
//!
//! | port | write | meaning | known from |
//! |---|---|---|---|
//! | 0x64 | 0xfe | reset | the keyboard controller's pulse of the reset line |
//! | 0xcf9 | bit 2 set | reset | the PCH's reset control register |
//! | 0x92 | bit 0 set | reset | system control port A |
//! | 0x600 | 0x34 (SLP_EN, type 5) | power off | ACPI sleep control register of hardware-reduced machines, where Cloud Hypervisor has it |
//! | 0x604 | 16 bit, bit 13 set | power off | PM1a control of QEMU's PC, which small kernels use |
//! | 0xf4 | V | ends with (V << 1) \| 1 | QEMU's isa-debug-exit |
//! | 0x505 | bit 0 set | the guest panicked | QEMU's pvpanic on the ISA bus; reads as the bits that it knows |
//! | 0x505 | bit 1 set, bit 0 not | the guest panicked, and its crash kernel takes over | the same |

use super::bus::BusOutcome;

/// Pvpanic's events.
const PANICKED: u8 = 1;
const CRASH_LOADED: u8 = 2;

/// What a write to `port` does to the machine, if the port is one of the table.
pub(super) fn write(port: u16, data: &[u8]) -> Option<BusOutcome> {
    let first = data.first().copied().unwrap_or(0);
    let ends = match port {
        0x64 => (first == 0xfe).then_some(BusOutcome::Reset),
        0x92 => (first & 1 != 0).then_some(BusOutcome::Reset),
        0xcf9 => (first & 4 != 0).then_some(BusOutcome::Reset),
        0x600 => (first == 0x34).then_some(BusOutcome::PowerOff),
        0x604 => (data.len() == 2 && data[1] & 0x20 != 0).then_some(BusOutcome::PowerOff),
        0xf4 => {
            let mut value = [0; 4];
            let bytes = data.len().min(4);
            value[..bytes].copy_from_slice(&data[..bytes]);
            Some(BusOutcome::DebugExit(u32::from_le_bytes(value)))
        }
        0x505 if first & PANICKED != 0 => Some(BusOutcome::Panicked),
        0x505 if first & CRASH_LOADED != 0 => Some(BusOutcome::CrashKernel),
        0x505 => None,
        _ => return None,
    };
    Some(ends.unwrap_or(BusOutcome::Done))
}

/// What a read of `port` gives, if the port is one of the table that can be read.
pub(super) fn read(port: u16) -> Option<u8> {
    match port {
        // Keyboard controller: nothing to read, ready for a command. Port A: A20 is on. Debug exit: none.
        0x60 | 0x64 | 0xf4 | 0xcf9 => Some(0),
        0x92 => Some(2),
        0x505 => Some(PANICKED | CRASH_LOADED),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_is_told_apart() {
        assert_eq!(write(0x64, &[0xfe]), Some(BusOutcome::Reset));
        assert_eq!(write(0x64, &[0xd1]), Some(BusOutcome::Done));
        assert_eq!(write(0xcf9, &[0x06]), Some(BusOutcome::Reset));
        assert_eq!(write(0xcf9, &[0x02]), Some(BusOutcome::Done));
        assert_eq!(write(0x600, &[0x34]), Some(BusOutcome::PowerOff));
        assert_eq!(write(0x604, &[0x00, 0x20]), Some(BusOutcome::PowerOff));
        assert_eq!(write(0x604, &[0x20]), Some(BusOutcome::Done));
        assert_eq!(write(0xf4, &[7, 0, 0, 0]), Some(BusOutcome::DebugExit(7)));
        assert_eq!(write(0xf4, &[7]), Some(BusOutcome::DebugExit(7)));
        assert_eq!(write(0x505, &[1]), Some(BusOutcome::Panicked));
        assert_eq!(write(0x505, &[3]), Some(BusOutcome::Panicked), "the worse of two");
        assert_eq!(write(0x505, &[2]), Some(BusOutcome::CrashKernel));
        assert_eq!(write(0x505, &[0xfc]), Some(BusOutcome::Done), "events that are not offered");
        assert_eq!(read(0x505), Some(3));
        assert_eq!(write(0x80, &[7]), None);
    }
}
