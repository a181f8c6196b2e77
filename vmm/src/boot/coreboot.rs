//! The table by which coreboot tells its payloads about the machine: memory map and serial port. A
//! payload looks for it from 0x500 on. Pure but for the writing. Source: coreboot's
//! `src/commonlib/include/commonlib/coreboot_tables.h` and its API documentation.
//!
//! Payloads such as GRUB carry a Multiboot header too, so it is written for Multiboot kernels as well; no
//! other kernel looks there.

use super::bytes::{get16, put32, put64};
use super::elf::Segment;
use super::error::BootError;
use super::memory_map::{MapEntry, memory_map};
use super::room::Room;
use crate::PAGE_SIZE;

/// Behind the real-mode interrupt table and the BIOS data area, in the first page, which nobody is given.
const TABLE_ADDRESS: u64 = 0x500;
const HEADER_BYTES: usize = 24;
const TAG_MEMORY: u32 = 0x01;
const TAG_SERIAL: u32 = 0x0f;
const SERIAL_IS_PORTS: u32 = 1;
const COM1: u32 = 0x3f8;
const BAUD: u32 = 115_200;

/// Writes the table, unless the kernel has the first page for itself.
pub(super) fn write_table(room: &Room<'_>, segments: &[Segment<'_>]) -> Result<(), BootError> {
    if segments.iter().any(|segment| segment.guest_address < PAGE_SIZE) {
        return Ok(());
    }
    room.write(TABLE_ADDRESS, &encode(&memory_map(room.layout())))
}

fn encode(map: &[MapEntry]) -> Vec<u8> {
    let mut records = Vec::new();
    put32(&mut records, TAG_MEMORY);
    put32(&mut records, record_bytes(8 + 20 * map.len()));
    for entry in map {
        put64(&mut records, entry.start);
        put64(&mut records, entry.bytes);
        put32(&mut records, entry.kind as u32);
    }
    put32(&mut records, TAG_SERIAL);
    put32(&mut records, record_bytes(8 + 4 * 4));
    for value in [SERIAL_IS_PORTS, COM1, BAUD, 1] {
        put32(&mut records, value);
    }
    let header = |checksum| {
        let mut header = Vec::from(*b"LBIO");
        put32(&mut header, record_bytes(HEADER_BYTES));
        put32(&mut header, checksum);
        put32(&mut header, record_bytes(records.len()));
        put32(&mut header, checksum_of(&records).into());
        put32(&mut header, 2);
        header
    };
    // The header's sum, its own field included, is zero.
    let mut table = header(checksum_of(&header(0)).into());
    table.extend(records);
    table
}

fn record_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the table has a handful of entries")
}

/// The Internet checksum: what makes the sum of all 16-bit words all ones.
fn checksum_of(bytes: &[u8]) -> u16 {
    let words = (0..bytes.len()).step_by(2);
    let sum: u32 = words.filter_map(|at| get16(bytes, at)).map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::bytes::get32;
    use crate::memory::RamLayout;

    #[test]
    fn its_sums_are_those_that_a_payload_checks() {
        let table = encode(&memory_map(&RamLayout::new(5 << 30).unwrap()));
        let (header, records) = table.split_at(HEADER_BYTES);
        assert!(header.starts_with(b"LBIO"));
        assert_eq!(get32(header, 12), u32::try_from(records.len()).ok());
        assert_eq!(get32(header, 16), Some(checksum_of(records).into()));
        assert_eq!(checksum_of(header), 0, "with its own field it sums up to nothing");
        assert!(TABLE_ADDRESS + table.len() as u64 <= PAGE_SIZE);
    }

    #[test]
    fn its_records_fill_it() {
        let map = memory_map(&RamLayout::new(16 << 20).unwrap());
        let table = encode(&map);
        let mut tags = Vec::new();
        let mut at = HEADER_BYTES;
        while at < table.len() {
            tags.push(get32(&table, at).unwrap());
            at += usize::try_from(get32(&table, at + 4).unwrap()).unwrap();
        }
        assert_eq!((at, tags.as_slice()), (table.len(), &[TAG_MEMORY, TAG_SERIAL][..]));
    }
}
