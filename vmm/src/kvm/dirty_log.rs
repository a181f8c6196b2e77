//! The dirty log of one VM: turned on for a migration, read once a round, cleared chunk by chunk.
//! `unsafe`: its ioctls (KVM API 4.8 `KVM_GET_DIRTY_LOG`, 4.117 `KVM_CLEAR_DIRTY_LOG`, 8.29
//! `KVM_RESET_DIRTY_RINGS`) and the memory slots they belong to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_MEM_LOG_DIRTY_PAGES, KVMIO, kvm_clear_dirty_log,
    kvm_clear_dirty_log__bindgen_ty_1, kvm_dirty_log, kvm_dirty_log__bindgen_ty_1, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

use super::capabilities::{DirtyLogMode, KvmError};
use super::dirty_ring::DirtyRing;
use crate::memory::{GuestRam, PageBitmap};

ioctl_iow_nr!(KVM_GET_DIRTY_LOG, KVMIO, 0x42, kvm_dirty_log);
ioctl_io_nr!(KVM_RESET_DIRTY_RINGS, KVMIO, 0xc7);
ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);

/// A VM's RAM as memory slots, and their dirty log.
///
/// The slot number is the index of the range in the RAM layout.
#[derive(Debug)]
pub struct DirtyLog {
    vm: Arc<VmFd>,
    ram: Arc<GuestRam>,
    mode: DirtyLogMode,
    rings: Mutex<Rings>,
}

/// The vCPUs' rings, and what was taken from them and not fetched yet.
#[derive(Debug)]
struct Rings {
    rings: Vec<DirtyRing>,
    taken: Vec<PageBitmap>,
}

impl DirtyLog {
    /// Registers all RAM with the VM, not logged yet.
    ///
    /// # Errors
    /// KVM refuses a slot or the log mode that it offered.
    pub fn new(vm: Arc<VmFd>, ram: Arc<GuestRam>, mode: DirtyLogMode) -> Result<Self, KvmError> {
        if let DirtyLogMode::Ring { bytes } = mode {
            let mut cap = kvm_enable_cap { cap: KVM_CAP_DIRTY_LOG_RING_ACQ_REL, ..Default::default() };
            cap.args[0] = bytes.into();
            vm.enable_cap(&cap).map_err(KvmError::ioctl("KVM_CAP_DIRTY_LOG_RING_ACQ_REL"))?;
        }
        if let DirtyLogMode::ManualProtect { initially_set } = mode {
            let mut cap = kvm_enable_cap { cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ..Default::default() };
            cap.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.into();
            if initially_set {
                cap.args[0] |= u64::from(KVM_DIRTY_LOG_INITIALLY_SET);
            }
            vm.enable_cap(&cap).map_err(KvmError::ioctl("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"))?;
        }
        let taken = ram.layout().ranges().iter().map(|range| PageBitmap::empty(range.pages())).collect();
        let log = Self { vm, ram, mode, rings: Mutex::new(Rings { rings: Vec::new(), taken }) };
        log.set_slots(0)?;
        Ok(log)
    }

    /// Takes note of a new vCPU, which has a ring of its own in that mode.
    ///
    /// # Errors
    /// Its ring cannot be mapped.
    pub fn add_vcpu(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        if let DirtyLogMode::Ring { bytes } = self.mode {
            let ring = DirtyRing::map(vcpu, bytes)?;
            self.lock_rings().rings.push(ring);
        }
        Ok(())
    }

    /// A vCPU cannot go on before its ring is emptied (`KVM_EXIT_DIRTY_RING_FULL`).
    ///
    /// # Errors
    /// KVM refuses.
    pub fn empty_rings(&self) -> Result<(), KvmError> {
        self.lock_rings().harvest(&self.vm)
    }

