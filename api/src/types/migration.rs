//! A migration as its source describes it: the request, its progress, its result.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::limits;
use super::{InvalidInput, TargetAddress};

/// How memory moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationMode {
    /// The convergence policy decides.
    #[default]
    Auto,
    /// Rounds of copying while the guest runs, then a short blackout.
    Precopy,
    /// The guest runs at the target before its memory is there.
    Postcopy,
}

impl MigrationMode {
    /// The mode's name on the wire and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Precopy => "precopy",
            Self::Postcopy => "postcopy",
        }
    }
}

/// Asks a VM to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// Where to: `tcp:HOST:PORT`.
    pub target: String,
    /// How.
    #[serde(default)]
    pub mode: MigrationMode,
    /// The longest blackout that is acceptable.
    #[serde(default = "default_max_downtime_us")]
    #[schema(minimum = 100, maximum = 60_000_000)]
    pub max_downtime_us: u64,
    /// When to give up.
    #[serde(default = "default_timeout_ms")]
    #[schema(minimum = 100, maximum = 86_400_000)]
    pub timeout_ms: u64,
    /// The most that may be sent, in bits a second.
    #[serde(default)]
    #[schema(minimum = 1_000_000, maximum = 1_000_000_000_000_i64)]
    pub bandwidth_bits_per_s: Option<u64>,
    /// Data streams; the engine chooses when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 64)]
    pub streams: Option<u32>,
    /// Send the guest's memory in plain text over a network.
    #[serde(default)]
    pub insecure: bool,
}

const fn default_max_downtime_us() -> u64 {
    limits::MAX_DOWNTIME_DEFAULT_US
}

const fn default_timeout_ms() -> u64 {
    limits::TIMEOUT_DEFAULT_MS
}

impl MigrateRequest {
    /// A request with the defaults.
    pub fn to(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            mode: MigrationMode::default(),
            max_downtime_us: limits::MAX_DOWNTIME_DEFAULT_US,
            timeout_ms: limits::TIMEOUT_DEFAULT_MS,
            bandwidth_bits_per_s: None,
            streams: None,
            insecure: false,
        }
    }

    /// Checks every field and gives the target's address back, parsed.
    ///
    /// # Errors
    /// Names the first field that is refused, why, and what to give instead.
    pub fn validate(&self) -> Result<TargetAddress, InvalidInput> {
        let address: TargetAddress = self.target.parse().map_err(|error| {
            InvalidInput::new("target", format!("{error}"), "for example tcp:127.0.0.1:7000")
        })?;
        match &address {
            // The VM's process has a working directory of its own.
            TargetAddress::Unix { path } if !path.is_absolute() => {
                return Err(InvalidInput::new(
                    "target",
                    format!("the path {} is relative", path.display()),
                    "give an absolute path",
                ));
            }
            TargetAddress::Unix { .. } => {}
            TargetAddress::Tcp { port: 0, .. } => {
                return Err(InvalidInput::new(
                    "target",
                    "port 0 can't be connected to",
                    "give the port that `godwit receive` listens on",
                ));
            }
            TargetAddress::Tcp { .. } if !address.is_local() && !self.insecure => {
                return Err(InvalidInput::new(
                    "target",
                    format!(
                        "{address} is not this host, and the guest's memory would cross the network in plain text (TLS is not in this version yet)"
                    ),
                    "give --insecure if that network is trusted",
                ));
            }
            TargetAddress::Tcp { .. } => {}
        }
        if self.mode == MigrationMode::Postcopy {
            return Err(InvalidInput::not_supported(
                "mode",
                "post-copy is not in this version yet",
                "use auto or precopy",
            ));
        }
        within("max_downtime_us", self.max_downtime_us, &limits::MAX_DOWNTIME_US)?;
        within("timeout_ms", self.timeout_ms, &limits::TIMEOUT_MS)?;
        if let Some(bits) = self.bandwidth_bits_per_s {
            within("bandwidth_bits_per_s", bits, &limits::BANDWIDTH_BITS_PER_S)?;
        }
        if let Some(streams) = self.streams {
            within("streams", streams, &limits::STREAMS)?;
        }
        Ok(address)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), InvalidInput> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(InvalidInput::new(
        field,
        format!("{value} is out of range"),
        format!("give {} to {}", range.start(), range.end()),
    ))
}

/// What a migration is doing right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationPhase {
    /// Reaching the target and agreeing on a version.
    Connecting,
    /// The target builds the machine and faults its memory in.
    Preparing,
    /// Rounds of memory; the guest runs here.
    Precopy,
    /// The guest is paused: last pages and device state.
    StopAndCopy,
    /// COMMIT was sent; waits for Running.
    Committing,
}

impl MigrationPhase {
    /// The phase as people read it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Preparing => "preparing the target",
            Self::Precopy => "copying",
            Self::StopAndCopy => "switching over",
            Self::Committing => "handing over",
        }
    }
}

