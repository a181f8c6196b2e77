//! `POST /v1/vm/upgrade`: the guest goes on in a new process on the same host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::InvalidInput;
use super::limits;

/// A request for a new process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// The godwit binary to go on in, as an absolute path; when absent, the file that this process was
    /// started from, or what is there by now.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub binary: Option<PathBuf>,
    /// When to give up.
    #[serde(default = "default_timeout_ms")]
    #[schema(minimum = 100, maximum = 86_400_000)]
    pub timeout_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    limits::TIMEOUT_DEFAULT_MS
}

impl Default for UpgradeRequest {
    fn default() -> Self {
        Self { binary: None, timeout_ms: limits::TIMEOUT_DEFAULT_MS }
    }
}

impl UpgradeRequest {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field that is refused, why, and what to give instead.
    pub fn validate(&self) -> Result<(), InvalidInput> {
        if let Some(binary) = self.binary.as_ref().filter(|binary| !binary.is_absolute()) {
            return Err(InvalidInput::new(
                "binary",
                format!(
                    "the path {} is relative, and the VM's process has a directory of its own",
                    binary.display()
                ),
                "give an absolute path",
            ));
        }
        if limits::TIMEOUT_MS.contains(&self.timeout_ms) {
            return Ok(());
        }
        Err(InvalidInput::new(
            "timeout_ms",
            format!("{} is out of range", self.timeout_ms),
            format!("give {} to {}", limits::TIMEOUT_MS.start(), limits::TIMEOUT_MS.end()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_started_from_anywhere() {
        assert!(UpgradeRequest::default().validate().is_ok());
        let of =
            |json| serde_json::from_str::<UpgradeRequest>(json).map(|request| request.validate().is_ok());
        assert!(of(r#"{"binary":"/usr/bin/godwit"}"#).is_ok_and(|valid| valid));
        assert!(of(r#"{"binary":"godwit"}"#).is_ok_and(|valid| !valid));
        assert!(of(r#"{"timeout_ms":1}"#).is_ok_and(|valid| !valid));
        assert!(of(r#"{"path":"/x"}"#).is_err());
    }
}
