//! `godwit console`: this terminal becomes the guest's serial line.
//!
//! On a terminal every key goes to the guest, Ctrl-C too; Ctrl-] leaves. With pipes the end of
//! stdin ends only the typing: output goes on until the guest is gone or nobody reads it.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use godwit_api::client::ConsoleStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::args::ConsoleArgs;
use super::failure::Failure;
use super::output;
use super::signals;

/// Ctrl-].
const LEAVE: u8 = 0x1d;
/// How often signals are looked for while nothing happens.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

pub(crate) fn console(args: &ConsoleArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?;
    let ConsoleStream { received, stream } = client.console().map_err(Failure::failed)?;
    signals::count_requests_to_leave()?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        output::message("attached; Ctrl-] leaves");
    }
    let raw = if terminal { Some(RawTerminal::enter()?) } else { None };
    let ended = if write_out(&received)? { carry(stream, terminal)? } else { Ended::Left };
    drop(raw);
    if terminal {
        output::message(match ended {
            Ended::Left => "detached; the guest runs on",
            Ended::GuestGone => "the console was closed by the VM process",
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Why the console ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The person left, or the reader of stdout did.
    Left,
    /// The VM process closed it.
    GuestGone,
}

/// The terminal without line editing and signals, until dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let failed = |errno: Errno| {
            Failure::failed(format!("can't use this terminal: {errno}; try with stdin from a pipe"))
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _terminal_is_gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn carry(mut stream: std::os::unix::net::UnixStream, terminal: bool) -> Result<Ended, Failure> {
    let broken = |error: std::io::Error| {
        Failure::failed(format!("the console's connection broke: {error}; see `godwit ps`"))
    };
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut typing = true;
    let mut buffer = [0_u8; 4096];
    while signals::requests_to_leave() == 0 {
        let readable = PollFlags::IN;
        let mut polled = [
            PollFd::new(&stream, readable),
            // Nothing is asked for: only tells when its reader has left.
            PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty()),
            PollFd::from_borrowed_fd(stdin.as_fd(), readable),
        ];
        let count = if typing { 3 } else { 2 };
        match poll(&mut polled[..count], Some(&POLL_INTERVAL)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(broken(errno.into())),
        }
        let [from_guest, reader, typed] = polled.map(|fd| fd.revents());
        if !from_guest.is_empty() {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(Ended::GuestGone),
                Ok(count) if write_out(&buffer[..count])? => {}
                Ok(_) => return Ok(Ended::Left),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Ok(Ended::GuestGone);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        if reader.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Ok(Ended::Left);
        }
        if typing && !typed.is_empty() {
            // Unbuffered: what std's stdin holds back, poll would not see.
            let count = match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Ok(count) => count,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(_) => 0,
            };
            if count == 0 {
                if terminal {
                    return Ok(Ended::Left);
                }
                typing = false;
                let _guest_is_gone_then = stream.shutdown(std::net::Shutdown::Write);
                continue;
            }
            let keys = &buffer[..count];
            let leave_at = if terminal { keys.iter().position(|key| *key == LEAVE) } else { None };
            match stream.write_all(&keys[..leave_at.unwrap_or(count)]) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Ended::GuestGone),
                other => other.map_err(broken)?,
            }
            if leave_at.is_some() {
                return Ok(Ended::Left);
            }
        }
    }
    Ok(Ended::Left)
}

/// Whether stdout still has a reader.
fn write_out(bytes: &[u8]) -> Result<bool, Failure> {
    Ok(output::bytes(bytes)? == output::Reader::There)
}
