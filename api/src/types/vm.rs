//! One VM as its process describes it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MigrationStatus;

/// Which state the VM is in, in this process.
///
/// ```text
///             run ──▶ Running ⇄ Paused ──▶ Stopping        (process ends)
///                        │         ╲
///                        │ COMMIT   Crashed
///                        ▼
///   HandedOver ◀── Unconfirmed ──resolve──▶ Paused/Running, or the process ends
///
///             receive ──▶ Incoming ──COMMIT──▶ Running
/// ```
/// `Dead` is never said by a process about itself: it is what the registry shows for a state
/// file whose process is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VmState {
    /// The vCPUs run.
    Running,
    /// The vCPUs are stopped; the guest is here.
    Paused,
    /// A receiver: waits for a VM or is receiving it. Must not run it yet.
    Incoming,
    /// The guest runs at the target; this process is about to end.
    HandedOver {
        /// The target's address.
        to: String,
    },
    /// COMMIT was sent and nobody answered: the guest runs at the target or nowhere. Only
    /// `resolve` ends this state.
    Unconfirmed {
        /// The target's address.
        to: String,
        /// The epoch that was handed over.
        epoch: u64,
    },
    /// The process is ending.
    Stopping,
    /// The guest can't go on.
    Crashed {
        /// What happened.
        reason: String,
    },
    /// The process is gone without having removed its state file.
    Dead {
        /// The kind of the last state it wrote.
        was: String,
    },
}

impl VmState {
    /// The state's name on the wire, without its details.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Incoming => "incoming",
            Self::HandedOver { .. } => "handed_over",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Stopping => "stopping",
            Self::Crashed { .. } => "crashed",
            Self::Dead { .. } => "dead",
        }
    }

    /// Whether this process holds the guest, so that nobody else on this host may take its name.
    /// An unconfirmed source counts: the guest may have to resume in it.
    #[must_use]
    pub const fn holds_name(&self) -> bool {
        match self {
            Self::Running
            | Self::Paused
            | Self::Unconfirmed { .. }
            | Self::Stopping
            | Self::Crashed { .. } => true,
            Self::Incoming | Self::HandedOver { .. } | Self::Dead { .. } => false,
        }
    }
}

impl fmt::Display for VmState {
    /// As people read it; a program reads [`VmState::kind`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running | Self::Paused | Self::Incoming | Self::Stopping => f.write_str(self.kind()),
            Self::HandedOver { to } => write!(f, "handed over to {to}"),
            Self::Unconfirmed { to, epoch } => {
                write!(f, "handed over, unconfirmed (to {to}, epoch {epoch})")
            }
            Self::Crashed { reason } => write!(f, "crashed ({reason})"),
            Self::Dead { was } => write!(f, "dead (was {was})"),
        }
    }
}

/// All that a VM process says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmInfo {
    /// The VM's name. A receiver has a provisional one until the source has said Hello.
    pub name: String,
    /// Its state.
    pub state: VmState,
    /// The process that holds it.
    pub pid: u32,
    /// How often the right to run this guest has been burnt so far.
    pub epoch: u64,
    /// Virtual CPUs; absent while a receiver waits.
    pub cpus: Option<u32>,
    /// Guest memory; absent while a receiver waits.
    pub memory_bytes: Option<u64>,
    /// The kernel it was started with (`builtin` or a path), where known.
    pub kernel: Option<String>,
    /// The kernel's command line, where known.
    pub cmdline: Option<String>,
    /// When this process started, in milliseconds since 1970.
    pub started_at_unix_ms: u64,
    /// How long this process has been running.
    pub uptime_ms: u64,
    /// Console output that was dropped because nobody read it in time.
    pub console_dropped_bytes: u64,
    /// This API's socket.
    #[schema(value_type = String)]
    pub api_socket: PathBuf,
    /// Where a receiver listens; absent otherwise.
    #[serde(default)]
    pub listen: Option<String>,
    /// The migration that is going on, or the last one.
    pub migration: Option<MigrationStatus>,
    /// The debugger's port, where there is one.
    #[serde(default)]
    pub debugger: Option<DebuggerInfo>,
    /// Anything else a person should know, in one line.
    #[serde(default)]
    pub detail: Option<String>,
}

/// Where a debugger can attach, and whether one has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DebuggerInfo {
    /// What gdb's `target remote` takes: HOST:PORT or a path.
    pub address: String,
    /// Whether one is attached. It alone decides then whether the guest runs.
    pub attached: bool,
    /// What this host's KVM cannot do for a debugger.
    pub missing: Option<String>,
}

/// Asks the VM to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Stop although a migration is going on or the VM is in a state that asks for a decision.
    #[serde(default)]
    pub force: bool,
}

/// How an unconfirmed hand-over ends. Only a person who has looked at the target can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolveHow {
    /// The target does not run the guest and never will: it goes on here.
    ResumeHere,
    /// The target runs the guest: this copy is thrown away.
    Discard,
}

/// Ends an unconfirmed hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// Which way.
    pub how: ResolveHow,
}

/// Which program answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// Always `godwit`.
    pub program: String,
    /// The program's version.
    pub version: String,
    /// The API's version: the `v1` of its paths.
    pub api: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_tagged_by_kind() {
        let unconfirmed = VmState::Unconfirmed { to: "tcp:h:1".into(), epoch: 4 };
        assert_eq!(
            serde_json::to_string(&unconfirmed).expect("serialises"),
            r#"{"kind":"unconfirmed","to":"tcp:h:1","epoch":4}"#
        );
        assert_eq!(serde_json::to_string(&VmState::Running).expect("serialises"), r#"{"kind":"running"}"#);
        assert!(unconfirmed.to_string().starts_with("handed over, unconfirmed"));
    }

    #[test]
    fn every_kind_is_the_tag_on_the_wire() {
        let all = [
            VmState::Running,
            VmState::Paused,
            VmState::Incoming,
            VmState::HandedOver { to: "t".into() },
            VmState::Unconfirmed { to: "t".into(), epoch: 1 },
            VmState::Stopping,
            VmState::Crashed { reason: "r".into() },
            VmState::Dead { was: "running".into() },
        ];
        for state in all {
            let json = serde_json::to_value(&state).expect("serialises");
            assert_eq!(json["kind"], state.kind());
        }
    }

    #[test]
    fn a_misspelt_request_is_refused() {
        assert!(serde_json::from_str::<StopRequest>(r#"{"forced":true}"#).is_err());
        assert!(serde_json::from_str::<ResolveRequest>(r#"{"how":"guess"}"#).is_err());
        assert!(serde_json::from_str::<ResolveRequest>("{}").is_err());
    }
}
