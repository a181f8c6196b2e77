//! What may not happen, said by name.

use super::codec::CodecError;
use super::message::Kind;
use super::version::Version;
use crate::ownership::Epoch;
use thiserror::Error;

/// The other side said what it may not say now. Before COMMIT it ends the attempt; after it, it
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolViolation {
    /// A message out of its place.
    #[error("{kind:?} came in state {state}, where it has no place")]
    Unexpected {
        /// The message.
        kind: Kind,
        /// The state that it came in.
        state: &'static str,
    },
    /// An answer that names a version that was not offered.
    #[error("the target chose protocol version {version}, which was not offered")]
    VersionNotOffered {
        /// The version.
        version: Version,
    },
    /// An answer that names features that were not offered.
    #[error("the target chose features {bits:#x} that were not offered")]
    FeaturesNotOffered {
        /// The bits too many.
        bits: u64,
    },
    /// Another epoch than the session's.
    #[error("epoch {got} where {expected} is this move's")]
    WrongEpoch {
        /// The session's.
        expected: Epoch,
        /// What came.
        got: Epoch,
    },
    /// Another round than the next one.
    #[error("round {got} where at most {expected} may be meant")]
    WrongRound {
        /// The one that may be meant.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// As many batch counts as streams are needed.
    #[error("batch counts for {got} streams; there are {expected}")]
    WrongStreams {
        /// The session's streams.
        expected: u16,
        /// What came.
        got: usize,
    },
    /// More rounds under way than allowed.
    #[error("more than {max} rounds under way at once")]
    TooManyRounds {
        /// The most allowed.
        max: u32,
    },
    /// A verdict about something else.
    #[error("a verdict of another receiver or about another session")]
    WrongSession,
    /// An echo of what was not sent.
    #[error("Pong {got} where {expected} was sent")]
    WrongNonce {
        /// What was sent.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// Bytes that are not a frame.
    #[error(transparent)]
    Garbled(#[from] CodecError),
}

/// The machine does not take this event now; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventRefused {
    /// Too late to cancel.
    #[error(
        "the guest was already handed over: only the target decides now; see `godwit ps`, and `godwit resolve` if it stays unconfirmed"
    )]
    PastTheDoor,
    /// There is nothing to resolve.
    #[error("the guest is not `handed over, unconfirmed` (state {state}): there is nothing to resolve")]
    NothingToResolve {
        /// The state.
        state: &'static str,
    },
    /// The target is the owner, or is deciding whether it is.
    #[error("COMMIT was received and the guest belongs here: stop the guest itself instead")]
    OwnerAlready,
    /// Acknowledgements are behind.
    #[error("{max} rounds are not acknowledged yet: wait for RoundAck before starting another")]
    TooManyRounds {
        /// The most allowed.
        max: u32,
    },
    /// The engine reports what it was not asked to do: a bug in the engine.
    #[error("{event} has no place in state {state}: this is a bug, please report it")]
    Unexpected {
        /// The event.
        event: &'static str,
        /// The state.
        state: &'static str,
    },
}
