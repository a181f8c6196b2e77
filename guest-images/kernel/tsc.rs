//! How fast the time stamp counter runs.

use crate::port;
use crate::pulse::now;
use crate::ring0;
use crate::tables::Shared;

/// Frequency of the counter and how it is known.
#[derive(Clone, Copy)]
pub struct Tsc {
    /// Thousands of ticks a second.
    pub khz: u64,
    /// The name of the source.
    pub from: &'static str,
}

impl Tsc {
    /// Asks whoever knows best.
    pub fn find() -> Self {
        let sources = [("cpuid", from_cpuid as fn() -> _), ("kvmclock", from_kvmclock), ("pit", from_pit)];
        for (from, source) in sources {
            if let Some(khz) = source().filter(|&khz| khz > 0) {
                return Self { khz, from };
            }
        }
        Self { khz: 1_000_000, from: "guess" }
    }

    /// Ticks in some nanoseconds.
    pub fn ticks(self, ns: u64) -> u64 {
        (u128::from(ns) * u128::from(self.khz) / 1_000_000) as u64
    }

    /// Microseconds in some ticks.
    pub fn microseconds(self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1000 / u128::from(self.khz)) as u64
    }

    /// Spins for some nanoseconds.
    pub fn delay(self, ns: u64) {
        let start = now();
        while now().wrapping_sub(start) < self.ticks(ns) {
            core::hint::spin_loop();
        }
    }
}

fn hypervisor_leaf_max() -> u32 {
    let hypervisor_present = ring0::cpuid(1, 0)[2] >> 31 != 0;
    if hypervisor_present { ring0::cpuid(0x4000_0000, 0)[0] } else { 0 }
}

/// The hypervisor's own leaf, or the ratio to a crystal whose frequency the CPU states.
fn from_cpuid() -> Option<u64> {
    if hypervisor_leaf_max() >= 0x4000_0010 {
        let khz = ring0::cpuid(0x4000_0010, 0)[0];
        if khz != 0 {
            return Some(khz.into());
        }
    }
    if ring0::cpuid(0, 0)[0] < 0x15 {
        return None;
    }
    let [denominator, numerator, crystal_hz, _] = ring0::cpuid(0x15, 0);
    // Leaf 0x16 has only a rounded figure: kvmclock and the PIT know better.
    (u64::from(crystal_hz) * u64::from(numerator)).checked_div(u64::from(denominator)).map(|hz| hz / 1000)
}

#[repr(C, align(64))]
struct Kvmclock {
    version: u32,
    padding: u32,
    tsc_timestamp: u64,
    system_time: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
    padding2: [u8; 2],
}

static KVMCLOCK: Shared<Kvmclock> = Shared::new(Kvmclock {
    version: 0,
    padding: 0,
    tsc_timestamp: 0,
    system_time: 0,
    multiplier: 0,
    shift: 0,
    flags: 0,
    padding2: [0; 2],
});

/// KVM fills in how to turn ticks into nanoseconds, on request.
fn from_kvmclock() -> Option<u64> {
    const SYSTEM_TIME: u32 = 0x4b56_4d01;
    const HAS_SYSTEM_TIME: u32 = 1 << 3;
    let [leaf_max, b, c, d] =
        if hypervisor_leaf_max() > 0 { ring0::cpuid(0x4000_0000, 0) } else { return None };
    let is_kvm = [b, c, d] == [0x4b4d_564b, 0x564b_4d56, 0x4d];
    // Old versions leave the highest leaf at 0.
    if !is_kvm || leaf_max != 0 && leaf_max < 0x4000_0001 {
        return None;
    }
    if ring0::cpuid(0x4000_0001, 0)[0] & HAS_SYSTEM_TIME == 0 {
        return None;
    }
    // SAFETY: the feature bit says that the register exists; the structure is used for nothing else,
    // and given back right away so that the hypervisor writes no guest memory later on.
    unsafe {
        ring0::write_msr(SYSTEM_TIME, KVMCLOCK.get() as u64 | 1);
        ring0::write_msr(SYSTEM_TIME, 0);
    }
    // SAFETY: nobody writes it any more.
    let (multiplier, shift) = unsafe {
        (
            (&raw const (*KVMCLOCK.get()).multiplier).read_volatile(),
            (&raw const (*KVMCLOCK.get()).shift).read_volatile(),
        )
    };
    let khz = (1_000_000_u64 << 32).checked_div(multiplier.into())?;
    Some(if shift < 0 { khz << shift.unsigned_abs() } else { khz >> shift })
}

/// Counts ticks while channel 2 of the interval timer runs for 10 ms.
fn from_pit() -> Option<u64> {
    const GATE: u16 = 0x61;
    const CHANNEL_2: u16 = 0x42;
    const COMMAND: u16 = 0x43;
    const COUNT: u16 = 11_932; // 10 ms of 1.193182 MHz
    const SPINS_MAX: u32 = 1_000_000;
    let gate = port::read8(GATE);
    port::write8(GATE, gate & !2 | 1); // count, speaker off
    port::write8(COMMAND, 0xb0); // channel 2, low then high byte, count once
    port::write8(CHANNEL_2, COUNT as u8);
    port::write8(CHANNEL_2, (COUNT >> 8) as u8);
    let start = now();
    let done = (0..SPINS_MAX).any(|_| port::read8(GATE) & 0x20 != 0);
    let ticks = now().wrapping_sub(start);
    port::write8(GATE, gate);
    // Without a timer the line is stuck, either way.
    let khz = ticks / 10;
    (done && khz > 100_000).then_some(khz)
}
