//! The source of a move: owns the guest until it sends COMMIT.
//!
//! Every failure before COMMIT lets the guest run on here. After COMMIT the guest is resumed
//! here for two reasons only: the target said `aborted` about this very session, or a person
//! resolved. Nothing is guessed from silence.

mod event;
mod progress;
mod state;

#[cfg(test)]
mod table_test;

pub use event::{
    Confirmation, DoorTrouble, FailureReason, Outcome, Resolution, SourceAction, SourceConfig, SourceEvent,
};
pub use state::{FinalStep, Rounds, SessionIds, SourceState};

use super::message::{Abort, AbortReason, Confirmed, Inquire, Message, Verdict, VerdictReport};
use super::text::Text;
use super::violation::{EventRefused, ProtocolViolation};
use crate::ownership::SourceStanding;
use state::Stage;
use std::collections::VecDeque;
use std::time::Duration;

/// How many pings measure the round-trip time.
pub const PINGS: u64 = 4;
/// How many rounds may be sent and not acknowledged.
pub const ROUNDS_UNACKED_MAX: u32 = 8;

/// The state machine of a source. Feed it with [`handle`](Source::handle), then do all that
/// [`poll_action`](Source::poll_action) returns, in order, before the next event.
#[derive(Debug, Clone)]
pub struct Source {
    config: SourceConfig,
    state: SourceState,
    actions: VecDeque<SourceAction>,
    round_trip: Option<Duration>,
}

impl Source {
    /// An attempt whose control connection is being opened.
    pub fn new(config: SourceConfig) -> Source {
        Source { config, state: SourceState::Connecting, actions: VecDeque::new(), round_trip: None }
    }

    /// Where it is.
    pub fn state(&self) -> &SourceState {
        &self.state
    }

    /// What it may do with the guest.
    pub fn standing(&self) -> SourceStanding {
        self.state.standing()
    }

