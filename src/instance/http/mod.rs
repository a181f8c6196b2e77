//! The HTTP/JSON API of one VM process, on its unix socket.
//!
//! ```text
//!  ApiSocket::bind ──▶ serve ──▶ one thread, one tokio runtime
//!                                  accept ─▶ router ─▶ handlers ─▶ dyn Control (blocking, on
//!                                                                  the runtime's blocking pool)
//! ```
//! The server knows nothing of the VM: it checks what arrives and asks a [`Control`]. It never
//! decides who may run the guest.

mod console;
pub(crate) mod control;
mod extract;
mod inspect;
mod log;
mod migrations;
mod router;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use control::{ConsoleAttachment, ConsoleLog, Control};
pub(crate) use server::{ServeError, ServerHandle, serve};
pub(crate) use socket::{ApiSocket, BindError};
