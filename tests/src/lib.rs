//! A harness for tests that run the real `godwit` binary with real guests.
//!
//! ```text
//!  Host ──────▶ runtime directory of its own: VMs of one Host do not know those of another
//!   ├─ run/receive ─▶ VmProcess   serial output and messages with time stamps, signals, exit status
//!   ├─ godwit       ─▶ Finished   any other command, until it has ended
//!   └─ migrate      ─▶ Moved      the contract's exit status and JSON
//!  Proxy ─────▶ between source and target: sees every message, cuts, stalls, damages
//!  Usage ─────▶ what a process holds: fds, threads, private memory
//! ```
//! Everything that is started is ended when its handle is dropped. Whatever is waited for has a time
//! limit, and a wait in vain shows all that was seen until then.
//!
//! | variable | effect |
//! |---|---|
//! | `GODWIT_BIN` | the binary to test, instead of the one that is built from this workspace |
//! | `GODWIT_SOAK=1` | as many repetitions as the acceptance asks for |
//! | `GODWIT_SEED=N` | the random numbers of an earlier run |

mod binary;
mod dice;
mod finished;
mod guest;
mod host;
mod migration;
mod need;
mod output;
mod process;
pub mod proxy;
mod usage;

pub use binary::godwit;
pub use dice::Dice;
pub use finished::{Command, Finished};
pub use guest::{DIRTY, Dirtying, watch_mismatches};
pub use host::Host;
pub use migration::{Moved, Moving};
pub use need::{alone, kvm, repetitions, root, skip, soak};
pub use output::{Line, Mark, Output};
pub use process::VmProcess;
pub use usage::Usage;

use std::time::{Duration, Instant};

/// How long anything may take that happens in milliseconds on a machine that has nothing else to do. On
/// one where other guests keep every core busy the kernel was seen to need 20 s to take a VM down.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks every millisecond until there is something.
///
/// # Panics
/// When there is nothing within the time; `what` says what was waited for.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
