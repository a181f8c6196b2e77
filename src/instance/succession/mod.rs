//! `godwit upgrade`: a guest goes on in a new process, of another binary, on the same host.
//!
//! ```text
//!  this process                                         its successor (a child)
//!  spawns it: same stdio, cgroup, session ────────────▶ receive --takes-over SOCKET
//!              ◀──────────────────────────── connects, once it can receive
//!  hands the guest over (unix: migration, nothing copied) ──▶ the guest runs there
//!  carries the last output; sends what was typed and not
//!  yet taken; closes ──────────────────────────────────▶ opens the serial port, takes the API's path
//!  stands by: forwards signals, ends as the guest ends
//! ```
//! Standing by is for whoever started this process (a shell, a service manager, a script): to them it
//! still is the VM. It holds no memory of the guest and nothing of KVM any more. A successor that is
//! succeeded itself just ends: the first process adopts the next one.

mod predecessor;
mod stand_by;
mod successor;

pub(super) use predecessor::Predecessor;
pub(super) use stand_by::stand_by;
pub(super) use successor::Successor;
