//! One session of a receiver: feeds the protocol's state machine and does what it asks for.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use godwit_vmm::machine::IncomingMemory;
use godwit_vmm::memory::GuestRam;

use super::guest::TargetGuest;
use super::receiver::{Input, SessionNumber};
use crate::protocol::data::ready_checksum;
use crate::protocol::target::InquirerId;
use crate::protocol::{
    FinalState, Hello, Inquire, Message, RefusalReason, RoundEnd, SessionId, StreamHello, StreamWelcome,
    Target, TargetAction, TargetConfig, TargetEvent, TargetState, Text, Verdict,
};
use crate::ram::{StreamReceiver, StreamRoundEnd};
use crate::transport::{ControlError, ControlReader, ControlWriter, Link, StartedWord};

/// Rounds that a stream may be ahead of the control connection; more is a peer that plays.
const ROUNDS_AHEAD_MAX: usize = 16;
/// How long a message to the source may take to be written.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// How long a source may say nothing while the target waits for it to go on.
const SILENT_WITHIN: Duration = Duration::from_secs(10);

/// A source that has not asked again this long after it was answered has heard the answer.
const ASKS_AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// What happens to a session from outside of its own thread.
#[derive(Debug)]
pub(super) enum SessionInput {
    /// A message of the source, and when it was read.
    Message(Message, Instant),
    /// The control connection brings no more.
    ControlEnded { event: TargetEvent },
    /// A round has ended on a stream.
    StreamRound { stream: u16, end: StreamRoundEnd },
    /// A stream brings no more.
    StreamEnded { stream: u16, cause: String },
}

/// How a session goes on after an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It goes on.
    UnderWay,
    /// The guest runs here; inquiries are still answered.
    Running,
    /// The guest runs here and the source knows it.
    Confirmed,
    /// It is over, and never runs.
    Over,
}

pub(super) struct Session {
    number: SessionNumber,
    id: SessionId,
    core: Target,
    began: Instant,
    inputs: SyncSender<Input>,
    control: Option<ControlWriter<Link>>,
    control_link: Link,
    ram: Option<Arc<GuestRam>>,
    /// Shared with the source, where memory is handed over instead of copied.
    started: Option<StartedWord>,
    streams: Vec<Option<Stream>>,
    streams_asked: bool,
    expected: VecDeque<RoundEnd>,
    last: Option<(FinalState, Instant)>,
    inquirers: Vec<(InquirerId, Link)>,
    source_knows: bool,
    answered_at: Option<Instant>,
    heard_at: Instant,
    committed_at: Option<Instant>,
    ran_at: Option<Instant>,
}

struct Stream {
    link: Link,
    ended: VecDeque<StreamRoundEnd>,
}

impl Session {
    /// Begins a session with the source that said `hello`.
    pub(super) fn begin(
        number: SessionNumber,
        config: TargetConfig,
        hello: Hello,
        reader: ControlReader<Link>,
        link: Link,
        inputs: SyncSender<Input>,
        guest: &mut dyn TargetGuest,
    ) -> std::io::Result<Self> {
        link.set_read_timeout(None)?;
        link.set_write_timeout(Some(WRITE_WITHIN))?;
        spawn_control(number, reader, inputs.clone())?;
        let mut session = Self {
            number,
            id: config.session,
            core: Target::new(Duration::ZERO, config),
            began: Instant::now(),
            inputs,
            control: Some(ControlWriter::new(link.try_clone()?)),
            control_link: link,
            ram: None,
            started: None,
            streams: Vec::new(),
            streams_asked: false,
            expected: VecDeque::new(),
            last: None,
            inquirers: Vec::new(),
            source_knows: false,
            answered_at: None,
            heard_at: Instant::now(),
            committed_at: None,
            ran_at: None,
        };
        session.handle(TargetEvent::Message(Message::Hello(hello)), guest);
        Ok(session)
    }

    pub(super) fn number(&self) -> SessionNumber {
        self.number
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// When to come back with [`tick`](Self::tick) if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let core = self.core.poll_timeout().map(|at| self.began + at);
        core.into_iter().chain(self.silent_until()).chain(self.asked_until()).min()
    }

    pub(super) fn tick(&mut self, guest: &mut dyn TargetGuest) {
        if self.silent_until().is_some_and(|until| Instant::now() >= until) {
            let what = format!("the source said nothing for {} s", SILENT_WITHIN.as_secs());
            self.handle(TargetEvent::LocalFailure { what }, guest);
        }
        if self.asked_until().is_some_and(|until| Instant::now() >= until) {
            self.source_knows = true;
        }
        self.handle(TargetEvent::Tick, guest);
    }

