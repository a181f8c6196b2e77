//! The bounds of messages that their types alone do not hold.

use super::kind::Message;
use super::message::{MACHINE_BYTES_MAX, STATE_BYTES_MAX, STREAMS_MAX};
use thiserror::Error;

/// A field of a message is out of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field} is {value}, allowed is {min} to {max}")]
pub struct OutOfBounds {
    /// Which field.
    pub field: &'static str,
    /// What it is (its length for lists and bytes).
    pub value: u64,
    /// The least allowed.
    pub min: u64,
    /// The most allowed.
    pub max: u64,
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), OutOfBounds> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(OutOfBounds { field, value, min, max }) }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl Message {
    /// Checks the bounds that the types alone do not hold. Done after every decode and before
    /// every encode.
    pub fn validate(&self) -> Result<(), OutOfBounds> {
        let streams_max = u64::from(STREAMS_MAX);
        match self {
            Message::Hello(hello) => {
                within("streams", hello.streams.into(), 1, streams_max)?;
                let version_max = hello.versions.max.0.into();
                within("versions.min", hello.versions.min.0.into(), 1, version_max)
            }
            Message::StreamHello(hello) => {
                within("streams", hello.streams.into(), 1, streams_max)?;
                let last = u64::from(hello.streams.saturating_sub(1));
                within("index", hello.index.into(), 0, last)
            }
            Message::StreamWelcome(welcome) => within("index", welcome.index.into(), 0, streams_max - 1),
            Message::Machine(machine) => {
                within("description", count(machine.description.0.len()), 0, count(MACHINE_BYTES_MAX))
            }
            Message::RoundEnd(end) => {
                within("round", end.round.into(), 1, u32::MAX.into())?;
                let streams = count(end.batches_per_stream.len());
                within("batches_per_stream", streams, 1, streams_max)
            }
            Message::RoundAck(ack) => within("round", ack.round.into(), 1, u32::MAX.into()),
            Message::FinalState(last) => {
                within("final_round", last.final_round.into(), 1, u32::MAX.into())?;
                let streams = count(last.batches_per_stream.len());
                within("batches_per_stream", streams, 1, streams_max)?;
                let bytes = count(last.state.0.len());
                within("state", bytes, 0, count(STATE_BYTES_MAX))
            }
            Message::Welcome(_)
            | Message::Refused(_)
            | Message::Inquire(_)
            | Message::Verdict(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Prepared(_)
            | Message::Ready(_)
            | Message::Commit(_)
            | Message::Running(_)
            | Message::Confirmed(_)
            | Message::Abort(_) => Ok(()),
        }
    }
}
