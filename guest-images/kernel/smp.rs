//! Starting the other vCPUs.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cmdline::MAX_CPUS;
use crate::lapic;
use crate::pulse::now;
use crate::region::FreeMemory;
use crate::ring0;
use crate::tsc::Tsc;

/// One bit for each vCPU that has arrived in ring 3.
static ONLINE: AtomicU64 = AtomicU64::new(1);

/// Set when the others may begin their payload.
static GO: AtomicBool = AtomicBool::new(false);

const WAIT_FOR_INIT_NS: u64 = 1_000_000;
const WAIT_BEFORE_SECOND_STARTUP_NS: u64 = 100_000_000;
const WAIT_FOR_ALL_NS: u64 = 5_000_000_000;

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// How many vCPUs the machine says it has.
pub fn expected() -> u64 {
    const PACKAGE_LEVEL: u32 = 1;
    if ring0::cpuid(0, 0)[0] >= 0xb {
        let threads = ring0::cpuid(0xb, PACKAGE_LEVEL)[1] & 0xffff;
        if threads != 0 {
            return threads.into();
        }
    }
    let leaf_1 = ring0::cpuid(1, 0);
    let has_siblings = leaf_1[3] & 1 << 28 != 0;
    if has_siblings { (leaf_1[1] >> 16 & 0xff).max(1).into() } else { 1 }
}

/// Starts all other vCPUs and waits until `expected` run, for 5 s at most. Gives a bit for each
/// that runs, or says why none could be started.
pub fn start(expected: u64, usable: &FreeMemory, tsc: Tsc) -> Result<u64, &'static str> {
    if expected <= 1 {
        return Ok(ONLINE.load(Ordering::Acquire));
    }
    let page = copy_trampoline(usable).ok_or("smp: no memory below 640 KiB to start vCPUs in")?;
    lapic::enable();
    lapic::send_init_to_others();
    tsc.delay(WAIT_FOR_INIT_NS);
    let wanted = expected.min(MAX_CPUS as u64);
    for wait_ns in [WAIT_BEFORE_SECOND_STARTUP_NS, WAIT_FOR_ALL_NS] {
        lapic::send_startup_to_others(page);
        let start = now();
        while now().wrapping_sub(start) < tsc.ticks(wait_ns) {
            if u64::from(online().count_ones()) >= wanted {
                return Ok(online());
            }
            spin_loop();
        }
    }
    Ok(online())
}

fn online() -> u64 {
    ONLINE.load(Ordering::Acquire)
}

/// Copies the real-mode code to a usable page that a startup interrupt can name, and gives its
/// number.
fn copy_trampoline(usable: &FreeMemory) -> Option<u8> {
    let fits = |page: &u8| {
        let (start, end) = (u64::from(*page) << 12, (u64::from(*page) + 1) << 12);
        usable.runs().iter().any(|run| run.start <= start && end <= run.end)
    };
    // Page 8 by preference; never page 0, and nothing from the video memory on.
    let page = (8..0x9f).chain(1..8).find(fits)?;
    let bytes = &raw const ap_trampoline_end as usize - &raw const ap_trampoline as usize;
    // SAFETY: a usable page below 1 MiB, where nothing is kept once the start info has been read.
    unsafe {
        core::ptr::copy_nonoverlapping(&raw const ap_trampoline, (usize::from(page) << 12) as *mut u8, bytes)
    };
    Some(page)
}

/// What a vCPU does when it arrives: count itself in and wait for its work.
pub fn arrive(cpu: usize) {
    ONLINE.fetch_or(1 << cpu, Ordering::AcqRel);
    while !GO.load(Ordering::Acquire) {
        spin_loop();
    }
}

/// Lets the others begin.
pub fn go() {
    GO.store(true, Ordering::Release);
}
