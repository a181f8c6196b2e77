//! The protocol of a move, without any I/O: messages, their frames, and the two state machines
//! that say and hear them.
//!
//! ```text
//! source                                  target
//! Hello ────────────────────────────────▶
//!      ◀──────────────────── Welcome | Refused
//! Ping ─────────────────────────────────▶
//!      ◀──────────────────────────────── Pong      (a few times: the round-trip time)
//! Machine ──────────────────────────────▶          builds everything
//!      ◀─────────────────── Prepared | Refused
//! (data connections) StreamHello ───────▶
//!      ◀──────────────────────── StreamWelcome
//! batches …, RoundEnd ──────────────────▶
//!      ◀──────────────────────────── RoundAck      … until the policy says stop
//! (guest paused) batches, FinalState ───▶
//!      ◀─────────────────────────────── Ready
//! COMMIT ═══════════════════════════════▶          the one-way door
//!      ◀───────────────────── Running | Verdict(aborted)
//! Confirmed ────────────────────────────▶          nobody will ask any more
//! (a fresh connection) Inquire ─────────▶
//!      ◀───────────────────────────── Verdict
//! ```
//! Time is an argument: a [`Duration`](std::time::Duration) since any fixed moment of the
//! caller's monotonic clock.

mod bounds;
pub mod codec;
pub mod data;
mod kind;
pub mod message;
pub mod source;
pub mod target;
pub mod text;
pub mod version;

pub use codec::{CodecError, Decoder, encode};
pub use message::{
    Abort, AbortReason, Commit, Confirmed, FinalState, Hello, Inquire, Kind, Machine, Message, Prepared,
    Ready, ReceiverId, RefusalReason, RoundAck, RoundEnd, Running, SessionId, StreamHello, StreamWelcome,
    Verdict, VerdictReport, Welcome,
};
pub use source::{Source, SourceAction, SourceConfig, SourceEvent, SourceState};
pub use target::{Target, TargetAction, TargetConfig, TargetEvent, TargetState};
pub use text::{Blob, Text, VmName};
pub use version::{Features, PROTOCOL_MAX, PROTOCOL_MIN, Version, VersionRange, negotiate};
mod violation;

#[cfg(test)]
mod codec_test;
#[cfg(test)]
mod data_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod version_test;

pub use violation::{EventRefused, ProtocolViolation};
