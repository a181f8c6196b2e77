//! What a source tells of itself while it works and at its end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use godwit_vmm::PAGE_SIZE;

use super::{Engine, PROGRESS_EVERY};
use crate::convergence::Convergence;
use crate::engine::report::{Phase, Progress, SourceReport};
use crate::protocol::SourceState;
use crate::protocol::source::Outcome;

impl Engine<'_> {
    pub(super) fn tell_progress(&mut self) {
        let now = Instant::now();
        let (last, last_bytes) = self.last_progress;
        let since = now - last;
        if since < PROGRESS_EVERY {
            return;
        }
        let counters = &self.context.counters;
        let sent_bytes = counters.bytes.load(Ordering::Relaxed);
        let done = counters.round_pages_done.load(Ordering::Relaxed);
        let rate = u128::from(sent_bytes - last_bytes) * 1_000_000_000 / since.as_nanos().max(1);
        self.last_progress = (now, sent_bytes);
        let convergence = self.convergence.as_ref();
        self.guest.progress(&Progress {
            phase: phase(self.core.state()),
            round: self.round.as_ref().map_or(0, |r| r.round),
            left_bytes: match &self.round {
                Some(round) => round.pages.saturating_sub(done) * PAGE_SIZE,
                None => self.context.ram.layout().bytes(),
            },
            total_bytes: self.context.ram.layout().bytes(),
            sent_bytes,
            rate_bytes_per_s: u64::try_from(rate).unwrap_or(u64::MAX),
            dirty_rate_bytes_per_s: convergence.map_or(0, Convergence::dirty_bytes_per_s),
            predicted_blackout: convergence.and_then(Convergence::predicted_blackout),
            elapsed: self.began.elapsed(),
        });
    }

    pub(super) fn report(&self, outcome: Option<Outcome>) -> SourceReport {
        let counters = &self.context.counters;
        SourceReport {
            outcome,
            total: self.began.elapsed(),
            downtime: self.downtime,
            rounds: self.round.as_ref().map_or(0, |r| r.round),
            bytes: counters.bytes.load(Ordering::Relaxed),
            pages: counters.pages.load(Ordering::Relaxed),
            zero_pages: counters.zero_pages.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn phase(state: &SourceState) -> Phase {
    match state {
        SourceState::Connecting | SourceState::Greeting { .. } | SourceState::Measuring { .. } => {
            Phase::Connecting
        }
        SourceState::Describing { .. } | SourceState::OpeningStreams { .. } => Phase::Preparing,
        SourceState::Copying { .. } => Phase::Precopy,
        SourceState::Pausing { .. } | SourceState::Finalizing { .. } => Phase::StopAndCopy,
        _ => Phase::Committing,
    }
}

pub(super) fn describe(state: &SourceState) -> &'static str {
    match phase(state) {
        Phase::Connecting => "being reached",
        Phase::Preparing => "building the machine",
        Phase::Precopy => "receiving memory",
        Phase::StopAndCopy => "receiving the last state",
        Phase::Committing => "taking over",
    }
}
