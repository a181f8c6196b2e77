//! The tables that a CPU needs in memory when a kernel is entered: segment descriptors and, for long
//! mode, page tables that map the first 4 GiB to themselves. Pure.
//! Sources: Intel SDM volume 3, chapters 3 (descriptors) and 4 (4-level paging).

use super::bytes::put64;
use super::error::BootError;
use super::room::Room;
use crate::PAGE_SIZE;

/// Linux's `__BOOT_CS`.
pub(super) const CODE_SELECTOR: u16 = 0x10;
/// Linux's `__BOOT_DS`.
pub(super) const DATA_SELECTOR: u16 = 0x18;
pub(super) const TSS_SELECTOR: u16 = 0x20;
/// Two empty descriptors, code, data, and a TSS that takes two.
pub(super) const GDT_BYTES: u16 = 6 * 8;

/// Present, writable.
const TABLE: u64 = 0b11;
/// The entry maps a page of 2 MiB.
const LARGE: u64 = 1 << 7;
const ENTRIES: u64 = PAGE_SIZE / 8;
const GIBS: u64 = 4;
/// One table of each of the two upper levels, and a third-level table for each GiB.
const PAGE_TABLE_BYTES: u64 = (2 + GIBS) * PAGE_SIZE;

/// Bits 8 to 23 of a descriptor's upper half: type, present, granularity, size. Base 0, limit 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Bits32 = 0x00cf_9b00,
    Bits64 = 0x00af_9b00,
}

/// Writes a descriptor table for 32-bit mode, and gives its address.
pub(super) fn write_gdt32(room: &mut Room<'_>) -> Result<u64, BootError> {
    write_gdt(room, Code::Bits32)
}

/// Writes descriptor table and page tables for long mode; gives their addresses, in this order.
pub(super) fn write_long_mode(room: &mut Room<'_>) -> Result<(u64, u64), BootError> {
    let gdt = write_gdt(room, Code::Bits64)?;
    let tables = room.lowest("page tables", PAGE_TABLE_BYTES)?;
    room.write(tables, &page_tables(tables))?;
    Ok((gdt, tables))
}

fn write_gdt(room: &mut Room<'_>, code: Code) -> Result<u64, BootError> {
    let gdt = room.lowest("a descriptor table", GDT_BYTES.into())?;
    room.write(gdt, &descriptors(code))?;
    Ok(gdt)
}

fn descriptors(code: Code) -> Vec<u8> {
    let mut bytes = Vec::new();
    let upper = |upper: u64, lower: u64| (upper << 32) | lower;
    // Data: read/write. TSS: busy, limit 0x67, at address 0.
    for entry in [0, 0, upper(code as u64, 0xffff), upper(0x00cf_9300, 0xffff), upper(0x0000_8b00, 0x67), 0] {
        put64(&mut bytes, entry);
    }
    bytes
}

fn page_tables(at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut table = |entries: &mut dyn Iterator<Item = u64>| {
        let filled = entries.chain(std::iter::repeat(0)).take(ENTRIES.try_into().expect("512"));
        filled.for_each(|entry| put64(&mut bytes, entry));
    };
    table(&mut std::iter::once((at + PAGE_SIZE) | TABLE));
    table(&mut (0..GIBS).map(|gib| (at + (2 + gib) * PAGE_SIZE) | TABLE));
    for gib in 0..GIBS {
        table(&mut (0..ENTRIES).map(|page| (((gib * ENTRIES) + page) << 21) | TABLE | LARGE));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::bytes::get64;

    /// What a CPU would find, walking from the top.
    fn walk(tables: &[u8], at: u64, address: u64) -> u64 {
        let entry =
            |table: u64, index: u64| get64(tables, usize::try_from(table - at + index * 8).unwrap()).unwrap();
        let page = |entry: u64| entry & !0xfff;
        let upper = entry(at, address >> 39 & 0x1ff);
        let middle = entry(page(upper), address >> 30 & 0x1ff);
        let lower = entry(page(middle), address >> 21 & 0x1ff);
        assert_eq!((upper & 3, middle & 3, lower & 0x83), (3, 3, 0x83));
        (lower & !0x1f_ffff) | (address & 0x1f_ffff)
    }

    #[test]
    fn the_first_four_gib_are_mapped_to_themselves() {
        let at = 0x7000;
        let tables = page_tables(at);
        assert_eq!(tables.len() as u64, PAGE_TABLE_BYTES);
        for address in [0, 0x1234, 0x20_0000, 0x3fff_ffff, 0x4000_0000, 0xfee0_0000, 0xffff_ffff] {
            assert_eq!(walk(&tables, at, address), address);
        }
    }

    #[test]
    fn descriptors_are_where_the_selectors_say() {
        for code in [Code::Bits32, Code::Bits64] {
            let table = descriptors(code);
            assert_eq!(table.len(), usize::from(GDT_BYTES));
            // Bit 43 tells code from data, bit 44 both from a TSS, bit 47 that it is there.
            let kind = |selector: u16| get64(&table, selector.into()).unwrap() >> 43 & 0b10011;
            assert_eq!(
                (kind(CODE_SELECTOR), kind(DATA_SELECTOR), kind(TSS_SELECTOR)),
                (0b10011, 0b10010, 0b10001)
            );
            assert_eq!(
                get64(&table, CODE_SELECTOR.into()).unwrap() >> 53 & 1,
                u64::from(code == Code::Bits64)
            );
        }
    }
}
