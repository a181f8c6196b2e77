//! `godwit man`: the manual, made from what `--help` says.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, ManArgs};
use super::failure::Failure;
use super::output;

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    // `godwit help` needs no page of its own.
    let command = Cli::command().disable_help_subcommand(true);
    match &args.dir {
        None => main_page(command)?,
        Some(directory) => all_pages(command, directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn main_page(command: clap::Command) -> Result<(), Failure> {
    let mut page = Vec::new();
    Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::failed(format!("can't make the manual page: {error}; report this")))?;
    output::bytes(&page)?;
    Ok(())
}

fn all_pages(command: clap::Command, directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory)).map_err(
        |error| {
            let path = directory.display();
            Failure::failed(format!(
                "can't write the manual to {path}: {error}; check that it is a directory and yours"
            ))
        },
    )
}
