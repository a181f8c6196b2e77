//! The bytes of the Multiboot 2 information: a list of tags, each on 8 bytes. Pure.

use crate::boot::bytes::{address32, put32, put64};
use crate::boot::memory_map::{LOW_RAM_END, ONE_MIB, memory_map};
use crate::memory::RamLayout;

const END: u32 = 0;
const CMDLINE: u32 = 1;
const LOADER_NAME: u32 = 2;
const MODULE: u32 = 3;
const BASIC_MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
pub(super) const FRAMEBUFFER: u32 = 8;
const LOAD_BASE: u32 = 21;
/// What can be told.
pub(super) const KINDS: [u32; 7] =
    [CMDLINE, LOADER_NAME, MODULE, BASIC_MEMORY, MEMORY_MAP, FRAMEBUFFER, LOAD_BASE];

/// What is told.
#[derive(Debug)]
pub(super) struct Info<'a> {
    pub(super) cmdline: &'a str,
    /// Address and size.
    pub(super) initrd: Option<(u64, u64)>,
    pub(super) layout: &'a RamLayout,
    pub(super) video: bool,
    /// Where the kernel's lowest byte lies.
    pub(super) load_base: u64,
}

impl Info<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let text = |text: &str| [text.as_bytes(), &[0]].concat();
        let numbers =
            |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let low_end = self.layout.low().guest_end();
        let kib = |bytes: u64| u32::try_from(bytes >> 10).expect("below 3 GiB");

        let mut tags = Vec::new();
        tag(&mut tags, CMDLINE, &text(self.cmdline));
        tag(&mut tags, LOADER_NAME, &text("godwit"));
        if let Some((start, bytes)) = self.initrd {
            let range = numbers(&[address32(start), address32(start + bytes)]);
            tag(&mut tags, MODULE, &[range, text("initrd")].concat());
        }
        let memory = [kib(low_end.min(LOW_RAM_END)), kib(low_end.saturating_sub(ONE_MIB))];
        tag(&mut tags, BASIC_MEMORY, &numbers(&memory));
        // Size and version of an entry come first.
        let mut map = numbers(&[24, 0]);
        for entry in memory_map(self.layout) {
            put64(&mut map, entry.start);
            put64(&mut map, entry.bytes);
            put32(&mut map, entry.kind as u32);
            put32(&mut map, 0);
        }
        tag(&mut tags, MEMORY_MAP, &map);
        if self.video {
            // Text of 80 × 25 characters where a PC has it: RAM here, which nobody sees.
            let place = [&0xb_8000_u64.to_le_bytes()[..], &numbers(&[160, 80, 25]), &[16, 2, 0, 0]].concat();
            tag(&mut tags, FRAMEBUFFER, &place);
        }
        tag(&mut tags, LOAD_BASE, &numbers(&[address32(self.load_base)]));
        tag(&mut tags, END, &[]);
        let total = u32::try_from(tags.len() + 8).expect("a command line is bounded, the rest is small");
        [numbers(&[total, 0]), tags].concat()
    }
}

fn tag(tags: &mut Vec<u8>, kind: u32, payload: &[u8]) {
    put32(tags, kind);
    put32(tags, u32::try_from(payload.len() + 8).expect("a command line is bounded, the rest is small"));
    tags.extend_from_slice(payload);
    tags.resize(tags.len().next_multiple_of(8), 0);
}
