//! The tables that the CPU reads: TSS, GDT entries of the TSSs, IDT, page tables beyond 4 GiB.
//!
//! All of them are ordinary memory that ring 3 may write, so no ring-0 code is needed to fill them.

use core::cell::UnsafeCell;
use core::mem::size_of;

use crate::cmdline::MAX_CPUS;
use crate::entry::{RING0_STACK_BYTES, STACK_BYTES};
use crate::region::FreeMemory;
use crate::stamp::PAGE_BYTES;

/// Selectors of the GDT, with the privilege that they are used with.
pub const KERNEL_CODE: u16 = 0x08;
/// Kernel data.
pub const KERNEL_DATA: u16 = 0x10;
/// 32-bit kernel code, on the way into 64-bit mode.
pub const CODE32: u16 = 0x18;
/// Ring-3 data.
pub const USER_DATA: u16 = 0x20 | 3;
/// Ring-3 code.
pub const USER_CODE: u16 = 0x28 | 3;
/// The TSS of vCPU 0; the others follow, 16 bytes each.
pub const TSS_FIRST: u16 = 0x30;

/// Ports 0 to 0xfff may be used from ring 3.
const OPEN_PORTS_BYTES: usize = 0x1000 / 8;

/// Offset of the last byte of a TSS.
pub const TSS_LIMIT: usize = size_of::<TaskState>() - 1;

/// Memory that the CPU or several vCPUs use, written through raw pointers only.
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: the cell only hands out a raw pointer; each use says why it may write.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Wraps the initial value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Where the value is.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
    io_map: [u8; OPEN_PORTS_BYTES],
    /// The CPU reads one byte past the map, and it must be all ones.
    io_map_end: u8,
}

/// One TSS a KiB, so that what the CPU reads of it crosses no page.
#[repr(C, align(1024))]
#[derive(Clone, Copy)]
struct TaskStateSlot(TaskState);

#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Stack<const BYTES: usize>([u8; BYTES]);

const EMPTY_TASK_STATE: TaskState = TaskState {
    reserved0: 0,
    rsp: [0; 3],
    reserved1: 0,
    ist: [0; 7],
    reserved2: 0,
    reserved3: 0,
    io_map_base: 0,
    io_map: [0; OPEN_PORTS_BYTES],
    io_map_end: 0,
};

const EMPTY_GATE: Gate =
    Gate { offset_low: 0, selector: 0, stack: 0, kind: 0, offset_middle: 0, offset_high: 0, reserved: 0 };

#[unsafe(no_mangle)]
static task_states: Shared<[TaskStateSlot; MAX_CPUS]> =
    Shared::new([TaskStateSlot(EMPTY_TASK_STATE); MAX_CPUS]);

#[unsafe(no_mangle)]
static idt: Shared<[Gate; 256]> = Shared::new([EMPTY_GATE; 256]);

#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.uncleared")]
static stacks: Shared<[Stack<STACK_BYTES>; MAX_CPUS]> = Shared::new([Stack([0; STACK_BYTES]); MAX_CPUS]);

#[unsafe(no_mangle)]
static ring0_stacks: Shared<[Stack<RING0_STACK_BYTES>; MAX_CPUS]> =
    Shared::new([Stack([0; RING0_STACK_BYTES]); MAX_CPUS]);

unsafe extern "C" {
    static gdt: Shared<[u64; 6 + 2 * MAX_CPUS]>;
    static boot_pdpt: Shared<[u64; 512]>;
    /// Entry points of the exceptions, 16 bytes each.
    static exception_stubs: u8;
    static timer_interrupt: u8;
    static spurious_interrupt: u8;
}

/// The interrupt of the LAPIC timer.
pub const TIMER_VECTOR: u8 = 0x40;

