//! What the target's machine hears and what it asks for.

use crate::ownership::Epoch;
use crate::protocol::codec::CodecError;
use crate::protocol::message::{
    AbortReason, FinalState, Hello, Inquire, Message, ReceiverId, RefusalReason, RoundEnd, STREAMS_MAX,
    SessionId, VerdictReport,
};
use crate::protocol::text::{Blob, Text};
use crate::protocol::version::{Features, VersionRange};
use crate::protocol::violation::ProtocolViolation;
use std::time::Duration;
use thiserror::Error;

/// What a target needs to know to take one session.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// This process: random, made once at its start.
    pub receiver_id: ReceiverId,
    /// This attempt: random, made anew for each.
    pub session: SessionId,
    /// The versions that it speaks.
    pub versions: VersionRange,
    /// The features that it knows.
    pub features: Features,
    /// The most data streams that it serves.
    pub streams_max: u16,
    /// The boot of this host.
    pub host_boot_id: Text,
    /// Where `running` is recorded.
    pub state_file: Text,
    /// How long a connection may stay without `Hello`.
    pub hello_within: Duration,
    /// How long COMMIT may take after `Ready`.
    pub commit_within: Duration,
}

impl TargetConfig {
    /// A config with the usual limits.
    pub fn new(
        receiver_id: ReceiverId,
        session: SessionId,
        host_boot_id: Text,
        state_file: Text,
    ) -> TargetConfig {
        TargetConfig {
            receiver_id,
            session,
            versions: VersionRange::OURS,
            features: Features::KNOWN,
            streams_max: STREAMS_MAX,
            host_boot_id,
            state_file,
            hello_within: Duration::from_secs(10),
            commit_within: Duration::from_secs(30),
        }
    }
}

/// Names the connection on which an inquiry came, so that the answer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InquirerId(pub u64);

/// What happens to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEvent {
    /// A message came on the control connection.
    Message(Message),
    /// What came on it is not a message.
    Garbled(CodecError),
    /// A connection of this session is gone.
    LinkLost {
        /// Why, for people.
        cause: String,
    },
    /// Time has passed (see [`Target::poll_timeout`](super::Target::poll_timeout)).
    Tick,
    /// The machine is built and its memory faulted in.
    Built {
        /// What saving and restoring a machine of this shape costs here.
        rehearsal: Duration,
    },
    /// It can't be built.
    BuildFailed(RefusalReason),
    /// All data streams are there and welcomed.
    StreamsOpen,
    /// All batches of a round that was expected are in guest memory.
    RoundApplied {
        /// The round.
        round: u32,
        /// Bytes received for it on all streams.
        bytes: u64,
    },
    /// The last batches and the state are applied.
    Restored {
        /// See [`ready_checksum`](crate::protocol::data::ready_checksum).
        checksum: u64,
        /// How long restoring took.
        took: Duration,
    },
    /// They can't be applied.
    RestoreFailed {
        /// Why, for people.
        what: String,
    },
    /// Something else failed here, or a person stops this receiver.
    LocalFailure {
        /// What, for people.
        what: String,
    },
    /// An inquiry came on a fresh connection.
    Inquiry {
        /// On which.
        from: InquirerId,
        /// What it asks.
        inquire: Inquire,
    },
    /// `running` with the epoch is in the state file.
    RunningRecorded,
    /// It is certainly *not* in the state file. An engine that can't tell (the rename worked,
    /// what came after it failed) reports `RunningRecorded`: what a reader would find decides.
    RecordFailed {
        /// Why, for people.
        what: String,
    },
}

