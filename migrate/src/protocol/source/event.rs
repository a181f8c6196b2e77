//! What the source's machine hears and what it asks for.

use crate::ownership::Epoch;
use crate::protocol::codec::CodecError;
use crate::protocol::message::{
    AbortReason, FinalState, Inquire, Message, RefusalReason, Running, SessionId, VerdictReport, Welcome,
};
use crate::protocol::text::{Blob, VmName};
use crate::protocol::version::{Features, VersionRange};
use crate::protocol::violation::ProtocolViolation;
use std::time::Duration;
use thiserror::Error;

/// What one attempt is about.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// The guest's name.
    pub vm_name: VmName,
    /// The epoch of this attempt. It was burnt and recorded before: no later attempt gets it.
    pub epoch: Epoch,
    /// The versions to offer.
    pub versions: VersionRange,
    /// The features to offer.
    pub features: Features,
    /// How many data streams.
    pub streams: u16,
    /// How long the guest may stand still.
    pub max_downtime: Duration,
    /// How long the target may take to greet and to answer pings.
    pub greeting_within: Duration,
    /// How long the target may take from COMMIT to `Running` before it is asked.
    pub running_within: Duration,
    /// What the target has to build.
    pub description: Blob,
}

impl SourceConfig {
    /// A config with the usual limits.
    pub fn new(vm_name: VmName, epoch: Epoch, max_downtime: Duration, description: Blob) -> Self {
        SourceConfig {
            vm_name,
            epoch,
            versions: VersionRange::OURS,
            features: Features::KNOWN,
            streams: 1,
            max_downtime,
            greeting_within: Duration::from_secs(10),
            running_within: Duration::from_secs(1),
            description,
        }
    }

    /// How long after the pause `Ready` may take: max(100 ms, 3 × max-downtime).
    pub fn ready_within(&self) -> Duration {
        self.max_downtime.saturating_mul(3).max(Duration::from_millis(100))
    }
}

/// What happens to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// The control connection is open.
    Connected,
    /// A message came on it.
    Message(Message),
    /// What came on it is not a message.
    Garbled(CodecError),
    /// A connection of this move is gone, or was never made.
    LinkLost {
        /// Why, for people.
        cause: String,
    },
    /// Time has passed (see [`Source::poll_timeout`](super::Source::poll_timeout)).
    Tick,
    /// All data streams are open and welcomed.
    StreamsOpen,
    /// All batches of the round are written to the streams.
    RoundSent {
        /// The round.
        round: u32,
        /// How many batches on each stream, `End` not counted.
        batches_per_stream: Vec<u64>,
    },
    /// The policy: copy another round.
    AnotherRoundDecided,
    /// The policy: pause now.
    StopDecided,
    /// All vCPUs stand still, and so does all that writes guest memory.
    GuestPaused,
    /// The state is saved and the last batches are counted (they may still be on their way out).
    FinalSaved(FinalState),
    /// The last batches are written too.
    FinalSent {
        /// What `Ready` has to say (see
        /// [`ready_checksum`](crate::protocol::data::ready_checksum)).
        checksum: u64,
    },
    /// An inquiry was answered: by the target, or by its state file once its process was proven
    /// dead (see [`RecordedState`](crate::ownership::RecordedState)).
    Verdict(VerdictReport),
    /// A person or program cancels.
    Cancel,
    /// The attempt's own time is up.
    DeadlineReached {
        /// What took too long, for people.
        what: String,
    },
    /// The guest powered off, reset or crashed by itself.
    GuestEnded,
    /// Something failed here.
    LocalFailure {
        /// What, for people.
        what: String,
    },
    /// A person ends `handed over, unconfirmed`.
    Resolve(Resolution),
}

/// A person's word on a guest that was handed over, unconfirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It does not run over there: it goes on here.
    ResumeHere,
    /// It runs over there, or shall run nowhere: this copy goes.
    Discard,
}

/// What the source's machine wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAction {
    /// Write this to the control connection; nothing if that is gone.
    Send(Message),
    /// This is the target, for the records.
    NoteTarget(Welcome),
    /// Open the data connections, each beginning with `StreamHello`.
    OpenStreams {
        /// For `StreamHello`.
        session: SessionId,
        /// How many.
        streams: u16,
    },
    /// Copy a round; report `RoundSent`.
    StartRound {
        /// Which, from 1.
        round: u32,
    },
    /// The target has all of this round in guest memory.
    NoteRoundApplied {
        /// The round.
        round: u32,
        /// Bytes that it received for it.
        bytes: u64,
    },
    /// Pause the guest; report `GuestPaused`.
    PauseGuest,
    /// Send the last dirty pages, save the state; report `FinalSaved` and `FinalSent`.
    SendFinal {
        /// The round of those pages.
        round: u32,
    },
    /// Let the guest run on here, as if nothing had been. Also takes back a `PauseGuest` that is
    /// not done yet.
    ResumeGuest,
    /// COMMIT is on its way and nothing is known: keep the guest paused and all its pages. What
    /// `godwit ps` shows from now on is `handed over, unconfirmed`.
    EnterUnconfirmed {
        /// Why nothing is known.
        trouble: DoorTrouble,
    },
    /// Ask this on a fresh connection, again and again with growing pauses, until `Finish`;
    /// report each answer as `Verdict`.
    Inquire(Inquire),
    /// The peer broke the protocol where that decides nothing any more.
    ReportViolation(ProtocolViolation),
    /// The attempt is over.
    Finish(Outcome),
}

