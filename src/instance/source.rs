//! The guest as the migration engine sees it at its source.

use std::sync::Arc;
use std::time::Instant;

use godwit_api::registry::{RuntimeDir, SessionState};
use godwit_api::{
    MigrationEvent, MigrationMode, MigrationOutcome, MigrationPhase, MigrationProgress, MigrationResult,
    VmState, ms_from_us,
};
use godwit_migrate::engine::{PauseRefused, Phase, Progress, SourceGuest, SourceReport};
use godwit_migrate::ownership::{Epoch, RecordedState};
use godwit_migrate::protocol::Welcome;
use godwit_migrate::protocol::source::{DoorTrouble, Outcome};
use godwit_vmm::kvm::DirtyLog;
use godwit_vmm::memory::GuestRam;
use tokio::sync::mpsc::Sender;

use super::vm::{Event, Slot, Vm};

/// A guest that is being moved away.
pub(crate) struct Departing {
    vm: Arc<Vm>,
    to: String,
    mode: MigrationMode,
    ram: Arc<GuestRam>,
    dirty_log: Arc<DirtyLog>,
    description: Vec<u8>,
    generation: u64,
    /// Whoever asked for the migration; gone once it has its result.
    listener: Option<Sender<MigrationEvent>>,
}

impl Departing {
    /// Of the running guest in `slot`, which is `vm`'s; `None` when there is none.
    pub(crate) fn new(
        vm: &Arc<Vm>,
        slot: &Slot,
        to: String,
        mode: MigrationMode,
        listener: Sender<MigrationEvent>,
    ) -> Option<Self> {
        let Slot::Running(running) = slot else { return None };
        Some(Self {
            vm: Arc::clone(vm),
            to,
            mode,
            ram: Arc::clone(running.machine().ram()),
            dirty_log: Arc::clone(running.machine().dirty_log()),
            description: running.description().encode(),
            generation: vm.status().generation,
            listener: Some(listener),
        })
    }

    /// The migration is decided: says so everywhere.
    pub(crate) fn finish(mut self, report: &SourceReport) {
        let result = self.result(report);
        let handed_over = matches!(report.outcome, Some(Outcome::HandedOver(_)));
        if handed_over {
            // While the migration still counts as under way: at no moment may the guest look resumable.
            self.vm.enter(VmState::HandedOver { to: self.to.clone() });
        }
        self.vm.change(|status| {
            if let Some(migration) = &mut status.migration {
                migration.remote = None;
                migration.status.result = Some(result.clone());
            }
            status.detail = None;
        });
        if !handed_over && let Some(successor) = self.vm.change(|status| status.successor.take()) {
            successor.abandon();
        }
        self.tell_result(result);
        let _ = self.vm.events.send(if handed_over {
            Event::HandedOver { to: self.to.clone() }
        } else {
            Event::MigrationEnded
        });
    }

    fn tell_result(&mut self, result: MigrationResult) {
        if let Some(listener) = self.listener.take() {
            // Who asked may be gone; the migration's status keeps the result.
            let _ = listener.blocking_send(MigrationEvent::Result(result));
        }
    }

    fn result(&self, report: &SourceReport) -> MigrationResult {
        let ms = |duration: std::time::Duration| {
            ms_from_us(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
        };
        let (status, reason) = match &report.outcome {
            Some(Outcome::HandedOver(_)) => (MigrationOutcome::Completed, None),
            Some(Outcome::Failed(reason)) => (MigrationOutcome::Failed, Some(reason.to_string())),
            Some(Outcome::Cancelled) => (MigrationOutcome::Cancelled, None),
            Some(Outcome::GuestEnded) => (
                MigrationOutcome::Failed,
                Some("the guest ended by itself before it was handed over".to_owned()),
            ),
            None => (MigrationOutcome::Unconfirmed, self.vm.status().detail.clone()),
        };
        MigrationResult {
            status,
            // All that is there in this version.
            mode: if self.mode == MigrationMode::Auto { MigrationMode::Precopy } else { self.mode },
            total_ms: ms(report.total),
            downtime_ms: report.downtime.map(ms),
            rounds: report.rounds,
            bytes_sent: report.bytes,
            pages_sent: report.pages,
            zero_pages: report.zero_pages,
            reason,
        }
    }
}

impl SourceGuest for Departing {
    fn description(&self) -> Vec<u8> {
        self.description.clone()
    }

    fn ram(&self) -> Arc<GuestRam> {
        Arc::clone(&self.ram)
    }

    fn dirty_log(&self) -> Arc<DirtyLog> {
        Arc::clone(&self.dirty_log)
    }

