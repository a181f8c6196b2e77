//! Requests and refusals as JSON, in one shape for every route.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;

/// The largest request body that is read.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self.0)).into_response()
    }
}

/// A JSON body. An empty one stands for `{}`, so that `curl -X PUT` without a body works where
/// every field has a default.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bad = |message: String| {
            Refusal(ApiError::new(
                ErrorCode::BadRequest,
                message,
                "see GET /openapi.json for the request's fields",
            ))
        };
        let body = match Bytes::from_request(request, state).await {
            Ok(body) => body,
            Err(BytesRejection::FailedToBufferBody(failed))
                if failed.status() == StatusCode::PAYLOAD_TOO_LARGE =>
            {
                return Err(Refusal(ApiError::new(
                    ErrorCode::TooLarge,
                    format!("the request's body is larger than {BODY_BYTES_MAX} bytes"),
                    "send only the fields that GET /openapi.json lists",
                )));
            }
            Err(rejection) => return Err(bad(format!("can't read the body: {rejection}"))),
        };
        let json: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|error| bad(format!("the body is not a valid request: {error}")))
    }
}

/// Runs a blocking call of the VM process on a blocking thread.
pub(super) async fn blocking<T, F>(call: F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(call).await.map_err(|_| {
        Refusal(ApiError::internal(
            "the VM process panicked while it handled this request",
            "look at its messages, and report this",
        ))
    })
}

/// A header value of this server's own making.
pub(super) const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");
