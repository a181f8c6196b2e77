//! The API's unix socket: created for its owner only, replaced when stale, removed at the end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long another process may hold the directory's lock while it binds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Why the API socket can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Somebody answers there.
    #[error("can't listen on {}: another process serves it; give another --api or --name, or stop that one", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is at that path.
    #[error("can't listen on {}: it exists and is not a socket; give another --api path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Unix socket paths are limited to 107 bytes.
    #[error("can't listen on {}: a socket's path has at most 107 bytes; give a shorter --api path, --name or GODWIT_RUNTIME_DIR", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't listen on {}: {source}; check that the directory exists and is yours", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening API socket. Dropping it removes the socket file, if it is still this one.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    path: Mutex<PathBuf>,
    listener: UnixListener,
    device_and_inode: (u64, u64),
}

impl ApiSocket {
    /// Binds and listens. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the path is in use, too long, or not to be had.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let io = |source: io::Error| BindError::Io { path: path.to_owned(), source };
        let address = SocketAddrUnix::new(path).map_err(|errno| match errno {
            Errno::NAMETOOLONG => BindError::PathTooLong { path: path.to_owned() },
            other => io(other.into()),
        })?;
        // Two processes that both find a stale file must not remove each other's new one: the
        // check and the bind happen under the directory's lock.
        let _lock = lock_directory_of(path).map_err(io)?;
        remove_stale(path)?;

        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|errno| io(errno.into()))?;
        // Linux gives the file the socket's own mode (less the umask), so it is never open to
        // others, not even between bind and a chmod.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|errno| io(errno.into()))?;
        rustix::net::bind(&socket, &address).map_err(|errno| io(errno.into()))?;
        let metadata = fs::symlink_metadata(path).map_err(io)?;
        let bound = Self {
            path: Mutex::new(path.to_owned()),
            listener: UnixListener::from(socket),
            device_and_inode: (metadata.dev(), metadata.ino()),
        };
        rustix::net::listen(&bound.listener, 64).map_err(|errno| io(errno.into()))?;
        Ok(bound)
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on at another path, in the place of whatever socket is there: at no moment does a client
    /// find none.
    ///
    /// # Errors
    /// When the file cannot be moved there; then it stays where it is.
    pub(crate) fn move_to(&self, to: &Path) -> io::Result<()> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        fs::rename(&*path, to)?;
        to.clone_into(&mut path);
        Ok(())
    }

    /// Another handle of the listener, which does not block.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let path = self.path();
        let ours = fs::symlink_metadata(&path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.device_and_inode);
        if ours && let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "API socket not removed");
        }
    }
}

fn lock_directory_of(path: &Path) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::other("its directory is locked by another process"));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io = |source: io::Error| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Only this says for sure that nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(io(error)),
        Ok(_) | Err(_) => Err(BindError::InUse { path: path.to_owned() }),
    }
}
