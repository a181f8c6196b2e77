//! The boot vCPU's registers at a kernel's entry. Pure.
//!
//! | | CS, others | paging | who wants it |
//! |---|---|---|---|
//! | flat | 32-bit code, data: base 0, limit 4 GiB | off | PVH (EBX), Multiboot (EAX, EBX), Linux's 32-bit entry (ESI), ELF of 32 bits |
//! | long | 64-bit code, flat data | on, identity up to 4 GiB | Linux's 64-bit entry (RSI), ELF of 64 bits |
//!
//! Interrupts are off, and every register that is not named is zero. Where a GDT is given, the segments
//! are those that it holds: Linux reloads them from the table that it finds.

use super::descriptors::{CODE_SELECTOR, DATA_SELECTOR, GDT_BYTES, TSS_SELECTOR};
use crate::saved_state::{RegistersV1, SegmentV1, SystemRegistersV1, TableV1};

/// Where Intel's KVM keeps its TSS (three pages) and identity map (one page) if the CPU cannot run
/// real mode by itself; below the firmware's place at the top of 4 GiB, and told to the guest as
/// reserved.
pub(crate) const KVM_PRIVATE_START: u64 = 0xfffb_c000;
pub(crate) const KVM_PRIVATE_BYTES: u64 = 0x4000;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 2;

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryState {
    pub(super) rip: u64,
    pub(super) rax: u64,
    pub(super) rbx: u64,
    pub(super) rsi: u64,
    /// Where the global descriptor table lies, if there is one.
    pub(super) gdt: Option<u64>,
    /// Where the page tables lie, for long mode.
    pub(super) page_tables: Option<u64>,
}

impl EntryState {
    /// In flat 32-bit protected mode.
    pub(super) fn flat(entry: u32) -> Self {
        Self { rip: entry.into(), rax: 0, rbx: 0, rsi: 0, gdt: None, page_tables: None }
    }

    /// In long mode.
    pub(super) fn long(entry: u64, page_tables: u64) -> Self {
        Self { rip: entry, page_tables: Some(page_tables), ..Self::flat(0) }
    }

    pub(super) fn with_rax(self, rax: u32) -> Self {
        Self { rax: rax.into(), ..self }
    }

    pub(super) fn with_rbx(self, rbx: u64) -> Self {
        Self { rbx, ..self }
    }

    pub(super) fn with_rsi(self, rsi: u64) -> Self {
        Self { rsi, ..self }
    }

    pub(super) fn with_gdt(self, gdt: u64) -> Self {
        Self { gdt: Some(gdt), ..self }
    }

    /// Registers and system registers at the entry; `reset` are the vCPU's as KVM made it.
    pub(crate) fn registers(&self, reset: &SystemRegistersV1) -> (RegistersV1, SystemRegistersV1) {
        let long = self.page_tables.is_some();
        let flat = |selector, kind| SegmentV1 {
            limit: u32::MAX,
            selector,
            kind,
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..SegmentV1::default()
        };
        // Code: execute/read, accessed. Data: read/write, accessed. TSS: busy, limit 0x67.
        let code = flat(CODE_SELECTOR, 0xb);
        let code = if long { SegmentV1 { db: 0, l: 1, ..code } } else { code };
        let data = flat(DATA_SELECTOR, 0x3);
        let tss =
            SegmentV1 { limit: 0x67, selector: TSS_SELECTOR, kind: 0xb, present: 1, ..SegmentV1::default() };
        let gdt = self.gdt.map_or(reset.gdt, |base| TableV1 { base, limit: GDT_BYTES - 1 });
        let mode = if long { (CR0_PG, CR4_PAE, EFER_LME | EFER_LMA) } else { (0, 0, 0) };
        let system = SystemRegistersV1 {
            cs: code,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: tss,
            gdt,
            cr0: CR0_PE | CR0_ET | mode.0,
            cr3: self.page_tables.unwrap_or(0),
            cr4: mode.1,
            efer: mode.2,
            ..*reset
        };
        let registers = RegistersV1 {
            rip: self.rip,
            rax: self.rax,
            rbx: self.rbx,
            rsi: self.rsi,
            rflags: RFLAGS_RESERVED,
            ..RegistersV1::default()
        };
        (registers, system)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_what_its_specification_names() {
        let reset = SystemRegistersV1 { gdt: TableV1 { base: 7, limit: 7 }, ..SystemRegistersV1::default() };
        let (r, s) = EntryState::flat(0x1000).with_rax(1).with_rbx(2).registers(&reset);
        assert_eq!((r.rip, r.rax, r.rbx, r.rsi, r.rflags & 0x200), (0x1000, 1, 2, 0, 0));
        assert_eq!((s.cr0 >> 31, s.cr0 & 1, s.cs.db, s.cs.l, s.efer, s.gdt.base), (0, 1, 1, 0, 0, 7));
        let (r, s) = EntryState::long(0x2000, 0x9000).with_rsi(3).with_gdt(0x8000).registers(&reset);
        assert_eq!((r.rip, r.rsi, s.cr3, s.gdt.base), (0x2000, 3, 0x9000, 0x8000));
        assert_eq!((s.cr0 >> 31, s.cs.db, s.cs.l, s.efer, s.cr4), (1, 0, 1, 0x500, 0x20));
        assert_eq!((s.cs.selector, s.ds.selector), (0x10, 0x18), "Linux's __BOOT_CS and __BOOT_DS");
    }
}
