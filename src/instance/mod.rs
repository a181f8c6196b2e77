//! The per-VM process: machine, migration engine and API, wired together.
//!
//! ```text
//!  godwit run ─────▶ boots ──▶ ┌───────────┐ guest ended · stop · signal · handed over · --expect
//!  godwit receive ─▶ waits ──▶ │ main loop │ ───────────────────────────────────────────▶ exit status
//!                              └───────────┘
//!        API thread, migration thread, vCPU threads, serial threads talk to it through `Event`s
//! ```

mod address;
mod console;
mod control;
mod ending;
mod exit;
mod gdb;
pub(crate) mod http;
mod inspect;
mod junit;
mod kernel;
mod main_loop;
mod process;
mod receive;
mod run;
mod source;
mod succession;
mod target;
mod vm;
mod watch;

pub(crate) use exit::Exit;
pub(crate) use receive::receive;
pub(crate) use run::run;
pub(crate) use vm::Origin;
