//! The serial console over an upgraded connection: raw bytes in both directions.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_api::client::CONSOLE_PROTOCOL;
use godwit_api::{ApiError, ErrorCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::control::{ConsoleAttachment, ConsoleInput, Control};
use super::extract::{Refusal, blocking};

/// Consoles attached at the same time.
const CONSOLES_MAX: usize = 16;
static CONSOLES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(CONSOLES_MAX)));

/// How often a client that sends nothing more is looked at: it may have left.
const HANGUP_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Attaches to the serial console: after the upgrade the connection carries raw bytes both ways,
/// beginning with what the guest wrote lately.
#[utoipa::path(
    get,
    path = "/v1/vm/console",
    params(("Upgrade" = String, Header, description = "`godwit-console`")),
    responses(
        (status = 101, description = "The connection is the console now"),
        (status = 400, description = "Not asked for as an upgrade", body = ApiError),
        (status = 409, description = "The VM has no console to attach to", body = ApiError),
        (status = 503, description = "Too many are attached", body = ApiError),
    )
)]
pub(super) async fn attach(
    State(control): State<Arc<dyn Control>>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(CONSOLE_PROTOCOL.as_bytes()));
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (true, Some(upgrade)) = (asked, upgrade) else {
        return Err(Refusal(ApiError::new(
            ErrorCode::BadRequest,
            "the console needs a connection of its own",
            format!("send `Connection: Upgrade` and `Upgrade: {CONSOLE_PROTOCOL}`, or use `godwit console`"),
        )));
    };
    let permit = permit()?;
    let attachment = blocking(move || control.console()).await??;
    tokio::spawn(async move {
        let _permit = permit;
        if let Ok(upgraded) = upgrade.await {
            carry(upgraded, attachment).await;
        }
    });
    Ok((
        StatusCode::SWITCHING_PROTOCOLS,
        [(header::CONNECTION, "Upgrade"), (header::UPGRADE, CONSOLE_PROTOCOL)],
    )
        .into_response())
}

/// The right to be attached for a while, to write or only to read.
pub(super) fn permit() -> Result<OwnedSemaphorePermit, Refusal> {
    CONSOLES.clone().try_acquire_owned().map_err(|_| {
        Refusal(ApiError::new(
            ErrorCode::Busy,
            format!("{CONSOLES_MAX} consoles are attached already"),
            "leave one of them with Ctrl-], or end a `godwit logs --follow`",
        ))
    })
}

async fn carry(upgraded: Upgraded, attachment: ConsoleAttachment) {
    let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() else {
        tracing::error!("the console's connection is not a unix socket");
        return;
    };
    let (from_client, to_client) = parts.io.into_inner().into_split();
    let ConsoleAttachment { replay, output, input } = attachment;
    let typed_early = parts.read_buf.to_vec();
    tokio::select! {
        () = write_output(to_client, replay, output) => {}
        () = read_input(from_client, typed_early, input) => {}
    }
}

/// Ends when the guest is gone or the client does not take it any more.
async fn write_output(
    mut to_client: tokio::net::unix::OwnedWriteHalf,
    replay: Vec<u8>,
    mut output: tokio::sync::mpsc::Receiver<Vec<u8>>,
) {
    if to_client.write_all(&replay).await.is_err() {
        return;
    }
    while let Some(bytes) = output.recv().await {
        if to_client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Ends when the client has closed the connection, not when it merely sends nothing more.
async fn read_input(
    mut from_client: tokio::net::unix::OwnedReadHalf,
    typed_early: Vec<u8>,
    mut input: ConsoleInput,
) {
    let mut bytes = typed_early;
    loop {
        if !bytes.is_empty() {
            // The guest may be slow to take it: that must not stall the API's thread.
            let typed = tokio::task::spawn_blocking(move || {
                input(&bytes);
                input
            });
            match typed.await {
                Ok(returned) => input = returned,
                Err(_) => return,
            }
        }
        bytes = vec![0; 4096];
        match from_client.read(&mut bytes).await {
            Ok(0) => break,
            Ok(count) => bytes.truncate(count),
            Err(_) => return,
        }
    }
    // End of input: output goes on until the other direction is closed as well.
    loop {
        match from_client.as_ref().ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {
                tokio::time::sleep(HANGUP_CHECK_INTERVAL).await;
            }
            _ => return,
        }
    }
}
