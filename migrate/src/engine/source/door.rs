//! What a source does at the door: asks the target, reads what a dead one left, counts the blackout.

use std::time::Duration;

use super::{Engine, Input};
use crate::engine::inquiry::{self, Inquirer};
use crate::protocol::source::{Confirmation, Outcome};
use crate::protocol::{Inquire, Running, SourceEvent, VerdictReport};

impl Engine<'_> {
    /// A person says that the guest does not run over there. The target may know better, if it answers:
    /// its word comes first.
    pub(super) fn ask_before_resuming(&mut self) {
        self.read_record_of_dead_target();
        let (address, inputs, inquire) = (self.options.target.clone(), self.inputs.clone(), self.inquire);
        self.spawn("ask", move || {
            if let Some(Ok(report)) = inquire.map(|inquire| inquiry::ask(&address, inquire)) {
                let _ = inputs.send(Input::Event(SourceEvent::Verdict(report)));
            }
            let _ = inputs.send(Input::ResumeHere);
        });
    }

    pub(super) fn inquire(&mut self, inquire: Inquire) {
        self.inquire = Some(inquire);
        match Inquirer::start(self.options.target.clone(), inquire, self.inputs.clone()) {
            Ok(inquirer) => self.inquirer = Some(inquirer),
            Err(error) => tracing::error!(%error, "cannot start a thread that asks the target"),
        }
    }

    /// A target on this host that was killed has left its word: in the memory that it shares with us,
    /// or in its state file.
    pub(super) fn read_record_of_dead_target(&mut self) {
        let Some(target) = &self.target else { return };
        let record = match &self.hand_over {
            Some(hand_over) => hand_over.record_of_dead_target(),
            None => self.guest.record_of_dead_target(target),
        };
        let Some(record) = record else { return };
        let Some(verdict) = record.verdict_of_the_dead(self.options.epoch) else { return };
        let report = VerdictReport { receiver_id: target.receiver_id, session: target.session, verdict };
        self.handle(SourceEvent::Verdict(report));
    }

    /// From the first vCPU stopped here until the vCPUs were let go there. `Running` itself may be late:
    /// the guest runs by then, and competes with whoever writes and reads it. So COMMIT's way is counted,
    /// and what the target says it took from there. Nothing can have been later than now.
    pub(super) fn blackout(&self, running: Option<Running>) -> Option<Duration> {
        let by_now = self.paused_at?.elapsed();
        let (Some(running), Some(committed_at)) = (running, self.committed_at) else { return Some(by_now) };
        let on_its_way = self.core.round_trip().unwrap_or(Duration::ZERO) / 2;
        let until_commit = committed_at.saturating_duration_since(self.paused_at?);
        Some((until_commit + on_its_way + Duration::from_micros(running.door_us)).min(by_now))
    }
}

pub(super) fn outcome_running(outcome: &Outcome) -> Option<Running> {
    match outcome {
        Outcome::HandedOver(Confirmation::Running(running)) => Some(*running),
        _ => None,
    }
}
