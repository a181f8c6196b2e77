//! The per-VM process: machine, migration engine and API, wired together.

pub(crate) mod http;

use std::process::ExitCode;

use crate::cli::{ReceiveConfig, RunConfig};

/// How a VM process ends: its exit status.
#[derive(Debug)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Temporary: nothing is behind this command yet.
    pub(crate) fn not_wired(command: &str) -> Self {
        eprintln!(
            "godwit: {command} is not wired in yet: this build has only the command line; use a later one"
        );
        Self(6)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Temporary: stands where the VM process will be.
pub(crate) fn run(_: RunConfig) -> Exit {
    Exit::not_wired("run")
}

/// Temporary: stands where the receiver will be.
pub(crate) fn receive(_: ReceiveConfig) -> Exit {
    Exit::not_wired("receive")
}