/// What the target's machine wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetAction {
    /// Write this to the control connection; nothing if that is gone.
    Send(Message),
    /// This is the source, for the records.
    NoteSource(Hello),
    /// Build the machine, fault its memory in, rehearse; report `Built` or `BuildFailed`.
    Build {
        /// From the source.
        description: Blob,
    },
    /// Take data connections whose `StreamHello` names this; report `StreamsOpen`.
    AcceptStreams {
        /// The session.
        session: SessionId,
        /// How many.
        streams: u16,
    },
    /// Report `RoundApplied` once that many batches are applied.
    ExpectRound(RoundEnd),
    /// Apply the last batches and the state, do not run; report `Restored` or `RestoreFailed`.
    Restore(FinalState),
    /// Write `running` with this epoch into the state file; report `RunningRecorded` or
    /// `RecordFailed`.
    RecordRunning {
        /// The session's epoch.
        epoch: Epoch,
    },
    /// Let the vCPUs go: the guest is this side's now.
    RunGuest {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The source knows that the guest runs here: nobody will inquire any more.
    NoteSourceKnows,
    /// Answer an inquiry.
    AnswerInquiry {
        /// On which connection.
        to: InquirerId,
        /// The answer.
        report: VerdictReport,
    },
    /// The peer broke the protocol where that decides nothing any more.
    ReportViolation(ProtocolViolation),
    /// Tear down all that was built: this session never runs.
    Discard {
        /// Why.
        reason: DiscardReason,
    },
}

/// Why a session never runs here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DiscardReason {
    /// No link.
    #[error("the link to the source is lost: {cause}")]
    LinkLost {
        /// Why.
        cause: String,
    },
    /// The source gave up.
    #[error("the source gave up: {0}")]
    PeerAborted(AbortReason),
    /// This side refused.
    #[error("the source was refused: {0}")]
    Refused(RefusalReason),
    /// The source broke the protocol.
    #[error("the source broke the protocol: {0}")]
    Violation(ProtocolViolation),
    /// No `Hello`.
    #[error("a connection said nothing for {} ms", within.as_millis())]
    HelloTooLate {
        /// The limit.
        within: Duration,
    },
    /// No COMMIT.
    #[error("the source did not commit within {} ms of Ready; the guest stays there", within.as_millis())]
    CommitTooLate {
        /// The limit.
        within: Duration,
    },
    /// The source asked before its COMMIT was here: it believes the link dead.
    #[error("the source lost the link before its COMMIT came; the guest goes back to it")]
    Inquired,
    /// The state or the last pages could not be applied.
    #[error("the guest could not be restored: {what}")]
    RestoreFailed {
        /// Why.
        what: String,
    },
    /// `running` could not be recorded; without the record this side may not run.
    #[error(
        "the guest could not be recorded as running ({what}) and goes back to the source: check the state directory"
    )]
    RecordFailed {
        /// Why.
        what: String,
    },
    /// Something failed here.
    #[error("{what}")]
    Local {
        /// What.
        what: String,
    },
}

impl TargetEvent {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            TargetEvent::Message(_) => "Message",
            TargetEvent::Garbled(_) => "Garbled",
            TargetEvent::LinkLost { .. } => "LinkLost",
            TargetEvent::Tick => "Tick",
            TargetEvent::Built { .. } => "Built",
            TargetEvent::BuildFailed(_) => "BuildFailed",
            TargetEvent::StreamsOpen => "StreamsOpen",
            TargetEvent::RoundApplied { .. } => "RoundApplied",
            TargetEvent::Restored { .. } => "Restored",
            TargetEvent::RestoreFailed { .. } => "RestoreFailed",
            TargetEvent::LocalFailure { .. } => "LocalFailure",
            TargetEvent::Inquiry { .. } => "Inquiry",
            TargetEvent::RunningRecorded => "RunningRecorded",
            TargetEvent::RecordFailed { .. } => "RecordFailed",
        }
    }
}

impl TargetAction {
    /// Its name; of a message to send, the message's.
    pub fn name(&self) -> &'static str {
        match self {
            TargetAction::Send(message) => message.kind().name(),
            TargetAction::NoteSource(_) => "NoteSource",
            TargetAction::Build { .. } => "Build",
            TargetAction::AcceptStreams { .. } => "AcceptStreams",
            TargetAction::ExpectRound(_) => "ExpectRound",
            TargetAction::Restore(_) => "Restore",
            TargetAction::RecordRunning { .. } => "RecordRunning",
            TargetAction::RunGuest { .. } => "RunGuest",
            TargetAction::NoteSourceKnows => "NoteSourceKnows",
            TargetAction::AnswerInquiry { .. } => "AnswerInquiry",
            TargetAction::ReportViolation(_) => "ReportViolation",
            TargetAction::Discard { .. } => "Discard",
        }
    }
}
