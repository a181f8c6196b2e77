//! Where gdb connects, and the connection.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use godwit_api::TargetAddress;

/// A gdb that does not read is given up after this, so that nothing waits for it for ever.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// How long nothing is accepted after that has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Listens for gdb.
#[derive(Debug)]
pub(super) enum Port {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Port {
    pub(super) fn bind(address: &TargetAddress) -> io::Result<Self> {
        let port = match address {
            TargetAddress::Tcp { host, port } => Self::Tcp(TcpListener::bind((host.as_str(), *port))?),
            TargetAddress::Unix { path } => {
                let path = std::path::absolute(path)?;
                let port = Self::Unix(UnixListener::bind(&path)?, path.clone());
                // Who connects owns the guest.
                std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                port
            }
        };
        port.set_nonblocking()?;
        Ok(port)
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener, _) => listener.set_nonblocking(true),
        }
    }

    /// What gdb's `target remote` takes.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix(_, path) => path.display().to_string(),
        }
    }

    /// The next connection, if one waits.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        self.try_accept().inspect_err(|error| {
            if error.kind() != io::ErrorKind::WouldBlock {
                // The connection still waits (for a file descriptor, perhaps): not to be asked for without pause.
                std::thread::sleep(AFTER_FAILURE);
            }
        })
    }

    fn try_accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_WITHIN))?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener, _) => {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(WRITE_WITHIN))?;
                Stream::Unix(stream)
            }
        };
        Ok(stream)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
