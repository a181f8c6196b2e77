//! Waiting: for a condition, not for a time, and never for ever.

use std::time::{Duration, Instant};

use super::{DemoError, Screen};

/// The whole demo takes some seconds; after this many something is wrong.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The time that is left, and the person in front of the screen.
pub(super) struct Patience<'a> {
    screen: &'a mut dyn Screen,
    until: Instant,
}

impl<'a> Patience<'a> {
    pub(super) fn new(screen: &'a mut dyn Screen) -> Self {
        Self { screen, until: Instant::now() + LIMIT }
    }

    pub(super) fn screen(&mut self) -> &mut dyn Screen {
        self.screen
    }

    /// Fails once the person has left or the time is up.
    pub(super) fn check(&self, what: &'static str) -> Result<(), DemoError> {
        if self.screen.asked_to_leave() {
            return Err(DemoError::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(DemoError::TooSlow { after_s: LIMIT.as_secs(), what });
        }
        Ok(())
    }

    /// Waits until `condition` gives something.
    pub(super) fn wait_for<T>(
        &mut self,
        what: &'static str,
        mut condition: impl FnMut() -> Result<Option<T>, DemoError>,
    ) -> Result<T, DemoError> {
        loop {
            if let Some(found) = condition()? {
                return Ok(found);
            }
            self.check(what)?;
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
