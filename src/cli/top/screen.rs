//! The whole terminal, redrawn in place, given back as it was.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::cli::failure::Failure;
use crate::cli::output::{self, Reader};

/// The alternate screen, without a cursor; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Until dropped, the terminal is ours.
pub(super) struct Screen {
    /// How stdin was, if keys come from there.
    before: Option<Termios>,
}

impl Screen {
    pub(super) fn enter() -> Result<Self, Failure> {
        let mut before = None;
        if std::io::stdin().is_terminal()
            && let Ok(was) = tcgetattr(std::io::stdin())
        {
            let mut single_keys = was.clone();
            // Ctrl-C stays a signal.
            single_keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            // Without them a key counts only after Enter, and Ctrl-C works all the same.
            if tcsetattr(std::io::stdin(), OptionalActions::Now, &single_keys).is_ok() {
                before = Some(was);
            }
        }
        let screen = Self { before };
        output::bytes(ENTER)?;
        Ok(screen)
    }

    /// Replaces what is shown.
    pub(super) fn draw(&self, lines: &[String]) -> Result<Reader, Failure> {
        let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()));
        output::bytes(frame(lines, rows, columns).as_bytes())
    }

    /// Whether q was typed, waiting for that so long.
    pub(super) fn leaves_within(&self, within: Duration) -> bool {
        let stdin = std::io::stdin();
        let mut polled = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(within.subsec_nanos()) };
        // A signal ends the wait as well; whoever called looks for it.
        let watched = if self.before.is_some() { &mut polled[..] } else { &mut [] };
        if !matches!(poll(watched, Some(&wait)), Ok(1..)) {
            return false;
        }
        let mut keys = [0; 64];
        match rustix::io::read(stdin.as_fd(), &mut keys) {
            // The terminal is gone.
            Ok(0) => true,
            Ok(count) => keys[..count].iter().any(|key| matches!(key, b'q' | b'Q')),
            Err(error) => error != rustix::io::Errno::INTR,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _terminal_is_gone = output::bytes(LEAVE);
        if let Some(before) = &self.before {
            let _terminal_is_gone = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The lines from the top, cut to what the terminal shows; what was there before is gone.
fn frame(lines: &[String], rows: usize, columns: usize) -> String {
    let mut text = String::from("\x1b[H");
    for (index, line) in lines.iter().take(rows).enumerate() {
        if index > 0 {
            text.push_str("\r\n");
        }
        text.extend(line.chars().take(columns));
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls_the_terminal() {
        let lines: Vec<String> = ["abcdef", "x", "y"].map(str::to_owned).to_vec();
        assert_eq!(frame(&lines, 2, 3), "\x1b[Habc\x1b[K\r\nx\x1b[K\x1b[J");
        assert_eq!(frame(&lines, 9, 9).matches("\r\n").count(), 2);
        assert_eq!(frame(&[], 2, 3), "\x1b[H\x1b[J");
    }
}
