//! Moves a running virtual machine to another process, on this host or another.
//!
//! | module | what is inside |
//! |---|---|
//! | [`protocol`], [`ownership`], [`convergence`] | pure: what is said, who may run the guest, when to stop copying |
//! | [`ram`] | guest memory on its way: rounds, chunks, batches |
//! | [`transport`] | connections, framing, rate limit |
//! | [`engine`] | the source and the target that do the I/O |
//!
//! What decides holds no socket, thread or clock; what does the I/O decides nothing.

pub mod convergence;
pub mod engine;
pub mod ownership;
pub mod protocol;
pub mod ram;
pub mod transport;
