#![allow(clippy::test_attr_in_doctest, reason = "the README shows a whole test; it runs as one of its own")]
#![doc = include_str!("../README.md")]
//!
//! # In this crate
//!
//! ```text
//!  Boot ──start──▶ Guest      one guest in a runtime directory of its own: lines, input, memory, registers, moves
//!                    │        what fails is an Error that shows all there is to see
//!                    ▼
//!  Host ─────────▶ VmProcess  beneath it, for tests of VM processes themselves: what fails panics
//!   ├─ godwit     ─▶ Finished any other command, until it has ended
//!   └─ migrate    ─▶ Moved    the exit status and JSON of `godwit migrate`
//!  Usage ────────▶ what a process holds: file descriptors, threads, memory
//! ```
//! Everything that is started is killed when its handle is dropped. Whatever is waited for has a time limit, and
//! a wait in vain shows all that was seen until then.

mod binary;
mod boot;
mod error;
mod finished;
mod guest;
mod host;
mod migration;
mod output;
mod process;
mod snapshot;
mod usage;

pub use binary::find_binary;
pub use boot::{Boot, Image};
pub use error::{Error, Failure};
pub use finished::{Command, Finished};
pub use godwit_api as api;
pub use guest::{Guest, Way};
pub use host::Host;
pub use migration::{Moved, Moving};
pub use output::{Line, Mark, Output};
pub use process::VmProcess;
pub use snapshot::Snapshot;
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
