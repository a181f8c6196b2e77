//! The straight way of a target: what leads from each state to the next one.

use super::event::{DiscardReason, InquirerId, TargetAction, TargetEvent};
use super::state::{Agreed, TargetState};
use super::{ROUNDS_UNAPPLIED_MAX, Target};
use crate::ownership::{Epoch, TargetStanding};
use crate::protocol::message::{
    FinalState, Hello, Message, Prepared, Ready, RefusalReason, RoundAck, RoundEnd, Running, Verdict,
    VerdictReport, Welcome,
};
use crate::protocol::violation::{EventRefused, ProtocolViolation};
use std::time::Duration;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Target {
    /// What the engine did.
    pub(super) fn on_progress(&mut self, now: Duration, event: TargetEvent) -> Result<(), EventRefused> {
        match (&mut self.state, event) {
            (&mut TargetState::Building { agreed }, TargetEvent::Built { rehearsal }) => {
                self.state = TargetState::AwaitStreams { agreed };
                // Accepting first: the source opens streams as soon as it reads `Prepared`.
                self.push(TargetAction::AcceptStreams {
                    session: self.config.session,
                    streams: agreed.streams,
                });
                self.push(TargetAction::Send(Message::Prepared(Prepared {
                    rehearsal_us: micros(rehearsal),
                })));
                Ok(())
            }
            (TargetState::Building { .. }, TargetEvent::BuildFailed(reason)) => {
                self.abort(DiscardReason::Refused(reason));
                Ok(())
            }
            (&mut TargetState::AwaitStreams { agreed }, TargetEvent::StreamsOpen) => {
                self.state = TargetState::Receiving { agreed, ended: 0, applied: 0 };
                Ok(())
            }
            (
                TargetState::Receiving { ended, applied, .. } | TargetState::Restoring { ended, applied, .. },
                TargetEvent::RoundApplied { round, bytes },
            ) if *applied < *ended && round == *applied + 1 => {
                *applied = round;
                self.push(TargetAction::Send(Message::RoundAck(RoundAck { round, bytes })));
                Ok(())
            }
            (
                &mut TargetState::Restoring { agreed, ended, applied },
                TargetEvent::Restored { checksum, took },
            ) if applied == ended => {
                self.state = TargetState::AwaitCommit {
                    agreed,
                    until: now.saturating_add(self.config.commit_within),
                    restore: took,
                };
                self.push(TargetAction::Send(Message::Ready(Ready { checksum })));
                Ok(())
            }
            (TargetState::Restoring { .. }, TargetEvent::RestoreFailed { what }) => {
                self.abort(DiscardReason::RestoreFailed { what });
                Ok(())
            }
            (
                TargetState::Recording { agreed, committed_at, restore, inquirers },
                TargetEvent::RunningRecorded,
            ) => {
                let epoch = agreed.epoch;
                let running = Running {
                    epoch,
                    restore_us: micros(*restore),
                    door_us: micros(now.saturating_sub(*committed_at)),
                };
                let inquirers = std::mem::take(inquirers);
                self.run(running, inquirers);
                Ok(())
            }
            (TargetState::Recording { inquirers, .. }, TargetEvent::RecordFailed { what }) => {
                // COMMIT came, so this side decides; it has not run, so it may still decline.
                let inquirers = std::mem::take(inquirers);
                self.discard(DiscardReason::RecordFailed { what });
                self.send_verdict_aborted();
                self.answer(inquirers, Verdict::Aborted);
                Ok(())
            }
            (_, event @ (TargetEvent::RunningRecorded | TargetEvent::RecordFailed { .. })) => {
                Err(self.unexpected(event.name()))
            }
            // What was under way when the session ended.
            (TargetState::Aborted { .. }, _) => Ok(()),
            (_, event) => Err(self.unexpected(event.name())),
        }
    }

    /// What the source said.
    pub(super) fn on_message(&mut self, now: Duration, message: Message) {
        match (&mut self.state, message) {
            // The one-way door was found shut: the source waits for this word.
            (TargetState::Aborted { .. }, Message::Commit(_)) => self.send_verdict_aborted(),
            (TargetState::Aborted { .. }, _) => {}
            (&mut TargetState::AwaitCommit { agreed, restore, .. }, Message::Commit(commit)) => {
                if commit.epoch == agreed.epoch {
                    self.enter_door(now, agreed, restore);
                } else {
                    let (expected, got) = (agreed.epoch, commit.epoch);
                    self.on_violation(ProtocolViolation::WrongEpoch { expected, got });
                }
            }
            (&mut TargetState::Running { epoch }, Message::Confirmed(confirmed))
                if confirmed.epoch == epoch =>
            {
                self.push(TargetAction::NoteSourceKnows);
            }
            // COMMIT came: nothing that the source says can take it back.
            (TargetState::Recording { .. } | TargetState::Running { .. }, other) => {
                self.misplaced(&other);
            }
            (_, Message::Abort(abort)) => {
                self.abort(DiscardReason::PeerAborted(abort.reason));
            }
            (TargetState::AwaitHello { .. }, Message::Hello(hello)) => self.on_hello(hello),
            (&mut TargetState::AwaitMachine { agreed }, Message::Machine(machine)) => {
                self.state = TargetState::Building { agreed };
                let description = machine.description;
                self.push(TargetAction::Build { description });
            }
            (&mut TargetState::Receiving { agreed, ended, applied }, Message::RoundEnd(end)) => {
                self.on_round_end(agreed, ended, applied, end)
            }
            (&mut TargetState::Receiving { agreed, ended, applied }, Message::FinalState(state)) => {
                self.on_final_state(agreed, ended, applied, state)
            }
            (TargetState::AwaitHello { .. }, other) => self.misplaced(&other),
            (_, Message::Ping(ping)) => self.push(TargetAction::Send(Message::Pong(ping))),
            (_, other) => self.misplaced(&other),
        }
    }

    fn misplaced(&mut self, message: &Message) {
        self.on_violation(ProtocolViolation::Unexpected { kind: message.kind(), state: self.state.name() });
    }

    fn on_hello(&mut self, hello: Hello) {
        match self.agree(&hello) {
            Ok(welcome) => {
                self.state = TargetState::AwaitMachine {
                    agreed: Agreed { epoch: hello.epoch, streams: hello.streams },
                };
                self.push(TargetAction::NoteSource(hello));
                self.push(TargetAction::Send(Message::Welcome(welcome)));
            }
            Err(reason) => self.abort(DiscardReason::Refused(reason)),
        }
    }

    fn agree(&self, hello: &Hello) -> Result<Welcome, RefusalReason> {
        let ours = self.config.versions;
        let version = ours
            .common(hello.versions)
            .ok_or(RefusalReason::UnsupportedVersion { theirs_min: ours.min, theirs_max: ours.max })?;
        let features = hello
            .features
            .accept(self.config.features)
            .map_err(|bit| RefusalReason::UnknownMandatoryFeature { bit })?;
        if hello.streams > self.config.streams_max {
            let max = self.config.streams_max;
            return Err(RefusalReason::TooManyStreams { max });
        }
        Ok(Welcome {
            version,
            features,
            receiver_id: self.config.receiver_id,
            session: self.config.session,
            host_boot_id: self.config.host_boot_id.clone(),
            state_file: self.config.state_file.clone(),
        })
    }

    fn on_round_end(&mut self, agreed: Agreed, ended: u32, applied: u32, end: RoundEnd) {
        let expected = ended.saturating_add(1);
        if end.round != expected {
            let got = end.round;
            return self.on_violation(ProtocolViolation::WrongRound { expected, got });
        }
        if expected.saturating_sub(applied) > ROUNDS_UNAPPLIED_MAX {
            let max = ROUNDS_UNAPPLIED_MAX;
            return self.on_violation(ProtocolViolation::TooManyRounds { max });
        }
        if let Err(violation) = counts_each_stream(agreed, &end.batches_per_stream) {
            return self.on_violation(violation);
        }
        self.state = TargetState::Receiving { agreed, ended: end.round, applied };
        self.push(TargetAction::ExpectRound(end));
    }

    fn on_final_state(&mut self, agreed: Agreed, ended: u32, applied: u32, state: FinalState) {
        let expected = ended.saturating_add(1);
        if state.final_round != expected {
            let got = state.final_round;
            return self.on_violation(ProtocolViolation::WrongRound { expected, got });
        }
        if let Err(violation) = counts_each_stream(agreed, &state.batches_per_stream) {
            return self.on_violation(violation);
        }
        self.state = TargetState::Restoring { agreed, ended, applied };
        self.push(TargetAction::Restore(state));
    }

    /// COMMIT came: this side decides from here on, and has decided nothing yet.
    fn enter_door(&mut self, now: Duration, agreed: Agreed, restore: Duration) {
        debug_assert_eq!(self.standing(), TargetStanding::NotYet);
        self.state = TargetState::Recording { agreed, committed_at: now, restore, inquirers: Vec::new() };
        self.push(TargetAction::RecordRunning { epoch: agreed.epoch });
    }

    fn run(&mut self, running: Running, inquirers: Vec<InquirerId>) {
        let epoch: Epoch = running.epoch;
        self.state = TargetState::Running { epoch };
        // The guest first: it stands still.
        self.push(TargetAction::RunGuest { epoch });
        self.push(TargetAction::Send(Message::Running(running)));
        self.answer(inquirers, Verdict::Running { epoch });
    }

    fn answer(&mut self, inquirers: Vec<InquirerId>, verdict: Verdict) {
        let report =
            VerdictReport { receiver_id: self.config.receiver_id, session: self.config.session, verdict };
        for to in inquirers {
            self.push(TargetAction::AnswerInquiry { to, report });
        }
    }
}

fn counts_each_stream(agreed: Agreed, batches: &[u64]) -> Result<(), ProtocolViolation> {
    if batches.len() == usize::from(agreed.streams) {
        Ok(())
    } else {
        Err(ProtocolViolation::WrongStreams { expected: agreed.streams, got: batches.len() })
    }
}