/// How far a migration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrationProgress {
    /// What it is doing.
    pub phase: MigrationPhase,
    /// The pre-copy round, from 1; 0 before the first.
    pub round: u32,
    /// Memory that still has to be sent, as known now.
    pub memory_left_bytes: u64,
    /// The guest's memory.
    pub memory_total_bytes: u64,
    /// Sent so far, on all streams.
    pub sent_bytes: u64,
    /// Sent a second, lately.
    pub rate_bytes_per_s: u64,
    /// Dirtied a second by the guest, lately.
    pub dirty_rate_bytes_per_s: u64,
    /// The blackout if it were stopped now; absent until rates are known.
    pub predicted_blackout_us: Option<u64>,
    /// Since the request.
    pub elapsed_ms: u64,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationOutcome {
    /// The guest runs at the target.
    Completed,
    /// The guest runs on here.
    Failed,
    /// Cancelled; the guest runs on here.
    Cancelled,
    /// Handed over, and nobody knows yet whether it arrived.
    Unconfirmed,
}

impl MigrationOutcome {
    /// The outcome's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The end of a migration. Serialised it is the contract's JSON line: its fields, their names and
/// their order are what scripts rely on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationResult {
    /// How it ended.
    pub status: MigrationOutcome,
    /// How memory moved.
    pub mode: MigrationMode,
    /// From the request to the end.
    pub total_ms: f64,
    /// From the first vCPU stopped to output flowing again; 0 if it never stopped, absent if the
    /// end of the blackout was not seen.
    pub downtime_ms: Option<f64>,
    /// Rounds, the last one in the blackout included.
    pub rounds: u32,
    /// Bytes sent on all streams.
    pub bytes_sent: u64,
    /// Pages sent with their content.
    pub pages_sent: u64,
    /// Pages that were only named as zero.
    pub zero_pages: u64,
    /// Why it did not complete; absent if it did.
    pub reason: Option<String>,
}

/// Milliseconds with microsecond precision, as [`MigrationResult`] has them.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, which is 285 years")]
pub fn ms_from_us(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// One line of a migration's answer: `{"progress":…}`, at the end `{"result":…}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationEvent {
    /// How far it is.
    Progress(MigrationProgress),
    /// How it ended: the last line.
    Result(MigrationResult),
}

/// The migration that is going on (no result yet), or the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationStatus {
    /// Where to.
    pub target: String,
    /// How.
    pub mode: MigrationMode,
    /// When it was asked for, in milliseconds since 1970.
    pub started_at_unix_ms: u64,
    /// The latest progress.
    pub progress: Option<MigrationProgress>,
    /// The end, when it has ended.
    pub result: Option<MigrationResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_the_contracts_line() {
        let result = MigrationResult {
            status: MigrationOutcome::Completed,
            mode: MigrationMode::Precopy,
            total_ms: ms_from_us(1_234_567),
            downtime_ms: Some(ms_from_us(987)),
            rounds: 3,
            bytes_sent: 10,
            pages_sent: 2,
            zero_pages: 1,
            reason: None,
        };
        assert_eq!(
            serde_json::to_string(&result).expect("serialises"),
            r#"{"status":"completed","mode":"precopy","total_ms":1234.567,"downtime_ms":0.987,"rounds":3,"bytes_sent":10,"pages_sent":2,"zero_pages":1,"reason":null}"#
        );
    }

    #[test]
    fn only_the_target_must_be_given() {
        let request: MigrateRequest =
            serde_json::from_str(r#"{"target":"tcp:127.0.0.1:7000"}"#).expect("parses");
        assert_eq!(request, MigrateRequest::to("tcp:127.0.0.1:7000"));
        request.validate().expect("valid");
        assert!(serde_json::from_str::<MigrateRequest>(r#"{"target":"t","max_downtime":1}"#).is_err());
    }

    #[test]
    fn each_bound_holds_on_both_sides() {
        let with = |change: &dyn Fn(&mut MigrateRequest)| {
            let mut request = MigrateRequest::to("tcp:[::1]:7000");
            change(&mut request);
            request.validate().map_err(|invalid| invalid.field)
        };
        assert!(with(&|r| r.max_downtime_us = 100).is_ok());
        assert_eq!(with(&|r| r.max_downtime_us = 99), Err("max_downtime_us"));
        assert_eq!(with(&|r| r.max_downtime_us = 60_000_001), Err("max_downtime_us"));
        assert_eq!(with(&|r| r.timeout_ms = 99), Err("timeout_ms"));
        assert_eq!(with(&|r| r.timeout_ms = 86_400_001), Err("timeout_ms"));
        assert_eq!(with(&|r| r.streams = Some(0)), Err("streams"));
        assert_eq!(with(&|r| r.streams = Some(65)), Err("streams"));
        assert!(with(&|r| r.streams = Some(64)).is_ok());
        assert_eq!(with(&|r| r.bandwidth_bits_per_s = Some(999_999)), Err("bandwidth_bits_per_s"));
        assert_eq!(with(&|r| r.mode = MigrationMode::Postcopy), Err("mode"));
        assert_eq!(with(&|r| r.target = "tcp:127.0.0.1:0".into()), Err("target"));
    }

    #[test]
    fn plain_text_over_a_network_must_be_asked_for() {
        let mut request = MigrateRequest::to("tcp:10.0.0.2:7000");
        let refused = request.validate().expect_err("refused");
        assert!(refused.next.contains("--insecure"));
        request.insecure = true;
        request.validate().expect("accepted");
        MigrateRequest::to("unix:/x").validate().expect("stays on this host");
        assert_eq!(MigrateRequest::to("unix:x").validate().expect_err("refused").field, "target");
    }
}
