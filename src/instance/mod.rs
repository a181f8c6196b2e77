//! The per-VM process: machine, migration engine and API, wired together.

pub(crate) mod http;
