//! What a vCPU does once all are there.

mod dirty;
mod idle;

use crate::cmdline::Payload;
use crate::console::Console;
use crate::machine::Machine;
use crate::pulse::Pulse;
use crate::ring0;

/// A vCPU at work.
struct Vcpu {
    index: usize,
    machine: &'static Machine,
    pulse: Pulse,
    /// Only vCPU 0 has one.
    console: Option<Console>,
}

impl Vcpu {
    /// To be called between any two small pieces of work; gives the time.
    #[inline]
    fn step(&mut self) -> u64 {
        let now = self.pulse.tick();
        if let Some(console) = &mut self.console {
            console.poll(&mut self.pulse, self.machine, now);
        }
        now
    }
}

/// Runs the payload of vCPU `index`.
pub fn run(index: usize, machine: &'static Machine) -> ! {
    let is_first = index == 0;
    let beat = (is_first && machine.config.beat_ns > 0).then(|| machine.tsc.ticks(machine.config.beat_ns));
    let pulse = Pulse::new(beat);
    let console = is_first.then(|| Console::new(machine, crate::pulse::now()));
    let mut vcpu = Vcpu { index, machine, pulse, console };
    if let Some(region) = machine.regions[index] {
        let writer = dirty::Writer::new(index, &machine.config.cpus[index], region);
        match machine.config.cpus[index].payload {
            Payload::Dirty => dirty::run(&mut vcpu, writer),
            Payload::Hash => dirty::fill(&mut vcpu, writer),
            Payload::Idle => {}
        }
    }
    if is_first { idle::serve(vcpu) } else { ring0::park() }
}
