//! What carries a migration: TCP connections, framed messages on them, and a limit on their rate.

mod control;
mod shaping;
mod tcp;

pub use control::{ControlError, ControlReader, ControlWriter};
pub use shaping::Shaper;
pub use tcp::{connect, tune};
