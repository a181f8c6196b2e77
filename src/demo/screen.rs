//! What the demo needs of the terminal in front of it.

use godwit_api::MigrationProgress;

/// Shows things to the person, and knows when they have had enough.
pub(crate) trait Screen {
    /// Text that stays.
    fn say(&mut self, text: &str);

    /// How far a migration is; each takes the place of the one before.
    fn progress(&mut self, progress: &MigrationProgress);

    /// No more progress for now.
    fn progress_ends(&mut self);

    /// Whether the person asked to leave (Ctrl-C).
    fn asked_to_leave(&self) -> bool;
}
