//! What a test needs of the machine and of the time.

use std::fs::OpenOptions;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says that a test did nothing, so that a script can count it.
pub fn skip(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

/// Whether guests can run here; says so if not.
#[must_use]
pub fn kvm(test: &str) -> bool {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            skip(test, &format!("/dev/kvm: {error}"));
            false
        }
    }
}

/// Whether this process may do all; says so if not.
#[must_use]
pub fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Whether the long run was asked for.
#[must_use]
pub fn soak() -> bool {
    std::env::var_os("GODWIT_SOAK").is_some_and(|value| value != "0")
}

/// How often: so many times in a normal run, so many when the long run was asked for.
#[must_use]
pub fn repetitions(normal: usize, long: usize) -> usize {
    if soak() { long } else { normal }
}

/// Lets one test of a file at a time have the machine: guests that write memory keep every core busy,
/// and time limits and gaps are about what is left.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
