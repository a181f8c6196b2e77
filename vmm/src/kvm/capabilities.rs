//! Opens `/dev/kvm` and finds out what it can do.

use std::io;

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_CAP_SET_GUEST_DEBUG2,
    KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_GUESTDBG_BLOCKIRQ,
};
use kvm_ioctls::{Cap, Kvm};
use thiserror::Error;

/// Names capabilities to do without; see [`Capabilities::without`].
const WITHOUT: &str = "GODWIT_KVM_WITHOUT";

/// A vCPU's dirty ring: 4096 entries of 16 bytes. Emptied when it is full or at the end of a round,
/// whichever comes first.
const DIRTY_RING_BYTES: u32 = 64 << 10;

/// What can go wrong between us and KVM.
#[derive(Debug, Error)]
pub enum KvmError {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist: load the kvm module of this CPU (modprobe kvm_intel or kvm_amd), \
         or turn on virtualization in the firmware or in the hypervisor below"
    )]
    Missing,
    /// `/dev/kvm` is there and we may not open it.
    #[error(
        "no permission to open /dev/kvm: join its group (usually: sudo usermod -aG kvm $USER, then log in again)"
    )]
    NoPermission,
    /// `/dev/kvm` could not be opened for another reason.
    #[error("cannot open /dev/kvm: {0}")]
    Open(#[source] io::Error),
    /// Not the stable KVM API (12 since Linux 2.6.22).
    #[error("/dev/kvm speaks API version {found}, godwit needs 12: use a Linux kernel of this century")]
    ApiVersion {
        /// What it answered.
        found: i32,
    },
    /// The dirty ring was asked for and is not there.
    #[error("this host's KVM has no dirty ring (Linux 5.18 or newer): use --dirty-log bitmap")]
    NoDirtyRing,
    /// A feature without which no guest can run is missing.
    #[error("this host's KVM lacks {feature}, which godwit needs: use a newer kernel")]
    Lacks {
        /// Its name in the KVM API documentation.
        feature: &'static str,
    },
    /// More vCPUs than this KVM allows.
    #[error(
        "this host's KVM allows {host_max} vCPUs a guest, {wanted} were asked for: give --cpus a smaller number"
    )]
    TooManyVcpus {
        /// Asked for.
        wanted: u32,
        /// Allowed.
        host_max: usize,
    },
    /// An ioctl failed.
    #[error("KVM refused {call}: {source}")]
    Ioctl {
        /// Which one, by its name in the KVM API documentation.
        call: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl KvmError {
    /// For `map_err`: names the ioctl that failed.
    pub fn ioctl(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
        move |e| KvmError::Ioctl { call, source: io::Error::from_raw_os_error(e.errno()) }
    }

    /// Names the ioctl that failed, with the reason in `errno`.
    #[must_use]
    pub fn last_os_error(call: &'static str) -> KvmError {
        KvmError::Ioctl { call, source: io::Error::last_os_error() }
    }
}

/// Which kind of dirty log a machine shall have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DirtyLogChoice {
    /// A bit for each page: reading costs by the size of memory, writing the guest once a round and page.
    #[default]
    Bitmap,
    /// A ring of entries for each vCPU: reading costs by what was written, and a vCPU whose ring is full
    /// leaves the guest until it is emptied.
    Ring,
}

/// How the host tells which pages a guest dirtied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirtyLogMode {
    /// `KVM_GET_DIRTY_LOG` hands out the bits, clears them and write-protects everything at once.
    Legacy,
    /// Bits are cleared chunk by chunk with `KVM_CLEAR_DIRTY_LOG`, right before a chunk is read.
    ManualProtect {
        /// The log begins with every bit set, so that turning it on write-protects nothing yet.
        initially_set: bool,
    },
    /// Each vCPU has a ring of so many bytes.
    Ring {
        /// A power of two.
        bytes: u32,
    },
}