    fn pause(&mut self) -> Result<Instant, PauseRefused> {
        let mut slot = self.vm.slot();
        let at = Instant::now();
        if self.vm.status().generation != self.generation {
            // It reset itself and another one was booted: the guest that was being moved is over.
            return Err(PauseRefused::GuestEnded);
        }
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Running(running) => {
                let paused = running.pause();
                let ended = paused.guest_has_ended();
                *slot = Slot::Paused(paused);
                if ended { Err(PauseRefused::GuestEnded) } else { Ok(at) }
            }
            other => {
                // The main loop has taken the machine away: the guest is over.
                *slot = other;
                Err(PauseRefused::GuestEnded)
            }
        }
    }

    fn save(&mut self) -> Result<(Vec<u8>, Instant), String> {
        match &*self.vm.slot() {
            Slot::Paused(paused) => {
                let at = Instant::now();
                let state = paused.save().map_err(|e| e.to_string())?;
                Ok((state.encode(), at))
            }
            _ => Err("the guest is gone".to_owned()),
        }
    }

    fn resume(&mut self) -> Result<(), String> {
        let mut slot = self.vm.slot();
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Paused(paused) if !paused.guest_has_ended() => {
                let resumed = paused.resume().map_err(|e| {
                    let _ = self.vm.events.send(Event::VmmFailed { what: e.to_string() });
                    e.to_string()
                });
                *slot = Slot::Running(resumed?);
                // A guest that comes back through the door was shown as handed over.
                self.vm.enter(VmState::Running);
                Ok(())
            }
            other => {
                *slot = other;
                Ok(())
            }
        }
    }

    fn record_of_dead_target(&self, target: &Welcome) -> Option<RecordedState> {
        let entries = RuntimeDir::open().ok()?.list().ok()?.entries;
        let entry = entries.into_iter().find(|entry| {
            entry.path().to_str() == Some(target.state_file.as_str())
                && entry.file.boot_id == target.host_boot_id.as_str()
        })?;
        // Of a live target only the target itself may be asked: it may be about to write.
        if !entry.is_dead() || entry.from_former_boot {
            return None;
        }
        // Its own last word, and not that of a later process in its place.
        if entry.file.receiver.as_deref() != Some(target.receiver_id.to_string().as_str()) {
            return None;
        }
        match entry.file.sessions.get(&target.session.to_string()) {
            Some(SessionState::Running) => {
                Some(RecordedState::Running { epoch: Epoch::new(self.vm.status().epoch)? })
            }
            // It wrote that word, with the session, before the guest's first instruction: without it there
            // never was one.
            _ => Some(RecordedState::NotRunning),
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let progress = MigrationProgress {
            phase: phase(progress.phase),
            round: progress.round,
            memory_left_bytes: progress.left_bytes,
            memory_total_bytes: progress.total_bytes,
            sent_bytes: progress.sent_bytes,
            rate_bytes_per_s: progress.rate_bytes_per_s,
            dirty_rate_bytes_per_s: progress.dirty_rate_bytes_per_s,
            predicted_blackout_us: progress.predicted_blackout.map(micros),
            elapsed_ms: micros(progress.elapsed) / 1000,
        };
        self.vm.change(|status| {
            if let Some(migration) = &mut status.migration {
                migration.status.progress = Some(progress.clone());
            }
        });
        if let Some(listener) = &self.listener {
            // A slow listener misses progress, never the result.
            let _ = listener.try_send(MigrationEvent::Progress(progress));
        }
    }

    fn unconfirmed(&mut self, trouble: &DoorTrouble) {
        let epoch = self.vm.status().epoch;
        self.vm.change(|status| {
            status.detail = Some(format!(
                "{trouble}; the guest is paused here until the target answers, or a person says `godwit resolve`"
            ));
        });
        self.vm.enter(VmState::Unconfirmed { to: self.to.clone(), epoch });
        let _ = self.vm.events.send(Event::Unconfirmed);
    }

    fn still_unconfirmed(&mut self, report: &SourceReport) {
        let result = self.result(report);
        self.vm.change(|status| {
            if let Some(migration) = &mut status.migration {
                migration.status.result = Some(result.clone());
            }
        });
        self.tell_result(result);
    }
}

fn phase(phase: Phase) -> MigrationPhase {
    match phase {
        Phase::Connecting => MigrationPhase::Connecting,
        Phase::Preparing => MigrationPhase::Preparing,
        Phase::Precopy => MigrationPhase::Precopy,
        Phase::StopAndCopy => MigrationPhase::StopAndCopy,
        Phase::Committing => MigrationPhase::Committing,
    }
}
