//! The bytes of PVH's `hvm_start_info` (version 1), its module list and its memory map. Pure.

use super::bytes::{put32, put64};
use super::memory_map::MapEntry;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
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

pub(super) fn encode_memory_map(map: &[MapEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in map {
        put64(&mut bytes, entry.start);
        put64(&mut bytes, entry.bytes);
        put32(&mut bytes, entry.kind as u32);
        put32(&mut bytes, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::memory_map::MapKind;

    #[test]
    fn sizes_are_those_of_the_headers() {
        assert_eq!(StartInfo::default().encode().len() as u64, StartInfo::BYTES);
        assert_eq!(encode_module(1, 2).len() as u64, MODLIST_BYTES);
        let map = [MapEntry { start: 0, bytes: 1, kind: MapKind::Ram }];
        assert_eq!(encode_memory_map(&map).len() as u64, MEMMAP_ENTRY_BYTES);
    }
}
