//! How a VM process ends, as scripts see it.

use std::process::ExitCode;

/// The exit status of `run` and `receive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "a debug exit is what the port is called")]
pub(crate) enum Exit {
    /// The guest powered off, was stopped, or was handed over.
    Done,
    /// Bad input, or the VM could not be started.
    StartFailed,
    /// The guest reset itself and `--on-reset exit` was given.
    Reset,
    /// The guest crashed: triple fault or KVM internal error.
    Crashed,
    /// `--expect` was not seen, or `--reject` was.
    Expectation,
    /// The VMM itself failed.
    VmmFailed,
    /// The guest wrote this to the debug-exit port.
    DebugExit(u32),
}

impl Exit {
    pub(super) fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StartFailed => 1,
            Self::Reset => 3,
            Self::Crashed => 4,
            Self::Expectation => 5,
            Self::VmmFailed => 6,
            // As QEMU's isa-debug-exit; a process's status has eight bits.
            Self::DebugExit(value) => ((value << 1) | 1).to_le_bytes()[0],
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_exit_is_odd_as_under_qemu() {
        assert_eq!(Exit::DebugExit(0).status(), 1);
        assert_eq!(Exit::DebugExit(0x10).status(), 0x21);
        assert_eq!(Exit::DebugExit(u32::MAX).status(), 0xff);
    }
}
