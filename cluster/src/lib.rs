//! Hosts that watch each other and restart guests from shared storage.
//!
//! Nothing is here yet, on purpose: the cluster is built after a single guest moves safely, because
//! everything in it (ownership by epoch, fencing, failover) stands on the door between two VMMs that
//! `godwit-migrate` implements.
//!
//! What will live here, and in which folder, so that a reader sees from the path what decides and what acts:
//!
//! - `controller/` (pure): events in, actions out: placement, failover, drain, balance.
//! - `lease/` (pure): when a host may believe that it still owns its guests.
//! - `store/` (I/O): owner and epoch of each guest, changed only by compare-and-swap.
//! - `keeper/` (I/O): one host's slot on shared storage and its watchdog, nothing else.
//! - `daemon/` (I/O): heartbeats, supervision of VM processes, API.
//!
//! Invariant: this crate talks to VM processes through `godwit-api` and never links `godwit-vmm`.
