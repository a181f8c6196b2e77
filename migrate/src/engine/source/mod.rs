//! The source of a migration: one thread that feeds the protocol's state machine and does what it asks
//! for, and helpers that wait for the network.

mod door;
mod memory;
mod progress;

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use godwit_vmm::memory::PageBitmap;

use crate::convergence::Convergence;
use crate::engine::guest::SourceGuest;
use crate::engine::handover::HandOver;
use crate::engine::inquiry::Inquirer;
use crate::engine::report::SourceReport;
use crate::engine::streams::{self, Sent, StreamContext, StreamDone, Streams};
use crate::ownership::Epoch;
use crate::protocol::source::{Outcome, Resolution};
use crate::protocol::{
    Blob, Inquire, Message, Source, SourceAction, SourceConfig, SourceEvent, SourceState, VmName, Welcome,
};
use crate::ram::TransferCounters;
use crate::transport::{Address, ControlError, ControlReader, ControlWriter, Link, Shaper};
use door::outcome_running;
use progress::describe;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long an answer to an inquiry is waited for before "unconfirmed" is told as a result.
const UNCONFIRMED_GRACE: Duration = Duration::from_secs(2);

/// What to move, where to, and within which limits.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Where the receiver is. On a unix socket memory is handed over, on TCP it is copied.
    pub target: Address,
    /// The guest's name.
    pub vm_name: VmName,
    /// The epoch burnt for this attempt; recorded before it is used.
    pub epoch: Epoch,
    /// How long the guest may stand still.
    pub max_downtime: Duration,
    /// How long the whole attempt may take.
    pub timeout: Duration,
    /// Limit of all data streams together.
    pub bytes_per_s: Option<u64>,
    /// Data streams.
    pub streams: u16,
}

/// What reaches the source's thread.
#[derive(Debug)]
pub(super) enum Input {
    /// For the state machine as it is.
    Event(SourceEvent),
    /// The control connection is open.
    Connected(Link),
    /// The data connections are open.
    StreamsOpen(Vec<Link>),
    /// A stream has sent its share of a round.
    StreamDone(StreamDone),
    /// A person wants the guest back, and the target was asked once more.
    ResumeHere,
}

/// Lets other threads talk to a migration under way.
#[derive(Debug, Clone)]
pub struct SourceRemote {
    inputs: Sender<Input>,
}

impl SourceRemote {
    /// Asks for the migration to be given up. Its outcome tells whether that came in time.
    pub fn cancel(&self) {
        // An ended migration needs no cancelling.
        let _ = self.inputs.send(Input::Event(SourceEvent::Cancel));
    }

    /// A person's word on a guest that is handed over, unconfirmed.
    pub fn resolve(&self, resolution: Resolution) {
        let _ = self.inputs.send(Input::Event(SourceEvent::Resolve(resolution)));
    }

    /// The guest powered off, reset or crashed.
    pub fn guest_ended(&self) {
        let _ = self.inputs.send(Input::Event(SourceEvent::GuestEnded));
    }
}

/// A migration that is about to start.
#[derive(Debug)]
pub struct SourceMigration {
    options: SourceOptions,
    inputs: Sender<Input>,
    receiver: Receiver<Input>,
}

impl SourceMigration {
    /// With these options; nothing happens until [`run`](Self::run).
    #[must_use]
    pub fn new(options: SourceOptions) -> Self {
        let (inputs, receiver) = mpsc::channel();
        Self { options, inputs, receiver }
    }

    /// For other threads to talk to it.
    #[must_use]
    pub fn remote(&self) -> SourceRemote {
        SourceRemote { inputs: self.inputs.clone() }
    }

    /// Moves the guest. Returns when it is decided who runs it; before that the guest runs here, or is
    /// paused at the door.
    pub fn run(self, guest: &mut dyn SourceGuest) -> SourceReport {
        let Self { options, inputs, receiver } = self;
        let mut engine = Engine::new(options, inputs, guest);
        engine.connect();
        let outcome = engine.serve(&receiver);
        engine.finish(outcome)
    }
}

