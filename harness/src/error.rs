//! What went wrong, with all that helps to find out why.

use std::fmt;
use std::io;
use std::panic::Location;
use std::time::Duration;

use godwit_api::InvalidInput;
use godwit_api::client::ClientError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is no `godwit` to run.
    #[error("no godwit binary: {why}; install godwit, or set GODWIT_BIN to its path")]
    NoBinary {
        /// Where it was looked for.
        why: String,
    },
    /// The system refuses something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The process ended before the guest was started.
    #[error("the guest was not started: {why}")]
    NotStarted {
        /// What the process says.
        why: String,
    },
    /// Something did not happen within its time.
    #[error("not within {within:?}: {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
    /// The guest is over, so that it will not happen any more.
    #[error("the guest has ended ({how}) before: {what}")]
    Ended {
        /// What was waited for.
        what: String,
        /// How it ended.
        how: String,
    },
    /// The next line is another one.
    #[error("the next line is not the expected one: expected {expected:?}, found {found:?}")]
    OtherLine {
        /// What it should contain.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The guest said what it must not say.
    #[error("the guest said what it must not ({rejected:?}): {line:?}")]
    Rejected {
        /// What it must not say.
        rejected: String,
        /// The line.
        line: String,
    },
    /// The VM process refused, or did not answer.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: ClientError,
    },
    /// A value is out of range.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The guest was not moved; it runs on where it was unless `how` says otherwise.
    #[error("the guest was not moved ({how}): {why}")]
    NotMoved {
        /// How the attempt ended.
        how: String,
        /// Why.
        why: String,
    },
}

/// What can be seen of a guest at the moment of a failure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The last lines on its serial port.
    pub(crate) serial: String,
    /// What its process said.
    pub(crate) messages: String,
    /// The registers of every vCPU, or why there are none.
    pub(crate) registers: String,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n--- registers\n{}\n---", self.serial, self.messages, self.registers)
    }
}

/// A failure, where it happened in the test, and what could be seen of the guest at that moment: the tail of
/// its serial output, its process's messages, the registers of every vCPU. `Display` and `Debug` show all of
/// it, so that `?` in a test and `unwrap` do.
pub struct Error(Box<Inner>);

struct Inner {
    failure: Failure,
    at: &'static Location<'static>,
    evidence: Option<Evidence>,
}

impl Error {
    pub(crate) fn new(failure: Failure, at: &'static Location<'static>, evidence: Option<Evidence>) -> Self {
        Self(Box::new(Inner { failure, at, evidence }))
    }

    /// What went wrong.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// Where in the test.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.0.at
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  at {}", self.0.failure, self.0.at)?;
        match &self.0.evidence {
            Some(evidence) => write!(f, "\n{evidence}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.failure)
    }
}
