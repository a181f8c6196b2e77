//! The time of one vCPU: when it last did something, and when its next beat is due.

use core::arch::x86_64::_rdtsc;

use crate::periodic::Periodic;
use crate::serial;

/// The time stamp counter.
#[inline]
pub fn now() -> u64 {
    // SAFETY: CR4.TSD is clear, so ring 3 may read it.
    unsafe { _rdtsc() }
}

/// To be ticked between any two small pieces of work, also while waiting: so it sees every pause
/// in which the vCPU did not run, and beats stay regular whatever the vCPU does.
pub struct Pulse {
    last: u64,
    gap: u64,
    gap_max: u64,
    beat: Option<Periodic>,
}

impl Pulse {
    /// Starts now; `beat` is the time between beats in ticks, if it is to send any.
    pub fn new(beat: Option<u64>) -> Self {
        let last = now();
        let beat = beat.map(|interval| Periodic::new(last, interval, interval));
        Self { last, gap: 0, gap_max: 0, beat }
    }

    /// Notes that the vCPU runs, sends a beat if one is due, and gives the time.
    #[inline]
    pub fn tick(&mut self) -> u64 {
        let now = now();
        // The counter goes back if a VMM moves the guest to a host with another one and does not
        // make up for it. That is no gap.
        self.gap = self.gap.max(now.saturating_sub(self.last));
        self.last = now;
        if self.beat.as_mut().is_some_and(|beat| beat.due(now)) {
            serial::send_beat();
        }
        now
    }

    /// Whether it sends beats.
    pub fn beats(&self) -> bool {
        self.beat.is_some()
    }

    /// The longest time between two ticks since the last call, and ever.
    pub fn take_gaps(&mut self) -> (u64, u64) {
        self.gap_max = self.gap_max.max(self.gap);
        (core::mem::take(&mut self.gap), self.gap_max)
    }
}
