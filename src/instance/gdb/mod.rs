//! `--gdb`: a gdb can debug the guest, over gdb's remote serial protocol.
//!
//! ```text
//!  gdb ── tcp or unix ──▶ server ── first packet ──▶ attach ──▶ session ◀── stops, reboot, end ── mailbox
//!                         (one at a time)           (halts)      │ gdbstub's state machine          ▲
//!                                                                ▼                                  │
//!                                      guest: registers · memory · breakpoints · resume ──▶ vCPU threads
//! ```
//! While a debugger is attached it alone decides whether the guest runs: the API refuses to pause, resume
//! and migrate it. Ending the VM is always possible.

mod answers;
mod arch;
mod attach;
mod breakpoints;
mod frame;
mod guest;
mod incoming;
mod mailbox;
mod port;
mod registers;
mod resume;
mod server;
mod session;

pub(crate) use mailbox::Mailbox;
pub(crate) use server::{DebuggerError, Server, Waiting};
