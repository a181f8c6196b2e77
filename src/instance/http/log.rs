//! The serial output for who only reads: raw bytes with their position, to the present or onwards.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use godwit_api::client::{CONSOLE_FROM_HEADER, CONSOLE_LAST_HEADER};
use godwit_api::{ApiError, ErrorCode};
use serde::Deserialize;

use super::console;
use super::control::Control;
use super::extract::{Refusal, blocking};

/// What is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// The position of the first byte: how many the guest wrote before it. 0 when left out.
    #[serde(default)]
    from: u64,
    /// Whether the answer stays open for what comes. It ends when the guest is gone, after some seconds of
    /// silence, and when the client did not keep up: it asks anew from where it is, and learns which.
    #[serde(default)]
    follow: bool,
}

/// What the guest wrote to its serial port, as far as it is still held, as raw bytes.
#[utoipa::path(
    get,
    path = "/v1/vm/console/log",
    params(LogQuery),
    responses(
        (
            status = 200,
            description = "The bytes",
            content_type = "application/octet-stream",
            headers(
                ("godwit-console-from" = u64, description = "Position of the first byte; what lies between the one asked for and this has been overwritten"),
                ("godwit-console-last" = bool, description = "Whether nothing can come after these bytes"),
            )
        ),
        (status = 400, description = "Malformed", body = ApiError),
        (status = 503, description = "Too many are attached", body = ApiError),
    )
)]
pub(super) async fn read(
    State(control): State<Arc<dyn Control>>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(LogQuery { from, follow }) = query.map_err(|rejection| {
        let next = "see GET /openapi.json for the parameters";
        Refusal(ApiError::new(ErrorCode::BadRequest, rejection.body_text(), next))
    })?;
    let permit = if follow { Some(console::permit()?) } else { None };
    let log = blocking(move || control.console_log(from, follow)).await??;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (CONSOLE_FROM_HEADER, log.from.to_string()),
        (CONSOLE_LAST_HEADER, log.last.to_string()),
    ];
    let Some(more) = log.more else {
        return Ok((headers, log.bytes).into_response());
    };
    let now = stream::iter([Ok::<_, Infallible>(Bytes::from(log.bytes))]);
    let later = stream::unfold((more, permit), |(mut more, permit)| async move {
        let bytes = more.recv().await?;
        Some((Ok(Bytes::from(bytes)), (more, permit)))
    });
    Ok((headers, Body::from_stream(now.chain(later))).into_response())
}
