//! One move of the guest, from one process to the next, and what was seen of it.

use std::time::{Duration, Instant};

use godwit_api::client::Polled;
use godwit_api::{MigrateRequest, MigrationEvent, MigrationOutcome, MigrationResult};
use godwit_guest_images::observer::{self, Observer};

use super::DemoError;
use super::guest::{Found, Guest};
use super::patience::Patience;
use super::report::grouped;
use super::vmm::Vmm;

/// How long the guest is watched before it moves.
const WATCH_BEFORE: Duration = Duration::from_secs(1);
/// How often Ctrl-C is looked for while nothing arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// When a move has failed.
const MOVE_WITHIN_MS: u64 = 20_000;

/// A move to make.
pub(super) struct Hop<'a> {
    pub(super) guest: &'a Guest,
    pub(super) observer: &'a Observer,
    pub(super) from: Vmm,
    pub(super) to: Vmm,
}

/// A move that was made.
#[derive(Debug)]
pub(super) struct Moved {
    /// What the engine says.
    pub(super) result: MigrationResult,
    /// From the last beat here to the first beat there.
    pub(super) blackout: Duration,
    /// The longest silence in the second before: what this host does to a guest that stays.
    pub(super) gap_before: Duration,
    /// The longest silence while memory was copied.
    pub(super) gap_copying: Duration,
    /// What the guest found afterwards.
    pub(super) found: Found,
}

impl Moved {
    pub(super) fn found_in_words(&self) -> String {
        match self.found {
            Found { pages, mismatches: 0 } => {
                format!("all {} pages that it writes are as it left them", grouped(pages))
            }
            Found { pages, mismatches } => {
                format!("{} of {} pages are NOT as it left them", grouped(mismatches), grouped(pages))
            }
        }
    }
}

impl Hop<'_> {
    /// Moves the guest; gives back what was seen and the process that has it now.
    pub(super) fn travel(mut self, patience: &mut Patience<'_>) -> Result<(Moved, Vmm), DemoError> {
        let (here, there) = (self.from.index(), self.to.index());
        let asked = self.watch_before(patience)?;
        let result = self.migrate(patience);
        patience.screen().progress_ends();
        let result = result?;
        // Once it has ended, all that it wrote has been read.
        self.from.must_end(patience)?;
        patience
            .wait_for("the last output of the source", || Ok(self.observer.of(here).ended.then_some(())))?;
        patience.wait_for("the guest to be heard again", || {
            self.to.must_be_alive()?;
            Ok(self.observer.of(there).beats.first())
        })?;
        let found = self.guest.verify(&mut self.to, self.observer, patience)?;
        let before = &self.observer.of(here).beats;
        let after = &self.observer.of(there).beats;
        let unheard = || DemoError::Unexpected { what: "the guest was not heard around its move".to_owned() };
        let moved = Moved {
            result,
            found,
            blackout: observer::blackout(before, after).ok_or_else(unheard)?,
            gap_before: before.longest_gap(asked - WATCH_BEFORE, asked).ok_or_else(unheard)?,
            gap_copying: before
                .last()
                .and_then(|last| before.longest_gap(asked, last))
                .ok_or_else(unheard)?,
        };
        Ok((moved, self.to))
    }

    /// Listens to the guest for a second; gives back when that second was over.
    fn watch_before(&mut self, patience: &mut Patience<'_>) -> Result<Instant, DemoError> {
        let until = Instant::now() + WATCH_BEFORE;
        patience.wait_for("the guest to be heard for a second", || {
            self.from.must_be_alive()?;
            Ok(self.observer.of(self.from.index()).beats.last().filter(|last| *last >= until))
        })
    }

    fn migrate(&mut self, patience: &mut Patience<'_>) -> Result<MigrationResult, DemoError> {
        const WHAT: &str = "the guest to move";
        let target = self.to.listens_on().to_owned();
        let request = MigrateRequest { timeout_ms: MOVE_WITHIN_MS, ..MigrateRequest::to(&target) };
        let mut events = self.from.client().migrate(&request)?;
        let result = loop {
            patience.check(WHAT)?;
            match events.poll(POLL_INTERVAL)? {
                Polled::Event(MigrationEvent::Progress(progress)) => patience.screen().progress(&progress),
                Polled::Event(MigrationEvent::Result(result)) => break result,
                Polled::Waiting => self.to.must_be_alive()?,
                Polled::Ended => {
                    self.from.must_be_alive()?;
                    let what = "the source broke off its answer before the result".to_owned();
                    return Err(DemoError::Unexpected { what });
                }
            }
        };
        if result.status == MigrationOutcome::Completed {
            return Ok(result);
        }
        let reason = result.reason.unwrap_or_else(|| "no reason given".to_owned());
        Err(DemoError::NotMoved { target, status: result.status.as_str(), reason })
    }
}
