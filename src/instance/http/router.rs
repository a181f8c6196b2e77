//! The routes, and the OpenAPI document that is generated from them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::get;
use godwit_api::{ApiError, ErrorCode, ResolveRequest, StopRequest, VersionInfo, VmInfo};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::control::Control;
use super::extract::{BODY_BYTES_MAX, JsonBody, Refusal, blocking};
use super::{console, inspect, log, migrations};

type Vm = State<Arc<dyn Control>>;
type InfoAnswer = Result<axum::Json<VmInfo>, Refusal>;

#[derive(OpenApi)]
#[openapi(info(
    title = "Godwit VM API",
    description = "One VM process, on its unix socket. Every refusal is an ApiError that says what failed, why, and what to do next.",
))]
struct Document;

fn routes() -> OpenApiRouter<Arc<dyn Control>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(info))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
        .routes(routes!(resolve))
        .routes(routes!(version))
        .routes(routes!(migrations::start))
        .routes(routes!(migrations::upgrade))
        .routes(routes!(migrations::status, migrations::cancel))
        .routes(routes!(inspect::memory))
        .routes(routes!(inspect::registers))
        .routes(routes!(console::attach))
        .routes(routes!(log::read))
}

/// The whole service.
pub(super) fn router(control: Arc<dyn Control>) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .route("/openapi.json", get(move || async move { axum::Json(document) }))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

/// All that the VM process says about itself.
#[utoipa::path(get, path = "/v1/vm", responses((status = 200, body = VmInfo)))]
async fn info(State(control): Vm) -> InfoAnswer {
    blocking(move || control.info()).await.map(axum::Json)
}

/// Pauses the guest; answers when no vCPU runs.
#[utoipa::path(
    put,
    path = "/v1/vm/pause",
    responses((status = 200, body = VmInfo), (status = 409, body = ApiError))
)]
async fn pause(State(control): Vm) -> InfoAnswer {
    Ok(axum::Json(blocking(move || control.pause()).await??))
}

/// Resumes the guest.
#[utoipa::path(
    put,
    path = "/v1/vm/resume",
    responses((status = 200, body = VmInfo), (status = 409, body = ApiError))
)]
async fn resume(State(control): Vm) -> InfoAnswer {
    Ok(axum::Json(blocking(move || control.resume()).await??))
}

/// Stops the guest and ends its process.
#[utoipa::path(
    put,
    path = "/v1/vm/stop",
    request_body = StopRequest,
    responses(
        (status = 202, description = "Asked; the process ends soon"),
        (status = 400, body = ApiError),
        (status = 409, description = "The state asks for a decision, or for force", body = ApiError),
    )
)]
async fn stop(State(control): Vm, JsonBody(request): JsonBody<StopRequest>) -> Result<StatusCode, Refusal> {
    blocking(move || control.stop(request.force)).await??;
    Ok(StatusCode::ACCEPTED)
}

/// Ends an unconfirmed hand-over, as a person has decided.
#[utoipa::path(
    post,
    path = "/v1/vm/resolve",
    request_body = ResolveRequest,
    responses(
        (status = 200, body = VmInfo),
        (status = 400, body = ApiError),
        (status = 409, description = "There is nothing to resolve", body = ApiError),
    )
)]
async fn resolve(State(control): Vm, JsonBody(request): JsonBody<ResolveRequest>) -> InfoAnswer {
    Ok(axum::Json(blocking(move || control.resolve(request.how)).await??))
}

/// Which program answers.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = VersionInfo)))]
async fn version() -> axum::Json<VersionInfo> {
    axum::Json(VersionInfo {
        program: "godwit".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        api: "v1".into(),
    })
}

async fn no_such_route() -> Refusal {
    Refusal(ApiError::new(ErrorCode::NotFound, "no such route", "see GET /openapi.json for the routes"))
}

async fn no_such_method() -> Refusal {
    Refusal(ApiError::new(
        ErrorCode::MethodNotAllowed,
        "this route has no such method",
        "see GET /openapi.json for the routes and their methods",
    ))
}
