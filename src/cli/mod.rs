//! The command line: thin. It checks what it is given, asks one VM process over its API, and shows
//! the answer. What takes a machine to do is done by `instance`.
//!
//! Results go to stdout, everything else to stderr. A failure is one line: what failed, why, what
//! to do next.

mod address;
mod args;
mod cancel;
mod completions;
mod console;
mod demo;
mod dirty_log;
mod failure;
mod info;
mod logs;
mod man;
mod memory;
mod migrate;
mod output;
mod pause;
mod progress;
mod ps;
mod receive;
mod resolve;
mod resume;
mod run;
mod serial;
mod signals;
mod stop;
mod top;
mod units;
mod upgrade;
mod usage;

use std::process::ExitCode;

use args::Command;
use failure::Failure;

pub(crate) use dirty_log::DirtyLogArg;
pub(crate) use receive::ReceiveConfig;
pub(crate) use run::{Kernel, OnReset, RunConfig};
pub(crate) use serial::Serial;

/// The whole program, from its arguments to its exit status.
pub(crate) fn main() -> ExitCode {
    let command = match usage::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    match dispatch(command) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => demo::demo(args),
        Command::Run(args) => run::run(args),
        Command::Receive(args) => receive::receive(args),
        Command::Migrate(args) => migrate::migrate(args),
        Command::Upgrade(args) => upgrade::upgrade(&args),
        Command::Cancel(args) => cancel::cancel(&args),
        Command::Resolve(args) => resolve::resolve(&args),
        Command::Ps(args) => ps::ps(&args),
        Command::Info(args) => info::info(&args),
        Command::Memory(args) => memory::memory(args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => resume::resume(&args),
        Command::Stop(args) => stop::stop(&args),
        Command::Console(args) => console::console(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Top(args) => top::top(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
    }
}
