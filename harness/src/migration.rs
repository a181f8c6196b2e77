//! `godwit migrate`, watched.

use std::time::Duration;

use godwit_api::{MigrationOutcome, MigrationResult};

use crate::finished::{Command, Finished};

/// A migration under way.
#[derive(Debug)]
pub struct Moving(Command);

/// A migration that has ended, as its command says.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The contract's last line.
    pub result: MigrationResult,
    /// The command.
    pub finished: Finished,
}

impl Moving {
    pub(crate) fn new(command: Command) -> Self {
        Self(command)
    }

    /// The command's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Waits for its end, and checks that exit status and JSON agree.
    ///
    /// # Panics
    /// When they don't, or it does not end in time.
    #[must_use]
    pub fn finish(self, within: Duration) -> Moved {
        let finished = self.0.finish(within);
        let mut lines = finished.stdout.lines();
        let line = lines.next().unwrap_or_else(|| panic!("no result: {finished:?}"));
        assert_eq!(lines.next(), None, "more than one line: {finished:?}");
        let result: MigrationResult =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
        let status = match result.status {
            MigrationOutcome::Completed => 0,
            MigrationOutcome::Failed => 1,
            MigrationOutcome::Cancelled => 3,
            MigrationOutcome::Unconfirmed => 4,
        };
        assert_eq!(finished.status, Some(status), "{finished:?}");
        Moved { result, finished }
    }
}

impl Moved {
    /// Asserts how it ended.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn assert(&self, outcome: MigrationOutcome) -> &Self {
        assert_eq!(self.result.status, outcome, "{:?}\n{}", self.result, self.finished.stderr);
        self
    }

    /// Its reason, or nothing.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.result.reason.as_deref().unwrap_or("")
    }
}
