//! What the engine tells of a migration.

use std::time::Duration;

use crate::protocol::source::Outcome;

/// Where a migration is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the target.
    Connecting,
    /// The target builds the machine.
    Preparing,
    /// Memory is copied while the guest runs.
    Precopy,
    /// The guest is paused; the rest is copied.
    StopAndCopy,
    /// COMMIT is sent.
    Committing,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// The round, from 1; 0 before the first.
    pub round: u32,
    /// Memory of this round that is not sent yet.
    pub left_bytes: u64,
    /// All memory.
    pub total_bytes: u64,
    /// Sent so far.
    pub sent_bytes: u64,
    /// Lately sent a second.
    pub rate_bytes_per_s: u64,
    /// Dirtied a second during the last round.
    pub dirty_rate_bytes_per_s: u64,
    /// The blackout if the guest were paused now, once that can be said.
    pub predicted_blackout: Option<Duration>,
    /// Since the beginning.
    pub elapsed: Duration,
}

/// How a migration ended, as its source saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// How it ended; `None` while handed over, unconfirmed.
    pub outcome: Option<Outcome>,
    /// From the beginning to its end.
    pub total: Duration,
    /// From the first vCPU stopped until the guest ran again, here or there.
    pub downtime: Option<Duration>,
    /// Rounds of memory, the last one included.
    pub rounds: u32,
    /// Bytes written to data streams.
    pub bytes: u64,
    /// Pages sent with their content.
    pub pages: u64,
    /// Pages sent as zero.
    pub zero_pages: u64,
}
