//! The dirty ring of one vCPU (KVM API 8.29 `KVM_CAP_DIRTY_LOG_RING`): the kernel writes an entry for each
//! page that this vCPU dirties, we take it and mark it, and `KVM_RESET_DIRTY_RINGS` makes the page be
//! logged again.
//!
//! ```text
//!  an entry's flags:   0 ──kernel──▶ DIRTY ──harvest──▶ RESET ──KVM_RESET_DIRTY_RINGS──▶ 0
//! ```
//! `unsafe`: the ring is memory shared with the kernel, mapped from the vCPU's file descriptor.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{KVM_DIRTY_LOG_PAGE_OFFSET, kvm_dirty_gfn};
use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::capabilities::KvmError;

/// `KVM_DIRTY_GFN_F_DIRTY`: the kernel has written this entry.
const DIRTY: u32 = 1 << 0;
/// `KVM_DIRTY_GFN_F_RESET`: we have taken it.
const RESET: u32 = 1 << 1;
const PAGE_BYTES: u64 = 4096;

/// One vCPU's ring. Only one thread at a time harvests it (`&mut`).
#[derive(Debug)]
pub(super) struct DirtyRing {
    entries: NonNull<kvm_dirty_gfn>,
    count: usize,
    next: usize,
}

// SAFETY: the mapping is not bound to a thread, and access needs `&mut`.
unsafe impl Send for DirtyRing {}

impl DirtyRing {
    /// Maps the ring of a vCPU, which has as many bytes as its VM was told.
    pub(super) fn map(vcpu: &VcpuFd, bytes: u32) -> Result<Self, KvmError> {
        let failed =
            |errno: rustix::io::Errno| KvmError::Ioctl { call: "mmap of a dirty ring", source: errno.into() };
        let bytes = usize::try_from(bytes).map_err(|_| failed(rustix::io::Errno::INVAL))?;
        // SAFETY: only borrowed for this call.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(vcpu)) };
        // SAFETY: a new mapping, at an address that the kernel chooses; nothing else is touched.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                u64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE_BYTES,
            )
        };
        let entries = NonNull::new(mapped.map_err(failed)?.cast()).ok_or(failed(rustix::io::Errno::NOMEM))?;
        Ok(Self { entries, count: bytes / size_of::<kvm_dirty_gfn>(), next: 0 })
    }

    /// Takes what the kernel has written since the last time: slot and page within it. Each of these pages
    /// is logged again only after `KVM_RESET_DIRTY_RINGS`.
    pub(super) fn harvest(&mut self, mut page: impl FnMut(u32, u64)) {
        // At most once around: the vCPU goes on writing meanwhile.
        for _ in 0..self.count {
            // SAFETY: `next` is below `count`, and the mapping has that many entries.
            let entry = unsafe { self.entries.add(self.next) };
            // SAFETY: the entry is mapped for as long as `self`; its flags are an aligned word that both
            // sides access atomically, as the API asks for.
            let flags = unsafe { AtomicU32::from_ptr(&raw mut (*entry.as_ptr()).flags) };
            // The entry's other fields were written before its flags.
            if flags.load(Ordering::Acquire) & DIRTY == 0 {
                return;
            }
            // SAFETY: the same mapping; the kernel leaves a dirty entry alone until it is reset.
            let (slot, offset) = unsafe { ((*entry.as_ptr()).slot, (*entry.as_ptr()).offset) };
            flags.store(RESET, Ordering::Release);
            self.next = (self.next + 1) % self.count;
            page(slot, offset);
        }
    }
}

impl Drop for DirtyRing {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, of that size; nothing refers to it any more.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), self.count * size_of::<kvm_dirty_gfn>()) };
    }
}
