//! The runtime directory: how VM processes on this host are found by name.
//!
//! ```text
//!  RUNTIME_DIR/            0700, its owner's only
//!    .lock                 flock: taken to register, rename or prune, never to read or update
//!    web.4711.json         state file of process 4711, replaced as a whole
//!    web.4711.sock         its API socket
//! ```
//! A state file belongs to the process that wrote it; nobody else changes it. Other processes only
//! read it, and remove it when that process is surely gone. What a process wrote about itself is
//! checked against the kernel: a pid is believed only with the same start time and boot.

mod directory;
mod error;
mod lookup;
mod process;
mod registration;
mod state_file;
#[cfg(test)]
mod tests;

pub use directory::RuntimeDir;
pub use error::{Candidate, RegistryError};
pub use lookup::{Entry, Listing, Unreadable};
pub use registration::{NewEntry, Registration};
pub use state_file::{FORMAT_VERSION, SessionState, StateFile};
