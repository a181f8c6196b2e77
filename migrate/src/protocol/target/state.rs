//! The states of a target.

use super::event::{DiscardReason, InquirerId};
use crate::ownership::{Epoch, TargetStanding};
use std::time::Duration;

/// What `Hello` and `Welcome` agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The session's epoch.
    pub epoch: Epoch,
    /// How many data streams.
    pub streams: u16,
}

/// Where a session is, as its target sees it.
///
/// ```text
/// AwaitHello → AwaitMachine → Building → AwaitStreams → Receiving → Restoring
///                                                                       │ Ready is sent
///   any of the above, on any failure;                                   ▼
///   AwaitCommit also on an inquiry ◀─────────────────────────────── AwaitCommit
///     │                                                                 │ COMMIT of this epoch
///     ▼            `running` can't be recorded                          ▼
///   Aborted ◀────────────────────────────────────────────────────── Recording
///   (for good)                                                          │ recorded
///                                                                       ▼
///                                                                    Running
/// ```
/// `Recording` has decided nothing yet: the guest has not run, so it may still end as `Aborted`,
/// and inquiries wait. The record comes first because a source on the same host reads it when
/// this process was killed: a guest that ran without the record would be run again there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// The connection is open.
    AwaitHello {
        /// Until when `Hello` may come.
        until: Duration,
    },
    /// `Welcome` is sent.
    AwaitMachine {
        /// The session.
        agreed: Agreed,
    },
    /// The machine is being built.
    Building {
        /// The session.
        agreed: Agreed,
    },
    /// `Prepared` is sent.
    AwaitStreams {
        /// The session.
        agreed: Agreed,
    },
    /// Rounds of memory come in.
    Receiving {
        /// The session.
        agreed: Agreed,
        /// The last round whose `RoundEnd` came.
        ended: u32,
        /// The last round applied.
        applied: u32,
    },
    /// The last pages and the state are being applied.
    Restoring {
        /// The session.
        agreed: Agreed,
        /// The last round before them.
        ended: u32,
        /// The last round applied.
        applied: u32,
    },
    /// `Ready` is sent: could run, and must not.
    AwaitCommit {
        /// The session.
        agreed: Agreed,
        /// Until when COMMIT may come.
        until: Duration,
        /// How long restoring took.
        restore: Duration,
    },
    /// COMMIT came; `running` is being recorded.
    Recording {
        /// The session.
        agreed: Agreed,
        /// When COMMIT came.
        committed_at: Duration,
        /// How long restoring took.
        restore: Duration,
        /// Who waits for the decision. Bounded by
        /// [`INQUIRERS_MAX`](super::INQUIRERS_MAX).
        inquirers: Vec<InquirerId>,
    },
    /// The guest is this side's.
    Running {
        /// Its epoch.
        epoch: Epoch,
    },
    /// This session never runs here.
    Aborted {
        /// Why.
        reason: DiscardReason,
    },
}

impl TargetState {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            TargetState::AwaitHello { .. } => "AwaitHello",
            TargetState::AwaitMachine { .. } => "AwaitMachine",
            TargetState::Building { .. } => "Building",
            TargetState::AwaitStreams { .. } => "AwaitStreams",
            TargetState::Receiving { .. } => "Receiving",
            TargetState::Restoring { .. } => "Restoring",
            TargetState::AwaitCommit { .. } => "AwaitCommit",
            TargetState::Recording { .. } => "Recording",
            TargetState::Running { .. } => "Running",
            TargetState::Aborted { .. } => "Aborted",
        }
    }

    /// What the target may do with the guest.
    pub fn standing(&self) -> TargetStanding {
        match self {
            TargetState::Running { .. } => TargetStanding::Owner,
            TargetState::Aborted { .. } => TargetStanding::Never,
            _ => TargetStanding::NotYet,
        }
    }

    /// The session's epoch, once `Hello` said it.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            TargetState::AwaitMachine { agreed }
            | TargetState::Building { agreed }
            | TargetState::AwaitStreams { agreed }
            | TargetState::Receiving { agreed, .. }
            | TargetState::Restoring { agreed, .. }
            | TargetState::AwaitCommit { agreed, .. }
            | TargetState::Recording { agreed, .. } => Some(agreed.epoch),
            TargetState::Running { epoch } => Some(*epoch),
            TargetState::AwaitHello { .. } | TargetState::Aborted { .. } => None,
        }
    }
}
