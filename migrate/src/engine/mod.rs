//! The source and the target of a migration: threads and sockets around the pure state machines.

mod guest;
mod handover;
mod inquiry;
mod listener;
mod receiver;
mod report;
mod source;
mod streams;
mod target;

pub use guest::{BuiltGuest, PauseRefused, RecordPlace, SourceGuest, TargetGuest};
pub use receiver::{Receiver, ReceiverError, ReceiverRemote};
pub use report::{Phase, Progress, SourceReport};
pub use source::{SourceMigration, SourceOptions, SourceRemote};
