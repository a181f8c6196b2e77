//! `godwit demo`: the first thing that a person tries.

use std::process::ExitCode;

use super::args::DemoArgs;
use super::failure::Failure;

/// What the demo needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DemoConfig {
    /// End with one line of JSON.
    pub(crate) json: bool,
}

pub(crate) fn demo(args: DemoArgs) -> Result<ExitCode, Failure> {
    match args.what.as_deref() {
        None => Ok(crate::demo::demo(DemoConfig { json: args.json }).into()),
        Some("cluster") => Err(Failure::usage(
            "the cluster demo is not in this version yet; `godwit demo` moves one guest between two processes",
        )),
        Some(other) => {
            Err(Failure::usage(format!("wrong usage: there is no demo called {other:?}; run `godwit demo`")))
        }
    }
}