/// What the LAPIC raises when an interrupt was withdrawn too late.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Fills in the TSSs and the IDT. Called once, by the first vCPU alone, before any exception,
/// interrupt or port is used.
pub fn init() {
    for cpu in 0..MAX_CPUS {
        let ring0_stack = ring0_stacks.get() as u64 + ((cpu + 1) * RING0_STACK_BYTES) as u64;
        let state = TaskState {
            rsp: [ring0_stack, 0, 0],
            ist: [ring0_stack, 0, 0, 0, 0, 0, 0],
            io_map_base: (TSS_LIMIT - OPEN_PORTS_BYTES) as u16,
            io_map_end: 0xff,
            ..EMPTY_TASK_STATE
        };
        // SAFETY: cpu is in bounds, and no other vCPU runs yet.
        unsafe { (*task_states.get())[cpu].0 = state };
        if cpu > 0 {
            set_task_descriptor(cpu);
        }
    }
    let exceptions = &raw const exception_stubs as u64;
    for vector in 0..32 {
        // Exceptions get a stack of their own, so that a broken ring-0 stack does not hide them.
        set_gate(vector, exceptions + 16 * vector as u64, 1);
    }
    // Interrupts only come while ring 0 halts, and stay on the stack that it is on.
    set_gate(usize::from(TIMER_VECTOR), &raw const timer_interrupt as u64, 0);
    set_gate(usize::from(SPURIOUS_VECTOR), &raw const spurious_interrupt as u64, 0);
}

fn set_task_descriptor(cpu: usize) {
    let base = task_states.get() as u64 + (cpu * size_of::<TaskStateSlot>()) as u64;
    let available_task_state = 0x89 << 40;
    let low = TSS_LIMIT as u64 | (base & 0xff_ffff) << 16 | available_task_state | (base >> 24 & 0xff) << 56;
    // SAFETY: the assembler reserved two words for each vCPU after the six segments, and only the
    // first vCPU runs yet.
    unsafe { (*gdt.get())[6 + 2 * cpu] = low };
}

fn set_gate(vector: usize, target: u64, stack: u8) {
    let gate = Gate {
        offset_low: target as u16,
        selector: KERNEL_CODE,
        stack,
        kind: 0x8e, // present interrupt gate, not callable from ring 3
        offset_middle: (target >> 16) as u16,
        offset_high: (target >> 32) as u32,
        reserved: 0,
    };
    // SAFETY: vector is below 256, and only the first vCPU runs yet.
    unsafe { (*idt.get())[vector] = gate };
}

/// The vCPU whose ring-3 stack `address` is on.
pub fn cpu_of_stack(address: u64) -> Option<usize> {
    let offset = address.checked_sub(stacks.get() as u64)?;
    let cpu = offset as usize / STACK_BYTES;
    (cpu < MAX_CPUS).then_some(cpu)
}

/// The vCPU whose ring-0 stack `address` is on.
pub fn cpu_of_ring0_stack(address: u64) -> Option<usize> {
    let offset = address.checked_sub(ring0_stacks.get() as u64)?;
    let cpu = offset as usize / RING0_STACK_BYTES;
    (cpu < MAX_CPUS).then_some(cpu)
}

/// As far as one page-directory-pointer table reaches.
pub const MAPPED_MAX: u64 = 512 << 30;

/// Maps memory from 4 GiB up to `end`, one to one. Without 1 GiB pages, tables are taken from `free`.
/// False if there is no memory for them.
pub fn map_up_to(end: u64, gib_pages: bool, free: &mut FreeMemory) -> bool {
    const PRESENT_WRITABLE_USER: u64 = 0x7;
    const LARGE: u64 = 0x80;
    let gibs = end.min(MAPPED_MAX).div_ceil(1 << 30) as usize;
    for gib in 4..gibs {
        let base = (gib as u64) << 30;
        let entry = if gib_pages {
            base | LARGE | PRESENT_WRITABLE_USER
        } else {
            let Some(table) = free.take(1) else { return false };
            let table = table.address(0);
            if table + PAGE_BYTES > 4 << 30 {
                return false;
            }
            for slot in 0..512 {
                // SAFETY: a free page below 4 GiB, which is mapped, and ours from now on.
                unsafe {
                    (table as *mut u64)
                        .add(slot)
                        .write_volatile((base + ((slot as u64) << 21)) | LARGE | PRESENT_WRITABLE_USER);
                }
            }
            table | PRESENT_WRITABLE_USER
        };
        // SAFETY: gib is below 512, and entries only go from absent to present, so no vCPU can
        // hold a stale translation.
        unsafe { (&raw mut (*boot_pdpt.get())[gib]).write_volatile(entry) };
    }
    true
}