/// What this host's KVM offers of what we would use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The dirty log's mode.
    pub dirty_log: DirtyLogMode,
    /// The largest dirty ring of a vCPU, 0 where there are none.
    pub dirty_ring_bytes_max: u32,
    /// Most vCPUs a guest may have.
    pub vcpus_max: usize,
    /// Bytes of a vCPU's extended state (`KVM_CAP_XSAVE2`), 4096 where the host has only XSAVE.
    pub xsave_bytes: usize,
    /// `KVM_GET_CLOCK` also tells the realtime that belongs to it.
    pub clock_realtime: bool,
    /// `KVM_GET_CLOCK` also tells the host TSC that belongs to it.
    pub clock_host_tsc: bool,
    /// A guest's TSC can run at another frequency than the host's.
    pub tsc_control: bool,
    /// The APIC timer's TSC-deadline mode works.
    pub tsc_deadline_timer: bool,
    /// The guest can be told that it was paused (`KVM_KVMCLOCK_CTRL`).
    pub kvmclock_ctrl: bool,
    /// A vCPU's TSC offset may be used where KVM tells it (`KVM_VCPU_TSC_OFFSET`).
    pub tsc_offset: bool,
    /// vCPUs can be debugged (`KVM_SET_GUEST_DEBUG`).
    pub guest_debug: bool,
    /// Interrupts can be held back while a vCPU is stepped (`KVM_GUESTDBG_BLOCKIRQ`).
    pub debug_block_irq: bool,
}

impl Capabilities {
    /// The dirty log of a machine that shall have this kind.
    ///
    /// # Errors
    /// The host has no dirty ring.
    pub fn dirty_log_of(&self, choice: DirtyLogChoice) -> Result<DirtyLogMode, KvmError> {
        match choice {
            DirtyLogChoice::Bitmap => Ok(self.dirty_log),
            DirtyLogChoice::Ring => match self.dirty_ring_bytes_max.min(DIRTY_RING_BYTES) {
                0 => Err(KvmError::NoDirtyRing),
                bytes => Ok(DirtyLogMode::Ring { bytes: 1 << bytes.ilog2() }),
            },
        }
    }

    /// These capabilities without some that the host has, so that what godwit does on lesser hosts can
    /// be tried on any. `without` is a comma-separated list of field names; `manual_protect` and
    /// `initially_set` stand for the dirty log's. Unknown names change nothing.
    #[must_use]
    pub fn without(mut self, without: &str) -> Self {
        for name in without.split(',').map(str::trim) {
            match name {
                "dirty_ring" => self.dirty_ring_bytes_max = 0,
                "manual_protect" => self.dirty_log = DirtyLogMode::Legacy,
                "initially_set" => {
                    if let DirtyLogMode::ManualProtect { initially_set } = &mut self.dirty_log {
                        *initially_set = false;
                    }
                }
                "xsave2" => self.xsave_bytes = super::xsave::LEGACY_BYTES,
                "clock_realtime" => self.clock_realtime = false,
                "clock_host_tsc" => self.clock_host_tsc = false,
                "tsc_control" => self.tsc_control = false,
                "tsc_deadline_timer" => self.tsc_deadline_timer = false,
                "kvmclock_ctrl" => self.kvmclock_ctrl = false,
                "tsc_offset" => self.tsc_offset = false,
                "guest_debug" => self.guest_debug = false,
                "debug_block_irq" => self.debug_block_irq = false,
                _ => {}
            }
        }
        self
    }
}

