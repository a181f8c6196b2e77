//! All that is known about the machine and what it is to do; it does not change once it is set up.

use crate::boot_info;
use crate::cmdline::{Config, DEFAULT_WORKING_SET, MAX_CPUS, Payload};
use crate::power::give_up;
use crate::region::{FreeMemory, Region};
use crate::ring0;
use crate::serial;
use crate::smp;
use crate::stamp::PAGE_BYTES;
use crate::tables::{self, Shared};
use crate::tsc::Tsc;

/// What all vCPUs know.
pub struct Machine {
    /// The command line.
    pub config: Config,
    /// The working set of each vCPU that has one.
    pub regions: [Option<Region>; MAX_CPUS],
    /// The clock.
    pub tsc: Tsc,
    /// Usable memory that is mapped.
    pub usable: FreeMemory,
    /// Bytes of usable memory.
    pub bytes: u64,
    /// A bit for each vCPU that runs.
    pub online: u64,
    /// How many should run.
    pub expected: u64,
}

/// In static memory, because it is large for a stack.
static MACHINE: Shared<Machine> = Shared::new(Machine {
    config: Config::new(),
    regions: [None; MAX_CPUS],
    tsc: Tsc { khz: 0, from: "" },
    usable: FreeMemory::new(),
    bytes: 0,
    online: 0,
    expected: 0,
});

/// The machine, once it is set up.
pub fn get() -> &'static Machine {
    // SAFETY: written only by `set_up`, and the other vCPUs come here after it has returned.
    unsafe { &*MACHINE.get() }
}

/// Finds out about the machine, starts all vCPUs, and gives them their memory. Called once, by the
/// first vCPU. What can't work ends the guest with a line that says why.
pub fn set_up(start_info: u32) -> &'static Machine {
    // SAFETY: the others do not look before `smp::go`, and this vCPU uses no other reference.
    let machine = unsafe { &mut *MACHINE.get() };
    let mut boot = boot_info::read_start_info(start_info).unwrap_or_else(|reason| give_up(reason));
    if let Err(reason) = machine.config.apply(boot.cmdline) {
        give_up(reason);
    }
    if machine.config.beat_ns > 0 {
        serial::expect_beats();
    }
    machine.tsc = Tsc::find();
    machine.bytes = boot.bytes;
    if !tables::map_up_to(boot.end, has_gib_pages(), &mut boot.free) {
        give_up("memory: no room for page tables");
    }
    machine.usable = boot.usable;
    machine.expected = machine.config.cpu_count.map_or_else(smp::expected, |count| count as u64);
    machine.online =
        smp::start(machine.expected, &machine.usable, machine.tsc).unwrap_or_else(|reason| give_up(reason));
    share_out(machine, &mut boot.free);
    get()
}

fn has_gib_pages() -> bool {
    const EXTENDED: u32 = 0x8000_0000;
    ring0::cpuid(EXTENDED, 0)[0] > EXTENDED && ring0::cpuid(EXTENDED + 1, 0)[3] & 1 << 26 != 0
}

/// Gives each vCPU that runs its working set.
fn share_out(machine: &mut Machine, free: &mut FreeMemory) {
    for (cpu, options) in machine.config.cpus.iter().enumerate() {
        let bytes = match (options.payload, options.working_set) {
            (Payload::Idle, _) | (Payload::Hash, None) => continue,
            (Payload::Dirty, None) => DEFAULT_WORKING_SET,
            (_, Some(bytes)) => bytes,
        };
        if machine.online & 1 << cpu == 0 {
            continue;
        }
        let Some(region) = free.take(bytes.div_ceil(PAGE_BYTES)) else {
            let left = free.pages() * PAGE_BYTES;
            give_up(format_args!("memory: cpu{cpu} wants ws={bytes}, {left} bytes are left"));
        };
        machine.regions[cpu] = Some(region);
    }
}
