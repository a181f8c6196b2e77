//! Standard input as the guest's keyboard: raw while it is a terminal, until `Ctrl-]`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::outputs::{OutputError, Typist, spawn};
use crate::instance::process::say;

/// `Ctrl-]`.
const LEAVE: u8 = 0x1d;

/// Standard input in raw mode. Dropping it restores what it was.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    restorer: Restorer,
}

/// Restores the terminal, once.
#[derive(Debug, Clone)]
pub(crate) struct Restorer {
    before: Box<Termios>,
    restored: Arc<AtomicBool>,
}

impl RawTerminal {
    /// Switches standard input to raw mode, if it is a terminal.
    pub(crate) fn of_stdin() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output is still text of ours as well: keep the carriage return that goes with each new line.
        raw.output_modes = before.output_modes;
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        let restorer = Restorer { before: Box::new(before), restored: Arc::new(AtomicBool::new(false)) };
        Some(Self { restorer })
    }

    pub(crate) fn restorer(&self) -> Restorer {
        self.restorer.clone()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restorer.restore();
    }
}

impl Restorer {
    fn restore(&self) {
        if !self.restored.swap(true, Ordering::SeqCst) {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
        }
    }
}

/// A thread that types what comes from standard input into the guest.
#[derive(Debug)]
pub(super) struct StdinReader {
    /// Closing it ends the thread.
    stop: OwnedFd,
    thread: JoinHandle<Vec<u8>>,
}

impl StdinReader {
    /// Types `typed` before anything else.
    pub(super) fn start(
        typist: Typist,
        terminal: Option<Restorer>,
        typed: Vec<u8>,
    ) -> Result<Self, OutputError> {
        let (stopped, stop) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| OutputError::Thread(errno.into()))?;
        let thread = spawn("stdin", move || {
            let taken = typist(&typed);
            if taken < typed.len() {
                return typed[taken..].to_vec();
            }
            read_stdin(&typist, terminal.as_ref(), &stopped)
        })?;
        Ok(Self { stop, thread })
    }

    /// Reads no more, and gives back what was read and not taken. The guest must not be here any more:
    /// what is being typed is waited for.
    pub(super) fn stop(self) -> Vec<u8> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// Types until the input ends or `stopped` does. The end of the input does not stop the guest; `Ctrl-]` on
/// a terminal gives the terminal back and leaves the guest running.
fn read_stdin(typist: &Typist, terminal: Option<&Restorer>, stopped: &OwnedFd) -> Vec<u8> {
    let stdin = rustix::stdio::stdin();
    let mut bytes = [0; 4096];
    loop {
        let mut fds = [PollFd::from_borrowed_fd(stdin, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Vec::new(),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Vec::new(),
        }
        let count = match rustix::io::read(stdin, &mut bytes) {
            Ok(0) => return Vec::new(),
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Vec::new(),
        };
        let typed = &bytes[..count];
        let end = terminal.and_then(|_| typed.iter().position(|byte| *byte == LEAVE));
        let typed = &typed[..end.unwrap_or(count)];
        let taken = typist(typed);
        if taken < typed.len() {
            return typed[taken..].to_vec();
        }
        if let (Some(_), Some(terminal)) = (end, terminal) {
            terminal.restore();
            say("the guest runs on without this keyboard; Ctrl-C ends it");
            return Vec::new();
        }
    }
}
