//! The commands that vCPU 0 takes on its serial port, one a line.

use core::fmt;

use crate::units;

/// A serial command. `Display` writes it as the guest reads it, without the newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Digest of a range of guest-physical memory.
    Hash {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// Checks every page of every working set against what was last written, without writing.
    Verify,
    /// A report line of each dirtying vCPU, now.
    Stats,
    /// Answers `pong`.
    Ping,
    /// Says the text.
    Echo(&'a str),
    /// Powers off.
    Quit,
    /// Asks for a reset.
    Reset,
    /// Crashes by a triple fault.
    Crash,
    /// Writes the value to the isa-debug-exit port.
    Exit(u8),
    /// Says what the pvpanic port supports, then writes the value to it.
    Pvpanic(u8),
}

impl<'a> Command<'a> {
    /// Reads a line without its end; `None` if it is no command.
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim_ascii();
        if let Some(text) = line.strip_prefix("echo ") {
            return Some(Self::Echo(text));
        }
        let mut words = line.split_ascii_whitespace();
        let command = match words.next()? {
            "hash" => Self::Hash { start: units::size(words.next()?)?, len: units::size(words.next()?)? },
            "verify" => Self::Verify,
            "stats" => Self::Stats,
            "ping" => Self::Ping,
            "echo" => Self::Echo(""),
            "quit" => Self::Quit,
            "reset" => Self::Reset,
            "crash" => Self::Crash,
            "exit" => Self::Exit(units::number(words.next()?)?.try_into().ok()?),
            "pvpanic" => Self::Pvpanic(units::number(words.next()?)?.try_into().ok()?),
            _ => return None,
        };
        words.next().is_none().then_some(command)
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash { start, len } => write!(f, "hash {start:#x} {len:#x}"),
            Self::Verify => f.write_str("verify"),
            Self::Stats => f.write_str("stats"),
            Self::Ping => f.write_str("ping"),
            Self::Echo(text) => write!(f, "echo {text}"),
            Self::Quit => f.write_str("quit"),
            Self::Reset => f.write_str("reset"),
            Self::Crash => f.write_str("crash"),
            Self::Exit(value) => write!(f, "exit {value}"),
            Self::Pvpanic(value) => write!(f, "pvpanic {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for command in [
            Command::Hash { start: 0x10_0000, len: 1 << 40 },
            Command::Verify,
            Command::Stats,
            Command::Ping,
            Command::Echo("two words"),
            Command::Quit,
            Command::Reset,
            Command::Crash,
            Command::Exit(255),
            Command::Pvpanic(2),
        ] {
            assert_eq!(Command::parse(&command.to_string()), Some(command));
        }
    }

    #[test]
    fn sizes_and_stray_spaces_are_fine() {
        assert_eq!(Command::parse(" hash 1M  4k\r"), Some(Command::Hash { start: 1 << 20, len: 4096 }));
    }

    #[test]
    fn the_rest_is_no_command() {
        for line in ["", "hash", "hash 1", "hash 1 2 3", "exit 256", "exit", "pvpanic", "ping pong", "halt"] {
            assert_eq!(Command::parse(line), None, "{line:?}");
        }
    }
}