/// Why nothing is known of a COMMIT.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DoorTrouble {
    /// The link broke.
    #[error("the link broke ({cause}) before the target confirmed")]
    LinkLost {
        /// Why.
        cause: String,
    },
    /// The target says nothing.
    #[error("the target did not confirm in time")]
    Silent,
    /// The target says what it may not.
    #[error("the target broke the protocol instead of confirming: {0}")]
    Violation(ProtocolViolation),
}

/// How the guest's being handed over is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The target sent `Running`.
    Running(Running),
    /// The target, or its state file, answered an inquiry.
    Verdict,
    /// A person said so.
    Person,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest runs on the target; this copy is to be destroyed.
    HandedOver(Confirmation),
    /// The guest runs on here.
    Failed(FailureReason),
    /// The guest runs on here, as was asked for.
    Cancelled,
    /// The guest ended by itself before it was handed over.
    GuestEnded,
}

/// Why an attempt failed. The guest runs on at the source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FailureReason {
    /// No link.
    #[error("the link to the target is lost: {cause}")]
    LinkLost {
        /// Why.
        cause: String,
    },
    /// The target refused.
    #[error(transparent)]
    Refused(RefusalReason),
    /// The target gave up.
    #[error("the target gave up: {0}")]
    PeerAborted(AbortReason),
    /// The target broke the protocol.
    #[error("the target broke the protocol: {0}")]
    Violation(ProtocolViolation),
    /// No answer to the greeting.
    #[error("the target did not answer within {} ms: check that `godwit receive` runs there", within.as_millis())]
    GreetingTooLate {
        /// The limit.
        within: Duration,
    },
    /// No `Ready`.
    #[error("the target was not ready within {} ms of the pause: allow a larger --max-downtime, or try again when it is less busy", within.as_millis())]
    ReadyTooLate {
        /// The limit.
        within: Duration,
    },
    /// Another checksum.
    #[error(
        "the target's copy differs (checksum {got:#018x}, sent was {expected:#018x}): check its memory and network, then try again"
    )]
    WrongChecksum {
        /// Of what was sent.
        expected: u64,
        /// Of what was applied.
        got: u64,
    },
    /// Its time was up.
    #[error("{what}")]
    Deadline {
        /// What took too long.
        what: String,
    },
    /// Something failed here.
    #[error("{what}")]
    Local {
        /// What.
        what: String,
    },
    /// COMMIT did not reach the target in time, and the target said that it never will run.
    #[error("the target did not take the guest over at the last step and gave it back: try again")]
    GivenBack,
    /// A person took the guest back.
    #[error("the guest was taken back by `godwit resolve --resume-here`")]
    TakenBack,
}

impl SourceEvent {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            SourceEvent::Connected => "Connected",
            SourceEvent::Message(_) => "Message",
            SourceEvent::Garbled(_) => "Garbled",
            SourceEvent::LinkLost { .. } => "LinkLost",
            SourceEvent::Tick => "Tick",
            SourceEvent::StreamsOpen => "StreamsOpen",
            SourceEvent::RoundSent { .. } => "RoundSent",
            SourceEvent::AnotherRoundDecided => "AnotherRoundDecided",
            SourceEvent::StopDecided => "StopDecided",
            SourceEvent::GuestPaused => "GuestPaused",
            SourceEvent::FinalSaved(_) => "FinalSaved",
            SourceEvent::FinalSent { .. } => "FinalSent",
            SourceEvent::Verdict(_) => "Verdict",
            SourceEvent::Cancel => "Cancel",
            SourceEvent::DeadlineReached { .. } => "DeadlineReached",
            SourceEvent::GuestEnded => "GuestEnded",
            SourceEvent::LocalFailure { .. } => "LocalFailure",
            SourceEvent::Resolve(_) => "Resolve",
        }
    }
}

impl SourceAction {
    /// Its name; of a message to send, the message's.
    pub fn name(&self) -> &'static str {
        match self {
            SourceAction::Send(message) => message.kind().name(),
            SourceAction::NoteTarget(_) => "NoteTarget",
            SourceAction::OpenStreams { .. } => "OpenStreams",
            SourceAction::StartRound { .. } => "StartRound",
            SourceAction::NoteRoundApplied { .. } => "NoteRoundApplied",
            SourceAction::PauseGuest => "PauseGuest",
            SourceAction::SendFinal { .. } => "SendFinal",
            SourceAction::ResumeGuest => "ResumeGuest",
            SourceAction::EnterUnconfirmed { .. } => "EnterUnconfirmed",
            SourceAction::Inquire(_) => "Inquire",
            SourceAction::ReportViolation(_) => "ReportViolation",
            SourceAction::Finish(_) => "Finish",
        }
    }
}
