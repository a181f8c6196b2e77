//! What carries a migration: TCP connections and unix sockets, framed messages on them, a limit on
//! their rate, and the word that two processes on one host share.

mod control;
mod link;
mod shaping;
mod started_word;
mod tcp;

pub use control::{ControlError, ControlReader, ControlWriter};
pub use link::{Address, FDS_MAX, Link};
pub use shaping::Shaper;
pub use started_word::StartedWord;
pub use tcp::tune;
