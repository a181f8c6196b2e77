//! A receiver: listens, tells control connections, data streams, inquiries and strangers apart, and
//! serves one session at a time until one of them ends with the guest running here.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver as Channel, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use thiserror::Error;

use super::guest::TargetGuest;
use super::listener::Listener;
use super::target::{Session, SessionInput, Standing};
use crate::protocol::target::{InquirerId, verdict_without_session};
use crate::protocol::{
    Hello, Inquire, Message, ReceiverId, RefusalReason, SessionId, StreamHello, TargetConfig,
};
use crate::transport::{Address, ControlReader, ControlWriter, Link};

/// Connections that may be saying who they are at the same time; further ones are closed.
const STRANGERS_MAX: usize = 64;
/// How long a connection may take to say who it is.
const INTRODUCTION_WITHIN: Duration = Duration::from_secs(5);
/// How long accepting rests after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Messages that may wait for the receiver's loop. Who sends more waits: a message may have 64 MiB.
const INPUTS_WAITING_MAX: usize = 8;
/// How long the loop sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a receiver cannot serve.
#[derive(Debug, Error)]
pub enum ReceiverError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address or port, or end what uses it")]
    Listen {
        /// The address.
        address: Address,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refuses something that any process has.
    #[error("cannot receive: {0}")]
    System(#[from] io::Error),
}

/// Numbers the sessions of one receiver, so that what comes late from an old one is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionNumber(u64);

/// What reaches the receiver's loop.
pub(super) enum Input {
    Hello { hello: Hello, reader: ControlReader<Link>, link: Link },
    Stream { hello: StreamHello, link: Link },
    Inquiry { inquire: Inquire, link: Link },
    Session(SessionNumber, SessionInput),
    Stop,
}

/// A bound receiver.
#[derive(Debug)]
pub struct Receiver {
    listener: Listener,
    id: ReceiverId,
    inputs: SyncSender<Input>,
    channel: Channel<Input>,
}

/// Ends a receiver from another thread.
#[derive(Debug, Clone)]
pub struct ReceiverRemote {
    inputs: SyncSender<Input>,
}

impl ReceiverRemote {
    /// Stops listening. A session under way is given up; a guest that runs here is not touched.
    pub fn stop(&self) {
        let _ = self.inputs.send(Input::Stop);
    }
}

impl Receiver {
    /// Listens there; TCP port 0 picks a free one.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(address: &Address) -> Result<Self, ReceiverError> {
        let listener = Listener::bind(address)
            .map_err(|source| ReceiverError::Listen { address: address.clone(), source })?;
        let id = ReceiverId(random()?);
        let (inputs, channel) = mpsc::sync_channel(INPUTS_WAITING_MAX);
        Ok(Self { listener, id, inputs, channel })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Address {
        self.listener.address()
    }

    /// What it calls itself in every `Welcome`: who finds it beside a record knows whose that is.
    #[must_use]
    pub fn id(&self) -> ReceiverId {
        self.id
    }

    /// For other threads to end it.
    #[must_use]
    pub fn remote(&self) -> ReceiverRemote {
        ReceiverRemote { inputs: self.inputs.clone() }
    }

    /// Serves sessions until one ends with the guest running here *and* its source knows it, or until
    /// it is stopped. While the source may still ask, its inquiries are answered.
    ///
    /// # Errors
    /// The system refuses a thread or randomness.
    pub fn serve(self, guest: &mut dyn TargetGuest) -> Result<(), ReceiverError> {
        let Self { listener, id, inputs, channel } = self;
        let _acceptor = Acceptor::start(listener, inputs.clone())?;
        let mut serving = Serving { id, inputs, guest, session: None, sessions: 0, inquiries: 0 };
        serving.run(&channel)
    }
}

struct Serving<'g> {
    id: ReceiverId,
    inputs: SyncSender<Input>,
    guest: &'g mut dyn TargetGuest,
    session: Option<Session>,
    sessions: u64,
    inquiries: u64,
}

