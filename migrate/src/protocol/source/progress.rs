//! The straight way of a source: what leads from each state to the next one.

use super::event::{Confirmation, FailureReason, SourceAction, SourceEvent};
use super::state::{FinalStep, Rounds, SessionIds, SourceState, Stage};
use super::{PINGS, ROUNDS_UNACKED_MAX, Source};
use crate::ownership::SourceStanding;
use crate::protocol::message::{
    AbortReason, Commit, FinalState, Hello, Machine, Message, Ping, RoundAck, RoundEnd, Running, Verdict,
    VerdictReport, Welcome,
};
use crate::protocol::violation::{EventRefused, ProtocolViolation};
use std::time::Duration;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Source {
    /// What the engine did.
    pub(super) fn on_progress(&mut self, now: Duration, event: SourceEvent) -> Result<(), EventRefused> {
        match (self.state.clone(), event) {
            (SourceState::Connecting, SourceEvent::Connected) => {
                self.greet(now);
                Ok(())
            }
            (SourceState::OpeningStreams { ids }, SourceEvent::StreamsOpen) => {
                self.start_round(ids, Rounds { started: 0, sent: 0, acked: 0 })
            }
            (SourceState::Copying { ids, rounds }, SourceEvent::RoundSent { round, batches_per_stream })
                if rounds.sent < rounds.started && round == rounds.started =>
            {
                let rounds = Rounds { sent: round, ..rounds };
                self.state = SourceState::Copying { ids, rounds };
                self.push(SourceAction::Send(Message::RoundEnd(RoundEnd { round, batches_per_stream })));
                Ok(())
            }
            (SourceState::Copying { ids, rounds }, SourceEvent::AnotherRoundDecided)
                if rounds.sent == rounds.started =>
            {
                self.start_round(ids, rounds)
            }
            (SourceState::Copying { ids, rounds }, SourceEvent::StopDecided)
                if rounds.sent == rounds.started =>
            {
                self.state = SourceState::Pausing { ids, rounds };
                self.push(SourceAction::PauseGuest);
                Ok(())
            }
            (SourceState::Pausing { ids, rounds }, SourceEvent::GuestPaused) => {
                self.state = SourceState::Finalizing {
                    ids,
                    rounds,
                    ready_by: now.saturating_add(self.config.ready_within()),
                    step: FinalStep::Saving,
                };
                self.push(SourceAction::SendFinal { round: rounds.sent.saturating_add(1) });
                Ok(())
            }
            (
                SourceState::Finalizing { step: FinalStep::Saving, rounds, .. },
                SourceEvent::FinalSaved(state),
            ) if state.final_round == rounds.sent.saturating_add(1) => {
                self.send_final_state(state);
                Ok(())
            }
            (
                SourceState::Finalizing { ids, step: FinalStep::Sending { ready_checksum }, .. },
                SourceEvent::FinalSent { checksum },
            ) => {
                self.set_step(FinalStep::Sent { checksum });
                if let Some(got) = ready_checksum {
                    self.compare(now, ids, checksum, got);
                }
                Ok(())
            }
            // What was under way when the attempt ended. A guest that is the source's own and
            // was paused only now has to go on.
            (state, SourceEvent::GuestPaused) if state.stage() == Stage::Over => {
                if state.standing() == SourceStanding::Owner {
                    self.push(SourceAction::ResumeGuest);
                }
                Ok(())
            }
            (state, _) if state.stage() == Stage::Over => Ok(()),
            (_, event) => Err(self.unexpected(event.name())),
        }
    }

    /// What the target said.
    pub(super) fn on_message(&mut self, now: Duration, message: Message) {
        match (self.state.clone(), message) {
            // Whoever runs what is not his has to be known, even late.
            (state, Message::Running(running)) if state.stage() == Stage::Over => {
                self.on_late_running(running);
            }
            (state, _) if state.stage() == Stage::Over => {}

            (SourceState::AtDoor { .. } | SourceState::Unconfirmed { .. }, message) => {
                self.on_message_at_door(message);
            }
            (_, Message::Abort(abort)) => {
                self.fail_before_door(None, FailureReason::PeerAborted(abort.reason));
            }
            (SourceState::Greeting { .. }, Message::Welcome(welcome)) => {
                self.on_welcome(now, welcome);
            }
            (SourceState::Greeting { .. } | SourceState::Describing { .. }, Message::Refused(reason)) => {
                self.fail_before_door(None, FailureReason::Refused(reason))
            }
            (SourceState::Measuring { ids, until, nonce, sent_at }, Message::Pong(pong)) => {
                if pong.nonce == nonce {
                    let sample = now.saturating_sub(sent_at);
                    let best = self.round_trip.map_or(sample, |best| best.min(sample));
                    self.round_trip = Some(best);
                    self.measure(now, ids, until, nonce + 1);
                } else {
                    let (expected, got) = (nonce, pong.nonce);
                    self.on_violation(ProtocolViolation::WrongNonce { expected, got });
                }
            }
            (SourceState::Describing { ids }, Message::Prepared(_)) => {
                self.state = SourceState::OpeningStreams { ids };
                self.push(SourceAction::OpenStreams { session: ids.session, streams: self.config.streams });
            }
            (
                SourceState::Copying { mut rounds, .. }
                | SourceState::Pausing { mut rounds, .. }
                | SourceState::Finalizing { mut rounds, .. },
                Message::RoundAck(ack),
            ) => self.on_round_ack(&mut rounds, ack),
            (
                SourceState::Finalizing { rounds, step: FinalStep::Sending { ready_checksum: None }, .. },
                Message::Ready(ready),
            ) if rounds.acked == rounds.sent => {
                self.set_step(FinalStep::Sending { ready_checksum: Some(ready.checksum) });
            }
            (
                SourceState::Finalizing { ids, rounds, step: FinalStep::Sent { checksum }, .. },
                Message::Ready(ready),
            ) if rounds.acked == rounds.sent => self.compare(now, ids, checksum, ready.checksum),
            // The target was ready and gave up before COMMIT reached it.
            (SourceState::Finalizing { ids, .. }, Message::Verdict(report)) if report == aborted(ids) => {
                let reason = FailureReason::GivenBack;
                self.fail_before_door(None, reason);
            }
            (state, message) => {
                self.on_violation(ProtocolViolation::Unexpected { kind: message.kind(), state: state.name() })
            }
        }
    }

    fn on_message_at_door(&mut self, message: Message) {
        match message {
            Message::Running(running) if running.epoch == self.config.epoch => {
                self.hand_over(Confirmation::Running(running));
            }
            Message::Running(running) => self.on_violation(ProtocolViolation::WrongEpoch {
                expected: self.config.epoch,
                got: running.epoch,
            }),
            Message::Verdict(report) => self.on_verdict(report),
            other => self
                .on_violation(ProtocolViolation::Unexpected { kind: other.kind(), state: self.state.name() }),
        }
    }

    fn on_late_running(&mut self, running: Running) {
        let handed_over = matches!(self.state, SourceState::HandedOver { .. });
        if !handed_over || running.epoch != self.config.epoch {
            self.on_violation(ProtocolViolation::Unexpected {
                kind: Message::Running(running).kind(),
                state: self.state.name(),
            });
        }
    }

    fn greet(&mut self, now: Duration) {
        self.state = SourceState::Greeting { until: now.saturating_add(self.config.greeting_within) };
        self.push(SourceAction::Send(Message::Hello(Hello {
            versions: self.config.versions,
            features: self.config.features,
            vm_name: self.config.vm_name.clone(),
            epoch: self.config.epoch,
            max_downtime_us: micros(self.config.max_downtime),
            ready_within_us: micros(self.config.ready_within()),
            streams: self.config.streams,
        })));
    }

    fn on_welcome(&mut self, now: Duration, welcome: Welcome) {
        let version = welcome.version;
        if !self.config.versions.contains(version) {
            return self.on_violation(ProtocolViolation::VersionNotOffered { version });
        }
        if !self.config.features.contains(welcome.features) {
            let bits = welcome.features.bits() & !self.config.features.bits();
            return self.on_violation(ProtocolViolation::FeaturesNotOffered { bits });
        }
        let ids = SessionIds { receiver_id: welcome.receiver_id, session: welcome.session };
        self.push(SourceAction::NoteTarget(welcome));
        let until = now.saturating_add(self.config.greeting_within);
        self.measure(now, ids, until, 1);
    }

    /// Sends ping number `nonce`, or goes on when enough have come back.
    fn measure(&mut self, now: Duration, ids: SessionIds, until: Duration, nonce: u64) {
        if nonce <= PINGS {
            self.state = SourceState::Measuring { ids, until, nonce, sent_at: now };
            self.push(SourceAction::Send(Message::Ping(Ping { nonce })));
        } else {
            self.state = SourceState::Describing { ids };
            let description = std::mem::take(&mut self.config.description);
            self.push(SourceAction::Send(Message::Machine(Machine { description })));
        }
    }

    fn start_round(&mut self, ids: SessionIds, rounds: Rounds) -> Result<(), EventRefused> {
        if rounds.sent.saturating_sub(rounds.acked) >= ROUNDS_UNACKED_MAX {
            return Err(EventRefused::TooManyRounds { max: ROUNDS_UNACKED_MAX });
        }
        let round = rounds.sent.saturating_add(1);
        let rounds = Rounds { started: round, ..rounds };
        self.state = SourceState::Copying { ids, rounds };
        self.push(SourceAction::StartRound { round });
        Ok(())
    }

    fn on_round_ack(&mut self, rounds: &mut Rounds, ack: RoundAck) {
        let expected = rounds.acked.saturating_add(1).min(rounds.sent);
        if ack.round != expected || ack.round == rounds.acked {
            let got = ack.round;
            return self.on_violation(ProtocolViolation::WrongRound { expected, got });
        }
        rounds.acked = ack.round;
        match &mut self.state {
            SourceState::Copying { rounds: kept, .. }
            | SourceState::Pausing { rounds: kept, .. }
            | SourceState::Finalizing { rounds: kept, .. } => *kept = *rounds,
            _ => {}
        }
        self.push(SourceAction::NoteRoundApplied { round: ack.round, bytes: ack.bytes });
    }

    fn send_final_state(&mut self, state: FinalState) {
        self.set_step(FinalStep::Sending { ready_checksum: None });
        self.push(SourceAction::Send(Message::FinalState(state)));
    }

    fn set_step(&mut self, next: FinalStep) {
        if let SourceState::Finalizing { step, .. } = &mut self.state {
            *step = next;
        }
    }

    /// The last thing that the source decides as owner.
    fn compare(&mut self, now: Duration, ids: SessionIds, expected: u64, got: u64) {
        if expected != got {
            return self.fail_before_door(
                Some(AbortReason::WrongChecksum),
                FailureReason::WrongChecksum { expected, got },
            );
        }
        // The state changes before the message can leave: nothing that happens while it is
        // written may find the source still believing that it owns the guest.
        self.state = SourceState::AtDoor { ids, running_by: now.saturating_add(self.config.running_within) };
        self.push(SourceAction::Send(Message::Commit(Commit { epoch: self.config.epoch })));
    }
}

fn aborted(ids: SessionIds) -> VerdictReport {
    VerdictReport { receiver_id: ids.receiver_id, session: ids.session, verdict: Verdict::Aborted }
}
