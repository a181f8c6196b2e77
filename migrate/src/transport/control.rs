//! Framed messages on a connection: blocking reads and writes around the pure codec.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use thiserror::Error;

use super::link::Link;

use crate::protocol::{CodecError, Decoder, Message, encode};

/// Why no message could be read or written.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The connection ended between two messages.
    #[error("the other side closed the connection")]
    Closed,
    /// The connection ended inside a message.
    #[error("the connection ended in the middle of a message")]
    CutShort,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is not a message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Reads messages.
pub struct ControlReader<R> {
    link: R,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<R: Read> ControlReader<R> {
    /// Of a connection with a peer that is not known yet: only short introductions are read.
    pub fn of_stranger(link: R) -> Self {
        Self { link, decoder: Decoder::for_introduction(), buffer: vec![0; 64 << 10] }
    }

    /// Of a connection with a peer that is known.
    pub fn of_peer(link: R) -> Self {
        Self { decoder: Decoder::for_session(), ..Self::of_stranger(link) }
    }

    /// The peer is known from here on.
    pub fn introduced(&mut self) {
        self.decoder.introduced();
    }

    /// Waits for the next message. Reads no byte beyond it.
    ///
    /// # Errors
    /// The connection ends or breaks, or something else than a message comes.
    pub fn read(&mut self) -> Result<Message, ControlError> {
        self.read_each(|_| Ok(()))
    }

    /// Reads a message; `before` is called before each piece of it.
    fn read_each(&mut self, before: impl Fn(&R) -> io::Result<()>) -> Result<Message, ControlError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            before(&self.link)?;
            let want = self.decoder.wants_bytes().min(self.buffer.len());
            let read = match self.link.read(&mut self.buffer[..want]) {
                Ok(0) if self.decoder.is_between_frames() => return Err(ControlError::Closed),
                Ok(0) => return Err(ControlError::CutShort),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            // At most `wants_bytes` were read, which it takes whole.
            self.decoder.push(&self.buffer[..read])?;
        }
    }

    /// Waits for the next message until `deadline`, however slowly its bytes come.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and when the time is up.
    pub fn read_before(&mut self, deadline: Instant) -> Result<Message, ControlError>
    where
        R: AsRef<Link>,
    {
        self.read_each(|link| {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            link.as_ref().set_read_timeout(Some(left))
        })
    }
}

/// Writes messages.
pub struct ControlWriter<W> {
    link: W,
    buffer: Vec<u8>,
}

impl<W: Write> ControlWriter<W> {
    /// On this connection.
    pub fn new(link: W) -> Self {
        Self { link, buffer: Vec::new() }
    }

    /// Writes one message before `deadline`, however slowly the other side takes it.
    ///
    /// # Errors
    /// The connection breaks, or the time is up.
    pub fn write_before(&mut self, message: &Message, deadline: Instant) -> Result<(), ControlError>
    where
        W: AsRef<Link>,
    {
        self.buffer.clear();
        encode(message, &mut self.buffer)?;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.link.as_ref().set_write_timeout(Some(left))?;
            match self.link.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Writes one message, in one piece; file descriptors travel with it.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and if the connection carries no file descriptors.
    pub fn write_with_fds(&mut self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError>
    where
        W: AsRef<Link>,
    {
        self.buffer.clear();
        encode(message, &mut self.buffer)?;
        let sent = self.link.as_ref().send_with_fds(&self.buffer, fds)?;
        self.link.write_all(&self.buffer[sent..])?;
        self.link.flush()?;
        Ok(())
    }

    /// Writes one message, in one piece.
    ///
    /// # Errors
    /// The connection breaks, or the message is larger than its kind may be.
    pub fn write(&mut self, message: &Message) -> Result<(), ControlError> {
        self.buffer.clear();
        encode(message, &mut self.buffer)?;
        self.link.write_all(&self.buffer)?;
        self.link.flush()?;
        Ok(())
    }
}
