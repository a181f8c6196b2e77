//! The server's thread: accepts connections, and at the end waits for the answers in flight.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::control::Control;
use super::router::router;
use super::socket::ApiSocket;

/// Connections served at the same time; further ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's head, and an idle connection may stay.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Threads for blocking calls: enough for every connection.
const BLOCKING_THREADS_MAX: usize = CONNECTIONS_MAX + 16;

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
#[error("can't serve the API on {}: {source}; free memory or file descriptors and try again", path.display())]
pub(crate) struct ServeError {
    path: PathBuf,
    source: io::Error,
}

/// A running server. Dropping it stops the server without waiting for answers in flight.
#[derive(Debug)]
pub(crate) struct ServerHandle {
    socket: Option<Arc<ApiSocket>>,
    stop: watch::Sender<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves `control` on the socket, in a thread of its own, until the handle is shut down.
///
/// # Errors
/// When the thread or its runtime can't be had.
pub(crate) fn serve(socket: Arc<ApiSocket>, control: Arc<dyn Control>) -> Result<ServerHandle, ServeError> {
    let failed = |source| ServeError { path: socket.path(), source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_name("godwit-api-call")
        .build()
        .map_err(failed)?;
    let listener = {
        let _in_runtime = runtime.enter();
        socket.listener().and_then(UnixListener::from_std).map_err(failed)?
    };
    let (stop, stopped) = watch::channel(None);
    let router = router(control);
    let thread = std::thread::Builder::new()
        .name("godwit-api".into())
        .spawn(move || {
            runtime.block_on(accept(listener, router, stopped));
            // A blocking call that hangs must not keep the process alive.
            runtime.shutdown_timeout(Duration::from_millis(100));
        })
        .map_err(failed)?;
    Ok(ServerHandle { socket: Some(socket), stop, thread: Some(thread) })
}

impl ServerHandle {
    /// Removes the socket, then waits for the answers in flight, at most for `grace`: so a
    /// migration's result reaches its client although this process ends after the hand-over.
    pub(crate) fn shutdown(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        // Removed first: a new client gets "no such socket" and not a connection that nobody
        // will answer.
        drop(self.socket.take());
        self.stop.send_replace(Some(grace));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the API thread panicked");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

async fn accept(listener: UnixListener, router: Router, mut stopped: watch::Receiver<Option<Duration>>) {
    let mut connections = JoinSet::new();
    let grace = loop {
        let stop_requested = *stopped.borrow_and_update();
        if let Some(grace) = stop_requested {
            break grace;
        }
        tokio::select! {
            changed = stopped.changed() => if changed.is_err() { break Duration::ZERO },
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), stopped.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tracing::warn!(%error, "API connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    };
    drop(listener);
    let deadline = Instant::now() + grace;
    while let Ok(Some(_)) = tokio::time::timeout_at(deadline, connections.join_next()).await {}
}

async fn connection(stream: UnixStream, router: Router, mut stopped: watch::Receiver<Option<Duration>>) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        // A client that only half-closes still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = stop_asked_for(&mut stopped) => {
            // Ends an idle connection at once, a busy one after its answer.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "API connection ended early");
    }
}

async fn stop_asked_for(stopped: &mut watch::Receiver<Option<Duration>>) {
    // An error means that the handle is gone, which asks for the same.
    let _handle_is_gone = stopped.wait_for(Option::is_some).await.is_err();
}
