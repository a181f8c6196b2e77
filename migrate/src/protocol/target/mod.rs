//! The target of a move: owns nothing until COMMIT, and everything from then on.
//!
//! COMMIT with exactly the session's epoch, received after `Ready` was sent, is all that leads
//! to the guest running here. Once a session is aborted nothing revives it, so `aborted` may be
//! told to anyone who asks.
//!
//! Sessions that are over need no list: a source has the receiver's id from a `Welcome` of this
//! very process, so any session of this receiver other than the present one is over and aborted
//! (session ids are random and never given twice). Only an inquiry that names another receiver
//! is answered `Unknown`.

mod event;
mod progress;
mod state;

#[cfg(test)]
mod table_test;

pub use event::{DiscardReason, InquirerId, TargetAction, TargetConfig, TargetEvent};
pub use state::{Agreed, TargetState};

use super::message::{Abort, AbortReason, Inquire, Message, ReceiverId, Verdict, VerdictReport};
use super::text::Text;
use super::violation::{EventRefused, ProtocolViolation};
use crate::ownership::TargetStanding;
use std::collections::VecDeque;
use std::time::Duration;

/// How many rounds may have ended and not be applied.
pub const ROUNDS_UNAPPLIED_MAX: u32 = super::source::ROUNDS_UNACKED_MAX;
/// How many inquiries wait for the decision; further ones are answered `Unknown` and asked again.
pub const INQUIRERS_MAX: usize = 16;

/// The answer of a receiver that has no session, neither under way nor running.
pub fn verdict_without_session(receiver_id: ReceiverId, inquire: &Inquire) -> VerdictReport {
    let verdict = if inquire.receiver_id == receiver_id { Verdict::Aborted } else { Verdict::Unknown };
    report(inquire, verdict)
}

fn report(inquire: &Inquire, verdict: Verdict) -> VerdictReport {
    VerdictReport { receiver_id: inquire.receiver_id, session: inquire.session, verdict }
}

/// The state machine of a target, for one session. Feed it with [`handle`](Target::handle), then
/// do all that [`poll_action`](Target::poll_action) returns, in order, before the next event. Keep
/// it while the guest runs: it answers inquiries.
#[derive(Debug, Clone)]
pub struct Target {
    config: TargetConfig,
    state: TargetState,
    actions: VecDeque<TargetAction>,
}

impl Target {
    /// For a control connection that was opened just now.
    pub fn new(now: Duration, config: TargetConfig) -> Target {
        let until = now.saturating_add(config.hello_within);
        Target { config, state: TargetState::AwaitHello { until }, actions: VecDeque::new() }
    }

    /// Where it is.
    pub fn state(&self) -> &TargetState {
        &self.state
    }

    /// What it may do with the guest.
    pub fn standing(&self) -> TargetStanding {
        self.state.standing()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<TargetAction> {
        self.actions.pop_front()
    }

    /// When to come back with [`TargetEvent::Tick`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            TargetState::AwaitHello { until } | TargetState::AwaitCommit { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Takes an event. An error means that the event was refused and changed nothing. A time
    /// limit that has passed counts before the event does.
    pub fn handle(&mut self, now: Duration, event: TargetEvent) -> Result<(), EventRefused> {
        self.expire(now);
        match event {
            TargetEvent::Tick => Ok(()),
            TargetEvent::Message(message) => {
                self.on_message(now, message);
                Ok(())
            }
            TargetEvent::Garbled(error) => {
                if self.standing() != TargetStanding::Never {
                    self.on_violation(ProtocolViolation::Garbled(error));
                }
                Ok(())
            }
            TargetEvent::LinkLost { cause } => {
                self.abort(DiscardReason::LinkLost { cause });
                Ok(())
            }
            TargetEvent::LocalFailure { what } => {
                if self.holds_commit() {
                    return Err(EventRefused::OwnerAlready);
                }
                self.abort(DiscardReason::Local { what });
                Ok(())
            }
            TargetEvent::Inquiry { from, inquire } => {
                self.on_inquiry(from, &inquire);
                Ok(())
            }
            progress => self.on_progress(now, progress),
        }
    }

    fn expire(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|limit| now < limit) {
            return;
        }
        let reason = match self.state {
            TargetState::AwaitHello { .. } => {
                DiscardReason::HelloTooLate { within: self.config.hello_within }
            }
            _ => DiscardReason::CommitTooLate { within: self.config.commit_within },
        };
        self.abort(reason);
    }

