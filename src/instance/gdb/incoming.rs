//! What a session waits for: gdb's next packet, or a note.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frame::{Framer, Nonsense};
use super::mailbox::{Mailbox, Note};
use super::port::{Port, Stream};

/// Why nothing more can come.
#[derive(Debug, thiserror::Error)]
pub(super) enum IncomingError {
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("what came is not gdb's protocol: {0}")]
    Nonsense(#[from] Nonsense),
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Packet(Vec<u8>),
    Note(Note),
    /// gdb has closed the connection.
    Gone,
}

/// The receiving half of a connection, and all else that a session listens to.
#[derive(Debug)]
pub(super) struct Incoming<'s> {
    stream: Stream,
    framer: Framer,
    bytes: VecDeque<u8>,
    mailbox: &'s Mailbox,
    port: &'s Port,
}

impl<'s> Incoming<'s> {
    pub(super) fn new(stream: Stream, mailbox: &'s Mailbox, port: &'s Port) -> Self {
        Self { stream, framer: Framer::default(), bytes: VecDeque::new(), mailbox, port }
    }

    /// The first packet, which tells a gdb from anything else that connects; the guest is not disturbed
    /// before it is there. `None` if it does not come in time.
    pub(super) fn greeting(&mut self, within: Duration) -> Result<Option<Vec<u8>>, IncomingError> {
        let until = Instant::now() + within;
        while !self.mailbox.is_over() {
            match self.buffered()? {
                Some(packet) if packet.starts_with(b"$") => return Ok(Some(packet)),
                // Nothing runs for it that it could interrupt.
                Some(_) => continue,
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wait(Some(left))? == Some(0) {
                break;
            }
        }
        Ok(None)
    }

    /// Waits for what comes next. A note comes before a packet: it may end what the packet is about.
    pub(super) fn next(&mut self) -> Result<Next, IncomingError> {
        loop {
            if let Some(note) = self.mailbox.take() {
                return Ok(Next::Note(note));
            }
            if let Some(packet) = self.buffered()? {
                return Ok(Next::Packet(packet));
            }
            if self.wait(None)? == Some(0) {
                return Ok(Next::Gone);
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Vec<u8>>, Nonsense> {
        while let Some(byte) = self.bytes.pop_front() {
            if let Some(packet) = self.framer.push(byte)? {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    /// Waits until there may be something; how many bytes came, if any could: zero at the connection's end.
    fn wait(&mut self, within: Option<Duration>) -> io::Result<Option<usize>> {
        let timeout = within.and_then(|within| Timespec::try_from(within).ok());
        let mut fds = [
            PollFd::new(&self.stream, PollFlags::IN),
            PollFd::from_borrowed_fd(self.mailbox.wake(), PollFlags::IN),
            PollFd::new(self.port, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [from_gdb, _, another] = fds.map(|fd| !fd.revents().is_empty());
        if another {
            // One at a time: who comes meanwhile is told at once, by the end of its connection.
            drop(self.port.accept());
        }
        if !from_gdb {
            return Ok(None);
        }
        let mut some = [0; 4096];
        let count = self.stream.read(&mut some)?;
        self.bytes.extend(&some[..count]);
        Ok(Some(count))
    }
}
