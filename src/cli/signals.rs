//! Signals that ask this command to leave, as a counter that its loop looks at.

use std::sync::atomic::{AtomicU32, Ordering};

use super::failure::Failure;

static ASKED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// From now on Ctrl-C, SIGTERM and SIGHUP are counted and do not end this process.
pub(crate) fn count_requests_to_leave() -> Result<(), Failure> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        vmm_sys_util::signal::register_signal_handler(signal, count)
            .map_err(|error| Failure::failed(format!("can't handle signals: {error}; report this")))?;
    }
    Ok(())
}

/// How many came so far.
pub(crate) fn requests_to_leave() -> u32 {
    ASKED.load(Ordering::Relaxed)
}
