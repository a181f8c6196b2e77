//! Why a call failed, and what a person can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::ApiError;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket at that path.
    #[error("no VM listens on {}: there is no such socket; see `godwit ps`", socket.display())]
    NoSuchSocket {
        /// The path.
        socket: PathBuf,
    },
    /// The socket's process is gone.
    #[error("no VM listens on {}: its process is gone; see `godwit ps`", socket.display())]
    Refused {
        /// The path.
        socket: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("can't talk to the VM on {}: permission denied; run this as the user who started it", socket.display())]
    PermissionDenied {
        /// The path.
        socket: PathBuf,
    },
    /// No answer in time.
    #[error("no answer from the VM on {} within {} ms; see whether its process hangs (`godwit ps`)", socket.display(), after.as_millis())]
    Timeout {
        /// The path.
        socket: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The VM process refused, and says why.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The answer is not what this API answers.
    #[error("the answer on {} can't be understood: {what}; check that both ends are the same version of godwit", socket.display())]
    Malformed {
        /// The path.
        socket: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke, or could not be had.
    #[error("can't talk to the VM on {}: {source}; see `godwit ps`", socket.display())]
    Io {
        /// The path.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
}
