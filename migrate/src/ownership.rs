//! Who may run the guest.
//!
//! ```text
//!            COMMIT is sent            the target decides
//!  SourceOnly ───────────▶ AtTheDoor ──────────────────▶ TargetOnly
//!      ▲                       │       (Running)
//!      └───────────────────────┘
//!        the target said `aborted`, or a person resolved
//! ```
//! Each side knows its own standing only. [`who_may_run`] puts both together; nothing at run
//! time can, so it is the invariant that tests check after every step.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU64;
use thiserror::Error;

/// Counts the owners that a guest has had, failed attempts to move it included.
///
/// Every attempt burns one, so that no message of an earlier attempt can be taken for one of
/// this. Zero is no epoch and is refused when decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// The epoch of a guest that was just started.
    pub const FIRST: Epoch = Epoch(NonZeroU64::MIN);

    /// The epoch with this number; `None` for zero.
    pub fn new(number: u64) -> Option<Epoch> {
        NonZeroU64::new(number).map(Epoch)
    }

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The epoch to burn for the next attempt; `None` when all are used up.
    pub fn next(self) -> Option<Epoch> {
        self.0.checked_add(1).map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the source knows of its own right to run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceStanding {
    /// May run it: COMMIT was not sent, or the target (or a person) gave the guest back.
    Owner,
    /// COMMIT was sent and nothing is known: keeps every page, and runs nothing.
    Waiting,
    /// The guest is the target's; this copy never runs again.
    Released,
    /// There is nothing to run: the guest ended by itself, or this process is gone.
    Gone,
}

/// What the target knows of its own right to run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetStanding {
    /// Has no right yet, and may still get it.
    NotYet,
    /// Received COMMIT, recorded `running`, and may run the guest.
    Owner,
    /// Decided `aborted`: this copy never runs.
    Never,
    /// Was the owner, and then its process ended. The guest was not lost by the move.
    OwnerGone,
}

/// Who may run the guest, seen from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MayRun {
    /// Only the source.
    SourceOnly,
    /// Nobody until the target's word, or a person's, is known. No one guesses.
    AtTheDoor,
    /// Only the target.
    TargetOnly,
    /// Nobody, rightly: the guest ended, or its owner was killed.
    Nobody,
}

/// What must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OwnershipBroken {
    /// Two owners.
    #[error("the guest may run on both sides: stop one of them at once and keep its disks apart")]
    Twice,
    /// No owner was killed, yet no copy can run.
    #[error("no side may run the guest any more, though no owner was killed: report this as a bug")]
    Lost,
}

/// Puts the standings of both sides together.
pub fn who_may_run(source: SourceStanding, target: TargetStanding) -> Result<MayRun, OwnershipBroken> {
    use SourceStanding as S;
    use TargetStanding as T;
    match (source, target) {
        // An owner that was killed is the guest killed: a source that then runs it would run a
        // second life of it, on disks that the first one wrote.
        (S::Owner, T::Owner | T::OwnerGone) => Err(OwnershipBroken::Twice),
        (S::Owner, T::NotYet | T::Never) => Ok(MayRun::SourceOnly),
        (S::Waiting, T::NotYet | T::Never | T::OwnerGone) => Ok(MayRun::AtTheDoor),
        (S::Waiting | S::Released | S::Gone, T::Owner) => Ok(MayRun::TargetOnly),
        (S::Released, T::NotYet | T::Never) => Err(OwnershipBroken::Lost),
        (S::Released, T::OwnerGone) | (S::Gone, T::NotYet | T::Never | T::OwnerGone) => Ok(MayRun::Nobody),
    }
}

/// What the state file of a target says, to a source that reads it because the target's process
/// is *proven dead*. Of a live target only the target itself may be asked: it may be about to
/// write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedState {
    /// `running`, written after COMMIT and before the first instruction of the guest.
    Running {
        /// The epoch that stands beside the word.
        epoch: Epoch,
    },
    /// Anything else: the word `running` was never written, so the guest never ran there.
    NotRunning,
}

impl RecordedState {
    /// The verdict of a dead target over the attempt with this epoch: it ran the guest exactly if
    /// its file says so. `None` when the file is about another epoch and so decides nothing.
    pub fn verdict_of_the_dead(self, epoch: Epoch) -> Option<crate::protocol::Verdict> {
        use crate::protocol::Verdict;
        match self {
            RecordedState::Running { epoch: recorded } if recorded == epoch => {
                Some(Verdict::Running { epoch })
            }
            RecordedState::Running { .. } => None,
            RecordedState::NotRunning => Some(Verdict::Aborted),
        }
    }
}

#[cfg(test)]
#[path = "ownership_test.rs"]
mod ownership_test;
