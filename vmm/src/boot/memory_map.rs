//! The guest's memory map, which every protocol tells in its own form. Pure.

use crate::memory::RamLayout;

/// First byte that a PC's firmware keeps for itself below 1 MiB.
pub(super) const LOW_RAM_END: u64 = 0x9_fc00;
pub(super) const ONE_MIB: u64 = 1 << 20;

/// The e820 types, which PVH, Linux, Multiboot and coreboot share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    Ram = 1,
    Reserved = 2,
}

/// A piece of guest-physical space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) kind: MapKind,
}

/// The map: conventional RAM, the PC's hole below 1 MiB, RAM up to the device hole, the interrupt
/// controllers, RAM above 4 GiB.
pub(super) fn memory_map(layout: &RamLayout) -> Vec<MapEntry> {
    let entry = |start, bytes, kind| MapEntry { start, bytes, kind };
    let low = layout.low();
    let mut map = vec![entry(0, LOW_RAM_END.min(low.guest_end()), MapKind::Ram)];
    if low.guest_end() > LOW_RAM_END {
        map.push(entry(LOW_RAM_END, ONE_MIB - LOW_RAM_END, MapKind::Reserved));
    }
    if low.guest_end() > ONE_MIB {
        map.push(entry(ONE_MIB, low.guest_end() - ONE_MIB, MapKind::Ram));
    }
    // IOAPIC, local APIC, and what Intel's KVM keeps for itself (TSS, identity map).
    map.push(entry(0xfec0_0000, 0x40_0000, MapKind::Reserved));
    let private = (super::registers::KVM_PRIVATE_START, super::registers::KVM_PRIVATE_BYTES);
    map.push(entry(private.0, private.1, MapKind::Reserved));
    map.extend(layout.ranges()[1..].iter().map(|r| entry(r.guest_base, r.bytes, MapKind::Ram)));
    map.sort_unstable_by_key(|entry| entry.start);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_ascending_without_overlap_and_counts_all_ram_but_the_pc_hole() {
        for mib in [1, 16, 4096, 8192] {
            let layout = RamLayout::new(mib << 20).unwrap();
            let map = memory_map(&layout);
            assert!(map.windows(2).all(|w| w[0].start + w[0].bytes <= w[1].start), "{mib} MiB: {map:x?}");
            let ram: u64 = map.iter().filter(|e| e.kind == MapKind::Ram).map(|e| e.bytes).sum();
            assert_eq!(ram, layout.bytes() - (ONE_MIB - LOW_RAM_END));
        }
    }
}
