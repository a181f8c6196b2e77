//! Moves a running virtual machine to another process, on this host or another.
//!
//! [`protocol`] and [`ownership`] are pure: they hold no socket, thread or clock, and decide
//! what is said and who may run the guest. What does the I/O stands apart from them.

pub mod ownership;
pub mod protocol;