    /// Whether COMMIT came: from then on the source can't take anything back.
    fn holds_commit(&self) -> bool {
        matches!(self.state, TargetState::Recording { .. } | TargetState::Running { .. })
    }

    /// Ends the session for good and says so, unless COMMIT came.
    fn abort(&mut self, reason: DiscardReason) {
        if self.holds_commit() || self.standing() == TargetStanding::Never {
            return;
        }
        self.tell_aborted(&reason);
        self.discard(reason);
    }

    /// Before `Ready` a session ends with an `Abort`. After it, COMMIT may be on its way, and
    /// then only a `Verdict` is the target's word.
    fn tell_aborted(&mut self, reason: &DiscardReason) {
        if let TargetState::AwaitCommit { .. } = self.state {
            self.send_verdict_aborted();
            return;
        }
        let reason = match reason {
            DiscardReason::LinkLost { .. }
            | DiscardReason::PeerAborted(_)
            | DiscardReason::HelloTooLate { .. } => return,
            DiscardReason::Refused(reason) => {
                self.push(TargetAction::Send(Message::Refused(reason.clone())));
                return;
            }
            DiscardReason::Violation(violation) => {
                AbortReason::Violation { what: Text::clip(&violation.to_string()) }
            }
            DiscardReason::CommitTooLate { .. }
            | DiscardReason::Inquired
            | DiscardReason::RestoreFailed { .. }
            | DiscardReason::RecordFailed { .. }
            | DiscardReason::Local { .. } => AbortReason::Failure { what: Text::clip(&reason.to_string()) },
        };
        self.push(TargetAction::Send(Message::Abort(Abort { reason })));
    }

    fn discard(&mut self, reason: DiscardReason) {
        self.state = TargetState::Aborted { reason: reason.clone() };
        self.push(TargetAction::Discard { reason });
    }

    fn send_verdict_aborted(&mut self) {
        let report = VerdictReport {
            receiver_id: self.config.receiver_id,
            session: self.config.session,
            verdict: Verdict::Aborted,
        };
        self.push(TargetAction::Send(Message::Verdict(report)));
    }

    /// The source broke the protocol.
    fn on_violation(&mut self, violation: ProtocolViolation) {
        if self.holds_commit() {
            self.push(TargetAction::ReportViolation(violation));
        } else {
            self.abort(DiscardReason::Violation(violation));
        }
    }

    fn on_inquiry(&mut self, from: InquirerId, inquire: &Inquire) {
        let about_this =
            (inquire.receiver_id, inquire.session) == (self.config.receiver_id, self.config.session);
        if !about_this {
            let report = verdict_without_session(self.config.receiver_id, inquire);
            self.push(TargetAction::AnswerInquiry { to: from, report });
            return;
        }
        let other_epoch = self.state.epoch().is_some_and(|epoch| epoch != inquire.epoch);
        let verdict = match &mut self.state {
            // Whoever asks this is not the source of the session.
            _ if other_epoch => Verdict::Unknown,
            TargetState::Running { epoch } => Verdict::Running { epoch: *epoch },
            // Undecided: the answer comes with the decision.
            TargetState::Recording { inquirers, .. } if inquirers.len() < INQUIRERS_MAX => {
                inquirers.push(from);
                return;
            }
            TargetState::Recording { .. } => Verdict::Unknown,
            // The source asks only after COMMIT, which is not here: it may never come. The
            // decision is made now and for good, before it is told.
            _ => {
                self.abort(DiscardReason::Inquired);
                Verdict::Aborted
            }
        };
        let report = report(inquire, verdict);
        self.push(TargetAction::AnswerInquiry { to: from, report });
    }

    fn unexpected(&self, event: &'static str) -> EventRefused {
        EventRefused::Unexpected { event, state: self.state.name() }
    }

    fn push(&mut self, action: TargetAction) {
        self.actions.push_back(action);
    }
}
