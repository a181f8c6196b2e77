//! The new process, as the old one sees it.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use godwit_api::registry::RuntimeDir;
use godwit_api::{ApiError, ErrorCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::vm::{Origin, Vm};
use crate::cli::DirtyLogArg;

/// How long the new process may take until it can receive a guest.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile: it may have ended.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long it may take to read what was typed; it is on this host and does nothing else.
const TYPED_WITHIN: Duration = Duration::from_secs(2);

/// A process that is ready to take this one's guest.
#[derive(Debug)]
pub(crate) struct Successor {
    child: Child,
    /// Closed when this process has let go of the serial port.
    link: UnixStream,
    listen: String,
}

impl Successor {
    /// Starts `binary` (else this process's own file) as this process is set up, and waits until it
    /// can receive.
    pub(crate) fn start(vm: &Vm, binary: Option<&Path>) -> Result<Self, ApiError> {
        let failed = |what: String| ApiError::new(ErrorCode::Internal, what, "the guest runs on as before");
        let binary = binary.map_or_else(own_binary, |path| Ok(path.to_owned()));
        let binary = binary.map_err(|error| failed(format!("cannot find this program's file: {error}")))?;
        let directory = RuntimeDir::open().map_err(|error| failed(error.to_string()))?;
        let place = |what: &str| directory.path().join(format!("{}.{what}", std::process::id()));
        let meeting = Meeting::open(place("leaving"))
            .map_err(|error| failed(format!("cannot make a socket for the new process: {error}")))?;
        let listen = format!("unix:{}", place("arriving").display());

        // If this process stays behind, a successor's successor is to be its child, too.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed(format!("cannot become the parent of what comes after: {error}")))?;
        let launch = vm.launch();
        let mut command = Command::new(&binary);
        command.args(["receive", "--listen", &listen, "--serial", &launch.serial.to_string()]);
        command.args(["--dirty-log", DirtyLogArg::from(launch.dirty_log).as_str()]);
        command.arg("--takes-over").arg(&meeting.path);
        if let Some(api) = &launch.api {
            command.arg("--takes-api").arg(api);
        }
        if vm.status().origin == Origin::Booted {
            command.arg("--booted-here");
        }
        let mut child = command.spawn().map_err(|error| {
            ApiError::new(
                ErrorCode::BadRequest,
                format!("cannot start {}: {error}", binary.display()),
                "give the path of a godwit binary that this VM's user may execute",
            )
        })?;
        match meeting.wait(&mut child) {
            Ok(link) => Ok(Self { child, link, listen }),
            Err(why) => {
                // It has no guest.
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(format!(
                    "{} was started as the new process and {why}; its messages are where this VM's are",
                    binary.display()
                )))
            }
        }
    }

    /// Where it waits for the guest.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It did not get the guest, and is of no use.
    pub(crate) fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The serial port is its own from now on; `typed` is what the guest has not taken yet.
    pub(crate) fn let_go(mut self, typed: &[u8]) {
        let sent = self
            .link
            .set_write_timeout(Some(TYPED_WITHIN))
            .and_then(|()| self.link.write_all(typed))
            .and_then(|()| self.link.shutdown(Shutdown::Both));
        if let Err(error) = sent {
            tracing::warn!(%error, bytes = typed.len(), "what was typed last did not reach the new process");
        }
    }
}

/// The file of this program, or what has taken its place since it was started.
fn own_binary() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // So the kernel shows a file that was replaced or removed.
    Ok(match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(replaced) => replaced.into(),
        None => path,
    })
}

/// Where the new process says that it is ready; removed when dropped.
struct Meeting {
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    fn open(path: PathBuf) -> std::io::Result<Self> {
        // The directory is this user's alone and the name has this process's number: what is there is
        // left over from an earlier one.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener })
    }

    fn wait(&self, child: &mut Child) -> Result<UnixStream, String> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            match self.listener.accept() {
                Ok((link, _)) => return Ok(link),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("could not be heard: {error}")),
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("ended before it could receive ({status})"));
            }
            if Instant::now() >= until {
                return Err(format!("could not receive within {} s", READY_WITHIN.as_secs()));
            }
            let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
            // An error shows in the next round.
            let _ = poll(&mut listener, Some(&LOOK_EVERY));
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
