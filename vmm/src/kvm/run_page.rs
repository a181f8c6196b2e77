//! The page that KVM shares with us for each vCPU, and the kick that takes a vCPU out of the guest.
//!
//! Kicking must never be lost. Three cases, by where the vCPU thread is when it is kicked:
//!
//! 1. in `KVM_RUN`: the signal interrupts it;
//! 2. between its last look at the request and `KVM_RUN`: `immediate_exit` makes `KVM_RUN` return at once;
//! 3. elsewhere: it sees the request before it enters again (it clears `immediate_exit` *before* it looks).
//!
//! `unsafe`: the shared page is reached through a raw pointer.

use std::ptr::{NonNull, addr_of_mut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The shared page of one vCPU. The vCPU's own thread makes it, uses it and drops it before its `VcpuFd`.
#[derive(Debug)]
pub struct RunPage {
    run: NonNull<kvm_run>,
}

// SAFETY: the page is plain memory shared with the kernel; `immediate_exit` is only touched as an
// atomic and everything else only by the vCPU's own thread.
unsafe impl Send for RunPage {}

impl RunPage {
    /// The page of this vCPU.
    pub fn of(vcpu: &mut VcpuFd) -> Self {
        Self { run: NonNull::from(vcpu.get_kvm_run()) }
    }

    /// `kvm_run.immediate_exit`: 1 makes `KVM_RUN` finish pending I/O and return `EINTR`.
    #[must_use]
    pub fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the mapping lives as long as the VcpuFd, and with it `self`; the field is one byte,
        // and both we and the kernel access it as such.
        unsafe { AtomicU8::from_ptr(addr_of_mut!((*self.run.as_ptr()).immediate_exit)) }
    }

    /// Width in bytes of one access of the port I/O exit that `KVM_RUN` just returned (a string
    /// instruction moves several at once).
    #[must_use]
    pub fn port_access_bytes(&self) -> usize {
        // SAFETY: reads one byte of the shared page; after a port I/O exit it is `io.size`, after any
        // other exit it is some other byte, and is bounded below.
        let size = unsafe { (*self.run.as_ptr()).__bindgen_anon_1.io.size };
        usize::from(size).clamp(1, 4)
    }
}

/// Lets other threads kick one vCPU thread out of the guest, for as long as that thread lives.
#[derive(Debug, Default)]
pub struct KickSignal {
    target: Mutex<Option<Target>>,
}

#[derive(Debug)]
struct Target {
    thread: libc::pthread_t,
    immediate_exit: NonNull<AtomicU8>,
}

// SAFETY: the pointer is only used under the mutex, and `disarm` takes it away before it dangles.
unsafe impl Send for Target {}

impl KickSignal {
    /// Called by the vCPU's thread before it runs the guest: from now on it can be kicked.
    /// It must call [`disarm`](Self::disarm) before `page` goes away.
    pub fn arm(&self, page: &RunPage) {
        install_handler();
        // SAFETY: always succeeds, on the calling thread.
        let thread = unsafe { libc::pthread_self() };
        *self.lock() = Some(Target { thread, immediate_exit: NonNull::from(page.immediate_exit()) });
    }

    /// The vCPU's thread is about to end: kicks do nothing from now on.
    pub fn disarm(&self) {
        *self.lock() = None;
    }

    /// Takes the vCPU out of the guest. Set the request that it should see *before*.
    pub fn kick(&self) {
        if let Some(target) = &*self.lock() {
            // SAFETY: while the target is armed its run page and thread exist: the thread disarms,
            // under this mutex, before it lets go of either.
            unsafe {
                target.immediate_exit.as_ref().store(1, Ordering::SeqCst);
                libc::pthread_kill(target.thread, kick_signal());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Target>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

fn install_handler() {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The handler has nothing to do: that the signal interrupts KVM_RUN is all we want of it.
        register_signal_handler(kick_signal(), nothing).expect("a real-time signal can be handled");
    });
}
