//! What is said on the control connection.
//!
//! The encodings of `Hello`, `Welcome`, `Refused`, `Inquire` and `Verdict` are frozen over all
//! versions of the protocol: they are read before a version is agreed, or by a process of another
//! build. What a later version adds to them travels in [`Features`] or in messages after
//! `Welcome`; a reason for refusal that older builds do not know goes as
//! [`RefusalReason::Other`].

pub use super::bounds::OutOfBounds;
pub use super::kind::{Kind, Message};
use super::text::{Blob, Text, VmName};
use super::version::{Features, Version, VersionRange};
use crate::ownership::Epoch;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// The most data streams that a move may use.
pub const STREAMS_MAX: u16 = 64;
/// The longest description of a machine, in bytes.
pub const MACHINE_BYTES_MAX: usize = 4 << 20;
/// The longest final state (vCPUs and devices), in bytes.
pub const STATE_BYTES_MAX: usize = 64 << 20;

/// One receiving process: 16 random bytes, new with every start. Who names it has it from a
/// `Welcome` of that very process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReceiverId(pub [u8; 16]);

/// One attempt to move a guest: 16 random bytes, made by the target.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ReceiverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ReceiverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// The first word of a source. Frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that the source speaks.
    pub versions: VersionRange,
    /// What it can do beyond them.
    pub features: Features,
    /// The guest's name.
    pub vm_name: VmName,
    /// The epoch burnt for this attempt.
    pub epoch: Epoch,
    /// How long the guest may stand still.
    pub max_downtime_us: u64,
    /// How long after the pause the source waits for `Ready`.
    pub ready_within_us: u64,
    /// How many data streams it wants, 1 to [`STREAMS_MAX`].
    pub streams: u16,
}

/// The target takes the guest on. Frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version to speak from here on.
    pub version: Version,
    /// Those of the offered features that both know.
    pub features: Features,
    /// The target's process.
    pub receiver_id: ReceiverId,
    /// This attempt.
    pub session: SessionId,
    /// The boot of the target's host, so that a source on the same host knows that it is.
    pub host_boot_id: Text,
    /// Where the target records `running`, for a source on the same host to read when the
    /// target's process is proven dead.
    pub state_file: Text,
}

/// Why a target does not take the guest on. Frozen: variants are only ever appended to the
/// enum for receiving, never sent to a peer of an older version (see [`RefusalReason::Other`]).
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum RefusalReason {
    /// No version in common.
    #[error(
        "the target speaks protocol versions {theirs_min} to {theirs_max}, this side {PROTOCOL_MIN} to {PROTOCOL_MAX}: update the older one",
        PROTOCOL_MIN = super::version::PROTOCOL_MIN, PROTOCOL_MAX = super::version::PROTOCOL_MAX
    )]
    UnsupportedVersion {
        /// The oldest version that the refusing side speaks.
        theirs_min: Version,
        /// The newest.
        theirs_max: Version,
    },
    /// A feature that must be understood is not.
    #[error("the target does not know mandatory feature {bit}: update godwit on the target")]
    UnknownMandatoryFeature {
        /// Its bit in [`Features`].
        bit: u32,
    },
    /// Another move is under way there.
    #[error("the target is busy with another move: wait for it, or start another `godwit receive`")]
    Busy,
    /// A VM of this name is there already.
    #[error("the target's host has a VM named {name} already: pass another --name to `godwit receive`")]
    NameTaken {
        /// The name.
        name: VmName,
    },
    /// The machine can't be built there.
    #[error("the target cannot build this machine: {what}")]
    CannotBuild {
        /// What is missing, by name.
        what: Text,
    },
    /// The machine needs what this target does not have.
    #[error("the target does not support {what}")]
    Unsupported {
        /// What that is.
        what: Text,
    },
    /// More streams than the target serves.
    #[error("the target serves at most {max} streams: pass a smaller --streams")]
    TooManyStreams {
        /// The most that it serves.
        max: u16,
    },
    /// A data connection named a session that is not under way.
    #[error("the target has no such session under way: start the migration again")]
    NoSuchSession,
    /// Whatever a later version brings.
    #[error("the target refused ({code}): {what}")]
    Other {
        /// A number for programs.
        code: u16,
        /// A text for people.
        what: Text,
    },
}

