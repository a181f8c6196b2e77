//! The source of a migration: one thread that feeds the protocol's state machine and does what it asks
//! for, and helpers that wait for the network.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use godwit_vmm::PAGE_SIZE;
use godwit_vmm::memory::PageBitmap;

use super::guest::{PauseRefused, SourceGuest};
use super::handover::HandOver;
use super::inquiry::{self, Inquirer};
use super::report::{Phase, Progress, SourceReport};
use super::streams::{self, Sent, StreamContext, StreamDone, Streams};
use crate::convergence::{Convergence, Decision, FixedCost, RoundMeasure};
use crate::ownership::Epoch;
use crate::protocol::data::ready_checksum;
use crate::protocol::source::{Confirmation, Outcome, Resolution};
use crate::protocol::{
    Blob, FinalState, Inquire, Message, Running, Source, SourceAction, SourceConfig, SourceEvent,
    SourceState, VerdictReport, VmName, Welcome,
};
use crate::ram::{Pass, RoundWork, TransferCounters};
use crate::transport::{Address, ControlError, ControlReader, ControlWriter, Link, Shaper};

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

    fn start_round(&mut self, round: u32) {
        let layout = self.context.ram.layout().clone();
        let work = if round == 1 {
            if let Err(e) = self.context.dirty_log.start() {
                return self.later(local(e.to_string()));
            }
            let fixed = FixedCost {
                round_trip: self.core.round_trip().unwrap_or(Duration::ZERO),
                rehearsal: self.rehearsal,
            };
            self.convergence = Some(Convergence::new(self.options.max_downtime, fixed));
            self.dirty_since = Instant::now();
            self.dirty = layout.ranges().iter().map(|r| PageBitmap::empty(r.pages())).collect();
            RoundWork::first(&layout)
        } else {
            let empty = layout.ranges().iter().map(|r| PageBitmap::empty(r.pages())).collect();
            RoundWork { round, pass: Pass::Live, pages: std::mem::replace(&mut self.dirty, empty) }
        };
        self.dispatch(work);
    }

    fn dispatch(&mut self, work: RoundWork) {
        let Some(streams) = &self.streams else { return };
        self.context.counters.round_pages_done.store(0, Ordering::Relaxed);
        self.round = Some(RoundUnderWay {
            round: work.round,
            began: Instant::now(),
            sent: vec![None; usize::from(self.options.streams)],
            pages: work.count(),
        });
        streams.send(&Arc::new(work));
    }

    fn on_stream_done(&mut self, done: StreamDone) {
        let sent = match done.result {
            Ok(sent) => sent,
            Err(crate::ram::SendError::Stopped) => return,
            Err(crate::ram::SendError::Link(e)) => {
                return self.handle(link_lost(format!("data stream: {e}")));
            }
            Err(e) => return self.handle(local(e.to_string())),
        };
        let Some(round) = self.round.as_mut().filter(|r| r.round == done.round) else { return };
        round.sent[usize::from(done.stream)] = Some(sent);
        let Some(all) = round.sent.iter().copied().collect::<Option<Vec<_>>>() else { return };
        tracing::debug!(at = ?self.began.elapsed(), round = done.round, pages = round.pages, "round sent");
        let batches_per_stream = all.iter().map(|sent| sent.batches).collect();
        let number = round.round;
        match self.final_state.take() {
            None => self.handle(SourceEvent::RoundSent { round: number, batches_per_stream }),
            Some((state, saved_at)) => {
                let digests: Vec<_> = all.iter().map(|sent| sent.digest).collect();
                self.send_state(number, state, saved_at, batches_per_stream, &digests);
            }
        }
    }

    /// The last message before COMMIT.
    fn send_state(
        &mut self,
        final_round: u32,
        state: Vec<u8>,
        saved_at: Instant,
        batches_per_stream: Vec<u64>,
        digests: &[u64],
    ) {
        let checksum = ready_checksum(&state, digests);
        // What the message needs on its way belongs to the time that the guest stands still.
        let on_its_way = self.core.round_trip().unwrap_or(Duration::ZERO) / 2;
        let paused_for_us = micros(saved_at.elapsed() + on_its_way);
        let state = FinalState { state: Blob(state), final_round, batches_per_stream, paused_for_us };
        self.handle(SourceEvent::FinalSaved(state));
        self.handle(SourceEvent::FinalSent { checksum });
    }

    /// The target has the guest's memory already.
    fn send_state_alone(&mut self, round: u32) {
        match self.guest.save() {
            Ok((state, saved_at)) => {
                let batches = self.no_batches();
                self.send_state(round, state, saved_at, batches, &[]);
            }
            Err(what) => self.later(local(what)),
        }
    }

    fn no_batches(&self) -> Vec<u64> {
        vec![0; usize::from(self.options.streams)]
    }

    /// The target has a whole round: what is dirty now decides what comes next.
    fn on_round_applied(&mut self, round: u32, bytes: u64) {
        let Some(under_way) = self.round.as_ref().filter(|r| r.round == round) else { return };
        let took = under_way.began.elapsed();
        let dirty_for = self.dirty_since.elapsed();
        self.dirty_since = Instant::now();
        if let Err(what) = self.fetch_dirty() {
            return self.later(local(what));
        }
        let dirty_pages = self.dirty.iter().map(PageBitmap::count).sum();
        let Some(convergence) = &mut self.convergence else { return };
        let measure = RoundMeasure { bytes, took, dirty_pages, dirty_for };
        let decision = convergence.after_round(measure);
        tracing::debug!(round, ?measure, ?decision, "round applied");
        self.later(match decision {
            Decision::Stop => SourceEvent::StopDecided,
            Decision::AnotherRound => SourceEvent::AnotherRoundDecided,
        });
    }

    /// Adds what the log knows to what is known to be dirty. The legacy log forgets what it has told.
    fn fetch_dirty(&mut self) -> Result<(), String> {
        for (index, known) in self.dirty.iter_mut().enumerate() {
            let mut fetched = PageBitmap::empty(known.pages());
            self.context.dirty_log.fetch(index, &mut fetched).map_err(|e| e.to_string())?;
            known.union_with(&fetched);
        }
        Ok(())
    }

    fn pause(&mut self) {
        match self.guest.pause() {
            Ok(at) => {
                self.paused_at = Some(at);
                self.later(SourceEvent::GuestPaused);
            }
            Err(PauseRefused::GuestEnded) => self.later(SourceEvent::GuestEnded),
        }
    }

    fn send_final(&mut self, round: u32) {
        if let Err(what) = self.fetch_dirty() {
            return self.later(local(what));
        }
        let pages = std::mem::take(&mut self.dirty);
        // The streams send while this thread reads the state.
        self.dispatch(RoundWork { round, pass: Pass::Last, pages });
        match self.guest.save() {
            Ok(saved) => self.final_state = Some(saved),
            Err(what) => self.later(local(what)),
        }
    }

    fn resume(&mut self) {
        if let Err(what) = self.guest.resume() {
            tracing::error!(%what, "the guest could not be resumed");
        }
        self.downtime = self.paused_at.map(|at| at.elapsed());
    }

    /// A person says that the guest does not run over there. The target may know better, if it answers:
    /// its word comes first.
    fn ask_before_resuming(&mut self) {
        self.read_record_of_dead_target();
        let (address, inputs, inquire) = (self.options.target.clone(), self.inputs.clone(), self.inquire);
        self.spawn("ask", move || {
            if let Some(Ok(report)) = inquire.map(|inquire| inquiry::ask(&address, inquire)) {
                let _ = inputs.send(Input::Event(SourceEvent::Verdict(report)));
            }
            let _ = inputs.send(Input::ResumeHere);
        });
    }

    fn inquire(&mut self, inquire: Inquire) {
        self.inquire = Some(inquire);
        match Inquirer::start(self.options.target.clone(), inquire, self.inputs.clone()) {
            Ok(inquirer) => self.inquirer = Some(inquirer),
            Err(error) => tracing::error!(%error, "cannot start a thread that asks the target"),
        }
    }

    /// A target on this host that was killed has left its word: in the memory that it shares with us,
    /// or in its state file.
    fn read_record_of_dead_target(&mut self) {
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

    /// Queues an event behind the actions that are being done.
    fn later(&self, event: SourceEvent) {
        let _ = self.inputs.send(Input::Event(event));
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(e) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
            self.later(local(format!("cannot start a thread: {e}")));
        }
    }

    fn tell_progress(&mut self) {
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

    fn report(&self, outcome: Option<Outcome>) -> SourceReport {
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

    /// From the first vCPU stopped here until the vCPUs were let go there. `Running` itself may be late:
    /// the guest runs by then, and competes with whoever writes and reads it. So COMMIT's way is counted,
    /// and what the target says it took from there. Nothing can have been later than now.
    fn blackout(&self, running: Option<Running>) -> Option<Duration> {
        let by_now = self.paused_at?.elapsed();
        let (Some(running), Some(committed_at)) = (running, self.committed_at) else { return Some(by_now) };
        let on_its_way = self.core.round_trip().unwrap_or(Duration::ZERO) / 2;
        let until_commit = committed_at.saturating_duration_since(self.paused_at?);
        Some((until_commit + on_its_way + Duration::from_micros(running.door_us)).min(by_now))
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

fn phase(state: &SourceState) -> Phase {
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

fn describe(state: &SourceState) -> &'static str {
    match phase(state) {
        Phase::Connecting => "being reached",
        Phase::Preparing => "building the machine",
        Phase::Precopy => "receiving memory",
        Phase::StopAndCopy => "receiving the last state",
        Phase::Committing => "taking over",
    }
}

fn outcome_running(outcome: &Outcome) -> Option<Running> {
    match outcome {
        Outcome::HandedOver(Confirmation::Running(running)) => Some(*running),
        _ => None,
    }
}

fn link_lost(cause: String) -> SourceEvent {
    SourceEvent::LinkLost { cause }
}

fn local(what: String) -> SourceEvent {
    SourceEvent::LocalFailure { what }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
