//! Saves and restores one vCPU. The order of the calls matters; each constraint is said where it acts.

use kvm_bindings::{CpuId, Msrs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_xcr, kvm_xcrs};
use kvm_ioctls::VcpuFd;

use super::error::VcpuError;
use crate::kvm::{Capabilities, KvmError, TscOffset, xsave};
use crate::saved_state::{CpuidEntryV1, MsrV1, VcpuV1, XcrV1};

/// `IA32_TIME_STAMP_COUNTER`: handled apart, since it runs on between reading and writing.
const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`: means something only once the APIC timer is in its mode.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Most MSRs in one call (`KVM_MAX_MSR_ENTRIES` in the library; the kernel takes 256).
const MSRS_PER_CALL: usize = 256;

/// MSRs whose writing makes KVM write guest memory, at once or at the vCPU's next switch: kvmclock, async
/// page faults, steal time, paravirtual EOI (Linux `kvm_para.h`), and Hyper-V's hypercall page, reference
/// TSC, APIC assist, message and event pages (TLFS). They are written when the guest is let go, because
/// until then its memory may still be another process's.
const MSRS_THAT_WRITE_MEMORY: &[u32] = &[
    0x11,
    0x12,
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d02,
    0x4b56_4d03,
    0x4b56_4d04,
    0x4000_0001,
    0x4000_0021,
    0x4000_0073,
    0x4000_0082,
    0x4000_0083,
];

/// What saving and restoring need besides the vCPU itself.
#[derive(Debug, Clone)]
pub(super) struct StateContext {
    pub(super) index: u32,
    pub(super) capabilities: Capabilities,
    /// The MSRs that this host offers to save.
    pub(super) msr_indices: std::sync::Arc<[u32]>,
    /// Frequency of this host's TSC as KVM knows it.
    pub(super) host_tsc_khz: u32,
}

impl StateContext {
    pub(super) fn kvm(&self, source: KvmError) -> VcpuError {
        VcpuError::Kvm { index: self.index, source }
    }

    pub(super) fn ioctl(&self, call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
        let index = self.index;
        move |e| VcpuError::Kvm { index, source: KvmError::ioctl(call)(e) }
    }

    /// Gives the vCPU its CPUID. First of all calls: it decides which registers and MSRs exist, and
    /// KVM refuses to change it after the first run.
    pub(super) fn set_cpuid(&self, vcpu: &VcpuFd, entries: &[CpuidEntryV1]) -> Result<(), VcpuError> {
        let entries: Vec<_> = entries.iter().map(Into::into).collect();
        let cpuid = CpuId::from_entries(&entries).map_err(|_| {
            self.kvm(KvmError::Ioctl {
                call: "KVM_SET_CPUID2",
                source: std::io::Error::from_raw_os_error(libc::E2BIG),
            })
        })?;
        vcpu.set_cpuid2(&cpuid).map_err(self.ioctl("KVM_SET_CPUID2"))
    }

    /// Makes the guest's TSC run at `tsc_khz`, if this host's does not already (within 250 ppm, what
    /// NTP-disciplined clocks tolerate and KVM's own default).
    pub(super) fn set_tsc_khz(&self, vcpu: &VcpuFd, guest_khz: u32) -> Result<(), VcpuError> {
        let host_khz = self.host_tsc_khz;
        if host_khz.abs_diff(guest_khz) <= host_khz / 4000 {
            return Ok(());
        }
        if !self.capabilities.tsc_control {
            return Err(VcpuError::TscFrequency { guest_khz, host_khz });
        }
        vcpu.set_tsc_khz(guest_khz).map_err(self.ioctl("KVM_SET_TSC_KHZ"))
    }

    /// Reads everything of a vCPU that is out of the guest with no I/O pending. `save_host_tsc` is the
    /// host's TSC at the machine's common save instant.
    pub(super) fn save(&self, vcpu: &VcpuFd, save_host_tsc: u64) -> Result<VcpuV1, VcpuError> {
        // MP state first: reading it makes KVM process a pending INIT or SIPI, which changes registers.
        let mp_state = vcpu.get_mp_state().map_err(self.ioctl("KVM_GET_MP_STATE"))?;
        let registers = vcpu.get_regs().map_err(self.ioctl("KVM_GET_REGS"))?;
        let system_registers = vcpu.get_sregs().map_err(self.ioctl("KVM_GET_SREGS"))?;
        let area = xsave::read(vcpu, &self.capabilities).map_err(|e| self.kvm(e))?;
        let xcrs = vcpu.get_xcrs().map_err(self.ioctl("KVM_GET_XCRS"))?;
        let debug_registers = vcpu.get_debug_regs().map_err(self.ioctl("KVM_GET_DEBUGREGS"))?;
        let lapic = vcpu.get_lapic().map_err(self.ioctl("KVM_GET_LAPIC"))?;
        let msrs = self.read_msrs(vcpu)?;
        let tsc = self.tsc_at(vcpu, save_host_tsc)?;
        // Events last: the calls above may move an event from pending to injected.
        let events = vcpu.get_vcpu_events().map_err(self.ioctl("KVM_GET_VCPU_EVENTS"))?;
        let xcr_count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0).min(xcrs.xcrs.len());
        Ok(VcpuV1 {
            index: self.index,
            mp_state: mp_state.mp_state,
            registers: (&registers).into(),
            system_registers: (&system_registers).into(),
            debug_registers: (&debug_registers).into(),
            events: (&events).into(),
            xcrs: xcrs.xcrs[..xcr_count].iter().map(|x| XcrV1 { index: x.xcr, value: x.value }).collect(),
            xsave: area,
            lapic: lapic.regs.iter().map(|b| b.cast_unsigned()).collect(),
            msrs,
            tsc,
        })
    }

    /// Writes everything of a vCPU but what makes KVM write guest memory; see
    /// [`let_go`](Self::let_go). `clock` relates its TSC to this host's.
    pub(super) fn restore(&self, vcpu: &VcpuFd, saved: &VcpuV1, clock: TscAt) -> Result<(), VcpuError> {
        // MP state before registers: setting it to "uninitialized" would reset them.
        vcpu.set_mp_state(kvm_mp_state { mp_state: saved.mp_state })
            .map_err(self.ioctl("KVM_SET_MP_STATE"))?;
        // System registers before the rest: EFER and CR4 decide what the others may hold, and the APIC
        // base decides in which mode KVM_SET_LAPIC writes.
        vcpu.set_sregs(&(&saved.system_registers).into()).map_err(self.ioctl("KVM_SET_SREGS"))?;
        vcpu.set_regs(&(&saved.registers).into()).map_err(self.ioctl("KVM_SET_REGS"))?;
        // XCR0 before XSAVE: it says which parts of the area are in use.
        vcpu.set_xcrs(&self.xcrs(saved)).map_err(self.ioctl("KVM_SET_XCRS"))?;
        xsave::write(vcpu, &self.capabilities, &saved.xsave).map_err(|e| self.kvm(e))?;
        vcpu.set_debug_regs(&(&saved.debug_registers).into()).map_err(self.ioctl("KVM_SET_DEBUGREGS"))?;
        // TSC before the APIC: KVM_SET_LAPIC starts the APIC timer against it.
        self.set_tsc(vcpu, saved.tsc, clock)?;
        let mut lapic = kvm_lapic_state::default();
        for (to, from) in lapic.regs.iter_mut().zip(&saved.lapic) {
            *to = from.cast_signed();
        }
        vcpu.set_lapic(&lapic).map_err(self.ioctl("KVM_SET_LAPIC"))?;
        // MSRs after the APIC: the TSC deadline is dropped unless the timer is in its mode already.
        let (later, now): (Vec<_>, Vec<_>) =
            saved.msrs.iter().copied().partition(|msr| MSRS_THAT_WRITE_MEMORY.contains(&msr.index));
        self.write_msrs(vcpu, &now)?;
        // What will be written when it is too late to refuse must be possible: off is, where on is.
        let off: Vec<_> = later.iter().map(|msr| MsrV1 { value: 0, ..*msr }).collect();
        self.write_msrs(vcpu, &off)?;
        // Events after everything: the calls above can raise or drop them. Their flags are those that the
        // source's KVM set, which say what it filled in.
        vcpu.set_vcpu_events(&(&saved.events).into()).map_err(self.ioctl("KVM_SET_VCPU_EVENTS"))
    }

    /// Writes what [`restore`](Self::restore) left out. The guest is this process's now.
    pub(super) fn let_go(&self, vcpu: &VcpuFd, saved: &[MsrV1]) -> Result<(), VcpuError> {
        let withheld: Vec<_> = saved
            .iter()
            .copied()
            .filter(|msr| msr.value != 0 && MSRS_THAT_WRITE_MEMORY.contains(&msr.index))
            .collect();
        self.write_msrs(vcpu, &withheld)
    }

    fn xcrs(&self, saved: &VcpuV1) -> kvm_xcrs {
        let mut xcrs = kvm_xcrs::default();
        for (to, from) in xcrs.xcrs.iter_mut().zip(&saved.xcrs) {
            *to = kvm_xcr { xcr: from.index, value: from.value, ..Default::default() };
            xcrs.nr_xcrs += 1;
        }
        xcrs
    }

    /// Reads every MSR of the host's list but the TSC. KVM stops at the first that it cannot read: that
    /// one does not exist for this guest and is left out.
    fn read_msrs(&self, vcpu: &VcpuFd) -> Result<Vec<MsrV1>, VcpuError> {
        let mut saved = Vec::with_capacity(self.msr_indices.len());
        let mut rest = &self.msr_indices[..];
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(MSRS_PER_CALL)];
            let entries: Vec<_> =
                chunk.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
            let mut msrs = self.msrs(&entries)?;
            let read = vcpu.get_msrs(&mut msrs).map_err(self.ioctl("KVM_GET_MSRS"))?;
            saved.extend(msrs.as_slice()[..read].iter().map(|m| MsrV1 { index: m.index, value: m.data }));
            let next = if read < chunk.len() { read + 1 } else { read };
            rest = &rest[next..];
        }
        Ok(saved)
    }

    /// Writes MSRs, the TSC deadline last. One that KVM refuses is an error unless this vCPU already
    /// holds its value (a constant), or it does not exist here and is zero (the guest never used it).
    fn write_msrs(&self, vcpu: &VcpuFd, saved: &[MsrV1]) -> Result<(), VcpuError> {
        let entry = |m: &MsrV1| kvm_msr_entry { index: m.index, data: m.value, ..Default::default() };
        let (deadline, others): (Vec<_>, Vec<_>) =
            saved.iter().filter(|m| m.index != MSR_TSC).partition(|m| m.index == MSR_TSC_DEADLINE);
        let entries: Vec<_> = others.into_iter().chain(deadline).map(entry).collect();
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(MSRS_PER_CALL)];
            let written = vcpu.set_msrs(&self.msrs(chunk)?).map_err(self.ioctl("KVM_SET_MSRS"))?;
            rest = &rest[written..];
            if written < chunk.len() {
                let refused = chunk[written];
                let held = self.read_msr(vcpu, refused.index);
                // One that does not exist here and that the guest has never used is no loss.
                let unused = held.is_none() && refused.data == 0;
                if held != Some(refused.data) && !unused {
                    return Err(VcpuError::Msr {
                        index: self.index,
                        msr: refused.index,
                        value: refused.data,
                    });
                }
                rest = &rest[1..];
            }
        }
        Ok(())
    }

    fn read_msr(&self, vcpu: &VcpuFd, index: u32) -> Option<u64> {
        let mut msrs = self.msrs(&[kvm_msr_entry { index, ..Default::default() }]).ok()?;
        (vcpu.get_msrs(&mut msrs) == Ok(1)).then(|| msrs.as_slice()[0].data)
    }

    fn msrs(&self, entries: &[kvm_msr_entry]) -> Result<Msrs, VcpuError> {
        Msrs::from_entries(entries).map_err(|_| {
            self.kvm(KvmError::Ioctl {
                call: "KVM_GET_MSRS",
                source: std::io::Error::from_raw_os_error(libc::E2BIG),
            })
        })
    }

    /// The vCPU's TSC when the host's was `host_tsc`. From the offset where KVM tells it, which keeps
    /// the vCPUs' TSCs exactly as far apart as they are; else by reading the counter now.
    fn tsc_at(&self, vcpu: &VcpuFd, host_tsc: u64) -> Result<u64, VcpuError> {
        if let Some(offset) = self.tsc_offset(vcpu) {
            return Ok(host_tsc.wrapping_add(offset.0));
        }
        let now = self.read_msr(vcpu, MSR_TSC).ok_or(VcpuError::Msr {
            index: self.index,
            msr: MSR_TSC,
            value: 0,
        })?;
        let host_ticks = TscOffset::host_now().wrapping_sub(host_tsc);
        let guest_khz = vcpu.get_tsc_khz().unwrap_or(self.host_tsc_khz);
        let ticks = u128::from(host_ticks) * u128::from(guest_khz) / u128::from(self.host_tsc_khz.max(1));
        Ok(now.wrapping_sub(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }

    fn set_tsc(&self, vcpu: &VcpuFd, saved: u64, clock: TscAt) -> Result<(), VcpuError> {
        let value = saved.wrapping_add(clock.elapsed_ticks);
        if self.tsc_offset(vcpu).is_some() {
            return TscOffset(value.wrapping_sub(clock.host_tsc)).write(vcpu).map_err(|e| self.kvm(e));
        }
        // KVM gives vCPUs whose TSC is set to about the same value within a second the same offset, so
        // the time between these writes does not drive the vCPUs apart.
        self.set_msr(vcpu, MSR_TSC, value)
    }

    /// Writes one MSR.
    pub(super) fn set_msr(&self, vcpu: &VcpuFd, msr: u32, value: u64) -> Result<(), VcpuError> {
        let entry = kvm_msr_entry { index: msr, data: value, ..Default::default() };
        match vcpu.set_msrs(&self.msrs(&[entry])?) {
            Ok(1) => Ok(()),
            _ => Err(VcpuError::Msr { index: self.index, msr, value }),
        }
    }

    /// The vCPU's TSC offset, where KVM tells it and an offset alone relates the two counters.
    fn tsc_offset(&self, vcpu: &VcpuFd) -> Option<TscOffset> {
        if !self.capabilities.tsc_offset || self.is_scaled(vcpu) {
            return None;
        }
        TscOffset::read(vcpu)
    }

    /// Whether the guest's TSC runs at another frequency than the host's, so that an offset alone does
    /// not relate them.
    fn is_scaled(&self, vcpu: &VcpuFd) -> bool {
        // Without KVM_CAP_TSC_CONTROL the frequencies cannot differ.
        self.capabilities.tsc_control && vcpu.get_tsc_khz().ok() != Some(self.host_tsc_khz)
    }
}

/// Relates a saved TSC to this host's.
#[derive(Debug, Clone, Copy)]
pub struct TscAt {
    /// This host's TSC at the restore instant.
    pub host_tsc: u64,
    /// Ticks of the guest's TSC between the save instant and the restore instant.
    pub elapsed_ticks: u64,
}
