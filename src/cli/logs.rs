//! `godwit logs`: what the guest wrote to its serial port, as far as the VM process still holds it.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use godwit_api::client::{ANSWER_BYTES_MAX, Client, ClientError, ConsoleLog, LogPolled};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::args::LogsArgs;
use super::failure::Failure;
use super::output;
use super::signals;

/// How often a signal or a reader that left is looked for while nothing arrives.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two attempts that brought nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts to reach a process that has just ended an answer: it may be about to end itself.
const ATTEMPTS: u32 = 50;

pub(crate) fn logs(args: &LogsArgs) -> Result<ExitCode, Failure> {
    let client = args.vm.client()?;
    if args.follow {
        signals::count_requests_to_leave()?;
    }
    let mut log = client.console_log(0, false).map_err(Failure::failed)?;
    let held = read_all(&mut log, &client)?;
    let shown = args.lines.map_or(held.as_slice(), |lines| last_lines(&held, lines));
    // Whoever asked for the last lines and got them misses nothing.
    let wanted_more = args.lines.is_none_or(|lines| count_lines(shown) < lines);
    if log.from() > 0 && shown.len() == held.len() && wanted_more {
        let missed = log.from();
        output::message(format!("the first {missed} bytes are no longer held; what follows is the rest"));
    }
    let reader = output::bytes(shown)?;
    if args.follow && !log.is_last() && reader == output::Reader::There {
        follow(&client, log.from() + held.len() as u64)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_all(log: &mut ConsoleLog, client: &Client) -> Result<Vec<u8>, Failure> {
    let mut held = Vec::new();
    loop {
        match log.poll(godwit_api::client::TIMEOUT_DEFAULT).map_err(Failure::failed)? {
            LogPolled::Bytes(bytes) if held.len() + bytes.len() <= ANSWER_BYTES_MAX => held.extend(bytes),
            LogPolled::Ended => return Ok(held),
            LogPolled::Bytes(_) | LogPolled::Waiting => {
                let socket = client.socket().display();
                return Err(Failure::failed(format!(
                    "the VM on {socket} does not end its answer; check that both ends are the same version of godwit"
                )));
            }
        }
    }
}

/// Shows what comes, until the guest is gone, the reader is, or a person has had enough.
fn follow(client: &Client, mut position: u64) -> Result<(), Failure> {
    let mut attempts = 0;
    loop {
        let mut log = match client.console_log(position, true) {
            Ok(log) => log,
            Err(ClientError::NoSuchSocket { .. } | ClientError::Refused { .. }) => return Ok(()),
            Err(ClientError::Io { .. }) if attempts < ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(Failure::failed(error)),
        };
        attempts = 0;
        let missed = log.from().saturating_sub(position);
        if missed > 0 {
            output::message(format!("{missed} bytes were overwritten before they could be read"));
        }
        let begin = log.from();
        position = begin;
        loop {
            match log.poll(LOOK_EVERY) {
                Ok(LogPolled::Bytes(bytes)) => {
                    position += bytes.len() as u64;
                    if output::bytes(&bytes)? == output::Reader::Gone {
                        return Ok(());
                    }
                }
                Ok(LogPolled::Waiting) if reader_has_left() => return Ok(()),
                Ok(LogPolled::Waiting) => {}
                Ok(LogPolled::Ended) if log.is_last() => return Ok(()),
                Ok(LogPolled::Ended) => break,
                // A process that was killed: asking anew tells.
                Err(error) => {
                    output::message(error);
                    break;
                }
            }
            if signals::requests_to_leave() > 0 {
                return Ok(());
            }
        }
        if position == begin && missed == 0 {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether nobody reads stdout any more. Nothing is asked for: only tells when its reader has left.
fn reader_has_left() -> bool {
    let stdout = std::io::stdout();
    let mut polled = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
}

/// Lines, counting one without an end.
fn count_lines(bytes: &[u8]) -> usize {
    let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(bytes.last().is_some_and(|byte| *byte != b'\n'))
}

/// The last `lines` lines; one without an end counts.
fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    // The end of the last line does not begin another one.
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let begin = ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0);
    &bytes[begin..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree";
        for (lines, expected) in
            [(0, ""), (1, "three"), (2, "two\nthree"), (3, "one\ntwo\nthree"), (9, "one\ntwo\nthree")]
        {
            assert_eq!(last_lines(text, lines), expected.as_bytes(), "{lines}");
        }
        assert_eq!(last_lines(b"one\ntwo\n", 1), b"two\n", "an end does not begin a line");
        assert_eq!(last_lines(b"\n\n\n", 2), b"\n\n");
        assert_eq!(last_lines(b"", 5), b"");
        assert_eq!(last_lines(b"\xff\x00\n\xfe", 1), b"\xfe");
    }

    #[test]
    fn a_line_without_an_end_is_one() {
        assert_eq!([b"".as_slice(), b"a", b"a\n", b"a\nb"].map(count_lines), [0, 1, 1, 2]);
    }
}