struct Engine<'g> {
    options: SourceOptions,
    inputs: Sender<Input>,
    guest: &'g mut dyn SourceGuest,
    core: Source,
    began: Instant,
    control: Option<Control>,
    target: Option<Welcome>,
    /// Where memory is handed over instead of copied.
    hand_over: Option<HandOver>,
    context: StreamContext,
    streams: Option<Streams>,
    convergence: Option<Convergence>,
    rehearsal: Duration,
    round: Option<RoundUnderWay>,
    /// Pages known to be dirty, of which the log may know nothing any more.
    dirty: Vec<PageBitmap>,
    dirty_since: Instant,
    final_state: Option<(Vec<u8>, Instant)>,
    paused_at: Option<Instant>,
    committed_at: Option<Instant>,
    downtime: Option<Duration>,
    inquire: Option<Inquire>,
    inquirer: Option<Inquirer>,
    unconfirmed: Unconfirmed,
    last_progress: (Instant, u64),
    outcome: Option<Outcome>,
}

struct Control {
    writer: ControlWriter<Link>,
    link: Link,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Also wakes the thread that reads it.
        self.link.shutdown(Shutdown::Both);
    }
}

struct RoundUnderWay {
    round: u32,
    began: Instant,
    sent: Vec<Option<Sent>>,
    pages: u64,
}

/// Whether the person has been told that the hand-over is unconfirmed.
enum Unconfirmed {
    No,
    Since { tell_at: Instant },
    Told,
}

impl<'g> Engine<'g> {
    fn new(mut options: SourceOptions, inputs: Sender<Input>, guest: &'g mut dyn SourceGuest) -> Self {
        if let Address::Unix(_) = options.target {
            options.streams = 1;
        }
        let description = Blob(guest.description());
        let mut config =
            SourceConfig::new(options.vm_name.clone(), options.epoch, options.max_downtime, description);
        config.streams = options.streams;
        let context = StreamContext {
            ram: guest.ram(),
            dirty_log: guest.dirty_log(),
            shaper: Arc::new(Shaper::new(options.bytes_per_s)),
            counters: Arc::new(TransferCounters::default()),
        };
        let now = Instant::now();
        Self {
            options,
            inputs,
            guest,
            core: Source::new(config),
            began: now,
            control: None,
            target: None,
            hand_over: None,
            context,
            streams: None,
            convergence: None,
            rehearsal: Duration::ZERO,
            round: None,
            dirty: Vec::new(),
            dirty_since: now,
            final_state: None,
            paused_at: None,
            committed_at: None,
            downtime: None,
            inquire: None,
            inquirer: None,
            unconfirmed: Unconfirmed::No,
            last_progress: (now, 0),
            outcome: None,
        }
    }