    /// A source asks every few seconds until it has heard the answer. One that has been told and does not
    /// ask again knows, or is no more.
    fn asked_until(&self) -> Option<Instant> {
        self.answered_at.filter(|_| !self.source_knows).map(|at| at + ASKS_AGAIN_WITHIN)
    }

    /// This side stops, and says so to the source if that still can have its guest back.
    pub(super) fn stop(&mut self, guest: &mut dyn TargetGuest) {
        let what = "the receiver was stopped".to_owned();
        self.handle(TargetEvent::LocalFailure { what }, guest);
    }

    /// A stranger that says Hello and then nothing must not keep others out for ever.
    fn silent_until(&self) -> Option<Instant> {
        let waiting =
            matches!(self.core.state(), TargetState::AwaitMachine { .. } | TargetState::AwaitStreams { .. });
        waiting.then_some(self.heard_at + SILENT_WITHIN)
    }

    pub(super) fn standing(&self) -> Standing {
        match self.core.state() {
            TargetState::Running { .. } if self.source_knows => Standing::Confirmed,
            TargetState::Running { .. } => Standing::Running,
            TargetState::Aborted { .. } => Standing::Over,
            _ => Standing::UnderWay,
        }
    }

    pub(super) fn take(&mut self, input: SessionInput, guest: &mut dyn TargetGuest) {
        self.heard_at = Instant::now();
        match input {
            SessionInput::Message(message, at) => {
                match &message {
                    Message::FinalState(state) => self.last = Some((state.clone(), at)),
                    Message::Commit(_) => self.committed_at = Some(at),
                    _ => {}
                }
                self.handle(TargetEvent::Message(message), guest);
            }
            SessionInput::ControlEnded { event } => self.handle(event, guest),
            SessionInput::StreamRound { stream, end } => {
                if let Some(Some(stream)) = self.streams.get_mut(usize::from(stream)) {
                    stream.ended.push_back(end);
                }
                if self.streams.iter().flatten().any(|s| s.ended.len() > ROUNDS_AHEAD_MAX) {
                    let what = "a data stream ran too far ahead".to_owned();
                    return self.handle(TargetEvent::LocalFailure { what }, guest);
                }
                self.check_rounds(guest);
            }
            SessionInput::StreamEnded { stream, cause } => {
                // Once the last pages are here, streams have done their work: their end must not make a
                // COMMIT unheard that is on the control connection already.
                if !self.all_pages_are_here() {
                    let cause = format!("data stream {stream}: {cause}");
                    self.handle(TargetEvent::LinkLost { cause }, guest);
                }
            }
        }
    }

    /// A data connection has introduced itself with this session's id.
    pub(super) fn take_stream(&mut self, hello: StreamHello, link: Link, guest: &mut dyn TargetGuest) {
        let refused = !self.streams_asked
            || usize::from(hello.streams) != self.streams.len()
            || self.streams.get(usize::from(hello.index)).is_none_or(Option::is_some);
        if refused {
            let refusal = Message::Refused(RefusalReason::NoSuchSession);
            // Who is refused may be gone already.
            let _ = ControlWriter::new(link).write(&refusal);
            return;
        }
        match self.start_stream(hello.index, &link) {
            Ok(()) => {
                self.streams[usize::from(hello.index)] = Some(Stream { link, ended: VecDeque::new() });
                if self.streams.iter().all(Option::is_some) {
                    self.handle(TargetEvent::StreamsOpen, guest);
                }
            }
            Err(cause) => self.handle(TargetEvent::LinkLost { cause }, guest),
        }
    }

    /// Someone asks about this or another session on a fresh connection.
    pub(super) fn take_inquiry(
        &mut self,
        from: InquirerId,
        inquire: Inquire,
        link: Link,
        guest: &mut dyn TargetGuest,
    ) {
        self.inquirers.push((from, link));
        self.handle(TargetEvent::Inquiry { from, inquire }, guest);
    }

    fn start_stream(&self, index: u16, link: &Link) -> Result<(), String> {
        let ram = self.ram.clone().ok_or("no machine is built")?;
        let text = |e: std::io::Error| e.to_string();
        link.set_read_timeout(None).map_err(text)?;
        ControlWriter::new(link)
            .write(&Message::StreamWelcome(StreamWelcome { index }))
            .map_err(|e| e.to_string())?;
        let reading = link.try_clone().map_err(text)?;
        let mut receiver = StreamReceiver::new(reading, ram).map_err(|e| e.to_string())?;
        let (number, inputs) = (self.number, self.inputs.clone());
        std::thread::Builder::new()
            .name(format!("recv{index}"))
            .spawn(move || {
                loop {
                    let received = receiver.receive_round();
                    let over = received.is_err();
                    let input = match received {
                        Ok(end) => SessionInput::StreamRound { stream: index, end },
                        Err(e) => SessionInput::StreamEnded { stream: index, cause: e.to_string() },
                    };
                    if inputs.send(Input::Session(number, input)).is_err() || over {
                        return;
                    }
                }
            })
            .map_err(text)?;
        Ok(())
    }