impl Serving<'_> {
    fn run(&mut self, channel: &Channel<Input>) -> Result<(), ReceiverError> {
        loop {
            let now = Instant::now();
            let wake = self.session.as_ref().and_then(Session::wake_at);
            match channel.recv_timeout(wake.map_or(IDLE, |at| at.saturating_duration_since(now))) {
                Ok(Input::Stop) => {
                    if let Some(session) = &mut self.session {
                        session.stop(self.guest);
                    }
                    return Ok(());
                }
                Ok(input) => self.take(input)?,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(session) = &mut self.session {
                        session.tick(self.guest);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            match self.session.as_ref().map(Session::standing) {
                Some(Standing::Over) => self.session = None,
                Some(Standing::Confirmed) => return Ok(()),
                Some(Standing::UnderWay | Standing::Running) | None => {}
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), ReceiverError> {
        match input {
            Input::Hello { hello, reader, link } => self.greet(hello, reader, link)?,
            Input::Stream { hello, link } => match &mut self.session {
                Some(session) if session.id() == hello.session => {
                    session.take_stream(hello, link, self.guest)
                }
                _ => refuse(&link, RefusalReason::NoSuchSession),
            },
            Input::Inquiry { inquire, link } => {
                self.inquiries += 1;
                match &mut self.session {
                    Some(session) => {
                        session.take_inquiry(InquirerId(self.inquiries), inquire, link, self.guest);
                    }
                    None => {
                        let report = verdict_without_session(self.id, &inquire);
                        // Who asked and is gone asks again.
                        let _ = ControlWriter::new(link).write(&Message::Verdict(report));
                    }
                }
            }
            Input::Session(number, input) => {
                if let Some(session) = self.session.as_mut().filter(|s| s.number() == number) {
                    session.take(input, self.guest);
                }
            }
            Input::Stop => {}
        }
        Ok(())
    }

    fn greet(
        &mut self,
        hello: Hello,
        mut reader: ControlReader<Link>,
        link: Link,
    ) -> Result<(), ReceiverError> {
        if self.session.is_some() {
            refuse(&link, RefusalReason::Busy);
            return Ok(());
        }
        let place = match self.guest.admit(&hello) {
            Ok(place) => place,
            Err(reason) => {
                tracing::warn!(%reason, "a source was refused");
                refuse(&link, reason);
                return Ok(());
            }
        };
        reader.introduced();
        self.sessions += 1;
        let config = TargetConfig::new(self.id, SessionId(random()?), place.host_boot_id, place.state_file);
        let number = SessionNumber(self.sessions);
        match Session::begin(number, config, hello, reader, link, self.inputs.clone(), self.guest) {
            Ok(session) => self.session = Some(session),
            Err(error) => tracing::warn!(%error, "a session could not begin"),
        }
        Ok(())
    }
}

fn refuse(link: &Link, reason: RefusalReason) {
    // Who is refused may be gone already.
    let _ = ControlWriter::new(link).write(&Message::Refused(reason));
}

/// The thread that accepts connections. Dropping it closes the listener.
struct Acceptor {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    fn start(listener: Listener, inputs: SyncSender<Input>) -> io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let thread = std::thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept_until(&listener, &stopped, &inputs))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_until(listener: &Listener, stopped: &UnixStream, inputs: &SyncSender<Input>) {
    let strangers = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for connections any more");
                return;
            }
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let (link, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                // Out of file descriptors, most likely: the connection waits, others may end meanwhile.
                tracing::warn!(%error, "a connection could not be accepted");
                std::thread::sleep(ACCEPT_AGAIN);
                continue;
            }
        };
        if strangers.fetch_add(1, Ordering::SeqCst) >= STRANGERS_MAX {
            strangers.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%peer, "too many connections at once; this one is closed");
            continue;
        }
        let (counted, inputs) = (Arc::clone(&strangers), inputs.clone());
        let spawned = std::thread::Builder::new().name("introduce".to_owned()).spawn(move || {
            match introduce(link) {
                // A receiver that has ended needs no connections.
                Ok(input) => drop(inputs.send(input)),
                Err(why) => tracing::warn!(%peer, "a connection was closed: {why}"),
            }
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = spawned {
            strangers.fetch_sub(1, Ordering::SeqCst);
            tracing::error!(%error, "cannot start a thread for a connection");
        }
    }
}

/// Reads the first message of a connection, which tells what it is for.
fn introduce(link: Link) -> Result<Input, String> {
    let text = |e: io::Error| e.to_string();
    link.set_nonblocking(false).map_err(text)?;
    link.set_write_timeout(Some(INTRODUCTION_WITHIN)).map_err(text)?;
    let mut reader = ControlReader::of_stranger(link.try_clone().map_err(text)?);
    match reader.read_before(Instant::now() + INTRODUCTION_WITHIN).map_err(|e| e.to_string())? {
        Message::Hello(hello) => Ok(Input::Hello { hello, reader, link }),
        Message::StreamHello(hello) => Ok(Input::Stream { hello, link }),
        Message::Inquire(inquire) => Ok(Input::Inquiry { inquire, link }),
        other => Err(format!("it began with {:?}", other.kind())),
    }
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
