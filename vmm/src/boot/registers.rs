//! The boot vCPU's registers at a PVH entry: 32-bit protected mode, flat segments, paging off, EBX at
//! the start_info. Source: Xen's `docs/misc/pvh.pandoc`. Pure.

use crate::saved_state::{RegistersV1, SegmentV1, SystemRegistersV1};

/// Where Intel's KVM keeps its TSS (three pages) and identity map (one page) if the CPU cannot run
/// real mode by itself; below the firmware's place at the top of 4 GiB, and told to the guest as
/// reserved.
pub(crate) const KVM_PRIVATE_START: u64 = 0xfffb_c000;
pub(crate) const KVM_PRIVATE_BYTES: u64 = 0x4000;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const RFLAGS_RESERVED: u64 = 2;

/// Registers and system registers at the entry; `reset` are the vCPU's as KVM made it.
pub(crate) fn pvh_entry(
    entry: u32,
    start_info: u64,
    reset: &SystemRegistersV1,
) -> (RegistersV1, SystemRegistersV1) {
    let flat = |selector, kind| SegmentV1 {
        base: 0,
        limit: u32::MAX,
        selector,
        kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
    };
    // Code: execute/read, accessed. Data: read/write, accessed. TSS: 32-bit, busy, limit 0x67.
    let code = flat(0x08, 0xb);
    let data = flat(0x10, 0x3);
    let tss = SegmentV1 { limit: 0x67, selector: 0x18, kind: 0xb, present: 1, ..SegmentV1::default() };
    let system = SystemRegistersV1 {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: tss,
        cr0: CR0_PE | CR0_ET,
        cr3: 0,
        cr4: 0,
        efer: 0,
        ..*reset
    };
    let registers =
        RegistersV1 { rip: entry.into(), rbx: start_info, rflags: RFLAGS_RESERVED, ..RegistersV1::default() };
    (registers, system)
}