    /// The shortest round trip measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        self.actions.pop_front()
    }

    /// When to come back with [`SourceEvent::Tick`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            SourceState::Greeting { until } | SourceState::Measuring { until, .. } => Some(until),
            SourceState::Finalizing { ready_by, .. } => Some(ready_by),
            SourceState::AtDoor { running_by, .. } => Some(running_by),
            _ => None,
        }
    }

    /// Takes an event. An error means that the event was refused and changed nothing; what the
    /// peer does wrong is no error of the caller, but ends the attempt by actions.
    ///
    /// A time limit that has passed counts before the event does: a `Ready` that comes too late
    /// is too late even if nobody looked at the clock in between.
    pub fn handle(&mut self, now: Duration, event: SourceEvent) -> Result<(), EventRefused> {
        self.expire(now);
        match event {
            SourceEvent::Tick => Ok(()),
            SourceEvent::Message(message) => {
                self.on_message(now, message);
                Ok(())
            }
            SourceEvent::Garbled(error) => {
                self.on_garbled(ProtocolViolation::Garbled(error));
                Ok(())
            }
            SourceEvent::LinkLost { cause } => {
                self.on_link_lost(cause);
                Ok(())
            }
            SourceEvent::Verdict(report) => self.on_inquiry_answered(report),
            SourceEvent::Cancel => self.on_cancel(),
            SourceEvent::Resolve(resolution) => self.on_resolve(resolution),
            SourceEvent::DeadlineReached { what } => {
                let reason = AbortReason::Deadline { what: Text::clip(&what) };
                self.fail_before_door(Some(reason), FailureReason::Deadline { what });
                Ok(())
            }
            SourceEvent::LocalFailure { what } => {
                let reason = AbortReason::Failure { what: Text::clip(&what) };
                self.fail_before_door(Some(reason), FailureReason::Local { what });
                Ok(())
            }
            SourceEvent::GuestEnded => self.on_guest_ended(),
            progress => self.on_progress(now, progress),
        }
    }

    /// Lets limits pass that lie in the past.
    fn expire(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|limit| now < limit) {
            return;
        }
        match self.state {
            SourceState::Greeting { .. } | SourceState::Measuring { .. } => {
                let within = self.config.greeting_within;
                let what = Text::clip("no answer to the greeting");
                self.fail_before_door(
                    Some(AbortReason::Deadline { what }),
                    FailureReason::GreetingTooLate { within },
                );
            }
            SourceState::Finalizing { .. } => {
                let within = self.config.ready_within();
                self.fail_before_door(
                    Some(AbortReason::ReadyTooLate),
                    FailureReason::ReadyTooLate { within },
                );
            }
            SourceState::AtDoor { .. } => self.doubt(DoorTrouble::Silent),
            _ => {}
        }
    }

    /// Ends the attempt with the guest here, unless it is decided or at the door.
    fn fail_before_door(&mut self, abort: Option<AbortReason>, reason: FailureReason) {
        if self.give_up(abort) {
            self.state = SourceState::Failed { reason: reason.clone() };
            self.push(SourceAction::Finish(Outcome::Failed(reason)));
        }
    }

    /// Says so to the target and lets the guest run, if the guest is still the source's to run.
    fn give_up(&mut self, abort: Option<AbortReason>) -> bool {
        let stage = self.state.stage();
        if matches!(stage, Stage::Door | Stage::Over) {
            return false;
        }
        // The guest first: the target can't run without COMMIT, and the guest stands still.
        if stage == Stage::Paused {
            self.push(SourceAction::ResumeGuest);
        }
        if let Some(reason) = abort.filter(|_| stage != Stage::Unlinked) {
            self.push(SourceAction::Send(Message::Abort(Abort { reason })));
        }
        true
    }

    /// The target broke the protocol.
    fn on_violation(&mut self, violation: ProtocolViolation) {
        match self.state.stage() {
            Stage::Unlinked | Stage::Before | Stage::Paused => {
                let abort = AbortReason::Violation { what: Text::clip(&violation.to_string()) };
                self.fail_before_door(Some(abort), FailureReason::Violation(violation));
            }
            // A liar's word moves nothing; an honest target still answers an inquiry.
            Stage::Door => {
                self.push(SourceAction::ReportViolation(violation.clone()));
                self.doubt(DoorTrouble::Violation(violation));
            }
            Stage::Over => self.push(SourceAction::ReportViolation(violation)),
        }
    }

    fn on_garbled(&mut self, violation: ProtocolViolation) {
        // When all is over, what still drips out of the connection matters to nobody.
        if self.state.stage() != Stage::Over {
            self.on_violation(violation);
        }
    }

    fn on_link_lost(&mut self, cause: String) {
        if self.state.stage() == Stage::Door {
            self.doubt(DoorTrouble::LinkLost { cause });
        } else {
            self.fail_before_door(None, FailureReason::LinkLost { cause });
        }
    }

    /// COMMIT is sent and its fate unknown: ask. Once; the engine repeats it.
    fn doubt(&mut self, trouble: DoorTrouble) {
        if let SourceState::AtDoor { ids, .. } = self.state {
            self.state = SourceState::Unconfirmed { ids, trouble: trouble.clone() };
            self.push(SourceAction::EnterUnconfirmed { trouble });
            self.push(SourceAction::Inquire(Inquire {
                receiver_id: ids.receiver_id,
                session: ids.session,
                epoch: self.config.epoch,
            }));
        }
    }

    fn on_inquiry_answered(&mut self, report: VerdictReport) -> Result<(), EventRefused> {
        match self.state.stage() {
            Stage::Door => {
                self.on_verdict(report);
                Ok(())
            }
            // An inquiry that was under way when the door closed behind it.
            Stage::Over => Ok(()),
            Stage::Unlinked | Stage::Before | Stage::Paused => Err(self.unexpected("Verdict")),
        }
    }

    /// The target's word, at the door, on whichever connection.
    fn on_verdict(&mut self, report: VerdictReport) {
        let (SourceState::AtDoor { ids, .. } | SourceState::Unconfirmed { ids, .. }) = &self.state else {
            return;
        };
        if (ids.receiver_id, ids.session) != (report.receiver_id, report.session) {
            self.on_violation(ProtocolViolation::WrongSession);
            return;
        }
        match report.verdict {
            Verdict::Aborted => self.take_back(FailureReason::GivenBack),
            Verdict::Running { epoch } if epoch == self.config.epoch => {
                self.hand_over(Confirmation::Verdict);
            }
            Verdict::Running { epoch } => {
                self.on_violation(ProtocolViolation::WrongEpoch { expected: self.config.epoch, got: epoch })
            }
            Verdict::Unknown => {}
        }
    }

    /// The guest comes back through the door.
    fn take_back(&mut self, reason: FailureReason) {
        self.push(SourceAction::ResumeGuest);
        self.state = SourceState::Failed { reason: reason.clone() };
        self.push(SourceAction::Finish(Outcome::Failed(reason)));
    }

    fn hand_over(&mut self, by: Confirmation) {
        if by != Confirmation::Person {
            // So that the target need not wait for questions any more.
            self.push(SourceAction::Send(Message::Confirmed(Confirmed { epoch: self.config.epoch })));
        }
        self.state = SourceState::HandedOver { by };
        self.push(SourceAction::Finish(Outcome::HandedOver(by)));
    }

    fn on_cancel(&mut self) -> Result<(), EventRefused> {
        match self.state.stage() {
            Stage::Door => Err(EventRefused::PastTheDoor),
            Stage::Over if self.standing() == SourceStanding::Released => Err(EventRefused::PastTheDoor),
            _ => {
                if self.give_up(Some(AbortReason::Cancelled)) {
                    self.state = SourceState::Cancelled;
                    self.push(SourceAction::Finish(Outcome::Cancelled));
                }
                Ok(())
            }
        }
    }

    fn on_resolve(&mut self, resolution: Resolution) -> Result<(), EventRefused> {
        let SourceState::Unconfirmed { .. } = self.state else {
            let state = self.state.name();
            return Err(EventRefused::NothingToResolve { state });
        };
        match resolution {
            Resolution::ResumeHere => self.take_back(FailureReason::TakenBack),
            Resolution::Discard => self.hand_over(Confirmation::Person),
        }
        Ok(())
    }

    fn on_guest_ended(&mut self) -> Result<(), EventRefused> {
        match self.state {
            // A guest that stands still can't end.
            SourceState::Finalizing { .. } | SourceState::AtDoor { .. } | SourceState::Unconfirmed { .. } => {
                Err(self.unexpected("GuestEnded"))
            }
            _ => {
                if self.state.stage() == Stage::Over {
                    return Ok(());
                }
                if self.state.stage() != Stage::Unlinked {
                    let reason = AbortReason::GuestEnded;
                    self.push(SourceAction::Send(Message::Abort(Abort { reason })));
                }
                self.state = SourceState::GuestEnded;
                self.push(SourceAction::Finish(Outcome::GuestEnded));
                Ok(())
            }
        }
    }

    fn unexpected(&self, event: &'static str) -> EventRefused {
        EventRefused::Unexpected { event, state: self.state.name() }
    }

    fn push(&mut self, action: SourceAction) {
        self.actions.push_back(action);
    }
}
