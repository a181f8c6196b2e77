//! How a command ends when it can't do what it was asked for.

use std::fmt::Display;
use std::process::ExitCode;

/// One line for a person and an exit status for a script.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// Bad input, or the thing itself failed: exit status 1.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self { message: message.to_string(), status: 1 }
    }

    /// The command line itself is wrong: exit status 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), status: 2 }
    }

    /// What will be said.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The exit status.
    pub(crate) const fn status(&self) -> u8 {
        self.status
    }

    /// Says it on stderr, in one line.
    pub(crate) fn report(&self) -> ExitCode {
        super::output::message(&self.message);
        ExitCode::from(self.status())
    }
}
