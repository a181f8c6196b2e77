//! What the VMM says about the machine: the PVH start info.

use core::ptr::read_unaligned;
use core::slice;

use crate::region::FreeMemory;
use crate::tables::{MAPPED_MAX, Shared};

const MAGIC: u32 = 0x336e_c578;
const USABLE: u32 = 1;

const CMDLINE_MAX: usize = 4096;
const MAP_MAX: usize = 64;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    cmdline: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    bytes: u64,
    cmdline: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MapEntry {
    address: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// The part of the start info that this kernel needs, copied out of memory that it reuses.
pub struct BootInfo {
    /// The command line.
    pub cmdline: &'static str,
    /// Usable memory that is mapped, as the VMM lists it.
    pub usable: FreeMemory,
    /// Usable memory that holds nothing yet.
    pub free: FreeMemory,
    /// Bytes of usable memory, as the VMM lists it.
    pub bytes: u64,
    /// One past the last usable byte.
    pub end: u64,
}

static CMDLINE: Shared<[u8; CMDLINE_MAX]> = Shared::new([0; CMDLINE_MAX]);

unsafe extern "C" {
    static kernel_end: u8;
}

/// Reads what is at `address`, which the VMM gave.
fn read<T>(address: u64) -> Result<T, &'static str> {
    if address == 0 || address >= 3 << 30 {
        return Err("start info: a table is missing or not in low memory");
    }
    // SAFETY: mapped (the low 4 GiB are), and any bytes make a T: only used for plain integers.
    Ok(unsafe { read_unaligned(address as *const T) })
}

/// Reads the start info at `address`. Called once.
pub fn read_start_info(address: u32) -> Result<BootInfo, &'static str> {
    let info: StartInfo = read(address.into())?;
    if info.magic != MAGIC {
        return Err("start info: wrong magic, this kernel boots by PVH only");
    }
    if info.version < 1 {
        return Err("start info: version 0 has no memory map");
    }
    let mut boot = BootInfo {
        cmdline: copy_cmdline(info.cmdline)?,
        usable: FreeMemory::new(),
        free: FreeMemory::new(),
        bytes: 0,
        end: 0,
    };
    if info.memory_map_entries as usize > MAP_MAX {
        return Err("start info: more than 64 memory map entries");
    }
    for nth in 0..u64::from(info.memory_map_entries) {
        let entry: MapEntry = read(info.memory_map + nth * size_of::<MapEntry>() as u64)?;
        if entry.kind == USABLE {
            let end = entry.address.saturating_add(entry.bytes);
            boot.bytes += entry.bytes;
            boot.end = boot.end.max(end);
            boot.usable.add(entry.address, end.min(MAPPED_MAX));
            boot.free.add(entry.address, end.min(MAPPED_MAX));
        }
    }
    // Below the kernel are the start info, firmware tables and the trampoline, and a little memory
    // that is not worth a second piece of somebody's working set.
    boot.free.remove(0, &raw const kernel_end as u64);
    for nth in 0..u64::from(info.modules) {
        let module: Module = read(info.module_list + nth * size_of::<Module>() as u64)?;
        boot.free.remove(module.address, module.address.saturating_add(module.bytes));
    }
    Ok(boot)
}

fn copy_cmdline(address: u64) -> Result<&'static str, &'static str> {
    if address == 0 {
        return Ok("");
    }
    let mut length = 0;
    while length < CMDLINE_MAX {
        let byte: u8 = read(address + length as u64)?;
        if byte == 0 {
            break;
        }
        // SAFETY: length is in bounds, and only the first vCPU runs, which calls this once.
        unsafe { (*CMDLINE.get())[length] = byte };
        length += 1;
    }
    if length == CMDLINE_MAX {
        return Err("command line: longer than 4095 bytes");
    }
    // SAFETY: the first `length` bytes were written above, and nothing writes them again.
    let bytes = unsafe { slice::from_raw_parts(CMDLINE.get().cast::<u8>(), length) };
    core::str::from_utf8(bytes).map_err(|_| "command line: not UTF-8")
}
