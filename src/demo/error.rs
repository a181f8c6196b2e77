//! Why the demo ended before its end.

use std::io;
use std::path::PathBuf;

use godwit_api::client::ClientError;

/// Each is one line: what failed, why, what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// No private directory.
    #[error("the demo needs a directory of its own: can't create {}: {source}; make room there, or set TMPDIR", path.display())]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Pipes, threads, or processes can't be had.
    #[error("the demo can't {action}: {source}; see `ulimit -a` and free memory")]
    System {
        /// What it wanted to do.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A process of the demo ended when it should not. Its own words are the best.
    #[error("the demo's `{command}` ended ({status}): {said}")]
    Ended {
        /// What it was.
        command: &'static str,
        /// How it ended.
        status: String,
        /// The last that it said.
        said: String,
    },
    /// A process of the demo never began; its own words say it all.
    #[error("{said}")]
    NotStarted {
        /// The last that it said.
        said: String,
    },
    /// Something took too long.
    #[error(
        "the demo gave up after {after_s} s while waiting for {what}; try again when the machine is less busy"
    )]
    TooSlow {
        /// The demo's whole time.
        after_s: u64,
        /// What it waited for.
        what: &'static str,
    },
    /// A VM process can't be talked to.
    #[error("{0}")]
    Api(#[from] ClientError),
    /// A move did not complete.
    #[error(
        "the guest did not move to {target} ({status}): {reason}; try again, or by hand as `godwit migrate --help` shows"
    )]
    NotMoved {
        /// Where to.
        target: String,
        /// How the migration ended.
        status: &'static str,
        /// Why.
        reason: String,
    },
    /// The answer lacks what the demo needs.
    #[error("{what}; report this as a bug")]
    Unexpected {
        /// What is wrong.
        what: String,
    },
    /// Ctrl-C.
    #[error("the demo was interrupted; its processes and files are gone")]
    Interrupted,
}
