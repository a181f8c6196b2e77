//! The bytes of PVH's `hvm_start_info` (version 1), its module list and its memory map. Pure.

use crate::memory::RamLayout;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// First byte that a PC's firmware keeps for itself below 1 MiB.
pub(super) const LOW_RAM_END: u64 = 0x9_fc00;
const ONE_MIB: u64 = 1 << 20;

/// `XEN_HVM_MEMMAP_TYPE_*`, which are the e820 types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    Ram = 1,
    Reserved = 2,
}

/// `hvm_start_info`: 56 bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StartInfo {
    pub(super) modlist: Option<u64>,
    pub(super) cmdline: u64,
    pub(super) memmap: u64,
    pub(super) memmap_entries: u32,
}

impl StartInfo {
    pub(super) const BYTES: u64 = 56;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put32(&mut bytes, MAGIC);
        put32(&mut bytes, 1);
        put32(&mut bytes, 0);
        put32(&mut bytes, self.modlist.is_some().into());
        put64(&mut bytes, self.modlist.unwrap_or(0));
        put64(&mut bytes, self.cmdline);
        put64(&mut bytes, 0);
        put64(&mut bytes, self.memmap);
        put32(&mut bytes, self.memmap_entries);
        put32(&mut bytes, 0);
        bytes
    }
}

/// `hvm_modlist_entry`: 32 bytes.
pub(super) const MODLIST_BYTES: u64 = 32;

pub(super) fn encode_module(guest_address: u64, bytes: u64) -> Vec<u8> {
    let mut entry = Vec::new();
    put64(&mut entry, guest_address);
    put64(&mut entry, bytes);
    put64(&mut entry, 0);
    put64(&mut entry, 0);
    entry
}

/// `hvm_memmap_table_entry`: 24 bytes.
pub(super) const MEMMAP_ENTRY_BYTES: u64 = 24;

/// The map: conventional RAM, the PC's hole below 1 MiB, RAM up to the device hole, the interrupt
/// controllers, RAM above 4 GiB.
pub(super) fn memory_map(layout: &RamLayout) -> Vec<(u64, u64, MapKind)> {
    let low = layout.low();
    let mut map = vec![(0, LOW_RAM_END.min(low.guest_end()), MapKind::Ram)];
    if low.guest_end() > LOW_RAM_END {
        map.push((LOW_RAM_END, ONE_MIB - LOW_RAM_END, MapKind::Reserved));
    }
    if low.guest_end() > ONE_MIB {
        map.push((ONE_MIB, low.guest_end() - ONE_MIB, MapKind::Ram));
    }
    // IOAPIC, local APIC, and what Intel's KVM keeps for itself (TSS, identity map).
    map.push((0xfec0_0000, 0x40_0000, MapKind::Reserved));
    map.push((super::registers::KVM_PRIVATE_START, super::registers::KVM_PRIVATE_BYTES, MapKind::Reserved));
    map.extend(layout.ranges()[1..].iter().map(|r| (r.guest_base, r.bytes, MapKind::Ram)));
    map.sort_unstable_by_key(|(start, ..)| *start);
    map
}

pub(super) fn encode_memory_map(map: &[(u64, u64, MapKind)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (start, length, kind) in map {
        put64(&mut bytes, *start);
        put64(&mut bytes, *length);
        put32(&mut bytes, *kind as u32);
        put32(&mut bytes, 0);
    }
    bytes
}

fn put32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_headers() {
        assert_eq!(StartInfo::default().encode().len() as u64, StartInfo::BYTES);
        assert_eq!(encode_module(1, 2).len() as u64, MODLIST_BYTES);
        let map = [(0, 1, MapKind::Ram)];
        assert_eq!(encode_memory_map(&map).len() as u64, MEMMAP_ENTRY_BYTES);
    }

    #[test]
    fn the_map_is_ascending_without_overlap_and_counts_all_ram_but_the_pc_hole() {
        for mib in [1, 16, 4096, 8192] {
            let layout = RamLayout::new(mib << 20).unwrap();
            let map = memory_map(&layout);
            assert!(map.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "{mib} MiB: {map:x?}");
            let ram: u64 = map.iter().filter(|e| e.2 == MapKind::Ram).map(|e| e.1).sum();
            assert_eq!(ram, layout.bytes() - (ONE_MIB - LOW_RAM_END));
        }
    }
}
