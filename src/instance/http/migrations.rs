//! A migration's answer: one JSON line for each event, open until the end.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use godwit_api::{ApiError, ErrorCode, MigrateRequest, MigrationEvent, MigrationStatus, UpgradeRequest};
use tokio::sync::mpsc;

use super::control::Control;
use super::extract::{JsonBody, NDJSON, Refusal, blocking};

/// Lines that wait for a slow client before progress is dropped.
const LINES_WAITING_MAX: usize = 16;

/// Moves the VM. The answer streams `{"progress":…}` lines while the migration goes on and ends
/// with one `{"result":…}` line. Closing the connection does not stop the migration.
#[utoipa::path(
    post,
    path = "/v1/vm/migrations",
    request_body = MigrateRequest,
    responses(
        (status = 200, description = "One event a line", body = MigrationEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "Malformed or out of range", body = ApiError),
        (status = 409, description = "The VM's state does not allow it", body = ApiError),
        (status = 501, description = "Not in this version", body = ApiError),
        (status = 503, description = "A migration is going on", body = ApiError),
    )
)]
pub(super) async fn start(
    State(control): State<Arc<dyn Control>>,
    JsonBody(request): JsonBody<MigrateRequest>,
) -> Result<Response, Refusal> {
    request.validate().map_err(ApiError::from)?;
    let events = blocking(move || control.migrate(request)).await??;
    Ok(stream_of(events))
}

/// Lets the guest go on in a new process on this host: starts it with this process's standard streams,
/// serial port and API path, and hands the guest over without copying it. The answer is as of a
/// migration.
#[utoipa::path(
    post,
    path = "/v1/vm/upgrade",
    request_body = UpgradeRequest,
    responses(
        (status = 200, description = "One event a line", body = MigrationEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "Malformed, or that binary can't be started", body = ApiError),
        (status = 409, description = "The VM's state does not allow it", body = ApiError),
        (status = 500, description = "The new process could not receive", body = ApiError),
        (status = 503, description = "A migration is going on", body = ApiError),
    )
)]
pub(super) async fn upgrade(
    State(control): State<Arc<dyn Control>>,
    JsonBody(request): JsonBody<UpgradeRequest>,
) -> Result<Response, Refusal> {
    request.validate().map_err(ApiError::from)?;
    let events = blocking(move || control.upgrade(request)).await??;
    Ok(stream_of(events))
}

fn stream_of(events: mpsc::Receiver<MigrationEvent>) -> Response {
    let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
    // A task of its own: the engine's channel is drained whatever the client does.
    tokio::spawn(forward(events, lines));
    let body = stream::unfold(waiting, |mut waiting| async move {
        let line: Bytes = waiting.recv().await?;
        Some((Ok::<_, Infallible>(line), waiting))
    });
    ([NDJSON], Body::from_stream(body)).into_response()
}

/// Progress is dropped when the client is slow, as the next one replaces it; the result waits.
async fn forward(mut events: mpsc::Receiver<MigrationEvent>, lines: mpsc::Sender<Bytes>) {
    while let Some(event) = events.recv().await {
        let Ok(mut line) = serde_json::to_vec(&event) else {
            continue;
        };
        line.push(b'\n');
        match event {
            MigrationEvent::Progress(_) => {
                let _dropped_when_full = lines.try_send(line.into());
            }
            MigrationEvent::Result(_) => {
                let _client_is_gone = lines.send(line.into()).await;
            }
        }
    }
}

/// The migration that is going on, or the last one.
#[utoipa::path(
    get,
    path = "/v1/vm/migration",
    responses(
        (status = 200, body = MigrationStatus),
        (status = 404, description = "None was started in this process", body = ApiError),
    )
)]
pub(super) async fn status(
    State(control): State<Arc<dyn Control>>,
) -> Result<axum::Json<MigrationStatus>, Refusal> {
    let status = blocking(move || control.migration()).await?;
    status.map(axum::Json).ok_or_else(|| {
        Refusal(ApiError::new(
            ErrorCode::NotFound,
            "this VM process has started no migration",
            "start one with `godwit migrate`",
        ))
    })
}

/// Asks the running migration to stop; its result says whether that was in time.
#[utoipa::path(
    delete,
    path = "/v1/vm/migration",
    responses(
        (status = 202, description = "Asked; the result follows"),
        (status = 404, description = "No migration is going on", body = ApiError),
        (status = 409, description = "Too late: the guest has been handed over", body = ApiError),
    )
)]
pub(super) async fn cancel(State(control): State<Arc<dyn Control>>) -> Result<StatusCode, Refusal> {
    blocking(move || control.cancel()).await??;
    Ok(StatusCode::ACCEPTED)
}
