//! `godwit completions`: a script that teaches a shell the command line.

use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::failure::Failure;
use super::output;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "godwit", &mut script);
    output::bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