/// What to build. The description is encoded and read by `godwit-vmm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// At most [`MACHINE_BYTES_MAX`] bytes.
    pub description: Blob,
}

/// Everything is built and faulted in; data streams may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// What saving and restoring a machine of this shape costs on the target.
    pub rehearsal_us: u64,
}

/// The first frame on each data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHello {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Which stream this is, from 0.
    pub index: u16,
    /// Of how many.
    pub streams: u16,
}

/// The answer to `StreamHello`; batches follow (see [`data`](super::data)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamWelcome {
    /// The stream's number.
    pub index: u16,
}

/// All batches of a round are on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundEnd {
    /// The round, from 1.
    pub round: u32,
    /// How many batches it has on each stream, `End` not counted.
    pub batches_per_stream: Vec<u64>,
}

/// All batches of a round are in the target's guest memory: what tells the true bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundAck {
    /// The round.
    pub round: u32,
    /// Bytes received for it on all data streams.
    pub bytes: u64,
}

/// The paused guest's state; the last batches of memory travel on the streams at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// At most [`STATE_BYTES_MAX`] bytes, encoded and read by `godwit-vmm`.
    pub state: Blob,
    /// The round of the last batches.
    pub final_round: u32,
    /// How many batches it has on each stream, `End` not counted.
    pub batches_per_stream: Vec<u64>,
    /// Since the first vCPU stopped, when this was sent.
    pub paused_for_us: u64,
}

/// The target could run the guest, and must not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Of all that was applied (see [`ready_checksum`](super::data::ready_checksum)).
    pub checksum: u64,
}

/// The one-way door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The session's epoch.
    pub epoch: Epoch,
}

/// The target owns the guest and runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The session's epoch.
    pub epoch: Epoch,
    /// How long the target took to restore the state.
    pub restore_us: u64,
    /// From COMMIT received until `running` was recorded and the vCPUs were let go.
    pub door_us: u64,
}

/// The source knows that the target runs the guest, and will not ask any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The session's epoch.
    pub epoch: Epoch,
}

/// This attempt is over. Only before COMMIT; at the door the target's word is a `Verdict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Why.
    pub reason: AbortReason,
}

/// Why an attempt is over.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AbortReason {
    /// A person or program cancelled it.
    #[error("it was cancelled")]
    Cancelled,
    /// Its time is up.
    #[error("its time was up: {what}")]
    Deadline {
        /// What took too long.
        what: Text,
    },
    /// `Ready` did not come in time.
    #[error("Ready did not come in time")]
    ReadyTooLate,
    /// `Ready` carried another checksum.
    #[error("what arrived is not what was sent")]
    WrongChecksum,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {what}")]
    Violation {
        /// How.
        what: Text,
    },
    /// The guest ended by itself.
    #[error("the guest ended by itself")]
    GuestEnded,
    /// Something failed on this side.
    #[error("{what}")]
    Failure {
        /// What.
        what: Text,
    },
}

/// Asked on a fresh connection by a source that is at the door. Frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquire {
    /// From `Welcome`.
    pub receiver_id: ReceiverId,
    /// From `Welcome`.
    pub session: SessionId,
    /// The session's epoch.
    pub epoch: Epoch,
}

/// The target's word on who owns the guest. Frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// Who says it.
    pub receiver_id: ReceiverId,
    /// Of which attempt.
    pub session: SessionId,
    /// What it says.
    pub verdict: Verdict,
}

/// The target's word on who owns the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The target does: it received COMMIT, recorded this epoch and runs.
    Running {
        /// The recorded epoch.
        epoch: Epoch,
    },
    /// The target does not and never will: the guest is the source's.
    Aborted,
    /// Who was asked can't tell. Decides nothing.
    Unknown,
}

/// Measures the round-trip time before the copying begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in `Pong`.
    pub nonce: u64,
}
