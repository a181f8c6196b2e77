//! What the engine needs of the process that has the guest. The engine decides nothing about it: it
//! does what the protocol's state machines ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_vmm::kvm::DirtyLog;
use godwit_vmm::machine::IncomingMemory;
use godwit_vmm::memory::GuestRam;

use super::report::{Progress, SourceReport};
use crate::ownership::{Epoch, RecordedState};
use crate::protocol::source::DoorTrouble;
use crate::protocol::target::DiscardReason;
use crate::protocol::{Hello, RefusalReason, SessionId, Text, Welcome};

/// Why a guest could not be paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseRefused {
    /// It powered off, reset or crashed by itself.
    GuestEnded,
}

/// The guest at its source.
pub trait SourceGuest {
    /// What the target has to build, encoded.
    fn description(&self) -> Vec<u8>;
    /// Its RAM.
    fn ram(&self) -> Arc<GuestRam>;
    /// Its dirty log.
    fn dirty_log(&self) -> Arc<DirtyLog>;
    /// Pauses it; returns when its first vCPU was told to stop.
    ///
    /// # Errors
    /// The guest is over.
    fn pause(&mut self) -> Result<Instant, PauseRefused>;
    /// Reads the paused guest's state, encoded, and when its clocks were read.
    ///
    /// # Errors
    /// A text for people.
    fn save(&mut self) -> Result<(Vec<u8>, Instant), String>;
    /// Lets the paused guest run on here.
    ///
    /// # Errors
    /// A text for people.
    fn resume(&mut self) -> Result<(), String>;
    /// What the target's state file says, if the target is on this host and its process is proven dead.
    fn record_of_dead_target(&self, target: &Welcome) -> Option<RecordedState>;
    /// Tells how far the migration is. Called about ten times a second and at every change of phase.
    fn progress(&mut self, progress: &Progress);
    /// COMMIT is on its way and nothing is known: the guest is handed over, unconfirmed.
    fn unconfirmed(&mut self, trouble: &DoorTrouble);
    /// Still nothing is known, after a time in which an inquiry would have been answered.
    fn still_unconfirmed(&mut self, report: &SourceReport);
}

/// What was built for an incoming guest.
#[derive(Debug)]
pub struct BuiltGuest {
    /// Its RAM, empty.
    pub ram: Arc<GuestRam>,
    /// What saving and restoring it costs here.
    pub rehearsal: Duration,
}

/// Where a source on the same host finds what a target recorded, should the target be killed.
#[derive(Debug, Clone)]
pub struct RecordPlace {
    /// This boot of the host.
    pub host_boot_id: Text,
    /// The state file of this process.
    pub state_file: Text,
}

/// The place for a guest at its target.
pub trait TargetGuest {
    /// A source is here. Refuses it, or takes note of the guest's name and says where the record of
    /// this session will be found.
    ///
    /// # Errors
    /// Why it is refused.
    fn admit(&mut self, hello: &Hello) -> Result<RecordPlace, RefusalReason>;
    /// Builds the machine and rehearses.
    ///
    /// # Errors
    /// What is missing, by name.
    fn build(&mut self, description: &[u8], memory: IncomingMemory) -> Result<BuiltGuest, RefusalReason>;
    /// Restores the state; `saved_ago` tells how long ago its clocks were read, when this is called.
    ///
    /// # Errors
    /// A text for people.
    fn restore(&mut self, state: &[u8], saved_ago: Duration) -> Result<(), String>;
    /// Writes that this session's guest runs here, with its epoch, where a source on this host finds it if this process is killed.
    /// An error means that it certainly is not there.
    ///
    /// # Errors
    /// A text for people.
    fn record_running(&mut self, session: SessionId, epoch: Epoch) -> Result<(), String>;
    /// Lets the guest run: it is this side's now. Says when its first vCPU executed, if that is known.
    fn run(&mut self, epoch: Epoch) -> Option<Instant>;
    /// Tears down what was built for this attempt; it never runs here.
    fn discard(&mut self, reason: &DiscardReason);
}
