//! The states of a source.

use super::event::{Confirmation, DoorTrouble, FailureReason};
use crate::ownership::SourceStanding;
use crate::protocol::message::{ReceiverId, SessionId};
use std::time::Duration;

/// Which receiver and which attempt `Welcome` named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionIds {
    /// The target's process.
    pub receiver_id: ReceiverId,
    /// This attempt.
    pub session: SessionId,
}

/// How far the rounds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// The last round that was started.
    pub started: u32,
    /// The last one whose `RoundEnd` was sent.
    pub sent: u32,
    /// The last one that the target acknowledged.
    pub acked: u32,
}

/// What is known of the final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalStep {
    /// Being saved.
    Saving,
    /// `FinalState` is sent, batches are still being written: the target may be faster.
    Sending {
        /// The checksum of a `Ready` that came already.
        ready_checksum: Option<u64>,
    },
    /// All is sent; only `Ready` is missing.
    Sent {
        /// What it has to say.
        checksum: u64,
    },
}

/// Where an attempt is, as its source sees it.
///
/// ```text
/// Connecting → Greeting → Measuring → Describing → OpeningStreams
///                                                        │
///                 ┌──────────────────────────────────────┘
///                 ▼         stop              paused
///              Copying ──────────▶ Pausing ──────────▶ Finalizing
///               └──┘ another round                        │ Ready, right checksum:
///                                                         │ COMMIT is sent
///  any of the above, on any failure,                      ▼
///  resumes the guest here:                 ════════════ AtDoor ═══════════▶ HandedOver
///     Failed · Cancelled · GuestEnded                     │     Running          ▲
///        ▲                                     link lost, │                      │
///        │                                        silence ▼                      │
///        └──────────────────────────────────────── Unconfirmed ──────────────────┘
///          verdict aborted (also AtDoor),                    verdict running, Running,
///          resolve --resume-here                             resolve --discard
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// The control connection is being opened.
    Connecting,
    /// `Hello` is sent.
    Greeting {
        /// Until when the target may answer.
        until: Duration,
    },
    /// `Ping` is sent.
    Measuring {
        /// The session.
        ids: SessionIds,
        /// Until when the target may answer.
        until: Duration,
        /// What the next `Pong` has to carry.
        nonce: u64,
        /// When it was sent.
        sent_at: Duration,
    },
    /// `Machine` is sent; the target builds.
    Describing {
        /// The session.
        ids: SessionIds,
    },
    /// The target is prepared; data streams are being opened.
    OpeningStreams {
        /// The session.
        ids: SessionIds,
    },
    /// Rounds of memory are copied while the guest runs.
    Copying {
        /// The session.
        ids: SessionIds,
        /// How far they are.
        rounds: Rounds,
    },
    /// The guest is being paused.
    Pausing {
        /// The session.
        ids: SessionIds,
        /// The rounds before.
        rounds: Rounds,
    },
    /// The guest is paused; the last pages and the state are on their way.
    Finalizing {
        /// The session.
        ids: SessionIds,
        /// The rounds before.
        rounds: Rounds,
        /// Until when `Ready` may come.
        ready_by: Duration,
        /// How far it is.
        step: FinalStep,
    },
    /// COMMIT is sent. Only the target decides from here on.
    AtDoor {
        /// The session.
        ids: SessionIds,
        /// Until when `Running` should come.
        running_by: Duration,
    },
    /// Handed over, unconfirmed: waits for the target's word or a person's.
    Unconfirmed {
        /// The session.
        ids: SessionIds,
        /// Why nothing is known.
        trouble: DoorTrouble,
    },
    /// The guest is the target's.
    HandedOver {
        /// How that is known.
        by: Confirmation,
    },
    /// The guest runs on here.
    Failed {
        /// What happened.
        reason: FailureReason,
    },
    /// The guest runs on here, as was asked for.
    Cancelled,
    /// The guest ended by itself.
    GuestEnded,
}

/// How much a state leaves the source to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No link yet.
    Unlinked,
    /// COMMIT is not sent and the guest runs.
    Before,
    /// COMMIT is not sent and the guest is paused, or about to be.
    Paused,
    /// COMMIT is sent.
    Door,
    /// Over.
    Over,
}

impl SourceState {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            SourceState::Connecting => "Connecting",
            SourceState::Greeting { .. } => "Greeting",
            SourceState::Measuring { .. } => "Measuring",
            SourceState::Describing { .. } => "Describing",
            SourceState::OpeningStreams { .. } => "OpeningStreams",
            SourceState::Copying { .. } => "Copying",
            SourceState::Pausing { .. } => "Pausing",
            SourceState::Finalizing { .. } => "Finalizing",
            SourceState::AtDoor { .. } => "AtDoor",
            SourceState::Unconfirmed { .. } => "Unconfirmed",
            SourceState::HandedOver { .. } => "HandedOver",
            SourceState::Failed { .. } => "Failed",
            SourceState::Cancelled => "Cancelled",
            SourceState::GuestEnded => "GuestEnded",
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self {
            SourceState::Connecting => Stage::Unlinked,
            SourceState::Greeting { .. }
            | SourceState::Measuring { .. }
            | SourceState::Describing { .. }
            | SourceState::OpeningStreams { .. }
            | SourceState::Copying { .. } => Stage::Before,
            SourceState::Pausing { .. } | SourceState::Finalizing { .. } => Stage::Paused,
            SourceState::AtDoor { .. } | SourceState::Unconfirmed { .. } => Stage::Door,
            SourceState::HandedOver { .. }
            | SourceState::Failed { .. }
            | SourceState::Cancelled
            | SourceState::GuestEnded => Stage::Over,
        }
    }

    /// What the source may do with the guest.
    pub fn standing(&self) -> SourceStanding {
        match self {
            SourceState::HandedOver { .. } => SourceStanding::Released,
            SourceState::GuestEnded => SourceStanding::Gone,
            SourceState::Failed { .. } | SourceState::Cancelled => SourceStanding::Owner,
            _ if self.stage() == Stage::Door => SourceStanding::Waiting,
            _ => SourceStanding::Owner,
        }
    }
}
