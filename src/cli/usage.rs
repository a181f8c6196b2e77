//! Reads the command line. What is wrong with it is said in one line, like every other failure.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use super::args::{Cli, Command};
use super::failure::Failure;
use super::output;

/// The command, or the exit status when there is nothing more to do (`--help`) or to be done.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(cli.command),
        Err(error) => Err(report(&error)),
    }
}

fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render().to_string();
            match output::result(text.trim_end()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(),
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _shown_or_nobody_there = error.print();
            ExitCode::from(2)
        }
        _ => Failure::usage(one_line(&error.render().to_string())).report(),
    }
}

/// Everything up to the usage text, on one line.
fn one_line(rendered: &str) -> String {
    let what = rendered.split("\n\nUsage:").next().unwrap_or(rendered);
    let what = what.split("\n\nFor more information").next().unwrap_or(what);
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let lines: Vec<&str> = what.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut text = String::from("wrong usage: ");
    for (index, line) in lines.iter().enumerate() {
        let separator = match (index, line.starts_with("tip:"), line.starts_with('[')) {
            (0, ..) => "",
            (_, true, _) => "; ",
            _ => " ",
        };
        text.push_str(separator);
        text.push_str(line);
    }
    text + "; see --help"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        let args = line.split(' ').map(OsString::from);
        let error = Cli::try_parse_from(args).map(|_| ()).expect_err(line);
        one_line(&error.render().to_string())
    }

    #[test]
    fn whatever_is_wrong_fits_on_one_line_and_leads_to_help() {
        for (line, part) in [
            ("godwit run --kernel x --cpus 0", "--cpus"),
            ("godwit run --kernel x --memory lots", "does not start with a number"),
            ("godwit run --kernle x", "'--kernel'"),
            ("godwit frobnicate", "frobnicate"),
            ("godwit resolve web", "--resume-here"),
            ("godwit resolve web --resume-here --discard", "cannot be used with"),
            ("godwit info", "--api"),
            ("godwit info web --api /x", "cannot be used with"),
            ("godwit info ../x", "start it with a letter"),
            ("godwit migrate", "TARGET"),
            ("godwit receive --listen 127.0.0.1:1", "tcp:"),
            ("godwit migrate a tcp:h:1 --mode fast", "[possible values"),
        ] {
            let text = refused(line);
            assert!(!text.contains('\n'), "{text}");
            assert!(text.contains(part), "{line}: {text}");
            assert!(text.ends_with("; see --help"), "{text}");
        }
    }
}
