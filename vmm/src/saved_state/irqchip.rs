//! Saved state of the in-kernel interrupt controllers, timer and paravirtual clock.

use kvm_bindings::{kvm_irqchip, kvm_irqchip__bindgen_ty_1, kvm_pit_channel_state, kvm_pit_state2};
use serde::{Deserialize, Serialize};

use super::mirror::{IntoKernel, IntoSaved, mirror};

/// One of the three in-kernel chips (`KVM_GET_IRQCHIP`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IrqchipV1 {
    /// `KVM_IRQCHIP_PIC_MASTER` 0, `KVM_IRQCHIP_PIC_SLAVE` 1, `KVM_IRQCHIP_IOAPIC` 2.
    pub chip: u32,
    /// Its registers, 512 bytes in the layout of the KVM API.
    pub registers: Vec<u8>,
}

impl From<&kvm_irqchip> for IrqchipV1 {
    fn from(kernel: &kvm_irqchip) -> Self {
        // SAFETY: every member of the union is plain bytes, `dummy` covers all of them.
        let registers = unsafe { kernel.chip.dummy };
        Self { chip: kernel.chip_id, registers: registers.iter().map(|b| b.cast_unsigned()).collect() }
    }
}

impl From<&IrqchipV1> for kvm_irqchip {
    fn from(saved: &IrqchipV1) -> Self {
        let mut dummy = [0; 512];
        for (to, from) in dummy.iter_mut().zip(&saved.registers) {
            *to = from.cast_signed();
        }
        kvm_irqchip { chip_id: saved.chip, pad: 0, chip: kvm_irqchip__bindgen_ty_1 { dummy } }
    }
}

mirror! {
    /// One counter of the 8254.
    #[allow(missing_docs, reason = "fields as in the KVM API, section 4.71")]
    PitChannelV1 = kvm_pit_channel_state {
        count: u32 = count, latched_count: u16 = latched_count, count_latched: u8 = count_latched,
        status_latched: u8 = status_latched, status: u8 = status, read_state: u8 = read_state,
        write_state: u8 = write_state, write_latch: u8 = write_latch, rw_mode: u8 = rw_mode,
        mode: u8 = mode, bcd: u8 = bcd, gate: u8 = gate, count_load_time: i64 = count_load_time,
    }
}

/// The 8254 timer (`KVM_GET_PIT2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitV1 {
    /// Its three counters.
    pub channels: [PitChannelV1; 3],
    /// `KVM_PIT_FLAGS_*`.
    pub flags: u32,
}

impl From<&kvm_pit_state2> for PitV1 {
    fn from(kernel: &kvm_pit_state2) -> Self {
        Self { channels: std::array::from_fn(|i| (&kernel.channels[i]).into()), flags: kernel.flags }
    }
}

impl From<&PitV1> for kvm_pit_state2 {
    fn from(saved: &PitV1) -> Self {
        let channels = std::array::from_fn(|i| (&saved.channels[i]).into());
        kvm_pit_state2 { channels, flags: saved.flags, ..Default::default() }
    }
}

/// The guest's clocks at the machine's common save instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockV1 {
    /// kvmclock (`KVM_GET_CLOCK`), in nanoseconds.
    pub kvmclock_ns: u64,
    /// The source host's realtime clock at that instant, in nanoseconds since 1970, where its kernel
    /// tells. For people and snapshots: a migration measures how long the guest stood still by itself,
    /// because two hosts' realtime clocks need not agree.
    pub realtime_ns: Option<u64>,
    /// Frequency of the guest's TSC.
    pub tsc_khz: u32,
}