    fn handle(&mut self, event: TargetEvent, guest: &mut dyn TargetGuest) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Err(refused) = self.core.handle(self.began.elapsed(), event) {
                tracing::debug!(%refused, "event refused");
            }
            while let Some(action) = self.core.poll_action() {
                events.extend(self.act(action, guest));
            }
        }
    }

    /// Does one thing; what follows from it is an event for after the other actions.
    fn act(&mut self, action: TargetAction, guest: &mut dyn TargetGuest) -> Option<TargetEvent> {
        tracing::debug!(at = ?self.began.elapsed(), action = action.name(), "target");
        match action {
            TargetAction::Send(mut message) => {
                if let Message::Running(running) = &mut message {
                    running.door_us = self.door_us().unwrap_or(running.door_us);
                }
                let writer = self.control.as_mut()?;
                let error = writer.write(&message).err()?;
                self.control = None;
                Some(TargetEvent::LinkLost { cause: error.to_string() })
            }
            TargetAction::NoteSource(hello) => {
                self.streams = (0..hello.streams).map(|_| None).collect();
                None
            }
            TargetAction::Build { description } => Some(match self.build(&description.0, guest) {
                Ok(rehearsal) => TargetEvent::Built { rehearsal },
                Err(reason) => TargetEvent::BuildFailed(reason),
            }),
            TargetAction::AcceptStreams { .. } if self.started.is_some() => Some(TargetEvent::StreamsOpen),
            TargetAction::AcceptStreams { .. } => {
                self.streams_asked = true;
                None
            }
            TargetAction::ExpectRound(end) => {
                self.expected.push_back(end);
                self.next_round()
            }
            TargetAction::Restore(_) => self.restore_when_complete(guest),
            TargetAction::RecordRunning { epoch } => Some(match guest.record_running(self.id, epoch) {
                Ok(()) => {
                    if let Some(started) = &self.started {
                        started.mark(epoch);
                    }
                    TargetEvent::RunningRecorded
                }
                Err(what) => TargetEvent::RecordFailed { what },
            }),
            TargetAction::RunGuest { epoch } => {
                self.ran_at = guest.run(epoch);
                None
            }
            TargetAction::NoteSourceKnows => {
                self.source_knows = true;
                None
            }
            TargetAction::AnswerInquiry { to, report } => {
                if matches!(report.verdict, Verdict::Running { .. }) {
                    self.answered_at = Some(Instant::now());
                }
                if let Some(at) = self.inquirers.iter().position(|(id, _)| *id == to) {
                    let (_, link) = self.inquirers.swap_remove(at);
                    // Who asked and is gone asks again.
                    let _ = ControlWriter::new(link).write(&Message::Verdict(report));
                }
                None
            }
            TargetAction::ReportViolation(violation) => {
                tracing::warn!(%violation, "the source broke the protocol");
                None
            }
            TargetAction::Discard { reason } => {
                self.close();
                guest.discard(&reason);
                None
            }
        }
    }

    fn build(&mut self, description: &[u8], guest: &mut dyn TargetGuest) -> Result<Duration, RefusalReason> {
        let memory = if self.control_link.hands_over_memory() {
            let lacks = |what: &str| RefusalReason::CannotBuild { what: Text::clip(what) };
            let [ram, word] = <[OwnedFd; 2]>::try_from(self.control_link.take_fds())
                .map_err(|_| lacks("the source did not hand over the guest's memory"))?;
            self.started = Some(StartedWord::adopt(word).map_err(|e| lacks(&e.to_string()))?);
            IncomingMemory::HandedOver(ram)
        } else {
            IncomingMemory::Fresh
        };
        let built = guest.build(description, memory)?;
        self.ram = Some(built.ram);
        Ok(built.rehearsal)
    }

    fn check_rounds(&mut self, guest: &mut dyn TargetGuest) {
        while let Some(event) = self.next_round() {
            self.handle(event, guest);
        }
        if matches!(self.core.state(), TargetState::Restoring { .. })
            && let Some(event) = self.restore_when_complete(guest)
        {
            self.handle(event, guest);
        }
    }

    /// The next announced round, once it has ended on every stream.
    fn next_round(&mut self) -> Option<TargetEvent> {
        let expected = self.expected.front()?;
        let (round, counts) = (expected.round, expected.batches_per_stream.clone());
        let ends = self.pop_round(round, &counts)?;
        self.expected.pop_front();
        Some(match ends {
            Ok(ends) => TargetEvent::RoundApplied { round, bytes: ends.iter().map(|end| end.bytes).sum() },
            Err(what) => TargetEvent::LocalFailure { what },
        })
    }

    /// Restores the state once the last pages are in guest RAM, and every round before them.
    fn restore_when_complete(&mut self, guest: &mut dyn TargetGuest) -> Option<TargetEvent> {
        if !self.expected.is_empty() {
            return None;
        }
        let (state, _) = self.last.as_ref()?;
        let (round, counts) = (state.final_round, state.batches_per_stream.clone());
        let ends = self.pop_round(round, &counts)?;
        let (state, read_at) = self.last.take()?;
        // Nothing may write into this memory any more: it is about to be a running guest's.
        self.close_streams();
        let ends = match ends {
            Ok(ends) => ends,
            Err(what) => return Some(TargetEvent::RestoreFailed { what }),
        };
        let digests: Vec<_> = ends.iter().map(|end| end.digest).collect();
        let checksum = ready_checksum(&state.state.0, &digests);
        let begin = Instant::now();
        let saved_ago = Duration::from_micros(state.paused_for_us) + read_at.elapsed();
        Some(match guest.restore(&state.state.0, saved_ago) {
            Ok(()) => TargetEvent::Restored { checksum, took: begin.elapsed() },
            Err(what) => TargetEvent::RestoreFailed { what },
        })
    }

    /// Takes the end of `round` off every stream, once it is there on all of them.
    fn pop_round(&mut self, round: u32, batches: &[u64]) -> Option<Result<Vec<StreamRoundEnd>, String>> {
        if self.started.is_some() {
            let none = batches.iter().all(|batches| *batches == 0);
            let played = || format!("round {round} has batches, and no stream could bring them");
            return Some(if none { Ok(Vec::new()) } else { Err(played()) });
        }
        if !self.streams.iter().all(|s| s.as_ref().is_some_and(|s| !s.ended.is_empty())) {
            return None;
        }
        let ends: Vec<_> =
            self.streams.iter_mut().flatten().filter_map(|stream| stream.ended.pop_front()).collect();
        let fits = ends.iter().all(|end| end.round == round)
            && ends.iter().map(|end| end.batches).eq(batches.iter().copied());
        Some(if fits { Ok(ends) } else { Err(format!("round {round} is not what the source announced")) })
    }

    /// From COMMIT read to the guest's first step, as it really was: the state machine cannot know how long
    /// a busy host takes to let a thread run.
    fn door_us(&self) -> Option<u64> {
        let took = self.ran_at?.saturating_duration_since(self.committed_at?);
        u64::try_from(took.as_micros()).ok()
    }

    fn all_pages_are_here(&self) -> bool {
        match self.core.state() {
            TargetState::AwaitCommit { .. } | TargetState::Recording { .. } | TargetState::Running { .. } => {
                true
            }
            TargetState::Restoring { .. } => {
                self.last.is_none() || self.streams.iter().flatten().all(|stream| !stream.ended.is_empty())
            }
            TargetState::Aborted { .. } => true,
            _ => false,
        }
    }

    fn close_streams(&mut self) {
        for stream in self.streams.iter().flatten() {
            stream.link.shutdown(Shutdown::Both);
        }
        self.streams.clear();
    }

    /// Ends every connection of this session, so that the threads that read them end.
    fn close(&mut self) {
        // What is said is said: the source reads it before it sees the end.
        self.control_link.shutdown(Shutdown::Write);
        self.control = None;
        self.close_streams();
        self.ram = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control_link.shutdown(Shutdown::Both);
        self.close_streams();
    }
}

fn spawn_control(
    number: SessionNumber,
    mut reader: ControlReader<Link>,
    inputs: SyncSender<Input>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        loop {
            let input = match reader.read() {
                Ok(message) => SessionInput::Message(message, Instant::now()),
                Err(ControlError::Codec(error)) => {
                    SessionInput::ControlEnded { event: TargetEvent::Garbled(error) }
                }
                Err(error) => {
                    let cause = error.to_string();
                    SessionInput::ControlEnded { event: TargetEvent::LinkLost { cause } }
                }
            };
            let over = matches!(input, SessionInput::ControlEnded { .. });
            if inputs.send(Input::Session(number, input)).is_err() || over {
                return;
            }
        }
    })?;
    Ok(())
}
