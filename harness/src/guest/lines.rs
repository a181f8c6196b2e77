//! Waiting for what the guest says.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::Guest;
use crate::error::{Error, Failure};
use crate::output::Next;

impl Guest {
    /// Waits for a line with `part` in it and returns it. Lines before it are passed over; the next wait goes on
    /// behind it.
    ///
    /// # Errors
    /// None came in time or can come any more, or the guest said what it must not.
    #[track_caller]
    pub fn expect(&mut self, part: &str) -> Result<String, Error> {
        self.find(&line_with(part), self.patience, Location::caller(), with(part))
    }

    /// As [`expect`](Self::expect), with a time of its own.
    ///
    /// # Errors
    /// As for [`expect`](Self::expect).
    #[track_caller]
    pub fn expect_within(&mut self, part: &str, within: Duration) -> Result<String, Error> {
        self.find(&line_with(part), within, Location::caller(), with(part))
    }

    /// Waits for a line that `wanted` makes something of, and returns that; `what` is for the failure.
    ///
    /// # Errors
    /// As for [`expect`](Self::expect).
    #[track_caller]
    pub fn expect_that<T>(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Error> {
        self.find(what, within, Location::caller(), wanted)
    }

    /// Waits for the very next line, which must have `part` in it, and returns it.
    ///
    /// # Errors
    /// It is another one, or as for [`expect`](Self::expect).
    #[track_caller]
    pub fn expect_next(&mut self, part: &str) -> Result<String, Error> {
        let at = Location::caller();
        let line = self.find(&line_with(part), self.patience, at, |line| Some(line.to_owned()))?;
        if line.contains(part) {
            return Ok(line);
        }
        Err(self.fail(Failure::OtherLine { expected: part.to_owned(), found: line }, at))
    }

    /// From now on, fails whatever is being waited for as soon as the guest says a line with this in it.
    pub fn reject(&mut self, part: impl Into<String>) {
        self.rejected.push(part.into());
    }

    fn find<T>(
        &mut self,
        what: &str,
        within: Duration,
        at: &'static Location<'static>,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let until = Instant::now() + within;
        loop {
            // A copy, as the mark must not move while lines are looked at through it.
            let mut read = self.read;
            let next = self.process.serial().next_line(&mut read, until);
            self.read = read;
            let (line, last) = match next {
                Next::Line(line) => (line, false),
                Next::Ended { unfinished } => (unfinished, true),
                Next::Late => {
                    return Err(self.fail(Failure::Late { what: what.to_owned(), within }, at));
                }
            };
            self.refuse(&line, at)?;
            if let Some(found) = wanted(&line).filter(|_| !(last && line.is_empty())) {
                return Ok(found);
            }
            if last {
                return Err(self.ended(what.to_owned(), at));
            }
        }
    }

    /// Fails if a line that nobody has waited for yet is one that must not be. Passes over none.
    pub(super) fn refuse_rejected(&mut self, at: &'static Location<'static>) -> Result<(), Error> {
        let mut read = self.read;
        while let Next::Line(line) = self.process.serial().next_line(&mut read, Instant::now()) {
            self.refuse(&line, at)?;
        }
        Ok(())
    }

    fn refuse(&mut self, line: &str, at: &'static Location<'static>) -> Result<(), Error> {
        match self.rejected.iter().find(|part| line.contains(part.as_str())).cloned() {
            Some(rejected) => Err(self.fail(Failure::Rejected { rejected, line: line.to_owned() }, at)),
            None => Ok(()),
        }
    }
}

fn line_with(part: &str) -> String {
    format!("a line with {part:?}")
}

fn with(part: &str) -> impl FnMut(&str) -> Option<String> {
    move |line| line.contains(part).then(|| line.to_owned())
}
