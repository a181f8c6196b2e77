//! A connection between source and target: TCP between hosts, a unix socket on one host, over which
//! file descriptors travel too.

use std::fmt;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::tcp;

/// File descriptors that one message may bring: guest RAM and the started word.
pub const FDS_MAX: usize = 2;

/// Where a receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Tcp(address) => tcp::connect(address).map(Link::Tcp),
            Self::Unix(path) => UnixStream::connect(path).map(Link::unix),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Link {
    /// To any host.
    Tcp(TcpStream),
    /// To a process of this host; file descriptors that were received and not yet taken.
    Unix(UnixStream, Arc<Mutex<Vec<OwnedFd>>>),
}

impl Link {
    /// A unix connection that has brought no file descriptor yet.
    #[must_use]
    pub fn unix(stream: UnixStream) -> Self {
        Self::Unix(stream, Arc::default())
    }

    /// Whether file descriptors can travel on it, so that memory is handed over and not copied.
    #[must_use]
    pub fn hands_over_memory(&self) -> bool {
        matches!(self, Self::Unix(..))
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream, fds) => Self::Unix(stream.try_clone()?, Arc::clone(fds)),
        })
    }

    /// Bounds how long a read may take.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_read_timeout(&self, within: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(within),
            Self::Unix(stream, _) => stream.set_read_timeout(within),
        }
    }

    /// Bounds how long a write may take.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_write_timeout(&self, within: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(within),
            Self::Unix(stream, _) => stream.set_write_timeout(within),
        }
    }

    /// Switches between waiting and not waiting.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Self::Unix(stream, _) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Ends it, in one direction or both. One that is ended already stays so.
    pub fn shutdown(&self, how: Shutdown) {
        // The one error is that there is no connection any more.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream, _) => stream.shutdown(how),
        };
    }

    /// The file descriptors that came with what was read so far.
    #[must_use]
    pub fn take_fds(&self) -> Vec<OwnedFd> {
        match self {
            Self::Tcp(_) => Vec::new(),
            Self::Unix(_, fds) => std::mem::take(&mut *fds.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Sends file descriptors, with the first of `bytes`; returns how many bytes went out.
    ///
    /// # Errors
    /// The connection is no unix socket, or breaks.
    pub fn send_with_fds(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let Self::Unix(stream, _) = self else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "file descriptors travel on unix sockets only",
            ));
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many file descriptors for one message",
            ));
        }
        Ok(sendmsg(stream, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
    }

    /// The process at the other end of a unix socket, by a file descriptor that stays its own even when
    /// its pid is given away: who connected, or who called `listen`.
    ///
    /// # Errors
    /// It is no unix socket, or the process is gone.
    pub fn peer_process(&self) -> io::Result<OwnedFd> {
        let Self::Unix(stream, _) = self else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "only unix sockets tell who is there"));
        };
        let peer = rustix::net::sockopt::socket_peercred(stream)?;
        Ok(rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty())?)
    }
}

impl Read for &Link {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Tcp(stream) => (&mut &*stream).read(bytes),
            Link::Unix(stream, fds) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let received =
                    recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
                let mut fds = fds.lock().unwrap_or_else(PoisonError::into_inner);
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(came) = message {
                        // More than a message may bring are closed at once.
                        for fd in came {
                            if fds.len() < FDS_MAX {
                                fds.push(fd);
                            }
                        }
                    }
                }
                Ok(received.bytes)
            }
        }
    }
}

impl Write for &Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Tcp(stream) => (&mut &*stream).write(bytes),
            Link::Unix(stream, _) => (&mut &*stream).write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Link::Tcp(stream) => (&mut &*stream).write_vectored(slices),
            Link::Unix(stream, _) => (&mut &*stream).write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Link {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(bytes)
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&mut &*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRef<Link> for Link {
    fn as_ref(&self) -> &Link {
        self
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream, _) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_descriptors_arrive_with_the_bytes_they_were_sent_with() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, mut theirs) = (Link::unix(ours), Link::unix(theirs));
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(ours.send_with_fds(b"hello", &[file.as_fd()]).unwrap(), 5);
        let mut bytes = [0; 5];
        theirs.read_exact(&mut bytes).unwrap();
        let fds = theirs.try_clone().unwrap().take_fds();
        assert_eq!((&bytes, fds.len()), (b"hello", 1));
        assert!(theirs.take_fds().is_empty());
    }

    #[test]
    fn a_flood_of_file_descriptors_is_bounded() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, mut theirs) = (Link::unix(ours), Link::unix(theirs));
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        for _ in 0..20 {
            ours.send_with_fds(b"x", &[file.as_fd(), file.as_fd()]).unwrap();
        }
        let mut bytes = [0; 20];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(theirs.take_fds().len(), FDS_MAX);
    }

    #[test]
    fn the_peer_of_a_unix_socket_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Link::unix(ours).peer_process().is_ok());
    }
}
