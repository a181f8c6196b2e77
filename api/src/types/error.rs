//! What the API answers when something can't be done: what failed and why, and what to do next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a failure, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is malformed, names an unknown field, or is out of range.
    BadRequest,
    /// The request's body is larger than any request needs.
    TooLarge,
    /// No such route or no such thing.
    NotFound,
    /// The route exists, but not for this method.
    MethodNotAllowed,
    /// The VM's state does not allow it.
    WrongState,
    /// It would have been possible earlier: the door has been passed.
    TooLate,
    /// Something of the same kind is going on already.
    Busy,
    /// Known, but not in this version.
    NotSupported,
    /// The VM process failed at it.
    Internal,
    /// A code of a newer version.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status that carries this code.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::WrongState | Self::TooLate => 409,
            Self::TooLarge => 413,
            Self::Internal | Self::Unknown => 500,
            Self::NotSupported => 501,
            Self::Busy => 503,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}; {next}")]
pub struct ApiError {
    /// The kind, for programs.
    pub code: ErrorCode,
    /// What failed and why, in one line.
    pub message: String,
    /// What the person can do next.
    pub next: String,
}

impl ApiError {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: next.into() }
    }

    /// The VM's state does not allow it.
    pub fn wrong_state(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(ErrorCode::WrongState, message, next)
    }

    /// The VM process failed at it.
    pub fn internal(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message, next)
    }
}

/// A value that was refused before anything was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}; {next}")]
pub struct InvalidInput {
    /// The request's field.
    pub field: &'static str,
    /// Why it is refused.
    pub why: String,
    /// What to give instead.
    pub next: String,
    /// Whether it is well-formed but not in this version.
    pub not_supported: bool,
}

impl InvalidInput {
    /// A value that is malformed or out of range.
    pub fn new(field: &'static str, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { field, why: why.into(), next: next.into(), not_supported: false }
    }

    /// A value that this version does not support yet.
    pub fn not_supported(field: &'static str, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { not_supported: true, ..Self::new(field, why, next) }
    }
}

impl From<InvalidInput> for ApiError {
    fn from(invalid: InvalidInput) -> Self {
        let code = if invalid.not_supported { ErrorCode::NotSupported } else { ErrorCode::BadRequest };
        Self::new(code, format!("{}: {}", invalid.field, invalid.why), invalid.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_newer_version_is_still_an_error() {
        let error: ApiError =
            serde_json::from_str(r#"{"code":"from_the_future","message":"m","next":"n"}"#).expect("parses");
        assert_eq!(error.code, ErrorCode::Unknown);
        assert_eq!(error.to_string(), "m; n");
    }

    #[test]
    fn unsupported_input_is_told_apart_from_wrong_input() {
        let wrong: ApiError = InvalidInput::new("streams", "0 is too few", "give 1 to 64").into();
        assert_eq!(wrong.code.http_status(), 400);
        let later: ApiError = InvalidInput::not_supported("mode", "not yet", "use auto").into();
        assert_eq!(later.code.http_status(), 501);
    }
}
