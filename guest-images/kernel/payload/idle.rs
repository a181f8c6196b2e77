//! vCPU 0 with nothing to do but to serve commands and to send beats.

use core::hint::spin_loop;

use super::Vcpu;
use crate::cmdline::Wait;
use crate::lapic;
use crate::ring0;

/// How long a command may wait for its answer.
const NAP_US: u64 = 5_000;

/// Serves commands for ever. Without beats the vCPU halts in between, so that it costs the host
/// next to nothing.
pub fn serve(mut vcpu: Vcpu) -> ! {
    let timer = match vcpu.machine.config.wait {
        Wait::Halt if !vcpu.pulse.beats() => lapic::Timer::new(vcpu.machine.tsc),
        Wait::Halt | Wait::Poll => None,
    };
    loop {
        let now = vcpu.step();
        let in_hurry = vcpu.console.as_ref().is_some_and(|console| console.in_hurry(now));
        match &timer {
            Some(timer) if !in_hurry => {
                timer.arm(NAP_US);
                ring0::sleep();
            }
            _ => spin_loop(),
        }
    }
}
