//! The words of the BIOS data area that kernels read which expect that a BIOS was there: where COM1 is,
//! and where memory below 1 MiB ends. Multiboot promises a machine as the BIOS left it: Xen finds room for
//! its first code by them, GNU Mach its serial port. Source: Ralf Brown's interrupt list, `MEMORY.LST`.

use super::elf::Segment;
use super::error::BootError;
use super::memory_map::LOW_RAM_END;
use super::room::Room;
use crate::PAGE_SIZE;

const COM1_PORT: (u64, u16) = (0x400, 0x3f8);
/// Segment of the extended area, which our memory map keeps free too.
const EXTENDED_SEGMENT: u64 = 0x40e;
const BASE_MEMORY_KIB: u64 = 0x413;

/// Writes them, unless the kernel has the first page for itself.
pub(super) fn write(room: &Room<'_>, segments: &[Segment<'_>]) -> Result<(), BootError> {
    if segments.iter().any(|segment| segment.guest_address < PAGE_SIZE) {
        return Ok(());
    }
    let word = |value: u64| u16::try_from(value).expect("below 1 MiB").to_le_bytes();
    room.write(COM1_PORT.0, &COM1_PORT.1.to_le_bytes())?;
    room.write(EXTENDED_SEGMENT, &word(LOW_RAM_END >> 4))?;
    room.write(BASE_MEMORY_KIB, &word(LOW_RAM_END >> 10))
}