    /// Reaches for the target without making anyone wait for it.
    fn connect(&mut self) {
        let (address, inputs) = (self.options.target.clone(), self.inputs.clone());
        let spawned = std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
            let input = match address.connect() {
                Ok(link) => Input::Connected(link),
                Err(e) => Input::Event(local(format!(
                    "cannot connect to {address}: {e}; check that `godwit receive --listen {address}` runs there"
                ))),
            };
            // An attempt that ended meanwhile drops the connection, which is what it wants.
            let _ = inputs.send(input);
        });
        if let Err(e) = spawned {
            self.handle(SourceEvent::LocalFailure { what: format!("cannot start a thread: {e}") });
        }
    }

    fn serve(&mut self, receiver: &Receiver<Input>) -> Outcome {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            match receiver.recv_timeout(self.next_wake().saturating_duration_since(Instant::now())) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the engine holds a sender itself"),
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(SourceEvent::Message(message)) => self.take_message(message),
            Input::Event(SourceEvent::Resolve(Resolution::ResumeHere)) => self.ask_before_resuming(),
            Input::ResumeHere => self.handle(SourceEvent::Resolve(Resolution::ResumeHere)),
            Input::Event(event) => self.handle(event),
            Input::Connected(link) => self.on_connected(link),
            Input::StreamsOpen(links) => match Streams::start(links, &self.context, &self.inputs) {
                Ok(streams) => {
                    self.streams = Some(streams);
                    self.handle(SourceEvent::StreamsOpen);
                }
                Err(e) => self.handle(local(format!("cannot start a thread: {e}"))),
            },
            Input::StreamDone(done) => self.on_stream_done(done),
        }
    }

    fn take_message(&mut self, message: Message) {
        if let Message::Prepared(prepared) = &message {
            self.rehearsal = Duration::from_micros(prepared.rehearsal_us);
        }
        self.handle(SourceEvent::Message(message));
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if let Unconfirmed::Since { tell_at } = self.unconfirmed
            && now >= tell_at
        {
            self.unconfirmed = Unconfirmed::Told;
            let report = self.report(None);
            self.guest.still_unconfirmed(&report);
        }
        if matches!(self.core.state(), SourceState::Unconfirmed { .. }) {
            self.read_record_of_dead_target();
        } else if now >= self.deadline() && self.deadline_counts() {
            let what = self.why_too_late();
            self.handle(SourceEvent::DeadlineReached { what });
        } else {
            self.handle(SourceEvent::Tick);
        }
        self.tell_progress();
    }

    /// The time limit is for copying; once the guest is paused, `Ready` has a tighter one of its own.
    fn deadline_counts(&self) -> bool {
        !matches!(
            self.core.state(),
            SourceState::Finalizing { .. } | SourceState::AtDoor { .. } | SourceState::Unconfirmed { .. }
        )
    }

    fn deadline(&self) -> Instant {
        self.began + self.options.timeout
    }

    fn why_too_late(&self) -> String {
        let within = self.options.timeout.as_secs_f64();
        let why = match &self.convergence {
            Some(convergence) => convergence.why_not_converging(),
            None => format!("the target was still {}", describe(self.core.state())),
        };
        format!("not done within {within} s: {why}")
    }

    fn next_wake(&self) -> Instant {
        let core = self.core.poll_timeout().map(|at| self.began + at);
        let tell = match self.unconfirmed {
            Unconfirmed::Since { tell_at } => Some(tell_at),
            _ => None,
        };
        let progress = Some(self.last_progress.0 + PROGRESS_EVERY);
        let deadline = self.deadline_counts().then(|| self.deadline());
        [core, tell, progress, deadline].into_iter().flatten().min().unwrap_or(self.began)
    }

    /// Feeds the state machine and does what it asks for.
    fn handle(&mut self, event: SourceEvent) {
        if let Err(refused) = self.core.handle(self.began.elapsed(), event) {
            tracing::debug!(%refused, "event refused");
        }
        while let Some(action) = self.core.poll_action() {
            self.act(action);
        }
    }

    fn act(&mut self, action: SourceAction) {
        tracing::debug!(at = ?self.began.elapsed(), action = action.name(), "source");
        match action {
            SourceAction::Send(message) => self.send(&message),
            SourceAction::NoteTarget(welcome) => self.target = Some(welcome),
            // Memory that is handed over needs no streams and no rounds; what is said stays the same.
            SourceAction::OpenStreams { .. } if self.hand_over.is_some() => {
                self.later(SourceEvent::StreamsOpen)
            }
            SourceAction::OpenStreams { session, streams } => {
                let (address, inputs) = (self.options.target.clone(), self.inputs.clone());
                self.spawn("open", move || {
                    let input = match streams::open(&address, session, streams) {
                        Ok(links) => Input::StreamsOpen(links),
                        Err(cause) => Input::Event(link_lost(cause)),
                    };
                    let _ = inputs.send(input);
                });
            }
            SourceAction::StartRound { round } if self.hand_over.is_some() => {
                self.round = Some(RoundUnderWay { round, began: Instant::now(), sent: Vec::new(), pages: 0 });
                let batches_per_stream = self.no_batches();
                self.later(SourceEvent::RoundSent { round, batches_per_stream });
            }
            SourceAction::StartRound { round } => self.start_round(round),
            SourceAction::NoteRoundApplied { .. } if self.hand_over.is_some() => {
                self.later(SourceEvent::StopDecided);
            }
            SourceAction::NoteRoundApplied { round, bytes } => self.on_round_applied(round, bytes),
            SourceAction::PauseGuest => self.pause(),
            SourceAction::SendFinal { round } if self.hand_over.is_some() => self.send_state_alone(round),
            SourceAction::SendFinal { round } => self.send_final(round),
            SourceAction::ResumeGuest => self.resume(),
            SourceAction::EnterUnconfirmed { trouble } => {
                self.unconfirmed = Unconfirmed::Since { tell_at: Instant::now() + UNCONFIRMED_GRACE };
                self.guest.unconfirmed(&trouble);
            }
            SourceAction::Inquire(inquire) => self.inquire(inquire),
            SourceAction::ReportViolation(violation) => {
                tracing::warn!(%violation, "the target broke the protocol");
            }
            SourceAction::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    fn on_connected(&mut self, link: Link) {
        let prepared = || -> io::Result<(ControlReader<Link>, Control, Option<HandOver>)> {
            let hand_over = link.hands_over_memory().then(|| HandOver::with(&link)).transpose()?;
            let reader = ControlReader::of_peer(link.try_clone()?);
            Ok((reader, Control { writer: ControlWriter::new(link.try_clone()?), link }, hand_over))
        };
        match prepared() {
            Ok((mut reader, control, hand_over)) => {
                self.hand_over = hand_over;
                let inputs = self.inputs.clone();
                self.spawn("control", move || {
                    loop {
                        let event = match reader.read() {
                            Ok(message) => SourceEvent::Message(message),
                            Err(ControlError::Codec(error)) => SourceEvent::Garbled(error),
                            Err(error) => link_lost(error.to_string()),
                        };
                        let over = !matches!(event, SourceEvent::Message(_));
                        if inputs.send(Input::Event(event)).is_err() || over {
                            return;
                        }
                    }
                });
                self.control = Some(control);
                self.handle(SourceEvent::Connected);
            }
            Err(e) => self.handle(link_lost(e.to_string())),
        }
    }

    fn send(&mut self, message: &Message) {
        let write_within = self.options.max_downtime.saturating_mul(3).max(Duration::from_millis(100));
        let Some(control) = &mut self.control else { return };
        if matches!(message, Message::Commit(_)) {
            self.committed_at = Some(Instant::now());
        }
        let written = match (message, &self.hand_over) {
            (Message::Machine(_), Some(hand_over)) => {
                let fds = [self.context.ram.file(), hand_over.word().fd()];
                control.writer.write_with_fds(message, &fds)
            }
            // A target that takes nothing, or little by little, must not keep the guest paused: a write
            // that does not finish within the time for Ready is a lost link.
            _ => control.writer.write_before(message, Instant::now() + write_within),
        };
        if let Err(error) = written {
            self.control = None;
            // After the actions that are still to be done: an event must not overtake them.
            let _ = self.inputs.send(Input::Event(link_lost(error.to_string())));
        }
    }

    /// Queues an event behind the actions that are being done.
    fn later(&self, event: SourceEvent) {
        let _ = self.inputs.send(Input::Event(event));
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(e) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            self.later(local(format!("cannot start a thread: {e}")));
        }
    }

    /// Leaves nothing behind: no thread that waits, no dirty log that costs the guest anything.
    fn finish(mut self, outcome: Outcome) -> SourceReport {
        if matches!(outcome, Outcome::HandedOver(_)) {
            self.downtime = self.blackout(outcome_running(&outcome));
        }
        self.inquirer = None;
        self.streams = None;
        // An orderly end: the target learns from it that its `Running` was read.
        self.control = None;
        if !matches!(outcome, Outcome::HandedOver(_))
            && self.round.is_some()
            && self.hand_over.is_none()
            && let Err(error) = self.context.dirty_log.stop()
        {
            tracing::warn!(%error, "the dirty log could not be turned off; it costs the guest a little");
        }
        self.report(Some(outcome))
    }
}

fn link_lost(cause: String) -> SourceEvent {
    SourceEvent::LinkLost { cause }
}

fn local(what: String) -> SourceEvent {
    SourceEvent::LocalFailure { what }
}
