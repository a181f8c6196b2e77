//! The test kernel: boots by PVH, starts all vCPUs, and runs a payload on each in ring 3.
//!
//! ```text
//! entry, ring0, tables        what the CPU needs, in as little ring-0 code as can be
//! boot_info, tsc, smp, lapic  what the machine has
//! serial, port, power         the way out
//! pulse, console, payload     what the vCPUs do
//! cmdline … units             shared with the host side of this crate, and tested there
//! ```

#![no_std]
#![no_main]
#![allow(non_upper_case_globals, reason = "the statics that the assembler refers to")]
#![allow(dead_code, reason = "the shared modules also hold what only the host side uses")]

#[path = "../src/cmdline.rs"]
mod cmdline;
#[path = "../src/command.rs"]
mod command;
#[path = "../src/hash.rs"]
mod hash;
#[path = "../src/order.rs"]
mod order;
#[path = "../src/periodic.rs"]
mod periodic;
#[path = "../src/region.rs"]
mod region;
#[path = "../src/report.rs"]
mod report;
#[path = "../src/stamp.rs"]
mod stamp;
#[path = "../src/units.rs"]
mod units;

mod boot_info;
mod console;
mod entry;
mod lapic;
mod machine;
mod memory_functions;
mod payload;
mod port;
mod power;
mod pulse;
mod ring0;
mod serial;
mod smp;
mod tables;
mod tsc;

use pulse::Pulse;
use report::Report;

/// The first vCPU, in ring 3. `start_info` is where the VMM put the PVH start info.
#[unsafe(no_mangle)]
extern "C" fn bsp_main(start_info: u32) -> ! {
    tables::init();
    serial::init();
    let machine = machine::set_up(start_info);
    let mut pulse = Pulse::new(None);
    let cpus = machine.online.count_ones().into();
    if cpus < machine.expected {
        let missing = machine.expected - cpus;
        serial::line(&mut pulse, format_args!("{}error smp: {missing} vCPUs did not start", report::PREFIX));
    }
    serial::line(
        &mut pulse,
        Report::Up {
            cpus,
            mem: machine.bytes,
            payload: machine.config.cpus[0].payload.name(),
            tsc_khz: machine.tsc.khz,
            tsc_from: machine.tsc.from,
        },
    );
    for (cpu, region) in machine.regions.iter().enumerate() {
        for run in region.iter().flat_map(|region| region.segments()) {
            let (start, len) = (run.start, run.end - run.start);
            serial::line(&mut pulse, Report::Region { cpu: cpu as u64, start, len });
        }
    }
    smp::go();
    payload::run(0, machine)
}

/// Every other vCPU, in ring 3.
#[unsafe(no_mangle)]
extern "C" fn ap_main(cpu: usize) -> ! {
    smp::arrive(cpu);
    payload::run(cpu, machine::get())
}
