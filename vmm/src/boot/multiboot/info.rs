//! The bytes of the Multiboot 1 information structure and what it points to, in one piece. Pure.

use crate::boot::bytes::{put32, put64};
use crate::boot::memory_map::{LOW_RAM_END, MapEntry, ONE_MIB, memory_map};
use crate::memory::RamLayout;

const NAME: &str = "godwit";
/// What a loader says of a module: its file's name.
const MODULE_TEXT: &str = "initrd";
const BYTES: usize = 116;
const HAS_MEMORY: u32 = 1;
const HAS_CMDLINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MAP: u32 = 1 << 6;
const HAS_NAME: u32 = 1 << 9;
const HAS_FRAMEBUFFER: u32 = 1 << 12;
/// Text of 80 × 25 characters, where a PC has it. It is RAM here, and nobody sees it.
const TEXT_ADDRESS: u64 = 0xb_8000;
const TEXT_PITCH: u32 = 160;
const TEXT_COLUMNS: u32 = 80;
const TEXT_ROWS: u32 = 25;
const TEXT_BITS: u8 = 16;
const TEXT_KIND: u8 = 2;

/// What is told.
#[derive(Debug, Clone)]
pub(super) struct Info<'a> {
    pub(super) cmdline: &'a str,
    /// Address and size.
    pub(super) initrd: Option<(u64, u64)>,
    pub(super) layout: RamLayout,
    pub(super) video: bool,
    /// Where it will lie.
    pub(super) at: u32,
}

impl Info<'_> {
    /// Its length does not depend on where it lies.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Everything that is pointed to, behind the structure itself.
        let mut behind = Vec::new();
        let place = |behind: &mut Vec<u8>, bytes: &[u8]| {
            let at = self.at + u32_of(BYTES + behind.len());
            behind.extend_from_slice(bytes);
            behind.resize(behind.len().next_multiple_of(8), 0);
            at
        };
        let cmdline = place(&mut behind, &text(self.cmdline));
        let name = place(&mut behind, &text(NAME));
        let map_bytes = encode_map(&memory_map(&self.layout));
        let map = place(&mut behind, &map_bytes);
        let module = self.initrd.map(|(start, bytes)| {
            let name = place(&mut behind, &text(MODULE_TEXT));
            let mut module = Vec::new();
            for value in [address(start), address(start + bytes), name, 0] {
                put32(&mut module, value);
            }
            place(&mut behind, &module)
        });

        let flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MAP | HAS_NAME;
        let flags = if self.video { flags | HAS_FRAMEBUFFER } else { flags };
        let low_end = self.layout.low().guest_end();
        let mut info = Vec::new();
        put32(&mut info, flags);
        put32(&mut info, kib(low_end.min(LOW_RAM_END)));
        put32(&mut info, kib(low_end.saturating_sub(ONE_MIB)));
        put32(&mut info, 0);
        put32(&mut info, cmdline);
        put32(&mut info, module.is_some().into());
        put32(&mut info, module.unwrap_or(0));
        info.resize(44, 0);
        put32(&mut info, u32_of(map_bytes.len()));
        put32(&mut info, map);
        info.resize(64, 0);
        put32(&mut info, name);
        info.resize(88, 0);
        if self.video {
            put64(&mut info, TEXT_ADDRESS);
            for value in [TEXT_PITCH, TEXT_COLUMNS, TEXT_ROWS] {
                put32(&mut info, value);
            }
            info.extend([TEXT_BITS, TEXT_KIND]);
        }
        info.resize(BYTES, 0);
        info.extend(behind);
        info
    }
}

/// Each entry is preceded by its size, which does not count itself.
fn encode_map(map: &[MapEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in map {
        put32(&mut bytes, 20);
        put64(&mut bytes, entry.start);
        put64(&mut bytes, entry.bytes);
        put32(&mut bytes, entry.kind as u32);
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn address(address: u64) -> u32 {
    crate::boot::bytes::address32(address)
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 10).expect("below 3 GiB")
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a command line is bounded, the rest is small")
}