/// Opens `/dev/kvm` and checks that a guest can run on it at all.
///
/// # Errors
/// It is missing, forbidden, or lacks what every guest needs.
pub fn open() -> Result<(Kvm, Capabilities), KvmError> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::NoPermission,
        errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
    })?;
    let found = kvm.get_api_version();
    if found != 12 {
        return Err(KvmError::ApiVersion { found });
    }
    let needed = [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
        (Cap::MpState, "KVM_CAP_MP_STATE"),
        (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
        (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
        (Cap::Xsave, "KVM_CAP_XSAVE"),
        (Cap::Xcrs, "KVM_CAP_XCRS"),
        (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    ];
    for (cap, feature) in needed {
        if !kvm.check_extension(cap) {
            return Err(KvmError::Lacks { feature });
        }
    }
    let capabilities = Capabilities {
        dirty_log: dirty_log_mode(&kvm),
        dirty_ring_bytes_max: dirty_ring_bytes_max(&kvm),
        vcpus_max: kvm.get_max_vcpus(),
        xsave_bytes: usize::try_from(kvm.check_extension_int(Cap::Xsave2)).unwrap_or(0).max(4096),
        clock_realtime: clock_flag(&kvm, KVM_CLOCK_REALTIME),
        clock_host_tsc: clock_flag(&kvm, KVM_CLOCK_HOST_TSC),
        tsc_control: kvm.check_extension(Cap::TscControl),
        tsc_deadline_timer: kvm.check_extension(Cap::TscDeadlineTimer),
        kvmclock_ctrl: kvm.check_extension(Cap::KvmclockCtrl),
        tsc_offset: true,
        guest_debug: kvm.check_extension(Cap::SetGuestDebug),
        debug_block_irq: u32::try_from(kvm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into()))
            .is_ok_and(|flags| flags & KVM_GUESTDBG_BLOCKIRQ != 0),
    };
    let without = std::env::var(WITHOUT).unwrap_or_default();
    Ok((kvm, capabilities.without(&without)))
}

fn clock_flag(kvm: &Kvm, flag: u32) -> bool {
    // `KVM_CAP_ADJUST_CLOCK` answers with the flags that KVM_GET_CLOCK can return (1 on old hosts).
    u32::try_from(kvm.check_extension_int(Cap::AdjustClock)).is_ok_and(|flags| flags & flag != 0)
}

fn dirty_ring_bytes_max(kvm: &Kvm) -> u32 {
    let offered = kvm.check_extension_raw(KVM_CAP_DIRTY_LOG_RING_ACQ_REL.into());
    u32::try_from(offered).unwrap_or(0)
}

fn dirty_log_mode(kvm: &Kvm) -> DirtyLogMode {
    let offered = kvm.check_extension_raw(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.into());
    let offered = u32::try_from(offered).unwrap_or(0);
    if offered & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE == 0 {
        return DirtyLogMode::Legacy;
    }
    DirtyLogMode::ManualProtect { initially_set: offered & KVM_DIRTY_LOG_INITIALLY_SET != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Capabilities {
        Capabilities {
            dirty_log: DirtyLogMode::ManualProtect { initially_set: true },
            dirty_ring_bytes_max: 1 << 20,
            vcpus_max: 64,
            xsave_bytes: 8192,
            clock_realtime: true,
            clock_host_tsc: true,
            tsc_control: true,
            tsc_deadline_timer: true,
            kvmclock_ctrl: true,
            tsc_offset: true,
            guest_debug: true,
            debug_block_irq: true,
        }
    }

    #[test]
    fn the_ring_is_had_only_where_there_is_one() {
        let bytes = |max| {
            let capabilities = Capabilities { dirty_ring_bytes_max: max, ..all() };
            capabilities.dirty_log_of(DirtyLogChoice::Ring).ok()
        };
        assert_eq!(bytes(1 << 20), Some(DirtyLogMode::Ring { bytes: 64 << 10 }));
        assert_eq!(bytes(40_000), Some(DirtyLogMode::Ring { bytes: 32 << 10 }));
        assert_eq!(bytes(0), None);
        assert_eq!(all().dirty_log_of(DirtyLogChoice::Bitmap).ok(), Some(all().dirty_log));
    }

    #[test]
    fn a_lesser_host_can_be_tried() {
        let full = all();
        assert_eq!(full.without(""), full);
        assert_eq!(full.without("nonsense"), full);
        let lesser = full.without("initially_set, tsc_offset");
        assert_eq!(lesser.dirty_log, DirtyLogMode::ManualProtect { initially_set: false });
        assert!(!lesser.tsc_offset && lesser.kvmclock_ctrl);
        let least = full.without("manual_protect,xsave2,clock_realtime,clock_host_tsc,kvmclock_ctrl");
        assert_eq!((least.dirty_log, least.xsave_bytes), (DirtyLogMode::Legacy, 4096));
    }
}
