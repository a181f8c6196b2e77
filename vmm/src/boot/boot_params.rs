//! The bytes of Linux's `boot_params`, the "zero page". Pure. Sources: Linux's
//! `Documentation/arch/x86/{boot,zero-page}.rst`.

use super::bytes::{address32, put32, put64};
use super::linux_header::HEADER_START;
use super::memory_map::MapEntry;

pub(super) const BOOT_PARAMS_BYTES: u64 = 4096;
const E820_ENTRIES: usize = 0x1e8;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CODE32_START: usize = 0x214;
const CMD_LINE_PTR: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
/// A loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xff;

/// What is told beside the kernel's own header.
#[derive(Debug, Clone, Copy)]
pub(super) struct BootParams<'a> {
    /// The setup header as the kernel brings it; empty if it has none.
    pub(super) setup: &'a [u8],
    /// Where the kernel was loaded.
    pub(super) kernel: u64,
    pub(super) cmdline: u64,
    /// Address and size.
    pub(super) initrd: Option<(u64, u64)>,
    pub(super) map: &'a [MapEntry],
}

impl BootParams<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[HEADER_START..HEADER_START + self.setup.len()].copy_from_slice(self.setup);
        let mut set32 = |at: usize, value: u64| {
            page[at..at + 4].copy_from_slice(&address32(value).to_le_bytes());
        };
        set32(CODE32_START, self.kernel);
        set32(CMD_LINE_PTR, self.cmdline);
        let (initrd, initrd_bytes) = self.initrd.unwrap_or((0, 0));
        set32(RAMDISK_IMAGE, initrd);
        set32(RAMDISK_SIZE, initrd_bytes);
        page[TYPE_OF_LOADER] = UNDEFINED_LOADER;
        let mut table = Vec::new();
        for entry in self.map {
            put64(&mut table, entry.start);
            put64(&mut table, entry.bytes);
            put32(&mut table, entry.kind as u32);
        }
        page[E820_ENTRIES] = u8::try_from(self.map.len()).expect("the map has a handful of entries");
        page[E820_TABLE..E820_TABLE + table.len()].copy_from_slice(&table);
        page
    }
}