    /// Begins to log. Pages dirtied from now on are found by the next [`fetch`](Self::fetch); what
    /// was there before must be sent anyway, so the first round takes every page.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn start(&self) -> Result<(), KvmError> {
        self.forget_rings()?;
        self.set_slots(KVM_MEM_LOG_DIRTY_PAGES)
    }

    /// Stops logging and forgets what was logged.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn stop(&self) -> Result<(), KvmError> {
        self.set_slots(0)?;
        self.forget_rings()
    }

    fn forget_rings(&self) -> Result<(), KvmError> {
        if matches!(self.mode, DirtyLogMode::Ring { .. }) {
            let mut rings = self.lock_rings();
            rings.harvest(&self.vm)?;
            rings.taken.iter_mut().for_each(PageBitmap::clear);
        }
        Ok(())
    }

    fn lock_rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the pages of range `index` that were dirtied and not cleared since. In the legacy mode
    /// and from rings this clears them; else each chunk must be [`clear`](Self::clear)ed before it is read.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn fetch(&self, index: usize, into: &mut PageBitmap) -> Result<(), KvmError> {
        debug_assert_eq!(into.pages(), self.ram.layout().ranges()[index].pages());
        if matches!(self.mode, DirtyLogMode::Ring { .. }) {
            let mut rings = self.lock_rings();
            rings.harvest(&self.vm)?;
            let taken = &mut rings.taken[index];
            into.words_mut().copy_from_slice(taken.words());
            taken.clear();
            return Ok(());
        }
        let log = kvm_dirty_log {
            slot: slot(index),
            padding1: 0,
            __bindgen_anon_1: kvm_dirty_log__bindgen_ty_1 {
                dirty_bitmap: into.words_mut().as_mut_ptr().cast(),
            },
        };
        // SAFETY: the bitmap has a word for every 64 pages of this slot (asserted above; both come
        // from the same layout), which is all that the kernel writes.
        if unsafe { ioctl_with_ref(&*self.vm, KVM_GET_DIRTY_LOG(), &log) } < 0 {
            return Err(KvmError::last_os_error("KVM_GET_DIRTY_LOG"));
        }
        Ok(())
    }

    /// Clears the pages of `dirty` within `first .. first + pages` of range `index`, so that the next
    /// write to one is logged again. `first` is a multiple of 64, `pages` too or it ends the range.
    /// Clear before reading a page, never after: a write in between would be lost.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn clear(&self, index: usize, dirty: &PageBitmap, first: u64, pages: u64) -> Result<(), KvmError> {
        match self.mode {
            DirtyLogMode::ManualProtect { .. } => {}
            // They were when they were fetched.
            DirtyLogMode::Legacy | DirtyLogMode::Ring { .. } => return Ok(()),
        }
        let pages = pages.min(dirty.pages() - first);
        let words = dirty.chunk(first, pages);
        let clear = kvm_clear_dirty_log {
            slot: slot(index),
            num_pages: u32::try_from(pages).expect("a chunk has fewer than 2^32 pages"),
            first_page: first,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
                dirty_bitmap: words.as_ptr().cast_mut().cast(),
            },
        };
        // SAFETY: the kernel only reads the bitmap, which has a bit for each of the `pages` pages.
        if unsafe { ioctl_with_ref(&*self.vm, KVM_CLEAR_DIRTY_LOG(), &clear) } < 0 {
            return Err(KvmError::last_os_error("KVM_CLEAR_DIRTY_LOG"));
        }
        Ok(())
    }

    fn set_slots(&self, flags: u32) -> Result<(), KvmError> {
        for (index, range) in self.ram.layout().ranges().iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot(index),
                flags,
                guest_phys_addr: range.guest_base,
                memory_size: range.bytes,
                userspace_addr: self.ram.host_base(index) as u64,
            };
            // SAFETY: the mapping is `range.bytes` long and lives in `self.ram`, which we keep for as
            // long as the VM; no other slot covers these guest addresses.
            unsafe { self.vm.set_user_memory_region(region) }
                .map_err(KvmError::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }
}

impl Rings {
    /// Takes all entries of all rings, and lets their pages be logged again. What is taken here is read by
    /// the migration later than this, so a write in between is not lost.
    fn harvest(&mut self, vm: &VmFd) -> Result<(), KvmError> {
        let Self { rings, taken } = self;
        for ring in rings {
            ring.harvest(|slot, page| {
                // The upper half is an address space, of which there is one.
                if let Some(taken) = taken.get_mut(usize::from(slot.to_le_bytes()[0])) {
                    taken.insert(page);
                }
            });
        }
        // SAFETY: takes no argument.
        if unsafe { ioctl(vm, KVM_RESET_DIRTY_RINGS()) } < 0 {
            return Err(KvmError::last_os_error("KVM_RESET_DIRTY_RINGS"));
        }
        Ok(())
    }
}

fn slot(index: usize) -> u32 {
    u32::try_from(index).expect("a guest has at most two RAM ranges")
}
