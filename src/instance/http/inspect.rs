//! A look into the guest.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use godwit_api::{ApiError, ErrorCode, GuestRange, VmRegisters};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::IntoParams;

use super::control::Control;
use super::extract::{Refusal, blocking};

/// Answers with guest memory that exist at the same time; further requests wait. Each holds up to 16 MiB.
const ANSWERS_MAX: usize = 4;
static ANSWERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(ANSWERS_MAX)));

/// Which memory.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MemoryQuery {
    /// Guest-physical address of the first byte, in decimal or as 0x…
    #[param(example = "0x100000")]
    address: String,
    /// How many bytes, 1 to 16777216, in decimal or as 0x…
    #[param(example = "4096")]
    length: String,
}

/// Memory on its way out, until the last byte of it is sent.
struct Answer {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Guest-physical memory, as bytes. A running guest is not stopped: its bytes are then from different
/// moments; pause it for a consistent picture. Refused while a migration is under way.
#[utoipa::path(
    get,
    path = "/v1/vm/memory",
    params(MemoryQuery),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "Malformed, too long, or not RAM", body = ApiError),
        (status = 409, description = "The VM's state does not allow it", body = ApiError),
    )
)]
pub(super) async fn memory(
    State(control): State<Arc<dyn Control>>,
    query: Result<Query<MemoryQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|rejection| {
        Refusal(ApiError::new(
            ErrorCode::BadRequest,
            rejection.body_text(),
            "ask like GET /v1/vm/memory?address=0x100000&length=4096",
        ))
    })?;
    let range = GuestRange::parse(&query.address, &query.length).map_err(ApiError::from)?;
    let permit = ANSWERS
        .clone()
        .acquire_owned()
        .await
        .map_err(|_| Refusal(ApiError::internal("memory cannot be read any more", "report this")))?;
    let bytes = blocking(move || control.memory(range)).await??;
    let body = Bytes::from_owner(Answer { bytes, _permit: permit });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// The registers of every vCPU, at one moment. A running guest is stopped for that moment. Refused while
/// a migration is under way.
#[utoipa::path(
    get,
    path = "/v1/vm/registers",
    responses(
        (status = 200, body = VmRegisters),
        (status = 409, description = "The VM's state does not allow it", body = ApiError),
    )
)]
pub(super) async fn registers(
    State(control): State<Arc<dyn Control>>,
) -> Result<axum::Json<VmRegisters>, Refusal> {
    Ok(axum::Json(blocking(move || control.registers()).await??))
}
