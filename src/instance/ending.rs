//! How a VM process came to its end, for who tells of it afterwards.

use godwit_vmm::vcpu::GuestEnd;

use super::exit::Exit;
use super::watch::Verdict;

/// The end of a VM process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What scripts see.
    pub(crate) exit: Exit,
    /// What asked for it.
    pub(crate) why: Why,
    /// What is known of the guest's crash, if it crashed.
    pub(crate) crash: Option<String>,
}

/// What asked for the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The guest ended by itself, in this way.
    Guest(String),
    /// The guest runs elsewhere.
    HandedOver {
        /// The target's address.
        to: String,
    },
    /// A person, a program or a signal.
    Asked(&'static str),
    /// `--expect` and `--reject`.
    Lines(Verdict),
    /// This process could not go on, or could not begin.
    Failed(String),
}

impl Ending {
    /// Nothing could be started.
    pub(crate) fn not_started(why: String) -> Self {
        Self { exit: Exit::StartFailed, why: Why::Failed(why), crash: None }
    }
}

/// How the guest ended, after "the guest".
pub(super) fn of_guest(end: &GuestEnd) -> String {
    match end {
        GuestEnd::PoweredOff => "powered off".to_owned(),
        GuestEnd::Reset => "reset itself".to_owned(),
        GuestEnd::DebugExit(value) => format!("wrote {value:#x} to the debug-exit port"),
        GuestEnd::Crashed(report) => format!("crashed: {}", report.reason),
    }
}
